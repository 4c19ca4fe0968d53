"""Linear heads behind scikit-learn's interface, solved by `featx.learn.path`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import compute_sample_weight
from sklearn.utils.validation import _check_sample_weight

from featx.learn.classifier import FeatureClassifier
from featx.learn.coordinates import Isometry
from featx.learn.device import to_device
from featx.learn.path import MAX_ITER, fit_path
from featx.learn.training import Scored, TrainingParts, softmax

FloatArray = NDArray[np.float64]

TOL = 1e-8
"""Norm of the gradient of the mean loss with its penalty at which a head that is used or reported is fitted."""
SEARCH_TOL = 1e-3
"""The same where all that is wanted of a fit is whether it is better than another. On cifar10-small a tenth of it takes
twice the time, and changes accuracies by less than 0.001 up to the best C, by 0.005 far beyond it."""
_RAMP = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""A fit at one C starts from the optimum at these shares of it; the last needs few steps then."""


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A fit at one C.

    Attributes
    ----------
    coef : float64 array (n_functions, n_features)
    intercept : float64 array (n_functions,)
    gradient : float
        Norm of the gradient where it ended.
    n_iter : int
        Newton steps.
    """

    coef: FloatArray
    intercept: FloatArray
    gradient: float
    n_iter: int


def fit_linear(
    X: FloatArray, codes: NDArray[Any], weights: FloatArray, *, loss: str, C: float, tol: float, max_iter: int
) -> LinearFit:
    """Fit at one C; what has not converged is a ConvergenceWarning.

    Parameters
    ----------
    X : float64 array (n_samples, n_features)
    codes, weights, loss, tol, max_iter
        As in `featx.learn.path.fit_path`, the weights of one part.
    C : float
    """
    isometry = Isometry(X)
    grid = with_ramp(C, loss)
    found = fit_path(isometry.transform(X), codes, grid, weights[None], loss=loss, tol=tol, max_iter=max_iter)
    gradient = float(found.gradient[0, -1])
    if not found.converged[0, -1]:
        warnings.warn(
            f"stopped at a gradient of {gradient:.1e}, not {tol:g}, after {max_iter} steps",
            ConvergenceWarning,
            stacklevel=3,
        )
    return LinearFit(isometry.restore(found.coef[0, -1]), found.intercept[0, -1], gradient, int(found.n_iter[0].sum()))


def with_ramp(C: float, loss: str) -> FloatArray:
    """Return the values through which a fit at one C comes to it, C last."""
    return np.array([*(share * C for share in _RAMP if loss == "squared_hinge"), C])


class _NewtonClassifier(FeatureClassifier):
    """A linear classifier fitted with one of `featx.learn.path.LOSSES`."""

    def __init__(self, *, C: float = 1.0, class_weight: Any = None, tol: float = TOL, max_iter: int = MAX_ITER) -> None:
        self.C = C
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter

    @property
    def _loss(self) -> str:
        return "squared_hinge"

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Any:
        """Fit on features (n_samples, n_features) and labels (n_samples,)."""
        rows, codes = self._begin(X, y)
        weights = _check_sample_weight(sample_weight, rows, dtype=np.float64)
        weights = weights * compute_sample_weight(self.class_weight, np.asarray(y))
        found = fit_linear(rows, codes, weights, loss=self._loss, C=self.C, tol=self.tol, max_iter=self.max_iter)
        self.coef_, self.intercept_ = found.coef, found.intercept
        self.gradient_, self.n_iter_ = found.gradient, found.n_iter
        return self


class NewtonLogisticRegression(_NewtonClassifier):
    """Logistic regression with an L2 penalty: multinomial, or each class against the rest.

    The optimum is that of scikit-learn's `LogisticRegression`, or of `OneVsRestClassifier` around it.

    Parameters
    ----------
    C : float
        Inverse strength of the penalty, > 0.
    class_weight : dict, "balanced" or None
        As in scikit-learn.
    tol : float
        Norm of the gradient of the mean loss with its penalty at which the fit ends.
    max_iter : int
        Newton steps.
    multinomial : bool
        Whether the classes are fitted together; with two of them it is the same.

    Attributes
    ----------
    coef_ : float64 array (n_functions, n_features)
        One function for two classes, else one for each class.
    intercept_ : float64 array (n_functions,)
    classes_ : array (n_classes,)
    gradient_ : float
        Norm of the gradient where the fit ended.
    n_iter_ : int
        Newton steps.
    n_features_in_ : int
    """

    def __init__(
        self,
        *,
        C: float = 1.0,
        class_weight: Any = None,
        tol: float = TOL,
        max_iter: int = MAX_ITER,
        multinomial: bool = True,
    ) -> None:
        super().__init__(C=C, class_weight=class_weight, tol=tol, max_iter=max_iter)
        self.multinomial = multinomial

    @property
    def _loss(self) -> str:
        return "multinomial" if self.multinomial else "logistic"

    def predict_proba(self, X: ArrayLike) -> FloatArray:
        """Return the probability (n, n_classes) of each class for features (n, n_features)."""
        return _probabilities(self._decisions(X), self.multinomial)


class NewtonLinearSVC(_NewtonClassifier):
    """Linear support vector machine: squared hinge loss, L2 penalty, each class against the rest.

    The optimum is that of scikit-learn's `LinearSVC`, whose penalty takes in the intercept.

    Parameters
    ----------
    C, tol, max_iter
        As in `NewtonLogisticRegression`.
    class_weight : dict, "balanced" or None
        How much the rows of a class count, on either side: where a class is told from the rest, liblinear would weigh
        its own rows alone.

    Attributes
    ----------
    coef_, intercept_, classes_, gradient_, n_iter_, n_features_in_
        As in `NewtonLogisticRegression`.
    """


def search_logistic(parts: TrainingParts, values: Sequence[float], *, multinomial: bool) -> Iterator[Scored]:
    """Score each part's rows by logistic regression fitted at each C; see `featx.learn.heads.Head.search`."""
    for decisions, converged in decide(parts, values, "multinomial" if multinomial else "logistic"):
        scored = Scored.of_decisions(decisions, converged)
        yield Scored(scored.predicted, _probabilities(decisions, multinomial), converged)


