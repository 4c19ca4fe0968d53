"""What featx's own classifiers on features have in common: labels to codes, and decision values to classes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class FeatureClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier that decides by one value for each class, or one for two; subclasses have `_decide`.

    Attributes
    ----------
    classes_ : array (n_classes,)
    n_features_in_ : int
    """

    classes_: NDArray[Any]

    def _begin(self, X: ArrayLike, y: ArrayLike) -> tuple[FloatArray, IntArray]:
        """Check training data, learn the classes, and return float64 features and the code of each row's class."""
        rows, labels = validate_data(self, X, y, dtype=np.float64)
        with warnings.catch_warnings():  # few-shot training sets have nearly as many classes as samples
            warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)
            check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"at least two classes are needed; there is one class: {self.classes_[0]!r}")
        return rows, codes

    def _decisions(self, X: ArrayLike) -> FloatArray:
        """Return decision values (n, n_functions) for features (n, n_features)."""
        check_is_fitted(self)
        return self._decide(validate_data(self, X, dtype=np.float64, reset=False))

    def _decide(self, X: FloatArray) -> FloatArray:
        """Return decision values (n, n_functions) for checked features: one for two classes."""
        decisions: FloatArray = X @ self.coef_.T + self.intercept_
        return decisions

    def decision_function(self, X: ArrayLike) -> FloatArray:
        """Return decision values, (n,) for two classes, else (n, n_classes)."""
        values = self._decisions(X)
        return values[:, 0] if values.shape[1] == 1 else values

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the classes (n,) of features (n, n_features)."""
        values = self._decisions(X)
        codes = (values[:, 0] > 0).astype(np.int64) if values.shape[1] == 1 else values.argmax(axis=1)
        return np.asarray(self.classes_[codes])
