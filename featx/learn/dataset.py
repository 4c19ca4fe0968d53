"""What a head is trained on: the rows of a feature file with their labels, groups, splits and folds."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import InputError, LabelsError, StoreIncompleteError
from featx.spec import FeatureSpec
from featx.store.file import FeatureFile
from featx.store.ledger import Ledger
from featx.store.locked import LockedSet


@dataclass(frozen=True)
class LockedPart:
    """What is known of the part of a file that is kept for the last test, and left out here.

    Attributes
    ----------
    n_samples : int
        How many samples of the file, whether they have a row or not.
    date : str
        When it was locked, in UTC.
    looks : tuple of str
        The date of every look at it.
    sha256 : tuple of str
        Of their bytes, where known.
    """

    n_samples: int
    date: str
    looks: tuple[str, ...]
    sha256: tuple[str, ...] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return ``{n, date, looks}`` for JSON."""
        return {"n": self.n_samples, "date": self.date, "looks": list(self.looks)}


@dataclass(frozen=True, eq=False)
class Features:
    """Features and what is known about each row, aligned.

    Attributes
    ----------
    X : float32 array (n_rows, n_features)
        One row for each good sample, the plain image; with `views` all rows of a sample, one after the other.
        `by_sample` gives (n_samples, n_views, n_features).
    y : str array (n_rows,)
        Labels; ``''`` = unlabelled.
    groups, keys, splits, folds, sha256 : object array of str (n_rows,)
        ``''`` = unknown.
    group_source : str
        Where the groups come from, in words; ``""`` = none.
    spec : FeatureSpec, or None
        What made the features; None when they do not come from a file.
    digest : str
        SHA-256 over keys, labels, groups, splits and features; ``""`` when they do not come from a file.
    n_missing : int
        Samples of the file that failed and have no row.
    views : int array (n_rows,), or None
        The view of each row; 0 = the plain image. None: one row is one sample.
    locked : LockedPart, or None
        What `featx lock` keeps for the last test; none of it is in the arrays.
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
    views: NDArray[np.int64] | None = None
    locked: LockedPart | None = None

    def __len__(self) -> int:
        return len(self.y)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Unpack as ``X, y, groups, keys = load_features(...)``, ready for scikit-learn.

        A sample without a group is a group of its own there, named by its key: scikit-learn would take all of them
        for one group. So ``GroupKFold`` never comes between the views of a sample.
        """
        yield from (self.X, self.y, np.where(self.groups == "", self.keys, self.groups), self.keys)

    def take(self, rows: NDArray[Any]) -> Features:
        """Return some of the rows, by position or mask."""
        taken = {name: getattr(self, name)[rows] for name in _COLUMNS}
        return replace(self, **taken, views=None if self.views is None else self.views[rows])

    def by_sample(self) -> Features:
        """Return the same with one place for each sample.

        Returns
        -------
        Features
            Without `views`; `X` is (n_samples, n_views, n_features) where there are several, else (n_samples,
            n_features).

        Raises
        ------
        InputError
            If the rows of some sample are not together, or not all there: views 0, 1, 2 ... of each key.
        """
        if self.views is None:
            return self
        n_views = int(self.views.max()) + 1 if len(self) else 1
        n_samples, rest = divmod(len(self), n_views)
        if rest or not (
            np.array_equal(self.views, np.tile(np.arange(n_views), n_samples))
            and np.array_equal(self.keys, np.repeat(self.keys[::n_views], n_views))
        ):
            raise InputError(
                "the views of a sample must be together and in order: 0, 1, 2 ... of one key, then of the next"
            )
        plain = self.take(np.arange(0, len(self), n_views))
        X = self.X.reshape(n_samples, n_views, -1) if n_views > 1 else self.X
        return replace(plain, X=X, views=None)


_COLUMNS = ("X", "y", "groups", "keys", "splits", "folds", "sha256")


def load_features(path: str | os.PathLike[str], *, allow_missing: bool = False, views: bool = False) -> Features:
    """Load the features of a finished feature file, ready for any scikit-learn estimator.

    Parameters
    ----------
    path : path-like
        A feature file as `featx extract` writes it.
    allow_missing : bool
        Go on although some samples failed and have no row; else that is an error.
    views : bool
        All rows of each sample instead of the plain image's alone, with their numbers in ``views``.

    What `featx lock` keeps for the last test is left out, whatever it is asked for.

    Returns
    -------
    Features
        With attributes ``X``, ``y``, ``groups``, ``keys`` ...; unpacks into these four. Split rows with views by these
        groups: the views of one picture in training and test at once make any score worthless.

    Raises
    ------
    StoreError
        If the file is missing or is not a feature file.
    StoreIncompleteError
        If samples failed, without `allow_missing`.
    InputError
        If features are NaN or infinite; names the first such sample.
    """
    return _load(path, allow_missing=allow_missing, views=views, of_locked=False)


def load_locked(path: str | os.PathLike[str], *, views: bool = False) -> Features:
    """Load what `featx lock` keeps for the last test, and nothing else: whoever calls this is to count it as a look.

    Raises
    ------
    StoreError, InputError
        As `load_features`.
    """
    return _load(path, allow_missing=True, views=views, of_locked=True)


