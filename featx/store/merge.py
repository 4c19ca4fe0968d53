"""Writing a finished feature file, in memory that does not grow with the number of rows."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featx.errors import StoreFormatError
from featx.manifest.record import Manifest
from featx.spec import FORMAT_VERSION, FeatureSpec
from featx.store import disk
from featx.store.columns import SEAL, check_strings, strings_sha256, write_numbers, write_strings
from featx.store.file import ROW_COLUMNS, FeatureFile, escape, seal_of
from featx.store.ledger import Ledger, write_ledger
from featx.store.locked import LockedSet, write_locked
from featx.store.signals import HeldSignals
from featx.store.stored import Rows
from featx.store.texts import Picked
from featx.store.trailer import row_ranges

CHUNK_BYTES = 256 * 1024
BLOCK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Contents:
    """What a feature file says, besides its rows.

    Attributes
    ----------
    spec, request, made_with, group_source
        As in `featx.store.file.FeatureFile`.
    ledger : Ledger
        One entry for each sample of the manifest.
    meta : dict of str to sequence of str
        The manifest's other columns.
    weights : bytes or None
        The user's own weights.
    n_logits : int
        Length of a row of logits, where the spec stores them.
    locked : LockedSet or None
        What is kept for the last test.
    """

    spec: FeatureSpec
    request: dict[str, Any]
    made_with: dict[str, Any]
    group_source: str
    ledger: Ledger
    meta: Mapping[str, Sequence[str]]
    weights: bytes | None
    n_logits: int
    locked: LockedSet | None = None

    def same_as(self, file: FeatureFile) -> bool:
        """Whether `file` says the same, so that nothing needs to be written; columns are compared by their sha256."""
        weights = None if self.weights is None else hashlib.sha256(self.weights).hexdigest()
        return (
            (self.spec, self.request, self.made_with, self.group_source)
            == (file.spec, file.request, file.made_with, file.group_source)
            and sorted(self.meta) == sorted(file.meta_names())
            and weights == file.sha256_of("weights")
            and self.locked == file.locked()
            and all(self.ledger.sha256_of(name) == file.sha256_of(f"ledger/{name}") for name in vars(self.ledger))
            and all(strings_sha256(self.meta[name]) == file.sha256_of(f"meta/{escape(name)}") for name in self.meta)
        )


def check_text(manifest: Manifest) -> None:
    """Refuse a manifest with what HDF5's strings cannot hold.

    Raises
    ------
    InputError
        If a string of it holds NUL or a lone surrogate.
    """
    columns = [
        ("key", manifest.keys),
        ("label", manifest.labels),
        ("group", manifest.groups),
        ("split", manifest.splits),
        ("fold", manifest.folds),
        ("group source", [manifest.group_source]),
        ("column name", list(manifest.meta)),
        *manifest.meta.items(),
    ]
    for name, column in columns:
        check_strings(name, column)


def write_feature_file(path: Path, contents: Contents, read: Callable[[int, int], Rows]) -> None:
    """Write a whole feature file at once, read it back, and sync it.

    Parameters
    ----------
    path : Path
        A temporary name: the caller renames the file when this returns.
    contents : Contents
        Everything but the rows.
    read : callable
        ``read(start, stop)`` returns the rows of features (and of logits, or None) of these good samples, in
        manifest order.

    Raises
    ------
    OSError
        If the file system refuses.
    StoreFormatError
        If what is read back is not what was written.
    """
    try:
        digests = _write(path, contents, read)
        with FeatureFile.open(path) as written:
            if written.verify() != digests:
                raise StoreFormatError("the rows read back are not those that were written", path=str(path))
    except BaseException:
        with contextlib.suppress(OSError):
            disk.unlink(path)  # half a file on a full disk
        raise


def _write(path: Path, contents: Contents, read: Callable[[int, int], Rows]) -> dict[str, str]:
    signals = HeldSignals()
    with contextlib.closing(disk.OutputFile(path)) as target:

        def checked_read(start: int, stop: int) -> Rows:
            target.check()
            signals.check()
            return read(start, stop)

        try:
            with signals, h5py.File(target, "w") as h5:
                _write_attributes(h5, contents)
                _write_columns(h5, contents)
                digests = _write_rows(h5, contents, checked_read)
                h5.flush()
                rows = row_ranges([h5[name] for name in digests])
        finally:
            target.check()  # what the file system said explains whatever HDF5 says after it
        target.seal(rows)
        target.sync()
    return digests


def _write_attributes(h5: h5py.File, contents: Contents) -> None:
    attributes = {
        "featx_format": FORMAT_VERSION,
        "fingerprint": contents.spec.fingerprint,
        "group_source": contents.group_source,
        "made_with": json.dumps(contents.made_with, sort_keys=True),
        "request": json.dumps(contents.request, sort_keys=True),
        "spec": json.dumps(contents.spec.to_dict(), sort_keys=True),
    }
    for name, value in attributes.items():
        h5.attrs[name] = value
    h5.attrs[SEAL] = seal_of(attributes)


def _write_columns(h5: h5py.File, contents: Contents) -> None:
    ledger = contents.ledger
    n_views = contents.spec.n_views
    good = np.flatnonzero(ledger.row >= 0)
    sample_of_row = np.repeat(good, n_views)
    for name in ROW_COLUMNS:
        write_strings(h5, name, Picked(getattr(ledger, name.removesuffix("s")), sample_of_row))
    write_numbers(h5, "views", np.tile(np.arange(n_views, dtype=np.int16), len(good)))
    write_strings(h5, "classes", sorted(set(ledger.label) - {""}))
    write_ledger(h5.create_group("ledger"), ledger)
    meta = h5.create_group("meta")
    for name in sorted(contents.meta):
        write_strings(meta, escape(name), contents.meta[name])
    if contents.weights is not None:
        write_numbers(h5, "weights", np.frombuffer(contents.weights, np.uint8))
    if contents.locked is not None:
        write_locked(h5, contents.locked)


def _write_rows(h5: h5py.File, contents: Contents, read: Callable[[int, int], Rows]) -> dict[str, str]:
    spec = contents.spec
    n_samples = int(np.count_nonzero(contents.ledger.row >= 0))
    n_rows = n_samples * spec.n_views
    datasets = {"features": _create(h5, "features", (n_rows, spec.n_features), spec.storage)}
    if spec.logits:
        datasets["logits"] = _create(h5, "logits", (n_rows, contents.n_logits), "float32")
    hashes = {name: hashlib.sha256() for name in datasets}
    for start, stop in _blocks(datasets["features"], spec.n_views):
        rows = read(start // spec.n_views, stop // spec.n_views)
        for name, values in zip(datasets, rows, strict=False):
            datasets[name][start:stop] = values
            hashes[name].update(np.ascontiguousarray(values).data)
    digests = {name: digest.hexdigest() for name, digest in hashes.items()}
    for name, digest in digests.items():
        datasets[name].attrs[SEAL] = digest
    return digests


def _create(h5: h5py.File, name: str, shape: tuple[int, int], dtype: str) -> h5py.Dataset:
    if not all(shape):
        return h5.create_dataset(name, shape=shape, dtype=dtype, track_times=False)
    rows = max(1, min(shape[0], CHUNK_BYTES // (shape[1] * np.dtype(dtype).itemsize)))
    # The checksum of each chunk finds damage that HDF5 would hand on as numbers.
    return h5.create_dataset(
        name, shape=shape, dtype=dtype, chunks=(rows, shape[1]), fletcher32=True, track_times=False
    )


def _blocks(dataset: h5py.Dataset, n_views: int) -> Iterator[tuple[int, int]]:
    """Yield blocks of rows: whole samples, and whole chunks as well."""
    n_rows, row_bytes = dataset.shape[0], dataset.shape[1] * dataset.dtype.itemsize
    if n_rows:
        whole = math.lcm(dataset.chunks[0], n_views)
        step = whole * max(1, BLOCK_BYTES // (whole * row_bytes))
        for start in range(0, n_rows, step):
            yield start, min(start + step, n_rows)
