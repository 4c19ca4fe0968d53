"""The list of samples that a source holds."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
"""Names of a split, in lower case, to the name that is stored."""


@dataclass(frozen=True)
class Manifest:
    """Samples as columns, in the order in which they are extracted and stored.

    Attributes
    ----------
    root : str
        The folder below which the keys are paths; for messages only.
    keys : list of str
        Unique name of each sample: its path below the root with ``/`` between, always valid UTF-8.
    paths : sequence of str
        Place of each sample: a file (may hold surrogate escapes where a name is not UTF-8), a URL, or what
        `featx.manifest.locator` knows; ``""`` where the pixels are in `arrays`.
    labels, groups, splits, folds : list of str
        ``""`` = unknown. Splits are ``train``, ``val``, ``test`` or ``""``.
    meta : dict of str to list of str
        Every other column of a table.
    arrays : sequence of uint8 array (height, width[, channels]), or None
        Pixels by position, where the samples are not files.
    frames : sequence of int, or None
        Which image of its file each sample is, from 0 on; None: the first one of every file.
    refused : dict of int to str
        Position to the reason (``"name-not-utf8"``, ...) of samples that cannot be read at all.
    group_source : str
        Where the groups come from, in words: ``"column patient"``, ``"regex ..."``; ``""`` = none.
    skipped : dict of str to int
        Files of a folder that are no samples, counted by lower-case extension.
    """

    root: str
    keys: list[str]
    paths: Sequence[str]
    labels: list[str]
    groups: list[str]
    splits: list[str]
    folds: list[str]
    meta: dict[str, list[str]] = field(default_factory=dict)
    arrays: Sequence[NDArray[np.uint8]] | Any | None = None
    frames: Sequence[int] | None = None
    refused: dict[int, str] = field(default_factory=dict)
    group_source: str = ""
    skipped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, positions: Sequence[int]) -> Manifest:
        """Return the samples at these positions, in this order."""

        def picked(column: Sequence[Any]) -> list[Any]:
            return [column[position] for position in positions]

        return dataclasses.replace(
            self,
            keys=picked(self.keys),
            paths=picked(self.paths),
            labels=picked(self.labels),
            groups=picked(self.groups),
            splits=picked(self.splits),
            folds=picked(self.folds),
            meta={name: picked(column) for name, column in self.meta.items()},
            arrays=None if self.arrays is None else _Picked(self.arrays, positions),
            frames=None if self.frames is None else picked(self.frames),
            refused={new: self.refused[old] for new, old in enumerate(positions) if old in self.refused},
        )


class PathsBelow(Sequence[str]):
    """The paths that keys are below a root, made when they are asked for: a million of them take no memory.

    Parameters
    ----------
    root : str
        A folder, or its URL.
    keys : sequence of str
        As in `Manifest`.
    others : dict of int to str
        Positions of those that are elsewhere, and their paths.
    """

    def __init__(self, root: str, keys: Sequence[str], others: dict[int, str]) -> None:
        self._root = root
        self._keys = keys
        self._others = others

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        key = self._keys[index]  # IndexError beyond the end
        other = self._others.get(index if index >= 0 else index + len(self)) if self._others else None
        return f"{self._root}/{key}" if other is None else other

    def __eq__(self, other: object) -> bool:
        """Whether it has the paths of another sequence."""
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(operator.eq, self, other))


class _Picked(Sequence[Any]):
    """Some items of a sequence, which are only touched when asked for."""

    def __init__(self, items: Sequence[Any], positions: Sequence[int]) -> None:
        self._items = items
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: Any) -> Any:
        return self._items[self._positions[index]]
