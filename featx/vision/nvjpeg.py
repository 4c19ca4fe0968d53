"""JPEGs decoded on an NVIDIA GPU: another decoder than Pillow's, with other last bits, so its name is in the spec.

What nvJPEG takes is decoded by it, and everything else (other formats, CMYK, 12 bits, damaged files) by Pillow: the
file's bytes decide, so the same file is always decoded in the same way. The resize that follows is Pillow's to the bit.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image

from featx.errors import DeviceError, DeviceMemoryError, ImageDecodeError, UsageError
from featx.spec import Preprocess
from featx.vision.devices import choose_device, is_device_failure, is_out_of_memory
from featx.vision.images import geometry
from featx.vision.resize import ResizePlan

NVJPEG = "nvjpeg"
"""In `featx.spec.Preprocess.decoder`."""

Decode = Callable[[list[torch.Tensor], torch.device], list[torch.Tensor]]
"""From files, uint8 (n_bytes,) on the CPU, to RGB images, uint8 (3, height, width) on the device."""

_FRAMES = {0xC0, 0xC1, 0xC2}
"""Baseline, extended sequential and progressive, Huffman coded (ITU T.81, table B.1)."""
_OTHER_FRAMES = {0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)}
_ALONE = {0x01, *range(0xD0, 0xD8)}
"""Markers without a length behind them."""
_RGB = 3
"""torchvision's ImageReadMode.RGB."""


@dataclass(frozen=True)
class Jpeg:
    """A file that nvJPEG decodes.

    Attributes
    ----------
    data : bytes
        The whole file.
    width, height : int
        As stored.
    orientation : int
        EXIF orientation, 1 to 8.
    """

    data: bytes
    width: int
    height: int
    orientation: int

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height with the orientation applied."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def read_jpeg(data: bytes) -> Jpeg | None:
    """Return what a file's header says, or None where Pillow is to decode it.

    That is all but a complete JPEG of 8 bits with one (grey) or three (YCbCr) components, and not too large.
    """
    size, limit = _read_frame(data), Image.MAX_IMAGE_PIXELS
    if size is None or (limit is not None and size[0] * size[1] > limit):
        return None
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG", "MPO"]) as image:
            if image.mode not in ("L", "RGB") or image.size != size:
                return None
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, ValueError, SyntaxError, struct.error):  # Pillow will say what is wrong
        return None
    return Jpeg(data, *size, orientation if orientation in range(1, 9) else 1)


def check_nvjpeg(device: str) -> None:
    """Raise a UsageError where JPEGs cannot be decoded on the device."""
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


def _read_frame(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a complete JPEG of a kind that nvJPEG takes, or None (ITU T.81, annex B)."""
    if not data.startswith(b"\xff\xd8"):
        return None
    size, position = None, 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF or marker in _ALONE:
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        segment = data[position + 4 : position + 2 + length]
        if marker in _OTHER_FRAMES or length < 2:
            return None
        if marker == 0xEE and segment[:5] == b"Adobe" and segment[11:12] == b"\x00":
            return None  # three components that are RGB, or four that are CMYK
        if marker in _FRAMES:
            if len(segment) < 6 or segment[0] != 8 or segment[5] not in (1, 3):
                return None
            height, width = struct.unpack_from(">HH", segment, 1)
            size = (width, height) if width and height else None
        if marker == 0xDA:
            return size if data.find(b"\xff\xd9", position) >= 0 else None
        position += 2 + length
    return None
