"""Folds: stratified by class, whole groups only, and with every class in every training part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.errors import LabelsError, UsageError
from featx.learn.numbers import look_like_numbers

IntArray = NDArray[np.int64]

N_SHUFFLES = 10
"""How many shuffles are tried until every class is in every fold; each is seeded, so the outcome is always the same."""

NEVER_TESTED = ("", "-1")
"""Values of a prescribed fold column that mean "always in training" (-1 as in scikit-learn's PredefinedSplit)."""


@dataclass(frozen=True, eq=False)
class Fold:
    """One split into a training and a test part.

    Attributes
    ----------
    repeat, number : int
        Which repeat, and which fold of it, from 0.
    train, test : int array
        Positions into what was split, ascending.
    name : str
        The value of the fold column where the folds were prescribed, else the number from 1.
    """

    repeat: int
    number: int
    train: IntArray
    test: IntArray
    name: str = ""


def make_folds(
    y: ArrayLike,
    groups: IntArray | None,
    *,
    n_splits: int,
    n_repeats: int = 1,
    random_state: int = 0,
    prescribed: Sequence[str] | NDArray[np.object_] | None = None,
    group_names: Sequence[str] = (),
    what: str = "cross-validation",
    option: str = "--cv",
    inner_splits: int = 1,
) -> list[Fold]:
    """Split into folds.

    Without groups this is scikit-learn's StratifiedKFold, with groups its StratifiedGroupKFold, shuffled. The first
    repeat uses `random_state` itself, so that scikit-learn gives the same folds; later ones are seeded from it. Where
    whole groups leave a fold without some class, up to `N_SHUFFLES` shuffles are tried: the first with every class in
    every training and test part is taken, else the first with every class in every training part.

    Parameters
    ----------
    y : str array (n_samples,)
    groups : int array (n_samples,), or None
    n_splits : int
        At least 2. Not used with `prescribed`.
    n_repeats : int
        How often the samples are split anew; 1 with `prescribed`.
    random_state : int
    prescribed : str array (n_samples,), optional
        The fold in which each sample is tested. Values are any words; each is one fold. ``''`` and ``'-1'`` are never
        tested and always in training, as -1 is in scikit-learn's PredefinedSplit.
    group_names : sequence of str, optional
        Names of the groups, for messages.
    what, option : str
        What is split, and the option that sets `n_splits` (``""``: none does), for messages.
    inner_splits : int
        Folds into which each training part is split again (nested cross-validation): so many samples, or groups, of
        every class are in every training part.

    Returns
    -------
    list of Fold
        `n_repeats` x `n_splits`, repeat by repeat; no group is on both sides of any.

    Raises
    ------
    LabelsError
        One class only, too few samples or groups for the folds, no shuffle with every class in every training part; a
        prescribed column that splits a group, has fewer than two values, or leaves a training part without some class.
    """
    classes, codes = np.unique(np.asarray(y), return_inverse=True)
    if prescribed is not None:
        if n_repeats != 1:
            raise UsageError(f"--repeats {n_repeats} with a fold column would repeat the same folds; leave it at 1")
        return _prescribed_classes(classes, codes, groups, np.asarray(prescribed, dtype=object), group_names)
    if n_splits < 2:
        raise UsageError(f"{option} {n_splits}: at least 2 folds are needed")
    check_classes(y, groups, n_splits=n_splits, what=what, option=option, inner_splits=inner_splits)
    folds: list[Fold] = []
    for repeat in range(n_repeats):
        tests = _shuffled(codes, groups, n_splits, inner_splits, random_state, repeat)
        if tests is None:
            raise LabelsError(_no_shuffle(classes, codes, groups, n_splits, inner_splits, random_state, what, option))
        folds += [
            Fold(repeat, number, np.setdiff1d(np.arange(len(codes)), test), test, str(number + 1))
            for number, test in enumerate(tests)
        ]
    return folds


def check_classes(
    y: ArrayLike,
    groups: IntArray | None,
    *,
    n_splits: int,
    what: str = "cross-validation",
    option: str = "--cv",
    inner_splits: int = 1,
) -> None:
    """Raise when some class is too small for the folds.

    Parameters
    ----------
    y : str array (n_samples,)
    groups : int array (n_samples,), or None
        With groups a class is counted in groups: those that have at least one sample of it.
    n_splits : int
        Folds that every class must be able to fill.
    what, option : str
        What is split, and the option that sets `n_splits` (``""``: none does), for messages.
    inner_splits : int
        Folds into which each training part is split again (nested cross-validation): what is left of a class after
        its largest test part must fill them too.

    Raises
    ------
    LabelsError
        No samples, one class only, or a class too small; offers ``--cv N`` and ``--min-per-class N`` where they help.
    """
    classes, codes = np.unique(np.asarray(y), return_inverse=True)
    if len(classes) == 0:
        raise LabelsError(
            f"no labelled samples for {what}; give `featx extract` class folders or a label column, which computes no "
            "features again"
        )
    if len(classes) == 1:
        raise LabelsError(
            f"only one class, {str(classes[0])!r} ({len(codes)} samples), for {what}; a classifier needs at least two. "
            "`featx info` lists the labels of the file"
        )
    counts = dict(zip(classes.tolist(), _class_sizes(codes, groups, len(classes)).tolist(), strict=True))
    enough = units_needed(n_splits, inner_splits)
    small = {name: count for name, count in counts.items() if count < enough}
    if not small:
        return
    unit = "samples" if groups is None else "groups"
    listed = ", ".join(f"{name!r} has {count}" for name, count in list(small.items())[:5])
    more = f", and {len(small) - 5} more classes" if len(small) > 5 else ""
    needs = f"{n_splits} folds" + (f" with {inner_splits} inner folds" if inner_splits > 1 else "")
    offers = []
    least = min(small.values())
    cv = min(n_splits, least)
    inner = min(inner_splits, _left_to_train(least, cv))
    if option and cv >= 2 and inner >= min(inner_splits, 2):
        offers.append(f"{option} {cv}" + (f" --inner-cv {inner}" if inner != inner_splits else ""))
    if len(classes) - len(small) >= 2:
        offers.append(f"--min-per-class {enough} (leaves out {len(small)} of {len(classes)} classes)")
    way_out = f"try {' or '.join(offers)}" if offers else f"give each class at least {enough} {unit}"
    if groups is not None and not offers:
        way_out += " (all that share a group, or their bytes, are one)"
    if look_like_numbers(np.asarray(y)):
        way_out = (
            f"Nearly all labels are numbers, {len(classes)} different ones: if they are to be predicted as numbers, "
            f"use --task regression. Else {way_out}"
        )
    elif len(codes) > 3 and len(classes) > len(codes) / 2:
        way_out += f". {len(classes)} classes of {len(codes)} samples: are the labels names or measurements?"
    raise LabelsError(f"too few {unit} for {needs} in {what}: {listed}{more}; at least {enough} needed. {way_out}")


def find_small_classes(y: ArrayLike, minimum: int, groups: IntArray | None = None) -> list[str]:
    """List the classes with fewer than `minimum` samples, or groups where there are groups.

    Raises
    ------
    LabelsError
        If fewer than two classes would stay.
    """
    classes, codes = np.unique(np.asarray(y), return_inverse=True)
    sizes = _class_sizes(codes, groups, len(classes))
    small = sizes < minimum
    if len(classes) > 1 and np.sum(~small) < 2:
        unit = "samples" if groups is None else "groups"
        raise LabelsError(
            f"--min-per-class {minimum} leaves out {np.sum(small)} of {len(classes)} classes, and a classifier needs "
            f"two: the largest have {' and '.join(str(n) for n in np.sort(sizes)[:-3:-1])} {unit}"
        )
    return [str(name) for name in classes[small]]


def _class_sizes(codes: IntArray, groups: IntArray | None, n_classes: int) -> IntArray:
    """Count each class's samples, or the groups that have at least one."""
    if groups is not None:
        codes = np.unique(np.stack([codes, groups]), axis=1)[0]
    return np.bincount(codes, minlength=n_classes)


def units_needed(n_splits: int, inner_splits: int) -> int:
    """How many members a class needs to be in every test part, and to fill the inner folds after the largest one."""
    enough = n_splits
    while n_splits > 1 and _left_to_train(enough, n_splits) < inner_splits:
        enough += 1
    return enough


def _left_to_train(n: int, n_splits: int) -> int:
    """Members of a class of `n` that are in training in the fold that tests most of them."""
    return n + (-n // n_splits)


def _shuffled(
    codes: IntArray, groups: IntArray | None, n_splits: int, inner_splits: int, random_state: int, repeat: int
) -> list[IntArray] | None:
    """Test parts of one repeat, or None when no shuffle leaves enough of every class in every training part."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    def sizes(rows: IntArray | slice) -> IntArray:
        return _class_sizes(codes[rows], None if groups is None else groups[rows], int(codes.max()) + 1)

    total = sizes(slice(None))
    usable = None
    for attempt in range(N_SHUFFLES):
        seed = random_state
        if repeat or attempt:
            seed = int(np.random.SeedSequence((random_state, repeat, attempt)).generate_state(1)[0])
        splitter = (StratifiedKFold if groups is None else StratifiedGroupKFold)(
            n_splits, shuffle=True, random_state=seed
        )
        tests = [np.sort(np.asarray(test, dtype=np.int64)) for _, test in splitter.split(codes, codes, groups)]
        tested = np.array([sizes(test) for test in tests])
        if (total - tested < inner_splits).any():
            continue
        if (tested > 0).all():
            return tests
        if usable is None and all(len(test) for test in tests):
            usable = tests
    return usable


def _no_shuffle(
    classes: NDArray[Any],
    codes: IntArray,
    groups: IntArray | None,
    n_splits: int,
    inner_splits: int,
    random_state: int,
    what: str,
    option: str,
) -> str:
    """Say which class stands in the way, and a number of folds that works: the largest below, else the first above."""
    sizes = _class_sizes(codes, groups, len(classes))
    numbers = [*range(n_splits, 1, -1), *range(n_splits + 1, min(int(sizes.min()), n_splits + 5) + 1)]
    ways = ((n, inner) for inner in dict.fromkeys((inner_splits, min(inner_splits, 2))) for n in numbers)
    offers = (
        f"try {option} {n}" + (f" --inner-cv {inner}" if inner != inner_splits else "")
        for n, inner in ways
        if _shuffled(codes, groups, n, inner, random_state, 0) is not None
    )
    way_out = next(offers if option else iter(()), "more groups that hold this class are needed")
    training = "every class" if inner_splits == 1 else f"{inner_splits} groups of every class"
    name = str(classes[int(np.argmin(sizes))])
    return (
        f"{what}: no way was found to deal whole groups into {n_splits} folds with {training} in every training part; "
        f"the class in fewest groups is {name!r} ({sizes.min()}). {way_out}"
    )


def _prescribed_classes(
    classes: NDArray[Any],
    codes: IntArray,
    groups: IntArray | None,
    column: NDArray[np.object_],
    group_names: Sequence[str],
) -> list[Fold]:
    """One fold for each value of the column, with every class in training."""
    if len(classes) < 2:
        raise LabelsError("fewer than two classes; a classifier needs at least two")
    folds = column_folds(column, groups, group_names)
    for fold in folds:
        lacking = np.setdiff1d(np.arange(len(classes)), codes[fold.train])
        if len(lacking):
            raise LabelsError(
                f"fold {fold.name!r} of the fold column tests every sample of class {str(classes[lacking[0]])!r}: none "
                "is left to train on; spread the class over more folds, or leave the column out"
            )
    return folds


def column_folds(column: NDArray[np.object_], groups: IntArray | None, group_names: Sequence[str]) -> list[Fold]:
    """Return one fold for each value of a column, whatever the labels are.

    Raises
    ------
    LabelsError
        If it names no fold, or tears a group apart.
    """
    column = np.array(["" if value in NEVER_TESTED else str(value) for value in column], dtype=object)
    names = sorted(set(column) - {""}, key=_natural)
    if not names:
        raise LabelsError("the fold column names no fold: every value is empty or -1")
    if groups is not None:
        check_whole_groups(column, groups, what="the fold column", group_names=group_names)
    return [
        Fold(0, number, np.flatnonzero(column != name), np.flatnonzero(column == name), name)
        for number, name in enumerate(names)
    ]


def check_whole_groups(
    parts: NDArray[np.object_], groups: IntArray, *, what: str, group_names: Sequence[str] = (), hint: str = ""
) -> None:
    """Raise when some group has samples in more than one part.

    Parameters
    ----------
    parts : str array (n_samples,)
    groups : int array (n_samples,)
    what : str
        What divides the samples, for the message.
    group_names : sequence of str, optional
        Name of each group; else its number is named.
    hint : str
        What to do next, for the message.

    Raises
    ------
    LabelsError
        Names the first such group and its parts.
    """
    names, codes = np.unique(parts.astype(str), return_inverse=True)
    pairs = np.unique(np.stack([groups, codes]), axis=1)
    numbers, n_parts = np.unique(pairs[0], return_counts=True)
    torn = numbers[n_parts > 1]
    if len(torn):
        group = int(torn[0])
        sides = " and ".join(repr(str(name)) for name in names[pairs[1][pairs[0] == group]])
        name = group_names[group] if group_names else str(group)
        others = f" ({len(torn)} groups are torn apart)" if len(torn) > 1 else ""
        raise LabelsError(f"{what} puts group {name!r} into {sides}{others}{'; ' + hint if hint else ''}")


def _natural(name: str) -> tuple[int, int, str]:
    """Sort 2 before 10, and numbers before words."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)
