"""HEIC and HEIF through pillow-heif.

It turns images the right way up by the file's own boxes, which is all that counts in these files (ISO/IEC 23008-12):
what their EXIF says of the orientation is not applied a second time. 10 and 12 bits become 8.
"""

from __future__ import annotations

import io

from PIL import Image

from featx.errors import ImageDecodeError


def open_heif(data: bytes, frame: int = 0) -> Image.Image:
    """Open one image of a HEIF file, without decoding it; the primary one is the first.

    Raises
    ------
    ImageDecodeError
        If pillow-heif is not installed.
    SyntaxError, EOFError
        If the file cannot be opened, or has fewer images.
    """
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise ImageDecodeError("unsupported", "HEIC needs pip install 'featx[formats]'", missing="formats") from error
    image: Image.Image = HeifImageFile(io.BytesIO(data))  # type: ignore[no-untyped-call]
    if frame:
        primary = image.tell()
        image.seek(frame - 1 if frame <= primary else frame)
    return image
