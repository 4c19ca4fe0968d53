"""L2-penalised logistic regression at every C and on every training part at once.

All fits share one matrix of features, and differ in C and in which rows count. So each step of the solver is one product
of that matrix with the coefficients of all fits that have not converged yet, and the matrix is read from memory once for
all of them, where a solver for one fit reads it for each. In the basis in which the features are uncorrelated the Hessian
of every fit is nearly diagonal, which makes conjugate gradients short.

The optimum is that of scikit-learn's `LogisticRegression`; how near a fit has come is stated (`PathResult.gradient`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SEARCH_TOL = 1e-3
"""Where what is wanted of a fit is only whether it is better than another."""
_MAX_NEWTON = 100
_MAX_CG = 250
_MAX_HALVINGS = 30
_ARMIJO = 1e-4
_AT_ONCE = 1 << 24
"""Numbers in one array of scores; more fits are solved in several goes."""
_RANK = 1e-12
"""Directions whose variance is below this share of the largest one's hold rounding errors only."""


@dataclass(frozen=True, eq=False)
class PathResult:
    """Fitted coefficients.

    Attributes
    ----------
    coef : float64 array (n_parts, n_C, n_functions, n_features)
        One function for two classes, else one for each class.
    intercept : float64 array (n_parts, n_C, n_functions)
    gradient : float64 array (n_parts, n_C)
        Euclidean norm of the gradient of the mean loss with its penalty, where the solver stopped.
    n_iter : int array (n_parts, n_C)
        Newton steps.
    converged : bool array (n_parts, n_C)
    """

    coef: FloatArray
    intercept: FloatArray
    gradient: FloatArray
    n_iter: IntArray
    converged: NDArray[np.bool_]


