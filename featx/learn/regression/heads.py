"""The heads of a regression: scikit-learn regressors on features, each with its scaling in one pipeline.

As in `featx.learn.heads`, `make_head` is the definition, and `NumberHead.search` gives what it would predict at many
values of its parameter at a fraction of the cost. Numbers are centred by every head; where their unit matters
(`svr`), they are also scaled to a deviation of 1, by the training part alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import cosine_distances
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from featx.errors import UnknownNameError
from featx.learn.heads import ALPHAS, NEIGHBOURS, NOTHING, STRENGTHS, Parameter, make_scaler
from featx.learn.kernel import gaussian_kernel
from featx.learn.neighbours import nearest_weights
from featx.learn.own import make_own, own_head
from featx.learn.ridge import ridge_path

FloatArray = NDArray[np.float64]

EPSILON = 0.1
"""Errors of `svr` up to this many standard deviations of the training part's numbers cost nothing (scikit-learn's)."""
_AT_ONCE = 1 << 24  # numbers in one matrix of distances


@dataclass(frozen=True, eq=False)
class NumberPart:
    """A training part, scaled, and the rows that are scored by what is fitted on it.

    Attributes
    ----------
    X : float64 array (n_fitted, n_features)
    y : float64 array (n_fitted,)
    others : float64 array (n_scored, n_features)
    random_state : int
    """

    X: FloatArray
    y: FloatArray
    others: FloatArray
    random_state: int = 0


@dataclass(frozen=True)
class NumberHead:
    """One kind of regressor.

    Attributes
    ----------
    name, summary : str
        As in ``--head``, and one line about it.
    parameter : Parameter
    make : callable (value, random_state) -> regressor
        The unfitted regressor on scaled features.
    search : callable (NumberPart, values) -> float64 array (n_values, n_scored)
        What `make` would predict at each value.
    is_isometric : bool
        Whether it depends on distances and angles alone, and may be fitted in `featx.learn.coordinates`.
    """

    name: str
    summary: str
    parameter: Parameter
    make: Callable[[float, int], Any]
    search: Callable[[NumberPart, Sequence[float]], FloatArray]
    is_isometric: bool = True


def _search_ridge(part: NumberPart, values: Sequence[float]) -> FloatArray:
    return ridge_path(part.X, part.y[:, None], part.others, values)[:, :, 0]


def _search_svr(part: NumberPart, values: Sequence[float]) -> FloatArray:
    kernel, others = gaussian_kernel(part.X, part.X), gaussian_kernel(part.others, part.X)
    models = [_svr(C, kernel="precomputed").fit(kernel, part.y) for C in values]
    return np.stack([model.predict(others) for model in models])


def _search_knn(part: NumberPart, values: Sequence[float]) -> FloatArray:
    at_once = max(1, _AT_ONCE // len(part.X))
    blocks = [
        _means(cosine_distances(part.others[start : start + at_once], part.X), part.y, values)
        for start in range(0, len(part.others), at_once)
    ]
    return np.concatenate(blocks, axis=1)


def _means(distances: FloatArray, y: FloatArray, values: Sequence[float]) -> FloatArray:
    """Return the weighted mean of the nearest neighbours' numbers (n_values, n_scored)."""
    nearest, weights = nearest_weights(distances, values)
    numbers = y[nearest]
    return np.stack([np.sum(own * numbers[:, : own.shape[1]], axis=1) / own.sum(axis=1) for own in weights])


def _search_own(part: NumberPart, values: Sequence[float], *, make: Callable[[float, int], Any]) -> FloatArray:
    models = [make(value, part.random_state).fit(part.X, part.y) for value in values]
    return np.stack([np.asarray(model.predict(part.others), dtype=np.float64).reshape(-1) for model in models])


def _svr(C: float, *, kernel: str = "rbf") -> TransformedTargetRegressor:
    return TransformedTargetRegressor(
        SVR(C=C, kernel=kernel, gamma="scale", epsilon=EPSILON), transformer=StandardScaler()
    )


def _make_own(_value: float, random_state: int, *, name: str) -> Any:
    return make_own(0.0, None, random_state, name=name, kind="regressor")


HEADS = {
    head.name: head
    for head in (
        NumberHead(
            "ridge",
            "ridge regression: least squares with an L2 penalty",
            ALPHAS,
            lambda alpha, _: Ridge(alpha=alpha),
            _search_ridge,
        ),
        NumberHead(
            "svr",
            "support vector regression with a Gaussian kernel, on scaled numbers",
            STRENGTHS,
            lambda C, _: _svr(C),
            _search_svr,
            is_isometric=False,  # gamma depends on the mean of all numbers
        ),
        NumberHead(
            "knn",
            "nearest neighbours by cosine distance, weighted by its inverse",
            NEIGHBOURS,
            lambda n_neighbors, _: KNeighborsRegressor(
                int(n_neighbors), metric="cosine", weights="distance", algorithm="brute"
            ),
            _search_knn,
        ),
    )
}
"""By name, in the order in which ties are broken."""


def find_head(name: str) -> NumberHead:
    """Return the head of a name: one of `HEADS`, or that of a user's function, ``package.module:factory``.

    Raises
    ------
    UnknownNameError
        With close matches.
    UsageError, InputError
        A function that is not there, fails, or gives no regressor.
    """
    if name in HEADS:
        return HEADS[name]
    if ":" not in name:
        raise UnknownNameError(
            "head for --task regression", name, HEADS, hint="your own is written package.module:factory"
        )
    own_head(name, kind="regressor")
    make = partial(_make_own, name=name)
    return NumberHead(name, "your own", NOTHING, make, partial(_search_own, make=make), is_isometric=False)


def order_of(name: str) -> int:
    """Return a head's place in the order in which ties are broken: a user's own come last."""
    return list(HEADS).index(name) if name in HEADS else len(HEADS)


def make_head(name: str, value: float, scaling: str, random_state: int = 0) -> Pipeline:
    """Return the unfitted pipeline of a scaling and a head.

    Parameters
    ----------
    name, scaling : str
        As `find_head` takes it, and of `featx.learn.heads.SCALINGS`.
    value : float
        Of the head's parameter.
    random_state : int

    Returns
    -------
    sklearn.pipeline.Pipeline
        Steps ``scale`` (not with ``"raw"``) and ``head``.
    """
    scaler = make_scaler(scaling)
    steps = [("head", find_head(name).make(value, random_state))]
    return Pipeline(steps if scaler is None else [("scale", scaler), *steps])
