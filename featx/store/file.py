"""Reading a feature file."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.errors import StoreError, StoreFormatError
from featx.spec import FORMAT_VERSION, FeatureSpec
from featx.store.accounts import NUMBERS, RECORD, TEXTS, Accounts
from featx.store.columns import SEAL, iter_strings, read_numbers, read_rows, read_strings, strings_sha256, verify_column
from featx.store.ledger import Ledger, read_ledger
from featx.store.locked import COLUMNS, LOCKED, LockedSet, read_locked
from featx.store.records import OK
from featx.store.texts import Texts, digests_of
from featx.store.trailer import check_trailer, is_hdf5

ATTRIBUTES = ("featx_format", "fingerprint", "group_source", "made_with", "request", "spec")
ROW_COLUMNS = ("keys", "labels", "groups", "splits", "folds")

# What h5py, numpy and json raise for bytes that are not what they should be.
_DAMAGE = (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError)


class FeatureFile:
    """A finished feature file, opened for reading; columns and rows are read when asked for.

    A file is only ever replaced as a whole, so a reader is never blocked and never sees half of a
    write. All but the rows is checked against a seal when the file is opened, before HDF5 sees it;
    columns are checked against their sha256 when they are read, rows against a checksum of their
    chunk. After a fork the child opens the file anew when it first reads.

    Attributes
    ----------
    path : Path
        The file.
    spec : FeatureSpec
        What made the features; `fingerprint` is its fingerprint.
    request : dict
        What the user asked for, as stored.
    made_with : dict
        Versions of the libraries that computed the features, as stored.
    group_source : str
        Where the groups come from, in words; ``""`` = there are none.
    n_rows, n_samples : int
        Rows of features (``spec.n_views`` of each good sample, one after the other), and entries of the ledger.
    digest : str
        sha256 over keys, labels, groups, splits and features: the same for the same training data.

    Examples
    --------
    >>> with FeatureFile.open("cache/ants.h5") as file:    # doctest: +SKIP
    ...     X, y = file.features(), file.labels()
    """

    def __init__(self, path: Path, h5: h5py.File) -> None:
        self.path = path
        self._h5 = h5
        self._pid = os.getpid()
        attributes = _read_attributes(h5)
        self.spec = FeatureSpec.from_dict(json.loads(attributes["spec"]))
        self.fingerprint: str = attributes["fingerprint"]
        self.request: dict[str, Any] = json.loads(attributes["request"])
        self.made_with: dict[str, Any] = json.loads(attributes["made_with"])
        self.group_source: str = attributes["group_source"]
        self.n_rows = int(h5["keys"].shape[0])
        self.n_samples = int(h5["ledger/key"].shape[0])
        _check_layout(h5, self.spec, self.n_rows)
        self.digest = _digest(h5)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> FeatureFile:
        """Open a feature file and read what it says about itself.

        Raises
        ------
        StoreError
            If there is no such file, or it may not be read.
        StoreFormatError
            If it is not HDF5, truncated, not featx's, damaged, or of a newer format.
        """
        path = Path(path)
        with reading(path):
            h5 = _open_h5(path)
            try:
                return cls(path, h5)
            except BaseException:
                h5.close()
                raise

    def keys(self) -> list[str]:
        """Return the sample of each row."""
        return self._strings("keys")

    def labels(self) -> list[str]:
        """Return the label of each row; ``""`` = unknown."""
        return self._strings("labels")

    def groups(self) -> list[str]:
        """Return the group of each row; ``""`` = unknown."""
        return self._strings("groups")

    def splits(self) -> list[str]:
        """Return the split of each row: train, val, test or ``""``."""
        return self._strings("splits")

    def folds(self) -> list[str]:
        """Return the prescribed fold of each row; ``""`` = none."""
        return self._strings("folds")

    def classes(self) -> list[str]:
        """Return the sorted labels of the manifest, each once."""
        return self._strings("classes")

    def views(self) -> NDArray[np.int16]:
        """Return the view of each row, a position in ``spec.views``; 0 = the plain image."""
        with self._reading() as h5:
            return read_numbers(h5, "views")

    def features(self, rows: slice | NDArray[np.integer] | None = None) -> NDArray[np.floating]:
        """Read features, of the stored dtype; all of them are checked against their sha256, some against a checksum.

        Parameters
        ----------
        rows : slice or int array, optional
            Which rows, in which order; all of them by default.

        Returns
        -------
        array (n, n_features), float32 or float16
        """
        wanted = self._rows(rows)
        with self._reading() as h5:
            return read_numbers(h5, "features") if wanted is None else read_rows(h5["features"], wanted)

    def logits(self, rows: slice | NDArray[np.integer] | None = None) -> NDArray[np.float32] | None:
        """Read the network's own class scores, float32 (n, n_source_classes), or None where not stored."""
        wanted = self._rows(rows)
        with self._reading() as h5:
            if "logits" not in h5:
                return None
            return read_numbers(h5, "logits") if wanted is None else read_rows(h5["logits"], wanted)

    def ledger(self) -> Ledger:
        """Read the account of every sample."""
        with self._reading() as h5:
            ledger = read_ledger(h5["ledger"])
            self._check_rows(ledger.row)
            return ledger

    def accounts(self, keys: Sequence[str] = ()) -> Accounts:
        """Read the account of every sample, but for what the manifest says of it, into little memory.

        Parameters
        ----------
        keys : sequence of str
            The keys that are expected: where the file has the same ones, these are returned.
        """
        with self._reading() as h5:
            ledger = h5["ledger"]
            if ledger["key"].attrs[SEAL] != strings_sha256(keys):
                keys = read_strings(ledger, "key")
            texts, records = Texts(), np.zeros(self.n_samples, RECORD)
            for name in NUMBERS:
                records[name] = read_numbers(ledger, name)
            for name in ("status", "sha256", *TEXTS):
                start = 0
                for block in iter_strings(ledger, name):
                    here = slice(start, start + len(block))
                    if name == "status":
                        records["is_ok"][here] = [status == OK for status in block]
                    else:
                        records[name][here] = digests_of(block) if name == "sha256" else texts.numbers(block)
                    start += len(block)
            if start != len(keys) or np.count_nonzero(records["is_ok"]) * self.spec.n_views != self.n_rows:
                raise ValueError("the ledger does not account for the rows")
            return Accounts(keys, records, texts.texts)

    def sha256_of(self, name: str) -> str | None:
        """Return the sha256 that is stored beside a dataset; None if there is no such dataset."""
        with self._reading() as h5:
            return str(h5[name].attrs[SEAL]) if name in h5 else None

    def meta_names(self) -> list[str]:
        """Return the names of the other columns of the manifest, sorted."""
        with self._reading() as h5:
            return [unescape(name) for name in sorted(h5["meta"])]

    def meta(self) -> dict[str, list[str]]:
        """Read every other column of the manifest, aligned with the ledger, sorted by name."""
        with self._reading() as h5:
            return {unescape(name): read_strings(h5["meta"], name) for name in sorted(h5["meta"])}

    def locked(self) -> LockedSet | None:
        """Read which samples are kept for the last test, and the account of every look at them; None: there are none.

        The columns above hold the labels of locked samples too: what fits, chooses or scores leaves these out.
        """
        with self._reading() as h5:
            return read_locked(h5)

    def weights(self) -> bytes | None:
        """Read the user's own weights (a safetensors blob), or None where the file holds none."""
        with self._reading() as h5:
            return read_numbers(h5, "weights").tobytes() if "weights" in h5 else None

    def verify(self) -> dict[str, str]:
        """Read all columns and all rows once, in blocks.

        Returns
        -------
        dict of str to str
            The sha256 of ``"features"`` and, where stored, ``"logits"``.

        Raises
        ------
        StoreFormatError
            If anything is not what was written.
        """
        with self._reading() as h5:
            ledger = [f"ledger/{field.name}" for field in dataclasses.fields(Ledger)]
            if {h5[name].shape for name in ledger} != {(self.n_samples,)}:
                raise ValueError("the ledger's columns differ in length")
            self._check_rows(read_numbers(h5, "ledger/row"))
            for name in (*ledger, *ROW_COLUMNS, "views", "classes", *(["weights"] if "weights" in h5 else [])):
                verify_column(h5, name)
            for name in h5["meta"]:
                verify_column(h5["meta"], name)
            for name in (*COLUMNS, "looks", "about") if LOCKED in h5 else ():
                verify_column(h5[LOCKED], name)
            return {name: verify_column(h5, name) for name in ("features", "logits") if name in h5}

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        self._h5.close()

    def __enter__(self) -> FeatureFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _strings(self, name: str) -> list[str]:
        with self._reading() as h5:
            return read_strings(h5, name)

    def _check_rows(self, row: NDArray[np.int64]) -> None:
        if len(row) != self.n_samples or np.count_nonzero(row >= 0) * self.spec.n_views != self.n_rows:
            raise ValueError("the ledger does not account for the rows")

    def _rows(self, rows: slice | NDArray[np.integer] | None) -> NDArray[np.int64] | None:
        return None if rows is None else np.arange(self.n_rows)[rows]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[h5py.File]:
        with reading(self.path):
            if self._pid != os.getpid():
                self._h5.close()  # the parent's descriptor, in this process only
                self._h5 = _open_h5(self.path)
                self._pid = os.getpid()
                if _digest(self._h5) != self.digest:
                    raise StoreError("the file was replaced since it was opened; open it again", path=str(self.path))
            yield self._h5


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong inside into a StoreFormatError for `path`."""
    try:
        yield
    except StoreError:
        raise
    except _DAMAGE as error:
        raise StoreFormatError(
            f"the file is damaged or not a feature file ({error}); extract again with --replace", path=str(path)
        ) from error


def seal_of(attributes: dict[str, Any]) -> str:
    """Return the sha256 over the file's own attributes."""
    return _sha256(json.dumps([attributes[name] for name in ATTRIBUTES]))


