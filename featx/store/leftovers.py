"""Removing what runs leave behind, each under its writer's lock: nothing that is in use is ever touched."""

from __future__ import annotations

import contextlib
from pathlib import Path

from featx.errors import StoreLockedError
from featx.store import disk
from featx.store.lock import WriterLock, owner_of
from featx.store.parts import Parts

_OF_ROWS = ("spec.json", "shard-*", "*.tmp")


def remove_run(path: Path) -> None:
    """Remove what a stopped run on the feature file `path` keeps: ``path.parts`` and ``path.tmp``.

    Raises
    ------
    StoreLockedError
        If a run is working.
    StoreWriteError
        If the file system refuses.
    """
    Parts.take(path).release(discard=True)


def remove_temporary(path: Path) -> None:
    """Remove ``path.tmp``, which a killed run was merging; raises as `remove_run`."""
    _unlink_under_lock(path, path.with_name(path.name + ".tmp"))


def remove_file(path: Path) -> None:
    """Remove a feature file, and not what an unfinished run keeps for it; raises as `remove_run`."""
    _unlink_under_lock(path, path)


def remove_rows(folder: Path) -> None:
    """Remove the rows that `ShardCache` keeps in a folder, and the folder if nothing else is in it.

    Raises
    ------
    StoreLockedError
        If a process is writing them.
    OSError
        If the file system refuses.
    """
    lock = WriterLock.take(folder / "lock")
    if lock is None:
        raise StoreLockedError(path=str(folder), owner=owner_of(folder / "lock"))
    try:
        disk.unlink(folder / "journal")  # first: without it nothing counts, whatever a crash leaves
        disk.sync_folder(folder)
        for pattern in _OF_ROWS:
            for path in sorted(folder.glob(pattern)):
                disk.unlink(path)
        disk.unlink(lock.path)
        with contextlib.suppress(OSError):  # somebody else's files, or a writer that has begun anew
            disk.remove_folder(folder)
    finally:
        lock.release()


def _unlink_under_lock(path: Path, victim: Path) -> None:
    parts = Parts.take(path)
    try:
        disk.unlink(victim)
        disk.sync_folder(victim.parent)
    finally:
        parts.release(discard=False)
