"""What ``featx fit`` gives: a classifier with every fact about how good it is."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from featx.errors import UsageError
from featx.learn.bundle import SHA_DIGITS, save_bundle
from featx.learn.by_group import GroupEvaluation
from featx.learn.candidates import Searched, cv_results
from featx.learn.choice import Choice, setting
from featx.learn.convergence import Unconverged
from featx.learn.dataset import LockedPart
from featx.learn.groups import GroupIds
from featx.learn.intervals import Interval
from featx.learn.leaks import Leaks
from featx.learn.options import FitOptions
from featx.learn.paired import Comparisons
from featx.learn.plan import EvaluationPlan
from featx.learn.race_account import RaceAccount
from featx.learn.scores import Evaluation
from featx.learn.threshold import Thresholds
from featx.learn.trust import Trust
from featx.learn.views import ViewUse
from featx.spec import FeatureSpec
from featx.store.target import save_text


class Scored(Protocol):
    """An evaluation, whatever the task."""

    @property
    def scores(self) -> dict[str, Interval]: ...  # noqa: D102


E = TypeVar("E", bound=Scored)


_MOST_KINDS = 5  # of fits that did not converge, by name


@dataclass(frozen=True)
class HeadResult(Generic[E]):
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

    evaluation: E
    cv: E | None
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
        On features (n, n_features), with `predict_proba`; a Pipeline, or `Calibrated`, `SigmoidCalibrated` or
        `Thresholded`.
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
    thresholds : Thresholds or None
        From which probability on the positive class is called; None where heads decide by themselves.
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
    searches : list of Searched
        All that was compared, for each file: in each outer fold, and for the saved classifier.
    race : RaceAccount or None
        How the backbones were dropped before, of which the files are what was left.
    """

    estimator: Any
    classes: list[str]
    whole: HeadResult[Evaluation]
    heads: dict[str, HeadResult[Evaluation]]
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
    thresholds: Thresholds | None = None
    file: str = ""
    files: dict[str, HeadResult[Evaluation]] = field(default_factory=dict)
    file_of_fold: list[str] = field(default_factory=list)
    views: ViewUse = ViewUse()
    spec: FeatureSpec | None = None
    digest: str = ""
    weights: bytes | None = field(default=None, repr=False)
    locked: LockedPart | None = None
    searches: list[Searched] = field(default_factory=list, repr=False)
    race: RaceAccount | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the object that ``featx fit --json`` prints."""
        evaluation = self.whole.evaluation.to_dict()
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
            "classes": self.classes,
            "threshold": None if self.thresholds is None else self.thresholds.to_dict(),
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
            "race": None if self.race is None else self.race.to_dict(),
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
        if self.race is not None:
            text += f" {self.race.description}"
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
        return text + self.views.description

    @property
    def notes(self) -> list[str]:
        """What the user must hear, most important first."""
        notes = [*note_no_groups(self.groups), *self.leaks.notes]
        notes += [] if self.race is None else self.race.notes
        notes += note_locked(self.locked, "classifier")
        notes += self.whole.evaluation.notes
        notes += note_left_out(self.n_missing, self.unlabelled)
        if self.small_classes:
            listed = ", ".join(f"{name} ({count})" for name, count in self.small_classes.items())
            notes.append(f"Classes left out as too small: {listed}.")
        if self.by_group is not None and self.by_group.mixed:
            notes.append(
                f"Groups with samples of several classes, left out of the scores by group: {len(self.by_group.mixed)}."
            )
        return [
            *notes,
            *note_edge(self.whole.chosen),
            *([] if self.thresholds is None else self.thresholds.notes),
            *self.trust.notes,
            *note_unconverged(self.unconverged, self.n_fits),
        ]

    def facts(self) -> dict[str, Any]:
        """Return what the bundle records."""
        fitted_on = sorted({sha256[:SHA_DIGITS] for sha256 in self.fitted_on})
        facts = self.to_dict()
        facts["locked_away"] = sorted({sha256[:SHA_DIGITS] for sha256 in self.locked.sha256} if self.locked else ())
        facts["leaks"]["near_duplicates"]["pairs"] = []  # no sample's name is in a bundle
        if self.race is not None:
            facts["race"]["failures"] = {}
        facts["warnings"] = [note for note in facts["warnings"] if note not in self.leaks.notes] + self.leaks.facts
        return {**facts, "spec": self.spec, "manifest_digest": self.digest, "fitted_on": fitted_on}

    def members(self) -> dict[str, Any]:
        """Return what `featx.learn.bundle.save_bundle` takes beside estimator, facts and weights."""
        return {"conformal": self.trust.conformal, "novelty": self.trust.novelty}

    def iter_out_of_fold(self) -> Iterator[list[Any]]:
        """Yield the header ``key, group, fold, true, predicted, p_<class>...``, then a row for each prediction."""
        yield ["key", "group", "fold", "true", "predicted", *(f"p_{name}" for name in self.out_of_fold_classes)]
        for row in self.out_of_fold:
            yield [row.key, row.group, row.fold, row.true, row.predicted, *row.probabilities]


def note_no_groups(groups: GroupIds) -> list[str]:
    """Say what it means that no groups were given, where that is so."""
    if groups.given:
        return []
    notes = [
        "No groups were given. If several images show the same patient, animal or part, they may be in "
        "training and test at once, and the scores are then too good: give `featx extract` a group column or "
        "--group-regex."
    ]
    if groups.ids is not None:
        near = " and near-duplicates" if "near-duplicates" in groups.source else ""
        notes.append(f"Identical files{near} are kept together: {groups.n} different ones.")
    return notes


def note_locked(locked: LockedPart | None, what: str) -> list[str]:
    """Say what it means that a locked part was looked at, where that is so; `what` is fitted."""
    if locked is None or not locked.looks:
        return []
    n = len(locked.looks)
    when = locked.looks[0] if n == 1 else f"{n} times, first on {locked.looks[0]}"
    return [
        f"The locked part of this file has been looked at ({when}). A {what} that is chosen with those "
        "scores in mind is no longer blind to it, and its own score there would be too good."
    ]


def note_left_out(n_missing: int, unlabelled: int) -> list[str]:
    """Say how many samples have no features, and how many no label."""
    notes = []
    if n_missing:
        notes.append(f"Samples that failed in extraction and have no row: {n_missing}.")
    if unlabelled:
        notes.append(f"Samples without a label, left out: {unlabelled}.")
    return notes


def note_edge(chosen: Choice) -> list[str]:
    """Say that the choice is at an edge of what was tried."""
    if not chosen.edge:
        return []
    return [
        f"The chosen {chosen.setting} is at the {chosen.edge} edge of what was tried: a "
        "better one may lie beyond (for C: --C-grid)."
    ]


def note_unconverged(unconverged: Sequence[Unconverged], n_fits: int) -> list[str]:
    """Say which fits did not converge."""
    if not unconverged:
        return []
    counts = Counter(f"{fit.head} {fit.scaling} {setting(fit.head, fit.value)}" for fit in unconverged)
    listed = ", ".join(f"{name} ({count})" for name, count in counts.most_common(_MOST_KINDS))
    more = f" and {len(counts) - _MOST_KINDS} more" if len(counts) > _MOST_KINDS else ""
    return [f"{len(unconverged)} of {n_fits} fits did not converge: {listed}{more}."]


class Result(Protocol):
    """What a fit gives, whatever its task, as far as saving it goes; see `FitResult`."""

    @property
    def estimator(self) -> Any: ...  # noqa: D102

    @property
    def spec(self) -> FeatureSpec | None: ...  # noqa: D102

    @property
    def weights(self) -> bytes | None: ...  # noqa: D102

    @property
    def searches(self) -> list[Searched]: ...  # noqa: D102

    def facts(self) -> dict[str, Any]: ...  # noqa: D102

    def members(self) -> dict[str, Any]: ...  # noqa: D102

    def iter_out_of_fold(self) -> Iterator[list[Any]]: ...  # noqa: D102


def save(result: Result, path: str | os.PathLike[str], *, more: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Save the fitted head with its facts, and more facts of those who ask, as a ``.featx`` bundle.

    Raises
    ------
    BundleError
        If it cannot be written.
    UsageError
        If the features did not come from a feature file: nothing would say how to make them for new images.
    """
    if result.spec is None:
        raise UsageError("only a head fitted on a feature file can be saved: nothing else says what its features are")
    save_bundle(
        path,
        estimator=result.estimator,
        facts={**result.facts(), **more},
        weights=result.weights,
        **result.members(),
    )


def save_cv_results(result: Result, path: str | os.PathLike[str]) -> None:
    """Write all that was compared as CSV, one row each, see `featx.learn.candidates.cv_results`; all or nothing.

    Raises
    ------
    StoreWriteError
        If the file cannot be written.
    """
    columns = cv_results(result.searches)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    save_text(path, text.getvalue(), what="results of the search")


def save_out_of_fold(result: Result, path: str | os.PathLike[str]) -> None:
    """Write every out-of-fold prediction as CSV, as `FitResult.iter_out_of_fold` yields them; all or nothing.

    Raises
    ------
    StoreWriteError
        If the file cannot be written.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(result.iter_out_of_fold())
    save_text(path, text.getvalue(), what="out-of-fold predictions")


def _scores(evaluation: Scored | None) -> dict[str, Any] | None:
    return None if evaluation is None else {name: interval.to_dict() for name, interval in evaluation.scores.items()}
