"""Parquet files as a manifest: images as bytes in a column, as Hugging Face's datasets have them, or a table of paths.

The column of bytes is not read here; a sample's place is its file, row group and row.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from featx.errors import ManifestError, UsageError
from featx.manifest import columns, files, locator, table
from featx.manifest.columns import Columns
from featx.manifest.folder import utf8
from featx.manifest.parquet_values import only_os_errors, open_parquet, pyarrow
from featx.manifest.record import Manifest

IMAGES = ("image", "img", "bytes", "image_bytes", "jpg", "jpeg", "png", "webp", "picture", "photo")
"""Names of the column of images, the first that is there; another one is found if no other column holds bytes."""
KEYS = ("key", "__key__", "id", "path", "file_name", "filename", "image_path", "image_id")
"""Names of the column whose values are the samples' keys, where they are unique."""


@dataclass(frozen=True)
class _Part:
    """What one file holds: the path of its column of images (``""``: none), its texts, and its row groups' lengths."""

    image: str
    texts: dict[str, list[str]]
    groups: list[int]


class ValuePlaces(Sequence[str]):
    """The places of images in Parquet files, made when they are asked for.

    Parameters
    ----------
    parts : list of (str, str, list of int)
        Path or URL, column, and the number of rows of each row group.
    """

    def __init__(self, parts: list[tuple[str, str, list[int]]]) -> None:
        self._groups = [(path, column, group) for path, column, sizes in parts for group in range(len(sizes))]
        self._starts = [0, *accumulate(size for _, _, sizes in parts for size in sizes)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(len(self))[index]]
        position = range(len(self))[index]
        at = bisect_right(self._starts, position) - 1
        path, column, group = self._groups[at]
        return locator.place_in(locator.PARQUET, path, group, position - self._starts[at], column)


def read_parquet(
    root: str, names: Sequence[str], *, wanted: Columns, layout: str = "auto", paths_below: str | None = None
) -> Manifest:
    """List the rows of Parquet files, file by file in the order of their names.

    Parameters
    ----------
    root : str
        A folder or its URL.
    names : sequence of str
        The files' paths below it.
    wanted : Columns
        `path` is the column of images (bytes, or a struct of ``bytes`` and ``path``), or of paths.
    layout : str
        The files' names (``train/0.parquet``, ``train-0.parquet``) give the split where no column does, unless this is
        ``"flat"`` or ``"classes"``.
    paths_below : str or None
        The folder to which a column of paths is relative.

    Returns
    -------
    Manifest
        Keys are the values of a column of keys (`KEYS`, or the ``path`` beside the bytes) if they are all there and
        unique, else ``file/row``. Numbers of Hugging Face's class labels are replaced by their names.

    Raises
    ------
    ManifestError
        If a file cannot be read, it is not clear which column holds the images, or a column is not there.
    MissingExtraError
        If pyarrow is not installed.
    """
    parts = [_read_part(f"{root}/{name}", wanted) for name in names]
    where = f"{root}/{names[0]}" if len(names) == 1 else root
    sizes = [sum(part.groups) for part in parts]
    if not sum(sizes):
        raise ManifestError("no rows", path=where)
    with_images = [bool(part.image) for part in parts]
    if any(with_images) != all(with_images):
        raise ManifestError("some files hold images and some hold paths; read them one by one", path=root)
    texts = _joined(parts, sizes)
    if not all(with_images):
        return _as_table(where, texts, wanted, root if paths_below is None else paths_below)
    if paths_below is not None:
        raise UsageError("--root has no meaning for images in Parquet files")
    key = _key_column(texts, parts[0], wanted)
    fallback = (f"{name}/{row:06d}" for name, size in zip(names, sizes, strict=True) for row in range(size))
    keys = [utf8(text) for text in (fallback if key is None else texts[key])]
    known = columns.from_columns(
        {name: values for name, values in texts.items() if name != key}, len(keys), wanted, where=where
    )
    splits = known.splits
    by_name = columns.splits_of_names(names, layout)
    if by_name is not None and not any(splits):
        splits = [split for split, size in zip(by_name, sizes, strict=True) for _ in range(size)]
    places = [(f"{root}/{name}", part.image, part.groups) for name, part in zip(names, parts, strict=True)]
    return Manifest(
        root=root,
        keys=keys,
        paths=ValuePlaces(places),
        labels=known.labels,
        groups=known.groups,
        splits=splits,
        folds=known.folds,
        meta=known.meta,
        group_source=known.group_source,
    )


