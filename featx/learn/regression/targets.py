"""Labels that are numbers, and folds that are stratified by them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import LabelsError, UsageError
from featx.learn.splits import N_SHUFFLES, Fold, column_folds

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MOST_BINS = 10
"""Into which numbers are put for folds in which each bin has its share."""


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


@dataclass(frozen=True)
class FoldPlan:
    """How samples are dealt into folds.

    Attributes
    ----------
    n_splits, n_repeats, random_state : int
    inner_splits : int
        Folds into which each training part is split again.
    what, option : str
        What is split, and the option that sets `n_splits`, for messages.
    """

    n_splits: int
    n_repeats: int = 1
    random_state: int = 0
    inner_splits: int = 1
    what: str = "cross-validation"
    option: str = "--cv"


def make_folds(
    y: FloatArray,
    groups: IntArray | None,
    plan: FoldPlan,
    *,
    prescribed: NDArray[np.object_] | None = None,
    group_names: Sequence[str] = (),
) -> list[Fold]:
    """Split into folds that are stratified by bins of equal counts of the numbers, whole groups only.

    scikit-learn's StratifiedKFold, or StratifiedGroupKFold, on at most `MOST_BINS` bins, each of which has a sample for
    every fold. The first repeat uses the seed itself.

    Parameters
    ----------
    y : float64 array (n_samples,)
    groups : int array (n_samples,), or None
    plan : FoldPlan
    prescribed : str array (n_samples,), optional
        As in `featx.learn.splits.make_folds`.
    group_names : sequence of str, optional

    Raises
    ------
    LabelsError
        Numbers that are all the same, or too few samples or groups for the folds.
    UsageError
        Repeats of prescribed folds.
    """
    check_numbers(y, groups, plan if prescribed is None else FoldPlan(1, what=plan.what))
    if prescribed is not None:
        if plan.n_repeats != 1:
            raise UsageError(
                f"--repeats {plan.n_repeats} with a fold column would repeat the same folds; leave it at 1"
            )
        folds = column_folds(prescribed, groups, group_names)
        for fold in folds:
            check_numbers(y[fold.train], None, FoldPlan(1, what=f"the training part of fold {fold.name!r}"))
        return folds
    bins = bin_numbers(y, plan.n_splits)
    folds = []
    for repeat in range(plan.n_repeats):
        tests = _deal(bins, groups, plan, repeat)
        folds += [
            Fold(repeat, number, np.setdiff1d(np.arange(len(y)), test), test, str(number + 1))
            for number, test in enumerate(tests)
        ]
    return folds


def check_numbers(y: FloatArray, groups: IntArray | None, plan: FoldPlan) -> None:
    """Raise LabelsError where numbers are all the same, or samples or groups too few for the folds."""
    if len(y) == 0:
        raise LabelsError(f"no labelled samples for {plan.what}")
    if np.ptp(y) == 0:
        raise LabelsError(f"all {len(y)} labels are {y[0]:g} in {plan.what}: there is nothing to predict")
    unit, n = ("samples", len(y)) if groups is None else ("groups", len(np.unique(groups)))
    least = max(plan.n_splits, 3 if plan.n_splits > 1 else 2)
    while plan.n_splits > 1 and least - math.ceil(least / plan.n_splits) < plan.inner_splits:
        least += 1
    if n < least:
        inner = f" with {plan.inner_splits} inner folds" if plan.inner_splits > 1 else ""
        enough = [cv for cv in range(plan.n_splits, 1, -1) if n >= 3 and n - math.ceil(n / cv) >= 2 and n >= cv]
        way_out = f"at least {least} are needed"
        if enough and plan.n_splits > 1:
            left = min(plan.inner_splits, n - math.ceil(n / enough[0]))
            way_out += f"; try {plan.option} {enough[0]}" + (f" --inner-cv {left}" if plan.inner_splits > 1 else "")
        raise LabelsError(f"too few {unit} for {plan.n_splits} folds{inner} in {plan.what}: {n}; {way_out}")


def bin_numbers(y: FloatArray, n_splits: int) -> IntArray:
    """Put numbers (n_samples,) into bins of about equal counts, each with at least `n_splits`; equal numbers together.

    Returns
    -------
    int array (n_samples,)
        Bins in ascending order, from 0.
    """
    for n_bins in range(min(MOST_BINS, len(y) // n_splits), 1, -1):
        edges = np.unique(np.quantile(y, np.arange(1, n_bins) / n_bins))
        bins = np.unique(np.searchsorted(edges, y, side="right"), return_inverse=True)[1].astype(np.int64)
        if np.bincount(bins).min() >= n_splits:
            return bins
    return np.zeros(len(y), dtype=np.int64)


def _deal(bins: IntArray, groups: IntArray | None, plan: FoldPlan, repeat: int) -> list[IntArray]:
    """Return the test parts of one repeat; whole groups that leave a fold empty are shuffled again."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    for attempt in range(N_SHUFFLES):
        seed = plan.random_state
        if repeat or attempt:
            seed = int(np.random.SeedSequence((plan.random_state, repeat, attempt)).generate_state(1)[0])
        kind = StratifiedKFold if groups is None else StratifiedGroupKFold
        splitter = kind(plan.n_splits, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The least populated class")  # of one bin, where all is one
            parts = [np.sort(np.asarray(test, dtype=np.int64)) for _, test in splitter.split(bins, bins, groups)]
        if all(len(test) and _enough_left(test, groups, len(bins), plan.inner_splits) for test in parts):
            return parts
    raise LabelsError(
        f"{plan.what}: no way was found to deal whole groups into {plan.n_splits} folds; try a smaller {plan.option}"
    )


def _enough_left(test: IntArray, groups: IntArray | None, n: int, inner_splits: int) -> bool:
    left = n - len(test) if groups is None else len(np.unique(np.delete(groups, test)))
    return left >= max(inner_splits, 1)
