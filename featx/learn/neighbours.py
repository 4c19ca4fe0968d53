"""Nearest neighbours by cosine distance, for every number of them from one sorting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics.pairwise import cosine_distances

from featx.learn.training import Scored, TrainingParts

FloatArray = NDArray[np.float64]
_AT_ONCE = 1 << 24
"""Numbers in one matrix of distances."""


def search_knn(parts: TrainingParts, values: Sequence[float]) -> Iterator[Scored]:
    """Score each part's rows by scikit-learn's `KNeighborsClassifier` with cosine distance, weighted by its inverse."""
    for fitted, scored in zip(parts.fitted, parts.scored, strict=True):
        X, codes = parts.X[fitted], parts.codes[fitted]
        at_once = max(1, _AT_ONCE // len(fitted))
        shares = [
            _shares(cosine_distances(parts.X[scored[start : start + at_once]], X), codes, values, parts.n_classes)
            for start in range(0, len(scored), at_once)
        ]
        probabilities = np.concatenate(shares, axis=1)
        yield Scored(probabilities.argmax(axis=2), probabilities, np.ones(len(values), dtype=bool))


def _shares(distances: FloatArray, codes: NDArray[np.int64], values: Sequence[float], n_classes: int) -> FloatArray:
    """Return each class's share (n_values, n_scored, n_classes) in the weights of the nearest neighbours."""
    nearest, weights = nearest_weights(distances, values)
    is_class = codes[nearest][:, :, None] == np.arange(n_classes)
    votes = [np.einsum("nk,nkc->nc", own, is_class[:, : own.shape[1]]) for own in weights]
    return np.stack([own / own.sum(axis=1, keepdims=True) for own in votes])


def nearest_weights(distances: FloatArray, values: Sequence[float]) -> tuple[NDArray[np.intp], list[FloatArray]]:
    """Find the nearest neighbours, and what each counts, for every number of them.

    Parameters
    ----------
    distances : float64 array (n_scored, n_fitted)
    values : sequence of float
        Numbers of neighbours; of more than there are, all count.

    Returns
    -------
    nearest : int array (n_scored, k)
        The k nearest, nearest first; k is the largest of `values`.
    weights : list of float64 array (n_scored, value)
        One over the distance of the first of them, for each value; what lies in the same place counts alone.
    """
    most = min(int(max(values)), distances.shape[1])
    nearest = np.argpartition(distances, most - 1, axis=1)[:, :most] if most < distances.shape[1] else None
    if nearest is None:
        nearest = np.broadcast_to(np.arange(most), distances.shape)
    distances = np.take_along_axis(distances, nearest, axis=1)
    order = np.argsort(distances, axis=1, kind="stable")
    distances, nearest = np.take_along_axis(distances, order, axis=1), np.take_along_axis(nearest, order, axis=1)
    found = []
    for value in values:
        with np.errstate(divide="ignore"):
            weights = 1.0 / distances[:, : min(int(value), most)]
        same = np.isinf(weights)  # what lies in the same place decides alone
        found.append(np.where(same.any(axis=1, keepdims=True), same, weights))
    return nearest, found
