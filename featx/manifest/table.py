r"""A CSV or TSV table as a manifest.

The first line names the columns, by which they are found (if not exactly, then in any case). Fields are separated by
comma, semicolon or tab, whichever splits the header; quoting is as in RFC 4180; the text is UTF-8 with or without a
byte order mark. Every field is text: ``NA`` is a label like any other, and only an empty label is unknown. Space
around labels, groups, splits and folds is removed. In paths ``\`` is read as ``/``, so that tables written on Windows
work.
"""

from __future__ import annotations

import csv
import io
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from featx.errors import ManifestError
from featx.manifest.record import SPLITS, Manifest

EXTENSIONS = (".csv", ".tsv")
"""Lower-case extensions of tables."""


@dataclass(frozen=True)
class Columns:
    """Which column holds what; see `featx.manifest.source.SourceOptions`."""

    path: str = "path"
    label: str = "label"
    group: str = "group"
    split: str = "split"
    fold: str = "fold"


@dataclass(frozen=True)
class _Row:
    line: int
    fields: list[str]


def read_table(table: Path, *, root: Path | None = None, columns: Columns = Columns()) -> Manifest:
    """Read a table, one sample a line, in its order.

    Parameters
    ----------
    table : Path
        The file.
    root : Path or None
        The folder to which its paths are relative; None: the table's own. An absolute path must lie below it.
    columns : Columns
        Only `path` must be in the table, and every name that is not the default one.

    Returns
    -------
    Manifest
        Other columns are in `meta`. Whether the files exist is not looked at.

    Raises
    ------
    ManifestError
        With the line: text that is not UTF-8, quotes that do not match, a line with more or fewer fields than the
        header, a column that is missing or named twice, an empty path, a path that climbs out of the root, a key for
        the second time, a split of another name; or a table without samples.
    """
    root = table.parent if root is None else root
    header, rows = _read_rows(table)
    found = {role.name: _position(table, header, role.name, getattr(columns, role.name)) for role in fields(Columns)}

    keys: dict[str, int] = {}
    for row in rows:
        key = _key(table, row, row.fields[found["path"]], root)
        if key in keys:
            raise ManifestError(f"{key!r} is already in line {keys[key]}", path=str(table), line=row.line)
        keys[key] = row.line
    if not keys:
        raise ManifestError("no samples below the header", path=str(table))

    def column(role: str) -> list[str]:
        at = found[role]
        return [""] * len(rows) if at < 0 else [row.fields[at].strip() for row in rows]

    names = [name or f"column {at + 1}" for at, name in enumerate(header.fields)]
    return Manifest(
        root=str(root),
        keys=list(keys),
        paths=[f"{root}/{key}" for key in keys],
        labels=column("label"),
        groups=column("group"),
        splits=[_split(table, row, value) for row, value in zip(rows, column("split"), strict=True)],
        folds=column("fold"),
        meta={name: [row.fields[at] for row in rows] for at, name in enumerate(names) if at not in found.values()},
        group_source=f"column {header.fields[found['group']]}" if found["group"] >= 0 else "",
    )


def _read_rows(table: Path) -> tuple[_Row, list[_Row]]:
    """Return the header and the other lines, all of the same number of fields."""
    try:
        data = table.read_bytes()
    except OSError as error:
        raise ManifestError(f"cannot read this table: {error.strerror}", path=str(table)) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        byte = error.object[error.start]
        message = f"byte 0x{byte:02x} is not UTF-8; save the table as UTF-8"
        raise ManifestError(message, path=str(table), line=line) from error
    rows = _parse(table, text, _delimiter(table, text))
    header = next(rows, None)
    if header is None:
        raise ManifestError("the table is empty; its first line must name the columns (path, label)", path=str(table))
    header = _Row(header.line, [name.strip() for name in header.fields])
    twice = {name for name in header.fields if header.fields.count(name) > 1}
    if twice:
        raise ManifestError(f"two columns are named {min(twice)!r}", path=str(table), line=header.line)
    others = []
    for row in rows:
        if len(row.fields) != len(header.fields):
            message = f"{len(row.fields)} fields, but the header has {len(header.fields)}; quote fields with separators"
            raise ManifestError(message, path=str(table), line=row.line)
        others.append(row)
    return header, others


def _delimiter(table: Path, text: str) -> str:
    """Return the separator that splits the header into most fields."""
    counts = {}
    for delimiter in "\t,;" if table.suffix.lower() == ".tsv" else ",;\t":
        header = next(csv.reader(io.StringIO(text.lstrip("\r\n"), newline=""), delimiter=delimiter), [])
        counts[delimiter] = len(header)
    return max(counts, key=lambda delimiter: counts[delimiter])


def _parse(table: Path, text: str, delimiter: str) -> Iterator[_Row]:
    """Yield the lines that are not empty, each with the number at which it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            hint = "; is a quotation mark not closed?" if "end of data" in str(error) else ""
            raise ManifestError(f"not a table: {error}{hint}", path=str(table), line=line) from error
        if values:
            yield _Row(line, values)


def _position(table: Path, header: _Row, role: str, name: str) -> int:
    """Return where a column is, or -1 for an optional one that is not there."""
    if name in header.fields:
        return header.fields.index(name)
    alike = [at for at, other in enumerate(header.fields) if other.casefold() == name.casefold()]
    if len(alike) == 1:
        return alike[0]
    if not alike and role != "path" and name == getattr(Columns(), role):
        return -1
    message = f"no column {name!r} in the header, which has {', '.join(map(repr, header.fields))}"
    raise ManifestError(f"{message}; name another with --{role}-column", path=str(table), line=header.line)


def _key(table: Path, row: _Row, text: str, root: Path) -> str:
    """Return a path's text below the root, without ``.`` and ``..``."""
    path = posixpath.normpath(text.replace("\\", "/")) if text else ""
    if path.startswith("/"):
        above = posixpath.normpath(root.absolute().as_posix()).rstrip("/")
        path = path.removeprefix(f"{above}/") if path.startswith(f"{above}/") else ".."
    if path in ("", "."):
        raise ManifestError("no path", path=str(table), line=row.line)
    if path == ".." or path.startswith("../"):
        message = f"{text!r} is not below {root}; name the folder of the images with --root"
        raise ManifestError(message, path=str(table), line=row.line)
    if "\0" in path:
        raise ManifestError(f"{text!r} is not a path", path=str(table), line=row.line)
    return path


def _split(table: Path, row: _Row, value: str) -> str:
    if value and value.lower() not in SPLITS:
        message = f"{value!r} is not a split; expected {', '.join(SPLITS)} or nothing"
        raise ManifestError(message, path=str(table), line=row.line)
    return SPLITS[value.lower()] if value else ""
