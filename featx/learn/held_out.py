"""Drawing the part of the data that is kept for one last test: whole groups, every class in its share."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.errors import LabelsError, UsageError

IntArray = NDArray[np.int64]

CLOSE = 0.05
"""Part of a class's share by which a draw may miss it."""
_TRIES = 100
_STEPS = 200_000  # groups looked at in all tries together


def draw_held_out(
    y: ArrayLike, groups: IntArray | None, *, fraction: float, random_state: int = 0
) -> NDArray[np.bool_]:
    """Draw about a fraction of the samples, stratified by class and in whole groups.

    The groups are taken one by one in random order, and each is kept if that brings the classes nearer to their shares
    (the sum over classes of squared distance from the share, divided by the class's size, as in a chi-square); a class
    that ends with none gives its smallest. The first such draw is taken in which every class is within `CLOSE` of its
    share, or one sample, else the nearest of some: always the nearest would never draw a group of unusual size.
    Features play no part in it. A class of fewer than two groups stays open: it cannot be on both sides.

    Parameters
    ----------
    y : str array (n_samples,)
    groups : int array (n_samples,), or None
        None: each sample is a group.
    fraction : float
        Between 0 and 1.
    random_state : int

    Returns
    -------
    bool array (n_samples,)

    Raises
    ------
    UsageError
        If `fraction` is not between 0 and 1.
    LabelsError
        If fewer than two classes can be on both sides.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"--fraction {fraction:g}: expected more than 0 and less than 1")
    classes, codes = np.unique(np.asarray(y), return_inverse=True)
    groups = np.arange(len(codes)) if groups is None else np.unique(groups, return_inverse=True)[1]
    n_groups, n_classes = (int(groups.max()) + 1 if len(groups) else 0), len(classes)
    counts = np.zeros((n_groups, n_classes))
    np.add.at(counts, (groups, codes), 1)
    can_share = (counts > 0).sum(axis=0) >= 2
    if np.count_nonzero(can_share) < 2:
        few = ", ".join(f"{name} ({n})" for name, n in zip(classes[:5], (counts > 0).sum(axis=0), strict=False))
        few += f" and {n_classes - 5:,} more classes" if n_classes > 5 else ""
        raise LabelsError(
            f"a locked test set needs at least two classes, each in at least two groups of samples; groups by class: "
            f"{few or 'no labelled samples'}"
        )
    usable = np.flatnonzero((counts[:, ~can_share] == 0).all(axis=1))
    total = counts.sum(axis=0)
    goal = np.where(can_share, fraction * total, 0.0)
    rng = np.random.default_rng(random_state)
    best: tuple[tuple[int, float], IntArray] | None = None
    for _ in range(max(1, min(_TRIES, _STEPS // max(1, n_groups)))):
        taken = _draw(counts, usable[rng.permutation(len(usable))], goal, total)
        drawn = counts[taken].sum(axis=0)
        one_sided = int(np.count_nonzero(can_share & ((drawn == 0) | (drawn == total))))
        worth = one_sided, float(np.sum((drawn - goal) ** 2 / total))
        if best is None or worth < best[0]:
            best = worth, taken
        if not one_sided and (np.abs(drawn - goal) <= np.maximum(CLOSE * goal, 1.0)).all():
            break
    assert best is not None
    if n_classes - best[0][0] - np.count_nonzero(~can_share) < 2:
        raise LabelsError(
            f"no draw of whole groups with about {fraction:.0%} of each class leaves two classes on both sides; there "
            f"are {n_groups} groups. Take another --fraction, or more groups are needed"
        )
    held_out: NDArray[np.bool_] = np.isin(groups, best[1])
    return held_out


def _draw(
    counts: NDArray[np.float64], order: IntArray, goal: NDArray[np.float64], total: NDArray[np.float64]
) -> IntArray:
    """Take each group in turn if that brings the classes nearer to their goals."""
    lacking = goal.copy()
    taken = []
    for group in order.tolist():
        count = counts[group]
        # |lacking - count|^2 < |lacking|^2, each class weighed by its size
        if np.dot(count * (2 * lacking - count), 1 / total) > 0:
            lacking -= count
            taken.append(group)
    # A class whose groups are all large for its share has none yet: its smallest one, as long as another stays.
    drawn = np.isin(np.arange(len(counts)), taken)
    for one in np.flatnonzero(goal > 0).tolist():
        holders = order[counts[order, one] > 0]
        if not drawn[holders].any() and len(holders) > 1:
            drawn[holders[np.argmin(counts[holders].sum(axis=1))]] = True
    return np.flatnonzero(drawn)
