"""The choice of a head on labels inside training parts, and the fits that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from threadpoolctl import threadpool_limits

from featx.learn.calibration import Scored, choose_calibration
from featx.learn.choice import Choice
from featx.learn.convergence import Unconverged, counting
from featx.learn.inner_folds import FoldScores, Rules, Samples
from featx.learn.multilabel.heads import (
    BoolArray,
    FloatArray,
    InnerFolds,
    IntArray,
    LabelMaps,
    decide_inner_folds,
    make_label_head,
)
from featx.learn.multilabel.metrics import LabelPredictions, label_value
from featx.learn.options import FitOptions
from featx.learn.search import Fitted, Job, Space
from featx.learn.views import fitting_rows, scoring_rows

FEWEST = 5
"""Samples, or groups, with a label and without it, from which on its threshold is chosen; with fewer it is `HALF`."""
HALF = 0.5


@dataclass(frozen=True, eq=False)
class LabelFit(Fitted):
    """One refitted head; `predicted` are the calls, bool (n_test, n_labels), beside `probabilities`.

    Attributes
    ----------
    maps : LabelMaps
        Learnt on the job's inner folds.
    """

    maps: LabelMaps


@dataclass(frozen=True, eq=False)
class LabelJob(Job):
    """One training part; what is learnt of its inner folds counts groups.

    Attributes
    ----------
    groups : int array (n_rows,)
        What is independent of what among its rows: groups, or samples.
    """

    groups: IntArray = field(kw_only=True)


@dataclass(frozen=True)
class LabelSpace(Space):
    """What is chosen from, and by what; `scoring` is one of `featx.learn.multilabel.metrics.LABEL_SCORES`.

    Attributes
    ----------
    names : tuple of str
        The labels.
    calibration : str
        One of `featx.learn.multilabel.heads.MAPS`.
    thresholds : str
        One of `featx.learn.multilabel.heads.THRESHOLDS`.
    """

    names: tuple[str, ...] = ()
    calibration: str = "auto"
    thresholds: str = "f1"

    @classmethod
    def of(cls, options: FitOptions, names: Sequence[str]) -> LabelSpace:
        """Return what options ask for."""
        plain = {one.name: getattr(options.space, one.name) for one in fields(Space)}
        return cls(**plain, names=tuple(names), calibration=options.calibration, thresholds=options.thresholds)

    def n_columns(self, _: NDArray[Any]) -> int:
        """How many columns of coefficients a head has."""
        return len(self.names)

    @property
    def when_undefined(self) -> str:
        """What to do where the scoring is undefined."""
        return (
            "it needs samples with and without labels in a fold; choose by another --scoring, or with fewer --inner-cv"
        )

    def n_fits(self, job: Job) -> int:
        """How many fits of all labels a job takes: the search, and each head on the inner folds again and on all."""
        return self.n_candidates * len(job.inner) + len(self.heads) * (len(job.inner) + 1)

    @property
    def rules(self) -> Rules:
        """How heads are fitted and scored inside a training part."""
        return Rules(self.scoring, self.views, self.class_weight, self.random_state, self.device)

    def score(
        self, samples: Samples, candidates: Mapping[str, Sequence[float]], inner: InnerFolds
    ) -> dict[str, FoldScores]:
        """Score heads at each C on each inner fold, labels being called where the decision value is positive."""
        found = {}
        for name, values in candidates.items():
            scores, converged = [], []
            for rows, decisions, ok in decide_inner_folds(samples, name, values, inner, self.rules):
                said = [LabelPredictions(samples.y[rows], one > 0, one) for one in decisions]
                scored = [label_value(self.scoring, one) for one in said]
                scores.append([np.nan if value is None else value for value in scored])
                converged.append(ok)
            found[name] = FoldScores(np.array(scores), np.array(converged))
        return found

    def refit(self, X: FloatArray, y: NDArray[Any], job: Job, choice: Choice) -> tuple[LabelFit, list[Unconverged]]:
        """Learn maps and thresholds on the inner folds, fit the head on the job's rows, and predict its test rows."""
        assert isinstance(job, LabelJob)
        maps, n_failed = _learn_from_inner_folds(self, X, y, job, choice)
        fitted, failures = self.refit_with(maps, X, y, job, choice)
        return fitted, failures + [_unconverged(job, choice)] * n_failed

    def refit_with(
        self, maps: LabelMaps, X: FloatArray, y: NDArray[Any], job: Job, choice: Choice
    ) -> tuple[LabelFit, list[Unconverged]]:
        """Fit a chosen head with maps that are known already."""
        rows, marks, n_views = fitting_rows(X, y, job.rows, self.views)
        value = choice.value / n_views
        head = make_label_head(choice.head, value, choice.scaling, self.names, maps, class_weight=self.class_weight)
        called, probabilities = np.empty((0, len(self.names)), dtype=np.bool_), np.empty((0, len(self.names)))
        with threadpool_limits(1), counting() as warned:
            estimator = head.fit(rows, marks)
            if len(job.test):
                called, probabilities = estimator.call(*scoring_rows(X, job.test, self.views))
        kept = estimator if job.keep else None
        return LabelFit(choice, called, probabilities, kept, maps), [_unconverged(job, choice)] * len(warned)


