"""Several feature files of one spec become one, as if one extraction had seen all their images."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.caching.output import Progress, check_feature_target, write_batches
from featx.errors import MergeConflictError, SpecMismatchError, UsageError
from featx.manifest.record import Manifest
from featx.store import parts
from featx.store.file import FeatureFile
from featx.store.ledger import Ledger
from featx.store.locked import united
from featx.store.records import FAILED, OK, FeatureBatch, LedgerEntry

FIRST, LAST = "first", "last"
BYTES = "sha256"
"""The field of a conflict whose two images have other bytes."""

_ROLES = ("label", "group", "split", "fold")
_ENTRY = tuple(one.name for one in dataclasses.fields(LedgerEntry))
_BLOCK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class MergeReport:
    """What `merge_features` did.

    Attributes
    ----------
    path : str
        The new file.
    files : list of str
        What went into it, in order.
    samples, rows, failed : int
        Of the new file.
    shared : int
        Samples that more than one file holds.
    conflicts : dict of str to (dict of str to (str, str))
        Key to the fields of which the files say different things; resolved as `prefer` says.
    notes : list of str
        What is worth a word.
    """

    path: str
    files: list[str]
    samples: int
    rows: int
    failed: int
    shared: int
    conflicts: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready builtins."""
        return dataclasses.asdict(self)


def merge_features(
    files: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    prefer: str | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> MergeReport:
    """Join feature files of one spec.

    A sample that is in several files becomes one: a row wins over a failure, and what is unknown in one file (a label,
    a group, a column) is taken from the others. Where files say different things of a sample (other bytes, another
    label, ...), nothing is written unless `prefer` says whose word counts.

    What one file has locked for the last test stays locked, with everything that shares bytes or a group with it, and
    every look at it is still counted.

    The samples are sorted by key where those of every file are, as an extraction of one folder has them; else they
    follow each other as the files do.

    Parameters
    ----------
    files : sequence of path
        At least two. Their features are read in blocks; memory holds keys and columns only.
    output : path
        None of them.
    prefer : {"first", "last"}, optional
        Which file is right in a conflict.
    replace : bool
        Overwrite `output`.
    progress : callable, optional
        See `Progress`.

    Raises
    ------
    UsageError
        Fewer than two files, or an `output` that is there or is one of them.
    SpecMismatchError
        If the files were made in different ways; names the fields.
    MergeConflictError
        If files say different things of a sample, without `prefer`.
    StoreError
        If a file cannot be read or written.
    """
    if prefer not in (None, FIRST, LAST):
        raise UsageError(f"prefer takes {FIRST!r} or {LAST!r}, got {prefer!r}")
    if len(files) < 2:
        raise UsageError("merge takes at least two files")
    names = [os.fspath(name) for name in files]
    target = check_feature_target(output, inputs=names, replace=replace)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(FeatureFile.open(name)) for name in names]
        _check_specs(opened)
        union = _Union(opened, prefer)
        if union.conflicts and prefer is None:
            raise MergeConflictError(union.conflicts, path=str(target))
        manifest = union.manifest()
        weights = next((blob for blob in (file.weights() for file in opened) if blob is not None), None)
        outcome = write_batches(
            target,
            union.batches(manifest.keys),
            manifest,
            opened[0].spec,
            request=opened[0].request,
            made_with=_united([file.made_with for file in opened]),
            weights=weights,
            locked=united(file.locked() for file in opened),
            progress=progress,
        )
    return MergeReport(
        path=str(target),
        files=names,
        samples=outcome.n_samples,
        rows=outcome.n_rows,
        failed=outcome.n_failed,
        shared=union.n_shared,
        conflicts=union.conflicts,
        notes=[
            f"{name} has an unfinished run; what it keeps beside the file was not merged"
            for name in names
            if parts.pending(name) is not None
        ],
    )


