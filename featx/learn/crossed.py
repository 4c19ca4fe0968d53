"""Scores of many draws that are scored on the same samples, and resamples of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featx.learn.intervals import LEVEL, SAME, Interval, resampling_units

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SCORINGS = ("balanced_accuracy", "accuracy")
N_BOOT = 1000


@dataclass(frozen=True, eq=False)
class Resamples:
    """How often each draw and each unit of what is scored is taken; the same for every head and every k.

    Attributes
    ----------
    of_draws : float64 array (n_draws, n_resamples)
    of_samples : float64 array (n_samples, n_resamples)
        Samples of one group are taken together.
    unit : str
        ``"samples"`` or ``"groups"``.
    """

    of_draws: FloatArray
    of_samples: FloatArray
    unit: str

    @classmethod
    def of(
        cls, n_draws: int, n_samples: int, groups: IntArray | None, *, n: int = N_BOOT, random_state: int = 0
    ) -> Resamples:
        """Draw resamples."""
        rng = np.random.default_rng(random_state)
        units, n_units = resampling_units(groups, n_samples)
        draws, taken = (_counts(rng, size, n) for size in (n_draws, n_units))
        return cls(draws, taken[units], "groups" if n_units < n_samples else "samples")


def _counts(rng: np.random.Generator, size: int, n: int) -> FloatArray:
    drawn = rng.integers(size, size=(size, n)) * n + np.arange(n)
    return np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


@dataclass(frozen=True, eq=False)
class CrossedScore:
    """The mean score of some draws.

    Attributes
    ----------
    interval : Interval
        Of the mean; `folds` are the draws' own scores.
    resampled : float64 array (n_resamples,)
    """

    interval: Interval
    resampled: FloatArray


def crossed_score(
    right: Sequence[NDArray[np.bool_]],
    scored: Sequence[IntArray],
    codes: IntArray,
    resamples: Resamples,
    scoring: str,
) -> CrossedScore:
    """Score draws, and resample both the draws and what they are scored on.

    Draws that are scored on the same samples share their luck: the spread over draws alone would promise too much, and
    with many of them nearly certainty. Resampling rows and columns of the table of draws by samples independently is on
    the safe side (Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1, 2007).

    Parameters
    ----------
    right : sequence of bool array (n_scored,)
        For each draw whether each of its scored samples was called right.
    scored : sequence of int array (n_scored,)
        Which samples they are.
    codes : int array (n_samples,)
        Class of each sample.
    resamples : Resamples
        The first draws of it are meant where there are fewer.
    scoring : {"balanced_accuracy", "accuracy"}
    """
    table = np.zeros((2, len(right), len(codes)))  # right, and scored at all
    for draw, (own, rows) in enumerate(zip(right, scored, strict=True)):
        table[0, draw, rows], table[1, draw, rows] = own, 1.0
    classes = [codes == code for code in np.unique(codes)] if scoring == "balanced_accuracy" else [codes == codes]
    once = np.ones((len(codes), 1))
    own_scores = _scores(table, classes, once)[:, 0]
    of_draws = resamples.of_draws[: len(right)]
    of_draws = np.where(of_draws.sum(axis=0) > 0, of_draws, 1.0)
    resampled = (_scores(table, classes, resamples.of_samples) * of_draws).sum(axis=0) / of_draws.sum(axis=0)
    mean = float(own_scores.mean())
    folds: list[float | None] = own_scores.tolist()
    n_scored = int((table[1].max(axis=0) > 0).sum())
    design = f"{len(right)} draw{'s' * (len(right) > 1)} crossed with {n_scored} scored samples, resampled by "
    design += f"{resamples.unit}, {len(resampled)} resamples"
    if np.ptp(resampled) < SAME:
        method = f"no interval: every resample gave the same value ({design})"
        return CrossedScore(Interval(mean, None, None, folds, method), resampled)
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return CrossedScore(Interval(mean, float(low), float(high), folds, f"pigeonhole bootstrap ({design})"), resampled)


def _scores(table: FloatArray, classes: Sequence[NDArray[np.bool_]], counts: FloatArray) -> FloatArray:
    """Return the scores (n_draws, n_resamples); a class of which nothing was taken is left out."""
    total, n_there = np.zeros((table.shape[1], counts.shape[1])), np.zeros((table.shape[1], counts.shape[1]))
    for of_class in classes:
        above, below = (part[:, of_class] @ counts[of_class] for part in table)
        total += np.divide(above, below, out=np.zeros_like(above), where=below > 0)
        n_there += below > 0
    return total / np.maximum(n_there, 1.0)
