"""The heads of labels: each label is told from its absence, all labels, folds and C in one solve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from featx.errors import UnknownNameError
from featx.learn.heads import make_scaler
from featx.learn.inner_folds import OWN_SCALING, Rules, Samples, lay_out
from featx.learn.linear import TOL, decide, fit_linear, with_ramp
from featx.learn.path import MAX_ITER
from featx.learn.training import class_weights

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
InnerFolds = Sequence[tuple[IntArray, IntArray]]

LABEL_HEADS: Mapping[str, str] = {"logreg": "logistic", "svm": "squared_hinge"}
"""The heads, and the loss of each: as those of the same names for classes, with one function for each label."""

MAPS = ("auto", "none", "temperature", "sigmoid")
"""Values of ``--calibration``: what is an affine map of decision values."""

THRESHOLDS = ("f1", "half")
"""Values of ``--thresholds``: a label is called where that makes its F1 largest, or where it is more probable than not.

The first finds rare labels, at the cost of false ones; the second makes the fewest mistakes.
"""


def check_label_head(name: str) -> None:
    """Raise UnknownNameError for a head that labels do not have."""
    if name not in LABEL_HEADS:
        raise UnknownNameError("head of --task multilabel", name, LABEL_HEADS)


class LinearLabels(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A linear head that tells each label from its absence, all with the same C.

    The optimum is that of scikit-learn's `OneVsRestClassifier` around `LogisticRegression`, or `LinearSVC`.

    Parameters
    ----------
    loss : {"logistic", "squared_hinge"}
    C : float
        Inverse strength of the penalty, > 0.
    class_weight : "balanced" or None
        Whether, for each label, the samples with it weigh as much as those without.
    tol : float
        Norm of the gradient of the mean loss with its penalty at which the fit ends.
    max_iter : int
        Newton steps.

    Attributes
    ----------
    classes_ : int array (n_labels,)
        Places of the labels.
    coef_ : float64 array (n_labels, n_features)
    intercept_ : float64 array (n_labels,)
    gradient_ : float
        Norm of the gradient where the fit ended, of the label for which it is largest.
    n_iter_ : int
        Newton steps.
    n_features_in_ : int
    """

    def __init__(
        self,
        *,
        loss: str = "logistic",
        C: float = 1.0,
        class_weight: str | None = None,
        tol: float = TOL,
        max_iter: int = MAX_ITER,
    ) -> None:
        self.loss = loss
        self.C = C
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: ArrayLike, y: ArrayLike) -> LinearLabels:
        """Fit on features (n_samples, n_features) and which labels they have (n_samples, n_labels), 0 or 1."""
        rows, values = validate_data(self, X, y, dtype=np.float64, multi_output=True, ensure_min_samples=2)
        marks = _as_marks(values)
        weights = np.broadcast_to(class_weights(marks, self.class_weight), marks.shape).T
        found = fit_linear(rows, marks, weights, loss=self.loss, C=self.C, tol=self.tol, max_iter=self.max_iter)
        self.classes_ = np.arange(marks.shape[1])
        self.coef_, self.intercept_ = found.coef, found.intercept
        self.gradient_, self.n_iter_ = found.gradient, found.n_iter
        return self

    def __sklearn_tags__(self) -> Tags:
        return _tags_of_labels(super().__sklearn_tags__())

    def decision_function(self, X: ArrayLike) -> FloatArray:
        """Return a decision value (n, n_labels) for each label, positive for its presence."""
        check_is_fitted(self)
        values: FloatArray = validate_data(self, X, dtype=np.float64, reset=False) @ self.coef_.T + self.intercept_
        return values

    def predict(self, X: ArrayLike) -> IntArray:
        """Return which labels have a positive decision value (n, n_labels), 0 or 1."""
        return (self.decision_function(X) > 0).astype(np.int64)


def _as_marks(values: NDArray[Any]) -> BoolArray:
    if values.ndim != 2 or not np.isin(values, (0, 1)).all():
        raise ValueError("labels are expected as a matrix (n_samples, n_labels) of 0 and 1")
    marks = values.astype(np.bool_)
    if marks.all(axis=0).any() or not marks.any(axis=0).all():
        raise ValueError("every label needs samples with and without it")
    return marks


def _tags_of_labels(tags: Tags) -> Tags:
    tags.classifier_tags.multi_class = False
    tags.classifier_tags.multi_label = True
    tags.target_tags.single_output = False
    tags.target_tags.multi_output = True
    tags.target_tags.two_d_labels = True
    return tags


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """What turns decision values into probabilities and calls, a number for each label.

    Attributes
    ----------
    slopes, intercepts : float64 array (n_labels,)
        The probability is ``sigmoid(slope * decision + intercept)``: the head's own of logistic regression with 1 and
        0; a temperature T with 1 / T and 0; or a sigmoid (Platt 1999).
    thresholds : float64 array (n_labels,)
        A label is called where its probability is at least this.
    """

    slopes: FloatArray
    intercepts: FloatArray
    thresholds: FloatArray

    def probabilities(self, decisions: FloatArray) -> FloatArray:
        """Return probabilities (n, n_labels) for decision values."""
        mapped: FloatArray = expit(self.slopes * decisions + self.intercepts)
        return mapped


