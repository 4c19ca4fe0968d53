"""What ``featx fit --task multilabel`` gives: a head on labels with every fact about how good it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from featx.learn.convergence import Unconverged, describe_unconverged
from featx.learn.multilabel.heads import LabelMaps
from featx.learn.multilabel.scores import LabelEvaluation
from featx.learn.notes import (
    list_counts,
    note_edge,
    note_failed,
    note_identical,
    note_locked,
    note_no_groups,
    note_unconverged,
    note_unlabelled,
)
from featx.learn.novelty import Novelty
from featx.learn.result import OutOfFold, Result, out_of_fold_rows
from featx.learn.trust import describe_novelty


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelResult(Result[LabelEvaluation]):
    """A fitted head on labels and everything known about how good it is.

    Attributes
    ----------
    estimator : CalledLabels
        With `predict_proba` and `predict`, both (n, n_labels). This and what is not listed here is as in
        `featx.learn.result.Result`.
    labels : list of str
        The vocabulary, sorted: the columns.
    maps : LabelMaps
        Of the saved head: what makes probabilities and calls.
    out_of_fold : list of OutOfFold
        With labels as they are written in a table.
    unconverged : list of Unconverged
        Fits that did not converge, of `n_fits`, each of which is one of all labels.
    n_without : int
        Samples without any label of the vocabulary.
    is_exclusive : bool
        Whether every sample has one label at most.
    left_out, unseen : dict of str to int
        Labels left out, and on how many samples they are: too rare or too common; only on samples that are reported.
    leaks : Leaks
        Near-duplicates alone.
    novelty : Novelty or None
        What tells images unlike the training set; None where it was not wanted.
    """

    labels: list[str]
    maps: LabelMaps = field(repr=False)
    out_of_fold: list[OutOfFold] = field(repr=False)
    unconverged: list[Unconverged]
    n_without: int
    is_exclusive: bool
    left_out: dict[str, int]
    unseen: dict[str, int]
    novelty: Novelty | None = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the object that ``featx fit --task multilabel --json`` prints."""
        shared, evaluation = super().to_dict(), self.whole.evaluation
        maps = zip(self.maps.thresholds.tolist(), self.maps.slopes.tolist(), self.maps.intercepts.tolist(), strict=True)
        return {
            **shared,
            "classes": self.labels,
            "per_label": [
                {**asdict(one), "threshold": threshold, "slope": slope, "intercept": intercept}
                for one, (threshold, slope, intercept) in zip(evaluation.per_label, maps, strict=True)
            ],
            "baseline": evaluation.baseline,
            "n_without_label": self.n_without,
            "left_out": {**shared["left_out"], "labels": self.left_out, "unseen_labels": self.unseen},
            "not_converged": describe_unconverged(self.unconverged, self.n_fits),
            "novelty": describe_novelty(self.novelty),
        }

    @property
    def notes(self) -> list[str]:
        """What the user must hear, most important first."""
        notes = [
            *note_no_groups(self.groups),
            *note_identical(self.groups),
            *self.leaks.notes,
            *note_locked(self.locked, "classifier"),
        ]
        if self.is_exclusive:
            notes.append(
                "No sample has more than one label: if that is as it must be, --task classification is what you want, "
                "which knows that one excludes the others."
            )
        if self.unseen:
            notes.append(
                f"Labels that no training sample has, left out of everything: {list_counts(self.unseen)}. A sample "
                "with one of them may count as exactly right."
            )
        if self.left_out:
            notes.append(f"Labels left out as too rare or too common: {list_counts(self.left_out)}.")
        return [
            *notes,
            *note_failed(self.n_missing),
            *note_unlabelled(self.unlabelled),
            *note_edge(self.whole.chosen),
            *note_unconverged(self.unconverged, self.n_fits),
        ]

    def members(self) -> dict[str, Any]:
        """Return what `featx.learn.bundle.save_bundle` takes beside estimator, facts and weights."""
        return {"novelty": self.novelty}

    def iter_out_of_fold(self) -> Iterator[list[Any]]:
        """Yield the header ``key, group, fold, true, predicted, p_<label>...``, then a row for each prediction."""
        yield from out_of_fold_rows(self.labels, self.out_of_fold)
