"""Which samples to label next."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from featx.learn.linear import NewtonLogisticRegression

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

PREFILTER = 50
"""Candidates of which one is chosen. With fewer of them the least sure win, which few labels do not tell well: in
simulations from 1 or 2 labels of each class on, 10 and the smallest margins alone began behind random ones, and BADGE
(Ash et al., ICLR 2020) stayed there."""


@dataclass(frozen=True)
class Suggestion:
    """A sample whose label would teach most.

    Attributes
    ----------
    key : str
    predicted : str
        What the head on the labels there are calls it.
    probability : float
    margin : float
        The probability less that of the second class.
    """

    key: str
    predicted: str
    probability: float
    margin: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def suggest_rows(
    X: FloatArray, y: NDArray[np.str_], candidates: FloatArray, n: int, *, C: float, random_state: int = 0
) -> tuple[IntArray, NDArray[np.str_], FloatArray]:
    """Choose candidates of which the head is unsure, and that stand for many others and differ from each other.

    Zhdanov (Diverse mini-batch active learning, https://arxiv.org/abs/1901.05954): of the `PREFILTER` * n candidates
    with the smallest margin, k-means in which each counts by 1 - margin makes n clusters, and the one nearest to each
    centre is taken; here on centred rows of unit length, so that it is cosines that count.

    Parameters
    ----------
    X : float64 array (n_labelled, n_features)
        Scaled.
    y : str array (n_labelled,)
        At least two classes.
    candidates : float64 array (n_candidates, n_features)
        Scaled alike.
    n : int
        How many; at most as many as there are.
    C : float
        Of the logistic regression whose margin it is: its largest probability less the second.

    Returns
    -------
    rows : int array (n,)
        Of the candidates: first those whose clusters weigh most; copies of others come last.
    predicted : str array (n_candidates,)
    probabilities : float64 array (n_candidates, n_classes)
    """
    with threadpool_limits(1):
        head = NewtonLogisticRegression(C=C).fit(X, y)
        probabilities = head.predict_proba(candidates)
        top = np.sort(probabilities, axis=1)
        margins = top[:, -1] - top[:, -2]
        unsure = np.argsort(margins, kind="stable")
        mean = candidates.mean(axis=0)
        kept, others = unsure[: PREFILTER * n], unsure[PREFILTER * n :]
        rows = candidates[kept] - mean
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        rows /= np.where(length > 0, length, 1.0)
        _, apart = np.unique(rows.round(9), axis=0, return_index=True)
        apart = np.sort(apart)
        chosen = kept[apart[_central(rows[apart], 1.0 - margins[kept[apart]], min(n, len(apart)), random_state)]]
    rest = kept[~np.isin(kept, chosen)]
    found = np.concatenate([chosen, rest, others])[: min(n, len(candidates))]
    return found, head.classes_[probabilities.argmax(axis=1)], probabilities


def _central(rows: FloatArray, weights: FloatArray, n: int, random_state: int) -> IntArray:
    """Return the places of n rows, each the nearest to a centre of weighted k-means, the heaviest cluster first."""
    weights = np.maximum(weights, 1e-9)  # k-means must not be left without any
    means = KMeans(n, n_init=1, random_state=random_state).fit(rows, sample_weight=weights)
    distances = means.transform(rows)
    heaviest = np.argsort(-np.bincount(means.labels_, weights=weights, minlength=n), kind="stable")
    own = [np.where(means.labels_ == cluster, distances[:, cluster], np.inf).argmin() for cluster in heaviest]
    return np.array(own, dtype=np.int64)
