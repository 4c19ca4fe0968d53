"""Calibration inside every training part: out-of-fold probabilities of what was chosen there, and the map they give.

The rows that a job predicts take no part: its map is fitted on its own inner folds, with the scaling and C that were
chosen on them. So a nested cross-validation scores calibrated probabilities as it scores everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from featx.learn.calibrated import Calibrated
from featx.learn.calibration import Calibration, FloatArray, IntArray, Scored, choose_calibration
from featx.learn.heads import find_head
from featx.learn.search import SMALL_WORK, Choice, Fitted, Job, Outcome, Progress, Space, Unconverged, refit
from featx.learn.views import classify, scoring_rows

NOTHING: IntArray = np.array([], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class CalibratedFit(Fitted):
    """One refitted head with calibrated probabilities.

    Attributes
    ----------
    plain : float64 array (n_test, n_classes)
        The head's probabilities as they were before.
    calibration : Calibration
    """

    plain: FloatArray
    calibration: Calibration


class Steps:
    """Progress over the search and the maps that follow it, as one count.

    Parameters
    ----------
    progress : callable (done, total), or None
    n_maps : int
        Tasks of `calibrate`.
    """

    def __init__(self, progress: Progress | None, n_maps: int) -> None:
        self._progress = progress
        self._n_maps = n_maps
        self._done = self._total = 0

    def searched(self, done: int, total: int) -> None:
        """Take the search's own count."""
        self._done, self._total = done, total + self._n_maps
        self._tell()

    def mapped(self) -> None:
        """Count one more map."""
        self._done += 1
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self._done, self._total)


def n_calibration_fits(jobs: Sequence[Job], space: Space, method: str) -> tuple[int, int]:
    """How many tasks `calibrate` has, and how many fits they take."""
    heads = [name for name in space.heads if is_calibrated(name, method)]
    return len(jobs) * len(heads), len(heads) * sum(len(job.inner) for job in jobs)


def is_calibrated(head: str, method: str) -> bool:
    """Whether a head gets a map: those without probabilities of their own have the sigmoid that gives them some."""
    return method != "none" and find_head(head).has_probabilities


def calibrate(
    X: FloatArray,
    y: NDArray[np.str_],
    jobs: Sequence[Job],
    outcomes: Sequence[Outcome],
    space: Space,
    *,
    method: str,
    groups: IntArray | None,
    n_jobs: int = 1,
    progress: Callable[[], None] | None = None,
) -> list[Outcome]:
    """Calibrate every head of every job on the job's inner folds.

    Parameters
    ----------
    X : float64 array (n_samples, n_features), or (n_samples, n_views, n_features)
    y : str array (n_samples,)
    jobs : sequence of Job
        Where samples are called by the mean over several views, with ``keep``.
    outcomes : sequence of Outcome
        Of `featx.learn.search.run_jobs`.
    space : Space
    method : str
        One of `featx.learn.calibration.CALIBRATIONS`.
    groups : int array (n_samples,), or None
    n_jobs : int
        Processes, as in scikit-learn; the result does not depend on it.
    progress : callable (), optional
        Called after each task.

    Returns
    -------
    list of Outcome
        With a `CalibratedFit` in the place of each calibrated head; `Outcome.unconverged` counts the fits behind the
        maps too.
    """
    tasks = [
        (number, name)
        for number, outcome in enumerate(outcomes)
        for name in outcome.heads
        if is_calibrated(name, method)
    ]
    heads = [dict(outcome.heads) for outcome in outcomes]
    unconverged = [list(outcome.unconverged) for outcome in outcomes]
    with joblib.Parallel(n_jobs=_n_workers(n_jobs, X, y, jobs, tasks), return_as="generator") as parallel:
        found = parallel(
            joblib.delayed(_calibrate_head)(X, y, jobs[number], heads[number][name].choice, space, method, groups)
            for number, name in tasks
        )
        for (number, name), (calibration, failures) in zip(tasks, found, strict=True):
            heads[number][name] = _apply(calibration, heads[number][name], X, jobs[number], space)
            unconverged[number] += failures
            if progress is not None:
                progress()
    return [
        replace(outcome, heads=own, unconverged=failures)
        for outcome, own, failures in zip(outcomes, heads, unconverged, strict=True)
    ]


def _calibrate_head(
    X: FloatArray,
    y: NDArray[np.str_],
    job: Job,
    choice: Choice,
    space: Space,
    method: str,
    groups: IntArray | None,
) -> tuple[Calibration, list[Unconverged]]:
    classes = np.unique(y[job.rows])
    parts, failures = [], []
    for train, test in job.inner:
        part = Job(job.name, [], train, np.zeros(len(train), dtype=np.int64), NOTHING, keep=True)
        fitted, failed = refit(X, y, part, choice, space)
        failures += failed
        rows, n_views = scoring_rows(X, test, space.views)
        probabilities = np.zeros((len(test), n_views, len(classes)))
        columns = np.searchsorted(classes, fitted.estimator.classes_)
        with threadpool_limits(1):
            own = np.asarray(fitted.estimator.predict_proba(rows), dtype=np.float64)
        probabilities[:, :, columns] = own.reshape(len(test), n_views, -1)
        parts.append(probabilities)
    tested = np.concatenate([test for _, test in job.inner])
    scored = Scored(
        np.concatenate(parts),
        np.searchsorted(classes, y[tested]),
        np.repeat(np.arange(len(job.inner)), [len(test) for _, test in job.inner]),
        tested if groups is None else groups[tested],
    )
    return choose_calibration(scored, method), failures


def _apply(calibration: Calibration, fitted: Fitted, X: FloatArray, job: Job, space: Space) -> CalibratedFit:
    estimator, probabilities = fitted.estimator, fitted.probabilities
    if calibration.method != "none":
        if estimator is not None:
            estimator = Calibrated.of(estimator, calibration, fold_of_rows(job))
        if len(job.test):
            rows, n_views = scoring_rows(X, job.test, space.views)
            if n_views > 1:
                with threadpool_limits(1):
                    probabilities = classify(estimator, rows, n_views)[1]
            else:
                probabilities = calibration.apply(probabilities)
    return CalibratedFit(
        choice=fitted.choice,
        predicted=fitted.predicted,
        probabilities=probabilities,
        estimator=estimator,
        plain=fitted.probabilities,
        calibration=calibration,
    )


def recalibrate(fitted: Fitted, final: Fitted) -> Fitted:
    """Put the map of `final` behind a head of the same choice that was fitted on more rows."""
    if not isinstance(final, CalibratedFit) or final.calibration.method == "none":
        return fitted
    return replace(fitted, estimator=Calibrated.of(fitted.estimator, final.calibration))


def fold_of_rows(job: Job) -> IntArray:
    """Return the inner fold in which each of a job's rows is left out, -1 for none."""
    folds = np.full(len(job.rows), -1, dtype=np.int64)
    for number, (_, test) in enumerate(job.inner):
        folds[np.searchsorted(job.rows, test)] = number
    return folds


def _n_workers(n_jobs: int, X: FloatArray, y: NDArray[np.str_], jobs: Sequence[Job], tasks: Sequence[Any]) -> int:
    n_rows = max(len(job.rows) for job in jobs) * (X.shape[1] if X.ndim == 3 else 1)
    n_fits = sum(len(jobs[number].inner) for number, _ in tasks)
    work = n_fits * n_rows * min(n_rows, X.shape[-1]) * 100 * len(np.unique(y))  # as featx.learn.search reckons
    return 1 if work < SMALL_WORK else n_jobs
