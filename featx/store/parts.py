"""The folder beside a feature file that is being made: ``FILE.parts``.

It holds the lock, the shards and their journal, and a header that says what the run is making. The
header is for people and for a resumed run that has nothing left to compute; which rows count is
decided by the journal alone. Beside it, ``FILE.tmp`` is the file being merged.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx.errors import StoreLockedError, StoreWriteError
from featx.spec import FeatureSpec
from featx.store import disk
from featx.store.lock import WriterLock, owner_of
from featx.store.shards import ShardFolder


@dataclass(frozen=True)
class Header:
    """What a run is making.

    Attributes
    ----------
    spec : FeatureSpec
        What makes the features.
    request, made_with : dict
        As the feature file stores them.
    n_samples : int
        Of the manifest.
    """

    spec: FeatureSpec
    request: dict[str, Any]
    made_with: dict[str, Any]
    n_samples: int


@dataclass(frozen=True)
class PendingRun:
    """What a stopped run left behind.

    Attributes
    ----------
    path : Path
        The feature file that the run is to make.
    header : Header
        What it was making.
    batch_size : int
        With which a resumed run goes on.
    n_done : int
        Samples whose outcome the run has kept.
    n_left : int
        Samples of the manifest that have no outcome at all yet.
    """

    path: Path
    header: Header
    batch_size: int
    n_done: int
    n_left: int


class Parts:
    """The folder, held by its one writer.

    Attributes
    ----------
    shards : ShardFolder
        The shards in it.
    temporary : Path
        Where the finished file is merged, before it takes its name.
    """

    def __init__(self, path: Path, lock: WriterLock) -> None:
        folder = _folder_of(path)
        self.shards = ShardFolder(folder)
        self.temporary = path.with_name(path.name + ".tmp")
        self._lock = lock
        self._header = folder / "header.json"
        self._weights = folder / "weights.safetensors"

    @classmethod
    def take(cls, path: Path) -> Parts:
        """Make the folder of the feature file `path` and take its lock.

        Raises
        ------
        StoreLockedError
            If another run has it.
        StoreWriteError
            If the file system refuses.
        """
        folder = _folder_of(path)
        try:
            lock = _make_and_lock(folder)
        except OSError as error:
            raise StoreWriteError(
                f"cannot be written: {error.strerror}; give another -o FILE", path=str(path), errno=error.errno
            ) from error
        if lock is None:
            raise StoreLockedError(path=str(path), owner=owner_of(folder / "lock"))
        return cls(path, lock)

    def write_header(self, header: Header, weights: bytes | None) -> None:
        """Write the header, and the user's own weights before it; OSError if the file system refuses."""
        data = json.dumps(vars(header) | {"spec": header.spec.to_dict()}, sort_keys=True).encode()
        if weights is not None and not self._weights.exists():
            disk.write_whole(self._weights, weights)
        if not self._header.exists() or self._header.read_bytes() != data:
            disk.write_whole(self._header, data)

    def header(self) -> Header | None:
        """Read the header; None if there is none that can be read."""
        return _read_header(self._header)

    def weights(self) -> bytes | None:
        """Read the user's own weights, where the run has some."""
        return self._weights.read_bytes() if self._weights.exists() else None

    def clear(self) -> None:
        """Remove everything but the lock; whatever a crash leaves of it counts for nothing."""
        folder = self.shards.path
        if self.shards.has_journal:
            disk.unlink(self.shards.journal)
            disk.sync_folder(folder)
        for path in sorted(folder.iterdir()):
            if path != self._lock.path:
                disk.unlink(path)
        if self.temporary.exists():
            disk.unlink(self.temporary)
        self.shards = ShardFolder(folder)

    def release(self, *, discard: bool) -> None:
        """Release the lock; the folder goes too if it is to be discarded, or holds no journal."""
        try:
            with contextlib.suppress(OSError):  # a disk that refuses: what is left over harms nobody
                if discard or not self.shards.has_journal:
                    self.clear()
                    disk.unlink(self._lock.path)
                    disk.remove_folder(self.shards.path)  # refused where the next owner has made its lock by now
        finally:
            self._lock.release()


def pending(path: str | os.PathLike[str]) -> PendingRun | None:
    """Return what a stopped (or still working) run on a feature file has left so far, without its lock.

    None where there is nothing: no run, or one that was stopped before it kept anything.
    """
    path = Path(path)
    if not _folder_of(path).is_dir():
        return None
    folder = ShardFolder(_folder_of(path))
    folder.read_journal()
    header = _read_header(folder.path / "header.json")
    if header is None or not folder.shards:
        return None
    last = folder.shards[-1]
    n_done = sum(shard.samples for shard in folder.shards)
    return PendingRun(path=path, header=header, batch_size=last.batch_size, n_done=n_done, n_left=last.left)


def kept_keys(path: str | os.PathLike[str]) -> list[str]:
    """Return the samples whose outcome a stopped run on a feature file has kept, without its lock."""
    folder = _folder_of(Path(path))
    return [key for _, accounts in ShardFolder(folder).read() for key in accounts.keys] if folder.is_dir() else []


def _folder_of(path: Path) -> Path:
    return path.with_name(path.name + ".parts")


def _make_and_lock(folder: Path) -> WriterLock | None:
    while True:
        disk.make_folders(folder)
        with contextlib.suppress(FileNotFoundError):  # its last owner removed it between the two: once more
            return WriterLock.take(folder / "lock")


def _read_header(path: Path) -> Header | None:
    try:
        data = json.loads(path.read_bytes())
        return Header(**(data | {"spec": FeatureSpec.from_dict(data["spec"])}))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
