"""Linear discriminant analysis with shrinkage, at the cost of the span of the rows and not of the features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.learn.classifier import FeatureClassifier
from featx.learn.coordinates import Isometry
from featx.learn.training import Scored, TrainingParts, class_weights, softmax

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class ShrinkageDiscriminant(FeatureClassifier):
    """Gaussian classes with one covariance between that of the data and a multiple of the identity.

    The optimum is that of scikit-learn's ``LinearDiscriminantAnalysis(solver="lsqr", shrinkage=...)``, which needs the
    inverse of a matrix as large as there are features.

    Parameters
    ----------
    shrinkage : float
        Above 0, at most 1: ``(1 - shrinkage) S + shrinkage * trace(S) / n_features * I``.
    priors : "equal" or None
        All classes as likely as each other, or as in the training data.

    Attributes
    ----------
    coef_ : float64 array (n_functions, n_features)
        One function for two classes, else one for each class.
    intercept_ : float64 array (n_functions,)
    classes_ : array (n_classes,)
    n_features_in_ : int
    """

    def __init__(self, *, shrinkage: float = 0.1, priors: str | None = None) -> None:
        self.shrinkage = shrinkage
        self.priors = priors

    def fit(self, X: ArrayLike, y: ArrayLike) -> ShrinkageDiscriminant:
        """Fit on features (n_samples, n_features) and labels (n_samples,)."""
        rows, codes = self._begin(X, y)
        if not 0 < self.shrinkage <= 1:
            raise ValueError(f"shrinkage {self.shrinkage}: expected above 0 and at most 1")
        if self.priors not in (None, "equal"):
            raise ValueError(f"priors {self.priors!r}: expected 'equal' or None")
        isometry = Isometry(rows)
        gaussian = _Gaussians(isometry.transform(rows), codes, self.priors == "equal", rows.shape[1])
        coef, self.intercept_ = gaussian.functions(self.shrinkage)
        self.coef_ = isometry.restore(coef)
        return self

    def predict_proba(self, X: ArrayLike) -> FloatArray:
        """Return the posterior probability (n, n_classes) of each class for features (n, n_features)."""
        return softmax(self._decisions(X))


class _Gaussians:
    """Class means and the eigenvectors of the covariance within classes: all that any shrinkage needs."""

    def __init__(self, X: FloatArray, codes: IntArray, equal_priors: bool, n_features: int) -> None:
        shares = np.bincount(codes) / len(codes)
        self._means = np.stack([X[codes == code].mean(axis=0) for code in range(len(shares))])
        self._log_priors = np.zeros(len(shares)) if equal_priors else np.log(shares)
        # The covariance of a class counts by its prior: as in scikit-learn.
        weights = class_weights(codes, "balanced" if equal_priors else None)
        within = (X - self._means[codes]) * np.sqrt(weights / len(X))[:, None]
        if len(X) < X.shape[1]:
            values, vectors = np.linalg.eigh(within @ within.T)
            kept = values > max(values[-1], 0.0) * 1e-12
            self._values = values[kept]
            self._vectors = (within.T @ vectors[:, kept]) / np.sqrt(self._values)
        else:
            self._values, self._vectors = np.linalg.eigh(within.T @ within)
            self._values = np.maximum(self._values, 0.0)
        trace = float(self._values.sum())
        self._identity = trace / n_features if trace > 0 else 1.0  # no variance within classes: their means decide
        self._along = self._vectors.T @ self._means.T

    def functions(self, shrinkage: float) -> tuple[FloatArray, FloatArray]:
        """Return coefficients (n_functions, n_features) and intercepts; of two classes, their difference."""
        floor, values = shrinkage * self._identity, (1.0 - shrinkage) * self._values
        # The inverse of V diag(values) V' + floor I, for V whose columns are orthonormal, but may be few.
        coef = (self._means.T - self._vectors @ ((values / (values + floor))[:, None] * self._along)).T / floor
        intercept = self._log_priors - 0.5 * np.einsum("cd,cd->c", coef, self._means)
        if len(coef) == 2:
            return coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        return coef, intercept


def search_lda(parts: TrainingParts, values: Sequence[float]) -> Iterator[Scored]:
    """Score each part's rows by discriminant analysis at each shrinkage; see `featx.learn.heads.Head.search`."""
    for fitted, scored in zip(parts.fitted, parts.scored, strict=True):
        gaussians = _Gaussians(parts.X[fitted], parts.codes[fitted], parts.class_weight == "balanced", parts.n_features)
        found = [gaussians.functions(value) for value in values]
        decisions = np.stack([parts.X[scored] @ coef.T + intercept for coef, intercept in found])
        yield Scored.of_probabilities(decisions)
