"""Folds that are stratified by numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featx.errors import LabelsError, UsageError
from featx.learn.numbers import FloatArray, bin_numbers
from featx.learn.splits import N_SHUFFLES, Fold, column_folds

IntArray = NDArray[np.int64]


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

    scikit-learn's StratifiedKFold, or StratifiedGroupKFold, on the bins of `featx.learn.numbers.bin_numbers`, each of
    which has a sample for every fold. The first repeat uses the seed itself.

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
    if prescribed is not None:
        check_numbers(y, None, FoldPlan(1, what=plan.what))
        if plan.n_repeats != 1:
            raise UsageError(
                f"--repeats {plan.n_repeats} with a fold column would repeat the same folds; leave it at 1"
            )
        folds = column_folds(prescribed, groups, group_names)
        for fold in folds:
            check_numbers(y[fold.train], None, FoldPlan(1, what=f"the training part of fold {fold.name!r}"))
        return folds
    check_numbers(y, groups, plan)
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
    least = max(plan.n_splits, 2)
    while plan.n_splits > 1 and _left_to_train(least, plan.n_splits) < plan.inner_splits:
        least += 1
    if n >= least:
        return
    if plan.n_splits == 1:
        raise LabelsError(f"too few {unit} in {plan.what}: {n}; at least {least} are needed")
    inner = f" with {plan.inner_splits} inner folds" if plan.inner_splits > 1 else ""
    way_out = ""
    cv = min(plan.n_splits, n)
    if cv >= 2 and _left_to_train(n, cv) >= min(plan.inner_splits, 2):
        left = min(plan.inner_splits, _left_to_train(n, cv))
        way_out = f"; try {plan.option} {cv}" + (f" --inner-cv {left}" if left < plan.inner_splits else "")
    raise LabelsError(
        f"too few {unit} for {plan.n_splits} folds{inner} in {plan.what}: {n}; at least {least} are needed{way_out}"
    )


def _left_to_train(n: int, n_splits: int) -> int:
    """Units of `n` that are in training in the fold that tests most of them."""
    return n - math.ceil(n / n_splits)


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
