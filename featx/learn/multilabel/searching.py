"""The choice of a head on labels inside training parts, and the fits that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from threadpoolctl import threadpool_limits

from featx.learn.calibration import Scored, choose_calibration
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
from featx.learn.search import Choice, Fitted, Job, Method, Space, Unconverged, counting
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


def score_label_folds(
    samples: Samples, candidates: Mapping[str, Sequence[float]], inner: InnerFolds, rules: Rules
) -> dict[str, FoldScores]:
    """Score heads at each C on each inner fold, labels being called where the decision value is positive."""
    found = {}
    for name, values in candidates.items():
        scores, converged = [], []
        for rows, decisions, ok in decide_inner_folds(samples, name, values, inner, rules):
            said = [LabelPredictions(samples.y[rows], one > 0, one) for one in decisions]
            scored = [label_value(rules.scoring, one) for one in said]
            scores.append([np.nan if value is None else value for value in scored])
            converged.append(ok)
        found[name] = FoldScores(np.array(scores), np.array(converged))
    return found


@dataclass(frozen=True, eq=False)
class Refitting:
    """How a head on labels is fitted once it is chosen.

    Attributes
    ----------
    names : list of str
        The labels.
    groups : int array (n_samples,), or None
    calibration : str
        One of `featx.learn.multilabel.heads.MAPS`.
    thresholds : str
        One of `featx.learn.multilabel.heads.THRESHOLDS`.
    maps : LabelMaps, optional
        What is made of decision values; else it is learnt on the inner folds of the job.
    """

    names: list[str]
    groups: IntArray | None
    calibration: str = "auto"
    thresholds: str = "f1"
    maps: LabelMaps | None = None

    @property
    def method(self) -> Method:
        """The same as part of `featx.learn.search.run_jobs`."""
        return Method(score_label_folds, partial(_refit, self))


def _refit(
    how: Refitting, X: FloatArray, marks: NDArray[Any], job: Job, choice: Choice, space: Space
) -> tuple[LabelFit, list[Unconverged]]:
    """Learn maps and thresholds on the inner folds, fit the head on the job's rows, and predict its test rows."""
    with threadpool_limits(1), counting() as warned:
        maps, n_failed = how.maps, 0
        if maps is None:
            maps, n_failed = _learn_from_inner_folds(how, X, marks, job, choice, space)
        rows, targets, n_views = fitting_rows(X, marks, job.rows, space.views)
        head = make_label_head(
            choice.head, choice.value / n_views, choice.scaling, how.names, maps, class_weight=space.class_weight
        )
        estimator = head.fit(rows, targets)
        called, probabilities = np.empty((0, len(how.names)), dtype=np.bool_), np.empty((0, len(how.names)))
        if len(job.test):
            called, probabilities = estimator.call(*scoring_rows(X, job.test, space.views))
    failure = Unconverged("refit", job.name, None, choice.head, choice.scaling, choice.value)
    kept = estimator if job.keep else None
    return LabelFit(choice, called, probabilities, kept, maps), [failure] * (len(warned) + n_failed)


def _learn_from_inner_folds(
    how: Refitting, X: FloatArray, marks: BoolArray, job: Job, choice: Choice, space: Space
) -> tuple[LabelMaps, int]:
    samples = Samples.scaled(X[job.rows], marks[job.rows], choice.scaling)
    inner = [(np.searchsorted(job.rows, one), np.searchsorted(job.rows, other)) for one, other in job.inner]
    rules = Rules(space.scoring, space.views, space.class_weight, space.random_state, space.device)
    found = list(decide_inner_folds(samples, choice.head, [choice.value], inner, rules))
    rows = np.concatenate([rows for rows, _, _ in found])
    maps = learn_maps(
        np.concatenate([decisions[0] for _, decisions, _ in found]),
        samples.y[rows],
        np.repeat(np.arange(len(found)), [len(rows) for rows, _, _ in found]),
        job.rows[rows] if how.groups is None else how.groups[job.rows[rows]],
        method="sigmoid" if choice.head == "svm" else how.calibration,
        thresholds=how.thresholds,
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
