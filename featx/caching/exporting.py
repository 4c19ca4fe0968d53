"""A feature file as a table or as arrays, for other programs. Rows are read in blocks."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from featx.caching.npz import ArrayWriter
from featx.caching.output import Progress
from featx.errors import UsageError
from featx.store.file import FeatureFile, escape
from featx.store.ledger import Ledger
from featx.store.parquet import ROW_GROUP_BYTES, ParquetWriter, check_parquet
from featx.store.records import OK
from featx.store.target import check_target, whole_file

FORMATS = (".npz", ".csv", ".parquet", ".json")
_BLOCK_BYTES = 8 * 1024 * 1024
_ROLES = ("label", "group", "split", "fold")


@dataclass(frozen=True)
class ExportReport:
    """What `export_features` wrote.

    Attributes
    ----------
    path, source : str
        The file that was written, and the feature file that it was written from.
    lines, rows, failed : int
        Lines of the table; those of them with features; and failed samples of the feature file, which are in the table
        only if they were asked for.
    bytes : int
        Size of the file.
    notes : list of str
        What is worth a word.
    """

    path: str
    source: str
    lines: int
    rows: int
    failed: int
    bytes: int
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready builtins."""
        return dataclasses.asdict(self)


def export_features(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    with_failed: bool = False,
    root: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Write a feature file's rows, and what is known of them, in another format.

    Parameters
    ----------
    path : path
        A feature file.
    output : path
        Its ending decides. ``.npz``: arrays ``X, y, keys, groups, splits, folds, views, sha256`` (and ``logits``,
        ``meta_NAME``, ``spec``), none of them pickled. ``.csv`` and ``.parquet``: a table of ``key, view, label, group,
        split, fold, sha256``, the source's other columns, and ``f0, f1, ...``. ``.json``: samples for FiftyOne.
        The labels of what `featx lock` keeps for the last test are left empty.
    with_failed : bool
        Include the samples that failed: lines with their reason and no features; in ``.npz`` the arrays
        ``failed_keys`` and ``failed_reasons``.
    root : path, optional
        For ``.json``: the folder of the images, below which the keys are paths.
    progress : callable, optional
        See `Progress`, in lines.

    Raises
    ------
    UsageError
        If the name ends otherwise, or is the feature file's own, or its folder is not there.
    MissingExtraError
        For ``.parquet`` without pyarrow.
    StoreError
        If the feature file cannot be read, or the file system refuses.
    """
    check_target(output, FORMATS, what="exported features")
    name = os.fspath(output)
    if os.path.realpath(name) == os.path.realpath(path):
        raise UsageError(f"-o {name!r} is the feature file itself; give another -o FILE")
    ending = Path(name).suffix.lower()
    if root is not None and ending != ".json":
        raise UsageError("--root has a meaning for .json only: the other formats hold keys, not paths")
    if ending == ".parquet":
        check_parquet()
    with FeatureFile.open(path) as file:
        table = _Table(file, with_failed, plain_only=ending == ".json")
        with whole_file(name, what="exported features") as out:
            if ending == ".npz":
                _write_npz(out, table, with_failed, progress)
            elif ending == ".csv":
                _write_csv(out, table, progress)
            elif ending == ".parquet":
                _write_parquet(out, table, progress)
            else:
                _write_json(out, table, os.fspath(root) if root is not None else "", progress)
        return ExportReport(
            path=name,
            source=os.fspath(path),
            lines=len(table),
            rows=int(np.count_nonzero(table.row >= 0)),
            failed=len(table.ledger) - int(np.count_nonzero(table.ledger.row >= 0)),
            bytes=Path(name).stat().st_size,
            notes=_notes(file, ending, root is not None),
        )


def _notes(file: FeatureFile, ending: str, has_root: bool) -> list[str]:
    notes = []
    locked = file.locked()
    if locked is not None:
        n = len(locked.keys.intersection(file.ledger().key))
        notes.append(f"the labels of the {n:,} locked samples are left empty; `featx lock --open` looks at them")
    if ending in (".csv", ".parquet", ".json") and file.spec.logits:
        notes.append("the network's own class scores are left out; .npz holds them")
    if ending == ".json" and file.spec.n_views > 1:
        notes.append("only the plain view of each sample is in it")
    if ending == ".json" and not has_root:
        notes.append("without --root FOLDER the paths of the images are their keys")
    return notes


class _Table:
    """The lines of a table: which sample and which row (-1: none) each is of."""

    def __init__(self, file: FeatureFile, with_failed: bool, *, plain_only: bool) -> None:
        self.file = file
        self.ledger: Ledger = _without_locked_labels(file)
        self.meta = file.meta()
        n_views = file.spec.n_views
        samples = np.arange(len(self.ledger)) if with_failed else np.flatnonzero(self.ledger.row >= 0)
        first = np.asarray(self.ledger.row, np.int64)[samples]
        times = np.where(first >= 0, 1 if plain_only else n_views, 1)
        self.sample: NDArray[np.int64] = np.repeat(samples, times)
        starts = np.repeat(np.cumsum(times) - times, times)
        self.view = np.arange(len(self.sample)) - starts
        self.row = np.where(np.repeat(first, times) >= 0, np.repeat(first, times) + self.view, -1)
        self.with_status = with_failed

    def __len__(self) -> int:
        return len(self.sample)

    @property
    def features(self) -> list[str]:
        """Names of the columns of features."""
        return [f"f{number}" for number in range(self.file.spec.n_features)]

    def columns(self) -> dict[str, Sequence[str]]:
        """Return the columns of text, by the names that they have in a table; aligned with the ledger but for view."""
        ledger = self.ledger
        known = {"key": ledger.key, **{role: getattr(ledger, role) for role in _ROLES}, "sha256": ledger.sha256}
        if self.with_status:
            known |= {"status": ledger.status, "reason": ledger.reason}
        taken = {*known, "view", *self.features}
        return known | {f"meta_{name}" if name in taken else name: values for name, values in self.meta.items()}

    def blocks(self, block_bytes: int, progress: Progress | None) -> Iterator[tuple[slice, NDArray[np.floating]]]:
        """Yield lines with the features of those that have some."""
        step = max(1, block_bytes // (4 * self.file.spec.n_features))
        for start in range(0, len(self), step):
            lines = slice(start, min(start + step, len(self)))
            rows = self.row[lines]
            yield lines, self.file.features(rows[rows >= 0])
            if progress is not None:
                progress(lines.stop, len(self))


def _without_locked_labels(file: FeatureFile) -> Ledger:
    ledger, locked = file.ledger(), file.locked()
    if locked is None:
        return ledger
    keys = locked.keys
    label = ["" if key in keys else label for key, label in zip(ledger.key, ledger.label, strict=True)]
    return dataclasses.replace(ledger, label=label)


def _write_csv(out: BinaryIO, table: _Table, progress: Progress | None) -> None:
    columns = table.columns()
    digits = "%.5g" if table.file.spec.storage == "float16" else "%.9g"  # enough to read the same number back
    form, nothing = "," + ",".join([digits] * table.file.spec.n_features), "," * table.file.spec.n_features
    text = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["key", "view", *list(columns)[1:], *table.features])
    writer = csv.writer(text, lineterminator="")
    for lines, rows in table.blocks(_BLOCK_BYTES, progress):
        given = iter(rows.tolist())
        for sample, view, row in zip(table.sample[lines], table.view[lines], table.row[lines], strict=True):
            key, *others = [values[sample] for values in columns.values()]
            writer.writerow([key, int(view), *others])
            text.write((form % tuple(next(given)) if row >= 0 else nothing) + "\n")
    text.detach()


def _write_parquet(out: BinaryIO, table: _Table, progress: Progress | None) -> None:
    columns = table.columns()
    facts = {"featx": json.dumps(table.file.spec.to_dict(), sort_keys=True)}
    names = ["key", "view", *list(columns)[1:]]
    with ParquetWriter(out, names, table.features, facts) as writer:
        for lines, rows in table.blocks(ROW_GROUP_BYTES, progress):
            samples = table.sample[lines].tolist()
            key, *others = [[values[sample] for sample in samples] for values in columns.values()]
            writer.write([key, table.view[lines].tolist(), *others], rows, table.row[lines] >= 0)


def _write_json(out: BinaryIO, table: _Table, root: str, progress: Progress | None) -> None:
    """Write ``{"samples": [...]}`` with one sample a line, in the words of FiftyOne's fields."""
    ledger, spec = table.ledger, table.file.spec
    facts = json.dumps({"spec": spec.to_dict(), "fingerprint": spec.fingerprint})
    out.write(facts[:-1].encode() + b', "samples": [')
    between = b"\n"
    for lines, rows in table.blocks(_BLOCK_BYTES, progress):
        given = iter(rows.tolist())
        for sample, row in zip(table.sample[lines].tolist(), table.row[lines], strict=True):
            label, split = ledger.label[sample], ledger.split[sample]
            one = {
                "filepath": os.path.join(root, ledger.key[sample]),  # noqa: PTH118  a key is text, and stays as it is
                "ground_truth": {"_cls": "Classification", "label": label} if label else None,
                "tags": [split] if split else [],
                "key": ledger.key[sample],
                "group": ledger.group[sample],
                "sha256": ledger.sha256[sample],
                "embedding": next(given) if row >= 0 else None,
                **({} if ledger.status[sample] == OK else {"failed": ledger.reason[sample]}),
                "meta": {name: values[sample] for name, values in table.meta.items()},
            }
            out.write(between + json.dumps(one, ensure_ascii=False).encode())
            between = b",\n"
    out.write(b"\n]}\n")


def _write_npz(out: BinaryIO, table: _Table, with_failed: bool, progress: Progress | None) -> None:
    file, ledger = table.file, table.ledger
    lines = np.flatnonzero(table.row >= 0)
    samples = table.sample[lines].tolist()

    def column(values: Sequence[str]) -> list[str]:
        return [values[sample] for sample in samples]

    with ArrayWriter(out) as arrays:
        arrays.numbers("X", (file.n_rows, file.spec.n_features), file.spec.storage, _only_rows(table, progress))
        arrays.texts("y", column(ledger.label))
        arrays.texts("keys", column(ledger.key))
        for role in ("group", "split", "fold"):
            arrays.texts(f"{role}s", column(getattr(ledger, role)))
        arrays.numbers("views", (len(lines),), "int16", iter([table.view[lines].astype(np.int16)]))
        arrays.texts("sha256", column(ledger.sha256))
        for name, values in table.meta.items():
            arrays.texts(f"meta_{escape(name)}", column(values))
        if file.spec.logits:
            shape, blocks = _logits(file)
            arrays.numbers("logits", shape, "float32", blocks)
        for name, text in (
            ("spec", json.dumps(file.spec.to_dict(), sort_keys=True)),
            ("fingerprint", file.fingerprint),
            ("made_with", json.dumps(file.made_with, sort_keys=True)),
            ("group_source", file.group_source),
        ):
            arrays.texts(name, [text])
        if with_failed:
            failed = np.flatnonzero(ledger.row < 0).tolist()
            arrays.texts("failed_keys", [ledger.key[i] for i in failed])
            arrays.texts("failed_reasons", [ledger.reason[i] for i in failed])


def _only_rows(table: _Table, progress: Progress | None) -> Iterator[NDArray[np.floating]]:
    for _, rows in table.blocks(_BLOCK_BYTES, progress):
        yield rows


def _logits(file: FeatureFile) -> tuple[tuple[int, ...], Iterator[NDArray[np.floating]]]:
    first = file.logits(slice(0, 1))
    n_classes = 0 if first is None else first.shape[1]
    step = max(1, _BLOCK_BYTES // (4 * max(1, n_classes)))
    read: Callable[[int], Any] = lambda start: file.logits(slice(start, start + step))  # noqa: E731
    return (file.n_rows, n_classes), (read(start) for start in range(0, file.n_rows, step))