def escape(name: str) -> str:
    """Turn a column's name into a name that HDF5 takes: ``/`` separates groups, ``.`` is the group itself."""
    escaped = name.replace("%", "%25").replace("/", "%2F")
    return {"": "%00", ".": "%2E"}.get(escaped, escaped)


def unescape(name: str) -> str:
    """Undo `escape`."""
    return {"%00": "", "%2E": "."}.get(name, name.replace("%2F", "/").replace("%25", "%"))


def _open_h5(path: Path) -> h5py.File:
    """Check the seal, and only then hand the file to HDF5."""
    try:
        with path.open("rb") as file:
            is_one = is_hdf5(file.fileno())
            if is_one:
                check_trailer(file.fileno())
    except FileNotFoundError:
        raise StoreError("no such feature file; `featx extract SOURCE -o FILE` makes one", path=str(path)) from None
    except OSError as error:
        raise StoreError(f"cannot be read: {error.strerror}", path=str(path)) from error
    if not is_one:
        raise StoreFormatError("not an HDF5 file", path=str(path))
    return h5py.File(path, "r", locking=False)  # never written in place: there is nothing to lock


def _read_attributes(h5: h5py.File) -> dict[str, Any]:
    version = int(h5.attrs["featx_format"])
    if version > FORMAT_VERSION:
        raise StoreFormatError(
            f"format {version} is newer than this featx reads (format {FORMAT_VERSION}); update featx",
            path=h5.filename,
        )
    attributes = {name: h5.attrs[name] for name in ATTRIBUTES} | {"featx_format": version}
    if h5.attrs[SEAL] != seal_of(attributes):
        raise ValueError("the attributes do not match their sha256")
    return attributes


def _check_layout(h5: h5py.File, spec: FeatureSpec, n_rows: int) -> None:
    features = h5["features"]
    if features.shape != (n_rows, spec.n_features) or features.dtype != np.dtype(spec.storage):
        raise ValueError(
            f"features are {features.dtype} {features.shape}, the spec says {spec.storage} {(n_rows, spec.n_features)}"
        )
    if n_rows % spec.n_views:
        raise ValueError(f"{n_rows} rows are not {spec.n_views} of each sample, as the spec says")
    for name in (*ROW_COLUMNS, "views", *(["logits"] if spec.logits else [])):
        if h5[name].shape[0] != n_rows:
            raise ValueError(f"{name!r} has {h5[name].shape[0]} rows, the features have {n_rows}")


def _digest(h5: h5py.File) -> str:
    return _sha256("".join(h5[name].attrs[SEAL] for name in ("keys", "labels", "groups", "splits", "features")))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
