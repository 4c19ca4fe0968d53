"""What a run has to compute: the samples of a manifest against the outcomes that are stored for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featx.errors import ImageDecodeError
from featx.manifest import source as sources
from featx.manifest.record import Manifest
from featx.store.outcomes import Outcomes
from featx.store.records import FAILED, OF_THE_MACHINE, OK, LedgerEntry
from featx.store.stored import FILE


@dataclass(frozen=True)
class Work:
    """What a run has to do.

    Attributes
    ----------
    positions : list of int
        Of samples to compute, in ascending order.
    touched : list of (int, int, int)
        Position, size and modification time in ns of samples whose entry stays under these.
    """

    positions: list[int]
    touched: list[tuple[int, int, int]]


def plan_work(manifest: Manifest, outcomes: Outcomes, *, rehash: bool) -> Work:
    """Compare each sample with its entry: same size and time is unchanged, everything else is hashed.

    What failed in a finished run for a reason that may lie in the machine is tried again. Not where a run that was
    stopped goes on: it computes the batches that it would have computed without the stop.
    """
    known = np.flatnonzero(outcomes.is_known)
    stats = sources.stat_all(manifest, known.tolist())
    is_same = (stats[:, 0] == outcomes.column("bytes")[known]) & (stats[:, 1] == outcomes.column("mtime_ns")[known])
    if rehash:
        is_same[:] = False
    elif manifest.arrays is not None or manifest.refused:  # of which size and time say nothing
        is_file = [bool(manifest.paths[position]) and position not in manifest.refused for position in known.tolist()]
        is_same &= np.array(is_file, bool)
    is_todo = ~outcomes.is_known
    touched = []
    for position, (size, mtime_ns) in zip(known[~is_same].tolist(), stats[~is_same].tolist(), strict=True):
        entry = outcomes.entry(position)
        if size < 0 or position in manifest.refused:
            is_todo[position] = entry.status == OK or bool(entry.sha256)  # it was a file, and is none now
        elif entry.reason.partition(":")[0] in OF_THE_MACHINE and entry.status == FAILED:
            is_todo[position] = outcomes.source(position) == FILE
        elif not _same_bytes(manifest, position, entry):
            is_todo[position] = True
        elif manifest.paths[position]:
            touched.append((position, size, mtime_ns))
    return Work(np.flatnonzero(is_todo).tolist(), touched)


def _same_bytes(manifest: Manifest, position: int, entry: LedgerEntry) -> bool:
    if not entry.sha256:
        return False  # never read, so never the same
    try:
        return sources.sample_sha256(manifest, position) == entry.sha256
    except ImageDecodeError:
        return False
