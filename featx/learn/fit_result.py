"""What ``featx fit`` gives: a classifier with every fact about how good it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from featx.learn.by_group import GroupEvaluation
from featx.learn.convergence import Unconverged, describe_unconverged
from featx.learn.notes import (
    note_edge,
    note_failed,
    note_identical,
    note_locked,
    note_no_groups,
    note_small_classes,
    note_unconverged,
    note_unlabelled,
)
from featx.learn.race_account import RaceAccount
from featx.learn.result import OutOfFold, Result, out_of_fold_rows
from featx.learn.scores import Evaluation
from featx.learn.threshold import Thresholds
from featx.learn.trust import Trust


@dataclass(frozen=True, kw_only=True, eq=False)
class FitResult(Result[Evaluation]):
    """A fitted classifier and everything known about how good it is.

    Attributes
    ----------
    estimator : scikit-learn classifier
        With `predict_proba`; a Pipeline, or `Calibrated`, `SigmoidCalibrated` or `Thresholded`. This and what is not
        listed here is as in `featx.learn.result.Result`.
    classes : list of str
        In the order of its probabilities.
    by_group : GroupEvaluation or None
        Scores of whole groups, where asked for.
    out_of_fold : list of OutOfFold
        Of the outer folds, then of the fixed part, if there is one.
    out_of_fold_classes : list of str
        The classes of their probabilities.
    unconverged : list of Unconverged
        Fits that did not converge, of `n_fits`.
    small_classes : dict of str to int
        Samples left out by their class.
    trust : Trust
        How far its probabilities can be trusted, and what prediction sets and warnings are made of.
    thresholds : Thresholds or None
        From which probability on the positive class is called; None where heads decide by themselves.
    race : RaceAccount or None
        How the backbones were dropped before, of which the files are what was left.
    """

    classes: list[str]
    by_group: GroupEvaluation | None
    out_of_fold: list[OutOfFold] = field(repr=False)
    out_of_fold_classes: list[str]
    unconverged: list[Unconverged]
    small_classes: dict[str, int]
    trust: Trust
    thresholds: Thresholds | None = None
    race: RaceAccount | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the object that ``featx fit --json`` prints."""
        shared, evaluation = super().to_dict(), self.whole.evaluation.to_dict()
        return {
            **shared,
            "classes": self.classes,
            "threshold": None if self.thresholds is None else self.thresholds.to_dict(),
            **{name: evaluation[name] for name in ("baseline", "per_class", "confusion", "binary", "unseen")},
            "confusion_classes": evaluation["classes"],
            "by_group": None if self.by_group is None else self.by_group.to_dict(),
            "left_out": {**shared["left_out"], "small_classes": self.small_classes},
            "race": None if self.race is None else self.race.to_dict(),
            "leak_gap": self.leaks.leak_gap,
            "leaks": self.leaks.to_dict(),
            "not_converged": describe_unconverged(self.unconverged, self.n_fits),
            **self.trust.to_dict(),
        }

    @property
    def _plan_text(self) -> str:
        return super()._plan_text if self.race is None else f"{super()._plan_text} {self.race.description}"

    @property
    def _chosen_file_text(self) -> str:
        text = f" Probabilities, prediction sets and near-duplicates are told of {self.file} alone."
        return text if self.leaks.gap is None else f"{text} The leak gap is that of the whole selection."

    @property
    def notes(self) -> list[str]:
        """What the user must hear, most important first."""
        mixed = [] if self.by_group is None else self.by_group.mixed
        return [
            *note_no_groups(self.groups),
            *note_identical(self.groups),
            *self.leaks.notes,
            *([] if self.race is None else self.race.notes),
            *note_locked(self.locked, "classifier"),
            *self.whole.evaluation.notes,
            *note_failed(self.n_missing),
            *note_unlabelled(self.unlabelled),
            *note_small_classes(self.small_classes),
            *(
                [f"Groups with samples of several classes, left out of the scores by group: {len(mixed)}."]
                if mixed
                else []
            ),
            *note_edge(self.whole.chosen),
            *([] if self.thresholds is None else self.thresholds.notes),
            *self.trust.notes,
            *note_unconverged(self.unconverged, self.n_fits),
        ]

    def facts(self) -> dict[str, Any]:
        """Return what the bundle records."""
        facts = super().facts()
        if self.race is not None:
            facts["race"]["failures"] = {}  # no sample's name is in a bundle
        return facts

    def members(self) -> dict[str, Any]:
        """Return what `featx.learn.bundle.save_bundle` takes beside estimator, facts and weights."""
        return {"conformal": self.trust.conformal, "novelty": self.trust.novelty}

    def iter_out_of_fold(self) -> Iterator[list[Any]]:
        """Yield the header ``key, group, fold, true, predicted, p_<class>...``, then a row for each prediction."""
        yield from out_of_fold_rows(self.out_of_fold_classes, self.out_of_fold)
