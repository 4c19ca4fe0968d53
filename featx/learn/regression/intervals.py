"""Prediction intervals: CV+ by group, from the heads of the folds (the jackknife+ of whole folds).

Each fold head predicts the samples that it was not fitted on; R is how far it is off. For a new image, each of these
samples says: as far from what the head of my fold predicts for it, on either side. The interval goes from the low end
that a share alpha of them, the image itself counted in, does not reach, to the high end (Barber, Candes, Ramdas and
Tibshirani, Predictive inference with the jackknife+, Annals of Statistics 49, 2021, section 3). Every group counts
once, its samples sharing that one: with G groups and w = 1 / the samples of its group,

    low  = the least v with  1 + sum of w over samples with  prediction - R <= v   above  alpha (G + 1)
    high = the same from above, of  prediction + R.

A number outside is one with a p-value of at most alpha in the sense of `featx.learn.conformal`, with R in the place of
nonconformity: the interval holds the cross-conformal set, so that its coverage is at least that one's
`featx.learn.conformal.floor`, 1 - 2 alpha less the price of few folds. What is found is close to 1 - alpha.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.learn.conformal import ROUNDING, floor, groups_needed
from featx.learn.regression.search import predict_numbers

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class NumberIntervals:
    """The heads of the folds, and how far off each was for the samples that it did not see.

    Attributes
    ----------
    heads : sequence of fitted regressors
        One for each fold.
    residuals : float64 array (n_samples,)
        True number less that predicted out of fold, without its sign.
    folds : int array (n_samples,)
        Which of `heads` did not see the sample.
    groups : int array (n_samples,)
        What is exchangeable: its group, or the sample's own number.
    unit : str
        ``"groups"`` or ``"samples"``, for messages.
    """

    heads: Sequence[Any] = field(repr=False)
    residuals: FloatArray = field(repr=False)
    folds: IntArray = field(repr=False)
    groups: IntArray = field(repr=False)
    unit: str = "samples"

    @property
    def n_groups(self) -> int:
        """How many groups, or samples, the intervals are calibrated on."""
        return len(np.unique(self.groups))

    def floor(self, coverage: float) -> float:
        """Return the coverage that is proven for a nominal one."""
        return floor(coverage, self.n_groups, len(self.heads))

    def too_few(self, coverage: float) -> str:
        """Say why intervals have no ends at this coverage; ``""`` where they have."""
        least = groups_needed(coverage)
        if self.n_groups >= least:
            return ""
        return (
            f"The intervals have no ends: a coverage of {coverage:g} needs at least {least} {self.unit} to calibrate "
            f"on, and there are {self.n_groups}."
        )

    def ends(self, X: ArrayLike, coverage: float, n_views: int = 1) -> tuple[FloatArray, FloatArray]:
        """Return the interval of each sample.

        Parameters
        ----------
        X : array (n * n_views, n_features)
            The rows of each sample one after the other.
        coverage : float
            The nominal one.
        n_views : int

        Returns
        -------
        low, high : float64 array (n,)
            Infinite where there are too few groups.
        """
        rows = np.asarray(X, dtype=np.float64)
        centres = np.stack([predict_numbers(head, rows, n_views) for head in self.heads])[self.folds]
        weights = self._weights()
        low = _least(centres - self.residuals[:, None], weights, coverage)
        high = -_least(-centres - self.residuals[:, None], weights, coverage)
        return np.minimum(low, high), np.maximum(low, high)  # which cross at coverages below a half

    def _weights(self) -> FloatArray:
        """One over the samples of its group, for each sample."""
        _, inverse, counts = np.unique(self.groups, return_inverse=True, return_counts=True)
        weights: FloatArray = 1.0 / counts[inverse]
        return weights


def _least(ends: FloatArray, weights: FloatArray, coverage: float) -> FloatArray:
    """Return for each column of `ends` (n_samples, n) the least that is not below the share alpha; (n,)."""
    n_groups = round(float(weights.sum()))
    below = (1 - coverage) * (n_groups + 1) - 1 + ROUNDING
    if below < 0:
        return np.full(ends.shape[1], -np.inf)
    order = np.argsort(ends, axis=0, kind="stable")
    reached = np.cumsum(weights[order], axis=0) > below
    place = reached.argmax(axis=0)
    return np.asarray(np.take_along_axis(ends, np.take_along_axis(order, place[None], axis=0), axis=0)[0])
