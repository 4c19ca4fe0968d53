"""JPEGs decoded on an NVIDIA GPU: another decoder than Pillow's, with other last bits, so its name is in the spec.

What nvJPEG takes is decoded by it, and everything else (other formats, CMYK, 12 bits, damaged files) by Pillow: the
file's bytes decide, so the same file is always decoded in the same way. The resize that follows is Pillow's to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from featx.errors import DeviceError, DeviceMemoryError, ImageDecodeError, UsageError
from featx.spec import Preprocess
from featx.store.records import OK
from featx.vision.devices import choose_device, is_device_failure, is_out_of_memory
from featx.vision.images import extension_note, geometry
from featx.vision.jpeg import Jpeg, read_jpeg
from featx.vision.pixels import Outcome, failed
from featx.vision.reading import NVJPEG
from featx.vision.resize import ResizePlan
from featx.vision.views import PLAIN

Decode = Callable[[list[torch.Tensor], torch.device], list[torch.Tensor]]
"""From files, uint8 (n_bytes,) on the CPU, to RGB images, uint8 (3, height, width) on the device."""

_RGB = 3
"""torchvision's ImageReadMode.RGB."""


def check_nvjpeg(device: str, views: Sequence[str] = (PLAIN,)) -> None:
    """Raise a UsageError where JPEGs cannot be decoded on the device, or views are wanted of them."""
    if tuple(views) != (PLAIN,):
        raise UsageError(f"decoder {NVJPEG!r} gives plain images only; take another --decoder for --views")
    if torch.device(choose_device(device)).type != "cuda":
        raise UsageError(
            f"decoder {NVJPEG!r} needs an NVIDIA GPU, and the device is {choose_device(device)}; featx never takes "
            "another decoder instead: features made by it would be others"
        )
    import torchvision.io  # noqa: F401  brings the operator

    if not hasattr(torch.ops.image, "decode_jpegs_cuda"):
        raise UsageError(f"decoder {NVJPEG!r}: this torchvision was built without it; take another --decoder")


class JpegDecoder:
    """Decodes, turns upright, resizes and crops JPEGs on a device.

    Parameters
    ----------
    preprocess : Preprocess
        `resize`, `crop` and `interpolation` are used.
    device : str
        As for `check_nvjpeg`, which is the caller's to call.
    decode : callable, optional
        See `Decode`; None: nvJPEG.
    """

    def __init__(self, preprocess: Preprocess, *, device: str, decode: Decode | None = None) -> None:
        self._preprocess = preprocess
        self._device = torch.device(device)
        self._decode = decode or _decode_by_nvjpeg

    def __call__(self, jpegs: Sequence[Jpeg]) -> list[NDArray[np.uint8] | ImageDecodeError]:
        """Return the pixels, uint8 (3, h, w), of each file, or why there are none.

        Raises
        ------
        DeviceMemoryError
            If the device has too little memory for a single file.
        DeviceError
            If the device fails.
        """
        refused = [self._refusal(jpeg) for jpeg in jpegs]
        good = [jpeg for jpeg, error in zip(jpegs, refused, strict=True) if error is None]
        results = iter(self._pixels(good))
        return [next(results) if error is None else error for error in refused]

    def _refusal(self, jpeg: Jpeg) -> ImageDecodeError | None:
        try:
            geometry(*jpeg.upright_size, self._preprocess)
        except ImageDecodeError as error:
            return error
        return None

    def _pixels(self, jpegs: Sequence[Jpeg]) -> list[NDArray[np.uint8] | ImageDecodeError]:
        """Decode together; where that fails, in two halves, until the file is found that it fails for."""
        if not jpegs:
            return []
        try:
            return list(self._together(jpegs))
        except RuntimeError as error:
            short_of_memory = is_out_of_memory(error)
            if not short_of_memory and is_device_failure(error) and "nvjpeg" not in str(error).lower():
                raise DeviceError(str(error).partition("\n")[0], device=str(self._device)) from error
            what = str(error).partition("\n")[0]
        if len(jpegs) > 1:
            middle = len(jpegs) // 2
            return [*self._pixels(jpegs[:middle]), *self._pixels(jpegs[middle:])]
        if short_of_memory:
            raise DeviceMemoryError(device=str(self._device), batch=1)
        return [ImageDecodeError("corrupt", what)]

    def _together(self, jpegs: Sequence[Jpeg]) -> NDArray[np.uint8]:
        with torch.inference_mode():
            files = [torch.frombuffer(bytearray(jpeg.data), dtype=torch.uint8) for jpeg in jpegs]
            images = [
                turn_upright(image, jpeg.orientation)
                for image, jpeg in zip(self._decode(files, self._device), jpegs, strict=True)
            ]
            plan = ResizePlan(self._preprocess, [(image.shape[1], image.shape[2]) for image in images])
            tables = torch.from_numpy(plan.tables).to(self._device)
            data = torch.cat([tables, *(image.permute(1, 2, 0).reshape(-1) for image in images)])
            return plan(data).cpu().numpy()


def decode_outcomes(outcomes: Sequence[Outcome], decoder: JpegDecoder) -> list[Outcome]:
    """Return outcomes of samples in which the files that were left to the device are decoded, or failed."""
    files = [i for i, outcome in enumerate(outcomes) if outcome.pixels is not None and outcome.pixels.ndim == 1]
    jpegs = [read_jpeg(bytes(pixels)) for pixels in (outcomes[i].pixels for i in files) if pixels is not None]
    decoded = list(outcomes)
    for i, pixels in zip(files, decoder([jpeg for jpeg in jpegs if jpeg is not None]), strict=True):
        entry = outcomes[i].entry
        if isinstance(pixels, ImageDecodeError):
            decoded[i] = failed(entry, pixels)
        else:
            decoded[i] = Outcome(
                replace(entry, status=OK, reason=extension_note(entry.key, entry.format)), pixels[None]
            )
    return decoded


def turn_upright(image: torch.Tensor, orientation: int) -> torch.Tensor:
    """Apply an EXIF orientation (Exif 2.32, tag 0x0112) to (3, height, width)."""
    if orientation >= 5:
        image = image.transpose(1, 2)
    flipped = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}.get(orientation, ())
    return image.flip(flipped) if flipped else image


def _decode_by_nvjpeg(files: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    import torchvision.io  # noqa: F401  brings the operator

    # The operator itself: torchvision's function around it warns of its deprecation with every call.
    images: list[torch.Tensor] = torch.ops.image.decode_jpegs_cuda(files, _RGB, device)
    return images
