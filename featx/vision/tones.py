"""From numbers of any kind to the 0 ... 255 of a pixel.

A window maps LO to 0 and HI to 255, linearly, and clips what lies outside. Percentiles are a window that every image
brings itself: those of all its values, of the chosen bands together (so that its colours keep their proportions),
interpolated linearly. Where both percentiles are the same value, what lies above it is white and the rest black.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import ImageDecodeError
from featx.vision.reading import Reading

Range = tuple[float, float]

_SINGLE = 1e30  # numbers up to here, and their differences, are safe in float32


def to_uint8(values: NDArray[Any], reading: Reading, full: Range | None = None) -> NDArray[np.uint8]:
    """Map values as the user said, or else by the range that their kind has.

    Parameters
    ----------
    values : numeric array
        Any shape; one image.
    reading : Reading
        Its window or its percentiles.
    full : tuple of float, or None
        What is black and white where the user said nothing; None: by the dtype (`full_range`).

    Raises
    ------
    ImageDecodeError
        ``"unsupported"`` for NaN, ``"out-of-window"`` where neither the user nor the dtype gives a range.
    """
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise ImageDecodeError("unsupported", "NaN pixels")
    if reading.window is not None:
        return stretch(values, *reading.window)
    if reading.percentiles is not None:
        return stretch(values, *percentile_range(values, reading.percentiles))
    return stretch(values, *(full or full_range(values)))


def stretch(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Map `low` to 0 and `high` to 255, and clip; nothing lies between two that are equal."""
    if low == high:
        return (values > low).astype(np.uint8) * np.uint8(255)
    # float64 only where float32 cannot hold the numbers
    fits = values.dtype.itemsize <= 2 or values.dtype == np.float32
    dtype = np.float32 if fits and max(abs(low), abs(high)) < _SINGLE else np.float64
    scaled: NDArray[Any] = np.clip(values.astype(dtype), low, high)
    scaled = (scaled - low) * (255 / (high - low))
    return np.rint(scaled).astype(np.uint8)


def percentile_range(values: NDArray[Any], percentiles: tuple[float, float]) -> Range:
    """Return an image's own black and white."""
    with np.errstate(invalid="ignore"):  # between two infinities
        low, high = (float(value) for value in np.percentile(values, percentiles))
    if not math.isfinite(high - low):
        raise ImageDecodeError("out-of-window", "infinite values, which have no percentiles; give --window LO,HI")
    return low, high


def full_range(values: NDArray[Any]) -> Range:
    """Return all that an integer of 8 or 16 bits can be, and [0, 1] for floats.

    Raises
    ------
    ImageDecodeError
        For floats outside [0, 1], and integers of more bits: their range would make almost any image black.
    """
    if values.dtype.kind in "ui" and values.dtype.itemsize <= 2:
        info = np.iinfo(values.dtype)
        return float(info.min), float(info.max)
    low, high = float(values.min()), float(values.max())
    hint = "--window LO,HI or --percentiles LO,HI"
    if values.dtype.kind == "f":
        if not (low >= 0 and high <= 1):
            raise ImageDecodeError("out-of-window", f"float values from {low:g} to {high:g}; give {hint}")
        return 0.0, 1.0
    bits = 8 * values.dtype.itemsize
    raise ImageDecodeError("out-of-window", f"{bits}-bit integers from {low:g} to {high:g} need {hint}")


def on_white(pixels: NDArray[np.uint8], opacity: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Composite RGB pixels (height, width, 3) on white; the opacity is (height, width, 1)."""
    alpha = opacity.astype(np.float32) / 255
    blended: NDArray[np.uint8] = np.rint(pixels * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return blended
