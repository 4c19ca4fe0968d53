"""The singular values of features, and where targets lie among their directions, for any number of samples.

From the eigenvectors of the smaller one of X X^T and X^T X: several times faster than a singular value decomposition.
What is lost by it are directions weaker than about 1e-6 of the strongest, which in features of float32 are rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """``X = U diag(s) V^T`` without the directions in which X is zero up to rounding.

    Attributes
    ----------
    X : float64 array (n_samples, n_features)
    values : float64 array (rank,)
        s squared, ascending, all above ``max(X.shape) * eps`` of the largest.
    vectors : float64 array (n_samples, rank) or (n_features, rank)
        U where n_samples <= n_features, else V.
    """

    X: FloatArray
    values: FloatArray
    vectors: FloatArray

    @classmethod
    def of(cls, X: FloatArray) -> Spectrum:
        """Decompose finite features (n_samples, n_features)."""
        from scipy.linalg import eigh

        gram = X @ X.T if X.shape[0] <= X.shape[1] else X.T @ X
        values, vectors = eigh(gram, check_finite=False, driver="evd")
        kept = values > max(values[-1], 0.0) * max(X.shape) * EPS
        return cls(X, values[kept], vectors[:, kept])

    @property
    def rank(self) -> int:
        """How many directions there are."""
        return len(self.values)

    def coordinates(self, targets: FloatArray) -> FloatArray:
        """Return ``U^T targets``: (n_samples, k) to (rank, k)."""
        if self._of_samples:
            return self.vectors.T @ targets
        coordinates: FloatArray = (self.vectors.T @ (self.X.T @ targets)) / np.sqrt(self.values)[:, None]
        return coordinates

    def outside(self, targets: FloatArray, coordinates: FloatArray) -> FloatArray:
        """Return the part (n_samples, k) of targets that is no linear function of the features."""
        if self._of_samples:
            return targets - self.vectors @ coordinates
        outside: FloatArray = targets - self.X @ (self.vectors @ (coordinates / np.sqrt(self.values)[:, None]))
        return outside

    @property
    def _of_samples(self) -> bool:
        return bool(self.X.shape[0] <= self.X.shape[1])


def squared_singular_values(X: FloatArray) -> FloatArray:
    """Return the squared singular values (min(X.shape),) of a matrix, ascending."""
    from scipy.linalg import eigvalsh

    values = eigvalsh(X @ X.T if X.shape[0] <= X.shape[1] else X.T @ X, check_finite=False)
    positive: FloatArray = np.maximum(values, 0.0)
    return positive
