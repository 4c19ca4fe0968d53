"""Whether one of two procedures is better on the same samples, or they cannot be told apart.

The test flips signs: if neither is better, what a sample (or a group) adds to the difference is as likely to be of one
sign as of the other (Fisher, The Design of Experiments, 1935). Out-of-fold predictions are not independent of each
other, as their folds train on each other's test parts, and heads end up different by training as well: without an
allowance for that, such a test tells equal procedures apart too often. So the flipped differences are stretched by what
`featx.learn.score_intervals` widens intervals with; a simulation in the tests holds the size. The corrected t of the
folds' differences (Nadeau and Bengio 2003) would hold it, too, but has 4 degrees of freedom in 5 folds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.learn.metrics import FloatArray, IntArray, score_predictions
from featx.learn.score_intervals import Tested, inflation, training_variance
from featx.learn.scores import FoldPredictions, fold_rows, guess

LEVEL = 0.05
"""Differences with at least this p-value are ties."""
N_FLIPS = 9999
MOST_UNITS = 13
"""Up to so many units, all ways to flip their signs are tried."""


@dataclass(frozen=True)
class Comparison:
    """One procedure beside another, on the same samples.

    Attributes
    ----------
    first, second : str
        What they are called.
    scoring : str
        The score.
    scores : (float or None, float or None)
        Of the first and the second: the mean over the folds, or of the fixed part.
    difference : float or None
        Of the first minus the second; None where undefined.
    p_value : float or None
        Two-sided; None where there is no difference to test.
    n_units : int
        Samples or groups whose signs were flipped.
    unit : str
        ``"samples"`` or ``"groups"``.
    low, high : float or None
        Ends of the 95 % interval of the difference: by a t distribution over the units, its variance stretched like
        that of the flips.
    folds : tuple of float or None
        The difference in each fold.
    """

    first: str
    second: str
    scoring: str
    scores: tuple[float | None, float | None]
    difference: float | None
    p_value: float | None
    n_units: int
    unit: str
    low: float | None = None
    high: float | None = None
    folds: tuple[float | None, ...] = ()

    @property
    def is_tie(self) -> bool:
        """Whether the samples do not tell which is better."""
        return self.p_value is None or self.p_value >= LEVEL

    def describe(self) -> str:
        """Say both scores, and how sure the difference is."""
        if self.p_value is None:
            return f"{self.scoring} is undefined"
        one, two = self.scores
        return f"{self.scoring} {one:.3f} and {two:.3f}, p = {self.p_value:.2g} over {self.n_units} {self.unit}"

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes and ``tie``, for JSON."""
        lists = {"scores": list(self.scores), "folds": list(self.folds)}
        return {**asdict(self), **lists, "tie": self.is_tie}


@dataclass(frozen=True)
class Comparisons:
    """What the choice of a fit is worth.

    Attributes
    ----------
    runner_up : Comparison or None
        The candidate (head, or head on a file) that was chosen for the saved classifier beside the one that came
        second, each alone; None where nothing competed.
    next_file : Comparison or None
        The file that was chosen beside the one that came second, each with the best of its heads; None for one file.
    guessing : Comparison
        The whole procedure beside the largest class.
    simpler, simpler_file : str
        Which of the two one could take where they are tied, and why, in words; ``""`` where nothing competed.
    guess : str
        What guessing is, in words.
    """

    runner_up: Comparison | None
    next_file: Comparison | None
    guessing: Comparison
    simpler: str = ""
    simpler_file: str = ""
    guess: str = "the largest class"

    def to_dict(self) -> dict[str, Any]:
        """Return the comparisons, and what they say in words, for JSON."""
        return {
            "runner_up": None if self.runner_up is None else self.runner_up.to_dict(),
            "next_file": None if self.next_file is None else self.next_file.to_dict(),
            "guessing": self.guessing.to_dict(),
            "words": self.describe(),
        }

    def describe(self) -> list[str]:
        """Say what each of the tests says."""
        texts = []
        for comparison, simpler in ((self.next_file, self.simpler_file), (self.runner_up, self.simpler)):
            if comparison is not None:
                texts.append(_describe(comparison, simpler))
        if self.guessing.is_tie:
            texts.append(f"tie: not to be told from guessing {self.guess} ({self.guessing.describe()})")
        else:
            better = "better" if (self.guessing.difference or 0) > 0 else "worse"
            texts.append(f"{better} than guessing {self.guess} ({self.guessing.describe()})")
        return texts


