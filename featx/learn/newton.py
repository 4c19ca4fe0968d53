"""Newton's method for many fits at once, on one matrix of rows; see `featx.learn.path`.

Coefficients are arrays (n_coordinates, n_functions, n_fits), the intercepts last; scores, and states of a loss, are
(n_samples, n_functions, n_fits). They are of NumPy or PyTorch.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.learn.losses import Loss
from featx.learn.namespaces import Array, namespace, to_numpy

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_MAX_CG = 250
_MAX_HALVINGS = 30
_ARMIJO = 1e-4
_ROUNDING = 1e-11
"""Relative error of a sum of losses, where large terms cancel: a step that adds less has not made it worse."""
_BLOCK = 512
"""Rows whose squares are there at a time: those of all would be another matrix to find memory for."""
_ROUGH_FROM = 1 << 19
"""From so many numbers in the matrix on directions are computed in float32: caches hold less than that."""


def minimise(problem: Problem, W: Array, tol: float, max_iter: int) -> tuple[FloatArray, IntArray]:
    """Move the coefficients W of all fits to their optimum.

    Returns
    -------
    norms : float64 array (n_fits,)
        Of the gradient there, at most `tol` where a fit has converged.
    n_iter : int array (n_fits,)
        Newton steps.
    """
    norms, n_iter = np.zeros(len(problem)), np.zeros(len(problem), np.int64)
    left = np.arange(len(problem))
    point = problem.at(W, problem.scores(W))
    for step in range(max_iter + 1):
        gradient = problem.gradients(point)
        norms[left] = to_numpy(_norms(gradient))
        far = norms[left] > tol
        if step == max_iter or not far.any():
            break
        if not far.all():
            left, problem, point, gradient = left[far], problem.only(far), point.only(far), gradient[..., far]
        direction = _conjugate_gradients(problem.curvature, point.S, gradient)
        point, moved = _line_search(problem, point, direction, gradient)
        W[..., left] = point.W
        n_iter[left] += moved
        if not moved.all():  # nothing along the direction is better within rounding
            exact = problem.exact()
            if exact is not None:  # nor within that of float32
                problem = exact
                continue
            left, problem, point = left[moved], problem.only(moved), point.only(moved)
            if not len(left):
                break
    return norms, n_iter


@dataclass(frozen=True, eq=False)
class Point:
    """Where fits are.

    Attributes
    ----------
    W : array
        Coefficients.
    T : array
        The rows' scores by them.
    S : array
        State of the loss at these scores.
    value : array (n_fits,)
        What is minimised.
    """

    W: Array
    T: Array
    S: Array
    value: Array

    def only(self, kept: Array) -> Point:
        """Return where some of the fits are."""
        return Point(*(each[..., kept] for each in (self.W, self.T, self.S, self.value)))


class Problem:
    """Fits that are solved together.

    Parameters
    ----------
    rows : float64 array (n_samples, n_coordinates)
        The last coordinate is 1: that of the intercept.
    loss : Loss
    weights : float64 array (n_samples, n_fits)
        How much a row counts.
    penalise_intercept : bool
    """

    def __init__(self, rows: Array, loss: Loss, weights: Array, *, penalise_intercept: bool) -> None:
        xp = namespace(rows)
        self.rows, self.loss, self._weights = rows, loss, weights
        # In units of the mean loss: sums do not grow with n, and C does not decide when a fit has converged.
        self._scale = 1.0 / weights.sum(axis=0)
        self._penalised = xp.ones_like(rows[0])[:, None, None]
        self._penalised[-1] = float(penalise_intercept)
        self._penalty = self._penalised * self._scale
        is_large = rows.shape[0] * rows.shape[1] >= _ROUGH_FROM
        self.curvature = Curvature.of(rows, loss, weights * self._scale, xp.float32 if is_large else xp.float64)

    def __len__(self) -> int:
        return int(self._scale.shape[0])

    def with_strength(self, C: float) -> Problem:
        """Return the problem at a strength of the penalty."""
        found = copy.copy(self)
        found._penalty = self._penalised * (self._scale / C)
        found.curvature = self.curvature.with_penalty(found._penalty)
        return found

    def exact(self) -> Problem | None:
        """Return the problem with curvatures in float64; None where they are already."""
        xp = namespace(self.rows)
        if self.curvature.rows.dtype == xp.float64:
            return None
        found = copy.copy(self)
        exact = Curvature.of(self.rows, self.loss, self._weights * self._scale, xp.float64)
        found.curvature = exact.with_penalty(self._penalty)
        return found

    def only(self, kept: Array) -> Problem:
        """Return the problem of some of the fits."""
        found = copy.copy(self)
        found.loss, found.curvature = self.loss.only(kept), self.curvature.only(kept)
        found._weights, found._scale, found._penalty = (
            each[..., kept] for each in (self._weights, self._scale, self._penalty)
        )
        return found

    def scores(self, W: Array) -> Array:
        """Return the rows' scores by coefficients."""
        return _times(self.rows, W)

    def at(self, W: Array, T: Array) -> Point:
        """Return the point at coefficients and the scores by them."""
        losses, S = self.loss.at(T)
        mean = (losses * self._weights).sum(axis=0) * self._scale
        return Point(W, T, S, mean + 0.5 * _sums(self._penalty * W**2))

    def gradients(self, point: Point) -> Array:
        """Return the gradient at a point, like coefficients."""
        slopes = self.loss.slopes(point.S)
        slopes *= self._weights[:, None]
        return _times(self.rows.T, slopes) * self._scale + self._penalty * point.W


