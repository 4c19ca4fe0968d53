"""The one forward loop: uint8 pixels in, rows of features out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from featx.errors import FeatxError, InputError, UsageError
from featx.vision.backbones import Backbone
from featx.vision.nodes import read_features
from featx.vision.own import is_own

AUTO = "auto"


class Embedder:
    """Computes features of batches with a backbone on a device.

    The network is in eval mode and float32 without TF32, so that the device and the size of a batch change the features
    by rounding only; a spec with another dtype runs under autocast.

    Parameters
    ----------
    backbone : Backbone
        Its network is moved to the device.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.

    Attributes
    ----------
    backbone : Backbone
        As given.
    device : str
        The device in use.

    Raises
    ------
    UsageError
        If a device that was asked for is not there.
    """

    def __init__(self, backbone: Backbone, *, device: str = AUTO) -> None:
        self.backbone = backbone
        self.device = choose_device(device)
        # Faster for convolutions; a user's own network may hold a view() that cannot do with it.
        self._layout = torch.contiguous_format if is_own(backbone.spec.backbone) else torch.channels_last
        self._network = backbone.network.to(self.device, memory_format=self._layout)  # type: ignore[call-overload]
        preprocess = backbone.spec.preprocess
        self._mean, self._std = (
            torch.tensor(values, device=self.device).view(-1, 1, 1) for values in (preprocess.mean, preprocess.std)
        )

    def __call__(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Compute one batch.

        Parameters
        ----------
        pixels : uint8 array (B, 3, h, w)
            RGB, resized and cropped; B of at least 1.

        Returns
        -------
        features : float32 array (B, n_features)
            Pooled, not yet rounded to the stored dtype; NaN and infinite values are left in.
        logits : float32 array (B, n_source_classes), or None
            The network's own class scores, where the spec asks for them.

        Raises
        ------
        UsageError
            If the device has too little memory.
        InputError
            If a user's own network fails.
        """
        spec, device = self.backbone.spec, torch.device(self.device)
        with torch.inference_mode(), _exact(device), _autocast(device, spec.dtype):
            # In the order of torchvision's own transform, so that the last bit is the same.
            images = torch.from_numpy(pixels).to(device).float().div_(255).sub_(self._mean).div_(self._std)
            images = images.contiguous(memory_format=self._layout)
            try:
                features, scores = read_features(
                    self._network, images, self.backbone.node, spec.pooling, with_scores=spec.logits
                )
            except torch.OutOfMemoryError as error:
                raise UsageError(
                    f"device {self.device} has too little memory for {len(pixels)} images at once; "
                    "take a smaller --batch-size"
                ) from error
            except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
                if isinstance(error, FeatxError) or not is_own(spec.backbone):
                    raise
                raise InputError(
                    f"backbone {spec.backbone}: the network failed on {len(pixels)} images of "
                    f"{pixels.shape[2]} x {pixels.shape[3]} pixels: {type(error).__name__}: {error}"
                ) from error
        return features.cpu().numpy(), None if scores is None else scores.cpu().numpy()


def choose_device(device: str = AUTO) -> str:
    """Return the device to use: a CUDA GPU, Apple's, or the CPU for ``"auto"``, else the one asked for.

    Raises
    ------
    UsageError
        If the device does not exist on this machine.
    """
    if device == AUTO:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"device {device!r} does not exist; take auto, cpu, cuda, cuda:1 or mps") from error
    n_devices = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }.get(wanted.type)
    if n_devices is None:
        raise UsageError(f"device {device!r} is none that featx runs on; take auto, cpu, cuda, cuda:1 or mps")
    if (wanted.index or 0) >= n_devices:
        found = f"torch sees {n_devices} of this kind" if n_devices else f"torch {torch.__version__} sees none"
        raise UsageError(f"device {device!r} is not on this machine ({found}); --device auto takes what there is")
    return device


@contextlib.contextmanager
def _exact(device: torch.device) -> Iterator[None]:
    """Compute float32 as float32, and every time alike; PyTorch lets convolutions run in TF32 on CUDA otherwise."""
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32)
    cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32 = False, False, True, False
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32 = before


def _autocast(device: torch.device, dtype: str) -> contextlib.AbstractContextManager[object]:
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, dtype))
