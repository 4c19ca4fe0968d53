"""The choice of scaling, C and head inside training parts, and the fits that follow from it.

A `Job` is one training part: choose on its inner folds, refit on its rows, predict its test rows. Nested
cross-validation is one job for each outer fold and one for the head that is saved; with a fixed test part it is the
last kind alone. All jobs share one pool of workers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from featx.errors import LabelsError, UsageError
from featx.learn.heads import HEADS, SCALINGS, HeadPath, fit_head
from featx.learn.metrics import scoring_value
from featx.learn.views import ViewUse, classify, fitting_rows, mean_over_views, scoring_rows, sigmoid_weights

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)`` after each task."""

SMALL_WORK = 2e10
"""Rough number of multiplications below which starting worker processes takes longer than doing it here."""


@dataclass(frozen=True)
class Space:
    """What is chosen from, and by what.

    Attributes
    ----------
    heads, scalings : tuple of str
        Of `featx.learn.heads.HEADS` and `SCALINGS`.
    C_grid : tuple of float
        Ascending.
    scoring : str
        One of `featx.learn.metrics.SCORINGS`; the mean over the inner folds is maximised.
    random_state : int
    views : ViewUse
        Which rows of a sample are fitted and scored, where there are several.
    """

    heads: tuple[str, ...]
    scalings: tuple[str, ...]
    C_grid: tuple[float, ...]
    scoring: str
    random_state: int = 0
    views: ViewUse = ViewUse()

    @property
    def n_candidates(self) -> int:
        """How many combinations there are to choose from."""
        return len(self.heads) * len(self.scalings) * len(self.C_grid)

    def __post_init__(self) -> None:
        if self.scoring == "neg_log_loss":
            without = [name for name in self.heads if not HEADS[name].has_probabilities]
            if without:
                raise UsageError(
                    f"--scoring neg_log_loss needs a head with probabilities of its own; {without[0]} has none inside "
                    "the search. Leave it out, or choose by roc_auc"
                )


@dataclass(frozen=True)
class Choice:
    """A head with its scaling and C, and the score for which it was chosen.

    Attributes
    ----------
    head, scaling : str
    C : float
    score : float
        Mean over the inner folds of the scoring.
    edge : str
        ``"lower"`` or ``"upper"`` where C is at that end of the grid, so that the best may lie beyond; else ``""``.
    """

    head: str
    scaling: str
    C: float
    score: float
    edge: str = ""

    @property
    def rank(self) -> tuple[float, float, int, int]:
        """Sorts the better choice first; ties go to the smaller C, then to the earlier scaling and head."""
        # Means of the same values in another order differ in the last digits: that is a tie.
        return (-round(self.score, 12), self.C, list(SCALINGS).index(self.scaling), list(HEADS).index(self.head))


@dataclass(frozen=True)
class Unconverged:
    """A fit whose solver stopped before it had converged.

    Attributes
    ----------
    stage : str
        ``"search"``, or ``"refit"`` (with the fits behind its sigmoid).
    fold : str
        Name of the job.
    inner_fold : int or None
        From 1; None in a refit.
    head, scaling : str
    C : float
    """

    stage: str
    fold: str
    inner_fold: int | None
    head: str
    scaling: str
    C: float


@dataclass(frozen=True, eq=False)
class Job:
    """One training part. All arrays are positions of samples.

    Attributes
    ----------
    name : str
        For messages: ``"2"``, ``"1.2"`` (repeat and fold), ``"final"``.
    inner : sequence of (int array, int array)
        Pairs of (fitted on, scored on) for the choice.
    rows : int array (n_rows,)
        What the chosen head is refitted on.
    calibration : int array (n_rows,)
        A fold of each of `rows`, for the sigmoids of heads without probabilities.
    test : int array
        What is predicted; may be empty.
    keep : bool
        Whether the fitted heads are wanted.
    """

    name: str
    inner: Sequence[tuple[IntArray, IntArray]]
    rows: IntArray
    calibration: IntArray
    test: IntArray
    keep: bool = False

    def n_refits(self, head: str) -> int:
        """How many fits it takes to refit a head: one, and one for each fold behind a sigmoid."""
        return 1 if HEADS[head].has_probabilities else 1 + len(np.unique(self.calibration))

    def n_fits(self, space: Space) -> int:
        """How many fits the search and the refits of all heads take."""
        return space.n_candidates * len(self.inner) + sum(self.n_refits(head) for head in space.heads)


