"""What ``featx audit`` may be told, and what it finds: shortcuts, sites that were left out, labels in doubt."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from featx.errors import UnknownNameError, UsageError
from featx.learn.dataset import LockedPart
from featx.learn.groups import GroupIds
from featx.learn.label_errors import RANKINGS, LabelAudit
from featx.learn.left_out_sites import SiteStudy
from featx.learn.notes import note_locked_out, note_plain, note_small_classes, note_unlabelled
from featx.learn.options import FitOptions
from featx.learn.search import Space
from featx.learn.shortcuts import Shortcut
from featx.learn.traits import TABLE, LeftOut


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """What ``featx audit`` may be told; the values are checked when it is made.

    Attributes
    ----------
    columns : tuple of str
        The columns and facts that may be shortcuts; none named: all.
    sites : tuple of str
        Columns whose values are left out one by one; none named: every column that looks like a site.
    top : int
        How many samples with a doubtful label are shown.
    rank_by : str
        Of `featx.learn.label_errors.RANKINGS`.
    C_grid : (float, float, int)
        Lowest, highest and number of values of C, spaced evenly in the logarithm.
    cv, inner_cv : int
        Outer folds, folds of each choice of C.
    repeats : int
        Repeats of the outer folds behind the probabilities of the labels.
    min_per_class : int, optional
        Classes with fewer samples (or groups) are left out.
    allow_missing : bool
        Go on although some samples failed and have no row.
    group_near_duplicates, near_duplicate_distance : bool, float or None
        Whether samples whose features are nearly the same are one group, as in `featx fit`.
    random_state : int
        Seeds folds, permutations, resamples and solvers.
    n_jobs : int
        Processes, as in scikit-learn; the result does not depend on it.

    Raises
    ------
    UsageError, UnknownNameError
        A value that an option does not take.
    """

    columns: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    top: int = 20
    rank_by: str = "margin"
    C_grid: tuple[float, float, int] = (1e-4, 1.0, 5)
    cv: int = 5
    inner_cv: int = 3
    repeats: int = 3
    min_per_class: int | None = None
    allow_missing: bool = False
    random_state: int = 0
    n_jobs: int = -1
    group_near_duplicates: bool = False
    near_duplicate_distance: float | None = None

    def __post_init__(self) -> None:
        if self.rank_by not in RANKINGS:
            raise UnknownNameError("ranking", self.rank_by, RANKINGS)
        if self.top < 0:
            raise UsageError(f"--top {self.top}: expected a number from 0 on")
        self.of_fit  # noqa: B018  checks the values

    @property
    def of_fit(self) -> FitOptions:
        """The same for the head behind all three parts, logistic regression on standardised features."""
        own = ("columns", "sites", "top", "rank_by")
        values = {name: value for name, value in asdict(self).items() if name not in own}
        return FitOptions(heads=("logreg",), scalings=("standardise",), **values)

    @property
    def for_labels(self) -> Space:
        """What is chosen from where the labels are told; by balanced accuracy."""
        return self.of_fit.space

    @property
    def for_probabilities(self) -> Space:
        """The same, by the log loss: the best probabilities are wanted."""
        return replace(self.of_fit.space, scoring="neg_log_loss")

    @property
    def for_columns(self) -> Space:
        """The same for columns, whose rare values count as much as the frequent ones."""
        return replace(self.of_fit.space, class_weight="balanced")


@dataclass(frozen=True, eq=False)
class AuditResult:
    """What was found in a feature file.

    Attributes
    ----------
    path : str
    shortcuts : list of Shortcut
        Columns and facts, the possible shortcuts first.
    left_out : list of LeftOut
        Those that could not be tested, and why.
    sites : list of SiteStudy
        Leave-one-site-out, one for each column.
    sites_left_out : list of LeftOut
        Columns that look like a site, but could not be cross-validated.
    labels : LabelAudit
    classes : list of str
    n_samples : int
        Labelled samples.
    n_features : int
    description : str
        How everything was scored.
    groups : GroupIds
    unlabelled, n_missing : int
        Samples without a label, and without a row: left out.
    small_classes : dict of str to int
        Classes left out, with their samples.
    has_splits, has_folds, has_views : bool
        What the file has that made no difference.
    options : AuditOptions
    seconds : float
    locked : LockedPart or None
        What the file keeps for the last test: it took no part in anything.
    """

    path: str
    shortcuts: list[Shortcut]
    left_out: list[LeftOut]
    sites: list[SiteStudy]
    sites_left_out: list[LeftOut]
    labels: LabelAudit
    classes: list[str]
    n_samples: int
    n_features: int
    description: str
    groups: GroupIds = field(repr=False)
    unlabelled: int
    n_missing: int
    small_classes: dict[str, int]
    has_splits: bool
    has_folds: bool
    has_views: bool
    options: AuditOptions
    seconds: float
    locked: LockedPart | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the object that ``featx audit --json`` prints."""
        return {
            "path": self.path,
            "shortcuts": [one.to_dict() for one in self.shortcuts],
            "left_out": [asdict(one) for one in self.left_out],
            "sites": [study.to_dict() for study in self.sites],
            "sites_left_out": [asdict(one) for one in self.sites_left_out],
            "labels": self.labels.to_dict(self.options.top),
            "classes": self.classes,
            "n_samples": self.n_samples,
            "n_features": self.n_features,
            "description": self.description,
            "groups": None if self.groups.ids is None else {"n": self.groups.n, "source": self.groups.source},
            "samples_left_out": {
                "unlabelled": self.unlabelled,
                "without_features": self.n_missing,
                "small_classes": self.small_classes,
                "locked": 0 if self.locked is None else self.locked.n_samples,
            },
            "verdict": self.verdict,
            "remarks": [*self.shortcut_remarks, *self.site_remarks, *self.label_remarks],
            "warnings": self.notes,
            "options": asdict(self.options),
            "seconds": self.seconds,
        }

    @property
    def flagged(self) -> list[Shortcut]:
        """The possible shortcuts."""
        return [one for one in self.shortcuts if one.is_flagged]

    @property
    def verdict(self) -> str:
        """Whether there is a possible shortcut, in words."""
        if not self.shortcuts:
            return "No column or fact could be tested as a shortcut."
        if not self.flagged:
            return "No possible shortcut: nothing that the features tell goes with the label by more than chance."
        return f"Possible shortcuts: {', '.join(one.name for one in self.flagged)}."

    @property
    def shortcut_remarks(self) -> list[str]:
        """What to know of each possible shortcut, and of the others together."""
        remarks = []
        for one in self.flagged:
            text = (
                f"{one.name}: the features tell it, and it goes with the label: a head may take it for the label. Look "
                "at scores where it cannot help: balance the classes within its values"
            )
            text += f", or leave them out one by one (--site {one.name})." if one.source == TABLE else "."
            if not one.beyond_label:
                text += (
                    f" The label alone would tell it as well ({one.from_label:.3f}), so these data cannot say whether "
                    "the features see it or the label."
                )
            remarks.append(text)
        told = [one.name for one in self.shortcuts if one.is_told and not one.is_flagged]
        if told:
            remarks.append(
                f"Told by the features, but not found to go with the label: {', '.join(told)}. No sign of a shortcut "
                "in these data; where it differs in use, scores may."
            )
        for note in dict.fromkeys(one.note for one in self.shortcuts if one.note):
            names = ", ".join(one.name for one in self.shortcuts if one.note == note)
            remarks.append(f"{names}: {note}.")
        for one in self.shortcuts:
            if one.n_rare:
                remarks.append(
                    f"{one.name}: left out {one.n_rare} samples with values in too few groups or beyond the "
                    f"{len(one.values)} most frequent."
                )
        return remarks

    @property
    def site_remarks(self) -> list[str]:
        """What leaving sites out says."""
        remarks = []
        for study in self.sites:
            if study.is_worse:
                remarks.append(
                    f"{study.column}: worse where the head has not been trained, by {-(study.gap.mean or 0.0):.3f}. "
                    "Ordinary cross-validation promises too much for a new one."
                )
            for score in study.sites:
                if score.why_not:
                    remarks.append(f"{study.column} {score.site}: not scored. {score.why_not}.")
                if score.unseen:
                    remarks.append(
                        f"{study.column} {score.site}: no other one has {', '.join(score.unseen)}, always told wrongly."
                    )
                if score.n_kept_out:
                    remarks.append(
                        f"{study.column} {score.site}: {score.n_kept_out} samples of others were not trained on, "
                        "their groups have samples here too."
                    )
        return remarks

    @property
    def label_remarks(self) -> list[str]:
        """How far the list of doubtful labels can be trusted."""
        labels, remarks = self.labels, []
        score = labels.score
        least = score.mean if score.low is None else score.low  # no interval: every fold gave the same value
        if least is None or least <= labels.guessing:
            remarks.append("The head is not better than guessing: its probabilities say little about any single label.")
        if labels.n_against:
            remarks.append(
                "A doubtful label is a reason to look at the image, not to change the label: an unusual image of its "
                "class, and classes that overlap, look the same to a head. The estimate counts them too."
            )
        return remarks

    @property
    def notes(self) -> list[str]:
        """What the user must hear, most important first."""
        notes = []
        if not self.groups.given:
            notes.append(
                "No groups were given. If several images show the same patient, animal or part, a column may be told "
                "from the patient, and a wrong label confirmed by the patient's other images: give `featx extract` a "
                "group column or --group-regex."
            )
        if "near-duplicates" in self.groups.source:
            notes.append(f"Images whose features are nearly the same are one group: {self.groups.n} groups.")
        notes += note_locked_out(self.locked) + note_unlabelled(self.unlabelled)
        if self.n_missing:
            notes.append(f"Samples without features, left out: {self.n_missing}.")
        notes += note_small_classes(self.small_classes)
        if self.has_splits:
            notes.append("All splits of the file are audited together: no head is kept, and no score is one to report.")
        if self.has_folds:
            notes.append("The file's fold column is not used: folds are dealt anew for each column.")
        return notes + note_plain(self.has_views)
