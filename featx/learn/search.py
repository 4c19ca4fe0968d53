"""The choice of scaling, C and head inside training parts, and the fits that follow from it.

A `Job` is one training part: choose on its inner folds, refit on its rows, predict its test rows. Nested
cross-validation is one job for each outer fold and one for the head that is saved; with a fixed test part it is the
last kind alone. All jobs share one pool of workers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from featx.errors import LabelsError, UsageError
from featx.learn.choice import Choice
from featx.learn.convergence import Unconverged, counting
from featx.learn.coordinates import n_functions
from featx.learn.heads import NEIGHBOURS, STRENGTHS, Parameter, find_head, fit_head
from featx.learn.inner_folds import FoldScores, Rules, Samples, score_inner_folds
from featx.learn.search_ledger import SearchKeys, SearchLedger
from featx.learn.views import ViewUse, classify, fitting_rows, scoring_rows, sigmoid_weights

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
        As `featx.learn.heads.find_head` takes them, and of `SCALINGS`.
    C_grid : tuple of float
        Ascending; for heads whose parameter is C. The others have values of their own.
    scoring : str
        One of `featx.learn.metrics.SCORINGS`; the mean over the inner folds is maximised.
    random_state : int
    views : ViewUse
        Which rows of a sample are fitted and scored, where there are several.
    class_weight : str or None
        ``"balanced"``, or all samples count the same.
    device : str
        Where linear heads are searched; with another than ``"cpu"`` in this process alone.
    """

    heads: tuple[str, ...]
    scalings: tuple[str, ...]
    C_grid: tuple[float, ...]
    scoring: str
    random_state: int = 0
    views: ViewUse = ViewUse()
    class_weight: str | None = None
    device: str = "cpu"

    def values(self, head: str, n_fitted: int) -> tuple[float, ...]:
        """Return what is tried of a head's parameter on training parts of so many samples, the simplest first."""
        parameter = self.parameter(head)
        if parameter is STRENGTHS:
            return self.C_grid
        if parameter is NEIGHBOURS:
            return tuple(k for k in parameter.values if k <= n_fitted)
        return parameter.values

    @property
    def n_candidates(self) -> int:
        """How many combinations there are to choose from, at most."""
        return len(self.scalings) * sum(len(self.values(head, sys.maxsize)) for head in self.heads)

    # What a task has its own of: here, classification's

    def parameter(self, head: str) -> Parameter:
        """Return what is chosen of a head."""
        return find_head(head).parameter

    def choice(self, **facts: Any) -> Choice:
        """Return a choice with these attributes."""
        return Choice(**facts)

    def score(
        self,
        samples: Samples,
        candidates: Mapping[str, Sequence[float]],
        inner: Sequence[tuple[IntArray, IntArray]],
    ) -> dict[str, FoldScores]:
        """Score heads at each value of their parameter on each inner fold; see `score_inner_folds`."""
        rules = Rules(self.scoring, self.views, self.class_weight, self.random_state, self.device)
        return score_inner_folds(samples, candidates, inner, rules)

    def refit(self, X: FloatArray, y: NDArray[Any], job: Job, choice: Choice) -> tuple[Fitted, list[Unconverged]]:
        """Fit a chosen head on a job's rows and predict its test rows."""
        return refit(X, y, job, choice, self)

    def n_columns(self, y: NDArray[Any]) -> int:
        """How many columns of coefficients a linear head has, about."""
        return len(np.unique(y))

    def n_solved(self, y: NDArray[Any], jobs: Sequence[Job]) -> int | None:
        """How many fits of one function a solver makes with each scaling; None where other heads take part."""
        if not all(find_head(name).is_solved for name in self.heads):
            return None
        n_values = sum(len(self.values(name, sys.maxsize)) for name in self.heads)
        return sum(len(job.inner) for job in jobs) * n_functions(self.n_columns(y)) * n_values

    @property
    def when_undefined(self) -> str:
        """What to do where the scoring is undefined."""
        return "it needs samples of every class in a fold; choose by another --scoring, or with fewer --inner-cv"

    def __post_init__(self) -> None:
        if self.scoring == "neg_log_loss":
            without = [name for name in self.heads if not find_head(name).has_probabilities]
            if without:
                raise UsageError(
                    f"--scoring neg_log_loss needs a head with probabilities of its own; {without[0]} has none inside "
                    "the search. Leave it out, or choose by roc_auc"
                )


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
    calibration : int array (n_rows,), or None
        A fold of each of `rows`, for the sigmoids of heads without probabilities; None: they get none.
    test : int array
        What is predicted; may be empty.
    keep : bool
        Whether the fitted heads are wanted.
    """

    name: str
    inner: Sequence[tuple[IntArray, IntArray]]
    rows: IntArray
    calibration: IntArray | None
    test: IntArray
    keep: bool = False

    def n_refits(self, head: str) -> int:
        """How many fits it takes to refit a head: one, and one for each fold behind a sigmoid."""
        if self.calibration is None or find_head(head).has_probabilities:
            return 1
        return 1 + len(np.unique(self.calibration))

    def n_fits(self, space: Space) -> int:
        """How many fits the search and the refits of all heads take."""
        return space.n_candidates * len(self.inner) + sum(self.n_refits(head) for head in space.heads)


@dataclass(frozen=True, eq=False)
class Fitted:
    """One refitted head.

    Attributes
    ----------
    choice : Choice
    predicted : str array (n_test,), or float64 array of a regression
    probabilities : float64 array (n_test, n_classes)
        Without columns for a regression.
    estimator : scikit-learn estimator, or None when not kept
    """

    choice: Choice
    predicted: NDArray[Any]
    probabilities: FloatArray
    estimator: Any


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a job.

    Attributes
    ----------
    heads : dict of str to Fitted
        Each head with the scaling and the value of its parameter that are best for it.
    unconverged : list of Unconverged
    candidates : list of Choice
        All that were compared, scaling by scaling.
    """

    heads: dict[str, Fitted]
    unconverged: list[Unconverged]
    candidates: list[Choice] = field(default_factory=list)

    @property
    def best(self) -> Fitted:
        """The best head by the inner folds."""
        return min(self.heads.values(), key=lambda fitted: fitted.choice.rank)


