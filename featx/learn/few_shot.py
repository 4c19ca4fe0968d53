"""What ``featx fewshot`` may be told, and what it gives."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import UnknownNameError, UsageError
from featx.learn.crossed import SCORINGS
from featx.learn.dataset import Features, LockedPart
from featx.learn.groups import GroupIds, resolve_groups
from featx.learn.heads import SCALINGS, find_head, order_of
from featx.learn.intervals import Interval
from featx.learn.learning_curve import LearningCurve
from featx.learn.notes import list_counts, note_locked_out
from featx.learn.plan import plan_evaluation
from featx.learn.small_fits import Fixed

IntArray = NDArray[np.int64]

FIXED = Fixed()
HEADS = ("prototype", "logreg", "knn", "lda")
"""Taken unless told otherwise: heads that have something to say from one sample of each class on."""
FEWEST_DRAWS, FULL_UP_TO = 10, 20
"""Above so many samples of each class fewer sets are drawn, in proportion, but never fewer than these."""


@dataclass(frozen=True, kw_only=True)
class FewShotOptions:
    """What ``featx fewshot`` may be told; the values are checked when it is made.

    Attributes
    ----------
    heads : tuple of str
        As `featx.learn.heads.find_head` takes them.
    scaling : str
        Of `featx.learn.heads.SCALINGS`. Rows of length 1 by default: nothing is estimated from the few, and one C suits
        backbones of any scale.
    shots : tuple of int
        Samples of each class; empty: 1, 2, 5, 10, 20 ... up to all there are.
    repeats : int
        Training sets that are drawn for each.
    fixed : Fixed
        Values of the heads' parameters.
    inner_cv : int
        From 2 on: they are chosen in so many folds of each draw instead, where a class has as many samples; 0: never.
    scoring : {"balanced_accuracy", "accuracy"}
    split : {"auto", "ignore"}
        ``"auto"``: of a file with splits draw from train, and score test (or val).
    episodes : int
        0, or: so many n-way episodes instead of the learning curve.
    ways, queries : int
        Classes of an episode, and samples of each that are scored.
    transductive : bool
        Whether methods that also learn from samples without labels are shown beside the heads.
    min_per_class : int, optional
        Classes with fewer samples to draw are left out.
    allow_missing : bool
    random_state : int

    Raises
    ------
    UsageError, UnknownNameError
        A value that an option does not take.
    """

    heads: tuple[str, ...] = HEADS
    scaling: str = "l2"
    shots: tuple[int, ...] = ()
    repeats: int = 50
    fixed: Fixed = FIXED
    inner_cv: int = 0
    scoring: str = "balanced_accuracy"
    split: str = "auto"
    episodes: int = 0
    ways: int = 5
    queries: int = 15
    transductive: bool = False
    min_per_class: int | None = None
    allow_missing: bool = False
    random_state: int = 0

    def __post_init__(self) -> None:
        for head in self.heads:
            find_head(head)
        if self.scaling not in SCALINGS:
            raise UnknownNameError("scaling", self.scaling, SCALINGS)
        if self.scoring not in SCORINGS:
            raise UnknownNameError("scoring", self.scoring, SCORINGS)
        for option, value, least in (
            ("--head", len(self.heads), 1),
            ("--shots", min(self.shots, default=1), 1),
            ("--repeats", self.repeats, 2),
            ("--inner-cv", self.inner_cv, 0),
            ("--episodes", self.episodes, 0),
            ("--ways", self.ways, 2),
            ("--queries", self.queries, 1),
            ("--min-per-class", 1 if self.min_per_class is None else self.min_per_class, 1),
            ("--random-state", self.random_state, 0),
        ):
            if value < least:
                raise UsageError(f"{option}: at least {least} is needed, got {value}")
        if self.inner_cv == 1:
            raise UsageError("--inner-cv 1: give 2 or more folds, or 0 to choose nothing")
        if self.episodes == 1:
            raise UsageError("--episodes 1: an interval takes 2 or more")
        if self.split not in ("auto", "ignore"):
            raise UsageError(f"--split {self.split}: expected auto or ignore")
        if self.transductive and self.episodes:
            raise UsageError("--transductive is shown in the learning curve; leave out --episodes")

    @property
    def ordered_heads(self) -> tuple[str, ...]:
        """Each head once, in the order of `featx.learn.heads.HEADS`."""
        return tuple(sorted(dict.fromkeys(self.heads), key=order_of))

    def n_draws(self, k: int) -> int:
        """How many training sets of k samples of each class are drawn."""
        return min(self.repeats, max(FEWEST_DRAWS, -(-self.repeats * FULL_UP_TO // k)))


@dataclass(frozen=True)
class ShotScore:
    """A head on k samples of each class.

    Attributes
    ----------
    k : int
    score : Interval
        Of the mean over the draws; `folds` are their own scores.
    values : dict of str to int
        How often each value of the head's parameter was taken: ``{"C = 10": 50}``; empty where there is none.
    n_unconverged : int
    """

    k: int
    score: Interval
    values: dict[str, int]
    n_unconverged: int

    @property
    def n_draws(self) -> int:
        """How many draws, or episodes, the mean is over."""
        return len(self.score.folds)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, numbers and None, for JSON."""
        return {**asdict(self), "n_draws": self.n_draws}