@dataclass(frozen=True, eq=False)
class Fitted:
    """One refitted head.

    Attributes
    ----------
    choice : Choice
    predicted : str array (n_test,)
    probabilities : float64 array (n_test, n_classes)
    estimator : scikit-learn classifier, or None when not kept
    """

    choice: Choice
    predicted: NDArray[np.str_]
    probabilities: FloatArray
    estimator: Any


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a job.

    Attributes
    ----------
    heads : dict of str to Fitted
        Each head with the scaling and C that are best for it.
    unconverged : list of Unconverged
    """

    heads: dict[str, Fitted]
    unconverged: list[Unconverged]

    @property
    def best(self) -> Fitted:
        """The best head by the inner folds."""
        return min(self.heads.values(), key=lambda fitted: fitted.choice.rank)


def run_jobs(
    X: FloatArray,
    y: NDArray[np.str_],
    jobs: Sequence[Job],
    space: Space,
    *,
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Choose, refit and predict for each job.

    The same jobs and space give the same result for any `n_jobs`, bit for bit: each task is one process's and uses one
    thread.

    Parameters
    ----------
    X : float64 array (n_samples, n_features), or (n_samples, n_views, n_features)
    y : str array (n_samples,)
    jobs : sequence of Job
    space : Space
    n_jobs : int
        Processes, as in scikit-learn; small work is done in this one.
    progress : callable (done, total), optional

    Returns
    -------
    list of Outcome
        In the order of `jobs`.

    Raises
    ------
    LabelsError
        If the scoring is undefined on every inner fold of a job.
    """
    pairs = [(head, scaling) for head in space.heads for scaling in space.scalings]
    tasks = [(job, head, scaling) for job in jobs for head, scaling in pairs]
    total = len(tasks) + len(jobs) * len(space.heads)
    report = _counter(total, progress)
    with joblib.Parallel(n_jobs=_n_workers(n_jobs, X, y, jobs, space), return_as="generator") as parallel:
        found = report(
            parallel(joblib.delayed(_search)(X, y, job, head, scaling, space) for job, head, scaling in tasks)
        )
        candidates: dict[tuple[int, str], list[Choice]] = {}
        unconverged: list[list[Unconverged]] = [[] for _ in jobs]
        for place, (choices, failures) in enumerate(found):
            number = place // len(pairs)
            candidates.setdefault((number, tasks[place][1]), []).extend(choices)
            unconverged[number] += failures
        best = {key: min(choices, key=lambda choice: choice.rank) for key, choices in candidates.items()}
        refits = report(
            parallel(joblib.delayed(refit)(X, y, jobs[number], choice, space) for (number, _), choice in best.items())
        )
        heads: list[dict[str, Fitted]] = [{} for _ in jobs]
        for (number, head), (fitted, failures) in zip(best, refits, strict=True):
            heads[number][head] = fitted
            unconverged[number] += failures
    return [Outcome(own, failures) for own, failures in zip(heads, unconverged, strict=True)]


def refit(
    X: FloatArray, y: NDArray[np.str_], job: Job, choice: Choice, space: Space
) -> tuple[Fitted, list[Unconverged]]:
    """Fit a chosen head on a job's rows and predict its test rows."""
    rows, labels, n_views = fitting_rows(X, y, job.rows, space.views)
    with threadpool_limits(1), _counting() as warned:
        estimator = fit_head(
            choice.head,
            choice.C / n_views,
            choice.scaling,
            rows,
            labels,
            np.repeat(job.calibration, n_views),
            space.random_state,
            weights=sigmoid_weights(len(job.rows), n_views, space.views),
        )
    n_classes = len(estimator.classes_)
    predicted, probabilities = np.array([], dtype=y.dtype), np.empty((0, n_classes))
    if len(job.test):
        with threadpool_limits(1):
            predicted, probabilities = classify(estimator, *scoring_rows(X, job.test, space.views))
    failures = [Unconverged("refit", job.name, None, choice.head, choice.scaling, choice.C)] * len(warned)
    return Fitted(choice, predicted, probabilities, estimator if job.keep else None), failures