class CalledLabels(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A head on labels with calibrated probabilities, each label called from a threshold of its own on.

    Parameters
    ----------
    estimator : classifier with ``decision_function``
        Such as a pipeline that ends in `LinearLabels`.
    names : list of str
        The labels.
    slopes, intercepts, thresholds : float array (n_labels,)
        See `LabelMaps`; learnt on samples that a head did not see.

    Attributes
    ----------
    estimator_ : fitted classifier
    classes_ : str array (n_labels,)
        The labels.
    n_features_in_ : int
    """

    def __init__(self, estimator: Any, names: Any, slopes: Any, intercepts: Any, thresholds: Any) -> None:
        self.estimator = estimator
        self.names = names
        self.slopes = slopes
        self.intercepts = intercepts
        self.thresholds = thresholds

    def fit(self, X: ArrayLike, y: ArrayLike) -> CalledLabels:
        """Fit the head on features (n_samples, n_features) and which labels they have (n_samples, n_labels)."""
        self.estimator_ = clone(self.estimator).fit(X, y)
        self.classes_ = np.array(self.names)
        self.n_features_in_ = self.estimator_.n_features_in_
        return self

    @property
    def maps(self) -> LabelMaps:
        """What makes probabilities and calls of decision values."""
        return LabelMaps(*(np.asarray(each, dtype=np.float64) for each in self._numbers))

    @property
    def _numbers(self) -> tuple[Any, Any, Any]:
        return self.slopes, self.intercepts, self.thresholds

    def __sklearn_tags__(self) -> Tags:
        return _tags_of_labels(super().__sklearn_tags__())

    def decision_function(self, X: ArrayLike) -> FloatArray:
        """Return the head's decision values (n, n_labels)."""
        check_is_fitted(self)
        return np.asarray(self.estimator_.decision_function(X))

    def predict_proba(self, X: ArrayLike) -> FloatArray:
        """Return the probability (n, n_labels) of each label."""
        return self.call(X)[1]

    def predict(self, X: ArrayLike) -> IntArray:
        """Return which labels are called (n, n_labels), 0 or 1."""
        return self.call(X)[0].astype(np.int64)

    def call(self, X: ArrayLike, n_views: int = 1) -> tuple[BoolArray, FloatArray]:
        """Return which labels are called (n, n_labels), and the probability of each.

        Parameters
        ----------
        X : float array (n * n_views, n_features)
            The rows of each sample one after the other; its decision values are their means.
        n_views : int
        """
        probabilities = self.maps.probabilities(mean_over_rows(self.decision_function(X), n_views))
        return probabilities >= self.maps.thresholds, probabilities


def mean_over_rows(decisions: FloatArray, n_views: int) -> FloatArray:
    """Return the mean over the rows of each sample: (..., n * n_views, n_labels) to (..., n, n_labels)."""
    if n_views == 1:
        return decisions
    mean: FloatArray = decisions.reshape(*decisions.shape[:-2], -1, n_views, decisions.shape[-1]).mean(axis=-2)
    return mean


def make_label_head(
    name: str, C: float, scaling: str, labels: Sequence[str], maps: LabelMaps, *, class_weight: str | None = None
) -> CalledLabels:
    """Return the unfitted head: a scaling, one function for each label, and what is made of its values."""
    steps: list[tuple[str, Any]] = [("head", LinearLabels(loss=LABEL_HEADS[name], C=C, class_weight=class_weight))]
    scaler = make_scaler(scaling)
    pipeline = Pipeline(steps if scaler is None else [("scale", scaler), *steps])
    return CalledLabels(pipeline, list(labels), maps.slopes, maps.intercepts, maps.thresholds)


def decide_inner_folds(
    samples: Samples, name: str, values: Sequence[float], inner: InnerFolds, rules: Rules
) -> Iterator[tuple[IntArray, FloatArray, BoolArray]]:
    """Fit a head at each C on each inner fold, and decide on what the fold leaves out.

    Parameters
    ----------
    samples : Samples
        With marks (n_samples, n_labels) in ``y``.
    name : str
        One of `LABEL_HEADS`.
    values : sequence of float
        Of C; a single one is fitted as exactly as a head that is used.
    inner : sequence of (int array, int array)
        Positions among the samples: fitted on, and decided on.
    rules : Rules

    Yields
    ------
    rows : int array (n_decided,)
        Positions, of one inner fold.
    decisions : float64 array (n_values, n_decided, n_labels)
    converged : bool array (n_values,)
    """
    loss, use = LABEL_HEADS[name], rules.use
    n_fitted = samples.n_views if use.train == "all" else 1
    n_decided = samples.n_views if use.score == "average" else 1
    once = len(values) == 1
    grid = with_ramp(values[0], loss) if once else np.array(values)
    together = samples.scaling not in OWN_SCALING
    for folds in [inner] if together else [[fold] for fold in inner]:
        parts = lay_out(samples, samples.y, folds, rules).of(isometric=True)
        found = decide(parts, list(grid / n_fitted), loss, exact=once)
        for (_, rows), (decisions, converged) in zip(folds, found, strict=True):
            kept = slice(-1, None) if once else slice(None)
            yield rows, mean_over_rows(decisions[kept], n_decided), converged[kept]