@dataclass(frozen=True)
class ShotHead:
    """A head's scores over k, and the curve through them.

    Attributes
    ----------
    name : str
        Of a head, or of a method of `featx.learn.transductive`.
    scores : list of ShotScore
    curve : LearningCurve or None
        None of episodes.
    """

    name: str
    scores: list[ShotScore]
    curve: LearningCurve | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, numbers and None, for JSON."""
        return {
            "name": self.name,
            "scores": [score.to_dict() for score in self.scores],
            "curve": None if self.curve is None else self.curve.to_dict(),
        }


@dataclass(frozen=True, eq=False)
class FewShotResult:
    """Scores of heads on few samples.

    Attributes
    ----------
    heads : list of ShotHead
    classes : list of str
    n_pool, n_scored : int
        Samples that may be drawn; that are scored. Equal to all there are, both, where each draw parts them anew.
    description : str
        How it was done.
    groups : GroupIds
    unlabelled : int
        Samples without a label.
    small_classes : dict of str to int
        Classes left out, and their samples.
    not_scored : list of str
        Classes of which the fixed part has no sample.
    options : FewShotOptions
    seconds : float
    locked : LockedPart or None
        What the file keeps for the last test: it took no part.
    """

    heads: list[ShotHead]
    classes: list[str]
    n_pool: int
    n_scored: int
    description: str
    groups: GroupIds = field(repr=False)
    unlabelled: int
    small_classes: dict[str, int]
    not_scored: list[str]
    options: FewShotOptions
    seconds: float
    locked: LockedPart | None = None

    @property
    def metric(self) -> str:
        """What the scores are."""
        return "accuracy" if self.options.episodes else self.options.scoring

    @property
    def notes(self) -> list[str]:
        """What the user must hear, most important first."""
        notes = []
        if not self.groups.given:
            notes.append(
                "No groups were given: if several images show the same patient, object or scene, these scores are too "
                "good. Extract with --group-column or --group-regex."
            )
        notes += note_locked_out(self.locked)
        if self.small_classes:
            notes.append(f"Classes left out by --min-per-class: {list_counts(self.small_classes)}.")
        if self.not_scored:
            notes.append(f"No sample that was scored is of these classes: {', '.join(self.not_scored)}.")
        if self.unlabelled and not self.options.transductive:
            notes.append(f"Samples without a label, left out: {self.unlabelled}; --transductive learns from them too.")
        failed = sum(score.n_unconverged for head in self.heads for score in head.scores)
        if failed:
            notes.append(f"{failed} fits did not converge.")
        return notes

    def to_dict(self) -> dict[str, Any]:
        """Return the object that ``featx fewshot --json`` prints."""
        return {
            "metric": self.metric,
            "heads": [head.to_dict() for head in self.heads],
            "classes": self.classes,
            "n_pool": self.n_pool,
            "n_scored": self.n_scored,
            "description": self.description,
            "groups": None if self.groups.ids is None else {"n": self.groups.n, "source": self.groups.source},
            "left_out": {
                "unlabelled": self.unlabelled,
                "small_classes": self.small_classes,
                "locked": 0 if self.locked is None else self.locked.n_samples,
            },
            "warnings": self.notes,
            "options": asdict(self.options),
            "seconds": self.seconds,
        }


def groups_of(features: Features) -> GroupIds:
    """Return the groups of samples."""
    return resolve_groups(features.groups, features.sha256, features.group_source, keys=features.keys)


def parts_of(labelled: Features, split: str) -> tuple[IntArray, IntArray | None]:
    """Return the positions of what may be drawn, and of what is scored where the file fixes it.

    Parameters
    ----------
    labelled : Features
    split : {"auto", "ignore"}
        As in `featx.learn.plan.plan_evaluation`.
    """
    plan = plan_evaluation(labelled.splits, split=split, groups=groups_of(labelled))
    return (plan.choose, None) if plan.scheme == "nested-cv" else (plan.train, plan.report)
