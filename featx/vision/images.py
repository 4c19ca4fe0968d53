"""From the bytes of a file to the uint8 pixels that the network sees: one decoder, one resizer.

What counts is the content, never the file's name. The result is always RGB, right side up:

- EXIF orientation is applied (TIFF's, AVIF's and XMP's too); of animations and multi-page files one frame is read, the
  first if no other is asked for;
- transparent pixels, in whatever way a format expresses them, are composited on white;
- 8 bits a channel are taken as they are: no window, no percentiles;
- 16-bit grey (12-bit and signed 16-bit too) maps its full integer range to 0 ... 255, and float grey maps [0, 1]; a
  window or percentiles (see `featx.vision.tones`) map any other range. Integers of 32 bits always need one of the two:
  their full range would make almost any real image black;
- colour of 16 bits a channel keeps its upper 8 bits; with a window or percentiles PNG and TIFF map all 16;
- bands are TIFF's (see `featx.vision.tiff`): chosen ones are taken from any TIFF of 8 bits or more a band, other files
  have none to choose from. Without a choice the first three are red, green and blue, and more than four are refused;
- CMYK, YCbCr and palettes are converted by Pillow, LAB by LittleCMS; embedded colour profiles are not applied;
- DICOM has rules of its own (see `featx.vision.dicom`), HEIC is opened by pillow-heif;
- JPEGs are decoded whole, or by ``pillow-draft`` at 1/2, 1/4 or 1/8 of their size: the smallest of these at which both
  sides are still at least twice what they become in the resize.

Everything here may be called from many threads at once.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from featx.errors import ImageDecodeError, UnknownNameError, UsageError
from featx.manifest.signatures import DECODE_ERRORS, signature
from featx.spec import Preprocess
from featx.vision import dicom, heif, tiff
from featx.vision.colours import deep_png, orientation_of, to_rgb, turned, upright_rgb
from featx.vision.damage import (
    FORMATS,
    check_size,
    error_of_opening,
    explained,
    is_unsupported,
)
from featx.vision.reading import ImageFacts, Reading

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Python prints what Pillow logs of damaged files

_REDUCED_AT_LEAST = 2
"""By how much both sides of a JPEG that is decoded at a reduced scale are larger than after the resize."""

PROMISED = {".dcm": "DICOM", ".dicom": "DICOM", ".ima": "DICOM", ".heic": "HEIF", ".heif": "HEIF"}
"""Extensions of the formats that Pillow does not know."""


def open_rgb(data: bytes, reading: Reading = Reading(), *, frame: int = 0) -> tuple[Image.Image, ImageFacts]:
    """Decode a file.

    Parameters
    ----------
    data : bytes
        The whole file.
    reading : Reading
        Which values become black and white, which bands red, green and blue, and whether at a reduced scale.
    frame : int
        Which image of the file, from 0 on.

    Returns
    -------
    image : PIL.Image.Image
        Mode RGB, right side up.
    facts : ImageFacts
        Of the file as it is.

    Raises
    ------
    ImageDecodeError
        With a reason of `featx.store.records.REASONS`, whatever is wrong with the file.
    UsageError
        If the process has Pillow's ``LOAD_TRUNCATED_IMAGES`` switched on, which would pass off half an image as a
        whole one.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise UsageError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is on in this process: set it to False")
    if not data:
        raise ImageDecodeError("empty")
    with quiet_decoders():
        try:
            return _open(data, reading, frame)
        except DECODE_ERRORS as error:
            if isinstance(error, ImageDecodeError):
                raise
            raise explained(error, data) from error


def _open(data: bytes, reading: Reading, frame: int) -> tuple[Image.Image, ImageFacts]:
    """Decode a file; what is wrong with it may be any of `DECODE_ERRORS`."""
    kind = signature(data)
    if kind == "DICOM":
        return dicom.read_rgb(data, reading, frame)
    if kind == "HEIC":
        return heif.read_rgb(data, reading, frame)
    page = tiff.read_page(data, frame) if kind == "TIFF" else None
    if page is not None and page.is_measured(reading):
        return _tiff(data, page, reading)
    if kind == "TIFF" and page is None and frame:
        raise ImageDecodeError("corrupt", f"no image {frame + 1}")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if frame:
                image.seek(frame)
            if kind == "PNG" and reading.stretches:
                check_size(*image.size)
                deep = deep_png(data, reading)
                if deep is not None:
                    return deep, _facts(image)
            return _loaded(image, reading)
    except UnidentifiedImageError:
        error = error_of_opening(data)
    except SyntaxError as caught:  # a later page of another kind
        error = caught
    if page is not None and is_unsupported(error):
        return _tiff(data, page, reading)
    raise error


def _loaded(image: Image.Image, reading: Reading) -> tuple[Image.Image, ImageFacts]:
    facts = _facts(image)
    check_size(*image.size)
    if reading.draft and image.format in ("JPEG", "MPO"):
        _reduce(image, reading.draft)
    return upright_rgb(image, reading), facts


def _facts(image: Image.Image) -> ImageFacts:
    return ImageFacts(image.format or "", image.mode, *image.size)


def _tiff(data: bytes, page: tiff.Page, reading: Reading) -> tuple[Image.Image, ImageFacts]:
    image, facts = tiff.read_rgb(data, page, reading)
    return turned(image, page.tag(274, 1)), facts