def _describe(comparison: Comparison, simpler: str) -> str:
    one, two = comparison.first, comparison.second
    if comparison.is_tie:
        return f"tie: {one} and {two} cannot be told apart ({comparison.describe()}); {simpler}"
    if (comparison.difference or 0) < 0:
        one, two = two, one
    return f"{one} is better than {two} ({comparison.describe()})"


def compare(
    y: NDArray[Any],
    names: tuple[str, str],
    first: Sequence[FoldPredictions],
    second: Sequence[FoldPredictions],
    classes: Sequence[str],
    scoring: str,
    *,
    groups: IntArray | None = None,
    is_fixed: bool = False,
    random_state: int = 0,
) -> Comparison:
    """Compare two series of predictions for the same test parts.

    Parameters
    ----------
    y : str array (n_samples,)
        What the folds' positions point into.
    names : (str, str)
    first, second : sequence of FoldPredictions
        Of the same folds, or of one fixed part.
    classes : sequence of str
    scoring : str
        One of `featx.learn.metrics.SCORINGS`.
    groups : int array (n_samples,), optional
        Whole groups change their sign.
    is_fixed : bool
        The part is a fixed one, and its predictions are of one head each: nothing is stretched.
    random_state : int
        Seeds the flips.
    """
    both = [
        [score_predictions(y[part.fold.test], part.predicted, part.probabilities, classes) for part in parts]
        for parts in (first, second)
    ]
    name = metric_of(scoring, both[0][0])
    return compare_rows(
        names,
        name,
        [[one[name] for one in scores] for scores in both],
        [fold_rows(y, parts, classes, groups) for parts in (first, second)],
        n_repeats=None if is_fixed else len({part.fold.repeat for part in first}),
        factor=inflation([*both[0], *both[1]], len(classes))[name],
        random_state=random_state,
    )


def compare_rows(
    names: tuple[str, str],
    scoring: str,
    values: Sequence[Sequence[float | None]],
    rows: Sequence[Tested],
    *,
    n_repeats: int | None,
    factor: float,
    random_state: int = 0,
) -> Comparison:
    """Compare two series of predictions for the same test parts, whatever they are of.

    Parameters
    ----------
    names : (str, str)
    scoring : str
    values : two sequences of float or None
        Of both the score of each fold.
    rows : two of Tested
        Their predictions, laid out in the same way.
    n_repeats : int or None
        Of the folds; None for a fixed part, for which nothing is stretched.
    factor : float
        By how much the variance of the score is above that of independent predictions.
    random_state : int
        Seeds the flips.
    """
    first, second = rows
    both = np.array([[np.nan if value is None else value for value in own] for own in values], dtype=float)
    unit = "samples" if first.n_units * (n_repeats or 1) == len(first.units) else "groups"
    means = tuple(float(np.mean(own[~np.isnan(own)])) if (~np.isnan(own)).any() else None for own in both)
    by_fold = both[0] - both[1]
    if np.isnan(by_fold).all():
        return Comparison(*names, scoring, (means[0], means[1]), None, None, first.n_units, unit)
    difference = float(np.mean(by_fold[~np.isnan(by_fold)]))
    influences = first.influence(scoring) - second.influence(scoring)
    stretch = 1.0
    if n_repeats is not None:
        by_unit = np.bincount(first.units, weights=influences, minlength=first.n_units)
        excess = training_variance(influences, by_fold.reshape(n_repeats, -1), first)
        variance = float(np.sum(by_unit**2))
        stretch = factor + (excess / variance if variance > 0 else 0.0)
    # Every unit's part of the difference: its share of it, and how far it moves it.
    shares = influences + difference / len(influences)
    parts = np.bincount(first.units, weights=shares, minlength=first.n_units).astype(np.float64)
    p_value = flip_signs(parts, stretch=stretch, random_state=random_state)
    half = _half_width(parts, stretch)
    return Comparison(
        *names,
        scoring,
        (means[0], means[1]),
        difference,
        p_value,
        first.n_units,
        unit,
        None if half is None else difference - half,
        None if half is None else difference + half,
        tuple(None if np.isnan(one) else float(one) for one in by_fold),
    )


