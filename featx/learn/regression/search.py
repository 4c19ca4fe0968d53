"""The choice of scaling, head and its parameter by the inner folds of a training part, where labels are numbers.

`featx.learn.search.run_jobs` does the same for all tasks; here is what a regression has of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from featx.learn.choice import Choice
from featx.learn.convergence import Unconverged
from featx.learn.heads import Parameter, make_scaler
from featx.learn.inner_folds import OWN_SCALING, FoldScores, Samples, rows_of
from featx.learn.regression.heads import NumberPart, find_head, make_head, order_of
from featx.learn.regression.metrics import SCORINGS
from featx.learn.search import Fitted, Job, Space
from featx.learn.views import ViewUse, fitting_rows, scoring_rows

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class NumberChoice(Choice):
    """A choice among the heads of a regression."""

    _find_head = staticmethod(find_head)  # type: ignore[assignment]
    _order_of = staticmethod(order_of)

    @property
    def rank(self) -> tuple[float, int, int, int]:
        """Sorts the better choice first; scores in the unit of the labels are tied by their first twelve digits."""
        return (float(f"{-self.score:.12g}"), *super().rank[1:])


@dataclass(frozen=True)
class NumberSpace(Space):
    """What is chosen from, and by what; `scoring` is one of `featx.learn.regression.metrics.SCORINGS`."""

    def __post_init__(self) -> None:
        """All heads go with all scorings."""

    def parameter(self, head: str) -> Parameter:
        """Return what is chosen of a head."""
        return find_head(head).parameter

    def choice(self, **facts: Any) -> NumberChoice:
        """Return a choice with these attributes."""
        return NumberChoice(**facts)

    def n_columns(self, _: NDArray[Any]) -> int:
        """How many columns of coefficients a linear head has."""
        return 1

    def n_solved(self, _: NDArray[Any], __: Sequence[Job]) -> int | None:
        """None: its heads are not those of `featx.learn.path` alone."""
        return None

    @property
    def when_undefined(self) -> str:
        """What to do where the scoring is undefined."""
        return "it needs different numbers in a fold; choose by another --scoring, or with fewer --inner-cv"

    def n_fits(self, job: Job) -> int:
        """How many fits the search and the refits of all heads take."""
        return self.n_candidates * len(job.inner) + len(self.heads)

    def score(
        self,
        samples: Samples,
        candidates: Mapping[str, Sequence[float]],
        inner: Sequence[tuple[IntArray, IntArray]],
    ) -> dict[str, FoldScores]:
        """Score heads at each value of their parameter on each inner fold.

        A sample is scored by the mean of what is predicted for those of its rows that count.
        """
        n_scored = samples.n_views if self.views.score == "average" else 1
        power = samples.n_views if self.views.train == "all" else 1
        scores: dict[str, list[FloatArray]] = {name: [] for name in candidates}
        for fitted, scored in inner:
            plain, turned = _parts(samples, fitted, scored, self.views, self.random_state)
            for name, values in candidates.items():
                head = find_head(name)
                of_rows = [value * float(power) ** head.parameter.per_view for value in values]
                said = head.search(turned if head.is_isometric else plain, of_rows)
                said = said.reshape(len(values), -1, n_scored).mean(axis=2)
                scores[name].append(SCORINGS[self.scoring](samples.y[scored], said))
        return {
            name: FoldScores(np.array(own), np.ones((len(own), len(candidates[name])), dtype=np.bool_))
            for name, own in scores.items()
        }

    def refit(self, X: FloatArray, y: NDArray[Any], job: Job, choice: Choice) -> tuple[Fitted, list[Unconverged]]:
        """Fit a chosen head on a job's rows and predict its test rows."""
        rows, numbers, n_views = fitting_rows(X, y, job.rows, self.views)
        value = choice.value * float(n_views) ** find_head(choice.head).parameter.per_view
        estimator = make_head(choice.head, value, choice.scaling, self.random_state)
        predicted = np.empty(0)
        with threadpool_limits(1):
            estimator.fit(rows, numbers)
            if len(job.test):
                predicted = predict_numbers(estimator, *scoring_rows(X, job.test, self.views))
        return Fitted(choice, predicted, np.empty((len(predicted), 0)), estimator if job.keep else None), []


def predict_numbers(estimator: Any, rows: FloatArray, n_views: int = 1) -> FloatArray:
    """Predict the number of each sample: the mean over its rows.

    Parameters
    ----------
    estimator : fitted scikit-learn regressor
    rows : float64 array (n * n_views, n_features)
        The rows of each sample one after the other.
    n_views : int

    Returns
    -------
    float64 array (n,)
    """
    of_rows = np.asarray(estimator.predict(rows), dtype=np.float64).reshape(-1, n_views)
    return np.asarray(of_rows.mean(axis=1))


def _parts(
    samples: Samples, fitted: IntArray, scored: IntArray, use: ViewUse, random_state: int
) -> tuple[NumberPart, NumberPart]:
    """Lay out a training part with all features, and with the coordinates of their span where there are any."""
    n_views = samples.n_views
    rows = rows_of(fitted, n_views, use.train == "all")
    others = rows_of(scored, n_views, use.score == "average")
    y = np.repeat(samples.y[fitted], len(rows) // len(fitted))
    X = samples.X.reshape(-1, samples.X.shape[-1])
    fit_rows, score_rows = X[rows], X[others]
    if samples.scaling in OWN_SCALING:
        scaler = make_scaler(samples.scaling).fit(fit_rows)
        fit_rows, score_rows = scaler.transform(fit_rows), scaler.transform(score_rows)
    plain = NumberPart(fit_rows, y, score_rows, random_state)
    if samples.coordinates is None:
        return plain, plain
    turned = samples.coordinates.reshape(-1, samples.coordinates.shape[-1])
    return plain, NumberPart(turned[rows], y, turned[others], random_state)