class Rotation:
    """Features in an orthonormal basis of their span in which they are uncorrelated.

    Coefficients of an L2-penalised head lie in that span (the representer theorem), and their length does not change.
    Costs the eigenvalues of a matrix as large as the smaller side of X.

    Parameters
    ----------
    X : float64 array (n_samples, n_features)

    Attributes
    ----------
    rows : float64 array (n_samples, rank)
        X, less its mean, in the basis.
    """

    def __init__(self, X: FloatArray) -> None:
        self._mean = X.mean(axis=0)
        centred = X - self._mean
        n_samples, n_features = X.shape
        if n_samples <= n_features:
            values, vectors = eigh(centred @ centred.T)
            kept = values > max(values[-1], 0.0) * _RANK
            deviations = np.sqrt(values[kept])
            self.rows = np.ascontiguousarray(vectors[:, kept] * deviations)
            self._basis = centred.T @ (vectors[:, kept] / deviations)
        else:
            values, vectors = eigh(centred.T @ centred)
            self._basis = vectors[:, values > max(values[-1], 0.0) * _RANK]
            self.rows = centred @ self._basis

    def transform(self, X: FloatArray) -> FloatArray:
        """Return other rows (n, n_features) in the basis: (n, rank)."""
        return (X - self._mean) @ self._basis

    def restore(self, coef: FloatArray, intercept: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return coefficients (..., rank) and intercepts (...) for the features as they were."""
        coef = coef @ self._basis.T
        return coef, intercept - coef @ self._mean


def logistic_path(
    Z: FloatArray, codes: IntArray, C: FloatArray, weights: FloatArray, *, tol: float = 1e-6
) -> PathResult:
    """Fit logistic regression, multinomial for more than two classes, at every C on every training part.

    Minimises for each part and C, as scikit-learn's `LogisticRegression`,
    ``C * sum_i weights_i * loss_i + ||coef||^2 / 2``; the intercept is not penalised.

    Parameters
    ----------
    Z : float64 array (n_samples, n_features)
        Best from `Rotation`: the result does not depend on it, but the time does.
    codes : int array (n_samples,)
        Class of each row, from 0.
    C : float64 array (n_C,)
        Inverse strength of the penalty, > 0.
    weights : float64 array (n_parts, n_samples)
        How much a row counts in a part: 0 where it is not in it.
    tol : float
        Norm of the gradient of ``(C * sum + ...) / (C * sum of weights)`` at which a fit ends.

    Notes
    -----
    Newton's method with conjugate gradients and a line search (Nocedal and Wright, Numerical Optimization, 2nd ed.,
    algorithm 7.1), preconditioned by the diagonal that the Hessian has where every row has the mean curvature.
    """
    n_classes = int(codes.max()) + 1
    n_functions = 1 if n_classes == 2 else n_classes
    fits = [(part, place) for part in range(len(weights)) for place in range(len(C))]
    at_once = max(1, _AT_ONCE // (len(Z) * n_functions))
    coef = np.zeros((len(weights), len(C), n_functions, Z.shape[1]))
    intercept = np.zeros((len(weights), len(C), n_functions))
    gradient = np.zeros((len(weights), len(C)))
    n_iter = np.zeros((len(weights), len(C)), np.int64)
    rows = np.column_stack([Z, np.ones(len(Z))])
    for start in range(0, len(fits), at_once):
        parts, places = (np.array(each) for each in zip(*fits[start : start + at_once], strict=True))
        problem = _Problem(rows, _targets(codes, n_functions), C[places], weights[parts])
        W, gradient[parts, places], n_iter[parts, places] = _newton(problem, tol)
        coef[parts, places] = W[:-1].transpose(1, 2, 0)
        intercept[parts, places] = W[-1]
    if n_functions > 1:  # any constant may be added to all: scikit-learn's choice
        intercept -= intercept.mean(axis=-1, keepdims=True)
    return PathResult(coef, intercept, gradient, n_iter, gradient <= tol)


def _targets(codes: IntArray, n_functions: int) -> FloatArray:
    """Return (n_samples, n_functions): the class as ones and zeros."""
    if n_functions == 1:
        return codes[:, None].astype(np.float64)
    return np.eye(n_functions)[codes]


class _Problem:
    """Fits that are solved together; coefficients are (n_coordinates, n_fits, n_functions), the intercepts last."""

    def __init__(self, rows: FloatArray, targets: FloatArray, C: FloatArray, weights: FloatArray) -> None:
        self.rows, self.targets = rows, targets
        self.C = C
        self.weights = weights.T[:, :, None]  # (n_samples, n_fits, 1)
        # In units of the mean loss: sums do not grow with n, and C does not decide when a fit has converged.
        self.scale = 1.0 / weights.sum(axis=1)
        self.penalty = np.ones((rows.shape[1], 1, 1)) * (self.scale / C)[None, :, None]
        self.penalty[-1] = 0.0
        self.squares = np.square(rows).T @ weights.T * self.scale  # mean square of each coordinate in each part
        self.n_functions = targets.shape[1]

    def only(self, kept: NDArray[np.bool_]) -> _Problem:
        """Return the problem of some of the fits."""
        return _Problem(self.rows, self.targets, self.C[kept], self.weights[:, kept, 0].T)

    def scores(self, W: FloatArray) -> FloatArray:
        """Return (n_samples, n_fits, n_functions)."""
        shape = W.shape
        return (self.rows @ W.reshape(shape[0], -1)).reshape(len(self.rows), *shape[1:])

    def back(self, T: FloatArray) -> FloatArray:
        """Return the rows' sum weighted by T (n_samples, n_fits, n_functions), per fit and function."""
        shape = T.shape
        return (self.rows.T @ T.reshape(shape[0], -1)).reshape(self.rows.shape[1], *shape[1:])

    def probabilities(self, T: FloatArray) -> FloatArray:
        if self.n_functions == 1:
            return 0.5 * (1.0 + np.tanh(0.5 * T))
        T = np.exp(T - T.max(axis=2, keepdims=True))
        T /= T.sum(axis=2, keepdims=True)
        return T

    def values(self, T: FloatArray, W: FloatArray) -> FloatArray:
        """Return what is minimised, for each fit."""
        targets = self.targets[:, None, :]
        if self.n_functions == 1:
            losses = (np.logaddexp(0.0, T) - targets * T)[:, :, 0]
        else:
            top = T.max(axis=2)
            losses = np.log(np.exp(T - top[:, :, None]).sum(axis=2)) + top - (targets * T).sum(axis=2)
        loss = np.einsum("ij,ij->j", losses, self.weights[:, :, 0]) * self.scale
        result: FloatArray = loss + 0.5 * (self.penalty * np.square(W)).sum(axis=(0, 2))
        return result

    def gradients(self, P: FloatArray, W: FloatArray) -> FloatArray:
        residuals = (P - self.targets[:, None, :]) * self.weights
        return self.back(residuals) * self.scale[:, None] + self.penalty * W

    def curvatures(self, P: FloatArray) -> FloatArray:
        """Return the second derivatives of each row's loss by its own function's score, weighted."""
        return P * (1.0 - P) * self.weights

    def hessian_times(self, P: FloatArray, V: FloatArray) -> FloatArray:
        T = self.scores(V)
        if self.n_functions == 1:
            T *= P * (1.0 - P)
        else:
            T *= P
            T -= P * T.sum(axis=2, keepdims=True)
        T *= self.weights
        return self.back(T) * self.scale[:, None] + self.penalty * V


