"""What ``featx fit --task multilabel`` gives: a head on labels with every fact about how good it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from featx.learn.bundle import SHA_DIGITS
from featx.learn.candidates import Searched
from featx.learn.convergence import Unconverged
from featx.learn.dataset import LockedPart
from featx.learn.groups import GroupIds
from featx.learn.leaks import Leaks
from featx.learn.multilabel.heads import LabelMaps
from featx.learn.multilabel.scores import LabelEvaluation
from featx.learn.novelty import Novelty
from featx.learn.options import FitOptions
from featx.learn.paired import Comparisons
from featx.learn.plan import EvaluationPlan
from featx.learn.result import (
    HeadResult,
    OutOfFold,
    note_edge,
    note_left_out,
    note_locked,
    note_no_groups,
    note_unconverged,
)
from featx.learn.trust import describe_novelty
from featx.learn.views import ViewUse
from featx.spec import FeatureSpec


@dataclass(frozen=True, eq=False)
class LabelResult:
    """A fitted head on labels and everything known about how good it is.

    Attributes
    ----------
    estimator : CalledLabels
        On features (n, n_features), with `predict_proba` and `predict`, both (n, n_labels).
    labels : list of str
        The vocabulary, sorted: the columns.
    maps : LabelMaps
        Of the saved head: what makes probabilities and calls.
    whole : HeadResult
        The whole procedure: in each fold the best of all heads, and files.
    heads, files : dict of str to HeadResult
        Each head alone, and each file alone, from the same fits; the second empty where there is one file.
    plan : EvaluationPlan
        Which rows did what, as positions among the rows that were used.
    prescribed_folds : bool
        Whether the outer folds are those of a fold column.
    groups : GroupIds
    out_of_fold : list of OutOfFold
        With labels as they are written in a table.
    unconverged : list of Unconverged
        Fits that did not converge, of `n_fits`, each of which is one of all labels.
    n_without : int
        Samples without any label of the vocabulary.
    is_exclusive : bool
        Whether every sample has one label at most.
    unlabelled, n_missing : int
        Samples left out: without a label text; without features.
    left_out, unseen : dict of str to int
        Labels left out, and on how many samples they are: too rare or too common; only on samples that are reported.
    seconds : float
        Search and refit.
    fitted_on : list of str
        SHA-256 of the images that the saved head was fitted on, where known.
    options : FitOptions
    comparisons : Comparisons
        Whether the chosen is better than the next best, and the whole than guessing.
    leaks : Leaks
        Near-duplicates alone.
    novelty : Novelty or None
        What tells images unlike the training set; None where it was not wanted.
    file, file_of_fold, views, spec, digest, weights, locked
        As in `featx.learn.result.FitResult`.
    """

    estimator: Any
    labels: list[str]
    maps: LabelMaps = field(repr=False)
    whole: HeadResult[LabelEvaluation]
    heads: dict[str, HeadResult[LabelEvaluation]]
    files: dict[str, HeadResult[LabelEvaluation]]
    plan: EvaluationPlan
    prescribed_folds: bool
    groups: GroupIds
    out_of_fold: list[OutOfFold] = field(repr=False)
    unconverged: list[Unconverged]
    n_fits: int
    n_without: int
    is_exclusive: bool
    unlabelled: int
    n_missing: int
    left_out: dict[str, int]
    unseen: dict[str, int]
    seconds: float
    fitted_on: list[str] = field(repr=False)
    options: FitOptions
    comparisons: Comparisons
    leaks: Leaks = field(repr=False)
    novelty: Novelty | None = field(repr=False)
    file: str = ""
    file_of_fold: list[str] = field(default_factory=list)
    views: ViewUse = ViewUse()
    spec: FeatureSpec | None = None
    digest: str = ""
    weights: bytes | None = field(default=None, repr=False)
    locked: LockedPart | None = None
    searches: list[Searched] = field(default_factory=list, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the object that ``featx fit --task multilabel --json`` prints."""
        evaluation = self.whole.evaluation
        choices = [("final", self.whole.chosen), *self.whole.folds]
        maps = zip(self.maps.thresholds.tolist(), self.maps.slopes.tolist(), self.maps.intercepts.tolist(), strict=True)
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
            "classes": self.labels,
            "per_label": [
                {**asdict(one), "threshold": threshold, "slope": slope, "intercept": intercept}
                for one, (threshold, slope, intercept) in zip(evaluation.per_label, maps, strict=True)
            ],
            "baseline": evaluation.baseline,
            "estimand": evaluation.estimand,
            "n_samples": len(np.union1d(self.plan.fit, self.plan.report)),
            "n_fitted": len(self.plan.fit),
            "n_reported": evaluation.n_samples,
            "n_without_label": self.n_without,
            "left_out": {
                "unlabelled": self.unlabelled,
                "labels": self.left_out,
                "unseen_labels": self.unseen,
                "missing": self.n_missing,
                "without_split": self.plan.n_without_split,
                "locked": 0 if self.locked is None else self.locked.n_samples,
            },
            "locked": None if self.locked is None else self.locked.to_dict(),
            "groups": None if self.groups.ids is None else {"n": self.groups.n, "source": self.groups.source},
            "edge": [{"fold": fold, **choice.to_dict()} for fold, choice in choices if choice.edge],
            "leaks": {"near_duplicates": self.leaks.to_dict()["near_duplicates"]},
            "not_converged": {
                "count": len(self.unconverged),
                "n_fits": self.n_fits,
                "fits": [asdict(fit) for fit in self.unconverged],
            },
            "views": asdict(self.views),
            "novelty": describe_novelty(self.novelty),
            "warnings": self.notes,
            "options": asdict(self.options),
            "seconds": self.seconds,
        }

    @property
    def description(self) -> str:
        """What was chosen on, scored and fitted, in a few sentences."""
        text = self.plan.description
        if self.files:
            text += (
                f" {len(self.files)} files compete: which one is best is chosen inside each training part, as head and "
                "scaling are, and the scores are those of the whole selection."
            )
        if self.prescribed_folds:
            names = ", ".join(name for name, _ in self.whole.folds)
            text += f" The outer folds are those of the fold column ({names}), not of --cv."
        return text + self.views.description

    @property
    def notes(self) -> list[str]:
        """What the user must hear, most important first."""
        notes = [*note_no_groups(self.groups), *self.leaks.notes, *note_locked(self.locked, "classifier")]
        if self.is_exclusive:
            notes.append(
                "No sample has more than one label: if that is as it must be, --task classification is what you want, "
                "which knows that one excludes the others."
            )
        if self.unseen:
            notes.append(
                f"Labels that no training sample has, left out of everything: {_counted(self.unseen)}. A sample with "
                "one of them may count as exactly right."
            )
        if self.left_out:
            notes.append(f"Labels left out as too rare or too common: {_counted(self.left_out)}.")
        return [
            *notes,
            *note_left_out(self.n_missing, self.unlabelled),
            *note_edge(self.whole.chosen),
            *note_unconverged(self.unconverged, self.n_fits),
        ]

    def facts(self) -> dict[str, Any]:
        """Return what the bundle records."""
        facts = self.to_dict()
        facts["locked_away"] = _digits(self.locked.sha256 if self.locked else ())
        facts["leaks"]["near_duplicates"]["pairs"] = []  # no sample's name is in a bundle
        facts["warnings"] = [note for note in facts["warnings"] if note not in self.leaks.notes] + self.leaks.facts
        return {**facts, "spec": self.spec, "manifest_digest": self.digest, "fitted_on": _digits(self.fitted_on)}

    def members(self) -> dict[str, Any]:
        """Return what `featx.learn.bundle.save_bundle` takes beside estimator, facts and weights."""
        return {"novelty": self.novelty}

    def iter_out_of_fold(self) -> Iterator[list[Any]]:
        """Yield the header ``key, group, fold, true, predicted, p_<label>...``, then a row for each prediction."""
        yield ["key", "group", "fold", "true", "predicted", *(f"p_{name}" for name in self.labels)]
        for row in self.out_of_fold:
            yield [row.key, row.group, row.fold, row.true, row.predicted, *row.probabilities]


def _counted(names: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in names.items())


def _digits(sha256: Any) -> list[str]:
    return sorted({one[:SHA_DIGITS] for one in sha256})
