"""Linear heads at every strength of the penalty and on every training part at once.

All fits share one matrix of features, and differ in the class that they tell from the rest and in which rows count. So
each step of the solver is one product of that matrix with the coefficients of all fits that have not converged yet: it
is read from memory once for all of them, where a solver for one fit reads it for each, and the products are large ones,
at which processors are at their best. Each C starts from the optimum at the C before.

`featx.learn.newton` is the solver. The optimum is that of scikit-learn's `LogisticRegression` or `LinearSVC`; how near
a fit has come to it is stated (`PathResult.gradient`). `featx.learn.coordinates` makes the matrix small and the steps
few.

Everything runs in float64 in the namespace of the arrays it is given: NumPy's, or PyTorch's on any device. Of a large
matrix a float32 copy says in which direction a step goes, how far and whether it has arrived is measured in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featx.learn.losses import Logistic, Loss, Multinomial, SquaredHinge
from featx.learn.namespaces import Array, like, namespace, to_numpy
from featx.learn.newton import Problem, minimise

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

LOSSES = ("multinomial", "logistic", "squared_hinge")
"""The first has one function for each class and fits them together; the others one class, or one label, at a time."""

MAX_ITER = 100
"""Newton steps; a fit that needs more is not converged."""
_AT_ONCE = 1 << 24
"""Numbers in one array of scores; more fits are solved in several goes."""


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
    xp, grid = namespace(X), np.asarray(C, dtype=np.float64)
    centre = X.mean(axis=0) * (loss != "squared_hinge")  # a penalised intercept would be another one after centring
    rows = xp.concatenate([X, xp.ones_like(X[:, :1])], axis=1)
    rows[:, :-1] -= centre  # in place: X may fill much of the memory
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
        of_rows = like(X, np.ascontiguousarray(weights[part[:, 0], function[:, 0]].T))
        W = like(X, np.zeros((X.shape[1] + 1, together, len(part))))
        problem = Problem(rows, losses, of_rows, penalise_intercept=loss == "squared_hinge")
        for place in np.argsort(grid):  # each from the optimum at the C before
            norms, steps = minimise(problem.with_strength(float(grid[place])), W, tol, max_iter)
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


def _make_loss(name: str, targets: BoolArray, functions: IntArray, X: Array) -> Loss:
    """Return the loss of fits with these functions."""
    xp = namespace(X)
    if name == "multinomial" and targets.shape[1] > 1:
        return Multinomial(xp, like(X, targets.astype(np.float64)[:, :, None]))
    # Picked columns lie in memory the other way round; all that is computed from them would, too.
    own = like(X, np.ascontiguousarray(targets[:, functions])[:, None].astype(np.float64))
    return SquaredHinge(xp, 2.0 * own - 1.0) if name == "squared_hinge" else Logistic(xp, own)


def _restored(W: Array, centre: Array) -> tuple[FloatArray, FloatArray]:
    """Return coefficients (n_fits, n_functions, n_features) and intercepts (n_fits, n_functions) of uncentred rows."""
    xp = namespace(W)
    constants = W[-1] - xp.einsum("d,dkf->kf", centre, W[:-1])
    if len(constants) > 1:  # any constant may be added to all: scikit-learn's choice
        constants = constants - W[-1].mean(axis=0)
    return to_numpy(W[:-1]).transpose(2, 1, 0), to_numpy(constants).T
