"""Scoring one head with one scaling at every value of its parameter by the inner folds of a training part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from featx.learn.coordinates import Isometry
from featx.learn.heads import Head, make_scaler
from featx.learn.metrics import scoring_value
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
    y : str array (n_samples,)
    scaling : str
        Of `featx.learn.heads.SCALINGS`.
    n_features : int
        How many features there are; X may hold fewer coordinates of them.
    """

    X: FloatArray
    y: NDArray[np.str_]
    scaling: str
    n_features: int

    @classmethod
    def scaled(cls, X: FloatArray, y: NDArray[np.str_], scaling: str, *, isometric: bool) -> Samples:
        """Scale features where that can be done once for all, and put them into coordinates of their span."""
        n_features = X.shape[-1]
        if scaling in OWN_SCALING:
            return cls(X, y, scaling, n_features)
        rows = X.reshape(-1, n_features)
        scaler = make_scaler(scaling)
        if scaler is not None:
            rows = scaler.fit_transform(rows)
        if isometric:
            rows = Isometry(rows).transform(rows)
        return cls(rows.reshape(*X.shape[:-1], -1), y, scaling, n_features)


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


def score_inner_folds(
    samples: Samples,
    head: Head,
    values: Sequence[float],
    inner: Sequence[tuple[IntArray, IntArray]],
    *,
    scoring: str,
    use: ViewUse,
    class_weight: str | None = None,
    random_state: int = 0,
) -> FoldScores:
    """Score a head at each value of its parameter on each inner fold.

    Parameters
    ----------
    samples : Samples
    head : Head
    values : sequence of float
    inner : sequence of (int array, int array)
        Positions among the samples: fitted on, and scored on.
    scoring : str
        One of `featx.learn.metrics.SCORINGS`.
    use : ViewUse
        Which rows of a sample are fitted and scored.
    class_weight, random_state
        As in `featx.learn.training.TrainingParts`.
    """
    found: list[tuple[list[float], NDArray[np.bool_]]] = []
    n_views = samples.X.shape[1] if samples.X.ndim == 3 else 1
    n_scored = n_views if use.score == "average" else 1
    power = head.parameter.per_view if use.train == "all" else 0
    of_rows = [value * float(n_views) ** power for value in values]
    for classes, folds, parts in _iter_parts(samples, head, inner, use):
        parts = replace(parts, class_weight=class_weight, random_state=random_state)
        for (_, scored), said in zip(folds, head.search(parts, of_rows), strict=True):
            said = _mean_over_views(said, n_scored)
            scores = [
                scoring_value(scoring, samples.y[scored], classes[predicted], said_values, list(classes))
                for predicted, said_values in zip(said.predicted, said.values, strict=True)
            ]
            found.append(([np.nan if score is None else score for score in scores], said.converged))
    return FoldScores(np.array([scores for scores, _ in found]), np.array([converged for _, converged in found]))


def _iter_parts(
    samples: Samples, head: Head, inner: Sequence[tuple[IntArray, IntArray]], use: ViewUse
) -> Iterator[tuple[NDArray[np.str_], Sequence[tuple[IntArray, IntArray]], TrainingParts]]:
    """Yield classes, folds and training parts: all folds at once where they can share their features."""
    classes = [np.unique(samples.y[fitted]) for fitted, _ in inner]
    together = samples.scaling not in OWN_SCALING and all(np.array_equal(each, classes[0]) for each in classes)
    for folds in [inner] if together else [[fold] for fold in inner]:
        own = np.unique(samples.y[folds[0][0]])
        yield own, folds, _lay_out(samples, head, own, folds, use)


def _lay_out(
    samples: Samples,
    head: Head,
    classes: NDArray[np.str_],
    folds: Sequence[tuple[IntArray, IntArray]],
    use: ViewUse,
) -> TrainingParts:
    """Lay out the rows of the samples of some folds; each sample has one for each of its views."""
    there = np.unique(np.concatenate([np.concatenate(fold) for fold in folds]))
    n_views = samples.X.shape[1] if samples.X.ndim == 3 else 1
    X = samples.X[there].reshape(len(there) * n_views, -1)
    rows = [tuple(_rows(np.searchsorted(there, part), n_views, every) for part, every in zip(
        fold, (use.train == "all", use.score == "average"), strict=True)) for fold in folds]  # fmt: skip
    if samples.scaling in OWN_SCALING:
        X = make_scaler(samples.scaling).fit(X[rows[0][0]]).transform(X)
        if head.is_isometric:
            X = Isometry(X).transform(X)
    # A class that is scored but not fitted has no code; its rows weigh nothing.
    codes = np.minimum(np.searchsorted(classes, samples.y[there]), len(classes) - 1)
    return TrainingParts(
        X=X,
        codes=np.repeat(codes, n_views),
        fitted=tuple(fitted for fitted, _ in rows),
        scored=tuple(scored for _, scored in rows),
        n_features=samples.n_features,
    )


def _rows(places: IntArray, n_views: int, every: bool) -> IntArray:
    """Return the rows of samples: of all their views, or of the first, which is the plain image."""
    return (places[:, None] * n_views + np.arange(n_views if every else 1)).ravel()


def _mean_over_views(said: Scored, n_views: int) -> Scored:
    """Decide on samples by the mean over their rows; see `featx.learn.views.mean_over_views`."""
    if n_views == 1:
        return said
    n_values = len(said.values)
    mean = said.values.reshape(n_values, -1, n_views, *said.values.shape[2:]).mean(axis=2)
    predicted = (mean > 0).astype(np.int64) if mean.ndim == 2 else mean.argmax(axis=2)
    return Scored(predicted, mean, said.converged)