def _reduce(image: Image.Image, resize: tuple[int, ...]) -> None:
    """Have a JPEG decoded at the smallest scale that is large enough for a resize."""
    lies = orientation_of(image) in (5, 6, 7, 8)
    width, height = (image.height, image.width) if lies else image.size
    width, height = (_REDUCED_AT_LEAST * side for side in _resized(width, height, resize))
    image.draft(None, (height, width) if lies else (width, height))


def array_to_rgb(array: NDArray[np.uint8] | Image.Image, reading: Reading = Reading()) -> Image.Image:
    """Turn pixels that are in memory already into an RGB image, by the rules for files.

    Parameters
    ----------
    array : uint8 array (height, width[, channels]), or PIL.Image.Image
        1 channel is grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
    reading : Reading
        As in `open_rgb`, for PIL images; these have no bands and no reduced scale.

    Raises
    ------
    ImageDecodeError
        If the array has another shape or dtype (reason ``"unsupported"``), or the image cannot be converted.
    """
    if isinstance(array, Image.Image):
        with quiet_decoders():
            try:
                return upright_rgb(array, reading)
            except DECODE_ERRORS as error:
                if isinstance(error, ImageDecodeError):
                    raise
                raise explained(error, b"") from error
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.size == 0:
        raise _unsupported_array(array)
    channels = 1 if array.ndim == 2 else array.shape[2]
    if channels not in (1, 2, 3, 4):
        raise _unsupported_array(array)
    image = Image.fromarray(np.ascontiguousarray(array if channels > 1 else array.reshape(array.shape[:2])))
    return to_rgb(image, Reading())


def preprocess_pixels(image: Image.Image, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Resize and crop, bit for bit as torchvision's ``ImageClassification`` does with a PIL image.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB.
    preprocess : Preprocess
        `resize`, `crop` and `interpolation` are used; mean and std are for whole batches, later.

    Returns
    -------
    uint8 array (3, height, width)

    Raises
    ------
    ImageDecodeError
        If a very long, thin image would be resized to more pixels than is safe (reason ``"bomb"``).
    """
    size = _resized(image.width, image.height, preprocess.resize)
    if size != image.size:
        if preprocess.interpolation not in INTERPOLATIONS:
            raise UnknownNameError("interpolation", preprocess.interpolation, INTERPOLATIONS)
        check_size(*size)
        image = image.resize(size, INTERPOLATIONS[preprocess.interpolation])
    if preprocess.crop:
        height, width = preprocess.crop
        left, top = _crop_start(image.width, width), _crop_start(image.height, height)
        image = image.crop((left, top, left + width, top + height))
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def extension_note(path: str, image_format: str) -> str:
    """Return ``"png named .jpg"`` where a file's extension promises another format than its content has, or ``""``.

    Extensions that are not known promise nothing.
    """
    extension = PurePath(path).suffix.lower()
    promised = PROMISED.get(extension) or Image.registered_extensions().get(extension)
    found = {"MPO": "JPEG"}.get(image_format, image_format)
    return f"{found.lower()} named {extension}" if found and promised not in (None, found, image_format) else ""


def _resized(width: int, height: int, resize: tuple[int, ...]) -> tuple[int, int]:
    """Return (width, height) after the resize; the longer side is cut, not rounded, to whole pixels."""
    if not resize:
        return width, height
    if len(resize) == 2:
        return resize[1], resize[0]
    longer = int(resize[0] * max(width, height) / min(width, height))
    return (resize[0], longer) if width <= height else (longer, resize[0])


def _crop_start(size: int, wanted: int) -> int:
    """Return where the crop begins; negative where the image is smaller (Pillow fills with black)."""
    return -((wanted - size) // 2) if wanted > size else round((size - wanted) / 2)


def _unsupported_array(array: NDArray[Any]) -> ImageDecodeError:
    return ImageDecodeError(
        "unsupported",
        f"expected a uint8 array (height, width[, 1 to 4 channels]), got {array.dtype} {array.shape}",
    )


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Ignore the decoders' warnings in this block: what matters of them is raised here as an error.

    Not `warnings.catch_warnings`: with threads it restores other threads' filters in the wrong order. Each block puts
    one filter in front and takes one equal filter away.
    """
    filters = cast("list[Any]", warnings.filters)
    quiet = ("ignore", None, Warning, re.compile(r"PIL\.|pydicom|pillow_heif|featx\.vision\."), 0)
    filters.insert(0, quiet)
    try:
        yield
    finally:
        filters.remove(quiet)
        current = cast("list[Any]", warnings.filters)
        if current is not filters and quiet in current:  # somebody's catch_warnings has copied it meanwhile
            current.remove(quiet)


def geometry(width: int, height: int, preprocess: Preprocess) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return what `preprocess_pixels` does to an image of a size: the size after the resize, and where the crop begins.

    Returns
    -------
    size : (int, int)
        Width and height.
    start : (int, int)
        Left and top; negative where the image is smaller than the crop.

    Raises
    ------
    ImageDecodeError
        As `preprocess_pixels`.
    """
    size = _resized(width, height, preprocess.resize)
    if size != (width, height):
        check_size(*size)
    crop_height, crop_width = preprocess.crop or size[::-1]
    return size, (_crop_start(size[0], crop_width), _crop_start(size[1], crop_height))
