"""What ``featx lock`` gives: the account of a lock, and of a look at what is locked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from featx.learn.intervals import Interval
from featx.learn.multilabel.scores import LabelEvaluation
from featx.learn.scores import Evaluation
from featx.store.locked import Look

if TYPE_CHECKING:
    from featx.learn.regression.scores import NumberEvaluation

MOST_PAIRS = 3
"""Near-duplicates that are named."""


@dataclass(frozen=True)
class LockReport:
    """What was locked.

    Attributes
    ----------
    path, date, how : str
        The file, when it was locked (UTC), and how the samples were chosen.
    n_locked, n_samples : int
        Locked and all samples of the file with a row and a label.
    n_groups : int
        Groups that the locked ones are.
    n_others : int
        Locked samples without a label or a row, which share a group with the others.
    classes : dict of str to (int, int)
        Locked and open samples of each class, or range of numbers.
    looks : int
        Looks that came along with ``like``.
    accuracy : Interval
        How well an accuracy of 90 % on the locked part would be known, each group counted once.
    near_duplicates : list of (str, str)
        The first pairs of near-duplicates of which one is locked and one is open.
    n_near_duplicates : int
        How many such pairs there are.
    near_rule : str
        What counts as near, in words.
    notes : list of str
        What the user must hear.
    """

    path: str
    date: str
    how: str
    n_locked: int
    n_samples: int
    n_groups: int
    n_others: int
    classes: dict[str, tuple[int, int]]
    looks: int
    accuracy: Interval
    near_duplicates: list[tuple[str, str]]
    n_near_duplicates: int
    near_rule: str
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready builtins."""
        classes = {name: {"locked": locked, "open": rest} for name, (locked, rest) in self.classes.items()}
        return {**asdict(self), "classes": classes}


@dataclass(frozen=True)
class LookReport:
    """One look at the locked part.

    Attributes
    ----------
    path : str
        The feature file.
    look : Look
        As it was written into the file before anything was shown.
    number : int
        Which look it is, from 1.
    earlier : list of Look
        The ones before.
    evaluation : Evaluation, LabelEvaluation or NumberEvaluation
        Scores of the classifier, or regression, on the locked samples with a label.
    n_failed, n_unlabelled : int
        Locked samples that could not be scored: without features; without a label.
    groups : str
        Where the groups of the intervals come from, in words.
    near_duplicates, n_near_duplicates, near_rule
        As in `LockReport`.
    """

    path: str
    look: Look
    number: int
    earlier: list[Look]
    evaluation: Evaluation | LabelEvaluation | NumberEvaluation
    n_failed: int
    n_unlabelled: int
    groups: str
    near_duplicates: list[tuple[str, str]]
    n_near_duplicates: int
    near_rule: str

    @property
    def sentence(self) -> str:
        """Which look this is, and which came first."""
        if self.number == 1:
            return f"This is look no. 1 at the locked part of {self.path}; nobody has looked at it before."
        first = self.earlier[0]
        return (
            f"This is look no. {self.number} at the locked part of {self.path}; the first was on {first.date} "
            f"({first.bundle})."
        )

    @property
    def notes(self) -> list[str]:
        """What the user must hear."""
        notes = []
        before, same = self.look.looks_before_fit, self.look.bundle_sha256
        if any(one.bundle_sha256 == same for one in self.earlier):
            notes.append("The same classifier was looked at before: nothing new is learnt from this look.")
        elif self.number > 1 and before == 0:
            notes.append(
                "This classifier was fitted before the first look, so that its score is as blind as the first one's; "
                "but the best of several looks is too good. Quote all of them."
            )
        elif self.number > 1:
            known = "" if before is None else f" This classifier was fitted after {before} of them."
            notes.append(
                f"Earlier looks may have led to this classifier.{known} Then its score is too good: quote all looks, "
                "and how many there were."
            )
        if self.n_near_duplicates:
            notes.append(describe_near(self.n_near_duplicates, self.near_duplicates, self.near_rule))
        if isinstance(self.evaluation, Evaluation | LabelEvaluation):
            notes += self.evaluation.notes
        if self.n_failed:
            notes.append(f"Locked samples that failed in extraction and could not be scored: {self.n_failed}.")
        if self.n_unlabelled:
            notes.append(f"Locked samples without a label, not scored: {self.n_unlabelled}.")
        return notes

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready builtins."""
        evaluation = self.evaluation.to_dict()
        return {
            "path": self.path,
            "look": self.number,
            **asdict(self.look),
            "earlier": [asdict(look) for look in self.earlier],
            "scores": evaluation["scores"],
            "evaluation": evaluation,
            "groups": self.groups,
            "n_failed": self.n_failed,
            "n_unlabelled": self.n_unlabelled,
            "n_near_duplicates": self.n_near_duplicates,
            "near_duplicates": [list(pair) for pair in self.near_duplicates],
            "near_rule": self.near_rule,
            "warnings": self.notes,
        }


def describe_near(n: int, pairs: Sequence[tuple[str, str]], rule: str) -> str:
    """Say that near-duplicates lie on both sides of a lock."""
    found = "1 pair of near-duplicates has" if n == 1 else f"{n:,} pairs of near-duplicates have"
    named = "; ".join(f"{one} ~ {other}" for one, other in pairs[:MOST_PAIRS])
    more = " and more" if n > MOST_PAIRS else ""
    return (
        f"{found} one sample in the locked part and one outside: {named}{more}. If they are copies, the locked score "
        f"is too good. (Near is a {rule}.)"
    )
