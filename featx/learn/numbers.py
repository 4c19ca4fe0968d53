"""Labels that are numbers, and bins of them where a share of each is wanted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import LabelsError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MOST_BINS = 10
"""Into which numbers are put."""
FEWEST_IN_STRATUM = 10
"""Labels that are numbers are strata of at least so many."""


def parse_number(label: str) -> float | None:
    """Return the finite number that a label says, or None.

    As Python writes numbers, without underscores: ``"12"``, ``"-0.5"``, ``"1e3"``; ``nan`` and ``inf`` are no numbers.
    """
    try:
        number = math.nan if "_" in label else float(label)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def parse_numbers(labels: Sequence[str] | NDArray[Any], keys: Sequence[str] | NDArray[Any]) -> FloatArray:
    """Return the numbers (n_samples,) that labels say.

    Raises
    ------
    LabelsError
        Counts the labels that are no finite number, and names the key of the first.
    """
    numbers = [parse_number(str(label)) for label in labels]
    wrong = [place for place, number in enumerate(numbers) if number is None]
    if wrong:
        first = wrong[0]
        raise LabelsError(
            f"{len(wrong)} of {len(numbers)} labels are not finite numbers, the first {str(labels[first])!r} of "
            f"{str(keys[first])!r}; --task regression needs a number for each sample, written as in 12.5, or nothing "
            "where it is unknown"
        )
    return np.array(numbers, dtype=np.float64)


def look_like_numbers(labels: Sequence[str] | NDArray[Any]) -> bool:
    """Whether labels are rather numbers to be predicted than names of classes.

    Nearly all (95 %) are finite numbers, and there are more different ones than a tenth of them, and than 10.
    """
    numbers = [number for label in labels if (number := parse_number(str(label))) is not None]
    return len(numbers) >= 0.95 * len(labels) and len(set(numbers)) > max(10, len(labels) / 10)


def bin_numbers(y: FloatArray, fewest: int) -> IntArray:
    """Put numbers (n_samples,) into bins of about equal counts, each with at least `fewest`; equal numbers together.

    Returns
    -------
    int array (n_samples,)
        Bins in ascending order, from 0; at most `MOST_BINS`.
    """
    for n_bins in range(min(MOST_BINS, len(y) // fewest), 1, -1):
        edges = np.unique(np.quantile(y, np.arange(1, n_bins) / n_bins))
        bins = np.unique(np.searchsorted(edges, y, side="right"), return_inverse=True)[1].astype(np.int64)
        if np.bincount(bins).min() >= fewest:
            return bins
    return np.zeros(len(y), dtype=np.int64)


def strata_of(labels: NDArray[np.str_]) -> NDArray[np.str_]:
    """Return what a draw takes a share of: classes as they are, numbers as ranges of them, ``"1.5 to 3"``.

    Numbers are labels of which `look_like_numbers` says so; what is no number among them stays as it is.
    """
    if not look_like_numbers(labels):
        return labels
    numbers = [parse_number(str(label)) for label in labels]
    places = [place for place, number in enumerate(numbers) if number is not None]
    values = np.array([numbers[place] for place in places], dtype=np.float64)
    bins = bin_numbers(values, FEWEST_IN_STRATUM)
    names = [f"{values[bins == one].min():g} to {values[bins == one].max():g}" for one in range(int(bins.max()) + 1)]
    strata = labels.astype(object)
    strata[places] = [names[one] for one in bins]
    return strata.astype(str)
