"""Many heads on small training sets, and what they call other rows.

Linear heads on a few rows are fitted many at a time: each set is put into coordinates of its own span, so that it needs
no more of them than it has rows, and the sets lie one below the other in one matrix, which `featx.learn.path` solves at
once. The other heads need no solver, and are fitted one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featx.learn.coordinates import Isometry
from featx.learn.draws import Draw
from featx.learn.heads import HEADS, NEIGHBOURS, NOTHING, SHRINKAGES, STRENGTHS, find_head, make_scaler
from featx.learn.inner_folds import OWN_SCALING, Rules, Samples, score_inner_folds
from featx.learn.path import fit_path
from featx.learn.splits import make_folds
from featx.learn.training import Scored, TrainingParts

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

STACKED = {"logreg": "multinomial", "logreg-ovr": "logistic", "svm": "squared_hinge"}
"""Heads of which several are fitted at once, and their loss in `featx.learn.path`."""
_TOL = 1e-6
"""Norm of the gradient at which a fit ends: what it says is reported."""
_AT_ONCE = 512
"""Rows of the sets in one matrix: more would be mostly other sets' rows."""


@dataclass(frozen=True)
class Fixed:
    """The values of the heads' parameters that are taken where nothing is chosen.

    Attributes
    ----------
    C, alpha, shrinkage : float
    n_neighbors : int
        At most so many: never more than there are labelled samples of a class.
    """

    C: float = 10.0
    alpha: float = 1.0
    shrinkage: float = 0.8
    n_neighbors: int = 20

    def value(self, head: str, k: int) -> float:
        """Return the value for a head on k samples of each class."""
        parameter = find_head(head).parameter
        if parameter is STRENGTHS:
            return self.C
        if parameter is SHRINKAGES:
            return self.shrinkage
        if parameter is NEIGHBOURS:
            return float(min(k, self.n_neighbors))
        return 0.0 if parameter is NOTHING else self.alpha

    def describe(self, head: str) -> str:
        """Say in words what is taken for a head; ``""`` for what has no parameter, or is no head."""
        if head not in HEADS or not HEADS[head].parameter.name:
            return ""
        if HEADS[head].parameter is NEIGHBOURS:
            return f"{head}: n_neighbors = k, at most {self.n_neighbors}"
        return f"{head}: {HEADS[head].parameter.name} = {self.value(head, 1):g}"


@dataclass(frozen=True, eq=False)
class Called:
    """What a head fitted on a draw calls the scored samples.

    Attributes
    ----------
    codes : int array (n_scored,)
    converged : bool
    """

    codes: IntArray
    converged: bool


def call(
    samples: Samples, codes: IntArray, draws: Sequence[Draw], head: str, values: Sequence[float]
) -> Iterator[Called]:
    """Fit a head on each draw and call what the draw leaves to be scored.

    Parameters
    ----------
    samples : Samples
        One row each.
    codes : int array (n_samples,)
        Class of each; those of a draw are the classes of its fitted samples, at least two.
    draws : sequence of Draw
    head : str
        As `featx.learn.heads.find_head` takes it.
    values : sequence of float
        Of the head's parameter, one for each draw.

    Yields
    ------
    Called
        In the order of the draws. Predictions are those of `featx.learn.heads.make_head` fitted on the draw, to within
        the solver's tolerance.
    """
    one_by_one = _call_stacked if head in STACKED else _call_each
    yield from one_by_one(samples, codes, draws, head, values)


def _call_each(
    samples: Samples, codes: IntArray, draws: Sequence[Draw], head: str, values: Sequence[float]
) -> Iterator[Called]:
    found = find_head(head)
    for draw, value in zip(draws, values, strict=True):
        known, own = np.unique(codes[draw.fitted], return_inverse=True)
        fitted, scored = _scaled(samples, draw, isometric=found.is_isometric)
        n, m = len(fitted), len(scored)
        places = np.concatenate([own, np.zeros(m, dtype=np.int64)])  # of what is scored no head sees the class
        parts = TrainingParts(
            np.concatenate([fitted, scored]),
            places,
            (np.arange(n),),
            (np.arange(n, n + m),),
            samples.X.shape[1],
        )
        said: Scored = next(iter(found.search(parts, [value])))
        yield Called(known[said.predicted[0]], bool(said.converged[0]))


