"""Whether two columns of the same samples go together: Cramer's V, and how often chance would bring as much."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.learn.intervals import resampling_units

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

N_PERMUTATIONS = 1999
_ROUNDING = 1e-12
"""Mean squares that differ by less are those of the same table; they are between 0 and the number of columns."""


@dataclass(frozen=True)
class Association:
    """How strongly two columns go together.

    Attributes
    ----------
    cramers_v : float
        0 = independent, 1 = one can be told from the other; corrected for bias, see `cramers_v`.
    p_value : float
        How often a permutation brings as much, see `associate`.
    n_units : int
        Groups, or samples where there are none.
    permuted : str
        What was permuted, in words.
    """

    cramers_v: float
    p_value: float
    n_units: int
    permuted: str


def associate(
    a: ArrayLike,
    b: ArrayLike,
    groups: IntArray | None,
    *,
    n_permutations: int = N_PERMUTATIONS,
    random_state: int = 0,
) -> Association:
    """Measure how strongly two columns go together, and test it by permutation of whole groups.

    Each group counts once, however many samples it has. Where one column has one value in each group (a patient's
    site), its values are dealt anew among the groups. Where both differ within groups, the samples of a group are
    shuffled, and groups of the same size change places; what groups of a size of their own say is then mostly not used,
    and the test errs on the side of no association.

    Parameters
    ----------
    a, b : array (n_samples,)
        Any values.
    groups : int array (n_samples,), or None
    n_permutations, random_state : int

    Returns
    -------
    Association
        `p_value` is ``(1 + as large) / (1 + n_permutations)``, which is never 0 (Phipson and Smyth, Permutation
        p-values should never be zero, 2010).
    """
    codes_a, codes_b = (np.unique(np.asarray(column), return_inverse=True)[1].astype(np.int64) for column in (a, b))
    units, n_units = resampling_units(groups, len(codes_a))
    weights = unit_weights(units)
    shape = int(codes_a.max()) + 1, int(codes_b.max()) + 1
    found = _mean_square(_count(codes_a, codes_b, weights, shape))
    rng = np.random.default_rng(random_state)
    permute, words = _permutation(codes_a, codes_b, units, n_units, rng)
    as_large = 0
    for _ in range(n_permutations):
        as_large += _mean_square(_count(*permute(), weights, shape)) >= found - _ROUNDING
    return Association(_corrected(found, *shape, n_units), (1 + as_large) / (1 + n_permutations), n_units, words)


def cramers_v(a: ArrayLike, b: ArrayLike, groups: IntArray | None = None) -> float:
    """Return Cramer's V of two columns, corrected for bias.

    Plain V is above 0 for independent columns, the more so the more values and the fewer samples there are. The
    correction is Bergsma's (Journal of the Korean Statistical Society 42, 2013).

    Parameters
    ----------
    a, b : array (n_samples,)
        Any values.
    groups : int array (n_samples,), optional
        Each group counts once, its samples share its weight; n of the formula is the number of groups.
    """
    table = weighted_table(a, b, groups)
    return _corrected(_mean_square(table), table.shape[0], table.shape[1], round(float(table.sum())))


def weighted_table(a: ArrayLike, b: ArrayLike, groups: IntArray | None = None) -> FloatArray:
    """Return how often values of `a` (rows) and `b` (columns), each sorted, come together; each group counts once."""
    values_a, codes_a = np.unique(np.asarray(a), return_inverse=True)
    values_b, codes_b = np.unique(np.asarray(b), return_inverse=True)
    units, _ = resampling_units(groups, len(codes_a))
    return _count(codes_a, codes_b, unit_weights(units), (len(values_a), len(values_b)))


def unit_weights(units: IntArray) -> FloatArray:
    """Return a weight for each sample (n_samples,), so that each unit has 1 in all."""
    weights: FloatArray = 1.0 / np.bincount(units)[units]
    return weights


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values of several tests (Holm, Scandinavian Journal of Statistics 6, 1979).

    Of columns with an adjusted p below 0.05, the chance that any goes with the label by accident is below 0.05.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=lambda number: p_values[number])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = highest
    return adjusted


def _count(a: IntArray, b: IntArray, weights: FloatArray, shape: tuple[int, int]) -> FloatArray:
    counts: FloatArray = np.bincount(a * shape[1] + b, weights=weights, minlength=shape[0] * shape[1]).astype(
        np.float64
    )
    return counts.reshape(shape)


def _mean_square(table: FloatArray) -> float:
    """Return chi square over n: the mean square contingency."""
    n = table.sum()
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
    there = expected > 0
    return float(np.sum((table[there] - expected[there]) ** 2 / expected[there]) / n)


def _corrected(mean_square: float, n_rows: int, n_columns: int, n: int) -> float:
    if min(n_rows, n_columns) < 2 or n <= max(n_rows, n_columns):
        return 0.0
    excess = max(0.0, mean_square - (n_rows - 1) * (n_columns - 1) / (n - 1))
    most = min(size - (size - 1) ** 2 / (n - 1) for size in (n_rows, n_columns)) - 1
    return float(min(1.0, (excess / most) ** 0.5))


def _permutation(
    a: IntArray, b: IntArray, units: IntArray, n_units: int, rng: np.random.Generator
) -> tuple[Callable[[], tuple[IntArray, IntArray]], str]:
    """Return what deals one column anew, and the same in words."""
    of_unit = [_values_of_units(column, units, n_units) for column in (a, b)]
    of_a, of_b = of_unit
    if of_a is not None:
        words = "the column over the samples" if n_units == len(a) else "the column over whole groups"
        return (lambda: (rng.permutation(of_a)[units], b)), words
    if of_b is not None:
        return (lambda: (a, rng.permutation(of_b)[units])), "the label over whole groups"
    blocks = _blocks(units)

    def within() -> tuple[IntArray, IntArray]:
        dealt = np.empty_like(a)
        for block in blocks:
            dealt[block] = rng.permuted(a[block][rng.permutation(len(block))], axis=1)
        return dealt, b

    return within, "the column within groups, and between groups of the same size"


def _values_of_units(codes: IntArray, units: IntArray, n_units: int) -> IntArray | None:
    """Return the value of each unit, or None where some unit has several."""
    values = np.zeros(n_units, dtype=np.int64)
    values[units] = codes
    return values if np.array_equal(values[units], codes) else None


def _blocks(units: IntArray) -> list[IntArray]:
    """Return the samples of the units of each size, one unit a row: (n_units_of_the_size, size)."""
    order = np.argsort(units, kind="stable")
    sizes = np.bincount(units)
    ends = np.cumsum(sizes)
    return [
        order[(ends[sizes == size] - size)[:, None] + np.arange(size)] for size in np.unique(sizes[sizes > 0]).tolist()
    ]
