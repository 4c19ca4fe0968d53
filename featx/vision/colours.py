"""From an image that Pillow has opened to RGB, right side up."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from featx.errors import ImageDecodeError
from featx.manifest.signatures import DECODE_ERRORS
from featx.vision.reading import Reading
from featx.vision.tones import on_white, to_uint8

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


_LOWER_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}
"""Pillow's raw modes of a PNG's colours of 16 bits, to what reads their lower bytes."""


def upright_rgb(image: Image.Image, reading: Reading) -> Image.Image:
    """Decode an image and convert it."""
    image.load()
    if not image.width * image.height:
        raise ImageDecodeError("corrupt", "no pixels")
    rgb = to_rgb(image, reading)
    # TIFF's own orientation is applied, and its tag removed, while Pillow loads: ask afterwards.
    return turned(rgb, orientation_of(image))


def turned(image: Image.Image, orientation: Any) -> Image.Image:
    """Undo an EXIF orientation."""
    method = _UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def orientation_of(image: Image.Image) -> Any:
    """Return what an image's EXIF says; None where it says nothing."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except DECODE_ERRORS:
        return None  # damaged metadata say nothing about the pixels


def to_rgb(image: Image.Image, reading: Reading) -> Image.Image:
    """Convert an image that is decoded."""
    if image.mode[0] in "IF":
        return _grey_to_rgb(image, reading)
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    if image.has_transparency_data:
        straight = image.convert("LA") if image.mode == "La" else image
        rgba = straight.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")


def _grey_to_rgb(image: Image.Image, reading: Reading) -> Image.Image:
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if tags.get(339) == (1,) and tags.get(258) == (32,):
        values = values.view(np.uint32)  # Pillow has no unsigned 32-bit mode
    grey = to_uint8(values, reading, _special_range(image))
    if tags.get(262) == 0:  # PhotometricInterpretation WhiteIsZero, which Pillow leaves as it is beyond 8 bits
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _special_range(image: Image.Image) -> tuple[float, float] | None:
    """Return black and white where Pillow's array hides what the file holds; None: as the array's dtype has it."""
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        return 0.0, float(2 ** tags.get(258, (16,))[0] - 1)
    if tags.get(258) == (16,):
        return -32768.0, 32767.0
    if image.mode == "I" and image.format == "PPM":  # Pillow scales more than 8 bits to 16
        return 0.0, 65535.0
    return None


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None
    return converted


def deep_png(data: bytes, reading: Reading) -> Image.Image | None:
    """Map the colours of a PNG of 16 bits a channel, all of them; None where it is of another kind.

    Pillow has no such mode and keeps the upper bytes. The lower ones are what it keeps if it is told that the byte
    order is the other one.
    """
    with Image.open(io.BytesIO(data), formats=("PNG",)) as upper:
        raw_mode = upper.tile[0].args if upper.tile else None
        if raw_mode not in _LOWER_BYTES:
            return None
        if getattr(upper, "is_animated", False):
            raise ImageDecodeError("unsupported", "an animation of 16 bits a channel with a window or percentiles")
        with Image.open(io.BytesIO(data), formats=("PNG",)) as lower:
            lower.tile = [lower.tile[0]._replace(args=_LOWER_BYTES[raw_mode])]
            pixels = _joined(upper, lower, raw_mode)
        n_colours = 1 if raw_mode.startswith("LA") else 3
        values = pixels[..., :n_colours]
        shown = np.broadcast_to(to_uint8(values, reading), (*values.shape[:2], 3))
        if pixels.shape[2] > n_colours:
            shown = on_white(shown, to_uint8(pixels[..., n_colours:], Reading()))
        elif "transparency" in upper.info:
            shown = np.where((values == upper.info["transparency"]).all(axis=2, keepdims=True), np.uint8(255), shown)
        return turned(Image.fromarray(np.ascontiguousarray(shown)), orientation_of(upper))


def _joined(upper: Image.Image, lower: Image.Image, raw_mode: str) -> NDArray[np.uint16]:
    """Return 16-bit values (height, width, channels)."""
    low = np.asarray(lower)
    high = np.asarray(upper)  # decoded also where it is not needed, for the metadata behind the pixels
    if raw_mode == "LA;16B":  # read as four channels: grey and opacity, the upper byte of each first
        high, low = low[..., 0::2], low[..., 1::2]
    pixels = np.empty(high.shape, np.uint16)
    np.left_shift(high, 8, out=pixels, dtype=np.uint16)
    pixels |= low
    return pixels
