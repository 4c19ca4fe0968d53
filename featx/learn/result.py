"""What ``featx fit`` gives: a classifier with every fact about how good it is."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from featx.errors import UsageError
from featx.learn.bundle import SHA_DIGITS, save_bundle
from featx.learn.by_group import GroupEvaluation
from featx.learn.dataset import LockedPart
from featx.learn.groups import GroupIds
from featx.learn.leaks import Leaks
from featx.learn.options import FitOptions
from featx.learn.paired import Comparisons
from featx.learn.plan import EvaluationPlan
from featx.learn.scores import Evaluation
from featx.learn.search import Choice, Unconverged, setting
from featx.learn.trust import Trust
from featx.learn.views import ViewUse
from featx.spec import FeatureSpec
from featx.store.target import save_text


@dataclass(frozen=True)
class HeadResult:
    """What one head gets: the winner of each choice, or one kind of head alone.

    Attributes
    ----------
    evaluation : Evaluation
        Of the part that is reported.
    cv : Evaluation or None
        Of nested cross-validation, where there was one.
    chosen : Choice
        For the saved head.
    folds : list of (str, Choice)
        For each outer fold, by name.
    """

    evaluation: Evaluation
    cv: Evaluation | None
    chosen: Choice
    folds: list[tuple[str, Choice]]

    def to_dict(self) -> dict[str, Any]:
        """Return ``{scores, cv_scores, chosen}`` for JSON."""
        return {
            "scores": _scores(self.evaluation),
            "cv_scores": _scores(self.cv),
            "chosen": {
                **self.chosen.to_dict(),
                "folds": [{"fold": name, **choice.to_dict()} for name, choice in self.folds],
            },
        }


@dataclass(frozen=True)
class OutOfFold:
    """One prediction for a sample by a head that was not fitted on it.

    Attributes
    ----------
    key, group : str
        The sample, and its group as the file has it.
    fold : str
        ``"2"``, ``"1.2"`` (repeat and fold), the value of the fold column, or the part: ``"test"``, ``"val"``.
    true, predicted : str
    probabilities : tuple of float
        In the order of the classes.
    """

    key: str
    group: str
    fold: str
    true: str
    predicted: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fitted classifier and everything known about how good it is.

    Attributes
    ----------
    estimator : scikit-learn classifier
        On features (n, n_features), with `predict_proba`; a Pipeline, or `Calibrated` or `SigmoidCalibrated`.
    classes : list of str
        In the order of its probabilities.
    whole : HeadResult
        The whole procedure: in each fold the best of all heads, and files.
    heads : dict of str to HeadResult
        Each head alone, on the best of the files, from the same fits.
    plan : EvaluationPlan
        Which rows did what, as positions among the rows that were used.
    prescribed_folds : bool
        Whether the outer folds are those of a fold column.
    groups : GroupIds
    by_group : GroupEvaluation or None
        Scores of whole groups, where asked for.
    out_of_fold : list of OutOfFold
        Of the outer folds, then of the fixed part, if there is one.
    out_of_fold_classes : list of str
        The classes of their probabilities.
    unconverged : list of Unconverged
        Fits that did not converge, of `n_fits`.
    unlabelled, small_classes, n_missing : int, dict of str to int, int
        Samples left out: without a label; by class; without features.
    seconds : float
        Search and refit.
    fitted_on : list of str
        SHA-256 of the images that the saved head was fitted on, where known.
    options : FitOptions
    trust : Trust
        How far its probabilities can be trusted, and what prediction sets and warnings are made of.
    comparisons : Comparisons
        Whether the chosen is better than the next best, and the whole than guessing.
    file : str
        The file that was chosen for the saved classifier; ``""`` where there is only one.
    files : dict of str to HeadResult
        Each file alone, with the best of the heads; empty where there is only one.
    file_of_fold : list of str
        The file that was chosen in each outer fold; empty where there is only one.
    views : ViewUse
        Which rows of a sample were fitted, and what samples are called by.
    spec, digest, weights : FeatureSpec or None, str, bytes or None
        What made the features, the training data's digest, and the user's own network weights, from the file.
    leaks : Leaks
        What could make the scores too good: near-duplicates, groups that give the answer away.
    locked : LockedPart or None
        What the file keeps for the last test: it took no part in anything.
    """

    estimator: Any
    classes: list[str]
    whole: HeadResult
    heads: dict[str, HeadResult]
    plan: EvaluationPlan
    prescribed_folds: bool
    groups: GroupIds
    by_group: GroupEvaluation | None
    out_of_fold: list[OutOfFold] = field(repr=False)
    out_of_fold_classes: list[str]
    unconverged: list[Unconverged]
    n_fits: int
    unlabelled: int
    small_classes: dict[str, int]
    n_missing: int
    seconds: float
    fitted_on: list[str] = field(repr=False)
    options: FitOptions
    comparisons: Comparisons
    trust: Trust
    leaks: Leaks = field(repr=False)
    file: str = ""
    files: dict[str, HeadResult] = field(default_factory=dict)
    file_of_fold: list[str] = field(default_factory=list)
    views: ViewUse = ViewUse()
    spec: FeatureSpec | None = None
    digest: str = ""
    weights: bytes | None = field(default=None, repr=False)
    locked: LockedPart | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the object that ``featx fit --json`` prints."""
        evaluation = self.whole.evaluation.to_dict()
        choices = [("final", self.whole.chosen), *self.whole.folds]
        return {
            "scheme": self.plan.scheme,
            "description": self.description,
            **self.whole.to_dict(),
            "head": self.whole.chosen.head,
            "heads": {name: head.to_dict() for name, head in self.heads.items()},
            "file": self.file or None,
            "files": {name: file.to_dict() for name, file in self.files.items()},
            "file_of_fold": self.file_of_fold,
            "comparisons": self.comparisons.to_dict(),
            "classes": self.classes,
            **{name: evaluation[name] for name in ("baseline", "per_class", "confusion", "binary", "unseen")},
            "confusion_classes": evaluation["classes"],
            "by_group": None if self.by_group is None else self.by_group.to_dict(),
            "estimand": self.whole.evaluation.estimand,
            "n_samples": len(np.union1d(self.plan.fit, self.plan.report)),
            "n_fitted": len(self.plan.fit),
            "n_reported": self.whole.evaluation.n_samples,
            "left_out": {
                "unlabelled": self.unlabelled,
                "small_classes": self.small_classes,
                "missing": self.n_missing,
                "without_split": self.plan.n_without_split,
                "locked": 0 if self.locked is None else self.locked.n_samples,
            },
            "locked": None if self.locked is None else self.locked.to_dict(),
            "groups": None if self.groups.ids is None else {"n": self.groups.n, "source": self.groups.source},
            "edge": [{"fold": fold, **choice.to_dict()} for fold, choice in choices if choice.edge],
            "leak_gap": self.leaks.leak_gap,
            "leaks": self.leaks.to_dict(),
            "not_converged": {
                "count": len(self.unconverged),
                "n_fits": self.n_fits,
                "fits": [asdict(fit) for fit in self.unconverged],
            },
            "views": asdict(self.views),
            **self.trust.to_dict(),
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
                "scaling are, and the scores are those of the whole selection. Probabilities, prediction sets and "
                f"near-duplicates are told of {self.file} alone."
            )
            if self.leaks.gap is not None:
                text += " The leak gap is that of the whole selection."
        if self.prescribed_folds:
            names = ", ".join(name for name, _ in self.whole.folds)
            text += f" The outer folds are those of the fold column ({names}), not of --cv."
        if self.views != ViewUse():
            fitted = "all views" if self.views.train == "all" else "the plain image"
            scored = "the mean over its views" if self.views.score == "average" else "its plain image"
            text += f" Heads are fitted on {fitted} of each sample; a sample is called by {scored}."
        return text

    @property
    def notes(self) -> list[str]:
        """What the user must hear, most important first."""
        notes = []
        if not self.groups.given:
            notes.append(
                "No groups were given. If several images show the same patient, animal or part, they may be in "
                "training and test at once, and the scores are then too good: give `featx extract` a group column or "
                "--group-regex."
            )
            if self.groups.ids is not None:
                near = " and near-duplicates" if "near-duplicates" in self.groups.source else ""
                notes.append(f"Identical files{near} are kept together: {self.groups.n} different ones.")
        notes += self.leaks.notes
        if self.locked is not None and self.locked.looks:
            n = len(self.locked.looks)
            when = self.locked.looks[0] if n == 1 else f"{n} times, first on {self.locked.looks[0]}"
            notes.append(
                f"The locked part of this file has been looked at ({when}). A classifier that is chosen with those "
                "scores in mind is no longer blind to it, and its own score there would be too good."
            )
        evaluation = self.whole.evaluation
        if evaluation.unseen:
            notes.append(f"Classes that the head has never seen, counted as wrong: {', '.join(evaluation.unseen)}.")
        if self.n_missing:
            notes.append(f"Samples that failed in extraction and have no row: {self.n_missing}.")
        if self.unlabelled:
            notes.append(f"Samples without a label, left out: {self.unlabelled}.")
        if self.small_classes:
            listed = ", ".join(f"{name} ({count})" for name, count in self.small_classes.items())
            notes.append(f"Classes left out as too small: {listed}.")
        if self.by_group is not None and self.by_group.mixed:
            notes.append(
                f"Groups with samples of several classes, left out of the scores by group: {len(self.by_group.mixed)}."
            )
        if self.whole.chosen.edge:
            notes.append(
                f"The chosen {self.whole.chosen.setting} is at the {self.whole.chosen.edge} edge of what was tried: a "
                "better one may lie beyond (for C: --C-grid)."
            )
        notes += self.trust.notes
        if self.unconverged:
            counts = Counter(f"{fit.head} {fit.scaling} {setting(fit.head, fit.value)}" for fit in self.unconverged)
            listed = ", ".join(f"{name} ({count})" for name, count in counts.most_common(5))
            more = f" and {len(counts) - 5} more" if len(counts) > 5 else ""
            notes.append(f"{len(self.unconverged)} of {self.n_fits} fits did not converge: {listed}{more}.")
        return notes

    def facts(self) -> dict[str, Any]:
        """Return what the bundle records."""
        fitted_on = sorted({sha256[:SHA_DIGITS] for sha256 in self.fitted_on})
        facts = self.to_dict()
        facts["locked_away"] = sorted({sha256[:SHA_DIGITS] for sha256 in self.locked.sha256} if self.locked else ())
        facts["leaks"]["near_duplicates"]["pairs"] = []  # no sample's name is in a bundle
        facts["warnings"] = [note for note in facts["warnings"] if note not in self.leaks.notes] + self.leaks.facts
        return {**facts, "spec": self.spec, "manifest_digest": self.digest, "fitted_on": fitted_on}


def save(result: FitResult, path: str | os.PathLike[str], *, more: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Save the classifier with its facts, and more facts of those who ask, as a ``.featx`` bundle.

    Raises
    ------
    BundleError
        If it cannot be written.
    UsageError
        If the features did not come from a feature file: nothing would say how to make them for new images.
    """
    if result.spec is None:
        raise UsageError(
            "only a classifier fitted on a feature file can be saved: nothing else says what its features are"
        )
    save_bundle(
        path,
        estimator=result.estimator,
        facts={**result.facts(), **more},
        weights=result.weights,
        conformal=result.trust.conformal,
        novelty=result.trust.novelty,
    )


def save_out_of_fold(result: FitResult, path: str | os.PathLike[str]) -> None:
    """Write every out-of-fold prediction as CSV: ``key,group,fold,true,predicted,p_<class>...``; all or nothing.

    Raises
    ------
    StoreWriteError
        If the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"p_{name}" for name in result.out_of_fold_classes]
    writer.writerow(["key", "group", "fold", "true", "predicted", *columns])
    for row in result.out_of_fold:
        writer.writerow([row.key, row.group, row.fold, row.true, row.predicted, *row.probabilities])
    save_text(path, text.getvalue(), what="out-of-fold predictions")


def _scores(evaluation: Evaluation | None) -> dict[str, Any] | None:
    return None if evaluation is None else {name: interval.to_dict() for name, interval in evaluation.scores.items()}
