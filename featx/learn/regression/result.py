"""What ``featx fit --task regression`` gives: a fitted head with every fact about how good it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from featx.learn.notes import note_edge, note_failed, note_identical, note_locked, note_no_groups, note_unlabelled
from featx.learn.novelty import Novelty
from featx.learn.regression.intervals import NumberIntervals
from featx.learn.regression.scores import NumberEvaluation
from featx.learn.result import Result
from featx.learn.trust import COVERAGES, describe_novelty


@dataclass(frozen=True)
class NumberOutOfFold:
    """One prediction for a sample by a head that was not fitted on it.

    Attributes
    ----------
    key, group, fold : str
        As in `featx.learn.result.OutOfFold`.
    true, predicted : float
    """

    key: str
    group: str
    fold: str
    true: float
    predicted: float


@dataclass(frozen=True, kw_only=True, eq=False)
class RegressionResult(Result[NumberEvaluation]):
    """A fitted regression and everything known about how good it is.

    Attributes
    ----------
    estimator : scikit-learn regressor
        A Pipeline. This and what is not listed here is as in `featx.learn.result.Result`.
    out_of_fold : list of NumberOutOfFold
    leaks : Leaks
        Near-duplicates alone.
    intervals : NumberIntervals or None
        What prediction intervals are made of.
    why_no_intervals : str
    novelty : Novelty or None
        What tells images unlike the training set; None where it was not wanted.
    """

    out_of_fold: list[NumberOutOfFold] = field(repr=False)
    intervals: NumberIntervals | None = field(repr=False)
    why_no_intervals: str
    novelty: Novelty | None = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the object that ``featx fit --task regression --json`` prints."""
        evaluation = self.whole.evaluation
        return {
            **super().to_dict(),
            "guessing": evaluation.guessing,
            "labels": asdict(evaluation.spread),
            "n_fits": self.n_fits,
            "intervals": self._intervals_dict(),
            "novelty": describe_novelty(self.novelty),
        }

    def _intervals_dict(self) -> dict[str, Any]:
        found = self.intervals
        if found is None:
            return {"kept": False, "why_not": self.why_no_intervals}
        return {
            "kept": True,
            "n_folds": len(found.heads),
            "n_groups": found.n_groups,
            "unit": found.unit,
            "floor": {f"{coverage:g}": found.floor(coverage) for coverage in COVERAGES},
        }

    @property
    def _chosen_file_text(self) -> str:
        return f" Prediction intervals and near-duplicates are told of {self.file} alone."

    @property
    def notes(self) -> list[str]:
        """What the user must hear, most important first."""
        return [
            *note_no_groups(self.groups),
            *note_identical(self.groups),
            *self.leaks.notes,
            *note_locked(self.locked, "regression"),
            *note_failed(self.n_missing),
            *note_unlabelled(self.unlabelled),
            *note_edge(self.whole.chosen),
        ]

    def members(self) -> dict[str, Any]:
        """Return what `featx.learn.bundle.save_bundle` takes beside estimator, facts and weights."""
        return {"intervals": self.intervals, "novelty": self.novelty}

    def iter_out_of_fold(self) -> Iterator[list[Any]]:
        """Yield the header ``key, group, fold, true, predicted``, then a row for each prediction."""
        yield ["key", "group", "fold", "true", "predicted"]
        for row in self.out_of_fold:
            yield [row.key, row.group, row.fold, row.true, row.predicted]
