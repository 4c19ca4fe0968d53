"""What a file's first bytes say that it is, and what decoders raise on files that are damaged."""

from __future__ import annotations

import re
import struct
import zlib

from PIL import Image

_SIGNATURES = (
    ("DICOM", b".{128}DICM"),
    ("JPEG", b"\xff\xd8\xff"),
    ("PNG", b"\x89PNG\r\n\x1a\n"),
    ("GIF", b"GIF8"),
    ("WEBP", b"RIFF....WEBP"),
    ("TIFF", b"II[*+]\0"),
    ("TIFF", b"MM\0[*+]"),
    ("BMP", b"BM"),
    ("AVIF", b"....ftypavi[fs]"),
    ("AVIF", b"....ftypm[is]f1(?=.{4,60}avi[fs])"),
    ("HEIC", b"....ftyp(hei|hev|mif1|msf1)"),
    ("JPEG2000", b"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n"),
    ("DICOM", b"[\x02\x08]\0[\0-\x20]\0([A-Z][A-Z]|[\0-\x40]\0\0\0)"),  # without the preamble
)

DECODE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's plugins, pydicom and libheif raise on damaged files."""


def signature(data: bytes) -> str | None:
    """Return the format by which a file's first bytes announce it: Pillow's name, ``"DICOM"`` or ``"HEIC"``."""
    return next((name for name, magic in _SIGNATURES if re.match(magic, data, re.DOTALL)), None)
