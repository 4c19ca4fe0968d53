"""Intervals of a cross-validated score, as `bin/bench coverage` sets them beside each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from _generated_sets import Head, Study
from numpy.typing import NDArray
from scipy.stats import norm, t

from featx.learn.intervals import nadeau_bengio_interval, resampling_units
from featx.learn.metrics import encode_predictions, metric_names, metric_range, score_predictions, statistic
from featx.learn.scores import evaluate_folds

FloatArray = NDArray[np.float64]
Ends = Mapping[str, tuple[float, float] | None]
"""By score; None where there is no interval."""
N_BOOT = 500


def featx(study: Study) -> Ends:
    """Wilson at the effective sample size, as featx prints it."""
    scores = evaluate_folds(study.y, study.parts, study.classes, groups=study.groups).scores
    return {
        name: None if interval.low is None or interval.high is None else (interval.low, interval.high)
        for name, interval in scores.items()
    }


def nadeau_bengio(study: Study) -> Ends:
    """The corrected t interval of the folds' scores (Nadeau and Bengio 2003)."""
    n_repeats = study.population.repeats
    found = {}
    for name, values in by_fold(study).items():
        interval = nadeau_bengio_interval(values, study.population.cv, n_repeats, limits=metric_range(name))
        found[name] = None if interval.low is None or interval.high is None else (interval.low, interval.high)
    return found


def bootstrap(study: Study) -> Ends:
    """Percentiles of the pooled out-of-fold score over resampled samples or groups (first repeat)."""
    return {name: ends for name, (ends, _) in _resampled(study).items()}


def bootstrap_and_folds(study: Study) -> Ends:
    """The variance of the pooled score over resamples, and that of the folds over their number; normal."""
    found: dict[str, tuple[float, float] | None] = {}
    z = float(norm.ppf(0.975))
    for name, (_, variance) in _resampled(study).items():
        values = np.array([value for value in by_fold(study)[name] if value is not None])
        half = z * (variance + values.var(ddof=1) / len(values)) ** 0.5
        low, high = metric_range(name)
        found[name] = (max(values.mean() - half, low), min(values.mean() + half, high)) if half > 0 else None
    return found


def wider(study: Study) -> Ends:
    """The wider of Nadeau-Bengio and the bootstrap."""
    one, other = nadeau_bengio(study), bootstrap(study)
    return {
        name: max((ends for ends in (one[name], other[name]) if ends), key=lambda ends: ends[1] - ends[0], default=None)
        for name in one
    }


def nested(study: Study) -> Ends:
    """Nested cross-validation (Bates, Hastie and Tibshirani 2021), one split into folds; accuracy and log loss alone.

    For each fold, the others are cross-validated among themselves: the squared difference between the error found
    so and that on the fold, less the fold's sampling variance, estimates the error of the error. It is kept between the
    naive standard error and sqrt(k) times that, as the authors do.
    """
    found: dict[str, tuple[float, float] | None] = dict.fromkeys(metric_names(study.population.n_classes))
    head = study.population.head
    if head is None or study.population.repeats > 1:
        return found
    outer = [_losses(study, part.fold.train, part.fold.test, head) for part in study.parts]
    k = len(outer)
    inside: list[list[FloatArray]] = [[] for _ in range(k)]
    for i in range(k):
        for j in range(k):
            if i != j:
                train = np.setdiff1d(study.folds[i].train, study.folds[j].test)
                inside[i].append(_losses(study, train, study.folds[j].test, head))
    for column, name in enumerate(("accuracy", "neg_log_loss")):
        own = [np.concatenate(parts)[:, column] for parts in inside]
        left_out = [losses[:, column] for losses in outer]
        difference = [(a.mean() - b.mean()) ** 2 - b.var(ddof=1) / len(b) for a, b in zip(own, left_out, strict=True)]
        everything = np.concatenate(left_out)
        naive = everything.std(ddof=1) / len(everything) ** 0.5
        error = (max(0.0, (k - 1) / k * float(np.mean(difference)))) ** 0.5
        error = min(max(error, naive), naive * k**0.5)
        of_nested = float(np.mean(np.concatenate(own)))
        centre = of_nested - (1 + (k - 2) / k) * (of_nested - everything.mean())
        half = float(norm.ppf(0.975)) * error
        low, high = metric_range(name)
        found[name] = (max(centre - half, low), min(centre + half, high)) if half > 0 else None
    return found


def plain_t(study: Study) -> Ends:
    """Student's t of the folds' scores as if they were independent: what `mean +- 2 se` of many papers is."""
    found: dict[str, tuple[float, float] | None] = {}
    for name, defined in by_fold(study).items():
        values = np.array([value for value in defined if value is not None])
        half = float(t.ppf(0.975, len(values) - 1)) * values.std(ddof=1) / len(values) ** 0.5
        found[name] = (values.mean() - half, values.mean() + half) if half > 0 else None
    return found


KINDS: dict[str, Callable[[Study], Ends]] = {
    "featx": featx,
    "Nadeau-Bengio t": nadeau_bengio,
    "plain t of the folds": plain_t,
    "bootstrap, out of fold": bootstrap,
    "bootstrap + variance of folds": bootstrap_and_folds,
    "wider of Nadeau-Bengio and bootstrap": wider,
    "nested CV (Bates et al.)": nested,
}


def by_fold(study: Study) -> dict[str, list[float | None]]:
    scores = [
        score_predictions(study.y[part.fold.test], part.predicted, part.probabilities, study.classes)
        for part in study.parts
    ]
    return {name: [one[name] for one in scores] for name in scores[0]}


def _resampled(study: Study) -> dict[str, tuple[tuple[float, float] | None, float]]:
    """By score: percentiles and variance over resamples of the units of the first repeat."""
    parts = [part for part in study.parts if part.fold.repeat == 0]
    rows = np.concatenate([part.fold.test for part in parts])
    predictions = encode_predictions(
        study.y[rows],
        np.concatenate([part.predicted for part in parts]),
        np.concatenate([part.probabilities for part in parts if part.probabilities is not None]),
        study.classes,
    )
    units, n_units = resampling_units(None if study.groups is None else study.groups[rows], len(rows))
    rng = np.random.default_rng(0)
    counts = np.stack([np.bincount(rng.integers(n_units, size=n_units), minlength=n_units) for _ in range(N_BOOT)], 1)
    found: dict[str, tuple[tuple[float, float] | None, float]] = {}
    for name in metric_names(len(study.classes)):
        values = statistic(name, predictions, units, n_units)(counts.astype(np.float64))
        values = values[~np.isnan(values)]
        low, high = np.percentile(values, [2.5, 97.5])
        found[name] = (None if high - low < 1e-12 else (float(low), float(high)), float(values.var()))
    return found


def _losses(study: Study, train: NDArray[np.int64], test: NDArray[np.int64], head: Head) -> FloatArray:
    """Whether each row is called rightly, and the log probability of its class, (n_test, 2)."""
    codes = np.searchsorted(study.classes, study.y)
    probabilities = head(study.X[train], codes[train], study.X[test], len(study.classes))
    right = probabilities.argmax(axis=1) == codes[test]
    gain = np.log(np.clip(probabilities[np.arange(len(test)), codes[test]], np.finfo(np.float64).eps, 1.0))
    return np.stack([right.astype(np.float64), gain], axis=1)