def _newton(problem: _Problem, tol: float) -> tuple[FloatArray, FloatArray, IntArray]:
    """Return the coefficients of all fits, the norm of their gradients, and the steps that they took."""
    n_fits = len(problem.C)
    W = np.zeros((problem.rows.shape[1], n_fits, problem.n_functions))
    norms, n_iter = np.zeros(n_fits), np.zeros(n_fits, np.int64)
    left = np.arange(n_fits)
    T = problem.scores(W)
    for _ in range(_MAX_NEWTON + 1):
        mine = W[:, left]
        P = problem.probabilities(T)
        gradient = problem.gradients(P, mine)
        norms[left] = np.sqrt(np.square(gradient).sum(axis=(0, 2)))
        open_ = norms[left] > tol
        if not open_.any():
            break
        if not open_.all():
            left, problem = left[open_], problem.only(open_)
            mine, T, P, gradient = mine[:, open_], T[:, open_], P[:, open_], gradient[:, open_]
        step = _conjugate_gradients(problem, P, gradient)
        moved, T, progress = _line_search(problem, mine, T, step, gradient)
        W[:, left] = moved
        n_iter[left] += 1
        if not progress.all():  # the value does not change any more in its last digits
            left, problem, T = left[progress], problem.only(progress), T[:, progress]
            if not len(left):
                break
    return W, norms, n_iter


def _conjugate_gradients(problem: _Problem, P: FloatArray, gradient: FloatArray) -> FloatArray:
    """Return about -H^-1 gradient of each fit, the nearer the smaller the gradient."""
    mean = problem.curvatures(P).sum(axis=0) * problem.scale[:, None]  # (n_fits, n_functions)
    diagonal = problem.squares[:, :, None] * mean[None] + problem.penalty
    diagonal = np.maximum(diagonal, 1e-12 * diagonal.max(axis=0))
    D = np.zeros_like(gradient)
    R = -gradient
    S = R / diagonal
    V = S.copy()
    rs = (R * S).sum(axis=(0, 2))
    size = np.sqrt(np.square(gradient).sum(axis=(0, 2)))
    enough = np.minimum(0.1, np.sqrt(size)) * size
    open_ = np.ones(len(size), dtype=bool)
    for _ in range(_MAX_CG):
        HV = problem.hessian_times(P, V)
        curvature = (V * HV).sum(axis=(0, 2))
        open_ &= curvature > 0
        alpha = np.where(open_, rs / np.where(open_, curvature, 1.0), 0.0)
        D += alpha[:, None] * V
        R -= alpha[:, None] * HV
        open_ &= np.sqrt(np.square(R).sum(axis=(0, 2))) > enough
        if not open_.any():
            break
        S = R / diagonal
        new = (R * S).sum(axis=(0, 2))
        V = S + (new / np.maximum(rs, 1e-300))[:, None] * V
        rs = new
    return D


def _line_search(
    problem: _Problem, W: FloatArray, T: FloatArray, step: FloatArray, gradient: FloatArray
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Go along each fit's step as far as its value falls; return coefficients, scores, and who got on."""
    slope = (step * gradient).sum(axis=(0, 2))
    moved = problem.scores(step)
    value = problem.values(T, W)
    lengths = np.ones(len(slope))
    done = np.zeros(len(slope), dtype=bool)
    for _ in range(_MAX_HALVINGS):
        tried = problem.values(T + lengths[:, None] * moved, W + lengths[:, None] * step)
        done |= tried <= value + _ARMIJO * lengths * slope + 1e-15 * np.abs(value)
        if done.all():
            break
        lengths = np.where(done, lengths, 0.5 * lengths)
    lengths = np.where(done, lengths, 0.0)
    return W + lengths[:, None] * step, T + lengths[:, None] * moved, done
