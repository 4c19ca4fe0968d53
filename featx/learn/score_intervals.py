"""The intervals of an evaluation's scores, from the influence of its predictions.

A fixed part: the spread of its units alone. A cross-validation: that, and what its folds have in common and apart. Its
estimand is the expected score of the whole procedure at the size of the folds' training parts, over training sets as
well as over new samples; see `cross_validated_intervals`. `bin/bench coverage` measures how often the intervals hold
it, and what others would do; docs/scores.md has the tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from featx.learn.intervals import EFFECTIVE, PSEUDO_UNITS, Interval, effective_ends, wilson_interval
from featx.learn.metrics import FloatArray, IntArray, metric_names

UNEVEN = 0.05
"""Folds differ by their training, too, where so much variance between them is less probable than this without."""


class Tested(Protocol):
    """The predictions of some folds, one after the other, as `featx.learn.influence.FoldRows`; a fixed part is one.

    Attributes
    ----------
    folds : int array (n_rows,)
    units : int array (n_rows,)
        What is independent: 0 ... n_units - 1.
    n_units : int
    """

    @property
    def folds(self) -> IntArray: ...  # noqa: D102

    @property
    def units(self) -> IntArray: ...  # noqa: D102

    @property
    def n_units(self) -> int: ...  # noqa: D102

    def strata(self) -> IntArray:
        """Return the kind (n_units,) of each unit: those of a kind vary alike."""

    def influence(self, name: str) -> FloatArray:
        """Return how far each row moves the mean of a score over the folds."""

    def mistakes(self, name: str) -> FloatArray:
        """Return what one more unit that goes wrong costs a score, for each kind of unit that counts apart."""

    def limits(self, name: str, value: float) -> tuple[float, float]:
        """Return the range of a score that has this value."""

    def right(self, name: str) -> NDArray[np.bool_] | None:
        """Return which rows are right, where that is all that a score counts."""


def fixed_intervals(values: Mapping[str, float | None], tested: Tested, *, unit: str) -> dict[str, Interval]:
    """Intervals of the scores of one classifier on one part.

    The estimand is the score of this classifier on new samples of the same kind.

    Parameters
    ----------
    values : mapping of str to float or None
        The scores.
    tested : Tested
        One fold.
    unit : str
        What is independent, in words: ``"samples"``, ``"groups"``.

    Returns
    -------
    dict of str to Interval
        A share of independent samples, as the accuracy is, has Wilson's own interval.
    """
    design = f"{tested.n_units} {unit}"
    independent = tested.n_units == len(tested.units)
    intervals = {}
    for name, value in values.items():
        if value is None:
            intervals[name] = Interval(None, None, None, [], "undefined")
        elif independent and (right := tested.right(name)) is not None:
            intervals[name] = wilson_interval(int(right.sum()), tested.n_units, unit=unit)
        elif tested.n_units < 2:
            intervals[name] = Interval(value, None, None, [], f"no interval: fewer than two {unit}")
        elif not tested.mistakes(name).any():  # none of the labels that the head knows: no next error can be reckoned
            intervals[name] = Interval(
                value, None, None, [], f"no interval: nothing of what it counts is there ({design})"
            )
        else:
            low, high = _ends(name, value, tested)
            intervals[name] = Interval(value, low, high, [], f"{EFFECTIVE} ({design})")
    return intervals


def cross_validated_intervals(
    by_fold: Sequence[Mapping[str, float | None]],
    tested: Tested,
    *,
    n_repeats: int,
    unit: str,
    factors: Mapping[str, float],
) -> dict[str, Interval]:
    """Intervals of the scores of (repeated) cross-validation.

    Three things make the mean over the folds vary. The units that are tested: their influence tells, added up over
    the repeats. That folds train on each other's test parts: two samples that test each other agree in chance
    hits, which doubles the variance where there is nothing to learn, and fades as what is learned is signal; see
    `inflation`. And training itself, where folds end up with heads that differ in kind: it shows when their scores
    vary more than their samples explain (Cochran's Q; DerSimonian and Laird, Controlled Clinical Trials 7, 1986), and
    what is beyond that is counted as Nadeau and Bengio count the spread of folds.

    Parameters
    ----------
    by_fold : sequence of mappings of str to float or None
        The scores of each fold, repeat by repeat.
    tested : Tested
        Their predictions.
    n_repeats : int
    unit : str
        What is independent, in words.
    factors : mapping of str to float
        By how much the variance of each score is above that of independent predictions: `inflation`.

    Returns
    -------
    dict of str to Interval
    """
    n_splits = len(by_fold) // n_repeats
    return {
        name: _of_folds(name, [one[name] for one in by_fold], tested, n_splits, n_repeats, factors[name], unit)
        for name in by_fold[0]
    }


def inflation(by_fold: Sequence[Mapping[str, float | None]], n_classes: int) -> dict[str, float]:
    """By how much the variance of a cross-validation is above that of as many independent predictions.

    The factor is ``2 - s^2``, where s is the balanced accuracy as its part of the way from guessing (0) to perfect (1).
    It is 2 for a score that is bilinear in test and training samples and has nothing to find (each pair of samples in
    different folds enters twice, with the same value), and 1 where heads from any training part agree. The log loss
    also depends on how sure heads are, which training parts decide long after they agree on the classes: there it is
    ``1 + min(1, 2 (1 - s^2))``.

    Returns
    -------
    dict of str to float
        For each score, from 1 to 2.
    """
    defined = [one["balanced_accuracy"] for one in by_fold]
    reached = float(np.mean([value for value in defined if value is not None] or [0.0]))
    guessing = 1 / n_classes
    noise = 1 - float(np.clip((reached - guessing) / (1 - guessing), 0, 1)) ** 2
    return {name: 1 + (min(1.0, 2 * noise) if name == "neg_log_loss" else noise) for name in metric_names(n_classes)}


def _of_folds(
    name: str,
    values: Sequence[float | None],
    tested: Tested,
    n_splits: int,
    n_repeats: int,
    factor: float,
    unit: str,
) -> Interval:
    folds = list(values)
    defined = [value for value in folds if value is not None]
    design = f"{n_splits} folds" + (f" x {n_repeats} repeats" if n_repeats > 1 else "")
    if len(defined) < len(folds):
        design += f", undefined in {len(folds) - len(defined)} of {len(folds)}"
    if not defined:
        return Interval(None, None, None, folds, f"undefined ({design})")
    mean = float(np.mean(defined))
    if len(defined) == 1 or n_splits < 2:
        return Interval(mean, None, None, folds, f"no interval from a single fold ({design})")
    by_repeat = np.array([np.nan if value is None else value for value in folds]).reshape(n_repeats, n_splits)
    low, high = _ends(name, mean, tested, factor=factor, by_repeat=by_repeat)
    return Interval(mean, low, high, folds, f"{EFFECTIVE} ({tested.n_units} {unit} in {design})")


def _ends(
    name: str, value: float, tested: Tested, *, factor: float = 1.0, by_repeat: FloatArray | None = None
) -> tuple[float, float]:
    """Find the ends in the range of the score."""
    lowest, highest = tested.limits(name, value)
    length = max(highest - lowest, np.finfo(np.float64).tiny)
    influences, costs = tested.influence(name) / length, tested.mistakes(name)
    variance, degrees = _sampling_variance(influences, costs, tested)
    excess = 0.0
    if by_repeat is not None:
        excess = training_variance(influences, by_repeat / length, tested)
        regular = factor * (variance + PSEUDO_UNITS * float(np.sum(costs**2)))
        degrees = (regular + excess) ** 2 / (regular**2 / degrees + excess**2 / (by_repeat.shape[1] - 1))
    low, high = effective_ends((value - lowest) / length, variance, degrees, costs, inflation=factor, excess=excess)
    return lowest + low * length, lowest + high * length


def _sampling_variance(influences: FloatArray, costs: FloatArray, tested: Tested) -> tuple[float, float]:
    """Variance of a score by its units, and its degrees of freedom (Satterthwaite, Biometrics Bulletin 2, 1946).

    Units of one class are a stratum: a class of a few units has few degrees of freedom, however many others there are.
    """
    by_unit = np.bincount(tested.units, weights=influences, minlength=tested.n_units)
    strata = tested.strata()
    squares, sizes = np.bincount(strata, weights=by_unit**2), np.bincount(strata)
    squares, sizes = squares[sizes > 0], sizes[sizes > 0]
    left = np.maximum(sizes - 1, 1)
    variances = squares * sizes / left
    regular = variances + PSEUDO_UNITS * float(np.sum(costs**2)) / len(sizes)
    return float(variances.sum()), float(regular.sum() ** 2 / np.sum(regular**2 / left))


def training_variance(influences: FloatArray, by_repeat: FloatArray, tested: Tested) -> float:
    """Return the variance of the mean over the folds by their training, beyond what their samples explain.

    Parameters
    ----------
    influences : float array (n_rows,)
        Of the score, or of a difference of scores.
    by_repeat : float array (n_repeats, n_splits)
        The score of each fold; NaN where undefined.
    tested : Tested

    Returns
    -------
    float
        0 where the folds do not differ by more than chance would have them.
    """
    from scipy.special import chdtri

    n_repeats, n_splits = by_repeat.shape
    n_defined = int(np.sum(~np.isnan(by_repeat)))
    _, places = np.unique(tested.folds * tested.n_units + tested.units, return_inverse=True)
    explained = n_defined * float(np.sum(np.bincount(places, weights=influences) ** 2))
    there = [one[~np.isnan(one)] for one in by_repeat]
    found = sum(float(np.sum((one - one.mean()) ** 2)) for one in there if len(one)) / max(n_defined - n_repeats, 1)
    if found <= explained * float(chdtri(n_splits - 1, UNEVEN)) / (n_splits - 1):
        return 0.0
    return float((1 / n_defined + 1 / (n_splits - 1)) * (found - explained))
