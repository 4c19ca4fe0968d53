"""What becomes of the views of a sample: the rows that a head is fitted on, and its one word on a sample.

A sample with V views is one sample. Positions, folds, groups, supports and intervals are those of samples; only here do
its V rows appear, so that no split can ever come between them. Each row counts 1/V: scikit-learn's C multiplies a sum
over rows, so heads on V rows a sample are fitted at C / V, and V copies of the plain image change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import UnknownNameError, UsageError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

TRAIN = ("train", "none")
"""Values of ``--views``: fit on all views, or on the plain image alone."""
SCORE = ("plain", "average")
"""Values of ``--score-views``: score a sample by its plain image, or by the mean over its views."""


@dataclass(frozen=True)
class ViewUse:
    """How the views of a file are used; the same at every level of a fit, and by ``featx predict``.

    Attributes
    ----------
    train : {"all", "plain"}
        Which rows of a sample heads are fitted on.
    score : {"average", "plain"}
        What a sample is called by: the mean over its views, or the plain image.
    """

    train: str = "plain"
    score: str = "plain"

    @property
    def description(self) -> str:
        """What is done with them, as a sentence with a space before it; ``""`` where there is only the plain image."""
        if self == ViewUse():
            return ""
        fitted = "all views" if self.train == "all" else "the plain image"
        scored = "the mean over its views" if self.score == "average" else "its plain image"
        return f" Heads are fitted on {fitted} of each sample; a sample is called by {scored}."


def check_views_options(views: str | None, score_views: str | None) -> None:
    """Raise UnknownNameError for values that ``--views`` and ``--score-views`` do not take."""
    for option, value, known in (("--views", views, TRAIN), ("--score-views", score_views, SCORE)):
        if value is not None and value not in known:
            raise UnknownNameError(f"value of {option}", value, known)


def choose_use(views: str | None, score_views: str | None, n_views: int) -> ViewUse:
    """Turn options into what is done with a file of so many views; see `featx.learn.options.FitOptions`.

    Raises
    ------
    UsageError
        If views are asked for where there are none.
    """
    for option, asked in (("--views train", views == "train"), ("--score-views average", score_views == "average")):
        if asked and n_views == 1:
            raise UsageError(f"{option}: the file has one row for each image; `featx extract --views N` makes more")
    trained = n_views > 1 and views != "none"
    return ViewUse("all" if trained else "plain", score_views or "plain")


def fitting_rows(
    X: FloatArray, y: NDArray[Any], samples: IntArray, use: ViewUse
) -> tuple[FloatArray, NDArray[Any], int]:
    """Lay out the rows that a head is fitted on.

    Parameters
    ----------
    X : float64 array (n_samples, n_features), or (n_samples, n_views, n_features)
    y : array (n_samples,), or (n_samples, n_labels)
    samples : int array (n,)
        Positions.
    use : ViewUse

    Returns
    -------
    X : float64 array (n * V, n_features)
        V rows for each sample, one after the other; V is 1 where heads are fitted on plain images.
    y : array (n * V,), or (n * V, n_labels)
    V : int
    """
    if X.ndim == 2:
        return X[samples], y[samples], 1
    if use.train == "plain":
        return X[samples, 0], y[samples], 1
    n_views, n_features = X.shape[1:]
    return X[samples].reshape(-1, n_features), np.repeat(y[samples], n_views, axis=0), n_views


def scoring_rows(X: FloatArray, samples: IntArray, use: ViewUse) -> tuple[FloatArray, int]:
    """Lay out the rows by which samples are called: as `fitting_rows`, for `ViewUse.score`."""
    if X.ndim == 2:
        return X[samples], 1
    if use.score == "plain":
        return X[samples, 0], 1
    return X[samples].reshape(-1, X.shape[2]), X.shape[1]


def sigmoid_weights(n_samples: int, n_views: int, use: ViewUse) -> FloatArray | None:
    """Weights (n_samples * V,) of fitted rows for a head's sigmoids: they are of what is scored, counted by samples.

    None where each sample is one row.
    """
    if n_views == 1:
        return None
    of_one = np.full(n_views, 1 / n_views) if use.score == "average" else np.eye(1, n_views)[0]
    return np.tile(of_one, n_samples)


def classify(estimator: Any, rows: FloatArray, n_views: int = 1) -> tuple[NDArray[Any], FloatArray]:
    """Return a fitted head's word on samples.

    Parameters
    ----------
    estimator : scikit-learn classifier
        With `predict_proba`.
    rows : float64 array (n * n_views, n_features)
        The rows of each sample one after the other.
    n_views : int

    Returns
    -------
    predicted : array (n,)
        The head's own decision, or that by its threshold; over several views see `mean_over_views`.
    probabilities : float64 array (n, n_classes)
        Their mean over the views.
    """
    if n_views == 1:
        return np.asarray(estimator.predict(rows)), np.asarray(estimator.predict_proba(rows), dtype=np.float64)
    from sklearn.pipeline import Pipeline  # whoever only reads what a bundle says needs no scikit-learn

    from featx.learn.calibrated import Calibrated, SigmoidCalibrated
    from featx.learn.thresholded import Thresholded

    if isinstance(estimator, Thresholded):
        probabilities = classify(estimator.estimator_, rows, n_views)[1]
        return estimator.decide(probabilities), probabilities
    if isinstance(estimator, Calibrated):  # the decision is the head's own, also where it is made over several views
        calibrated = _mean(estimator.predict_proba(rows), n_views)
        return classify(estimator.estimator_, rows, n_views)[0], calibrated
    probabilities = _mean(np.asarray(estimator.predict_proba(rows), dtype=np.float64), n_views)
    final = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    if isinstance(final, SigmoidCalibrated):
        return mean_over_views(estimator, rows, n_views, has_probabilities=False)[0], probabilities
    return estimator.classes_[probabilities.argmax(axis=1)], probabilities


def mean_over_views(
    model: Any, rows: FloatArray, n_views: int, *, has_probabilities: bool
) -> tuple[NDArray[Any], FloatArray]:
    """Decide on samples by the mean over their rows: of probabilities, or of decision values where there are none.

    Parameters
    ----------
    model : fitted classifier
    rows : float64 array (n * n_views, n_features)
    n_views : int
    has_probabilities : bool
        Whether they are the head's own.

    Returns
    -------
    predicted : array (n,)
        The class with the largest mean; of two classes with one decision value, by its sign.
    values : float64 array (n, n_classes), or (n,) for two classes
    """
    values = _mean((model.predict_proba if has_probabilities else model.decision_function)(rows), n_views)
    places = (values > 0).astype(np.int64) if values.ndim == 1 else values.argmax(axis=1)
    return model.classes_[places], values


def _mean(values: FloatArray, n_views: int) -> FloatArray:
    mean: FloatArray = values.reshape(-1, n_views, *values.shape[1:]).mean(axis=1)
    return mean
