"""Shards and their journal: how finished work outlasts a kill, a full disk and a power cut.

A folder holds shards (small HDF5 files, built in memory and written whole) and a journal. A shard
counts only when the journal has its line, and a line counts only when its checksum is right and the
shard's bytes have the sha256 that the line names. The bytes are checked before HDF5 sees them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.store import disk
from featx.store.accounts import Accounts, read_accounts, write_accounts
from featx.store.columns import read_rows

_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Shard:
    """A line of the journal.

    Attributes
    ----------
    number : int
        From 1, in the order of writing.
    samples, rows : int
        Entries in the shard, and rows of features.
    size : int
        Of the file, in bytes.
    sha256 : str
        Of the file's bytes.
    fingerprint : str
        Of the spec that made the features.
    batch_size : int
        With which they were computed; a shard holds whole batches.
    left : int
        How many samples of the manifest had no entry yet when the shard was closed.
    """

    number: int
    samples: int
    rows: int
    size: int
    sha256: str
    fingerprint: str
    batch_size: int
    left: int

    @property
    def name(self) -> str:
        """File in the folder; the digest in it keeps a reader with an old journal from another shard's rows."""
        return f"shard-{self.number:06d}-{self.sha256[:12]}.h5"


class ShardFolder:
    """The shards of one folder, oldest first.

    Parameters
    ----------
    path : Path
        The folder; it need not be there for reading.

    Attributes
    ----------
    journal : Path
        The journal.
    shards : list of Shard
        Those of the journal lines read so far whose shard is whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = path / "journal"
        self.shards: list[Shard] = []
        self._end = 0  # of the last good line
        self._last = 0  # number of the last shard that a line names

    @property
    def has_journal(self) -> bool:
        """Whether the folder holds a journal, whatever is in it."""
        return self.journal.exists()

    def read(self) -> Iterator[tuple[Shard, Accounts]]:
        """Read the lines that are new since the last call, and the entries of their shards, one after the other.

        Yields
        ------
        shard : Shard
            The last of `shards`.
        accounts : Accounts
            What it says of its samples.
        """
        for shard in self._read_lines():
            accounts = self._accounts(shard)
            if accounts is not None:
                self.shards.append(shard)
                yield shard, accounts

    def read_journal(self) -> None:
        """Read the lines that are new since the last call, and trust every shard that has the right size."""
        self.shards += [shard for shard in self._read_lines() if self._has_size(shard)]

    def add(
        self,
        accounts: Accounts,
        features: NDArray[np.floating],
        logits: NDArray[np.floating] | None = None,
        *,
        fingerprint: str,
        batch_size: int = 0,
        left: int = 0,
    ) -> Shard:
        """Write a shard and its line; when this returns, they outlast a power cut.

        Parameters
        ----------
        accounts : Accounts
            Good and failed samples.
        features : array (n_ok * n_views, n_features)
            The rows of each entry with status ``"ok"``, in the same order, of the stored dtype.
        logits : float32 array (n_ok * n_views, n_source_classes), or None
            The network's own class scores.
        fingerprint, batch_size, left
            See `Shard`.

        Raises
        ------
        OSError
            If the file system refuses; what was in the folder before still counts.
        """
        data = _encode(accounts, features, logits)
        shard = Shard(
            number=self._last + 1,
            samples=len(accounts),
            rows=len(features),
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            fingerprint=fingerprint,
            batch_size=batch_size,
            left=left,
        )
        disk.write_whole(self.path / shard.name, data)
        line = _format(shard)
        is_new = not self.has_journal
        fd = disk.open_file(self.journal)
        try:
            disk.truncate(fd, self._end)  # the torn line of a killed writer
            disk.write(fd, line, self._end)
            disk.sync(fd)
        finally:
            os.close(fd)
        if is_new:
            disk.sync_folder(self.path)
        self._end += len(line)
        self._last = shard.number
        self.shards.append(shard)
        return shard

    def rows(self, shard: Shard, rows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Read the features and logits (None where there are none) of some rows of a shard."""
        with h5py.File(self.path / shard.name, "r", locking=False) as file:
            logits = read_rows(file["logits"], rows) if "logits" in file else None
            return read_rows(file["features"], rows), logits

    def _read_lines(self) -> Iterator[Shard]:
        try:
            with self.journal.open("rb") as file:
                file.seek(self._end)
                data = file.read()
        except FileNotFoundError:
            return
        start = self._end
        for line in data.splitlines(keepends=True):
            start += len(line)
            shard = parse_line(line)
            if shard is not None:
                self._end = start
                self._last = max(self._last, shard.number)
                yield shard

    def _has_size(self, shard: Shard) -> bool:
        try:
            return (self.path / shard.name).stat().st_size == shard.size
        except OSError:
            return False

    def _accounts(self, shard: Shard) -> Accounts | None:
        try:
            data = (self.path / shard.name).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data).hexdigest() != shard.sha256:
            return None
        with h5py.File(self.path / shard.name, "r", locking=False) as file:
            return read_accounts(file["ledger"])


def _encode(accounts: Accounts, features: NDArray[np.floating], logits: NDArray[np.floating] | None) -> bytes:
    with h5py.File("shard", "w", driver="core", backing_store=False) as file:
        file.create_dataset("features", data=features, track_times=False)
        if logits is not None:
            file.create_dataset("logits", data=logits, track_times=False)
        write_accounts(file.create_group("ledger"), accounts)
        file.flush()
        image: bytes = file.id.get_file_image()
        return image


def _format(shard: Shard) -> bytes:
    text = json.dumps(dataclasses.asdict(shard)).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def parse_line(line: bytes) -> Shard | None:
    """Return what a line of the journal says; None where its checksum is wrong, or no featx wrote it."""
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
        return None
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        shard = Shard(**json.loads(text))
        return shard if _has_types(shard) else None
    return None


def _has_types(shard: Shard) -> bool:
    """Whether the fields are whole numbers and digests, as they were written."""
    values = dataclasses.asdict(shard)
    digests = [values.pop(name) for name in ("sha256", "fingerprint")]
    return all(type(n) is int and n >= 0 for n in values.values()) and all(
        isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in digests
    )
