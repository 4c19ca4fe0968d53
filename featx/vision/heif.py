"""HEIC and HEIF through pillow-heif.

It turns images the right way up by the file's own boxes, which is all that counts in these files (ISO/IEC 23008-12):
what their EXIF says of the orientation is not applied a second time. 10 and 12 bits become 8.
"""

from __future__ import annotations

from PIL import Image

from featx.errors import ImageDecodeError
from featx.vision.colours import to_rgb
from featx.vision.damage import check_size
from featx.vision.reading import ImageFacts, Reading


def read_rgb(data: bytes, reading: Reading, frame: int = 0) -> tuple[Image.Image, ImageFacts]:
    """Return one image of a HEIF file as RGB; the primary one is the first.

    Raises
    ------
    ImageDecodeError
        Also if pillow-heif is not installed.
    Exception
        Of `featx.manifest.signatures.DECODE_ERRORS`, for a damaged file.
    """
    try:
        from pillow_heif import open_heif
    except ImportError as error:
        raise ImageDecodeError("unsupported", "HEIC needs pip install 'featx[formats]'", missing="formats") from error
    # Not through the plugin for Pillow, which takes the memory of an image before its size can be looked at.
    file = open_heif(data, convert_hdr_to_8bit=True)
    if frame >= len(file):
        raise ImageDecodeError("corrupt", f"no image {frame + 1}")
    order = sorted(range(len(file)), key=lambda number: number != file.primary_index)
    found = file[order[frame]]
    check_size(*found.size)
    image: Image.Image = found.to_pillow()
    return to_rgb(image, reading), ImageFacts("HEIF", image.mode, *image.size)
