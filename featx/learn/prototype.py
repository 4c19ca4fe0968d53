"""Nearest class mean, with the centring and the unit lengths of SimpleShot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.learn.classifier import FeatureClassifier
from featx.learn.training import Scored, TrainingParts

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

NEAR = 1e-3
"""Share of their own squares below which the squared distance of two vectors is taken from their difference."""


class NearestPrototype(FeatureClassifier):
    """The class whose mean is nearest, on features that are centred and have unit length.

    "CL2N" of SimpleShot (Wang et al., https://arxiv.org/abs/1911.04623): features less the mean of the training rows,
    divided by their length; a class is the mean of its rows, and the Euclidean distance decides.

    Parameters
    ----------
    centre, normalise : bool
        Whether the mean of the training rows is subtracted, and whether rows are divided by their length.

    Attributes
    ----------
    mean_ : float64 array (n_features,)
    prototypes_ : float64 array (n_classes, n_features)
    classes_ : array (n_classes,)
    n_features_in_ : int
    """

    def __init__(self, *, centre: bool = True, normalise: bool = True) -> None:
        self.centre = centre
        self.normalise = normalise

    def fit(self, X: ArrayLike, y: ArrayLike) -> NearestPrototype:
        """Fit on features (n_samples, n_features) and labels (n_samples,)."""
        rows, codes = self._begin(X, y)
        self.mean_ = rows.mean(axis=0) if self.centre else np.zeros(rows.shape[1])
        rows = self._prepared(rows)
        self.prototypes_ = np.stack([rows[codes == code].mean(axis=0) for code in range(len(self.classes_))])
        return self

    def _decide(self, X: FloatArray) -> FloatArray:
        """Return negative squared distances (n, n_classes), or the difference of two (n, 1)."""
        return _nearness(self._prepared(X), self.prototypes_)

    def _prepared(self, X: FloatArray) -> FloatArray:
        X = X - self.mean_
        if self.normalise:
            length = np.linalg.norm(X, axis=1, keepdims=True)
            X = X / np.where(length > 0, length, 1.0)
        return X


def _nearness(X: FloatArray, prototypes: FloatArray) -> FloatArray:
    """Return negative squared distances (n, n_classes) of rows, or of two classes their difference (n, 1)."""
    near = 2.0 * (X @ prototypes.T) - np.einsum("cd,cd->c", prototypes, prototypes)
    near = near[:, 1:] - near[:, :1] if len(prototypes) == 2 else near - np.einsum("nd,nd->n", X, X)[:, None]
    return np.asarray(near)


def search_prototype(parts: TrainingParts, values: Sequence[float]) -> Iterator[Scored]:
    """Score each part's rows by their nearest prototype; there is nothing to choose.

    No row is centred or scaled for each part: with x a row, m the mean of a part and l the length of x - m, a prototype
    is the mean of x / l over a class, less m times the mean of 1 / l. One product gives all lengths, and one for each
    class the prototypes of all parts.
    """
    X = parts.X - parts.X.mean(axis=0)
    inside = parts.weights() > 0
    means = (inside @ X) / inside.sum(axis=1, keepdims=True)
    inverse = 1.0 / _lengths(X, means)
    prototypes = np.empty((len(parts), parts.n_classes, X.shape[1]))
    for code in range(parts.n_classes):
        rows = np.flatnonzero(parts.codes == code)
        shares = inverse[:, rows] * inside[:, rows]
        shares /= inside[:, rows].sum(axis=1, keepdims=True)
        prototypes[:, code] = shares @ X[rows] - shares.sum(axis=1, keepdims=True) * means
    for part, scored in enumerate(parts.scored):
        rows = (X[scored] - means[part]) * inverse[part, scored, None]
        decisions = _nearness(rows, prototypes[part])[None]
        yield Scored.of_decisions(np.repeat(decisions, len(values), axis=0))


def _lengths(X: FloatArray, means: FloatArray) -> FloatArray:
    """Return the lengths (n_means, n) of rows less each of some means; 1 where a row is the mean."""
    own, of_means = np.einsum("nd,nd->n", X, X), np.einsum("pd,pd->p", means, means)
    both = own + of_means[:, None]
    squares = both - 2.0 * (means @ X.T)
    parts, rows = np.nonzero(squares < NEAR * both)  # where the difference would be of nearly equal numbers
    squares[parts, rows] = np.sum((X[rows] - means[parts]) ** 2, axis=1)
    lengths: FloatArray = np.sqrt(np.where(squares > 0, squares, 1.0))
    return lengths
