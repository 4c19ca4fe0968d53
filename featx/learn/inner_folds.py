"""Scoring heads with one scaling at every value of their parameter by the inner folds of a training part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.learn.coordinates import is_worth_while, n_functions, span_coordinates
from featx.learn.heads import find_head, make_scaler
from featx.learn.metrics import scoring_values
from featx.learn.training import Scored, TrainingParts
from featx.learn.views import ViewUse

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

OWN_SCALING = ("standardise",)
"""Scalings that depend on the training part; the others are the same for every row wherever it is."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Features on which heads are scored.

    Attributes
    ----------
    X : float64 array (n_samples, n_features), or (n_samples, n_views, n_features)
        Scaled already, unless the scaling depends on the training part.
    y : str array (n_samples,); float64 array for a regression, bool array (n_samples, n_labels) for labels
    scaling : str
        Of `featx.learn.heads.SCALINGS`.
    coordinates : float64 array like X, or None
        The features in fewer coordinates, for heads that may be fitted in them; None where X depends on the part, or
        they are not worth while.
    """

    X: FloatArray
    y: NDArray[Any]
    scaling: str
    coordinates: FloatArray | None

    @classmethod
    def scaled(cls, X: FloatArray, y: NDArray[Any], scaling: str, *, n_fits: int | None = None) -> Samples:
        """Scale features where that can be done once for all, and put them into coordinates of their span.

        Where a solver's fits are all that is done with them, `n_fits` says how many: few are made as they are, see
        `featx.learn.coordinates.is_worth_while`.
        """
        if scaling in OWN_SCALING:
            return cls(X, y, scaling, None)
        rows = X.reshape(-1, X.shape[-1])
        scaler = make_scaler(scaling)
        if scaler is not None:
            rows = scaler.fit_transform(rows)
        if n_fits is not None and not is_worth_while(rows.shape, n_fits):
            return cls(rows.reshape(X.shape), y, scaling, None)
        coordinates = span_coordinates(rows)
        return cls(rows.reshape(X.shape), y, scaling, coordinates.reshape(*X.shape[:-1], -1))

    @property
    def n_views(self) -> int:
        """How many rows each sample has."""
        return self.X.shape[1] if self.X.ndim == 3 else 1


@dataclass(frozen=True, eq=False)
class FoldScores:
    """What the values of a head's parameter are worth.

    Attributes
    ----------
    scores : float64 array (n_folds, n_values)
        NaN where the scoring is undefined.
    converged : bool array (n_folds, n_values)
    """

    scores: FloatArray
    converged: NDArray[np.bool_]


@dataclass(frozen=True)
class Rules:
    """How heads are fitted and scored inside a training part.

    Attributes
    ----------
    scoring : str
        One of `featx.learn.metrics.SCORINGS`.
    use : ViewUse
        Which rows of a sample are fitted and scored.
    class_weight, random_state, device
        As in `featx.learn.training.TrainingParts`.
    """

    scoring: str
    use: ViewUse = ViewUse()
    class_weight: str | None = None
    random_state: int = 0
    device: str = "cpu"


def score_inner_folds(
    samples: Samples,
    candidates: Mapping[str, Sequence[float]],
    inner: Sequence[tuple[IntArray, IntArray]],
    rules: Rules,
) -> dict[str, FoldScores]:
    """Score heads at each value of their parameter on each inner fold.

    Parameters
    ----------
    samples : Samples
    candidates : mapping of str to sequence of float
        For each head, as `featx.learn.heads.find_head` takes it, the values to try.
    inner : sequence of (int array, int array)
        Positions among the samples: fitted on, and scored on.
    rules : Rules
    """
    scores: dict[str, list[FloatArray]] = {name: [] for name in candidates}
    converged: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in candidates}
    n_scored = samples.n_views if rules.use.score == "average" else 1
    for classes, folds, parts in _iter_parts(samples, inner, rules):
        for name, values in candidates.items():
            head = find_head(name)
            power = head.parameter.per_view if rules.use.train == "all" else 0
            of_rows = [value * float(samples.n_views) ** power for value in values]
            n_fits = len(folds) * n_functions(len(classes)) * len(values) if head.is_solved else None
            said_of_folds = head.search(parts.of(isometric=head.is_isometric, n_fits=n_fits), of_rows)
            for (_, scored), said in zip(folds, said_of_folds, strict=True):
                said = _mean_over_views(said, n_scored)
                scores[name].append(
                    scoring_values(rules.scoring, samples.y[scored], said.predicted, said.values, list(classes))
                )
                converged[name].append(said.converged)
    return {name: FoldScores(np.array(scores[name]), np.array(converged[name])) for name in candidates}


def _iter_parts(
    samples: Samples, inner: Sequence[tuple[IntArray, IntArray]], rules: Rules
) -> Iterator[tuple[NDArray[np.str_], Sequence[tuple[IntArray, IntArray]], Parts]]:
    """Yield classes, folds and training parts: all folds at once where they can share their features."""
    classes = [np.unique(samples.y[fitted]) for fitted, _ in inner]
    together = samples.scaling not in OWN_SCALING and all(np.array_equal(each, classes[0]) for each in classes)
    for folds in [inner] if together else [[fold] for fold in inner]:
        own = np.unique(samples.y[folds[0][0]])
        # A class that is scored but not fitted has no code; its rows weigh nothing.
        codes = np.minimum(np.searchsorted(own, samples.y), len(own) - 1)
        yield own, folds, lay_out(samples, codes, folds, rules)


class Parts:
    """Training parts with all features, and with the coordinates of their span, found when they are asked for."""

    def __init__(self, plain: TrainingParts, coordinates: FloatArray | None) -> None:
        self._plain, self._coordinates = plain, coordinates

    def of(self, *, isometric: bool, n_fits: int | None = None) -> TrainingParts:
        """Return them for a head that depends on distances and angles alone, or not; for so many fits of a solver."""
        if not isometric:
            return self._plain
        if self._coordinates is None:
            if n_fits is not None and not is_worth_while(self._plain.X.shape, n_fits):
                return self._plain
            self._coordinates = span_coordinates(self._plain.X)
        return replace(self._plain, X=self._coordinates)


def lay_out(samples: Samples, codes: NDArray[Any], folds: Sequence[tuple[IntArray, IntArray]], rules: Rules) -> Parts:
    """Lay out the rows of the samples of some folds; each sample has one for each of its views.

    `codes` (n_samples,) or (n_samples, n_labels) are as in `featx.learn.training.TrainingParts`; with a scaling of
    `OWN_SCALING` there is one fold.
    """
    there = np.unique(np.concatenate([np.concatenate(fold) for fold in folds]))
    n_views, use = samples.n_views, rules.use
    X = samples.X[there].reshape(len(there) * n_views, -1)
    fitted = tuple(rows_of(np.searchsorted(there, part), n_views, use.train == "all") for part, _ in folds)
    scored = tuple(rows_of(np.searchsorted(there, part), n_views, use.score == "average") for _, part in folds)
    if samples.scaling in OWN_SCALING:
        X = make_scaler(samples.scaling).fit(X[fitted[0]]).transform(X)
    codes = np.repeat(codes[there], n_views, axis=0)
    plain = TrainingParts(X, codes, fitted, scored, X.shape[1], rules.class_weight, rules.random_state, rules.device)
    coordinates = samples.coordinates
    return Parts(plain, None if coordinates is None else coordinates[there].reshape(len(X), -1))


def rows_of(places: IntArray, n_views: int, every: bool) -> IntArray:
    """Return the rows of samples: of all their views, or of the first, which is the plain image."""
    return (places[:, None] * n_views + np.arange(n_views if every else 1)).ravel()


def _mean_over_views(said: Scored, n_views: int) -> Scored:
    """Decide on samples by the mean over their rows; see `featx.learn.views.mean_over_views`."""
    if n_views == 1:
        return said
    mean = said.values.reshape(len(said.values), -1, n_views, *said.values.shape[2:]).mean(axis=2)
    predicted = (mean > 0).astype(np.int64) if mean.ndim == 2 else mean.argmax(axis=2)
    return Scored(predicted, mean, said.converged)
