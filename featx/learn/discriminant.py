"""Linear discriminant analysis with shrinkage, at the cost of the span of the rows and not of the features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.learn.classifier import FeatureClassifier
from featx.learn.coordinates import Isometry
from featx.learn.left_out_blocks import Block, Factored, find_blocks, solve_block
from featx.learn.training import Scored, TrainingParts, class_weights, softmax

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SURE = 1e-6
"""Least share of all variance that must lie within classes, also without a block, to be known as a difference."""


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
    together = _from_all_rows(parts, values)
    return _part_by_part(parts, values) if together is None else together


def _part_by_part(parts: TrainingParts, values: Sequence[float]) -> Iterator[Scored]:
    for fitted, scored in zip(parts.fitted, parts.scored, strict=True):
        gaussians = _Gaussians(parts.X[fitted], parts.codes[fitted], parts.class_weight == "balanced", parts.n_features)
        found = [gaussians.functions(value) for value in values]
        decisions = np.stack([parts.X[scored] @ coef.T + intercept for coef, intercept in found])
        yield Scored.of_probabilities(decisions)


def _from_all_rows(parts: TrainingParts, values: Sequence[float]) -> Iterator[Scored] | None:
    """Score what each part leaves out from one factorisation; None where that is not to be done."""
    blocks = find_blocks(parts, len(values))
    if blocks is None:
        return None
    everything = _AllRows(parts)
    without = [everything.without(block) for block in blocks]
    sure = [one.trace > SURE * everything.total and one.is_sure(min(values)) for one in without]
    return (Scored.of_probabilities(one.decide(values)) for one in without) if all(sure) else None


class _AllRows:
    """The scatter within classes of all rows, factored; see `featx.learn.left_out_blocks`."""

    def __init__(self, parts: TrainingParts) -> None:
        self.codes, self.n_features = parts.codes, parts.n_features
        self.counts = np.bincount(parts.codes)
        self.of_class = np.eye(len(self.counts))[parts.codes]
        means = (self.of_class.T @ parts.X) / self.counts[:, None]
        self.Z = parts.X - means[parts.codes]
        self.means = means - parts.X.mean(axis=0)  # only differences decide
        self.rows = Factored.of(self.Z, self.of_class / np.sqrt(self.counts))
        self.along = self.rows.vectors.T @ (self.Z @ self.means.T)
        self.between = self.means @ self.means.T
        self.trace = float(self.rows.values.sum())
        self.total = self.trace + float(self.counts @ np.diag(self.between))

    def without(self, block: Block) -> _LeftOut:
        """Return what is fitted without a block."""
        return _LeftOut(self, block)


class _LeftOut:
    """Discriminant analysis without a block F of rows, on that block.

    Without F the mean of a class moves by ``-Q' Z_F`` (Q: one over the rows that are left of the class, for its rows
    in F), and the scatter W within classes loses ``Z_F' (I + Q E') Z_F`` (E: 1 for the class of a row). With
    A = k W + f I for all rows, k = (1 - shrinkage) / n_left, f the multiple of the identity, Woodbury's identity gives

        (A - k Z_F' (I + Q E') Z_F)^-1 = A^-1 + k A^-1 Z_F' N^-1 Z_F A^-1

    where N is that of `featx.learn.left_out_blocks` for the penalty f / k: (I + Q E')^-1 is the block F of the
    projection on U's span, so that what the moved means add needs no term of its own.
    """

    def __init__(self, everything: _AllRows, block: Block) -> None:
        self._all, self._block = everything, block
        of_class = everything.of_class[block.rows]
        left = everything.counts - of_class.sum(axis=0)
        self._n = float(left.sum())
        self._log_priors = np.log(left / self._n)
        self._moved = of_class / left
        Z = everything.Z[block.rows]
        lost = np.sum(Z * Z) + np.sum((of_class.T @ Z) ** 2 / left[:, None])
        self.trace = everything.trace - float(lost)

    def is_sure(self, shrinkage: float) -> bool:
        """Whether the smallest shrinkage is large enough for the formula."""
        return self._all.rows.is_sure(self._penalty(shrinkage)) if shrinkage < 1 else True

    def _penalty(self, shrinkage: float) -> float:
        return shrinkage * self.trace / (self._all.n_features * (1.0 - shrinkage))

    def decide(self, values: Sequence[float]) -> FloatArray:
        """Return decision values (n_values, n_scored, n_functions)."""
        return np.stack([self._decide(value) for value in values])

    def _decide(self, shrinkage: float) -> FloatArray:
        everything, block = self._all, self._block
        vectors, scatter = everything.rows.vectors[block.rows], everything.rows.values
        floor, share = shrinkage * self.trace / (self._n * everything.n_features), (1.0 - shrinkage) / self._n
        inverse = 1.0 / (share * scatter + floor)
        # Rows of the block and old means (z, m) against new means, first through A^-1, then with what F took away.
        of_means = vectors @ (inverse[:, None] * everything.along)
        z = of_means - vectors @ ((scatter * inverse)[:, None] * (vectors.T @ self._moved))
        m = (everything.between - everything.along.T @ ((share * inverse)[:, None] * everything.along)) / floor
        m -= of_means.T @ self._moved
        if share > 0:
            solved = share * solve_block(vectors * np.sqrt(floor * inverse), z)
            z, m = z + vectors @ ((scatter * inverse)[:, None] * (vectors.T @ solved)), m + of_means.T @ solved
        own = m - self._moved.T @ z
        codes = everything.codes[block.rows][block.scored]
        decisions: FloatArray = z[block.scored] + m[codes] - 0.5 * np.diag(own) + self._log_priors
        return decisions[:, 1:] - decisions[:, :1] if len(own) == 2 else decisions
