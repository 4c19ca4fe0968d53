"""What could make a score too good: copies that no group names, and groups that give the answer away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.learn.intervals import Interval, bootstrap_intervals, resampling_units
from featx.learn.metrics import FloatArray, IntArray, Statistic
from featx.learn.near_duplicates import NearDuplicates, nearest_elsewhere, summary_of

Predicted = tuple[IntArray, NDArray[Any]]
"""Positions of a test part, and the class that was predicted for each."""
Cut = tuple[IntArray, IntArray]
"""Positions of a training part and of the test part that goes with it."""

FAR = 0.05
"""1-NN is far better than a linear head when the whole interval of the difference lies above this."""
LINEAR_HEADS = ("logreg", "svm", "logreg-ovr", "ridge", "lda")
"""What 1-NN is held against: the first of them that takes part, else the head that was chosen in each fold."""
MOST_PAIRS = 10
"""Pairs that are listed by name in JSON."""
MOST_NOTED = 3
"""Pairs that are named in a warning."""


@dataclass(frozen=True)
class Contrast:
    """Balanced accuracies of two sets of predictions for the same samples.

    Attributes
    ----------
    first, second : float
        The mean over the folds, as ``featx fit`` reports it.
    difference : Interval
        `first` minus `second`, with a percentile bootstrap of whole groups, the same ones in both: it holds the spread
        of the samples that were tested, not that of the training parts.
    """

    first: float
    second: float
    difference: Interval

    @property
    def is_far(self) -> bool:
        """Whether the whole interval of the difference lies above `FAR`."""
        return self.difference.low is not None and self.difference.low > FAR

    def describe(self) -> str:
        """Return the difference with its interval, as in ``+0.26 (0.20 to 0.31)``."""
        if self.difference.low is None or self.difference.high is None:
            return f"{self.difference.mean:+.3f}"
        return f"{self.difference.mean:+.3f} ({self.difference.low:.3f} to {self.difference.high:.3f})"


@dataclass(frozen=True)
class NamedPair:
    """Two samples that are nearly the same.

    Attributes
    ----------
    keys : (str, str)
    distance : float
        One minus the cosine of centred features.
    is_split : bool
        Whether one is in a training part when the other is tested.
    """

    keys: tuple[str, str]
    distance: float
    is_split: bool


@dataclass(frozen=True, eq=False)
class Leaks:
    """What was looked for and found.

    Attributes
    ----------
    near : NearDuplicates
        Among all samples with a label.
    grouped : bool
        Whether they were joined into groups.
    n_other_groups : int
        Pairs whose samples are in different groups; without groups, of different bytes.
    n_split : int
        Pairs of which one is in a training part when the other is tested.
    named : list of NamedPair
        The first of those in different groups; pairs that are split, then the nearest, come first.
    gap : Contrast or None
        The same procedure ignoring all groups (given ones, identical bytes and near-duplicates alike), and with them.
    no_gap : str
        Why there is no `gap`; ``""`` where there is one.
    one_nn : Contrast or None
        The nearest neighbour's label, and a linear head, on the same folds of whole groups.
    linear : str
        Which head that is.
    """

    near: NearDuplicates
    grouped: bool
    n_other_groups: int
    n_split: int
    named: list[NamedPair] = field(repr=False)
    gap: Contrast | None = None
    no_gap: str = ""
    one_nn: Contrast | None = None
    linear: str = ""

    @property
    def leak_gap(self) -> float | None:
        """Balanced accuracy of the same procedure ignoring all groups, minus with them."""
        return None if self.gap is None else self.gap.first - self.gap.second

    def to_dict(self) -> dict[str, Any]:
        """Return the object for JSON."""
        gap, one_nn = self.gap, self.one_nn
        return {
            "leak_gap": None
            if gap is None
            else {"ungrouped": gap.first, "grouped": gap.second, "difference": gap.difference.to_dict()},
            "no_leak_gap": self.no_gap,
            "near_duplicates": {
                **summary_of(self.near),
                "grouped": self.grouped,
                "n_pairs": len(self.near),
                "n_in_different_groups": self.n_other_groups,
                "n_in_training_and_test": self.n_split,
                "pairs": [
                    {"keys": list(pair.keys), "distance": pair.distance, "in_training_and_test": pair.is_split}
                    for pair in self.named
                ],
            },
            "nearest_neighbour": None
            if one_nn is None
            else {
                "one_nn": one_nn.first,
                "head": self.linear,
                "linear": one_nn.second,
                "difference": one_nn.difference.to_dict(),
                "is_far": one_nn.is_far,
            },
        }

    @property
    def notes(self) -> list[str]:
        """What the user must hear."""
        return self._notes(named=True)

    @property
    def facts(self) -> list[str]:
        """The same without the names of samples, for a bundle."""
        return self._notes(named=False)

    def _notes(self, *, named: bool) -> list[str]:
        notes = []
        if self.n_other_groups:
            pairs = "1 pair" if self.n_other_groups == 1 else f"{self.n_other_groups:,} pairs"
            split = f", {self.n_split:,} of them in training and test at once" if self.n_split else ""
            listed = "; ".join(f"{one} ~ {other}" for one, other in (pair.keys for pair in self.named[:MOST_NOTED]))
            more = " and more" if self.n_other_groups > MOST_NOTED else ""
            advice = "" if self.grouped else " --group-near-duplicates keeps them together."
            notes.append(
                f"{pairs} of near-duplicates with no group in common{split}{f': {listed}{more}' if named else ''}. "
                f"If they are copies, or pictures of one thing, the scores are too good: look at them.{advice} "
                f"(Near is a {self.near.rule}.)"
            )
        if self.one_nn is not None and self.one_nn.is_far:
            notes.append(
                f"The label of the nearest neighbour is right far more often than {self.linear}: balanced accuracy "
                f"{self.one_nn.first:.3f} against {self.one_nn.second:.3f}, {self.one_nn.describe()}. That is "
                "how copies look that no group names: pictures of one patient, scene or series in training and test. "
                "Or the classes are such that no plane separates them, and another --head does better."
            )
        return notes


def find_splits(near: NearDuplicates, ids: IntArray | None, cuts: Sequence[Cut]) -> tuple[IntArray, NDArray[np.bool_]]:
    """Say which pairs lie in different groups, and which of these training and test come between.

    Parameters
    ----------
    near : NearDuplicates
    ids : int array (n_samples,), or None
        Groups.
    cuts : sequence of (int array, int array)
        Training and test part of every fold.

    Returns
    -------
    others : int array (n,)
        Positions among the pairs: those in different groups.
    is_split : bool array (n,)
        For each of `others`.
    """
    one, other = near.pairs.T
    others = np.flatnonzero(ids[one] != ids[other]) if ids is not None else np.arange(len(near))
    one, other = one[others], other[others]
    is_split = np.zeros(len(others), dtype=np.bool_)
    for train, test in cuts if len(others) else ():
        in_train, in_test = np.zeros((2, near.n_samples), dtype=np.bool_)
        in_train[train], in_test[test] = True, True
        is_split |= (in_train[one] & in_test[other]) | (in_test[one] & in_train[other])
    return others, is_split


def name_pairs(
    near: NearDuplicates, others: IntArray, is_split: NDArray[np.bool_], keys: Sequence[str] | NDArray[np.object_]
) -> list[NamedPair]:
    """List the first pairs by name: those that are split, then the nearest, come first."""
    order = np.argsort(~is_split, kind="stable")[:MOST_PAIRS]
    pairs = [(int(others[place]), bool(is_split[place])) for place in order]
    return [
        NamedPair((str(keys[near.pairs[pair, 0]]), str(keys[near.pairs[pair, 1]])), float(near.distances[pair]), split)
        for pair, split in pairs
    ]


def predict_by_nearest(
    X: NDArray[np.floating], y: NDArray[Any], near: NearDuplicates, cuts: Sequence[Cut]
) -> list[Predicted]:
    """Give each test sample the label of the nearest sample of its training part (1-NN, cosine of centred features).

    Parameters
    ----------
    X : float array (n_samples, n_features)
    y : str array (n_samples,)
    near : NearDuplicates
        Of `X`: holds most neighbours already.
    cuts : sequence of (int array, int array)
        Training and test parts, where no sample is tested twice.
    """
    parts = np.full(len(y), -2, dtype=np.int64)
    for train, _ in cuts:
        parts[train] = -1  # never tested, unless the next line says so
    for number, (_, test) in enumerate(cuts):
        parts[test] = number
    return [(test, y[nearest_elsewhere(X, near.neighbours, parts, test)]) for _, test in cuts]


def contrast(
    y: NDArray[Any],
    first: Sequence[Predicted],
    second: Sequence[Predicted],
    groups: IntArray | None,
    *,
    random_state: int = 0,
) -> Contrast:
    """Compare the balanced accuracies of two sets of predictions, paired by group.

    Parameters
    ----------
    y : str array (n_samples,)
    first, second : sequence of (int array, str array)
        For each fold positions and predictions; the folds of the two may differ.
    groups : int array (n_samples,), or None
        What is resampled; None: the samples.
    random_state : int
    """
    tested = np.unique(np.concatenate([test for test, _ in (*first, *second)]))
    some_units, n_units = resampling_units(None if groups is None else groups[tested], len(tested))
    units = np.zeros(len(y), dtype=np.int64)
    units[tested] = some_units
    codes = np.unique(y, return_inverse=True)[1]
    one, other = (_balanced_accuracy(y, codes, parts, units, n_units) for parts in (first, second))
    unit = "samples" if n_units == len(tested) else "groups"
    [difference] = bootstrap_intervals(
        {"difference": lambda counts: one(counts) - other(counts)}, n_units, unit=unit, random_state=random_state
    ).values()
    once = np.ones((n_units, 1))
    return Contrast(float(one(once)[0]), float(other(once)[0]), difference)


def _balanced_accuracy(
    y: NDArray[Any], codes: IntArray, parts: Sequence[Predicted], units: IntArray, n_units: int
) -> Statistic:
    """Return the mean over folds of the balanced accuracy as a function of how often each unit counts."""
    from scipy.sparse import coo_array

    n_classes = int(codes.max()) + 1
    rows = np.concatenate([fold * n_classes + codes[test] for fold, (test, _) in enumerate(parts)])
    columns = np.concatenate([units[test] for test, _ in parts])
    right = np.concatenate([(predicted == y[test]).astype(np.float64) for test, predicted in parts])
    shape = (len(parts) * n_classes, n_units)
    above = coo_array((right, (rows, columns)), shape=shape).tocsr()
    below = coo_array((np.ones(len(rows)), (rows, columns)), shape=shape).tocsr()

    def statistic(counts: FloatArray) -> FloatArray:
        n_right, n = (np.asarray(matrix @ counts).reshape(len(parts), n_classes, -1) for matrix in (above, below))
        recall = np.divide(n_right, n, out=np.zeros_like(n), where=n > 0)
        return _mean(_mean(recall, n > 0), np.any(n > 0, axis=1))

    return statistic


def _mean(values: FloatArray, there: NDArray[np.bool_]) -> FloatArray:
    """Mean over the last axis but one, of what is there; NaN where nothing is."""
    n = there.sum(axis=-2)
    total = np.where(there, values, 0.0).sum(axis=-2)
    mean: FloatArray = np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)
    return mean
