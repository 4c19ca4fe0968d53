"""Why a file cannot be decoded: Pillow's many errors become one of the reasons in the ledger."""

from __future__ import annotations

import io
import re

from PIL import Image

from featx.errors import ImageDecodeError
from featx.manifest.signatures import DECODE_ERRORS, signature

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "AVIF", "JPEG2000", "PPM", "PCX", "SGI", "QOI", "ICO")
"""Pillow's names of the formats that are read: those known by a signature and decoded inside this process
(EPS, for one, would be run as a program by Ghostscript)."""

_UNSUPPORTED = re.compile(
    "unknown pixel mode|samples per pixel|unknown data org|unsupported|not supported|not installed", re.IGNORECASE
)
_TRUNCATED = re.compile(
    "truncat|unexpected end|not enough|end of file|incomplete|broken data stream|less than expected", re.IGNORECASE
)


_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # of an object in memory: another one in every run


def error_of_opening(data: bytes) -> BaseException:
    """Return why a file that begins like an image could not be opened: `Image.open` keeps it to itself."""
    name = signature(data)
    if name is None:
        return ImageDecodeError("not-an-image")
    if name not in FORMATS:
        return ImageDecodeError("unsupported", name)
    try:
        factory, _ = Image.OPEN[name]
        with factory(io.BytesIO(data), ""):
            return ImageDecodeError("corrupt", name)
    except DECODE_ERRORS as error:
        return error


def is_unsupported(error: BaseException) -> bool:
    """Whether a decoder says that it does not know this kind of image, not that the image is damaged."""
    return isinstance(error, NotImplementedError) or _UNSUPPORTED.search(str(error)) is not None


def check_size(width: int, height: int) -> None:
    """Raise an `ImageDecodeError` (``"bomb"``) for more pixels than Pillow's ``MAX_IMAGE_PIXELS``."""
    # Pillow itself only warns up to twice its limit; a warning is no protection.
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise ImageDecodeError("bomb", f"{width} x {height} pixels, the limit is {limit}")


def explained(error: BaseException, data: bytes) -> ImageDecodeError:
    """Return what a decoder raised as an error with a reason: by its words, and by how the file ends."""
    said = str(error).partition("Traceback (most recent call last)")[0]  # pydicom's errors may carry one
    detail = _ADDRESS.sub("", " ".join(said.split())) or type(error).__name__
    if isinstance(error, (Image.DecompressionBombError, MemoryError)):
        return ImageDecodeError("bomb", detail.partition(", could be")[0])
    if is_unsupported(error):
        return ImageDecodeError("unsupported", detail)
    if _TRUNCATED.search(detail) or _ends_early(data):
        return ImageDecodeError("truncated", detail)
    return ImageDecodeError("corrupt", detail)


def _ends_early(data: bytes) -> bool:
    """Whether a damaged file is shorter than it says, or lacks its end mark."""
    tail = data[-4096:]
    match signature(data):
        case "JPEG":
            return b"\xff\xd9" not in tail
        case "PNG":
            return b"IEND" not in tail
        case "GIF":
            return not data.rstrip(b"\0").endswith(b";")
        case "WEBP":
            return int.from_bytes(data[4:8], "little") + 8 > len(data)
        case "BMP":
            return int.from_bytes(data[2:6], "little") > len(data)
        case "TIFF":
            return int.from_bytes(data[4:8], "little" if data[:2] == b"II" else "big") + 2 > len(data)
    return False
