"""The list of samples that a source holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Manifest:
    """Samples as columns, in the order in which they are extracted and stored.

    Attributes
    ----------
    root : str
        The folder below which the keys are paths; for messages only.
    keys : list of str
        Unique name of each sample: its path below the root with ``/`` between, always valid UTF-8.
    paths : list of str
        File of each sample (may hold surrogate escapes where a name is not UTF-8); ``""`` where
        the pixels are in `arrays`.
    labels, groups, splits, folds : list of str
        ``""`` = unknown. Splits are ``train``, ``val``, ``test`` or ``""``.
    meta : dict of str to list of str
        Every other column of a table.
    arrays : sequence of uint8 array (height, width[, channels]), or None
        Pixels by position, where the samples are not files.
    refused : dict of int to str
        Position to the reason (``"name-not-utf8"``, ...) of samples that cannot be read at all.
    group_source : str
        Where the groups come from, in words: ``"column patient"``, ``"regex ..."``; ``""`` = none.
    """

    root: str
    keys: list[str]
    paths: list[str]
    labels: list[str]
    groups: list[str]
    splits: list[str]
    folds: list[str]
    meta: dict[str, list[str]] = field(default_factory=dict)
    arrays: Sequence[NDArray[np.uint8]] | Any | None = None
    refused: dict[int, str] = field(default_factory=dict)
    group_source: str = ""

    def __len__(self) -> int:
        return len(self.keys)
