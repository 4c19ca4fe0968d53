"""What else is known of the samples: columns of the source's table and facts of the files, as values to be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.object_]
FloatArray = NDArray[np.float64]

FEW = 10
"""So many different numbers, dates or image sizes at most are values of their own; more are put into quarters."""
JPEG = ("JPEG", "MPO")
"""Pillow's names of files whose images are JPEGs."""
TABLE, FILE = "table", "file"
"""Where a trait comes from: a column of the source's table, or the image's file."""

_DATE_FORMATS = ("%Y/%m/%d", "%d.%m.%Y", "%Y%m%d%H%M%S")
_YEARS = (1900, 2100)

BYTES_PER_PIXEL = (
    "a stand-in for JPEG quality, which feature files do not hold (no quantisation tables): higher quality takes more "
    "bytes, but so does an image with more detail"
)


@dataclass(frozen=True, eq=False)
class Trait:
    """One thing known of each sample that is neither its label nor its group.

    Attributes
    ----------
    name : str
    source : str
        `TABLE` or `FILE`.
    kind : str
        ``"values"``; or ``"quarters"`` of numbers or ``"dates in quarters"``, whose `values` are ranges.
    values : str object array (n_samples,)
        ``""`` = unknown.
    note : str
        What to know of it; mostly ``""``.
    """

    name: str
    source: str
    kind: str
    values: Words
    note: str = ""


@dataclass(frozen=True)
class LeftOut:
    """Something that was not tested, and why."""

    name: str
    source: str
    reason: str


def read_trait(name: str, column: Sequence[str], *, asked: bool = False) -> Trait | LeftOut:
    """Turn a column of a table into values.

    Parameters
    ----------
    name : str
    column : str sequence (n_samples,)
        ``""`` = unknown.
    asked : bool
        Whether it was asked for by name: whole numbers that differ in every row are then not taken for IDs.

    Returns
    -------
    Trait or LeftOut
        More than `FEW` different numbers or dates are put into quarters; all else is taken as it stands. Dates are ISO
        8601, DICOM's ``20210314``, ``2021/03/14`` or ``14.03.2021``.
    """
    values = np.array([value.strip() for value in column], dtype=object)
    known = values != ""
    texts = [str(value) for value in values[known]]
    distinct = len(set(texts))
    if distinct < 2:
        return LeftOut(name, TABLE, f"constant: {texts[0]!r}" if texts else "empty")
    times = _numbers(texts, _time)
    numbers = _numbers(texts, float)
    scale = times if times is not None else numbers
    if distinct == len(texts) and not asked:
        whole = times is None and numbers is not None and bool(np.all(numbers == np.round(numbers)))
        if scale is None or whole:
            what = "number" if whole else "value"
            return LeftOut(name, TABLE, f"a {what} of its own for every sample, as an ID has")
    if scale is None or distinct <= FEW:
        return Trait(name, TABLE, "values", values)
    kind = "quarters" if times is None else "dates in quarters"
    return _in_quarters(Trait(name, TABLE, kind, values), scale, texts)


def read_facts(
    formats: Sequence[str],
    modes: Sequence[str],
    widths: NDArray[np.int64],
    heights: NDArray[np.int64],
    sizes: NDArray[np.int64],
    *,
    shared_files: bool = False,
) -> list[Trait | LeftOut]:
    """Turn what the ledger says of the files into values.

    Parameters
    ----------
    formats, modes : str sequence (n_samples,)
        Pillow's names; ``""`` = unknown.
    widths, heights, sizes : int64 array (n_samples,)
        Pixels and bytes; 0 = unknown.
    shared_files : bool
        Whether several samples lie in one file, so that `sizes` are not theirs.

    Returns
    -------
    list of Trait or LeftOut
        Format, mode, width and height (the number of pixels where there are many), aspect ratio, bytes per pixel (of
        JPEGs alone where there are any).
    """
    known = (widths > 0) & (heights > 0)
    pixels = np.where(known, widths * heights, 0)
    pairs = np.array([f"{w} x {h}" if w > 0 < h else "" for w, h in zip(widths, heights, strict=True)], dtype=object)
    facts = [
        _fact("image format", np.array(formats, dtype=object)),
        _fact("image mode", np.array(modes, dtype=object)),
    ]
    if len(set(pairs[known])) <= FEW:
        facts.append(_fact("width x height", pairs))
    else:
        facts.append(_measure("number of pixels", np.where(known, pixels, np.nan), "{:.0f}"))
    aspect = np.divide(widths, heights, out=np.full(len(pixels), np.nan), where=known)
    facts.append(_measure("aspect ratio", np.round(aspect, 2), "{:.2f}"))
    is_jpeg = np.isin(np.array(formats, dtype=object), JPEG)
    name = "bytes per pixel" + (" (JPEG)" if is_jpeg.any() else "")
    if shared_files:
        return [*facts, LeftOut(name, FILE, "several samples lie in one file, whose size is not theirs")]
    measured = known & (sizes > 0) & (is_jpeg | ~is_jpeg.any())
    density = np.divide(sizes, pixels, out=np.full(len(pixels), np.nan), where=measured)
    return [*facts, _measure(name, density, "{:.3f}", note=BYTES_PER_PIXEL)]


def _fact(name: str, values: Words, note: str = "") -> Trait | LeftOut:
    distinct = set(values) - {""}
    if len(distinct) < 2:
        return LeftOut(name, FILE, f"constant: {distinct.pop()}" if distinct else "not known of any sample")
    return Trait(name, FILE, "values", values, note)


def _measure(name: str, values: FloatArray, form: str, note: str = "") -> Trait | LeftOut:
    """Take a number (n_samples,), NaN = unknown."""
    known = ~np.isnan(values)
    texts = np.full(len(values), "", dtype=object)
    texts[known] = [form.format(value) for value in values[known]]
    trait = _fact(name, texts, note)
    if isinstance(trait, LeftOut) or len(np.unique(values[known])) <= FEW:
        return trait
    return _in_quarters(Trait(name, FILE, "quarters", texts, note), values[known], [str(text) for text in texts[known]])


def _in_quarters(trait: Trait, scale: FloatArray, texts: Sequence[str]) -> Trait:
    """Replace the known values by the range of their quarter; `scale` and `texts` are of the known ones."""
    edges = np.quantile(scale, (0.25, 0.5, 0.75))
    quarters = np.searchsorted(edges, scale)
    if not quarters.any():  # three quarters and more have the highest value
        quarters = np.searchsorted(edges, scale, side="right")
    there = np.unique(quarters)
    names = np.empty(4, dtype=object)
    for number, quarter in enumerate(there):
        rows = np.flatnonzero(quarters == quarter)
        low, high = rows[np.argmin(scale[rows])], rows[np.argmax(scale[rows])]
        names[quarter] = f"{number + 1}: {texts[low]} to {texts[high]}"
    values = trait.values.copy()
    values[values != ""] = names[quarters]
    return Trait(trait.name, trait.source, trait.kind, values, trait.note)


def _numbers(texts: Sequence[str], read: Any) -> FloatArray | None:
    """Read all texts as finite numbers, or None."""
    try:
        numbers = np.array([read(text) for text in texts], dtype=np.float64)
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def _time(text: str) -> float:
    """Return a date as seconds; ValueError if it is none."""
    moment = _moment(text)
    if not _YEARS[0] <= moment.year <= _YEARS[1]:
        raise ValueError(f"{text!r} is no date of our time")
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        for form in _DATE_FORMATS:
            try:
                return datetime.strptime(text, form)
            except ValueError:
                continue
        raise
