"""Foreign features in NumPy's files, and in thingsvision's, which lie beside a list of file names."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.caching.foreign import TEXT, ForeignFeatures, ImportOptions, find_columns
from featx.caching.npz import ArrayArchive
from featx.errors import InputError, UsageError

FEATURES = ("X", "features", "embeddings", "feats", "x", "data", "arr_0")
"""Names of the array that holds the features, best first."""
FILE_NAMES = "file_names.txt"
"""Where thingsvision writes the images' names, one in each line, beside the features."""

_LINES = 1024


def read_npz(path: Path, options: ImportOptions) -> ForeignFeatures:
    """Read an archive of arrays: features, and arrays with a value for each row."""
    archive = ArrayArchive(path)
    name = next((one for one in FEATURES if one in archive.names), None)
    if name is None:
        several = [one for one in archive.names if len(archive.header(one).shape) > 1]
        if len(several) != 1:
            found = ", ".join(archive.names) or "none"
            raise InputError(f"{path}: no array of features; expected one of {', '.join(FEATURES)}, found {found}")
        name = several[0]
    shape, dtype = _shape(archive, name)
    n_samples = shape[0]
    others = [one for one in archive.names if one != name]
    roles = find_columns(others, options.columns, where=str(path), what="array")
    columns: dict[str, list[str]] = {}
    for role, other in roles.items():
        columns[role] = archive.texts(other)
        if len(columns[role]) != n_samples:
            raise InputError(f"{path}: {n_samples:,} rows of {name} and {len(columns[role]):,} of {other}")
    headers = {one: archive.header(one) for one in others if one not in roles.values()}
    aligned = [one for one, header in headers.items() if header.shape == (n_samples,) and n_samples > 1]
    left_out = [one for one in headers if one not in aligned]
    return ForeignFeatures(
        kind="npz",
        files=[path],
        shape=shape[1:],
        dtype=dtype,
        n_samples=n_samples,
        blocks=lambda: archive.blocks(name),
        columns=columns,
        meta={one.removeprefix("meta_"): archive.texts(one) for one in aligned},
        group_source=f"array {roles['group']}" if "group" in roles else "",
        notes=[f"left out, not one value for each row: {', '.join(left_out)}"] if left_out else [],
    )


def read_npy(paths: list[Path], options: ImportOptions) -> ForeignFeatures:
    """Read one array of features, or several whose rows follow each other."""
    archives = [ArrayArchive(path) for path in paths]
    if any(archive.names != [""] for archive in archives):
        raise InputError(f"{paths[0]}: an archive of arrays; its name must end in .npz")
    shapes = [_shape(archive, "") for archive in archives]
    if len({(shape[1:], dtype) for shape, dtype in shapes}) > 1:
        raise InputError(f"{', '.join(path.name for path in paths)}: rows of different shapes or types")
    return _rows_alone(
        "npy",
        paths,
        shapes[0][0][1:],
        shapes[0][1],
        sum(shape[0] for shape, _ in shapes),
        lambda: itertools.chain.from_iterable(archive.blocks("") for archive in archives),
        options,
    )


def read_txt(paths: list[Path], options: ImportOptions) -> ForeignFeatures:
    """Read numbers in lines, as `numpy.savetxt` writes them."""
    n_samples = sum(len(block) for block in _text_blocks(paths))
    first = next(_text_blocks(paths), None)
    if first is None:
        raise InputError(f"{paths[0]}: no rows")
    return _rows_alone("txt", paths, (first.shape[1],), TEXT, n_samples, lambda: _text_blocks(paths), options)


def read_names(path: Path | None, beside: Path, n_samples: int) -> list[str] | None:
    """Read the keys of rows that have none: from the file that the user names, or from `FILE_NAMES` beside them.

    Raises
    ------
    InputError
        If there is not one for each row.
    """
    source = path if path is not None else beside.with_name(FILE_NAMES)
    if path is None and not source.is_file():
        return None
    names = read_lines(source)
    if len(names) != n_samples:
        raise InputError(f"{source}: {len(names):,} names for {n_samples:,} rows of {beside.name}")
    return names


def read_lines(path: Path) -> list[str]:
    """Read a text file's lines, without those after the last that holds anything."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8") from error
    return [line.strip() for line in text.rstrip().splitlines()]


def _rows_alone(
    kind: str,
    paths: list[Path],
    shape: tuple[int, ...],
    dtype: str,
    n_samples: int,
    blocks: Any,
    options: ImportOptions,
) -> ForeignFeatures:
    if options.columns:
        raise UsageError(f"{paths[0]}: a file of numbers alone has no columns to be named; give --labels FILE")
    names = read_names(None if options.names is None else Path(options.names), paths[0], n_samples)
    return ForeignFeatures(
        kind, paths, shape, dtype, n_samples, blocks, columns={} if names is None else {"key": names}
    )


def _shape(archive: ArrayArchive, name: str) -> tuple[tuple[int, ...], str]:
    header = archive.header(name)
    called = f"{archive.path}: {name or 'the array'}"
    if header.dtype.kind not in "fiu":
        raise InputError(f"{called} is of type {header.dtype}, expected numbers")
    if len(header.shape) < 2 or not all(header.shape):
        raise InputError(f"{called} has the shape {header.shape}, expected (n_samples, n_features)")
    return header.shape, str(header.dtype)


def _text_blocks(paths: list[Path]) -> Iterator[NDArray[np.float64]]:
    for path in paths:
        with path.open("rb") as file:
            while lines := list(itertools.islice(file, _LINES)):
                try:
                    yield np.array([line.split() for line in lines if line.strip()], dtype=np.float64)
                except ValueError as error:
                    raise InputError(f"{path}: not a table of numbers ({error})") from error
