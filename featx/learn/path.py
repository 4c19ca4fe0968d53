"""Linear heads at every strength of the penalty and on every training part at once.

All fits share one matrix of features, and differ in the class that they tell from the rest and in which rows count. So
each step of the solver is one product of that matrix with the coefficients of all fits that have not converged yet: it
is read from memory once for all of them, where a solver for one fit reads it for each, and the products are large ones,
at which processors are at their best. Each C starts from the optimum at the C before.

The optimum is that of scikit-learn's `LogisticRegression` or `LinearSVC`; how near a fit has come to it is stated
(`PathResult.gradient`). `featx.learn.coordinates` makes the matrix small and the steps few.

Everything runs in float64 in the namespace of the arrays it is given: NumPy's, or PyTorch's on any device. Of a large
matrix a float32 copy says in which direction a step goes, how far and whether it has arrived is measured in float64.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.learn.losses import Array, Logistic, Loss, Multinomial, SquaredHinge

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

LOSSES = ("multinomial", "logistic", "squared_hinge")
"""The first has one function for each class and fits them together; the others one class, or one label, at a time."""

MAX_ITER = 100
"""Newton steps; a fit that needs more is not converged."""
_MAX_CG = 250
_MAX_HALVINGS = 30
_ARMIJO = 1e-4
_ROUNDING = 1e-11
"""Relative error of a sum of losses, where large terms cancel: a step that adds less has not made it worse."""
_AT_ONCE = 1 << 24
"""Numbers in one array of scores; more fits are solved in several goes."""
_ROUGH_FROM = 1 << 19
"""From so many numbers in the matrix on directions are computed in float32: caches hold less than that."""


@dataclass(frozen=True, eq=False)
class PathResult:
    """Fitted coefficients.

    Attributes
    ----------
    coef : float64 array (n_parts, n_C, n_functions, n_features)
        One function for two classes, else one for each class; or one for each label.
    intercept : float64 array (n_parts, n_C, n_functions)
    gradient : float64 array (n_parts, n_C)
        Euclidean norm of the gradient of ``(C * loss + penalty) / (C * sum of weights)`` where the solver stopped, the
        largest one over functions that are fitted one by one.
    n_iter : int array (n_parts, n_C)
        Newton steps; the most over such functions.
    converged : bool array (n_parts, n_C)
        Whether `gradient` is within the tolerance.
    """

    coef: FloatArray
    intercept: FloatArray
    gradient: FloatArray
    n_iter: IntArray
    converged: NDArray[np.bool_]


def fit_path(
    X: Array,
    codes: IntArray | BoolArray,
    C: FloatArray,
    weights: FloatArray,
    *,
    loss: str,
    tol: float,
    max_iter: int = MAX_ITER,
) -> PathResult:
    """Fit a linear head at every C on every training part.

    Minimises for each part and C ``C * sum_i weights_i * loss_i + ||coef||^2 / 2``. As in scikit-learn, the intercept
    is not penalised in logistic regression, and penalised in the support vector machine (`LinearSVC` treats it as the
    coefficient of a feature that is 1).

    Parameters
    ----------
    X : float64 array (n_samples, n_features)
        NumPy's, or PyTorch's: then everything runs where it lies.
    codes : int array (n_samples,), or bool array (n_samples, n_labels)
        Class of each row, from 0; at least two. Or which labels it has: each is told from its absence.
    C : float64 array (n_C,)
        Inverse strength of the penalty, > 0.
    weights : float64 array (n_parts, n_samples), or (n_parts, n_functions, n_samples)
        How much a row counts in a part: 0 where it is not in it. The second where that depends on the label.
    loss : str
        One of `LOSSES`. ``"multinomial"`` with two classes is ``"logistic"``, as in scikit-learn; it is not for labels.
    tol : float
        Norm of the gradient (see `PathResult.gradient`) at which a fit ends.
    max_iter : int
        Newton steps after which a fit ends all the same.

    Raises
    ------
    ValueError
        If a part has no row of some class: scikit-learn would leave the class out, a path cannot. Or none with, or
        without, some label.

    Notes
    -----
    Newton's method with conjugate gradients and a line search (Nocedal and Wright, Numerical Optimization, 2nd ed.,
    algorithm 7.1), preconditioned by the diagonal that the Hessian has where every row has the mean curvature. For the
    squared hinge, whose second derivative jumps, it is the finite Newton method (Mangasarian 2002; Keerthi and DeCoste,
    JMLR 6, 2005).
    """
    targets = _targets(codes)
    n_functions = targets.shape[1]
    weights = np.broadcast_to(weights.reshape(len(weights), -1, len(X)), (len(weights), n_functions, len(X)))
    _check_parts(targets, weights)
    together = n_functions if loss == "multinomial" else 1
    xp, grid = _namespace(X), np.asarray(C, dtype=np.float64)
    centre = X.mean(axis=0) * (loss != "squared_hinge")  # a penalised intercept would be another one after centring
    rows = xp.concatenate([X - centre, xp.ones_like(X[:, :1])], axis=1)
    shape = (len(weights), len(grid), n_functions)
    coef, intercept = np.zeros((*shape, X.shape[1])), np.zeros(shape)
    gradient, n_iter = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    # Each column is a part, and a function where they are fitted one by one.
    parts, functions = (axis.ravel() for axis in np.indices((len(weights), n_functions // together)))
    at_once = max(1, _AT_ONCE // (len(X) * together))
    for start in range(0, len(parts), at_once):
        part, function = parts[start : start + at_once, None], functions[start : start + at_once, None]
        if together > 1:
            function = np.arange(n_functions)[None]
        losses = _make_loss(loss, targets, function[:, 0], X)
        of_rows = _like(X, np.ascontiguousarray(weights[part[:, 0], function[:, 0]].T))
        W = _like(X, np.zeros((X.shape[1] + 1, together, len(part))))
        problem = _Problem(rows, losses, of_rows, penalise_intercept=loss == "squared_hinge")
        for place in np.argsort(grid):  # each from the optimum at the C before
            norms, steps = _newton(problem.with_strength(float(grid[place])), W, tol, max_iter)
            coefficients, constants = _restored(W, centre)
            coef[part, place, function], intercept[part, place, function] = coefficients, constants
            gradient[part, place, function], n_iter[part, place, function] = norms[:, None], steps[:, None]
    gradient, n_iter = gradient.max(axis=2), n_iter.max(axis=2)
    return PathResult(coef, intercept, gradient, n_iter, gradient <= tol)


def _targets(codes: IntArray | BoolArray) -> BoolArray:
    """Return what each function tells from the rest (n_samples, n_functions): of two classes, the second."""
    if codes.ndim == 2:
        return codes.astype(np.bool_)
    n_classes = int(codes.max()) + 1
    targets: BoolArray = codes[:, None] == (np.ones(1, dtype=np.int64) if n_classes == 2 else np.arange(n_classes))
    return targets


def _check_parts(targets: BoolArray, weights: FloatArray) -> None:
    inside = np.einsum("pfn,nf->pf", weights, targets)
    if not (inside > 0).all() or not (np.einsum("pfn,nf->pf", weights, ~targets) > 0).all():
        raise ValueError("every training part needs rows of at least two classes, and of each class there is")


def _namespace(X: Array) -> Any:
    if isinstance(X, np.ndarray):
        return np
    import sys

    return sys.modules["torch"]  # whoever has a tensor has imported it


def _like(X: Array, values: NDArray[Any]) -> Array:
    """Return the values beside X: as they are, or as a tensor on its device."""
    return values if isinstance(X, np.ndarray) else _namespace(X).asarray(values, device=X.device)


def _to_numpy(W: Array) -> NDArray[Any]:
    found: NDArray[Any] = W if isinstance(W, np.ndarray) else W.cpu().numpy()
    return found


def _make_loss(name: str, targets: BoolArray, functions: IntArray, X: Array) -> Loss:
    """Return the loss of fits with these functions."""
    xp = _namespace(X)
    if name == "multinomial" and targets.shape[1] > 1:
        return Multinomial(xp, _like(X, targets.astype(np.float64)[:, :, None]))
    # Picked columns lie in memory the other way round; all that is computed from them would, too.
    own = _like(X, np.ascontiguousarray(targets[:, functions])[:, None].astype(np.float64))
    return SquaredHinge(xp, 2.0 * own - 1.0) if name == "squared_hinge" else Logistic(xp, own)


def _restored(W: Array, centre: Array) -> tuple[FloatArray, FloatArray]:
    """Return coefficients (n_fits, n_functions, n_features) and intercepts (n_fits, n_functions) of uncentred rows."""
    xp = _namespace(W)
    constants = W[-1] - xp.einsum("d,dkf->kf", centre, W[:-1])
    if len(constants) > 1:  # any constant may be added to all: scikit-learn's choice
        constants = constants - W[-1].mean(axis=0)
    return _to_numpy(W[:-1]).transpose(2, 1, 0), _to_numpy(constants).T


class _Problem:
    """Fits that are solved together.

    Coefficients are (n_coordinates, n_functions, n_fits), the intercepts last; scores (n_samples, n_functions, n_fits).
    """

    def __init__(self, rows: Array, loss: Loss, weights: Array, *, penalise_intercept: bool) -> None:
        xp = _namespace(rows)
        self.rows, self.loss, self._weights = rows, loss, weights
        # In units of the mean loss: sums do not grow with n, and C does not decide when a fit has converged.
        self._scale = 1.0 / weights.sum(axis=0)
        self._penalised = xp.ones_like(rows[0])[:, None, None]
        self._penalised[-1] = float(penalise_intercept)
        self._penalty = self._penalised * self._scale
        is_large = rows.shape[0] * rows.shape[1] >= _ROUGH_FROM
        self.curvature = _Curvature.of(rows, loss, weights * self._scale, xp.float32 if is_large else xp.float64)

    def __len__(self) -> int:
        return int(self._scale.shape[0])

    def with_strength(self, C: float) -> _Problem:
        """Return the problem at a strength of the penalty."""
        found = copy.copy(self)
        found._penalty = self._penalised * (self._scale / C)
        found.curvature = self.curvature.with_penalty(found._penalty)
        return found

    def exact(self) -> _Problem | None:
        """Return the problem with curvatures in float64; None where they are already."""
        xp = _namespace(self.rows)
        if self.curvature.rows.dtype == xp.float64:
            return None
        found = copy.copy(self)
        exact = _Curvature.of(self.rows, self.loss, self._weights * self._scale, xp.float64)
        found.curvature = exact.with_penalty(self._penalty)
        return found

    def only(self, kept: Array) -> _Problem:
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

    def at(self, T: Array, W: Array) -> tuple[Array, Array]:
        """Return what is minimised (n_fits,), and the state of the loss."""
        losses, S = self.loss.at(T)
        return (losses * self._weights).sum(axis=0) * self._scale + 0.5 * _sums(self._penalty * W**2), S

    def gradients(self, S: Array, W: Array) -> Array:
        """Return its gradient, like coefficients."""
        slopes = self.loss.slopes(S)
        slopes *= self._weights[:, None]
        return _times(self.rows.T, slopes) * self._scale + self._penalty * W


@dataclass(frozen=True, eq=False)
class _Curvature:
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
    def of(cls, rows: Array, loss: Loss, weights: Array, dtype: Any) -> _Curvature:
        """Lay it out in a precision, without a penalty."""
        xp = _namespace(rows)
        rows, weights = xp.asarray(rows, dtype=dtype), xp.asarray(weights, dtype=dtype)
        squares = (rows**2).T @ weights
        return cls(rows, loss, weights, squares, 0.0 * squares[:, None])

    def with_penalty(self, penalty: Array) -> _Curvature:
        """Return it with another penalty."""
        return replace(self, penalty=_namespace(penalty).asarray(penalty, dtype=self.rows.dtype))

    def only(self, kept: Array) -> _Curvature:
        """Return that of some of the fits."""
        return _Curvature(
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
        xp = _namespace(diagonal)
        return xp.maximum(diagonal, 1e-12 * xp.amax(diagonal, axis=0) + 1e-30)


def _times(matrix: Array, values: Array) -> Array:
    """Return a matrix (n, m) times values (m, n_functions, n_fits)."""
    return (matrix @ values.reshape(len(values), -1)).reshape(len(matrix), *values.shape[1:])


def _newton(problem: _Problem, W: Array, tol: float, max_iter: int) -> tuple[FloatArray, IntArray]:
    """Move the coefficients W of all fits to their optimum; return the norms of the gradient there, and the steps."""
    norms, n_iter = np.zeros(len(problem)), np.zeros(len(problem), np.int64)
    left = np.arange(len(problem))
    mine, T = W, problem.scores(W)
    value, S = problem.at(T, mine)
    for step in range(max_iter + 1):
        gradient = problem.gradients(S, mine)
        norms[left] = _to_numpy(_norms(gradient))
        far = norms[left] > tol
        if step == max_iter or not far.any():
            break
        if not far.all():
            left, problem = left[far], problem.only(far)
            mine, T, S, value, gradient = (each[..., far] for each in (mine, T, S, value, gradient))
        direction = _conjugate_gradients(problem.curvature, S, gradient)
        mine, T, S, value, moved = _line_search(problem, (mine, T, value), direction, gradient)
        W[..., left] = mine
        n_iter[left] += moved
        if not moved.all():  # nothing along the direction is better within rounding
            exact = problem.exact()
            if exact is not None:  # nor within that of float32
                problem = exact
                continue
            left, problem = left[moved], problem.only(moved)
            mine, T, S, value = (each[..., moved] for each in (mine, T, S, value))
            if not len(left):
                break
    return norms, n_iter


def _sums(values: Array) -> Array:
    """Return the sum of each fit's values, like coefficients: as a product with ones, faster than NumPy's own sum."""
    rows = values.reshape(-1, values.shape[-1])
    return _namespace(values).ones_like(rows[:, 0]) @ rows


def _norms(values: Array) -> Array:
    """Return the Euclidean norm of each fit's values, like coefficients."""
    return _sums(values**2) ** 0.5


