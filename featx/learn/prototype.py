"""Nearest class mean, with the centring and the unit lengths of SimpleShot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from featx.learn.training import Scored, TrainingParts

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class NearestPrototype(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
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
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"at least two classes are needed; there is one class: {self.classes_[0]!r}")
        self.mean_ = X.mean(axis=0) if self.centre else np.zeros(X.shape[1])
        X = self._prepared(X)
        self.prototypes_ = np.stack([X[codes == code].mean(axis=0) for code in range(len(self.classes_))])
        return self

    def decision_function(self, X: ArrayLike) -> FloatArray:
        """Return how near each class is: its negative squared distance (n, n_classes); of two, the difference (n,)."""
        check_is_fitted(self)
        X = self._prepared(validate_data(self, X, dtype=np.float64, reset=False))
        near = 2.0 * (X @ self.prototypes_.T) - np.einsum("cd,cd->c", self.prototypes_, self.prototypes_)
        if near.shape[1] == 2:
            return np.asarray(near[:, 1] - near[:, 0])
        return np.asarray(near - np.einsum("nd,nd->n", X, X)[:, None])

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the classes (n,) of features (n, n_features)."""
        values = self.decision_function(X)
        codes = (values > 0).astype(np.int64) if values.ndim == 1 else values.argmax(axis=1)
        return np.asarray(self.classes_[codes])

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
