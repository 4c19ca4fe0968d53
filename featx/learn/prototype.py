"""Nearest class mean, with the centring and the unit lengths of SimpleShot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.learn.classifier import FeatureClassifier
from featx.learn.training import Scored, TrainingParts

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


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
        X = self._prepared(X)
        near = 2.0 * (X @ self.prototypes_.T) - np.einsum("cd,cd->c", self.prototypes_, self.prototypes_)
        near = near[:, 1:] - near[:, :1] if near.shape[1] == 2 else near - np.einsum("nd,nd->n", X, X)[:, None]
        return np.asarray(near)

    def _prepared(self, X: FloatArray) -> FloatArray:
        X = X - self.mean_
        if self.normalise:
            length = np.linalg.norm(X, axis=1, keepdims=True)
            X = X / np.where(length > 0, length, 1.0)
        return X


def search_prototype(parts: TrainingParts, values: Sequence[float]) -> Iterator[Scored]:
    """Score each part's rows by their nearest prototype; there is nothing to choose."""
    for fitted, scored in zip(parts.fitted, parts.scored, strict=True):
        model = NearestPrototype().fit(parts.X[fitted], parts.codes[fitted])
        decisions = model.decision_function(parts.X[scored]).reshape(1, len(scored), -1)
        yield Scored.of_decisions(np.repeat(decisions, len(values), axis=0))