def _read_part(path: str, wanted: Columns) -> _Part:
    try:
        file = open_parquet(path)
        with only_os_errors(), file:
            schema = file.schema_arrow
            image = _image_column(schema, wanted, path)
            names = [field.name for field in schema if _is_text(field.type)]
            beside = f"{image.removesuffix('.bytes')}.path" if image.endswith(".bytes") else ""
            leaves = [file.schema.column(i).path for i in range(len(file.schema))]
            if beside in leaves:
                names.append(beside)
            read = {name: _column(file, name, _class_names(schema, name)) for name in names}
            groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    except OSError as error:
        raise ManifestError(f"cannot read this Parquet file: {files.said(error)}", path=path) from error
    return _Part(image, read, groups)


def _image_column(schema: Any, wanted: Columns, path: str) -> str:
    """Return the path of the column of images in the schema; ``""`` if the samples are paths."""
    images = {field.name: at for field in schema if (at := _bytes_in(field)) is not None}
    if not wanted.is_default("path"):
        name = columns.find_column(schema.names, wanted, "path", where=path) or ""
        return images.get(name, "")
    for name in IMAGES:
        if name in images:
            return images[name]
    if len(images) == 1:
        return next(iter(images.values()))
    if wanted.path in schema.names:
        return ""
    what = f"columns {', '.join(map(repr, images))} hold bytes" if images else "no column holds bytes, none is 'path'"
    there = "" if images else f"; there are: {', '.join(map(repr, schema.names))}"
    raise ManifestError(f"which column holds the images? {what}{there}; name it with --path-column", path=path)


def _bytes_in(field: Any) -> str | None:
    types = pyarrow().types
    if _is_bytes(field.type):
        return str(field.name)
    if types.is_struct(field.type) and any(child.name == "bytes" and _is_bytes(child.type) for child in field.type):
        return f"{field.name}.bytes"
    return None


def _is_bytes(kind: Any) -> bool:
    types = pyarrow().types
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _is_text(kind: Any) -> bool:
    """Whether a column's values are single and can be written as text."""
    types = pyarrow().types
    if types.is_dictionary(kind):
        kind = kind.value_type
    return not (_is_bytes(kind) or types.is_fixed_size_binary(kind) or types.is_nested(kind))


def _column(file: Any, name: str, class_names: list[str]) -> list[str]:
    """Return a column as texts, each distinct one held in memory once."""
    once: dict[str, str] = {}
    texts = []
    for group in range(file.metadata.num_row_groups):
        for value in file.read_row_group(group, columns=[name]).column(0).to_pylist():
            while isinstance(value, dict):  # the path in a struct
                value = next(iter(value.values()))
            if isinstance(value, int) and class_names:
                text = class_names[value] if 0 <= value < len(class_names) else "" if value < 0 else str(value)
            else:
                text = columns.text_of(value) or ""
            texts.append(once.setdefault(text, text))
    return texts


def _class_names(schema: Any, name: str) -> list[str]:
    """Return the names of a column's class labels, where Hugging Face's datasets wrote them into the schema."""
    try:
        found: Any = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        for step in ("info", "features", name, "names"):
            found = found.get(step, {})
    except (ValueError, RecursionError, AttributeError):
        return []
    return [str(one) for one in found] if isinstance(found, list) else []


def _joined(parts: list[_Part], sizes: list[int]) -> dict[str, list[str]]:
    names = dict.fromkeys(name for part in parts for name in part.texts)
    pairs = list(zip(parts, sizes, strict=True))
    return {name: [text for part, size in pairs for text in part.texts.get(name, [""] * size)] for name in names}


def _key_column(texts: dict[str, list[str]], part: _Part, wanted: Columns) -> str | None:
    roles = {wanted.label, wanted.group, wanted.split, wanted.fold}
    for name in (*KEYS, f"{part.image.removesuffix('.bytes')}.path"):
        values = texts.get(name)
        if values is not None and name not in roles and all(values) and len(set(values)) == len(values):
            return name
    return None


def _as_table(where: str, texts: dict[str, list[str]], wanted: Columns, root: str) -> Manifest:
    header = table.Row(0, list(texts))
    rows = [table.Row(row + 1, list(values)) for row, values in enumerate(zip(*texts.values(), strict=True))]
    return table.manifest_of_rows(where, header, rows, root=root, columns=wanted)