def _unconverged(job: Job, choice: Choice) -> Unconverged:
    return Unconverged("refit", job.name, None, choice.head, choice.scaling, choice.value)


def _learn_from_inner_folds(
    space: LabelSpace, X: FloatArray, marks: BoolArray, job: LabelJob, choice: Choice
) -> tuple[LabelMaps, int]:
    """Return the maps, and how many of the fits behind them did not converge."""
    inner = [(np.searchsorted(job.rows, one), np.searchsorted(job.rows, other)) for one, other in job.inner]
    with threadpool_limits(1):
        samples = Samples.scaled(X[job.rows], marks[job.rows], choice.scaling)
        found = list(decide_inner_folds(samples, choice.head, [choice.value], inner, space.rules))
        rows = np.concatenate([rows for rows, _, _ in found])
        maps = learn_maps(
            np.concatenate([decisions[0] for _, decisions, _ in found]),
            samples.y[rows],
            np.repeat(np.arange(len(found)), [len(rows) for rows, _, _ in found]),
            job.groups[rows],
            method="sigmoid" if choice.head == "svm" else space.calibration,
            thresholds=space.thresholds,
        )
    return maps, sum(not converged.all() for _, _, converged in found)


def learn_maps(
    decisions: FloatArray, marks: BoolArray, folds: IntArray, units: IntArray, *, method: str, thresholds: str = "f1"
) -> LabelMaps:
    """Learn what makes probabilities and calls of decision values, on samples that their heads did not see.

    Parameters
    ----------
    decisions : float64 array (n_samples, n_labels)
    marks : bool array (n_samples, n_labels)
    folds : int array (n_samples,)
        In which a sample was left out.
    units : int array (n_samples,)
        What is independent of what: groups, or samples.
    method : str
        One of `featx.learn.multilabel.heads.MAPS`, see `featx.learn.calibration.choose_calibration`; ``"auto"``
        considers no map and a temperature.
    thresholds : str
        One of `featx.learn.multilabel.heads.THRESHOLDS`.
    """
    slopes, intercepts, levels = [], [], []
    for values, own in zip(decisions.T, marks.T, strict=True):
        of_two = np.stack([expit(-values), expit(values)], axis=1)[:, None]
        scored = Scored(of_two, own.astype(np.int64), folds, units)
        chosen = choose_calibration(scored, method, among=("none", "temperature"))
        slope, intercept = 1 / (chosen.temperature or 1.0), 0.0
        if chosen.method == "sigmoid":
            slope, intercept = float(chosen.parameters["slopes"][0]), float(chosen.parameters["intercepts"][0])
        slopes.append(slope)
        intercepts.append(intercept)
        probabilities = expit(slope * values + intercept)
        levels.append(choose_threshold(probabilities, own, units) if thresholds == "f1" else HALF)
    return LabelMaps(np.array(slopes), np.array(intercepts), np.array(levels))


def choose_threshold(probabilities: FloatArray, own: BoolArray, units: IntArray) -> float:
    """Choose from which probability on a label is called: where its F1 is largest.

    In the middle between two probabilities; of equally good places the one nearest to `HALF`. Where a head tells
    nothing, F1 is largest if the label is always called (Lipton, Elkan and Naryanaswamy, Optimal thresholding of
    classifiers to maximize F1 measure, ECML PKDD 2014): then the threshold is below every probability.

    Parameters
    ----------
    probabilities : float64 array (n_samples,)
        Of samples that the head did not see.
    own : bool array (n_samples,)
        Which of them have the label.
    units : int array (n_samples,)
        What is independent of what.

    Returns
    -------
    float
        `HALF` where fewer than `FEWEST` units have the label, or lack it.
    """
    if min(len(np.unique(units[own])), len(np.unique(units[~own]))) < FEWEST:
        return HALF
    order = np.argsort(-probabilities, kind="stable")
    ranked = np.append(probabilities[order], 0.0)
    f1 = 2 * np.cumsum(own[order]) / (np.arange(1, len(own) + 1) + own.sum())
    middles = (ranked[:-1] + ranked[1:]) / 2
    between = ranked[:-1] > ranked[1:]
    best = between & (f1 >= f1[between].max() - 1e-12)
    return float(middles[best][np.argmin(np.abs(middles[best] - HALF))])
