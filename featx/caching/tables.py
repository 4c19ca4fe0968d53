"""Tables of text in CSV or TSV files, read in blocks or as whole columns."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.caching.foreign import TEXT, ForeignFeatures, ImportOptions, find_columns
from featx.errors import InputError, ManifestError, UsageError
from featx.store.parquet import ParquetTable

ENDINGS = (".csv", ".tsv")
_ROWS = 1024
_NUMBERED = re.compile(r"f\d+")


class TextTable:
    """A CSV or TSV file whose first line names the columns.

    Attributes
    ----------
    names : list of str
        Of the columns.

    Raises
    ------
    ManifestError
        If it is not such a table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _reading(path):
            try:
                with path.open(encoding="utf-8-sig", newline="") as file:
                    first = file.readline().rstrip("\r\n")
            except OSError as error:
                raise ManifestError(f"cannot be read: {error.strerror}", path=str(path)) from error
            candidates = "\t,;" if path.suffix.lower() == ".tsv" else ",;\t"
            self._delimiter = max(candidates, key=first.count)
            self.names = [name.strip() for name in next(csv.reader([first], delimiter=self._delimiter), [])]
        if not any(self.names):
            raise ManifestError("the first line must name the columns", path=str(path))
        twice = [name for name in self.names if self.names.count(name) > 1]
        if twice:
            raise ManifestError(f"two columns are named {twice[0]!r}", path=str(path), line=1)

    def lines(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number and the fields of each line after the first."""
        with _reading(self.path), self.path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=self._delimiter, strict=True)
            next(reader)
            for fields in reader:
                if fields and len(fields) != len(self.names):
                    message = f"{len(fields)} fields, but the header has {len(self.names)}"
                    raise ManifestError(message, path=str(self.path), line=reader.line_num)
                if fields:
                    yield reader.line_num, fields

    def columns(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Read some columns."""
        places = [self.names.index(name) for name in names]
        values: list[list[str]] = [[] for _ in names]
        for _, fields in self.lines():
            for column, place in zip(values, places, strict=True):
                column.append(fields[place].strip())
        return dict(zip(names, values, strict=True))

    def numbers(self, names: Sequence[str]) -> list[str]:
        """Name those of some columns that hold nothing but numbers, and at least one."""
        places = {self.names.index(name): False for name in names}
        for _, fields in self.lines():
            wanted = list(places)
            if not all(_is_number(value) for value in (fields[place] for place in wanted) if value.strip()):
                places = {at: seen for at, seen in places.items() if not fields[at].strip() or _is_number(fields[at])}
            for place in places:
                places[place] = places[place] or bool(fields[place].strip())
        return [self.names[place] for place, seen in places.items() if seen]

    def blocks(self, names: Sequence[str]) -> Iterator[NDArray[np.float64]]:
        """Yield the numbers of some columns, (n, n_features); an empty field is NaN."""
        places = [self.names.index(name) for name in names]
        block: list[NDArray[np.float64]] = []
        for line, fields in self.lines():
            try:
                block.append(np.array([fields[place].strip() or "nan" for place in places], dtype=np.float64))
            except ValueError as error:
                raise ManifestError(f"a feature is not a number ({error})", path=str(self.path), line=line) from error
            if len(block) == _ROWS:
                yield np.array(block)
                block = []
        if block:
            yield np.array(block)


def read_table(path: Path, options: ImportOptions) -> ForeignFeatures:
    """Read a CSV or TSV file whose columns of numbers are features."""
    table = TextTable(path)
    roles = find_columns(table.names, options.columns, where=str(path))
    rest = [name for name in table.names if name not in roles.values()]
    features = _named_features(rest, options.feature_columns, str(path)) or table.numbers(rest)
    if not features:
        raise InputError(f"{path}: no columns of numbers beside {', '.join(roles.values()) or 'nothing'}")
    texts = table.columns([name for name in table.names if name not in features])
    n_samples = len(next(iter(texts.values()))) if texts else sum(1 for _ in table.lines())
    return _of_table("csv", path, roles, features, TEXT, n_samples, texts, lambda: table.blocks(features))


def read_parquet(path: Path, options: ImportOptions) -> ForeignFeatures:
    """Read a Parquet file with a column of lists, or with columns of numbers."""
    table = ParquetTable(path)
    roles = find_columns(table.names, options.columns, where=str(path))
    rest = [name for name in table.names if name not in roles.values()]
    numbers, vectors = set(table.numbers()), [name for name in table.vectors() if name in rest]
    features = _named_features(rest, options.feature_columns, str(path)) or (
        vectors if vectors else [name for name in rest if name in numbers]
    )
    if len(vectors) > 1 and len(features) > 1:
        raise UsageError(f"{path}: several columns of lists ({', '.join(features)}); name one with --feature-columns")
    if not features:
        raise InputError(f"{path}: no column of lists of numbers and no columns of numbers, but {', '.join(rest)}")
    texts = {name: table.texts(name) for name in table.names if name not in (*features, *vectors)}
    kinds = {table.dtype_of(name) for name in features}
    dtype = kinds.pop() if len(kinds) == 1 else "float64"
    return _of_table("parquet", path, roles, features, dtype, table.n_rows, texts, lambda: table.blocks(features))


def _of_table(
    kind: str,
    path: Path,
    roles: dict[str, str],
    features: list[str],
    dtype: str,
    n_samples: int,
    texts: dict[str, list[str]],
    blocks: Any,
) -> ForeignFeatures:
    first = next(blocks(), None)
    if first is None:
        raise InputError(f"{path}: no rows")
    n_features = first.shape[1]
    shown = f"columns {features[0]} to {features[-1]}" if len(features) > 1 else f"column {features[0]}"
    return ForeignFeatures(
        kind=kind,
        files=[path],
        shape=(n_features,),
        dtype=dtype,
        n_samples=n_samples,
        blocks=blocks,
        columns={role: texts[name] for role, name in roles.items() if name in texts},
        meta={name: values for name, values in texts.items() if name not in roles.values()},
        group_source=f"column {roles['group']}" if "group" in roles else "",
        notes=[f"{n_features:,} features: {shown}"],
    )


def _named_features(names: list[str], pattern: str | None, where: str) -> list[str]:
    """Return the columns that are features by their names; empty: the names do not tell."""
    if pattern is None:
        return [name for name in names if _NUMBERED.fullmatch(name)]
    try:
        found = [name for name in names if re.search(pattern, name)]
    except re.error as error:
        raise UsageError(f"--feature-columns {pattern!r} is not a regular expression: {error}") from error
    if not found:
        raise UsageError(f"--feature-columns {pattern!r} matches no column of {where}")
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a table's text into a ManifestError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ManifestError("is not UTF-8; save the table as UTF-8", path=str(path)) from error
    except csv.Error as error:
        raise ManifestError(f"not a table: {error}", path=str(path)) from error
