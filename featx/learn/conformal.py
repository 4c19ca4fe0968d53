"""Prediction sets: cross-conformal (CV+) sets of classes by group.

Each fold head of a cross-validation calls the samples that it was not fitted on; a sample's conformity is the
probability that it gets for its true class. For a new image and a class y, count the samples whose conformity, by the
head of their fold, is at most the new image's own probability for y by that same head. With every group counted once,
its samples sharing that one, and G groups,

    p(y) = (1 + sum over groups of the share of its samples with conformity <= that of (image, y)) / (G + 1)

and the set holds each y with p(y) > alpha = 1 - coverage.

Why it covers: inside one fold, p is a valid p-value for an image of a new group, because whole groups are exchangeable
(hierarchical conformal prediction: Lee, Barber and Willett, Distribution-free inference with hierarchical data, 2023;
the weight of a group is spread over its samples). A weighted mean of K valid p-values is valid up to a factor 2 (Vovk
and Wang, Biometrika 107, 2020). The mean over the folds, weighted by their groups + 1, is
(K - 1 + (G + 1) p) / (G + K), so that the coverage is at least `floor`: 1 - 2 alpha, less the price of few folds, as
for CV+ (Barber, Candes, Ramdas and Tibshirani, Annals of Statistics 49, 2021, theorem 4; Romano, Sesia and Candes,
NeurIPS 2020, for classes; Gasparin and Ramdas, ICML 2025, with this constant). What is found in practice is close to
1 - alpha. The head of each fold is chosen, fitted and calibrated inside the fold's training part, so the choice does
not spoil this.

The score is the probability of the class itself (Sadinle, Lei and Wasserman, JASA 114, 2019), which gives the smallest
sets on average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.errors import UsageError
from featx.learn.views import classify

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

ROUNDING = 1e-9
"""Of a sum of shares; a p-value this close to alpha counts as alpha."""


@dataclass(frozen=True, eq=False)
class Conformal:
    """The heads of the folds, and how well each sample conforms to the head that did not see it.

    Attributes
    ----------
    heads : sequence of fitted classifiers
        One for each fold, all with the same classes.
    classes : list of str
        In the order of their probabilities.
    conformity : float64 array (n_samples,)
        Out-of-fold probability of the true class.
    true : int array (n_samples,)
        Position of the true class.
    folds : int array (n_samples,)
        Which of `heads` did not see the sample.
    groups : int array (n_samples,)
        What is exchangeable: its group, or the sample's own number.
    unit : str
        ``"groups"`` or ``"samples"``, for messages.
    """

    heads: Sequence[Any] = field(repr=False)
    classes: list[str]
    conformity: FloatArray = field(repr=False)
    true: IntArray = field(repr=False)
    folds: IntArray = field(repr=False)
    groups: IntArray = field(repr=False)
    unit: str = "samples"

    @property
    def n_groups(self) -> int:
        """How many groups, or samples, the sets are calibrated on."""
        return len(np.unique(self.groups))

    @property
    def n_groups_of_class(self) -> IntArray:
        """How many of them hold each class, (n_classes,)."""
        pairs = np.unique(np.stack([self.true, self.groups]), axis=1)
        return np.bincount(pairs[0], minlength=len(self.classes))

    def floor(self, coverage: float, *, per_class: bool = False) -> float:
        """Return the coverage that is proven; `per_class`: of the class for which it is lowest.

        Parameters
        ----------
        coverage : float
            The nominal one.
        per_class : bool
        """
        if not per_class:
            return floor(coverage, self.n_groups, len(np.unique(self.folds)))
        n_folds = [len(np.unique(self.folds[self.true == k])) for k in range(len(self.classes))]
        counts = self.n_groups_of_class
        return min(floor(coverage, int(n), max(k, 1)) for n, k in zip(counts, n_folds, strict=True))

    def too_few(self, coverage: float, *, per_class: bool = False) -> str:
        """Say why sets hold all classes, or some class always, at this coverage; ``""`` where they need not.

        With G groups no p-value is below 1 / (G + 1), so that for fewer than 1 / alpha - 1 no class can be left out.
        """
        least = groups_needed(coverage)
        if not per_class:
            if self.n_groups >= least:
                return ""
            return (
                f"Every set holds all classes: a coverage of {coverage:g} needs at least {least} {self.unit} to "
                f"calibrate on, and there are {self.n_groups}."
            )
        counts = self.n_groups_of_class
        few = [f"{name} ({n})" for name, n in zip(self.classes, counts, strict=True) if n < least]
        if not few:
            return ""
        listed = ", ".join(few[:5]) + (f" and {len(few) - 5} more" if len(few) > 5 else "")
        return (
            f"Every set holds these classes: a coverage of {coverage:g} per class needs at least {least} {self.unit} "
            f"of each to calibrate on: {listed}."
        )

    def p_values(self, X: ArrayLike, n_views: int = 1, *, per_class: bool = False) -> FloatArray:
        """Return how well each class conforms for each sample.

        Parameters
        ----------
        X : array (n * n_views, n_features)
            The rows of each sample one after the other.
        n_views : int
        per_class : bool
            Hold a class against the samples of that class alone (Mondrian), which covers each class.

        Returns
        -------
        float64 array (n, n_classes)
        """
        rows = np.asarray(X, dtype=np.float64)
        total = np.zeros((len(rows) // n_views, len(self.classes)))
        weights = self._weights(per_class)
        for number, head in enumerate(self.heads):
            probabilities = classify(head, rows, n_views)[1]
            own = self.folds == number
            for k in range(len(self.classes)):
                counted = own & (self.true == k) if per_class else own
                total[:, k] += weight_up_to(probabilities[:, k], self.conformity[counted], weights[counted])
        counts = self.n_groups_of_class if per_class else np.full(len(self.classes), self.n_groups)
        p: FloatArray = (1.0 + total) / (1.0 + counts)
        return p

    def _weights(self, per_class: bool) -> FloatArray:
        """One over the samples of its group, for each sample; per class: over those of its class in the group."""
        kinds = np.stack([self.groups, self.true if per_class else np.zeros_like(self.true)])
        _, inverse, counts = np.unique(kinds, axis=1, return_inverse=True, return_counts=True)
        weights: FloatArray = 1.0 / counts[inverse.reshape(-1)]
        return weights


def check_coverage(coverage: float) -> None:
    """Raise UsageError for a coverage that is not between 0 and 1."""
    if not 0 < coverage < 1:
        raise UsageError(f"--coverage {coverage:g}: a share between 0 and 1 is expected, as in 0.9")


def floor(coverage: float, n_groups: int, n_folds: int) -> float:
    """Return the proven coverage of sets of nominal coverage 1 - alpha: 1 - 2 alpha - 2 (1 - alpha) (K - 1) / (G + K).

    Parameters
    ----------
    coverage : float
    n_groups, n_folds : int
        G and K. One group for each fold is the jackknife+.
    """
    alpha = 1 - coverage
    if n_groups < groups_needed(coverage):
        return 1.0  # all classes
    return max(0.0, 1 - 2 * alpha - 2 * (1 - alpha) * (n_folds - 1) / (n_groups + n_folds))


def groups_needed(coverage: float) -> int:
    """Return the smallest number of groups with which a set can leave a class out: 1 / alpha - 1, rounded up."""
    return math.ceil(round(1 / (1 - coverage) - 1, 9))


def choose_sets(p_values: FloatArray, coverage: float, own: IntArray) -> BoolArray:
    """Say which classes are in each set.

    Parameters
    ----------
    p_values : float64 array (n, n_classes)
    coverage : float
        The nominal one.
    own : int array (n,)
        Position of the class that the classifier itself decides for: all that is in a set that would be empty.

    Returns
    -------
    bool array (n, n_classes)
    """
    inside: BoolArray = p_values > (1 - coverage) + ROUNDING
    empty = np.flatnonzero(~inside.any(axis=1))
    inside[empty, own[empty]] = True
    return inside


def weight_up_to(values: FloatArray, conformity: FloatArray, weights: FloatArray) -> FloatArray:
    """Sum of the weights of all conformities that are at most each value, (n_values,)."""
    order = np.argsort(conformity, kind="stable")
    sums = np.concatenate([[0.0], np.cumsum(weights[order])])
    found: FloatArray = sums[np.searchsorted(conformity[order], values, side="right")]
    return found
