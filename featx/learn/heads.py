"""The heads: scikit-learn classifiers on features, each with its scaling in one pipeline.

`make_head` is the definition: a plain scikit-learn pipeline on the full features. `HeadPath` fits the same head at many
values of C on one training part, in coordinates in which the same optimum is found sooner; `fit_head` gives the fitted
pipeline. Tests hold them against the definition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import SVC, LinearSVC

from featx.errors import UnknownNameError
from featx.learn.calibrated import SigmoidCalibrated

FloatArray = NDArray[np.float64]

MAX_ITER = 10_000
"""For L-BFGS: features without scaling and a large C can need some thousand iterations."""
TOL = 1e-6
"""Largest gradient of the mean log loss at which L-BFGS stops; probabilities are then exact to about four digits."""


class Coordinates(Protocol):
    """Another set of coordinates for scaled features, in which a head has the same optimum."""

    def transform(self, X: FloatArray) -> FloatArray:
        """Return the coordinates of scaled features (n, n_features)."""


class SpanCoordinates:
    """Rows in an orthonormal basis of the span of the training rows.

    With an L2 penalty the optimal coefficients lie in the span of the training rows (the representer theorem), so
    nothing is lost, and penalty and decision values are the same. This is shorter where there are fewer rows than
    features. A penalty that leaves the intercept out also allows the rows to be centred, which makes features without
    scaling far better conditioned: only the intercept changes.

    Parameters
    ----------
    X : float64 array (n_samples, n_features)
        Scaled training rows.
    centre : bool
        Whether the mean row is subtracted.
    """

    def __init__(self, X: FloatArray, *, centre: bool) -> None:
        n_samples, self._n_features = X.shape
        self._mean = X.mean(axis=0) if centre else np.zeros(self._n_features)
        self._basis = qr((X - self._mean).T, mode="economic")[0] if n_samples < self._n_features else None

    def transform(self, X: FloatArray) -> FloatArray:
        """Return coordinates (n, min(n_samples, n_features))."""
        X = X - self._mean
        return X if self._basis is None else X @ self._basis

    def restore(self, head: Any) -> Any:
        """Turn a linear head that was fitted on coordinates into the same head on scaled features, in place."""
        if self._basis is not None:
            head.coef_ = head.coef_ @ self._basis.T
        head.intercept_ = head.intercept_ - head.coef_ @ self._mean
        head.n_features_in_ = self._n_features
        return head


class RbfCoordinates:
    """Rows as kernel values ``exp(-gamma ||a - b||^2)`` with the training rows; gamma as SVC's ``"scale"``.

    Parameters
    ----------
    X : float64 array (n_samples, n_features)
        Scaled training rows.
    """

    def __init__(self, X: FloatArray) -> None:
        self._rows = X
        self._squares = np.einsum("ij,ij->i", X, X)
        variance = X.var()
        self._gamma = 1.0 / (X.shape[1] * variance) if variance > 0 else 1.0

    def transform(self, X: FloatArray) -> FloatArray:
        """Return kernel values (n, n_samples)."""
        squares = np.einsum("ij,ij->i", X, X)
        distances = squares[:, None] + self._squares - 2.0 * (X @ self._rows.T)
        kernel: FloatArray = np.exp(-self._gamma * np.maximum(distances, 0.0))
        return kernel


@dataclass(frozen=True)
class Head:
    """One kind of classifier.

    Attributes
    ----------
    name, summary : str
        As in ``--head``, and one line about it.
    make : callable (C, random_state) -> classifier
        The unfitted scikit-learn classifier on scaled features.
    coordinates : callable (scaled training rows) -> Coordinates
        In which `make_in_coordinates` has the same optimum.
    make_in_coordinates : callable (C, random_state) -> classifier
        The unfitted classifier for coordinates.
    has_probabilities : bool
        Whether it has probabilities of its own; else they are a sigmoid of its decision values.
    """

    name: str
    summary: str
    make: Callable[[float, int], Any]
    coordinates: Callable[[FloatArray], Coordinates]
    make_in_coordinates: Callable[[float, int], Any]
    has_probabilities: bool


def _logreg(C: float, random_state: int) -> LogisticRegression:
    return LogisticRegression(C=C, tol=TOL, max_iter=MAX_ITER, random_state=random_state)


def _svm(C: float, random_state: int) -> LinearSVC:
    # The dual solver even where there are more rows than features: on standardised features that a plane can separate,
    # the primal one was seen to need 7 s where this needs 1 s, and to end at a worse value of what it minimises. The
    # tolerance is in units of the margin: decision values are within 0.004 of those of 1e-5, in half the time. Where no
    # plane separates the classes and C is large it does not converge at all, and is stopped and counted.
    return LinearSVC(C=C, dual=True, tol=1e-3, max_iter=2_000, random_state=random_state)


def _svm_rbf(C: float, random_state: int) -> SVC:
    return SVC(C=C, kernel="rbf", gamma="scale", random_state=random_state)


HEADS = {
    head.name: head
    for head in (
        Head(
            name="logreg",
            summary="multinomial logistic regression, L2 penalty",
            make=_logreg,
            coordinates=lambda X: SpanCoordinates(X, centre=True),
            make_in_coordinates=lambda C, random_state: _logreg(C, random_state).set_params(warm_start=True),
            has_probabilities=True,
        ),
        Head(
            name="svm",
            summary="linear support vector machine, squared hinge loss, one class against the rest",
            make=_svm,
            # liblinear penalises the intercept: centring would change the optimum.
            coordinates=lambda X: SpanCoordinates(X, centre=False),
            make_in_coordinates=_svm,
            has_probabilities=False,
        ),
        Head(
            name="svm-rbf",
            summary="support vector machine with a Gaussian kernel, one class against one",
            make=_svm_rbf,
            coordinates=RbfCoordinates,
            make_in_coordinates=lambda C, random_state: _svm_rbf(C, random_state).set_params(kernel="precomputed"),
            has_probabilities=False,
        ),
    )
}
"""By name, in the order in which ties are broken."""

SCALINGS: dict[str, Callable[[], Any] | None] = {"raw": None, "standardise": StandardScaler, "l2": Normalizer}
"""Features as they are; each column to mean 0 and deviation 1; each row to Euclidean length 1. In the order of ties."""


def check_heads(names: tuple[str, ...]) -> None:
    """Raise UnknownNameError, with close matches, for the first name that is no head's."""
    for name in names:
        if name not in HEADS:
            raise UnknownNameError("head", name, HEADS)


