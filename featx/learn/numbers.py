"""Labels that are numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import LabelsError

FloatArray = NDArray[np.float64]


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
