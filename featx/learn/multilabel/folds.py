"""Folds with every label's samples spread evenly, and whole groups only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from featx.errors import LabelsError, UsageError
from featx.learn.multilabel.labels import BoolArray, IntArray, LabelTable, check_labels, count_units
from featx.learn.splits import N_SHUFFLES, Fold, column_folds, units_needed

FloatArray = NDArray[np.float64]


def deal_units(counts: IntArray, sizes: IntArray, n_splits: int, random_state: int) -> IntArray:
    """Deal units into folds so that each fold has its share of every label: iterative stratification.

    The rarest label comes first. Each unit that has it goes to the fold that lacks most of that label; of equal ones to
    the one that lacks most samples, then to one that is drawn (Sechidis, Tsoumakas and Vlahavas, On the stratification
    of multi-label data, ECML PKDD 2011, where a unit is one sample). Here a unit may be a group of them, and those with
    most of the label are dealt first, while there is still room to make up for them.

    Parameters
    ----------
    counts : int array (n_units, n_labels)
        How many samples of a unit have each label.
    sizes : int array (n_units,)
        How many samples a unit has.
    n_splits : int
    random_state : int

    Returns
    -------
    int array (n_units,)
        The fold of each unit, 0 ... n_splits - 1.
    """
    rng = np.random.default_rng(random_state)
    lacking = np.tile(counts.sum(axis=0) / n_splits, (n_splits, 1))
    room = np.full(n_splits, sizes.sum() / n_splits)
    folds = np.full(len(sizes), -1, dtype=np.int64)
    left = rng.permutation(len(sizes))
    while len(left):
        carriers = (counts[left] > 0).sum(axis=0)
        if carriers.any():
            label = int(np.argmin(np.where(carriers > 0, carriers, len(sizes) + 1)))
            own, desire = counts[left, label], lacking[:, label]  # a view, which follows what is dealt
        else:
            own, desire = sizes[left], room
        order = np.argsort(-own, kind="stable")
        for unit in left[order][own[order] > 0]:
            fold = np.lexsort((rng.permutation(n_splits), -room, -desire))[0]
            folds[unit] = fold
            lacking[fold] -= counts[unit]
            room[fold] -= sizes[unit]
        left = left[folds[left] < 0]
    return folds


def make_label_folds(
    table: LabelTable,
    groups: IntArray | None,
    *,
    n_splits: int,
    n_repeats: int = 1,
    random_state: int = 0,
    prescribed: NDArray[np.object_] | None = None,
    group_names: Sequence[str] = (),
    what: str = "cross-validation",
    option: str = "--cv",
    inner_splits: int = 1,
) -> list[Fold]:
    """Split into folds by `deal_units`, as `featx.learn.splits.make_folds` does for classes.

    Up to `N_SHUFFLES` deals are tried: the first with every label in every test part, and with and without it in every
    training part, is taken; else the first with the latter.

    Parameters
    ----------
    table : LabelTable
    groups, n_splits, n_repeats, random_state, prescribed, group_names, what, option, inner_splits
        As in `featx.learn.splits.make_folds`.

    Raises
    ------
    LabelsError
        A label that too few samples, or groups, have or lack; no deal with every label in every training part.
    """
    if prescribed is not None:
        if n_repeats != 1:
            raise UsageError(f"--repeats {n_repeats} with a fold column would repeat the same folds; leave it at 1")
        folds = column_folds(prescribed, groups, group_names)
        for fold in folds:
            check_labels(table.take(fold.train), None, n_splits=1, what=f"training without fold {fold.name!r}")
        return folds
    check_labels(table, groups, n_splits=n_splits, what=what, option=option, inner_splits=inner_splits)
    folds = []
    for repeat in range(n_repeats):
        tests = _deal(table.marks, groups, n_splits, inner_splits, random_state, repeat)
        if tests is None:
            raise LabelsError(_no_deal(table, groups, n_splits, inner_splits, what, option))
        folds += [
            Fold(repeat, number, np.setdiff1d(np.arange(len(table)), test), test, str(number + 1))
            for number, test in enumerate(tests)
        ]
    return folds


def _no_deal(
    table: LabelTable, groups: IntArray | None, n_splits: int, inner_splits: int, what: str, option: str
) -> str:
    counts = count_units(table.marks, groups)
    rarest, unit = int(np.argmin(counts)), "samples" if groups is None else "groups"
    more = units_needed(n_splits, inner_splits) + 1
    return (
        f"{what}: no way was found to deal {unit} into {n_splits} folds with every label, and its absence, in every "
        f"training part; the label in fewest {unit} is {table.names[rarest]!r} ({counts[rarest]}). Try "
        + (f"{option} {n_splits - 1} or " if n_splits > 2 else "")
        + f"--min-per-class {max(more, int(counts[rarest]) + 1)}"
    )


def _deal(
    marks: BoolArray, groups: IntArray | None, n_splits: int, inner_splits: int, random_state: int, repeat: int
) -> list[IntArray] | None:
    """Test parts of one repeat, or None when no deal leaves enough of every label in every training part."""
    units = np.arange(len(marks)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(units)
    counts = np.zeros((len(sizes), marks.shape[1]), dtype=np.int64)
    np.add.at(counts, units, marks)
    has, lacks = counts > 0, counts < sizes[:, None]
    usable = None
    for attempt in range(N_SHUFFLES):
        seed = random_state
        if repeat or attempt:
            seed = int(np.random.SeedSequence((random_state, repeat, attempt)).generate_state(1)[0])
        folds = deal_units(counts, sizes, n_splits, seed)
        tests = [np.flatnonzero(folds[units] == fold) for fold in range(n_splits)]
        tested = np.array([[side[folds == fold].sum(axis=0) for side in (has, lacks)] for fold in range(n_splits)])
        in_training = np.array([has.sum(axis=0), lacks.sum(axis=0)]) - tested
        if (in_training < inner_splits).any() or not all(map(len, tests)):
            continue
        if (tested > 0).all():
            return tests
        usable = usable or tests
    return usable