def make_head(name: str, C: float, scaling: str, random_state: int = 0) -> Pipeline:
    """Return the unfitted pipeline of a scaling and a head: what every fit of featx amounts to.

    Parameters
    ----------
    name, scaling : str
        Of `HEADS` and `SCALINGS`.
    C : float
        Inverse strength of the penalty, > 0, as in scikit-learn.
    random_state : int

    Returns
    -------
    sklearn.pipeline.Pipeline
        Steps ``scale`` (not with ``"raw"``) and ``head``.
    """
    return _pipeline(_make_scaler(scaling), HEADS[name].make(C, random_state))


def fit_head(
    name: str,
    C: float,
    scaling: str,
    X: FloatArray,
    y: NDArray[Any],
    folds: NDArray[np.int_],
    random_state: int = 0,
    *,
    weights: FloatArray | None = None,
) -> Any:
    """Fit a head that has probabilities.

    Parameters
    ----------
    name, C, scaling, random_state
        As in `make_head`.
    X : float64 array (n_samples, n_features)
    y : str array (n_samples,)
    folds : int array (n_samples,)
        The fold of each row, for the out-of-fold decision values behind the sigmoid of heads without probabilities.
    weights : float64 array (n_samples,), optional
        How much each row counts for that sigmoid.

    Returns
    -------
    sklearn.pipeline.Pipeline or SigmoidCalibrated
    """
    if HEADS[name].has_probabilities:
        return HeadPath(name, scaling, X, y, random_state).fit_pipeline(C)
    return SigmoidCalibrated(make_head(name, C, scaling, random_state), folds, weights).fit(X, y)


class HeadPath:
    """One training part, scaled once, on which a head is fitted at many values of C.

    Parameters
    ----------
    name, scaling : str
        Of `HEADS` and `SCALINGS`.
    X : float64 array (n_samples, n_features)
        The training part; the scaling is fitted on it alone.
    y : str array (n_samples,)
    random_state : int
    """

    def __init__(self, name: str, scaling: str, X: FloatArray, y: NDArray[Any], random_state: int = 0) -> None:
        self._head = HEADS[name]
        self._y = y
        self._random_state = random_state
        self._scaler = _make_scaler(scaling)
        scaled = X if self._scaler is None else self._scaler.fit_transform(X)
        self._coordinates = self._head.coordinates(scaled)
        self._rows = self._coordinates.transform(scaled)
        self._model = self._head.make_in_coordinates(1.0, random_state)

    def transform(self, X: FloatArray) -> FloatArray:
        """Return what the classifiers of `fit` take for features (n, n_features)."""
        return self._coordinates.transform(X if self._scaler is None else self._scaler.transform(X))

    def fit(self, C: float) -> Any:
        """Return the classifier at this C; valid until the next call, which starts from it where the solver can."""
        return self._model.set_params(C=C).fit(self._rows, self._y)

    def fit_pipeline(self, C: float) -> Pipeline:
        """Return the fitted pipeline on the full features, for heads in `SpanCoordinates`."""
        assert isinstance(self._coordinates, SpanCoordinates)
        head = self._head.make(C, self._random_state).fit(self._rows, self._y)
        return _pipeline(self._scaler, self._coordinates.restore(head))


def _make_scaler(scaling: str) -> Any:
    make = SCALINGS[scaling]
    return None if make is None else make()


def _pipeline(scaler: Any, head: Any) -> Pipeline:
    steps = [("head", head)]
    return Pipeline(steps if scaler is None else [("scale", scaler), *steps])
