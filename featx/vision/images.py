"""From the bytes of a file to the uint8 pixels that the network sees: one decoder, one resizer.

What counts is the content, never the file's name. The result is always RGB, right side up:

- EXIF orientation is applied (TIFF's, AVIF's and XMP's too); animations and multi-page files give their first frame;
- transparent pixels, in whatever way a format expresses them, are composited on white;
- 16-bit grey (12-bit and signed 16-bit too) maps its full integer range to 0 ... 255, and float grey maps [0, 1];
  ``window=(lo, hi)`` maps any other range and clips what lies outside. 32-bit integers always need a window: their full
  range would make almost any real image black. 8-bit and colour images have no window; colour of 16 bits a channel
  keeps its upper 8 bits, as Pillow reads it;
- CMYK, YCbCr and palettes are converted by Pillow, LAB by LittleCMS; embedded colour profiles are not applied.

Everything here may be called from many threads at once.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from featx.errors import ImageDecodeError, UnknownNameError, UsageError
from featx.spec import Preprocess
from featx.vision.damage import DECODE_ERRORS, FORMATS, error_of_opening, explained

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to what undoes it (Exif 2.32, tag 0x0112)."""


@dataclass(frozen=True)
class ImageFacts:
    """What a file said about its image.

    Attributes
    ----------
    format, mode : str
        Pillow's names (``"JPEG"``, ``"RGB"``).
    width, height : int
        Pixels, as stored: before EXIF orientation (TIFF: after it).
    """

    format: str
    mode: str
    width: int
    height: int


def open_rgb(data: bytes, *, window: tuple[float, float] | None = None) -> tuple[Image.Image, ImageFacts]:
    """Decode a file.

    Parameters
    ----------
    data : bytes
        The whole file.
    window : tuple of float, or None
        The grey values that become 0 and 255, for grey images of more than 8 bits; None: the full integer range, and
        [0, 1] for floats.

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
        If the window is not ``lo < hi``, or the process has Pillow's ``LOAD_TRUNCATED_IMAGES`` switched on, which would
        pass off half an image as a whole one.
    """
    if window is not None and not window[0] < window[1]:
        raise UsageError(f"the window needs LO < HI, got {window[0]:g},{window[1]:g}")
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise UsageError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is on in this process: set it to False")
    if not data:
        raise ImageDecodeError("empty")
    with _quiet_pillow():
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                facts = ImageFacts(image.format or "", image.mode, *image.size)
                _check_size(*image.size)
                return _upright_rgb(image, window), facts
        except UnidentifiedImageError:
            error = error_of_opening(data)
        except DECODE_ERRORS as caught:
            error = caught
        if isinstance(error, ImageDecodeError):
            raise error
        raise explained(error, data) from error


def array_to_rgb(array: NDArray[np.uint8] | Image.Image, *, window: tuple[float, float] | None = None) -> Image.Image:
    """Turn pixels that are in memory already into an RGB image, by the rules for files.

    Parameters
    ----------
    array : uint8 array (height, width[, channels]), or PIL.Image.Image
        1 channel is grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
    window : tuple of float, or None
        As in `open_rgb`, for PIL images.

    Raises
    ------
    ImageDecodeError
        If the array has another shape or dtype (reason ``"unsupported"``), or the image cannot be converted.
    """
    if isinstance(array, Image.Image):
        with _quiet_pillow():
            try:
                return _upright_rgb(array, window)
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
    return _to_rgb(image, None)


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
        _check_size(*size)
        image = image.resize(size, INTERPOLATIONS[preprocess.interpolation])
    if preprocess.crop:
        height, width = preprocess.crop
        left, top = _crop_start(image.width, width), _crop_start(image.height, height)
        image = image.crop((left, top, left + width, top + height))
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def extension_note(path: str, image_format: str) -> str:
    """Return ``"png named .jpg"`` where a file's extension promises another format than its content has, or ``""``.

    Extensions that Pillow does not know promise nothing.
    """
    extension = PurePath(path).suffix.lower()
    promised = Image.registered_extensions().get(extension)
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


def _check_size(width: int, height: int) -> None:
    # Pillow itself only warns up to twice its limit; a warning is no protection.
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise ImageDecodeError("bomb", f"{width} x {height} pixels, the limit is {limit}")


def _upright_rgb(image: Image.Image, window: tuple[float, float] | None) -> Image.Image:
    image.load()
    if not image.width * image.height:
        raise ImageDecodeError("corrupt", "no pixels")
    rgb = _to_rgb(image, window)
    # TIFF's own orientation is applied, and its tag removed, while Pillow loads: ask afterwards.
    method = _UPRIGHT.get(_orientation(image))
    return rgb if method is None else rgb.transpose(method)


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except DECODE_ERRORS:
        return None  # damaged metadata say nothing about the pixels


def _to_rgb(image: Image.Image, window: tuple[float, float] | None) -> Image.Image:
    if image.mode[0] in "IF":
        return _grey_to_rgb(image, window)
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    if image.has_transparency_data:
        straight = image.convert("LA") if image.mode == "La" else image
        rgba = straight.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")


def _grey_to_rgb(image: Image.Image, window: tuple[float, float] | None) -> Image.Image:
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if tags.get(339) == (1,) and tags.get(258) == (32,):
        values = values.view(np.uint32)  # Pillow has no unsigned 32-bit mode
    if image.mode == "F" and np.isnan(values).any():
        raise ImageDecodeError("unsupported", "NaN pixels")
    low, high = window or _full_range(image, values)
    # float64 only where float32 cannot hold the integers
    dtype = np.float32 if image.mode.startswith(("I;16", "F")) else np.float64
    scaled: NDArray[np.floating] = np.clip(values.astype(dtype), low, high)
    scaled = (scaled - low) * (255 / (high - low))
    grey = np.rint(scaled).astype(np.uint8)
    if tags.get(262) == 0:  # PhotometricInterpretation WhiteIsZero, which Pillow leaves as it is beyond 8 bits
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _full_range(image: Image.Image, values: NDArray[Any]) -> tuple[float, float]:
    """Return the values that are black and white where the user gave no window."""
    tags = getattr(image, "tag_v2", {})
    if image.mode == "F":
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):
            raise ImageDecodeError("out-of-window", f"float values from {low:g} to {high:g}; give --window LO,HI")
        return 0.0, 1.0
    if image.mode.startswith("I;16"):
        bits = tags.get(258, (16,))[0]
        return 0.0, float(2**bits - 1)
    if tags.get(258) == (16,):
        return -32768.0, 32767.0
    if image.format == "PPM":  # Pillow scales more than 8 bits to 16
        return 0.0, 65535.0
    low, high = float(values.min()), float(values.max())
    raise ImageDecodeError("out-of-window", f"32-bit integers from {low:g} to {high:g} need --window LO,HI")


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None
    return converted


def _unsupported_array(array: NDArray[Any]) -> ImageDecodeError:
    return ImageDecodeError(
        "unsupported",
        f"expected a uint8 array (height, width[, 1 to 4 channels]), got {array.dtype} {array.shape}",
    )


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Ignore Pillow's warnings in this block: what matters of them is raised here as an error.

    Not `warnings.catch_warnings`: with threads it restores other threads' filters in the wrong order. Each block puts
    one filter in front and takes one equal filter away.
    """
    filters = cast("list[Any]", warnings.filters)
    quiet = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
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
        _check_size(*size)
    crop_height, crop_width = preprocess.crop or size[::-1]
    return size, (_crop_start(size[0], crop_width), _crop_start(size[1], crop_height))
