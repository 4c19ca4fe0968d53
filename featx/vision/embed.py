"""The one forward loop: uint8 pixels in, rows of features out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from featx.errors import DeviceError, DeviceMemoryError, FeatxError, InputError, UsageError
from featx.vision.backbones import Backbone
from featx.vision.devices import (
    AUTO,
    choose_device,
    describe_numerics,
    exact_arithmetic,
    is_device_failure,
    is_out_of_memory,
)
from featx.vision.normalisation import Normalisation
from featx.vision.nvjpeg import check_nvjpeg
from featx.vision.own import is_own
from featx.vision.reading import NVJPEG
from featx.vision.resize import ResizePlan, check_resize
from featx.vision.runtimes import make_runtime
from featx.vision.staging import CudaLanes, Lanes, Stager

T = TypeVar("T")

Rows = tuple[NDArray[np.float32], NDArray[np.float32] | None]
"""Features (B, n_features), pooled and not yet rounded to the stored dtype, NaN and infinite values left in; and the
network's own class scores (B, n_source_classes) where the spec asks for them."""

_AHEAD = 2
"""Batches handed to a GPU before the first one's result is taken: one in work, one that has arrived, one on its way. On
the cores of a CPU it is one, so that none has to wait for the last part of a batch."""


class Pending(Protocol):
    """A batch whose features are being computed."""

    def result(self) -> Rows:
        """Wait, and return the rows of the embedder's backbone."""

    def results(self) -> list[Rows]:
        """Wait, and return the rows of each of the embedder's backbones."""

    def cancel(self) -> None:
        """Leave what has not begun; nobody asks for the rows any more."""