def run_jobs(
    X: FloatArray,
    y: NDArray[Any],
    jobs: Sequence[Job],
    space: Space,
    *,
    n_jobs: int = 1,
    progress: Progress | None = None,
    ledger: SearchLedger | None = None,
) -> list[Outcome]:
    """Choose, refit and predict for each job.

    The same jobs and space give the same result for any `n_jobs`, bit for bit: each task is one process's and uses one
    thread.

    Parameters
    ----------
    X : float64 array (n_samples, n_features), or (n_samples, n_views, n_features)
    y : str array (n_samples,), or float64 array for a regression
    jobs : sequence of Job
    space : Space
        Of the task.
    n_jobs : int
        Processes, as in scikit-learn; small work is done in this one.
    progress : callable (done, total), optional
    ledger : SearchLedger, optional
        Finished searches, which are taken from it and written into it.

    Returns
    -------
    list of Outcome
        In the order of `jobs`.

    Raises
    ------
    LabelsError
        If the scoring is undefined on every inner fold of a job.
    """
    tasks = [(number, scaling) for number in range(len(jobs)) for scaling in space.scalings]
    total = len(tasks) + len(jobs) * len(space.heads)
    report = _counter(total, progress)
    kept = None if ledger is None else (ledger, SearchKeys.of(X, y, space))
    with threadpool_limits(1):
        n_fits = space.n_solved(y, jobs)
        samples = {scaling: Samples.scaled(X, y, scaling, n_fits=n_fits) for scaling in space.scalings}
    with joblib.Parallel(n_jobs=_n_workers(n_jobs, X, y, jobs, space), return_as="generator") as parallel:
        found = report(
            _searches(parallel, samples, [(jobs[number], scaling) for number, scaling in tasks], space, kept)
        )
        tried: list[list[Choice]] = [[] for _ in jobs]
        candidates: dict[tuple[int, str], list[Choice]] = {}
        unconverged: list[list[Unconverged]] = [[] for _ in jobs]
        for (number, _), (choices, failures) in zip(tasks, found, strict=True):
            tried[number] += choices
            for choice in choices:
                candidates.setdefault((number, choice.head), []).append(choice)
            unconverged[number] += failures
        best = {key: min(choices, key=lambda choice: choice.rank) for key, choices in candidates.items()}
        refits = report(
            parallel(joblib.delayed(space.refit)(X, y, jobs[number], choice) for (number, _), choice in best.items())
        )
        heads: list[dict[str, Fitted]] = [{} for _ in jobs]
        for (number, head), (fitted, failures) in zip(best, refits, strict=True):
            heads[number][head] = fitted
            unconverged[number] += failures
    return [Outcome(*parts) for parts in zip(heads, unconverged, tried, strict=True)]


