"""Features in fewer coordinates, in which every distance and every angle is what it was.

Whatever depends on distances and angles alone, which is every head of featx, may be fitted in such coordinates. n rows
need no more than n of them, however many features there are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_RANK = 1e-13
"""Directions in which the rows vary by less than this share of the largest variance hold rounding errors only."""
_PRODUCTS, _SLOWER, _EIGEN = 20, 4, 10
"""Counted and timed on real and generated features of 400 to 10,000 rows, see `is_worth_while`."""
_LARGEST = 2048
"""Above this many coordinates finding them takes longer than what it saves."""


def is_worth_while(shape: tuple[int, int], n_fits: int) -> bool:
    """Tell whether so many fits by `featx.learn.path` save more time in coordinates than finding those takes.

    Coordinates cost a Gram matrix, its eigenvectors and, with more rows than features, a rotation. A fit is about
    `_PRODUCTS` products of the rows with a vector, at a fourth of the speed of products of matrices; in coordinates
    each is as much shorter as there are fewer of them, and there are a third fewer, because they are uncorrelated.

    Parameters
    ----------
    shape : tuple of int
        Of the rows: samples, features.
    n_fits : int
        Training parts times `n_functions` times values of C.
    """
    n_samples, n_features = shape
    n = min(shape)
    finding = (1 if n_samples < n_features else 2) * 2 * n * n_samples * n_features + _EIGEN * n**3
    fits = n_fits * _PRODUCTS * 2 * n_samples * n_features * _SLOWER
    return fits * (1 - 2 / 3 * n / n_features) > finding


def n_functions(n_classes: int) -> int:
    """Return how many functions tell so many classes apart: one is enough for two."""
    return n_classes if n_classes > 2 else 1


class Isometry:
    """An orthonormal basis of the span of some rows.

    The first coordinates are uncorrelated over these rows, which makes Newton's method short
    (`featx.learn.path`); where the mean row is outside their span, the last one is the same for all rows.

    Parameters
    ----------
    X : float64 array (n_samples, n_features)

    Attributes
    ----------
    basis : float64 array (n_features, n_coordinates), or None
        None where the features are their own coordinates: more of them than is worth while (`_LARGEST`).
    """

    def __init__(self, X: FloatArray) -> None:
        self.basis: FloatArray | None = None if min(X.shape) > _LARGEST else _basis(X)

    def transform(self, X: FloatArray) -> FloatArray:
        """Return rows (n, n_features) of the span in the basis (n, n_coordinates); others lose what is outside."""
        return X if self.basis is None else X @ self.basis

    def restore(self, coef: FloatArray) -> FloatArray:
        """Return coefficients (..., n_coordinates) for the features (..., n_features)."""
        return coef if self.basis is None else coef @ self.basis.T


def span_coordinates(X: FloatArray) -> FloatArray:
    """Return rows (n_samples, n_features) in coordinates of their span (n_samples, n_coordinates).

    Those of `Isometry`, up to signs, without its basis: with fewer rows than features that is most of the work.
    """
    n_samples, n_features = X.shape
    if n_samples >= n_features or n_samples > _LARGEST:
        return Isometry(X).transform(X)
    mean = X.mean(axis=0)
    centred = X - mean
    values, vectors = np.linalg.eigh(centred @ centred.T)
    kept = values > max(values[-1], 0.0) * _RANK
    values, vectors = values[kept], vectors[:, kept]
    # The mean's share of the span is centred.T @ combined.
    combined = vectors @ ((vectors.T @ (centred @ mean)) / values)
    inside = np.sqrt(values) * (vectors.T @ combined)
    outside = np.linalg.norm(mean - centred.T @ combined)
    rows = vectors * np.sqrt(values) + inside
    return np.column_stack([rows, np.full(n_samples, outside)]) if _is_outside(outside, mean) else rows


def _basis(X: FloatArray) -> FloatArray:
    n_samples, n_features = X.shape
    mean = X.mean(axis=0)
    centred = X - mean
    if n_samples < n_features:
        values, vectors = np.linalg.eigh(centred @ centred.T)
        kept = values > max(values[-1], 0.0) * _RANK
        # The small directions come out of a Gram matrix with half the digits only: made orthonormal once more.
        basis = (centred.T @ vectors[:, kept]) / np.sqrt(values[kept])
        basis = basis @ np.linalg.inv(np.linalg.cholesky(basis.T @ basis)).T
    else:
        values, vectors = np.linalg.eigh(centred.T @ centred)
        basis = vectors[:, values > max(values[-1], 0.0) * _RANK]
    outside = mean - basis @ (basis.T @ mean)
    length = np.linalg.norm(outside)
    if _is_outside(length, mean):
        basis = np.column_stack([basis, outside / length])
    if basis.shape[1] == 0:  # nothing but zeros: any direction will do
        basis = np.eye(n_features, 1)
    return np.ascontiguousarray(basis)


def _is_outside(length: np.floating, mean: FloatArray) -> bool:
    """Tell whether what a mean row has outside the span of the centred rows is more than rounding errors."""
    return bool(length > 1e-10 * np.linalg.norm(mean))