def _search(
    X: FloatArray, y: NDArray[np.str_], job: Job, head: str, scaling: str, space: Space
) -> tuple[list[Choice], list[Unconverged]]:
    """Score one head with one scaling at every C by a job's inner folds."""
    scores = np.full((len(job.inner), len(space.C_grid)), np.nan)
    failures = []
    with threadpool_limits(1):
        for fold, (train, test) in enumerate(job.inner):
            fitted, labels, n_fitted = fitting_rows(X, y, train, space.views)
            path = HeadPath(head, scaling, fitted, labels, space.random_state)
            scored, n_scored = scoring_rows(X, test, space.views)
            rows = path.transform(scored)
            for place, C in enumerate(space.C_grid):
                with _counting() as warned:
                    model = path.fit(C / n_fitted)
                if warned:
                    failures.append(Unconverged("search", job.name, fold + 1, head, scaling, C))
                predicted, values = _predict(space.scoring, head, model, rows, n_scored)
                value = scoring_value(space.scoring, y[test], predicted, values, model.classes_)
                scores[fold, place] = np.nan if value is None else value
    undefined = np.isnan(scores).all(axis=0)
    if undefined.any():
        raise LabelsError(
            f"{space.scoring} is undefined on every inner fold of fold {job.name}: it needs samples of every class in "
            "a fold; choose by another --scoring, or with fewer --inner-cv"
        )
    means = np.nanmean(scores, axis=0)
    return [
        Choice(head, scaling, C, float(mean), _edge(C, space.C_grid))
        for C, mean in zip(space.C_grid, means, strict=True)
    ], failures


def _predict(
    scoring: str, head: str, model: Any, rows: FloatArray, n_views: int
) -> tuple[NDArray[Any], FloatArray | None]:
    """Return classes, and what the scoring ranks samples by: probabilities, or decision values where there are none."""
    has_probabilities = HEADS[head].has_probabilities
    if n_views > 1:
        return mean_over_views(model, rows, n_views, has_probabilities=has_probabilities)
    predicted = model.predict(rows)
    if scoring not in ("roc_auc", "roc_auc_ovr", "neg_log_loss"):
        return predicted, None
    return predicted, (model.predict_proba if has_probabilities else model.decision_function)(rows)


def _edge(C: float, grid: tuple[float, ...]) -> str:
    if len(grid) == 1:
        return ""
    return {grid[0]: "lower", grid[-1]: "upper"}.get(C, "")


@contextmanager
def _counting() -> Iterator[list[warnings.WarningMessage]]:
    """Collect ConvergenceWarnings; other warnings go their way."""
    failures: list[warnings.WarningMessage] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        yield failures
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning):
            failures.append(warning)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _counter(total: int, progress: Progress | None) -> Callable[[Any], Iterator[Any]]:
    """Return a wrapper for iterators that reports each item; several share the count."""
    done = 0

    def report(items: Any) -> Iterator[Any]:
        nonlocal done
        for item in items:
            done += 1
            if progress is not None:
                progress(done, total)
            yield item

    return report


def _n_workers(n_jobs: int, X: FloatArray, y: NDArray[np.str_], jobs: Sequence[Job], space: Space) -> int:
    n_fits = sum(len(job.inner) for job in jobs) * space.n_candidates
    n_rows = max(len(job.rows) for job in jobs) * (X.shape[1] if X.ndim == 3 and space.views.train == "all" else 1)
    steps = 100 * len(np.unique(y))  # about so many iterations, each over all rows and coordinates for every class
    return 1 if n_fits * n_rows * min(n_rows, X.shape[-1]) * steps < SMALL_WORK else n_jobs
