"""A fitted head on the views of a sample, as a scikit-learn classifier on samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

from featx.errors import UsageError
from featx.learn.views import classify


class AveragedViews(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Calls each sample by the mean over its views.

    Parameters
    ----------
    estimator : fitted scikit-learn classifier
        On the rows of single views.
    n_views : int
        How many rows lie side by side in one row of samples.

    Attributes
    ----------
    classes_ : array (n_classes,)
    n_features_in_ : int
        Of all views together.
    """

    def __init__(self, estimator: Any, n_views: int) -> None:
        self.estimator = estimator
        self.n_views = n_views

    @property
    def classes_(self) -> NDArray[Any]:
        """The classes, as the estimator has them."""
        return np.asarray(self.estimator.classes_)

    @property
    def n_features_in_(self) -> int:
        """Length of one row of samples."""
        return int(self.estimator.n_features_in_) * self.n_views

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, X: ArrayLike, y: ArrayLike) -> AveragedViews:  # noqa: ARG002 (scikit-learn's signature)
        """Refuse: what C counts, and which rows a sigmoid is fitted on, is `featx.fit`'s to say.

        Raises
        ------
        UsageError
            Always.
        """
        raise UsageError(
            "a bundle that averages over views cannot be fitted again here: extract with the same views and run "
            "`featx fit` on the file"
        )

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the class (n,) of samples (n, n_views * n_features), view after view."""
        return self._classify(X)[0]

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the mean probabilities (n, n_classes) of samples (n, n_views * n_features)."""
        return self._classify(X)[1]

    def _classify(self, X: ArrayLike) -> tuple[NDArray[Any], NDArray[np.float64]]:
        rows = np.asarray(X, dtype=np.float64).reshape(-1, self.estimator.n_features_in_)
        return classify(self.estimator, rows, self.n_views)
