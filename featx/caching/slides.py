"""Foreign features in HDF5: whole slides and their patches (CLAM, TRIDENT), and images (thingsvision)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.caching.arrays import read_names
from featx.caching.foreign import ForeignFeatures, ImportOptions, find_columns
from featx.caching.npz import as_texts
from featx.errors import InputError, UsageError
from featx.store.foreign import ForeignFile, read_foreign
from featx.store.trial import try_reading

ENDINGS = (".h5", ".hdf5")
MEAN = "mean"


def read_hdf5(path: Path, options: ImportOptions) -> ForeignFeatures:
    """Read one HDF5 file: the patches of a slide where there are `coords`, else a row for each image."""
    try_reading([path])
    file = read_foreign(path)
    if file.coords is not None or file.is_vector or options.pool is not None:
        return _of_slides([file], options)
    if not file.n_rows:
        raise InputError(f"{path}: no rows")
    roles = find_columns(list(file.columns), options.columns, where=str(path), what="dataset")
    columns = {role: as_texts(file.columns[name]) for role, name in roles.items()}
    if "key" not in columns or options.names is not None:
        names = read_names(None if options.names is None else Path(options.names), path, file.n_rows)
        columns |= {} if names is None else {"key": names}
    return ForeignFeatures(
        kind="hdf5",
        files=[path],
        shape=file.shape,
        dtype=file.dtype,
        n_samples=file.n_rows,
        blocks=file.blocks,
        columns=columns,
        meta={name: as_texts(values) for name, values in file.columns.items() if name not in roles.values()},
        group_source=f"dataset {roles['group']}" if "group" in roles else "",
    )


def read_slides(paths: list[Path], options: ImportOptions) -> ForeignFeatures:
    """Read one HDF5 file for each slide: its patches, the mean of them, or the slide's own vector.

    A patch's key is ``SLIDE/X_Y`` and its group the slide, so that the patches of one slide never straddle folds. A
    slide's key is its file's name without the ending.
    """
    try_reading(paths)
    return _of_slides([read_foreign(path) for path in paths], options)


def _of_slides(slides: list[ForeignFile], options: ImportOptions) -> ForeignFeatures:
    if options.pool not in (None, MEAN):
        raise UsageError(f"--pool takes {MEAN!r}, got {options.pool!r}")
    if options.columns or options.names is not None:
        raise UsageError("slides are named by their files: --names and --...-column have no meaning for them")
    full = [slide for slide in slides if slide.n_rows]
    if not full:
        raise InputError(f"{slides[0].path.parent}: no slide has a patch")
    for slide in full:
        if slide.shape != full[0].shape:
            raise InputError(
                f"{slide.path.name} has rows of {slide.shape}, {full[0].path.name} of {full[0].shape}; one feature "
                "file holds rows of one length"
            )
    vectors = [slide for slide in full if slide.is_vector]
    if vectors and len(vectors) < len(full):
        patches = next(slide for slide in full if not slide.is_vector)
        raise InputError(
            f"{vectors[0].path.name} is one vector and {patches.path.name} holds patches: import them apart"
        )
    if options.pool is not None and vectors:
        raise UsageError(f"--pool: {vectors[0].path.name} is one vector already")
    return _whole_slides(slides, options) if vectors or options.pool is not None else _patches(slides)


def _patches(slides: list[ForeignFile]) -> ForeignFeatures:
    names = [slide.path.stem for slide in slides]
    keys: list[str] = []
    for slide, name in zip(slides, names, strict=True):
        coords = None if slide.coords is None else [f"{x}_{y}" for x, y in slide.coords.tolist()]
        if coords is None or len(set(coords)) < len(coords):
            coords = [f"{number:06d}" for number in range(slide.n_rows)]
        keys += [f"{name}/{place}" for place in coords]
    groups = [name for slide, name in zip(slides, names, strict=True) for _ in range(slide.n_rows)]
    meta = {}
    if all(slide.coords is not None for slide in slides if slide.n_rows):
        coords = [place for slide in slides if slide.coords is not None for place in slide.coords.tolist()]
        meta = {axis: [str(place[i]) for place in coords] for i, axis in enumerate("xy")}
    empty = [name for slide, name in zip(slides, names, strict=True) if not slide.n_rows]
    notes = [f"{len(empty):,} slides without a patch: {', '.join(empty)}"] if empty else []
    return ForeignFeatures(
        kind="slides",
        files=[slide.path for slide in slides],
        shape=_shape(slides),
        dtype=_dtype(slides),
        n_samples=len(keys),
        blocks=lambda: (block for slide in slides if slide.n_rows for block in slide.blocks()),
        columns={"key": keys, "group": groups},
        meta=meta,
        group_source="the slide of each patch",
        notes=notes,
    )


def _whole_slides(slides: list[ForeignFile], options: ImportOptions) -> ForeignFeatures:
    def blocks() -> Iterator[NDArray[Any]]:
        for slide in slides:
            if slide.n_rows:
                yield _mean(slide)[None] if options.pool is not None else next(slide.blocks())

    pooled = options.pool is not None
    return ForeignFeatures(
        kind="slides",
        files=[slide.path for slide in slides],
        shape=_shape(slides),
        dtype="float64" if pooled else _dtype(slides),
        n_samples=len(slides),
        blocks=blocks,
        columns={"key": [slide.path.stem for slide in slides]},
        meta={"patches": [str(slide.n_rows) for slide in slides]} if pooled else {},
        failures={i: "empty: a slide without a patch" for i, slide in enumerate(slides) if not slide.n_rows},
    )


def _mean(slide: ForeignFile) -> NDArray[np.float64]:
    total = np.zeros(slide.shape, np.float64)
    for block in slide.blocks():
        total += block.astype(np.float64).sum(axis=0)
    return total / slide.n_rows


def _shape(slides: list[ForeignFile]) -> tuple[int, ...]:
    return next(slide.shape for slide in slides if slide.n_rows)


def _dtype(slides: list[ForeignFile]) -> str:
    kinds = {slide.dtype for slide in slides if slide.n_rows}
    return kinds.pop() if len(kinds) == 1 else "float64"
