"""The support vector machine with a Gaussian kernel, at every C from one matrix of kernel values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import SVC

from featx.learn.training import Scored, TrainingParts

FloatArray = NDArray[np.float64]


def search_svm_rbf(parts: TrainingParts, values: Sequence[float]) -> Iterator[Scored]:
    """Score each part's rows by scikit-learn's `SVC` at each C; see `featx.learn.heads.Head.search`."""
    for fitted, scored in zip(parts.fitted, parts.scored, strict=True):
        X, codes = parts.X[fitted], parts.codes[fitted]
        kernel, others = gaussian_kernel(X, X), gaussian_kernel(parts.X[scored], X)
        predicted, decisions = [], []
        for C in values:
            model = SVC(C=C, kernel="precomputed", class_weight=parts.class_weight, random_state=parts.random_state)
            model.fit(kernel, codes)
            predicted.append(model.predict(others))
            decisions.append(model.decision_function(others))
        yield Scored(np.stack(predicted), np.stack(decisions), np.ones(len(values), dtype=bool))


def gaussian_kernel(A: FloatArray, X: FloatArray) -> FloatArray:
    """Return ``exp(-gamma ||a - x||^2)`` (n, n_samples) with the training rows X; gamma as SVC's ``"scale"``."""
    variance = X.var()
    gamma = 1.0 / (X.shape[1] * variance) if variance > 0 else 1.0
    squares = np.einsum("ij,ij->i", A, A)[:, None] + np.einsum("ij,ij->i", X, X) - 2.0 * (A @ X.T)
    kernel: FloatArray = np.exp(-gamma * np.maximum(squares, 0.0))
    return kernel
