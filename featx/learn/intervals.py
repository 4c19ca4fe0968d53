"""95 % intervals, each of which says in words how it was made.

These are the forms; `featx.learn.score_intervals` says what the scores of an evaluation get. No interval is given where
the data cannot carry one: a single fold, fewer than two units, or values that are all the same, for which formulas
from their spread would claim a certainty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.learn.metrics import FloatArray, IntArray, Statistic

LEVEL = 0.95
EFFECTIVE = "Wilson at the effective sample size"
PSEUDO_UNITS = 0.25
"""How many units that went wrong are added to those observed, so that no error seen is not taken for none there is."""
N_BOOT = 2000
SAME = 1e-12
"""Values no further apart than this differ by rounding only."""


@dataclass(frozen=True)
class Interval:
    """A score with its 95 % interval.

    Attributes
    ----------
    mean : float or None
        The mean over the folds, or the score of a fixed part; None where undefined.
    low, high : float or None
        Ends of the interval; None where there is none, and `method` says why.
    folds : list of float or None
        The score of each fold, repeat by repeat; empty for a fixed part.
    method : str
        How the interval was made, in words.
    """

    mean: float | None
    low: float | None
    high: float | None
    folds: list[float | None]
    method: str

    def to_dict(self) -> dict[str, Any]:
        """Return ``{mean, low, high, folds, method}`` for JSON."""
        return asdict(self)


def nadeau_bengio_interval(
    values: Sequence[float | None], n_splits: int, n_repeats: int = 1, *, limits: tuple[float, float] = (0.0, 1.0)
) -> Interval:
    """Interval of the mean over (repeated) k-fold cross-validation.

    The folds share training samples, so the variance of their mean is not s^2 / (k r) but, corrected,
    ``(1 / (k r) + 1 / (k - 1)) s^2`` (Nadeau and Bengio, Inference for the generalization error, Machine Learning 52,
    2003; 1 / (k - 1) is test size over training size); with the t distribution of k r - 1 degrees of freedom.

    Parameters
    ----------
    values : sequence of float or None, length n_splits * n_repeats
        Where the score is undefined the fold is left out, and k r is the number of those that remain.
    n_splits, n_repeats : int
        k and r.
    limits : (float, float)
        The score's range, at which the interval is cut off.
    """
    folds = list(values)
    defined = np.array([value for value in folds if value is not None], dtype=np.float64)
    design = f"{n_splits} folds" + (f" x {n_repeats} repeats" if n_repeats > 1 else "")
    if len(defined) < len(folds):
        design += f", undefined in {len(folds) - len(defined)} of {len(folds)}"
    if len(defined) == 0:
        return Interval(None, None, None, folds, f"undefined ({design})")
    mean = float(np.mean(defined))
    if len(defined) == 1 or n_splits < 2:
        return Interval(mean, None, None, folds, f"no interval from a single fold ({design})")
    if np.ptp(defined) < SAME:
        return Interval(mean, None, None, folds, f"no interval: every fold gave the same value ({design})")
    from scipy.stats import t

    variance = (1 / len(defined) + 1 / (n_splits - 1)) * float(np.var(defined, ddof=1))
    half = float(t.ppf((1 + LEVEL) / 2, len(defined) - 1)) * variance**0.5
    low, high = max(mean - half, limits[0]), min(mean + half, limits[1])
    return Interval(mean, low, high, folds, f"Nadeau-Bengio corrected t ({design})")


def wilson_interval(n_right: float, n: float, *, unit: str = "samples") -> Interval:
    """Interval of a proportion of independent trials (Wilson, JASA 22, 1927; the score interval).

    Parameters
    ----------
    n_right, n : float
        Successes and trials; need not be whole (means over repeats).
    unit : str
        What the trials are, for the method's words.
    """
    if n <= 0:
        return Interval(None, None, None, [], f"undefined: no {unit}")
    from scipy.special import ndtri

    share = n_right / n
    low, high = _wilson_ends(share, n, float(ndtri((1 + LEVEL) / 2)))
    return Interval(share, low, high, [], f"Wilson ({n:g} {unit})")


def effective_ends(
    share: float, variance: float, degrees: float, costs: FloatArray, *, inflation: float = 1.0, excess: float = 0.0
) -> tuple[float, float]:
    """Find the ends of Wilson's interval at the effective sample size.

    That is the number of trials at which a proportion would have this variance; the quantile is that of t. It keeps
    inside the range, is longer towards the middle, and does not shrink to nothing at its ends. Surveys use it so
    for proportions of clustered samples (Korn and Graubard, Survey Methodology 24, 1998; Dean and Pagano, Journal of
    Survey Statistics and Methodology 3, 2015).

    Parameters
    ----------
    share : float
        From 0 to 1: a proportion, or another score as its part of the range.
    variance, degrees : float
        As estimated from the units, with its degrees of freedom.
    costs : float array (n_kinds,)
        How far one more unit of each kind that goes wrong takes the share down. `PSEUDO_UNITS` of each are added to
        what was seen; with one cost of 1 / n, n trials without an error get the interval of n trials.
    inflation : float
        By which the variance is multiplied.
    excess : float
        Variance that is added.
    """
    from scipy.special import stdtrit

    shift = PSEUDO_UNITS * float(np.sum(costs))
    regular = min(share + shift, 0.5) if share < 0.5 else max(share - shift, 0.5)
    total = inflation * (variance + PSEUDO_UNITS * float(np.sum(costs**2))) + excess
    n_effective = max(regular * (1 - regular) / total, 1.0)
    return _wilson_ends(share, n_effective, float(stdtrit(degrees, (1 + LEVEL) / 2)))


def _wilson_ends(share: float, n: float, z: float) -> tuple[float, float]:
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    # At 0 and n successes one end is exact; rounding must not push the share out of its own interval.
    return min(max(centre - half, 0.0), share), max(min(centre + half, 1.0), share)


def resampling_units(groups: ArrayLike | None, n_samples: int) -> tuple[IntArray, int]:
    """Give numbers to what is resampled: the groups, or the samples where there are none.

    Returns
    -------
    units : int array (n_samples,)
    n_units : int
        Less than `n_samples` where they are groups.
    """
    names, units = np.unique(np.arange(n_samples) if groups is None else np.asarray(groups), return_inverse=True)
    return units.astype(np.int64), len(names)


def proportion_interval(
    right: NDArray[np.bool_],
    among: NDArray[np.bool_],
    groups: ArrayLike | None,
    *,
    unit: str = "samples",
    n_repeats: int = 1,
    inflation: float = 1.0,
) -> Interval:
    """Interval of a proportion: Wilson's, at the effective sample size where groups hold several samples.

    Parameters
    ----------
    right, among : bool array (n_predictions,)
        The proportion is that of `right` among `among`.
    groups : array (n_predictions,), or None
    unit : str
        What the predictions are of, for the method's words.
    n_repeats : int
        How often each sample is among the predictions; it counts once in the interval.
    inflation : float
        By which the variance of independent samples is multiplied.
    """
    n_right, n = int(np.sum(right & among)), int(np.sum(among))
    units, n_units = resampling_units(groups, len(among))
    if n == 0 or groups is None or n_units * n_repeats == len(among):
        trials = n / n_repeats
        narrow = wilson_interval(n_right / n_repeats, trials, unit=unit)
        if narrow.mean is None or inflation == 1:
            return narrow
        wide = wilson_interval(narrow.mean * trials / inflation, trials / inflation)
        return replace(narrow, low=wide.low, high=wide.high, method=f"{EFFECTIVE} ({trials:g} {unit})")
    share = n_right / n
    by_unit = np.bincount(units, weights=among * (right - share) / n, minlength=n_units)
    n_among = len(np.unique(units[among]))
    variance = float(np.sum(by_unit**2)) * n_among / max(n_among - 1, 1)
    low, high = effective_ends(share, variance, max(n_among - 1, 1), np.array([1 / n_among]), inflation=inflation)
    return Interval(share, low, high, [], f"{EFFECTIVE} ({n_among} groups)")


def bootstrap_intervals(
    statistics: Mapping[str, Statistic], n_units: int, *, unit: str, n_boot: int = N_BOOT, random_state: int = 0
) -> dict[str, Interval]:
    """Percentile bootstrap (Efron 1979) of several scores over the same resamples of whole units.

    Parameters
    ----------
    statistics : mapping of str to Statistic
    n_units : int
    unit : str
        What is resampled, for the method's words.
    n_boot, random_state : int

    Returns
    -------
    dict of str to Interval
        Resamples in which a score is undefined are left out and counted in `method`; no interval when that is more
        than half of them.
    """
    every_unit_once = np.ones((n_units, 1))
    points = {name: float(of_counts(every_unit_once)[0]) for name, of_counts in statistics.items()}
    parts: dict[str, list[FloatArray]] = {name: [] for name in statistics}
    if n_units >= 2:
        for counts in _resamples(n_units, n_boot, random_state):
            for name, of_counts in statistics.items():
                parts[name].append(of_counts(counts))
    return {
        name: _percentiles(points[name], np.concatenate(parts[name]) if parts[name] else np.empty(0), n_units, unit)
        for name in statistics
    }


def _percentiles(point: float, resampled: FloatArray, n_units: int, unit: str) -> Interval:
    if np.isnan(point):
        return Interval(None, None, None, [], "undefined")
    if len(resampled) == 0:
        return Interval(point, None, None, [], f"no interval: fewer than two {unit}")
    defined = resampled[~np.isnan(resampled)]
    design = f"{n_units} {unit}, {len(resampled)} resamples"
    if len(defined) < len(resampled):
        design += f", undefined in {len(resampled) - len(defined)}"
    if len(defined) < len(resampled) / 2:
        return Interval(point, None, None, [], f"no interval: undefined in most resamples ({design})")
    if np.ptp(defined) < SAME:
        return Interval(point, None, None, [], f"no interval: every resample gave the same value ({design})")
    low, high = np.percentile(defined, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Interval(point, float(low), float(high), [], f"percentile bootstrap ({design})")


def _resamples(n_units: int, n_boot: int, random_state: int) -> Iterator[FloatArray]:
    """Yield how often each unit is drawn, (n_units, some) at a time, `n_boot` in all."""
    rng = np.random.default_rng(random_state)
    at_once = max(1, 1_000_000 // n_units)
    for start in range(0, n_boot, at_once):
        n = min(at_once, n_boot - start)
        drawn = rng.integers(n_units, size=(n_units, n)) * n + np.arange(n)
        yield np.bincount(drawn.ravel(), minlength=n_units * n).reshape(n_units, n).astype(np.float64)