def search_svm(parts: TrainingParts, values: Sequence[float]) -> Iterator[Scored]:
    """Score each part's rows by linear support vector machines fitted at each C."""
    for decisions, converged in decide(parts, values, "squared_hinge"):
        yield Scored.of_decisions(decisions, converged)


def decide(
    parts: TrainingParts, values: Sequence[float], loss: str, *, exact: bool = False
) -> Iterator[tuple[FloatArray, NDArray[np.bool_]]]:
    """Fit at each C on each part; yield the decision values of its scored rows, and which fits have converged.

    `exact` fits are as near to the optimum as those of a head that is used (`TOL`), others as a search needs it.

    Yields
    ------
    decisions : float64 array (n_values, n_scored, n_functions)
    converged : bool array (n_values,)
    """
    found = fit_path(
        to_device(parts.X, parts.device),
        parts.codes,
        np.array(values),
        parts.weights(),
        loss=loss,
        tol=TOL if exact else SEARCH_TOL,
        max_iter=MAX_ITER,
    )
    for part, rows in enumerate(parts.scored):
        decisions = np.einsum("nd,cfd->cnf", parts.X[rows], found.coef[part], optimize=True)
        yield decisions + found.intercept[part][:, None], found.converged[part]


def _probabilities(decisions: FloatArray, multinomial: bool) -> FloatArray:
    """Return probabilities (..., n_classes): of one class against the rest each, they are made to sum to 1."""
    if multinomial or decisions.shape[-1] == 1:
        return softmax(decisions)
    each = 0.5 * (1.0 + np.tanh(0.5 * decisions))
    total = each.sum(axis=-1, keepdims=True)
    # As scikit-learn's OneVsRestClassifier; all classes alike where none has any.
    alike = np.full_like(each, 1.0 / each.shape[-1])
    probabilities: FloatArray = np.divide(each, total, out=alike, where=total > 0)
    return probabilities
