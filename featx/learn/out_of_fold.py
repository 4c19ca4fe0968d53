"""What follows the choice inside every training part: calibration, and the threshold of one of two classes.

Both are learnt on the same out-of-fold probabilities of what was chosen there.

The rows that a job predicts take no part: its map and its threshold are found on its own inner folds, with the scaling
and C that were chosen on them. So a nested cross-validation scores calibrated probabilities and thresholds as it scores
everything else.
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
from featx.learn.convergence import Unconverged
from featx.learn.heads import find_head
from featx.learn.search import SMALL_WORK, Fitted, Job, Outcome, Progress, Space, refit
from featx.learn.threshold import Rule, Threshold, choose_threshold
from featx.learn.thresholded import Thresholded
from featx.learn.views import classify, scoring_rows

NOTHING: IntArray = np.array([], dtype=np.int64)


@dataclass(frozen=True)
class Finish:
    """What follows the choice.

    Attributes
    ----------
    calibration : str
        One of `featx.learn.calibration.CALIBRATIONS`.
    threshold : Rule or None
        None: heads decide as they do by themselves.
    positive : str
        The class that a threshold is for.
    """

    calibration: str
    threshold: Rule | None = None
    positive: str = ""

    def calibrates(self, head: str) -> bool:
        """Whether a head gets a map: those without probabilities of their own have the sigmoid that gives them some."""
        return self.calibration != "none" and find_head(head).has_probabilities

    @property
    def chooses_threshold(self) -> bool:
        """Whether a threshold is chosen, and not given."""
        return self.threshold is not None and self.threshold.is_chosen

    def learns(self, head: str) -> bool:
        """Whether anything is learnt out of fold."""
        return self.chooses_threshold or self.calibrates(head)

    def needs_estimators(self, heads: Sequence[str]) -> bool:
        """Whether fitted heads must be kept: the sigmoids behind them make the probabilities that a threshold is of."""
        return self.chooses_threshold and not all(find_head(head).has_probabilities for head in heads)

    def n_fits(self, jobs: Sequence[Job], space: Space) -> tuple[int, int]:
        """How many tasks `finish` has, and how many fits they take."""
        heads = [name for name in space.heads if self.learns(name)]
        return len(jobs) * len(heads), len(heads) * sum(len(job.inner) for job in jobs)


@dataclass(frozen=True, eq=False)
class FinishedFit(Fitted):
    """One refitted head with what was learnt out of fold for it.

    Attributes
    ----------
    own : str array (n_test,)
        The head's own decision, where `predicted` may be that by a threshold.
    plain : float64 array (n_test, n_classes)
        The head's probabilities as they were before.
    calibration : Calibration or None
        None where none was looked for.
    threshold : Threshold or None
    """

    own: NDArray[np.str_]
    plain: FloatArray
    calibration: Calibration | None
    threshold: Threshold | None


def own_of(fitted: Fitted) -> NDArray[np.str_]:
    """Return the head's own decision (n_test,), before any threshold."""
    return fitted.own if isinstance(fitted, FinishedFit) else fitted.predicted


def plain_of(fitted: Fitted) -> FloatArray:
    """Return the probabilities (n_test, n_classes) before calibration."""
    return fitted.plain if isinstance(fitted, FinishedFit) else fitted.probabilities


def calibration_of(fitted: Fitted) -> Calibration | None:
    """Return the map behind a head, where one was looked for."""
    return fitted.calibration if isinstance(fitted, FinishedFit) else None


def threshold_of(fitted: Fitted) -> Threshold | None:
    """Return the threshold behind a head, where there is one."""
    return fitted.threshold if isinstance(fitted, FinishedFit) else None


class Steps:
    """Progress over the search and what is learnt out of fold after it, as one count.

    Parameters
    ----------
    progress : callable (done, total), or None
    n_after : int
        Tasks of `finish`.
    """

    def __init__(self, progress: Progress | None, n_after: int) -> None:
        self._progress = progress
        self._n_after = n_after
        self._done = self._total = 0

    def searched(self, done: int, total: int) -> None:
        """Take the search's own count."""
        self._done, self._total = done, total + self._n_after
        self._tell()

    def finished(self) -> None:
        """Count one more of what follows."""
        self._done += 1
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self._done, self._total)


Learnt = tuple[Calibration | None, Threshold | None]


