"""Features in HDF5 files that other programs wrote.

Known layouts: thingsvision's (``features`` (n, d), or ``features_01``, ``features_02``, ...), CLAM's and TRIDENT's
patches of a slide (``features`` (n, d) or (1, n, d) beside ``coords`` (n, 2)), and TRIDENT's slides (``features``
(d,)).
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.errors import InputError

NAMES = ("features", "X", "embeddings", "feats")
"""Of the dataset that holds the features."""

_PART = re.compile(r"features_\d+")
_BLOCK_BYTES = 8 * 1024 * 1024
_DAMAGE = (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError)


@dataclass(frozen=True, eq=False)
class ForeignFile:
    """What a foreign HDF5 file holds.

    Attributes
    ----------
    path : Path
        The file.
    parts : tuple of str
        Datasets whose rows follow each other.
    n_rows : int
        Rows of features.
    shape : tuple of int
        Of one row.
    dtype : str
        Of the features.
    is_vector : bool
        Whether the file is one row by its layout: a slide's own vector.
    coords : int array (n_rows, 2), or None
        Where each patch lies in its slide.
    columns : dict of str to array
        Other datasets with one value for each row.
    """

    path: Path
    parts: tuple[str, ...]
    n_rows: int
    shape: tuple[int, ...]
    dtype: str
    is_vector: bool
    coords: NDArray[np.integer] | None
    columns: dict[str, NDArray[Any]]

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the rows, some megabytes at a time; raises as `read_foreign`."""
        with _reading(self.path), h5py.File(self.path, "r", locking=False) as h5:
            for name in self.parts:
                dataset = h5[name]
                if dataset.ndim != 1 + len(self.shape):  # (d,), or (1, n, d)
                    yield dataset[...].reshape(-1, *self.shape)
                    continue
                width = int(np.prod(self.shape)) * dataset.dtype.itemsize
                step = max(1, _BLOCK_BYTES // max(1, width))
                for start in range(0, dataset.shape[0], step):
                    yield dataset[start : start + step]


def read_foreign(path: Path) -> ForeignFile:
    """Look at a foreign HDF5 file, without reading its features.

    Raises
    ------
    InputError
        If it is not HDF5, damaged, a feature file of featx, or holds no features that are known by their name.
    """
    with _reading(path), h5py.File(path, "r", locking=False) as h5:
        if "featx_format" in h5.attrs:
            raise InputError(f"{path}: this is a feature file already; featx cache merge joins such files")
        here = {name for name in h5 if isinstance(h5.get(name, getlink=True), h5py.HardLink)}
        datasets = {name: h5[name] for name in here if isinstance(h5[name], h5py.Dataset)}
        parts = tuple(name for name in NAMES if name in datasets)[:1] or tuple(
            sorted(name for name in datasets if _PART.fullmatch(name))
        )
        if not parts:
            raise InputError(
                f"{path}: no dataset of features; expected one of {', '.join(NAMES)}, found "
                f"{', '.join(sorted(here)) or 'none'}"
            )
        for name in parts:
            _check(path, name, datasets[name])
        coords = _coords(path, datasets.get("coords"))
        n_rows, shape, is_vector = _layout(path, [datasets[name] for name in parts], coords)
        return ForeignFile(
            path=path,
            parts=parts,
            n_rows=n_rows,
            shape=shape,
            dtype=str(datasets[parts[0]].dtype),
            is_vector=is_vector,
            coords=coords if coords is not None and len(coords) == n_rows and not is_vector else None,
            columns={
                name: _column(path, name, dataset)
                for name, dataset in sorted(datasets.items())
                if name not in (*parts, "coords") and dataset.shape == (n_rows,) and dataset.dtype.kind in "iufSO"
            },
        )


def _layout(
    path: Path, features: list[h5py.Dataset], coords: NDArray[np.integer] | None
) -> tuple[int, tuple[int, ...], bool]:
    first = features[0]
    if any(one.shape[1:] != first.shape[1:] for one in features):
        raise InputError(f"{path}: {', '.join(one.name for one in features)} have rows of different shapes")
    if first.ndim == 1:
        return 1, (first.shape[0],), True
    if (
        len(features) == 1
        and first.ndim == 3
        and first.shape[0] == 1
        and (coords is None or len(coords) == first.shape[1])
    ):
        return first.shape[1], (first.shape[2],), False
    n_rows = sum(one.shape[0] for one in features)
    if coords is not None and len(coords) != n_rows:
        if n_rows != 1:
            raise InputError(f"{path}: {n_rows:,} rows of features and {len(coords):,} coords")
        return 1, tuple(first.shape[1:]), True
    return n_rows, tuple(first.shape[1:]), False


def _check(path: Path, name: str, dataset: h5py.Dataset) -> None:
    if dataset.dtype.kind not in "fiu":
        raise InputError(f"{path}: dataset {name!r} is of type {dataset.dtype}, expected numbers")
    if not dataset.ndim or dataset.is_virtual or dataset.external:
        raise InputError(f"{path}: dataset {name!r} is a scalar, or its numbers are in another file")
    _check_storage(path, name, dataset)


def _check_storage(path: Path, name: str, dataset: h5py.Dataset) -> None:
    """Look whether all was written and lies in the file: HDF5 makes up what was not, and takes what memory it is told.

    A dataset that grows piece by piece has its full shape before it has its numbers.
    """
    if not dataset.size:
        return
    if not dataset.id.get_storage_size():
        raise InputError(f"{path}: dataset {name!r} was never written")
    if dataset.chunks is None:
        return
    chunks: list[tuple[int, int]] = []
    dataset.id.chunk_iter(lambda chunk: chunks.append((int(chunk.byte_offset), int(chunk.size))))
    wanted = math.prod(-(-side // chunk) for side, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    if len(chunks) < wanted:
        raise InputError(f"{path}: dataset {name!r} was not written to its end: {len(chunks):,} of {wanted:,} chunks")
    if max(map(sum, chunks)) > path.stat().st_size:
        raise InputError(f"{path}: dataset {name!r} goes on behind the end of the file; it is damaged, or cut off")


def _coords(path: Path, dataset: h5py.Dataset | None) -> NDArray[np.integer] | None:
    if dataset is None or dataset.dtype.kind not in "iuf" or dataset.ndim not in (2, 3) or dataset.shape[-1] != 2:
        return None
    _check_storage(path, "coords", dataset)
    coords: NDArray[np.integer] = dataset[...].reshape(-1, 2).astype(np.int64)
    return coords


def _column(path: Path, name: str, dataset: h5py.Dataset) -> NDArray[Any]:
    _check_storage(path, name, dataset)
    if dataset.dtype.kind == "O":
        return np.array(dataset.asstr(errors="backslashreplace")[:].tolist(), dtype=str)
    values: NDArray[Any] = dataset[:]
    return values


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(f"{path}: cannot be read as HDF5 ({error})") from error