Search = tuple[list[Choice], list[Unconverged]]


def _searches(
    parallel: Any,
    samples: dict[str, Samples],
    tasks: Sequence[tuple[Job, str]],
    space: Space,
    kept: tuple[SearchLedger, SearchKeys] | None,
) -> Iterator[Search]:
    """Yield what came of each job's search with each scaling: from the ledger what is in it, the rest computed."""
    found = [None if kept is None else _from_ledger(kept[0].find(kept[1].key(*task)), space) for task in tasks]
    left = [task for task, known in zip(tasks, found, strict=True) if known is None]
    computed = parallel(joblib.delayed(_search)(samples[scaling], job, space) for job, scaling in left)
    for task, known in zip(tasks, found, strict=True):
        if known is not None:
            yield known
            continue
        result = next(computed)
        if kept is not None:
            kept[0].add(kept[1].key(*task), [[asdict(one) for one in part] for part in result])
        yield result


def _from_ledger(found: Any, space: Space) -> Search | None:
    if found is None:
        return None
    choices, failures = found
    return (
        [space.choice(**{**choice, "by_fold": tuple(choice["by_fold"])}) for choice in choices],
        [Unconverged(**failure) for failure in failures],
    )


def refit(
    X: FloatArray, y: NDArray[np.str_], job: Job, choice: Choice, space: Space
) -> tuple[Fitted, list[Unconverged]]:
    """Fit a chosen head on a job's rows and predict its test rows."""
    rows, labels, n_views = fitting_rows(X, y, job.rows, space.views)
    with threadpool_limits(1), counting() as warned:
        estimator = fit_head(
            choice.head,
            choice.value * float(n_views) ** find_head(choice.head).parameter.per_view,
            choice.scaling,
            rows,
            labels,
            None if job.calibration is None else np.repeat(job.calibration, n_views),
            space.random_state,
            class_weight=space.class_weight,
            weights=sigmoid_weights(len(job.rows), n_views, space.views),
        )
    n_classes = len(estimator.classes_)
    predicted, probabilities = np.array([], dtype=y.dtype), np.empty((0, n_classes))
    if len(job.test):
        with threadpool_limits(1):
            predicted, probabilities = classify(estimator, *scoring_rows(X, job.test, space.views))
    failures = [Unconverged("refit", job.name, None, choice.head, choice.scaling, choice.value)] * len(warned)
    return Fitted(choice, predicted, probabilities, estimator if job.keep else None), failures


def _search(samples: Samples, job: Job, space: Space) -> tuple[list[Choice], list[Unconverged]]:
    """Score all heads with one scaling at every value of their parameters by a job's inner folds."""
    n_fitted = min(len(fitted) for fitted, _ in job.inner)
    candidates = {head: space.values(head, n_fitted) for head in space.heads}
    with threadpool_limits(1), counting():
        found = space.score(samples, candidates, job.inner)
    choices, failures = [], []
    for head, values in candidates.items():
        if np.isnan(found[head].scores).all(axis=0).any():
            raise LabelsError(
                f"{space.scoring} is undefined on every inner fold of fold {job.name}: {space.when_undefined}"
            )
        failures += [
            Unconverged("search", job.name, int(fold) + 1, head, samples.scaling, values[place])
            for fold, place in zip(*np.nonzero(~found[head].converged), strict=True)
        ]
        edge = space.parameter(head).edge
        choices += [
            space.choice(
                head=head,
                scaling=samples.scaling,
                value=value,
                score=float(mean),
                edge=edge(value, values),
                place=place,
                by_fold=_known(by_fold),
            )
            for place, (value, mean, by_fold) in enumerate(
                zip(values, np.nanmean(found[head].scores, axis=0), found[head].scores.T, strict=True)
            )
        ]
    return choices, failures


def _known(scores: FloatArray) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(score) else float(score) for score in scores)


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


def _n_workers(n_jobs: int, X: FloatArray, y: NDArray[Any], jobs: Sequence[Job], space: Space) -> int:
    if space.device != "cpu":
        return 1
    n_fits = sum(len(job.inner) for job in jobs) * space.n_candidates
    n_rows = max(len(job.rows) for job in jobs) * (X.shape[1] if X.ndim == 3 and space.views.train == "all" else 1)
    steps = 100 * space.n_columns(y)  # about so many iterations, each over all rows and coordinates for every class
    return 1 if n_fits * n_rows * min(n_rows, X.shape[-1]) * steps < SMALL_WORK else n_jobs