class _Union:
    """Which file each sample comes from, and what is known of it."""

    def __init__(self, files: list[FeatureFile], prefer: str | None) -> None:
        self.conflicts: dict[str, dict[str, tuple[str, str]]] = {}
        self.n_shared = 0
        self._files = files
        self._ledgers: list[Ledger] = [file.ledger() for file in files]
        self._meta = [file.meta() for file in files]
        self._names = sorted({name for meta in self._meta for name in meta})
        self._place: dict[str, tuple[int, int]] = {}  # key to (file, position in its ledger)
        self._known: dict[str, dict[str, str]] = {}  # columns of the samples that several files hold
        shared = set()
        for number, ledger in enumerate(self._ledgers):
            for position, key in enumerate(ledger.key):
                if key not in self._place:
                    self._place[key] = number, position
                else:
                    shared.add(key)
                    self._join(key, (number, position), prefer)
        self.n_shared = len(shared)

    def manifest(self) -> Manifest:
        """Return all samples with what the files say of them, in the order of the new file."""
        keys = list(self._place)
        if all(one <= other for ledger in self._ledgers for one, other in pairwise(ledger.key)):
            keys.sort()
        return Manifest(
            root="",
            keys=keys,
            paths=[""] * len(keys),
            labels=self._column("label", keys),
            groups=self._column("group", keys),
            splits=self._column("split", keys),
            folds=self._column("fold", keys),
            meta={name: self._column(_meta(name), keys) for name in self._names},
            group_source=_group_source(self._files),
        )

    def batches(self, keys: list[str]) -> Iterator[FeatureBatch]:
        """Yield the samples with their rows, some megabytes at a time."""
        spec = self._files[0].spec
        step = max(1, _BLOCK_BYTES // (spec.n_views * spec.n_features * np.dtype(spec.storage).itemsize))
        for start in range(0, len(keys), step):
            places = [self._place[key] for key in keys[start : start + step]]
            entries = [self._entry(number, position) for number, position in places]
            good = [place for place, entry in zip(places, entries, strict=True) if entry.status == OK]
            yield FeatureBatch(
                entries, self._rows(good, "features"), self._rows(good, "logits") if spec.logits else None
            )

    def _rows(self, places: list[tuple[int, int]], what: str) -> NDArray[np.floating]:
        spec = self._files[0].spec
        numbers = np.repeat([number for number, _ in places], spec.n_views)
        first = [int(self._ledgers[number].row[position]) for number, position in places]
        rows = (np.array(first, np.int64)[:, None] + np.arange(spec.n_views)).reshape(-1)
        out: NDArray[np.floating] | None = None
        for number in np.unique(numbers).tolist():
            here = numbers == number
            some = getattr(self._files[number], what)(rows[here])
            if out is None:
                out = np.empty((len(rows), some.shape[1]), some.dtype)
            out[here] = some
        return np.empty((0, spec.n_features), spec.storage) if out is None else out

    def _entry(self, number: int, position: int) -> LedgerEntry:
        ledger = self._ledgers[number]
        values = {name: getattr(ledger, name)[position] for name in _ENTRY}
        return LedgerEntry(**{name: v.item() if isinstance(v, np.generic) else v for name, v in values.items()})

    def _column(self, name: str, keys: list[str]) -> list[str]:
        return [self._known[key][name] if key in self._known else self._value(self._place[key], name) for key in keys]

    def _value(self, place: tuple[int, int], name: str) -> str:
        number, position = place
        if name in _ROLES:
            return str(getattr(self._ledgers[number], name)[position])
        column = self._meta[number].get(name.removeprefix(_meta("")))
        return "" if column is None else column[position]

    def _join(self, key: str, later: tuple[int, int], prefer: str | None) -> None:
        """Take in another file's word of a sample that is known already."""
        earlier = self._place[key]
        columns = (*_ROLES, *map(_meta, self._names))
        old = self._known.get(key) or {name: self._value(earlier, name) for name in columns}
        new = {name: self._value(later, name) for name in columns}
        differing = {
            name: (old[name], new[name]) for name in columns if old[name] and new[name] != old[name] and new[name]
        }
        status = [str(self._ledgers[number].status[position]) for number, position in (earlier, later)]
        shas = [str(self._ledgers[number].sha256[position]) for number, position in (earlier, later)]
        if status[0] == status[1] and all(shas) and shas[0] != shas[1]:
            differing[BYTES] = shas[0], shas[1]
        if differing:
            known = self.conflicts.setdefault(key, {})
            for name, pair in differing.items():
                known.setdefault(name, pair)
        winner, other = (new, old) if prefer == LAST else (old, new)
        self._known[key] = {name: winner[name] or other[name] for name in columns}
        both = status[0] == status[1]
        if (both and BYTES in differing and prefer == LAST) or (status[0] == FAILED and status[1] == OK):
            self._place[key] = later


def _meta(name: str) -> str:
    """Return how a column of the table is called beside the roles: nothing keeps it from being named like one."""
    return f"meta {name}"


def _check_specs(files: list[FeatureFile]) -> None:
    first = files[0]
    for other in files[1:]:
        if other.fingerprint != first.fingerprint:
            raise SpecMismatchError(
                other.spec.differences(first.spec),
                path=str(other.path),
                hint=f"only files of one spec become one; {first.path} is of another",
            )


def _united(versions: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what made the rows: where files differ, each value once."""
    united: dict[str, Any] = {}
    for name in sorted({name for one in versions for name in one}):
        values: list[Any] = []
        for one in versions:
            if name in one and one[name] not in values:
                values.append(one[name])
        united[name] = values[0] if len(values) == 1 else ", ".join(map(str, values))
    return united


def _group_source(files: list[FeatureFile]) -> str:
    """Return where the groups come from: one word for all, or one for each file."""
    sources = [file.group_source for file in files]
    if len(set(sources)) == 1 or not any(sources):
        return sources[0]
    return ", ".join(
        f"{source or 'no groups'} in {file.path.name}" for source, file in zip(sources, files, strict=True)
    )
