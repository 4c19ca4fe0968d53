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
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from featx.errors import ManifestError
from featx.manifest import files
from featx.manifest.columns import DEFAULT, Columns, TextColumn
from featx.manifest.folder import utf8
from featx.manifest.record import SPLITS, Manifest, PathsBelow

EXTENSIONS = (".csv", ".tsv")
"""Lower-case extensions of tables."""

_PLAIN = re.compile(r"(?:[\w-][\w.-]*/)*[\w-][\w.-]*")  # a path that stays as it is
_USER = re.compile(r"//[^/@]*@")


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes
    ----------
    line : int
        At which it begins, counted from 1.
    fields : list of str
        As many as the header has.
    """

    line: int
    fields: list[str]


def read_table(table: str, *, root: str | None = None, columns: Columns = DEFAULT) -> Manifest:
    """Read a table, one sample a line, in its order.

    Parameters
    ----------
    table : str
        The file, or its URL.
    root : str or None
        The folder (or its URL) to which its paths are relative; None: the table's own. An absolute path must lie
        below it; a URL may lie anywhere.
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
    MissingExtraError, UsageError
        If it holds URLs that cannot be read here.
    """
    rows = _iter_rows(table)
    header = next(rows)
    return manifest_of_rows(table, header, rows, root=root, columns=columns)


def manifest_of_rows(table: str, header: Row, rows: Iterable[Row], *, root: str | None, columns: Columns) -> Manifest:
    """Return the manifest of a table whose lines come one by one; see `read_table`."""
    root = folder_of(table) if root is None else root.rstrip("/") or "/"
    found = {role.name: _position(table, header, role.name, getattr(columns, role.name)) for role in fields(Columns)}

    keys: dict[str, int] = {}
    urls: dict[int, str] = {}
    values = [TextColumn() for _ in header.fields]
    trimmed = {at for role, at in found.items() if role != "path"}
    kept = [(at, column.add) for at, column in enumerate(values) if at != found["path"] or at in trimmed]
    splits = TextColumn()
    for position, row in enumerate(rows):
        text = row.fields[found["path"]]
        if files.is_url(text):
            key = _url_key(table, row, text, root)
            urls[position] = text
        else:
            key = _key(table, row, text, root)
        if key in keys:
            raise ManifestError(f"{key!r} is already in line {keys[key]}", path=table, line=row.line)
        keys[key] = row.line
        for at, add in kept:
            add(row.fields[at].strip() if at in trimmed else row.fields[at])
        splits.add(_split(table, row, row.fields[found["split"]].strip()) if found["split"] >= 0 else "")
    if not keys:
        raise ManifestError("no samples below the header", path=table)
    _check_schemes(urls.values())

    def column(role: str) -> list[str]:
        return [""] * len(keys) if found[role] < 0 else values[found[role]].values

    listed = list(keys)
    names = [name or f"column {at + 1}" for at, name in enumerate(header.fields)]
    return Manifest(
        root=root,
        keys=listed,
        paths=PathsBelow(root, listed, urls),
        labels=column("label"),
        groups=column("group"),
        splits=splits.values,
        folds=column("fold"),
        meta={name: values[at].values for at, name in enumerate(names) if at not in found.values()},
        group_source=f"column {header.fields[found['group']]}" if found["group"] >= 0 else "",
    )


def folder_of(table: str) -> str:
    """Return the folder that a file is in, or its URL."""
    return table.rpartition("/")[0] if files.is_url(table) else str(Path(table).parent)


def _iter_rows(table: str) -> Iterator[Row]:
    """Yield the header and the other lines, all of the same number of fields."""
    try:
        data = files.read_file(table)
    except OSError as error:
        raise ManifestError(f"cannot read this table: {files.said(error)}", path=table) from error
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        byte = error.object[error.start]
        message = f"byte 0x{byte:02x} is not UTF-8; save the table as UTF-8"
        raise ManifestError(message, path=table, line=line) from error
    rows = _parse(table, data, _delimiter(table, data))
    header = next(rows, None)
    if header is None:
        raise ManifestError("the table is empty; its first line must name the columns (path, label)", path=table)
    header = Row(header.line, [name.strip() for name in header.fields])
    twice = {name for name in header.fields if header.fields.count(name) > 1}
    if twice:
        raise ManifestError(f"two columns are named {min(twice)!r}", path=table, line=header.line)
    yield header
    for row in rows:
        if len(row.fields) != len(header.fields):
            message = f"{len(row.fields)} fields, but the header has {len(header.fields)}; quote fields with separators"
            raise ManifestError(message, path=table, line=row.line)
        yield row


def _lines(data: bytes) -> Iterable[str]:
    """Return the lines of UTF-8, which are decoded when they are asked for."""
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")


def _delimiter(table: str, data: bytes) -> str:
    """Return the separator that splits the header into most fields."""
    counts = {}
    for delimiter in "\t,;" if files.suffix_of(table) == ".tsv" else ",;\t":
        header = next(filter(None, csv.reader(_lines(data), delimiter=delimiter)), [])
        counts[delimiter] = len(header)
    return max(counts, key=lambda delimiter: counts[delimiter])


def _parse(table: str, data: bytes, delimiter: str) -> Iterator[Row]:
    """Yield the lines that are not empty, each with the number at which it begins."""
    reader = csv.reader(_lines(data), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            hint = "; is a quotation mark not closed?" if "end of data" in str(error) else ""
            raise ManifestError(f"not a table: {error}{hint}", path=table, line=line) from error
        if values:
            yield Row(line, values)


def _position(table: str, header: Row, role: str, name: str) -> int:
    """Return where a column is, or -1 for an optional one that is not there."""
    if name in header.fields:
        return header.fields.index(name)
    alike = [at for at, other in enumerate(header.fields) if other.casefold() == name.casefold()]
    if len(alike) == 1:
        return alike[0]
    if not alike and role != "path" and name == getattr(Columns(), role):
        return -1
    message = f"no column {name!r} in the header, which has {', '.join(map(repr, header.fields))}"
    raise ManifestError(f"{message}; name another with --{role}-column", path=table, line=header.line)


def _key(table: str, row: Row, text: str, root: str) -> str:
    """Return a path's text below the root, without ``.`` and ``..``."""
    if _PLAIN.fullmatch(text):
        return text
    path = posixpath.normpath(text.replace("\\", "/")) if text else ""
    if path.startswith("/"):
        above = "//" if files.is_url(root) else posixpath.normpath(Path(root).absolute().as_posix()).rstrip("/")
        path = path.removeprefix(f"{above}/") if path.startswith(f"{above}/") else ".."
    if path in ("", "."):
        raise ManifestError("no path", path=table, line=row.line)
    if path == ".." or path.startswith("../"):
        message = f"{text!r} is not below {root}; name the folder of the images with --root"
        raise ManifestError(message, path=table, line=row.line)
    if "\0" in path:
        raise ManifestError(f"{text!r} is not a path", path=table, line=row.line)
    return path


def _url_key(table: str, row: Row, url: str, root: str) -> str:
    """Return a URL's text below the root, or all of it, but for a password."""
    if files.is_url(table) and url.lower().startswith(("file:", "local:")):
        raise ManifestError(f"{url!r}: a table from elsewhere names a file of this machine", path=table, line=row.line)
    key = utf8(_USER.sub("//", url.removeprefix(f"{root}/"), count=1))
    if "\0" in key:
        raise ManifestError(f"{url!r} is not a URL", path=table, line=row.line)
    return key


def _check_schemes(urls: Iterable[str]) -> None:
    """Raise an error for URLs that cannot be read here, before the first image is asked for."""
    one_of_each = {url.partition("://")[0].lower(): url for url in urls}
    for url in one_of_each.values():
        from featx.manifest import remote

        remote.filesystem(url)


def _split(table: str, row: Row, value: str) -> str:
    if value and value.lower() not in SPLITS:
        message = f"{value!r} is not a split; expected {', '.join(SPLITS)} or nothing"
        raise ManifestError(message, path=table, line=row.line)
    return SPLITS[value.lower()] if value else ""
