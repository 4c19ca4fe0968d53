"""Ridge regression, and classification, at every strength of the penalty from one factorisation of a training part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from featx.learn.training import Scored, TrainingParts, class_weights

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def search_ridge(parts: TrainingParts, values: Sequence[float]) -> Iterator[Scored]:
    """Score each part's rows by scikit-learn's `RidgeClassifier` at each alpha; see `featx.learn.heads.Head.search`."""
    for fitted, scored in zip(parts.fitted, parts.scored, strict=True):
        codes = parts.codes[fitted]
        weights = class_weights(codes, parts.class_weight)
        yield Scored.of_decisions(ridge_path(parts.X[fitted], _targets(codes), parts.X[scored], values, weights))


def ridge_path(
    X: FloatArray, targets: FloatArray, others: FloatArray, values: Sequence[float], weights: FloatArray | None = None
) -> FloatArray:
    """Predict by ridge regressions with an intercept, at every alpha from one factorisation.

    With X, centred on its weighted mean, = U diag(s) V' the coefficients are ``V diag(s / (s^2 + alpha)) U' y``.

    Parameters
    ----------
    X : float64 array (n_samples, n_features)
    targets : float64 array (n_samples, n_targets)
    others : float64 array (n, n_features)
        The rows to predict.
    values : sequence of float
        Alphas, as scikit-learn's `Ridge` takes them.
    weights : float64 array (n_samples,), optional

    Returns
    -------
    float64 array (n_values, n, n_targets)
    """
    of_rows = (np.ones(len(X)) if weights is None else weights)[:, None]
    mean = (of_rows * X).sum(axis=0) / of_rows.sum()
    level = (of_rows * targets).sum(axis=0) / of_rows.sum()
    rows, others = np.sqrt(of_rows) * (X - mean), others - mean
    answers = np.sqrt(of_rows) * (targets - level)
    if len(rows) < rows.shape[1]:
        squares, vectors = np.linalg.eigh(rows @ rows.T)
        left, right = others @ rows.T @ vectors, vectors.T @ answers
    else:
        squares, vectors = np.linalg.eigh(rows.T @ rows)
        left, right = others @ vectors, vectors.T @ (rows.T @ answers)
    squares = np.maximum(squares, 0.0)
    return np.stack([(left / (squares + alpha)) @ right + level for alpha in values])


def _targets(codes: IntArray) -> FloatArray:
    """Return 1 for the class and -1 for the rest (n, n_functions); one function, for the second class, of two."""
    n_classes = int(codes.max()) + 1
    ones = 2.0 * np.eye(n_classes)[codes] - 1.0
    return ones[:, 1:] if n_classes == 2 else ones
