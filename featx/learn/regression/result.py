"""What ``featx fit --task regression`` gives: a fitted head with every fact about how good it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from featx.learn.bundle import SHA_DIGITS
from featx.learn.dataset import LockedPart
from featx.learn.groups import GroupIds
from featx.learn.leaks import Leaks
from featx.learn.novelty import Novelty
from featx.learn.options import FitOptions
from featx.learn.paired import Comparisons
from featx.learn.plan import EvaluationPlan
from featx.learn.regression.intervals import NumberIntervals
from featx.learn.regression.scores import NumberEvaluation
from featx.learn.result import HeadResult, note_locked, note_no_groups
from featx.learn.trust import COVERAGES, describe_novelty
from featx.learn.views import ViewUse
from featx.spec import FeatureSpec


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


@dataclass(frozen=True, eq=False)
class RegressionResult:
    """A fitted regression and everything known about how good it is.

    Attributes
    ----------
    estimator : scikit-learn regressor
        On features (n, n_features); a Pipeline.
    whole, heads, files : HeadResult, dict of str to HeadResult
        As in `featx.learn.result.FitResult`, and so are the attributes that are not listed here.
    out_of_fold : list of NumberOutOfFold
    intervals : NumberIntervals or None
        What prediction intervals are made of.
    why_no_intervals : str
    novelty : Novelty or None
        What tells images unlike the training set; None where it was not wanted.
    """

    estimator: Any
    whole: HeadResult[NumberEvaluation]
    heads: dict[str, HeadResult[NumberEvaluation]]
    plan: EvaluationPlan
    prescribed_folds: bool
    groups: GroupIds
    out_of_fold: list[NumberOutOfFold] = field(repr=False)
    n_fits: int
    unlabelled: int
    n_missing: int
    seconds: float
    fitted_on: list[str] = field(repr=False)
    options: FitOptions
    comparisons: Comparisons
    leaks: Leaks = field(repr=False)
    intervals: NumberIntervals | None = field(repr=False)
    why_no_intervals: str
    novelty: Novelty | None = field(repr=False)
    file: str = ""
    files: dict[str, HeadResult[NumberEvaluation]] = field(default_factory=dict)
    file_of_fold: list[str] = field(default_factory=list)
    views: ViewUse = ViewUse()
    spec: FeatureSpec | None = None
    digest: str = ""
    weights: bytes | None = field(default=None, repr=False)
    locked: LockedPart | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the object that ``featx fit --json`` prints."""
        evaluation = self.whole.evaluation
        choices = [("final", self.whole.chosen), *self.whole.folds]
        return {
            "task": self.options.task,
            "scheme": self.plan.scheme,
            "description": self.description,
            **self.whole.to_dict(),
            "head": self.whole.chosen.head,
            "heads": {name: head.to_dict() for name, head in self.heads.items()},
            "file": self.file or None,
            "files": {name: file.to_dict() for name, file in self.files.items()},
            "file_of_fold": self.file_of_fold,
            "comparisons": self.comparisons.to_dict(),
            "guessing": evaluation.guessing,
            "labels": asdict(evaluation.spread),
            "estimand": evaluation.estimand,
            "n_samples": len(np.union1d(self.plan.fit, self.plan.report)),
            "n_fitted": len(self.plan.fit),
            "n_reported": evaluation.n_samples,
            "left_out": {
                "unlabelled": self.unlabelled,
                "missing": self.n_missing,
                "without_split": self.plan.n_without_split,
                "locked": 0 if self.locked is None else self.locked.n_samples,
            },
            "locked": None if self.locked is None else self.locked.to_dict(),
            "groups": None if self.groups.ids is None else {"n": self.groups.n, "source": self.groups.source},
            "edge": [{"fold": fold, **choice.to_dict()} for fold, choice in choices if choice.edge],
            "leaks": {"near_duplicates": self.leaks.to_dict()["near_duplicates"]},
            "n_fits": self.n_fits,
            "views": asdict(self.views),
            "intervals": self._intervals_dict(),
            "novelty": describe_novelty(self.novelty),
            "warnings": self.notes,
            "options": asdict(self.options),
            "seconds": self.seconds,
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
    def description(self) -> str:
        """What was chosen on, scored and fitted, in a few sentences."""
        text = self.plan.description
        if self.files:
            text += (
                f" {len(self.files)} files compete: which one is best is chosen inside each training part, as head and "
                "scaling are, and the scores are those of the whole selection. Prediction intervals and "
                f"near-duplicates are told of {self.file} alone."
            )
        if self.prescribed_folds:
            names = ", ".join(name for name, _ in self.whole.folds)
            text += f" The outer folds are those of the fold column ({names}), not of --cv."
        return text + self.views.description

    @property
    def notes(self) -> list[str]:
        """What the user must hear, most important first."""
        notes = [*note_no_groups(self.groups), *self.leaks.notes, *note_locked(self.locked, "regression")]
        if self.n_missing:
            notes.append(f"Samples that failed in extraction and have no row: {self.n_missing}.")
        if self.unlabelled:
            notes.append(f"Samples without a label, left out: {self.unlabelled}.")
        chosen = self.whole.chosen
        if chosen.edge:
            notes.append(
                f"The chosen {chosen.setting} is at the {chosen.edge} edge of what was tried: a better one may lie "
                "beyond (for C: --C-grid)."
            )
        return notes

    def facts(self) -> dict[str, Any]:
        """Return what the bundle records."""
        facts = self.to_dict()
        facts["locked_away"] = sorted({sha256[:SHA_DIGITS] for sha256 in self.locked.sha256} if self.locked else ())
        facts["leaks"]["near_duplicates"]["pairs"] = []  # no sample's name is in a bundle
        facts["warnings"] = [note for note in facts["warnings"] if note not in self.leaks.notes] + self.leaks.facts
        fitted_on = sorted({sha256[:SHA_DIGITS] for sha256 in self.fitted_on})
        return {**facts, "spec": self.spec, "manifest_digest": self.digest, "fitted_on": fitted_on}

    def members(self) -> dict[str, Any]:
        """Return what `featx.learn.bundle.save_bundle` takes beside estimator, facts and weights."""
        return {"intervals": self.intervals, "novelty": self.novelty}

    def iter_out_of_fold(self) -> Iterator[list[Any]]:
        """Yield the header ``key, group, fold, true, predicted``, then a row for each prediction."""
        yield ["key", "group", "fold", "true", "predicted"]
        for row in self.out_of_fold:
            yield [row.key, row.group, row.fold, row.true, row.predicted]