def _half_width(parts: FloatArray, stretch: float) -> float | None:
    """Return half the 95 % interval of a sum of independent parts; None for a single one."""
    from scipy.special import stdtrit

    n = len(parts)
    if n < 2:
        return None
    variance = n / (n - 1) * float(np.sum((parts - parts.mean()) ** 2)) * stretch
    return float(stdtrit(n - 1, 1.0 - LEVEL / 2) * variance**0.5)


def compare_with_guessing(
    y: NDArray[Any],
    name: str,
    parts: Sequence[FoldPredictions],
    classes: Sequence[str],
    scoring: str,
    *,
    y_train: NDArray[Any] | None = None,
    groups: IntArray | None = None,
    random_state: int = 0,
) -> Comparison:
    """Compare predictions with the largest class of the training part, and its class shares as probabilities.

    Parameters
    ----------
    y, parts, classes, scoring, groups, random_state
        As in `compare`.
    name : str
        What the procedure is called.
    y_train : str array, optional
        The training part of a fixed part; else those of the folds are taken.
    """
    guesses = []
    for part in parts:
        majority, shares = guess(y[part.fold.train] if y_train is None else y_train, classes)
        n_test = len(part.fold.test)
        guesses.append(FoldPredictions(part.fold, np.array([majority] * n_test), np.tile(shares, (n_test, 1))))
    return compare(
        y,
        (name, "guessing"),
        parts,
        guesses,
        classes,
        scoring,
        groups=groups,
        is_fixed=y_train is not None,
        random_state=random_state,
    )


def metric_of(scoring: str, names: Iterable[str]) -> str:
    """Return the name that a scoring has among those of scores: ``roc_auc`` is another for several classes."""
    return next(name for name in names if name == scoring or {name, scoring} == {"roc_auc", "roc_auc_ovr"})


def flip_signs(parts: FloatArray, *, stretch: float = 1.0, random_state: int = 0) -> float:
    """Return the two-sided p-value of a sum whose parts might as well have had the other sign.

    Parameters
    ----------
    parts : float array (n_units,)
    stretch : float
        By which the variance of the flipped sums is multiplied.
    random_state : int
        Seeds `N_FLIPS` flips; up to `MOST_UNITS` parts, all are tried.
    """
    found = abs(float(parts.sum())) - 1e-12 * float(np.abs(parts).sum())
    n_flips, as_far = 0, 0
    for flipped in _flips(len(parts), random_state):
        sums = parts.sum() - 2 * (flipped @ parts)
        n_flips += len(flipped)
        as_far += int(np.sum(np.abs(sums) * stretch**0.5 >= found))
    # Of random flips, the one that was found is one of them (Phipson and Smyth 2010); of all, it is there already.
    exact = len(parts) <= MOST_UNITS
    return as_far / n_flips if exact else (as_far + 1) / (n_flips + 1)


def _flips(n_units: int, random_state: int) -> Iterator[IntArray]:
    """Yield which units change their sign (some, n_units), a few million at a time."""
    if n_units <= MOST_UNITS:
        yield np.arange(2**n_units)[:, None] >> np.arange(n_units) & 1
        return
    rng = np.random.default_rng(random_state)
    at_once = max(1, 2_000_000 // n_units)
    for start in range(0, N_FLIPS, at_once):
        yield rng.integers(0, 2, size=(min(at_once, N_FLIPS - start), n_units))
