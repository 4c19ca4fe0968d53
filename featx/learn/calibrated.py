"""Probabilities for heads that have none, and truer ones for heads that have."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import PredefinedSplit, StratifiedKFold
from sklearn.utils import Tags, assert_all_finite, get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from featx.learn.calibration import Calibration, FloatArray, Scored, apply_map, choose_calibration


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

    def behind(self, fitted: Any) -> SigmoidCalibrated:
        """Put the same sigmoids behind another fitted classifier, as one that has not seen some rows."""
        other = copy.copy(self)
        other.calibrated_ = copy.copy(self.calibrated_)
        other.calibrated_.estimator = fitted
        return other

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


class Calibrated(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier with probabilities, and a map that makes them come true as often as they say.

    The map is chosen and fitted on out-of-fold probabilities (`featx.learn.calibration.choose_calibration`), and the
    classifier on all rows. `predict` stays the classifier's own decision.

    Parameters
    ----------
    estimator : classifier with ``predict_proba``
    method : {"auto", "none", "temperature", "sigmoid", "isotonic"}
    folds : int array (n_samples,), or int
        The fold of each row of the training data, so that groups stay whole, -1 where a row is in no fold; or a number
        of stratified folds.

    Attributes
    ----------
    estimator_ : fitted classifier
    method_ : str
        The map: one of `featx.learn.calibration.METHODS`.
    parameters_ : dict of str to float64 array
        Of the map, see `featx.learn.calibration.Calibration`.
    classes_ : array (n_classes,)
    n_features_in_ : int
    """

    def __init__(self, estimator: Any, method: str = "auto", folds: Any = 5) -> None:
        self.estimator = estimator
        self.method = method
        self.folds = folds

    @classmethod
    def of(cls, fitted: Any, calibration: Calibration, folds: Any = 5) -> Calibrated:
        """Put a map that was fitted elsewhere behind a classifier that is fitted already."""
        model = cls(clone(fitted), calibration.method, folds)
        return model._take(fitted, calibration)

    def _take(self, fitted: Any, calibration: Calibration) -> Calibrated:
        self.estimator_ = fitted
        self.method_ = calibration.method
        self.parameters_ = calibration.parameters
        self.classes_ = fitted.classes_
        self.n_features_in_ = fitted.n_features_in_
        return self

    def fit(self, X: ArrayLike, y: ArrayLike) -> Calibrated:
        """Fit classifier and map on features (n_samples, n_features) and labels (n_samples,)."""
        rows, labels = validate_data(self, X, y)
        check_classification_targets(labels)
        return self._fit(rows, np.asarray(labels))

    def _fit(self, X: Any, y: NDArray[Any]) -> Calibrated:
        fitted = clone(self.estimator).fit(X, y)
        scored = leave_out(self.estimator, fitted.classes_, X, y, self.folds)
        return self._take(fitted, choose_calibration(scored, self.method))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the classifier's own decision (n,) for features (n, n_features)."""
        check_is_fitted(self)
        return np.asarray(self.estimator_.predict(X))

    def predict_proba(self, X: ArrayLike) -> FloatArray:
        """Return the calibrated probability (n, n_classes) of each class for features (n, n_features)."""
        check_is_fitted(self)
        own = np.asarray(self.estimator_.predict_proba(X), dtype=np.float64)
        return apply_map(self.method_, self.parameters_, own)


def leave_out(estimator: Any, classes: NDArray[Any], X: Any, y: NDArray[Any], folds: Any) -> Scored:
    """Fit a classifier on all folds but one, and take its probabilities of that one's rows, for each.

    Parameters
    ----------
    estimator : classifier with ``predict_proba``
        Cloned.
    classes : array (n_classes,)
        Of `y`.
    X : array (n_samples, n_features)
    y : array (n_samples,)
    folds : int array (n_samples,), or int
        The fold of each row, -1 where it is in none; or a number of stratified folds.
    """
    parts = list(_splitter(folds, y).split(X, y))
    rows = np.concatenate([test for _, test in parts])
    probabilities = np.zeros((len(rows), 1, len(classes)))
    start = 0
    for train, test in parts:
        part = clone(estimator).fit(X[train], y[train])
        columns = np.searchsorted(classes, part.classes_)
        probabilities[start : start + len(test), 0, columns] = part.predict_proba(X[test])
        start += len(test)
    numbers = np.repeat(np.arange(len(parts)), [len(test) for _, test in parts])
    return Scored(probabilities, np.searchsorted(classes, y[rows]), numbers, rows)


def _splitter(folds: Any, y: NDArray[Any]) -> Any:
    if np.ndim(folds) > 0:
        return PredefinedSplit(folds)
    least = int(np.unique(y, return_counts=True)[1].min())
    if least < folds:
        raise ValueError(f"{folds} folds need as many samples of every class; one class has {least}")
    return StratifiedKFold(folds)