def _load(path: str | os.PathLike[str], *, allow_missing: bool, views: bool, of_locked: bool) -> Features:
    with FeatureFile.open(path) as file:
        ledger = file.ledger()
        locked = file.locked()
        locked_keys = frozenset() if locked is None else locked.keys
        wanted = np.array([(key in locked_keys) == of_locked for key in ledger.key], dtype=np.bool_)
        failed = np.flatnonzero((ledger.row < 0) & wanted)
        if len(failed) and not allow_missing:
            first = int(failed[0])
            raise StoreIncompleteError(
                f"{len(failed)} of {int(wanted.sum())} samples have no features, the first {ledger.key[first]!r} "
                f"({ledger.reason[first]}); mend them and extract again, or leave them out with --allow-missing",
                path=str(path),
                missing=len(failed),
            )
        numbers = np.asarray(file.views(), dtype=np.int64)
        in_part = np.repeat(wanted[ledger.row >= 0], file.spec.n_views)
        rows = np.flatnonzero(in_part if views else in_part & (numbers == 0))
        everything = len(rows) == file.n_rows
        X = np.asarray(file.features(None if everything else rows), dtype=np.float32)

        def take(column: list[str]) -> NDArray[np.object_]:
            return np.array(column, dtype=object)[rows]

        sha_of_key = dict(zip(ledger.key, ledger.sha256, strict=True))
        keys = take(file.keys())
        features = Features(
            X=X,
            y=np.array(file.labels(), dtype=str)[rows],
            groups=take(file.groups()),
            keys=keys,
            splits=take(file.splits()),
            folds=take(file.folds()),
            sha256=np.array([sha_of_key[key] for key in keys], dtype=object),
            group_source=file.group_source,
            spec=file.spec,
            digest=file.digest,
            n_missing=len(failed),
            views=numbers[rows] if views else None,
            locked=None if locked is None else _locked_part(locked, ledger),
        )
    check_finite(features)
    return features


def _locked_part(locked: LockedSet, ledger: Ledger) -> LockedPart:
    keys = locked.keys
    shas = [sha for key, sha in zip(ledger.key, ledger.sha256, strict=True) if key in keys]
    return LockedPart(
        len(shas), locked.date, tuple(look.date for look in locked.looks), tuple(sha for sha in shas if sha)
    )


def check_finite(features: Features) -> None:
    """Raise when some feature is NaN or infinite.

    Raises
    ------
    InputError
        Names the first such sample and how many there are.
    """
    bad = np.flatnonzero(~np.isfinite(features.X.reshape(len(features), -1)).all(axis=1))
    if len(bad):
        what = "samples" if features.views is None else "rows"
        raise InputError(
            f"{len(bad)} of {len(features)} {what} have NaN or infinite features, "
            f"the first {str(features.keys[bad[0]])!r}; extract them again, or look for what went wrong in the network"
        )


def check_learnable(features: Features, *, name: str = "") -> None:
    """Raise when labels or features are such that any score of them would mislead.

    Parameters
    ----------
    features : Features
        Samples without a label play no part. Labels are names of classes.
    name : str
        Of the file, for messages.

    Raises
    ------
    LabelsError
        Classes whose names look the same (they differ in blanks, or in how Unicode composes a letter), or are blanks.
    InputError
        All samples have the same features.
    """
    check_class_names(features)
    check_different(features, name=name)


def check_different(features: Features, *, name: str = "") -> None:
    """Raise InputError when all labelled samples have the same features; `name` is the file's, for the message."""
    first, *others = np.flatnonzero(features.y != "").tolist() or [0]
    if others and all(np.array_equal(features.X[first], features.X[other]) for other in others):
        where = f"{name}: " if name else ""
        raise InputError(
            f"{where}all {1 + len(others)} labelled samples have the same features, so nothing can be learnt from "
            "them. Are they one image, or do weights or preprocessing not fit the network? `featx info` shows what "
            "made the file"
        )


def check_class_names(features: Features) -> None:
    """Raise LabelsError when two classes have names that look the same, or one is of blanks alone."""
    names, each = np.unique(features.y[features.y != ""], return_counts=True)
    counts = dict(zip(names.tolist(), each.tolist(), strict=True))
    seen: dict[str, str] = {}
    mend = "mend the labels where they come from and run `featx extract` again: it computes no features for that"
    for name in counts:
        looks = " ".join(unicodedata.normalize("NFC", name).split())
        if not looks:
            raise LabelsError(f"{counts[name]} samples have a label of blanks alone, {name!r}; {mend}")
        if looks in seen:
            blanks = seen[looks].split() == name.split()  # else what differs is seen in its code alone
            one, other = ((repr if blanks else ascii)(each) for each in (seen[looks], name))
            how_many = f"{counts[seen[looks]]} and {counts[name]} samples"
            raise LabelsError(f"classes {one} and {other} ({how_many}) look the same but are two; {mend}")
        seen[looks] = name