def _conjugate_gradients(curvature: _Curvature, S: Array, gradient: Array) -> Array:
    """Return about ``-H^-1 gradient`` of each fit, the nearer the smaller the gradient."""
    xp, dtype = _namespace(gradient), curvature.rows.dtype
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
            kept = _to_numpy(going)
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


def _line_search(
    problem: _Problem, start: tuple[Array, Array, Array], direction: Array, gradient: Array
) -> tuple[Array, Array, Array, Array, NDArray[np.bool_]]:
    """Go along each fit's direction as far as its value falls.

    The start is coefficients, scores and values; returned are these, with states before the values, and which fits
    have moved.
    """
    W, T, value = start
    slope, way = _sums(direction * gradient), problem.scores(direction)
    length, done = 1.0 + 0.0 * slope, slope != slope
    for _ in range(_MAX_HALVINGS):
        there, scores = W + length * direction, T + length * way
        tried, S = problem.at(scores, there)
        done = done | (tried <= value + _ARMIJO * length * slope + _ROUNDING * abs(value))
        if done.all():
            return there, scores, S, tried, _to_numpy(done)
        length = length * (1.0 - 0.5 * ~done)
    length = length * done
    there, scores = W + length * direction, T + length * way
    tried, S = problem.at(scores, there)
    return there, scores, S, tried, _to_numpy(done)
