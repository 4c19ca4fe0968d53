"""What a head is trained on: the rows of a feature file with their labels, groups, splits and folds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import InputError, StoreIncompleteError
from featx.spec import FeatureSpec
from featx.store.file import FeatureFile


@dataclass(frozen=True, eq=False)
class Features:
    """Features and what is known about each row, aligned.

    Attributes
    ----------
    X : float32 array (n_samples, n_features)
        One row for each good sample: the plain image, no other views.
    y : str array (n_samples,)
        Labels; ``''`` = unlabelled.
    groups, keys, splits, folds, sha256 : object array of str (n_samples,)
        ``''`` = unknown.
    group_source : str
        Where the groups come from, in words; ``""`` = none.
    spec : FeatureSpec, or None
        What made the features; None when they do not come from a file.
    digest : str
        SHA-256 over keys, labels, groups, splits and features; ``""`` when they do not come from a file.
    n_missing : int
        Samples of the file that failed and have no row.
    """

    X: NDArray[np.float32]
    y: NDArray[np.str_]
    groups: NDArray[np.object_]
    keys: NDArray[np.object_]
    splits: NDArray[np.object_]
    folds: NDArray[np.object_]
    sha256: NDArray[np.object_] = field(repr=False)
    group_source: str = ""
    spec: FeatureSpec | None = None
    digest: str = ""
    n_missing: int = 0

    def __len__(self) -> int:
        return len(self.y)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Unpack as ``X, y, groups, keys = load_features(...)``, ready for scikit-learn.

        A sample without a group is a group of its own there, named by its key: scikit-learn would take all of them
        for one group.
        """
        yield from (self.X, self.y, np.where(self.groups == "", self.keys, self.groups), self.keys)

    def take(self, rows: NDArray[Any]) -> Features:
        """Return some of the rows, by position or mask."""
        columns = ("X", "y", "groups", "keys", "splits", "folds", "sha256")
        return replace(self, **{name: getattr(self, name)[rows] for name in columns})


def load_features(path: str | os.PathLike[str], *, allow_missing: bool = False) -> Features:
    """Load the features of a finished feature file, ready for any scikit-learn estimator.

    Parameters
    ----------
    path : path-like
        A feature file as `featx extract` writes it.
    allow_missing : bool
        Go on although some samples failed and have no row; else that is an error.

    Returns
    -------
    Features
        With attributes ``X``, ``y``, ``groups``, ``keys`` ...; unpacks into these four.

    Raises
    ------
    StoreError
        If the file is missing or is not a feature file.
    StoreIncompleteError
        If samples failed, without `allow_missing`.
    InputError
        If features are NaN or infinite; names the first such sample.
    """
    with FeatureFile.open(path) as file:
        ledger = file.ledger()
        failed = np.flatnonzero(ledger.row < 0)
        if len(failed) and not allow_missing:
            first = int(failed[0])
            raise StoreIncompleteError(
                f"{len(failed)} of {len(ledger)} samples have no features, the first {ledger.key[first]!r} "
                f"({ledger.reason[first]}); mend them and extract again, or leave them out with --allow-missing",
                path=str(path),
                missing=len(failed),
            )
        plain = np.flatnonzero(np.asarray(file.views()) == 0)
        everything = len(plain) == file.n_rows
        X = np.asarray(file.features(None if everything else plain), dtype=np.float32)

        def take(column: list[str]) -> NDArray[np.object_]:
            return np.array(column, dtype=object)[plain]

        sha_of_key = dict(zip(ledger.key, ledger.sha256, strict=True))
        keys = take(file.keys())
        features = Features(
            X=X,
            y=np.array(file.labels(), dtype=str)[plain],
            groups=take(file.groups()),
            keys=keys,
            splits=take(file.splits()),
            folds=take(file.folds()),
            sha256=np.array([sha_of_key[key] for key in keys], dtype=object),
            group_source=file.group_source,
            spec=file.spec,
            digest=file.digest,
            n_missing=len(failed),
        )
    check_finite(features)
    return features


def check_finite(features: Features) -> None:
    """Raise when some feature is NaN or infinite.

    Raises
    ------
    InputError
        Names the first such sample and how many there are.
    """
    bad = np.flatnonzero(~np.isfinite(features.X).all(axis=1))
    if len(bad):
        raise InputError(
            f"{len(bad)} of {len(features)} samples have NaN or infinite features, "
            f"the first {str(features.keys[bad[0]])!r}; extract them again, or look for what went wrong in the network"
        )
