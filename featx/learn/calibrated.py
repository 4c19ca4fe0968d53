"""Probabilities for heads that have none."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import PredefinedSplit
from sklearn.utils import Tags, assert_all_finite, get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d


class SigmoidCalibrated(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose probabilities are a sigmoid of its decision values.

    The sigmoid (Platt 1999; one for each class against the rest, then normalised) is fitted on out-of-fold decision
    values, and the classifier on all rows: scikit-learn's CalibratedClassifierCV with ``ensemble=False``. `predict`
    stays the classifier's own decision, which is not always the class of the largest probability.

    Parameters
    ----------
    estimator : classifier with ``decision_function``
    folds : int array (n_samples,), or int
        The fold of each row of the training data, so that groups stay whole; or a number of stratified folds.
    weights : float array (n_samples,), optional
        How much each row of the training data counts for the sigmoids, where the estimator is a pipeline; equally by
        default.

    Attributes
    ----------
    calibrated_ : object
        The fitted classifier (``.estimator``) with its sigmoids (``.calibrators``).
    classes_ : array (n_classes,)
    n_features_in_ : int
    """

    weights: Any = None  # of the class too: bundles that were saved before there were any have none of their own

    def __init__(self, estimator: Any, folds: Any = 5, weights: Any = None) -> None:
        self.estimator = estimator
        self.folds = folds
        self.weights = weights

    def fit(self, X: ArrayLike, y: ArrayLike) -> SigmoidCalibrated:
        """Fit the classifier and its sigmoids on features (n_samples, n_features) and labels (n_samples,)."""
        y = column_or_1d(y, warn=True)
        assert_all_finite(y)
        check_classification_targets(y)
        cv = self.folds if np.ndim(self.folds) == 0 else PredefinedSplit(self.folds)
        model = CalibratedClassifierCV(self.estimator, method="sigmoid", cv=cv, ensemble=False)
        with warnings.catch_warnings():
            # A pipeline takes no weights; that they are for the sigmoids alone is what is wanted.
            warnings.filterwarnings("ignore", "Since Pipeline does not appear to accept", UserWarning)
            model.fit(X, y, sample_weight=self.weights)
        (self.calibrated_,) = model.calibrated_classifiers_
        self.classes_ = model.classes_
        self.n_features_in_ = model.n_features_in_
        return self

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.sparse = get_tags(self.estimator).input_tags.sparse
        return tags

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the classifier's own decision (n,) for features (n, n_features)."""
        check_is_fitted(self)
        return np.asarray(self.calibrated_.estimator.predict(X))

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability (n, n_classes) of each class for features (n, n_features)."""
        check_is_fitted(self)
        return np.asarray(self.calibrated_.predict_proba(X))

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the classifier's decision values, (n,) for two classes, else (n, n_classes)."""
        check_is_fitted(self)
        return np.asarray(self.calibrated_.estimator.decision_function(X))