def _call_stacked(
    samples: Samples, codes: IntArray, draws: Sequence[Draw], head: str, values: Sequence[float]
) -> Iterator[Called]:
    start = 0
    while start < len(draws):
        stop, n_rows = start + 1, len(draws[start].fitted)
        n_classes = len(np.unique(codes[draws[start].fitted]))
        while (
            stop < len(draws)
            and n_rows + len(draws[stop].fitted) <= _AT_ONCE
            and values[stop] == values[start]
            and len(np.unique(codes[draws[stop].fitted])) == n_classes
        ):
            n_rows += len(draws[stop].fitted)
            stop += 1
        yield from _call_stack(samples, codes, draws[start:stop], STACKED[head], values[start])
        start = stop


def _call_stack(samples: Samples, codes: IntArray, draws: Sequence[Draw], loss: str, value: float) -> Iterator[Called]:
    rows = [_scaled(samples, draw, isometric=True) for draw in draws]
    bases = [Isometry(fitted) for fitted, _ in rows]
    coordinates = [basis.transform(fitted) for basis, (fitted, _) in zip(bases, rows, strict=True)]
    known = [np.unique(codes[draw.fitted]) for draw in draws]
    X = np.zeros((sum(map(len, coordinates)), max(each.shape[1] for each in coordinates)))
    weights = np.zeros((len(draws), len(X)))
    start = 0
    for number, own in enumerate(coordinates):
        X[start : start + len(own), : own.shape[1]] = own
        weights[number, start : start + len(own)] = 1.0
        start += len(own)
    places = np.concatenate([np.searchsorted(k, codes[draw.fitted]) for k, draw in zip(known, draws, strict=True)])
    found = fit_path(X, places, np.array([value]), weights, loss=loss, tol=_TOL)
    for number, (_, scored) in enumerate(rows):
        coef = bases[number].restore(found.coef[number, 0, :, : coordinates[number].shape[1]])
        decisions = scored @ coef.T + found.intercept[number, 0]
        said = Scored.of_decisions(decisions[None])
        yield Called(known[number][said.predicted[0]], bool(found.converged[number, 0]))


def _scaled(samples: Samples, draw: Draw, *, isometric: bool) -> tuple[FloatArray, FloatArray]:
    """Return the fitted and the scored rows of a draw, scaled."""
    if samples.scaling in OWN_SCALING:
        scaler = make_scaler(samples.scaling).fit(samples.X[draw.fitted])
        return scaler.transform(samples.X[draw.fitted]), scaler.transform(samples.X[draw.scored])
    X = samples.coordinates if isometric and samples.coordinates is not None else samples.X
    return X[draw.fitted], X[draw.scored]


def choose(
    samples: Samples,
    draw: Draw,
    groups: IntArray | None,
    head: str,
    values: Sequence[float],
    *,
    n_folds: int,
    scoring: str,
    random_state: int = 0,
) -> float:
    """Choose the value of a head's parameter by cross-validation inside a draw; of equals the simplest, the first.

    Raises
    ------
    LabelsError
        If the draw has too few samples or groups for the folds.
    """
    rows = draw.fitted
    folds = make_folds(
        samples.y[rows],
        None if groups is None else groups[rows],
        n_splits=n_folds,
        random_state=random_state,
        what="the inner folds of a draw",
        option="--inner-cv",
    )
    own = Samples(
        samples.X[rows],
        samples.y[rows],
        samples.scaling,
        None if samples.coordinates is None else samples.coordinates[rows],
    )
    inner = [(fold.train, fold.test) for fold in folds]
    found = score_inner_folds(own, {head: values}, inner, Rules(scoring, random_state=random_state))
    return float(values[int(np.argmax(np.round(found[head].scores.mean(axis=0), 12)))])
