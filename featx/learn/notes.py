"""What the user of a fit must hear, whatever its task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from featx.learn.dataset import LockedPart
from featx.learn.groups import GroupIds
from featx.learn.search import Choice, Unconverged, setting

MOST_KINDS = 5
"""Kinds of fits that did not converge which are named."""


def note_groups(groups: GroupIds) -> list[str]:
    """Say that no groups were given, and what is kept together all the same."""
    if groups.given:
        return []
    notes = [
        "No groups were given. If several images show the same patient, animal or part, they may be in "
        "training and test at once, and the scores are then too good: give `featx extract` a group column or "
        "--group-regex."
    ]
    if groups.ids is not None:
        near = " and near-duplicates" if "near-duplicates" in groups.source else ""
        notes.append(f"Identical files{near} are kept together: {groups.n} different ones.")
    return notes


def note_looks(locked: LockedPart | None) -> list[str]:
    """Say that the locked part was looked at."""
    if locked is None or not locked.looks:
        return []
    n = len(locked.looks)
    when = locked.looks[0] if n == 1 else f"{n} times, first on {locked.looks[0]}"
    return [
        f"The locked part of this file has been looked at ({when}). A classifier that is chosen with those "
        "scores in mind is no longer blind to it, and its own score there would be too good."
    ]


def note_left_out(n_missing: int, unlabelled: int) -> list[str]:
    """Say how many samples have no features, and how many no label."""
    notes = []
    if n_missing:
        notes.append(f"Samples that failed in extraction and have no row: {n_missing}.")
    if unlabelled:
        notes.append(f"Samples without a label, left out: {unlabelled}.")
    return notes


def note_edge(chosen: Choice) -> list[str]:
    """Say that the choice is at an edge of what was tried."""
    if not chosen.edge:
        return []
    return [
        f"The chosen {chosen.setting} is at the {chosen.edge} edge of what was tried: a "
        "better one may lie beyond (for C: --C-grid)."
    ]


def note_unconverged(unconverged: Sequence[Unconverged], n_fits: int) -> list[str]:
    """Say which fits did not converge."""
    if not unconverged:
        return []
    counts = Counter(f"{fit.head} {fit.scaling} {setting(fit.head, fit.value)}" for fit in unconverged)
    listed = ", ".join(f"{name} ({count})" for name, count in counts.most_common(MOST_KINDS))
    more = f" and {len(counts) - MOST_KINDS} more" if len(counts) > MOST_KINDS else ""
    return [f"{len(unconverged)} of {n_fits} fits did not converge: {listed}{more}."]
