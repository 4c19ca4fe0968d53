"""What a user must hear of a result, where several kinds of result say the same: lists, empty where nothing is so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from featx.learn.choice import Choice, setting
from featx.learn.convergence import Unconverged
from featx.learn.dataset import LockedPart
from featx.learn.groups import GroupIds

_MOST_KINDS = 5  # of fits that did not converge, by name


def note_no_groups(groups: GroupIds) -> list[str]:
    """Say what it means that no groups were given."""
    if groups.given:
        return []
    return [
        "No groups were given. If several images show the same patient, animal or part, they may be in "
        "training and test at once, and the scores are then too good: give `featx extract` a group column or "
        "--group-regex."
    ]


def note_identical(groups: GroupIds) -> list[str]:
    """Say what is kept together all the same where no groups were given."""
    if groups.given or groups.ids is None:
        return []
    near = " and near-duplicates" if "near-duplicates" in groups.source else ""
    return [f"Identical files{near} are kept together: {groups.n} different ones."]


def note_locked(locked: LockedPart | None, what: str) -> list[str]:
    """Say what it means that a locked part was looked at; `what` is fitted."""
    if locked is None or not locked.looks:
        return []
    n = len(locked.looks)
    when = locked.looks[0] if n == 1 else f"{n} times, first on {locked.looks[0]}"
    return [
        f"The locked part of this file has been looked at ({when}). A {what} that is chosen with those "
        "scores in mind is no longer blind to it, and its own score there would be too good."
    ]


def note_locked_out(locked: LockedPart | None) -> list[str]:
    """Say how many samples were left out because the file keeps them for the last test."""
    if locked is None:
        return []
    return [f"Locked on {locked.date}, left out of everything here: {locked.n_samples} samples."]


def note_failed(n: int) -> list[str]:
    """Say how many samples failed in extraction."""
    return [f"Samples that failed in extraction and have no row: {n}."] if n else []


def note_unlabelled(n: int) -> list[str]:
    """Say how many samples were left out for want of a label."""
    return [f"Samples without a label, left out: {n}."] if n else []


def note_small_classes(small: Mapping[str, int]) -> list[str]:
    """Say which classes were left out, with their samples."""
    return [f"Classes left out as too small: {list_counts(small)}."] if small else []


def note_plain(has_views: bool) -> list[str]:
    """Say which rows were taken of files with several for each sample."""
    return ["Of files with views, the plain image of each sample was taken."] if has_views else []


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
    listed = list_counts(dict(counts.most_common(_MOST_KINDS)))
    more = f" and {len(counts) - _MOST_KINDS} more" if len(counts) > _MOST_KINDS else ""
    return [f"{len(unconverged)} of {n_fits} fits did not converge: {listed}{more}."]


def list_counts(counts: Mapping[str, int]) -> str:
    """Return ``"ants (3), bees (12)"``."""
    return ", ".join(f"{name} ({count})" for name, count in counts.items())
