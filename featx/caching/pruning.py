"""Removing what can be made again, or is of no use any more: planned first, done after."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featx.caching.listing import (
    FILE,
    IMPORTED,
    PARTS,
    ROWS,
    RUN,
    RUNNING,
    TEMPORARY,
    CacheItem,
    list_folder,
    size_and_time,
)
from featx.errors import StoreError
from featx.store import leftovers
from featx.store.file import FeatureFile
from featx.store.shards import ShardFolder

WEEK = 7 * 24 * 3600.0


@dataclass(frozen=True)
class Leftover:
    """Something that may go.

    Attributes
    ----------
    path : str
        Below the folder.
    kind : str
        See `featx.caching.listing.CacheItem`.
    why : str
        Why it may go, in words.
    bytes : int
        What it takes on the disk.
    modified : float
        When the last of it was written, as it was looked at.
    """

    path: str
    kind: str
    why: str
    bytes: int
    modified: float


@dataclass(frozen=True)
class PrunePlan:
    """What would be removed.

    Attributes
    ----------
    folder : str
        All paths are below it.
    going : list of Leftover
        What would go.
    staying : dict of str to str
        Path to the reason, of what was asked for or looks unused and stays.
    """

    folder: str
    going: list[Leftover] = field(default_factory=list)
    staying: dict[str, str] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """What all of it takes on the disk."""
        return sum(leftover.bytes for leftover in self.going)


@dataclass(frozen=True)
class PruneReport:
    """What was removed.

    Attributes
    ----------
    folder : str
        All paths are below it.
    removed : list of Leftover
        What is gone.
    staying : dict of str to str
        Path to the reason, of what was asked for or looks unused and stays.
    """

    folder: str
    removed: list[Leftover]
    staying: dict[str, str]

    @property
    def bytes(self) -> int:
        """What was freed."""
        return sum(leftover.bytes for leftover in self.removed)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready builtins."""
        return {**dataclasses.asdict(self), "bytes": self.bytes}


def plan_prune(folder: str | os.PathLike[str], *, older_than: float = WEEK, files: Sequence[str] = ()) -> PrunePlan:
    """Find what may be removed from a folder of feature files.

    That is: what killed runs left of no use; and, where it was last written more than `older_than` ago, unfinished runs
    and the rows of `ImageFeatures(cache=...)`, which can be computed again. A finished feature file goes only if
    `files` names it, and nothing that is being written goes at all.

    Parameters
    ----------
    folder : path
        Symbolic links in it are not followed.
    older_than : float
        Seconds.
    files : sequence of str
        Patterns (``"old-*.h5"``) of feature files, for their names or their paths below the folder.

    Raises
    ------
    UsageError
        If there is no such folder.
    """
    plan = PrunePlan(os.fspath(folder))
    now = time.time()
    for item in list_folder(folder):
        why, why_not = _reason(Path(folder) / item.path, item, now - item.modified > older_than, files)
        if why:
            plan.going.append(Leftover(item.path, item.kind, why, item.bytes, item.modified))
        elif why_not:
            plan.staying[item.path] = why_not
    return plan


def prune(plan: PrunePlan) -> PruneReport:
    """Remove what a plan names, but for what has been written since, or is being written now."""
    report = PruneReport(plan.folder, [], dict(plan.staying))
    for leftover in plan.going:
        path = Path(plan.folder) / leftover.path
        if path.is_symlink() or size_and_time(path) != (leftover.bytes, leftover.modified):
            report.staying[leftover.path] = "written or removed since it was looked at"
            continue
        try:
            _REMOVE[leftover.kind](path)
        except OSError as error:  # a StoreError is one too
            report.staying[leftover.path] = str(error)
            continue
        if path.exists():
            report.staying[leftover.path] = "something in it could not be removed"
        else:
            report.removed.append(leftover)
    return report


_REMOVE: dict[str, Callable[[Path], None]] = {
    FILE: leftovers.remove_file,
    RUN: lambda path: leftovers.remove_run(path.with_name(path.name.removesuffix(PARTS))),
    ROWS: leftovers.remove_rows,
    TEMPORARY: lambda path: leftovers.remove_temporary(path.with_name(path.name.removesuffix(".tmp"))),
}


def _reason(path: Path, item: CacheItem, is_old: bool, files: Sequence[str]) -> tuple[str, str]:
    """Return why something may go, and if not, why it stays where that is worth a word."""
    if item.kind == FILE:
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in files for name in (item.path, path.name)):
            return "", ""
        if item.state == RUNNING:
            return "", "a run is writing it"
        return "named by --files" + (
            ", made elsewhere: featx cannot make it again" if item.state == IMPORTED else ""
        ), ""
    if item.state == RUNNING:
        return "", "in use"
    if item.kind == TEMPORARY:
        return "left over by a run that was killed", ""
    if item.kind == ROWS:
        return ("rows that can be computed again", "") if is_old else ("", "rows that were written of late")
    if not _has_shards(path):
        return "a run that kept nothing", ""
    if _is_in_file(path):
        return "all that it keeps is in the finished file", ""
    if is_old:
        return f"an unfinished run, {item.state}", ""
    return "", f"an unfinished run, {item.state}: the same featx extract goes on from there"


def _has_shards(folder: Path) -> bool:
    shards = ShardFolder(folder)
    shards.read_journal()
    return bool(shards.shards)


def _is_in_file(folder: Path) -> bool:
    """Whether a finished file says the same of all samples of a run: it was killed right before it cleared up."""
    path = folder.with_name(folder.name.removesuffix(PARTS))
    try:
        with FeatureFile.open(path) as file:
            fingerprint, stored = file.fingerprint, {entry.key: entry for entry in file.ledger().entries()}
    except StoreError:
        return False
    found = list(ShardFolder(folder).read())
    latest = {entry.key: entry for _, entries in found for entry in entries}
    return all(shard.fingerprint == fingerprint for shard, _ in found) and all(
        stored.get(key) == entry for key, entry in latest.items()
    )
