"""A classifier of two classes that calls one of them from a chosen probability on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import Tags
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from featx.learn.calibrated import leave_out
from featx.learn.threshold import FloatArray, Rule, Threshold, choose_threshold


class Thresholded(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier with probabilities that calls a class positive from a chosen probability on.

    The threshold is chosen on out-of-fold probabilities (`featx.learn.threshold.choose_threshold`), and the classifier
    fitted on all rows. Probabilities are the classifier's.

    Parameters
    ----------
    estimator : classifier with ``predict_proba``
    threshold : str
        As ``featx fit --threshold`` takes it: ``"balanced_accuracy"``, ``"f1"``, ``"sensitivity=0.95"``,
        ``"specificity=0.95"``, or a probability, ``"0.3"``.
    positive : object, optional
        The positive class; the second by default.
    folds : int array (n_samples,), or int
        The fold of each row of the training data, so that groups stay whole, -1 where a row is in no fold; or a number
        of stratified folds.

    Attributes
    ----------
    estimator_ : fitted classifier
    threshold_ : float
        Probability from which on a row is called positive.
    positive_ : object
    classes_ : array (2,)
    n_features_in_ : int
    """

    def __init__(
        self, estimator: Any, threshold: str = "balanced_accuracy", positive: Any = None, folds: Any = 5
    ) -> None:
        self.estimator = estimator
        self.threshold = threshold
        self.positive = positive
        self.folds = folds

    @classmethod
    def of(cls, fitted: Any, threshold: Threshold, asked: str, folds: Any = 5) -> Thresholded:
        """Put a threshold that was chosen elsewhere behind a classifier that is fitted already."""
        model = cls(clone(fitted), asked, threshold.positive, folds)
        return model._take(fitted, threshold.value, threshold.positive)

    def _take(self, fitted: Any, value: float, positive: Any) -> Thresholded:
        self.estimator_ = fitted
        self.threshold_ = value
        self.positive_ = positive
        self.classes_ = fitted.classes_
        self.n_features_in_ = fitted.n_features_in_
        return self

    def fit(self, X: ArrayLike, y: ArrayLike) -> Thresholded:
        """Fit classifier and threshold on features (n_samples, n_features) and labels (n_samples,) of two classes."""
        rows, labels = validate_data(self, X, y)
        positive, rule = self._check(labels), Rule.read(self.threshold)
        if rule is None:
            raise ValueError("threshold 'none': the classifier's own decision needs no threshold")
        fitted = clone(self.estimator).fit(rows, labels)
        value = rule.level
        if rule.is_chosen:
            scored = leave_out(self.estimator, fitted.classes_, rows, labels, self.folds)
            place = int(np.flatnonzero(fitted.classes_ == positive)[0])
            of_positive = scored.probabilities[:, 0, place]
            value = choose_threshold(rule, of_positive, scored.true == place, str(positive)).value
        return self._take(fitted, value, positive)

    def _check(self, labels: NDArray[Any]) -> Any:
        """Return the positive class of labels that are of two classes; else raise ValueError."""
        kind = type_of_target(labels, input_name="y", raise_unknown=True)
        if kind != "binary":
            raise ValueError(f"Only binary classification is supported. The type of the target is {kind}.")
        classes = np.unique(labels)
        if len(classes) < 2:
            raise ValueError(f"two classes are needed; there is one class: {classes[0]!r}")
        positive = classes[1] if self.positive is None else self.positive
        if positive not in classes:
            raise ValueError(f"positive {positive!r}: the classes are {classes[0]!r} and {classes[1]!r}")
        return positive

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def decide(self, probabilities: FloatArray) -> NDArray[Any]:
        """Return the classes (n,) that probabilities (n, 2) are called."""
        return Threshold(self.positive_, self.threshold_).decide(probabilities, self.classes_)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the classes (n,) of features (n, n_features), by the threshold."""
        return self.decide(self.predict_proba(X))

    def predict_proba(self, X: ArrayLike) -> FloatArray:
        """Return the classifier's probability (n, 2) of each class for features (n, n_features)."""
        check_is_fitted(self)
        return np.asarray(self.estimator_.predict_proba(X), dtype=np.float64)