def finish(
    X: FloatArray,
    y: NDArray[np.str_],
    jobs: Sequence[Job],
    outcomes: Sequence[Outcome],
    space: Space,
    wanted: Finish,
    *,
    groups: IntArray | None,
    n_jobs: int = 1,
    progress: Callable[[], None] | None = None,
) -> list[Outcome]:
    """Calibrate every head of every job on the job's inner folds, and find its threshold on the same probabilities.

    Parameters
    ----------
    X : float64 array (n_samples, n_features), or (n_samples, n_views, n_features)
    y : str array (n_samples,)
    jobs : sequence of Job
        With ``keep`` where samples are called by the mean over several views, and where `Finish.needs_estimators`.
    outcomes : sequence of Outcome
        Of `featx.learn.search.run_jobs`.
    space : Space
    wanted : Finish
    groups : int array (n_samples,), or None
    n_jobs : int
        Processes, as in scikit-learn; the result does not depend on it.
    progress : callable (), optional
        Called after each task.

    Returns
    -------
    list of Outcome
        With a `FinishedFit` in the place of each head that anything was wanted for; `Outcome.unconverged` counts the
        fits behind maps and thresholds too.

    Raises
    ------
    LabelsError
        If a threshold cannot be chosen on a job's inner folds.
    """
    tasks = [(number, name) for number, outcome in enumerate(outcomes) for name in outcome.heads if wanted.learns(name)]
    unconverged = [list(outcome.unconverged) for outcome in outcomes]
    learnt: dict[tuple[int, str], Learnt] = {}
    with joblib.Parallel(n_jobs=_n_workers(n_jobs, X, y, jobs, tasks), return_as="generator") as parallel:
        found = parallel(
            joblib.delayed(_learn)(X, y, jobs[number], outcomes[number].heads[name], space, wanted, groups)
            for number, name in tasks
        )
        for task, (own, failures) in zip(tasks, found, strict=True):
            learnt[task] = own
            unconverged[task[0]] += failures
            if progress is not None:
                progress()
    given = None
    if wanted.threshold is not None and not wanted.threshold.is_chosen:
        given = Threshold(wanted.positive, wanted.threshold.level)
    heads = [
        {
            name: _apply(learnt.get((number, name), (None, given)), fitted, X, y, jobs[number], space, wanted)
            for name, fitted in outcome.heads.items()
        }
        for number, outcome in enumerate(outcomes)
    ]
    return [
        replace(outcome, heads=own, unconverged=failures)
        for outcome, own, failures in zip(outcomes, heads, unconverged, strict=True)
    ]


def _learn(
    X: FloatArray,
    y: NDArray[np.str_],
    job: Job,
    fitted: Fitted,
    space: Space,
    wanted: Finish,
    groups: IntArray | None,
) -> tuple[Learnt, list[Unconverged]]:
    scored, failures = _leave_out(X, y, job, fitted, space, groups)
    calibration = threshold = None
    probabilities = scored.probabilities
    if wanted.calibrates(fitted.choice.head):
        calibration = choose_calibration(scored, wanted.calibration)
        probabilities = calibration.apply(probabilities)
    if wanted.threshold is not None:
        place = int(np.flatnonzero(np.unique(y[job.rows]) == wanted.positive)[0])
        of_positive = probabilities.mean(axis=1)[:, place]
        threshold = choose_threshold(wanted.threshold, of_positive, scored.true == place, wanted.positive)
    return (calibration, threshold), failures


def _leave_out(
    X: FloatArray, y: NDArray[np.str_], job: Job, fitted: Fitted, space: Space, groups: IntArray | None
) -> tuple[Scored, list[Unconverged]]:
    """Return the probabilities of a job's rows by heads, of the same choice, that were fitted on the other folds.

    Of heads without probabilities of their own they are decision values through the sigmoid of the job's own head.
    """
    classes = np.unique(y[job.rows])
    parts, failures = [], []
    for train, test in job.inner:
        part, failed = refit(X, y, Job(job.name, [], train, None, NOTHING, keep=True), fitted.choice, space)
        failures += failed
        has_probabilities = find_head(fitted.choice.head).has_probabilities
        head = part.estimator if has_probabilities else fitted.estimator.behind(part.estimator)
        rows, n_views = scoring_rows(X, test, space.views)
        probabilities = np.zeros((len(test), n_views, len(classes)))
        columns = np.searchsorted(classes, head.classes_)
        with threadpool_limits(1):
            own = np.asarray(head.predict_proba(rows), dtype=np.float64)
        probabilities[:, :, columns] = own.reshape(len(test), n_views, -1)
        parts.append(probabilities)
    tested = np.concatenate([test for _, test in job.inner])
    scored = Scored(
        np.concatenate(parts),
        np.searchsorted(classes, y[tested]),
        np.repeat(np.arange(len(job.inner)), [len(test) for _, test in job.inner]),
        tested if groups is None else groups[tested],
    )
    return scored, failures


def _apply(
    learnt: Learnt,
    fitted: Fitted,
    X: FloatArray,
    y: NDArray[np.str_],
    job: Job,
    space: Space,
    wanted: Finish,
) -> Fitted:
    calibration, threshold = learnt
    if calibration is None and threshold is None:
        return fitted
    estimator, predicted, probabilities = fitted.estimator, fitted.predicted, fitted.probabilities
    if calibration is not None and calibration.method != "none":
        if estimator is not None:
            estimator = Calibrated.of(estimator, calibration, fold_of_rows(job))
        if len(job.test):
            rows, n_views = scoring_rows(X, job.test, space.views)
            if n_views > 1:
                with threadpool_limits(1):
                    probabilities = classify(estimator, rows, n_views)[1]
            else:
                probabilities = calibration.apply(probabilities)
    if threshold is not None:
        if estimator is not None:
            estimator = Thresholded.of(estimator, threshold, str(wanted.threshold), fold_of_rows(job))
        if len(job.test):
            predicted = threshold.decide(probabilities, np.unique(y[job.rows]))
    return FinishedFit(
        choice=fitted.choice,
        predicted=predicted,
        probabilities=probabilities,
        estimator=estimator,
        own=fitted.predicted,
        plain=fitted.probabilities,
        calibration=calibration,
        threshold=threshold,
    )


def like(fitted: Fitted, final: Fitted, wanted: Finish) -> Fitted:
    """Put map and threshold of `final` behind a head of the same choice that was fitted on more rows."""
    estimator, calibration, threshold = fitted.estimator, calibration_of(final), threshold_of(final)
    if calibration is not None and calibration.method != "none":
        estimator = Calibrated.of(estimator, calibration)
    if threshold is not None:
        estimator = Thresholded.of(estimator, threshold, str(wanted.threshold))
    return replace(fitted, estimator=estimator)


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