@dataclass(frozen=True, eq=False)
class Curvature:
    """The second derivatives of what some fits minimise, in the precision of its arrays.

    Attributes
    ----------
    rows : array (n_samples, n_coordinates)
    loss : Loss
    weights : array (n_samples, n_fits)
        Adding up to 1 for each fit.
    squares : array (n_coordinates, n_fits)
        Mean square of each coordinate.
    penalty : array (n_coordinates, 1, n_fits)
    """

    rows: Array
    loss: Loss
    weights: Array
    squares: Array
    penalty: Array

    @classmethod
    def of(cls, rows: Array, loss: Loss, weights: Array, dtype: Any) -> Curvature:
        """Lay it out in a precision, without a penalty."""
        xp = namespace(rows)
        rows, weights = xp.asarray(rows, dtype=dtype), xp.asarray(weights, dtype=dtype)
        squares = sum(
            (rows[start : start + _BLOCK] ** 2).T @ weights[start : start + _BLOCK]
            for start in range(0, len(rows), _BLOCK)
        )
        return cls(rows, loss, weights, squares, 0.0 * squares[:, None])

    def with_penalty(self, penalty: Array) -> Curvature:
        """Return it with another penalty."""
        return replace(self, penalty=namespace(penalty).asarray(penalty, dtype=self.rows.dtype))

    def only(self, kept: Array) -> Curvature:
        """Return that of some of the fits."""
        return Curvature(
            self.rows,
            self.loss.only(kept),
            *(each[..., kept] for each in (self.weights, self.squares, self.penalty)),
        )

    def times(self, S: Array, V: Array) -> Array:
        """Return the second derivatives times V, both like coefficients."""
        T = self.loss.curvature_times(S, _times(self.rows, V))
        T *= self.weights[:, None]
        return _times(self.rows.T, T) + self.penalty * V

    def diagonal(self, S: Array) -> Array:
        """Return their diagonal, like coefficients, were the mean curvature that of every row."""
        mean = (self.loss.curvatures(S) * self.weights[:, None]).sum(axis=0)  # (n_functions, n_fits)
        diagonal = self.squares[:, None] * mean + self.penalty
        # A coordinate that is always 0, and an intercept without a penalty where no row has curvature left, have none.
        xp = namespace(diagonal)
        return xp.maximum(diagonal, 1e-12 * xp.amax(diagonal, axis=0) + 1e-30)


def _times(matrix: Array, values: Array) -> Array:
    """Return a matrix (n, m) times values (m, n_functions, n_fits)."""
    return (matrix @ values.reshape(len(values), -1)).reshape(len(matrix), *values.shape[1:])


def _sums(values: Array) -> Array:
    """Return the sum of each fit's values, like coefficients: as a product with ones, faster than NumPy's own sum."""
    rows = values.reshape(-1, values.shape[-1])
    return namespace(values).ones_like(rows[:, 0]) @ rows


def _norms(values: Array) -> Array:
    """Return the Euclidean norm of each fit's values, like coefficients."""
    return _sums(values**2) ** 0.5


def _conjugate_gradients(curvature: Curvature, S: Array, gradient: Array) -> Array:
    """Return about ``-H^-1 gradient`` of each fit, the nearer the smaller the gradient."""
    xp, dtype = namespace(gradient), curvature.rows.dtype
    size = _norms(gradient)
    unit = size + (size == 0)
    S, R = xp.asarray(S, dtype=dtype), xp.asarray(-gradient / unit, dtype=dtype)
    # Superlinear convergence, but no waste far away.
    enough = xp.asarray(xp.where(size < 0.01, size**0.5, 0.1 + 0.0 * size), dtype=dtype)
    found, left = 0.0 * R, np.arange(len(size))
    diagonal = curvature.diagonal(S)
    D, V = 0.0 * R, R / diagonal
    rz = _sums(R * V)
    going = rz > 0
    for _ in range(_MAX_CG):
        HV = curvature.times(S, V)
        bend = _sums(V * HV)
        going = going & (bend > 0)
        alpha = xp.where(going, rz / xp.where(going, bend, 1.0 + 0.0 * rz), 0.0 * rz)
        D += alpha * V
        R -= alpha * HV
        going = going & (_norms(R) > enough)
        n_going = int(going.sum())
        if 2 * n_going <= len(left):  # no products for those that have arrived
            found[..., left] = D
            if not n_going:
                break
            kept = to_numpy(going)
            left, curvature = left[kept], curvature.only(kept)
            S, R, D, V, diagonal, rz, enough, going = (
                each[..., kept] for each in (S, R, D, V, diagonal, rz, enough, going)
            )
        Z = R / diagonal
        new = _sums(R * Z)
        V = Z + new / xp.where(rz > 0, rz, 1.0 + 0.0 * rz) * V
        rz = new
    else:
        found[..., left] = D
    return xp.asarray(found, dtype=gradient.dtype) * unit


def _line_search(problem: Problem, start: Point, direction: Array, gradient: Array) -> tuple[Point, NDArray[np.bool_]]:
    """Go along each fit's direction as far as its value falls; return where that is, and which fits have moved."""
    slope, way = _sums(direction * gradient), problem.scores(direction)

    def along(length: Array) -> Point:
        return problem.at(start.W + length * direction, start.T + length * way)

    length, done = 1.0 + 0.0 * slope, slope != slope
    for _ in range(_MAX_HALVINGS):
        point = along(length)
        done = done | (point.value <= start.value + _ARMIJO * length * slope + _ROUNDING * abs(start.value))
        if done.all():
            return point, to_numpy(done)
        length = length * (1.0 - 0.5 * ~done)
    return along(length * done), to_numpy(done)
