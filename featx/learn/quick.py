"""A cheap cross-validated score, made in the same way for several feature sets of the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featx.learn.groups import GroupIds
from featx.learn.intervals import SAME, Interval, nadeau_bengio_interval
from featx.learn.metrics import metric_range
from featx.learn.scores import Evaluation, FoldPredictions, evaluate_folds
from featx.learn.search import Job, Outcome, Progress, Space, run_jobs
from featx.learn.splits import Fold, make_folds

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

ENOUGH_FOLDS = 5
"""In so many folds one difference that is the same in all of them is none that chance would bring."""


@dataclass(frozen=True, eq=False)
class QuickTest:
    """Nested cross-validation with few choices: the folds, outer and inner, are dealt once and kept.

    Attributes
    ----------
    y : str array (n_samples,)
    groups : int array (n_samples,), or None
    folds : list of Fold
    jobs : list of Job
        One for each fold.
    space : Space
    """

    y: NDArray[np.str_]
    groups: IntArray | None
    folds: list[Fold]
    jobs: list[Job]
    space: Space

    @classmethod
    def plan(
        cls,
        y: NDArray[np.str_],
        groups: GroupIds,
        space: Space,
        *,
        cv: int,
        inner_cv: int,
        repeats: int = 1,
        prescribed: NDArray[np.object_] | None = None,
    ) -> QuickTest:
        """Deal the folds.

        Parameters
        ----------
        y : str array (n_samples,)
        groups : GroupIds
            Of the same samples.
        space : Space
            What is chosen from inside each training part; its `random_state` seeds the folds.
        cv, inner_cv, repeats : int
        prescribed : str array (n_samples,), optional
            A fold column for the outer folds, instead of `cv`.

        Raises
        ------
        LabelsError
            As `featx.learn.splits.make_folds`.
        """
        folds = make_folds(
            y,
            groups.ids,
            n_splits=cv,
            n_repeats=repeats,
            random_state=space.random_state,
            prescribed=prescribed,
            group_names=groups.names,
            inner_splits=inner_cv,
        )
        jobs = []
        for fold in folds:
            rows = fold.train
            inner = make_folds(
                y[rows],
                None if groups.ids is None else groups.ids[rows],
                n_splits=inner_cv,
                random_state=space.random_state,
                group_names=groups.names,
                what=f"the inner folds of fold {fold.name}",
                option="--inner-cv",
            )
            calibration = np.zeros(len(rows), dtype=np.int64)
            for part in inner:
                calibration[part.test] = part.number
            pairs = [(rows[part.train], rows[part.test]) for part in inner]
            jobs.append(Job(fold.name, pairs, rows, calibration, fold.test))
        return cls(y, groups.ids, folds, jobs, space)

    @property
    def n_repeats(self) -> int:
        """How often the samples were dealt."""
        return self.folds[-1].repeat + 1

    def run(
        self, X: FloatArray, *, n_jobs: int = 1, progress: Progress | None = None
    ) -> tuple[Evaluation, list[Outcome]]:
        """Score features (n_samples, n_features), and return also what was chosen in each fold."""
        outcomes = run_jobs(X, self.y, self.jobs, self.space, n_jobs=n_jobs, progress=progress)
        classes = [str(name) for name in np.unique(self.y)]
        evaluation = evaluate_folds(self.y, self.predictions(outcomes), classes, groups=self.groups)
        return evaluation, outcomes

    def predictions(self, outcomes: Sequence[Outcome]) -> list[FoldPredictions]:
        """Return what the best of each fold says about its test part."""
        return [
            FoldPredictions(fold, outcome.best.predicted, outcome.best.probabilities)
            for fold, outcome in zip(self.folds, outcomes, strict=True)
        ]

    def difference(self, name: str, first: Interval, other: Interval) -> Interval:
        """Compare two feature sets fold by fold.

        Parameters
        ----------
        name : str
            The score.
        first, other : Interval
            That score, of this test.

        Returns
        -------
        Interval
            Of the mean of first minus other. Folds are paired: what makes a fold hard for both drops out.
        """
        low, high = metric_range(name)
        pairs = zip(first.folds, other.folds, strict=True)
        return nadeau_bengio_interval(
            [None if one is None or two is None else one - two for one, two in pairs],
            len(self.folds) // self.n_repeats,
            self.n_repeats,
            limits=(low - high, high - low),
        )


def is_tie(difference: Interval) -> bool:
    """Whether a difference may be nothing: its interval holds 0, or is none from which more could be concluded."""
    if difference.mean is None or abs(difference.mean) < SAME:
        return True
    if difference.low is None or difference.high is None:
        defined: Sequence[float] = [value for value in difference.folds if value is not None]
        return len(defined) < ENOUGH_FOLDS
    return difference.low <= 0 <= difference.high