class Embedder:
    """Computes features of batches with a backbone on a device.

    The network is in eval mode and float32 without TF32, so that the device and the size of a batch change the features
    by rounding only; a spec with another dtype runs under autocast. Batches are computed beside the caller: on a GPU,
    see `featx.vision.staging`, and on several cores, see `featx.vision.parts`, where the runtime can; otherwise in the
    caller's thread. Several threads may use it at once.

    Parameters
    ----------
    backbone : Backbone
        Its network is moved to the device.
    also : sequence of Backbone
        Other readings (node, pooling) of the very same network: one forward pass serves all. Their networks are not
        touched.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    runtime : str
        What executes the network; see `featx.vision.runtimes.make_runtime`.
    n_images : int, optional
        How many images are in the source; see there.
    lanes : Lanes, optional
        How work is queued on the device; None: as suits it.

    Attributes
    ----------
    backbone : Backbone
        As given.
    backbones : tuple of Backbone
        It and the others.
    device : str
        The device in use.
    ahead : int
        How many batches to `submit` before the first one's result is taken keep the device busy; 0: none.
    numerics : str
        The arithmetic in words (``"float32, TF32 off"``).
    runtime : str
        What executes the network.

    Raises
    ------
    UsageError
        If a device that was asked for is not there, cannot do what the spec's decoder needs, `also` holds another
        network, or the runtime cannot take the network.
    UnknownNameError, MissingExtraError
        If there is no such runtime, or not on this machine.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        also: Sequence[Backbone] = (),
        device: str = AUTO,
        runtime: str = AUTO,
        n_images: int | None = None,
        lanes: Lanes | None = None,
    ) -> None:
        self.backbone = backbone
        self.backbones = (backbone, *also)
        for other in also:
            _check_same_network(backbone, other)
        self.device = choose_device(device)
        if backbone.spec.preprocess.decoder == NVJPEG:
            check_nvjpeg(self.device, backbone.spec.views)
        self.numerics = describe_numerics(self.device, backbone.spec.dtype)
        self._device = torch.device(self.device)
        self._run = make_runtime(runtime, self.backbones, self.device, n_images=n_images)
        self.runtime = self._run.name
        preprocess = backbone.spec.preprocess
        self._normalised = Normalisation(preprocess, self.device, self._run.task.layout)
        height, width = preprocess.crop or preprocess.resize
        self._image_shape = (3, height, width)
        self._lock = threading.Lock()  # reading goes through hooks on the network
        if lanes is None and self._device.type == "cuda":
            lanes = CudaLanes(self._device)
        self._stager = None if lanes is None else Stager(lanes, ahead=_AHEAD)
        self._parts = self._run.parts if self._stager is None else None
        self.ahead = _AHEAD if self._stager is not None else int(self._parts is not None and self._parts.beside)
        self._resizes = False  # not known yet to be able to

    def __call__(self, pixels: NDArray[np.uint8]) -> Rows:
        """Compute one batch: `submit` and wait.

        Parameters
        ----------
        pixels : uint8 array (B, 3, h, w)
            RGB, resized and cropped; B of at least 1.

        Returns
        -------
        features, logits
            See `Rows`.

        Raises
        ------
        DeviceMemoryError
            If the device has too little memory for the batch.
        DeviceError
            If the device fails.
        InputError
            If a user's own network fails.
        """
        return self.submit(pixels).result()

    def buffer(self, n: int) -> NDArray[np.uint8]:
        """Return a uint8 array (n, 3, h, w) to fill with a batch for the next `submit`.

        On a GPU it is page-locked memory from which the device copies by itself. It holds until the next call; a batch
        that is submitted in vain stays in it.
        """
        shape = (n, *self._image_shape)
        return np.empty(shape, np.uint8) if self._stager is None else self._stager.buffer(shape)

    def submit(self, pixels: NDArray[np.uint8]) -> Pending:
        """Begin with one batch, as `__call__` takes it.

        Returns
        -------
        Pending
            Its result may be taken in any order, from any thread, more than once; at most `ahead` + 1 batches are
            under way at a time.
        """
        return self._begin([pixels], len(pixels), lambda flat: flat.view(pixels.shape))

    def submit_images(self, images: Sequence[NDArray[np.uint8]]) -> Pending:
        """Begin with one batch of whole images, which the device resizes and crops as Pillow does, to the bit.

        Parameters
        ----------
        images : sequence of uint8 array (height, width, 3)
            RGB, right side up, of any sizes; at least one.

        Raises
        ------
        DeviceError
            If the device does not resize as Pillow does on this machine.
        ImageDecodeError
            As `featx.vision.images.preprocess_pixels`.
        """
        preprocess = self.backbone.spec.preprocess
        if not self._resizes:
            check_resize(preprocess, self._device)
            self._resizes = True
        plan = ResizePlan(preprocess, [(image.shape[0], image.shape[1]) for image in images])
        return self._begin([plan.tables, *images], len(images), plan)

    def _begin(
        self, host: list[NDArray[np.uint8]], n: int, pixels_of: Callable[[torch.Tensor], torch.Tensor]
    ) -> Pending:
        """Begin with n images; `pixels_of` makes uint8 (n, 3, h, w) of the bytes on the device."""
        stager, parts = self._stager, self._parts
        if stager is not None:
            flight = self._guarded(lambda: stager.launch(host, lambda flat: self.forward(pixels_of(flat))), n)
            return _Pending(lambda: self._rows(lambda: stager.land(flight), n))
        flat = torch.from_numpy(_joined(host)).to(self._device)
        if parts is not None:
            begun = self._guarded(lambda: parts.begin(pixels_of(flat), self._normalised), n)
            return _Pending(lambda: self._rows(lambda: _arrays(begun.result()), n), begun.cancel)
        rows = self._rows(lambda: _arrays(self.forward(pixels_of(flat))), n)
        return _Pending(lambda: rows)

    def _rows(self, wait: Callable[[], list[NDArray[np.float32]]], n: int) -> list[Rows]:
        """Wait for the outputs of n images, and return them as the rows of each backbone."""
        outputs = self._guarded(wait, n)
        features, scores = outputs[: len(self.backbones)], outputs[-1]
        return [
            (rows, scores if backbone.spec.logits else None)
            for backbone, rows in zip(self.backbones, features, strict=True)
        ]

    def _guarded(self, work: Callable[[], T], n: int) -> T:
        """Do work on the device for n images; what goes wrong is told with the device's name."""
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, FeatxError):
                raise
            if not is_out_of_memory(error):
                if is_device_failure(error):
                    raise DeviceError(str(error).partition("\n")[0], device=self.device) from error
                raise
        # Only here is the traceback gone, and with it the batch's tensors.
        if self._stager is not None:
            self._stager.recover()
        raise DeviceMemoryError(device=self.device, batch=n)

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Normalise a batch that is on the device and run the network; on a GPU this does not wait for it.

        Parameters
        ----------
        pixels : torch.Tensor
            uint8 (B, 3, h, w) on the device.

        Returns
        -------
        list of torch.Tensor
            On the device, float32: the features (B, n_features) of each backbone, and last the class scores
            (B, n_source_classes) if one of them wants them.
        """
        spec = self.backbone.spec
        with self._lock, torch.inference_mode(), exact_arithmetic:
            images = self._normalised(pixels)
            try:
                features, scores = self._run(images)
            except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
                if isinstance(error, FeatxError) or not is_own(spec.backbone) or is_out_of_memory(error):
                    raise
                raise InputError(
                    f"backbone {spec.backbone}: the network failed on {len(pixels)} images of "
                    f"{pixels.shape[2]} x {pixels.shape[3]} pixels: {type(error).__name__}: {error}"
                ) from error
        return features if scores is None else [*features, scores]


class _Pending:
    def __init__(self, wait: Callable[[], list[Rows]], cancel: Callable[[], object] = lambda: None) -> None:
        self._wait, self._cancel = wait, cancel

    def result(self) -> Rows:
        return self.results()[0]

    def results(self) -> list[Rows]:
        return self._wait()

    def cancel(self) -> None:
        self._cancel()


def _arrays(outputs: Sequence[torch.Tensor]) -> list[NDArray[np.float32]]:
    return [output.cpu().numpy() for output in outputs]


def _joined(parts: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    flat = [np.ascontiguousarray(part).reshape(-1) for part in parts]
    return flat[0] if len(flat) == 1 else np.concatenate(flat)


def _check_same_network(backbone: Backbone, other: Backbone) -> None:
    for name, (mine, its) in backbone.spec.differences(other.spec).items():
        if name not in ("node", "pooling", "feature_shape", "storage", "logits"):
            raise UsageError(f"one forward pass cannot give features of two networks: {name} is {mine} and {its}")
