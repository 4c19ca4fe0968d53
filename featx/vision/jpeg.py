"""The header of a JPEG: whether nvJPEG decodes the file, and how it lies. Knows nothing of torch."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

from PIL import Image

from featx.manifest.signatures import DECODE_ERRORS
from featx.vision.colours import orientation_of
from featx.vision.images import quiet_decoders

_FRAMES = {0xC0, 0xC1, 0xC2}
"""Baseline, extended sequential and progressive, Huffman coded (ITU T.81, table B.1)."""
_OTHER_FRAMES = {0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)}
_ALONE = {0x01, *range(0xD0, 0xD8)}
"""Markers without a length behind them."""


@dataclass(frozen=True)
class Jpeg:
    """A file that nvJPEG decodes.

    Attributes
    ----------
    data : bytes
        The whole file.
    width, height : int
        As stored.
    mode : str
        Pillow's name: ``"L"`` or ``"RGB"``.
    orientation : int
        EXIF orientation, 1 to 8.
    """

    data: bytes
    width: int
    height: int
    mode: str
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
        with quiet_decoders(), Image.open(io.BytesIO(data), formats=["JPEG", "MPO"]) as image:
            if image.mode not in ("L", "RGB") or image.size != size:
                return None
            orientation = orientation_of(image)
    except DECODE_ERRORS:  # Pillow will say what is wrong
        return None
    return Jpeg(data, *size, image.mode, orientation if orientation in range(1, 9) else 1)


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
