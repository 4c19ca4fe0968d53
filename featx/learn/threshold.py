"""The probability from which on one of two classes is called positive, and how it is chosen out of fold.

A threshold lies half way between two neighbouring distinct probabilities of out-of-fold samples (or between the first
and 0, the last and 1), so that it separates what it was chosen on and ties stay on one side. Positive is whoever has at
least that probability, as with scikit-learn's ``FixedThresholdClassifier``.

A wanted sensitivity is that of the next positive sample: of n + 1 exchangeable ones, the new one is as likely as any to
have the k-th largest probability, so that a threshold below k of n catches it with k / (n + 1) on average (Vovk,
Gammerman and Shafer, Algorithmic Learning in a Random World, 2005; Angelopoulos et al., Conformal Risk Control, ICLR
2024). The largest threshold with k >= sensitivity * (n + 1) is taken: its out-of-fold sensitivity k / n is above the
wanted one too. With fewer than ``sensitivity / (1 - sensitivity)`` positive samples there is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import LabelsError, UsageError
from featx.learn.conformal import groups_needed

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

NONE = "none"
"""Of ``--threshold``: the head's own decision."""
BEST = ("balanced_accuracy", "f1")
"""What a threshold may maximise."""
REACHED = ("sensitivity", "specificity")
"""What it may be told to reach."""
OWN = 0.5
"""Among equally good thresholds, the one nearest to this is taken: most heads' own decision."""
EXPECTED = "expected none, balanced_accuracy, f1, sensitivity=0.95, specificity=0.95, or a probability such as 0.3"


@dataclass(frozen=True)
class Rule:
    """How a threshold is found.

    Attributes
    ----------
    name : str
        One of `BEST` or `REACHED`; ``""`` where it is given.
    level : float
        The given threshold, or the wanted sensitivity or specificity, between 0 and 1; 0 where something is maximised.
    """

    name: str
    level: float = 0.0

    @classmethod
    def read(cls, text: str) -> Rule | None:
        """Read what ``--threshold`` takes; None is the head's own decision.

        Raises
        ------
        UsageError
            For anything else.
        """
        if text == NONE:
            return None
        if text in BEST:
            return cls(text)
        name, is_wanted, number = text.rpartition("=")
        if is_wanted and name not in REACHED:
            raise UsageError(f"--threshold {text}: {EXPECTED}")
        try:
            level = float(number)
        except ValueError:
            raise UsageError(f"--threshold {text}: {EXPECTED}") from None
        if not 0 < level < 1:
            why = f"; no number of samples promises a {name} of 1" if level == 1 and name else ""
            raise UsageError(f"--threshold {text}: a number above 0 and below 1 is expected{why}")
        return cls(name, level)

    @property
    def is_chosen(self) -> bool:
        """Whether it takes out-of-fold probabilities."""
        return self.name != ""

    def __str__(self) -> str:
        return f"{self.name}={self.level:g}" if self.name in REACHED else self.name or f"{self.level:g}"


@dataclass(frozen=True)
class Threshold:
    """From which probability on the positive class is called.

    Attributes
    ----------
    positive : str
    value : float
        0 to 1.
    sensitivity, specificity : float or None
        Of the out-of-fold samples on which it was chosen; None where it was given.
    n_positive, n_negative : int
        How many those are.
    note : str
        Why it does not do what was asked for, where it does not.
    """

    positive: str
    value: float
    sensitivity: float | None = None
    specificity: float | None = None
    n_positive: int = 0
    n_negative: int = 0
    note: str = ""

    def decide(self, probabilities: FloatArray, classes: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
        """Return the classes (n,) that probabilities (n, 2) in the order of `classes` are called."""
        names = np.asarray(classes)
        place = int(np.flatnonzero(names == self.positive)[0])
        called = probabilities[:, place] >= self.value
        return np.asarray(names[np.where(called, place, 1 - place)])


def check_two_classes(rule: Rule | None, classes: Sequence[str]) -> None:
    """Raise UsageError where a threshold is wanted and there are not two classes."""
    if rule is not None and len(classes) != 2:
        listed = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
        raise UsageError(
            f"--threshold {rule} needs exactly two classes, one of which is called from a probability on; there are "
            f"{len(classes)}: {listed}. For rare classes among many: --class-weight balanced"
        )


def choose_threshold(rule: Rule, probabilities: FloatArray, is_positive: BoolArray, positive: str) -> Threshold:
    """Choose a threshold on samples that the head has not seen.

    Parameters
    ----------
    rule : Rule
        ``balanced_accuracy`` and ``f1`` (of the positive class) are maximised, over all samples together; of equally
        good thresholds the one nearest to 0.5 is taken. ``sensitivity`` takes the largest threshold that promises it,
        see the module; ``specificity`` the smallest.
    probabilities : float64 array (n_samples,)
        Of the positive class.
    is_positive : bool array (n_samples,)
    positive : str
        The class's name.

    Returns
    -------
    Threshold

    Raises
    ------
    LabelsError
        If there are no positive samples, or no negative ones.
    """
    if not rule.is_chosen:
        return Threshold(positive, rule.level)
    cuts = _Cuts.of(probabilities, is_positive)
    if not (cuts.n_positive and cuts.n_negative):
        what = "the positive" if not cuts.n_positive else "the other"
        raise LabelsError(
            f"--threshold {rule} is chosen on out-of-fold samples of both classes, and there is none of {what} class "
            f"({positive!r} is the positive one); give a probability instead, such as --threshold 0.3"
        )
    place, note = _FINDERS[rule.name](cuts, rule.level)
    return Threshold(
        positive,
        float(cuts.values[place]),
        float(cuts.caught[place] / cuts.n_positive),
        float(cuts.spared[place] / cuts.n_negative),
        cuts.n_positive,
        cuts.n_negative,
        note,
    )


@dataclass(frozen=True, eq=False)
class _Cuts:
    """Every threshold that separates some samples, ascending, with how many positives are caught, negatives spared."""

    values: FloatArray
    caught: NDArray[np.int64]
    spared: NDArray[np.int64]
    n_positive: int
    n_negative: int

    @classmethod
    def of(cls, probabilities: FloatArray, is_positive: BoolArray) -> _Cuts:
        scores = np.unique(probabilities)
        low, high = np.append(0.0, scores), np.append(scores, 1.0)
        half = low + (high - low) / 2
        values = np.where(half > low, half, high)  # between two neighbouring numbers lies none
        if scores.size and scores[-1] >= 1:
            values = values[:-1]  # nothing is above a certainty
        positives, negatives = np.sort(probabilities[is_positive]), np.sort(probabilities[~is_positive])
        return cls(
            values,
            len(positives) - np.searchsorted(positives, values),
            np.searchsorted(negatives, values),
            len(positives),
            len(negatives),
        )


def _best_balanced_accuracy(cuts: _Cuts, _: float) -> tuple[int, str]:
    return _nearest_best(cuts, cuts.caught / cuts.n_positive + cuts.spared / cuts.n_negative)


def _best_f1(cuts: _Cuts, _: float) -> tuple[int, str]:
    called = cuts.caught + cuts.n_negative - cuts.spared
    return _nearest_best(cuts, 2 * cuts.caught / (cuts.n_positive + called))


def _nearest_best(cuts: _Cuts, worth: FloatArray) -> tuple[int, str]:
    best = np.flatnonzero(worth >= worth.max() - 1e-12)
    return int(best[np.argmin(np.abs(cuts.values[best] - OWN))]), ""


def _reach_sensitivity(cuts: _Cuts, level: float) -> tuple[int, str]:
    wanted, note = _wanted("sensitivity", level, cuts.n_positive, "positive")
    place = int(np.flatnonzero(cuts.caught >= wanted)[-1])
    return place, _with_extreme(note, "every", is_extreme=cuts.spared[place] == 0)


def _reach_specificity(cuts: _Cuts, level: float) -> tuple[int, str]:
    wanted, note = _wanted("specificity", level, cuts.n_negative, "negative")
    reached = np.flatnonzero(cuts.spared >= wanted)
    if not len(reached):
        share = cuts.spared[-1] / cuts.n_negative
        return len(cuts.values) - 1, (
            f"No threshold reaches a specificity of {level:g}: negative out-of-fold samples have a probability of 1. "
            f"The largest one is taken, with {share:.3f}."
        )
    place = int(reached[0])
    return place, _with_extreme(note, "no", is_extreme=cuts.caught[place] == 0)


def _wanted(name: str, level: float, n: int, kind: str) -> tuple[int, str]:
    """Return how many of n samples must be on the right side, and why that promises too little where it does."""
    wanted = math.ceil(round(level * (n + 1), 9))
    if wanted <= n:
        return wanted, ""
    return n, (
        f"No threshold can promise a {name} of {level:g}: that takes {groups_needed(level)} {kind} samples, and there "
        f"are {n}. The one that has none of them on the wrong side out of fold is taken."
    )


def _with_extreme(note: str, which: str, *, is_extreme: bool) -> str:
    """Add that a threshold reaches what is wanted only where it decides nothing."""
    return f"{note} It calls {which} out-of-fold sample positive.".lstrip() if is_extreme else note


_FINDERS: dict[str, Callable[[_Cuts, float], tuple[int, str]]] = {
    "balanced_accuracy": _best_balanced_accuracy,
    "f1": _best_f1,
    "sensitivity": _reach_sensitivity,
    "specificity": _reach_specificity,
}


@dataclass(frozen=True)
class Thresholds:
    """The thresholds of a fit.

    Attributes
    ----------
    asked : str
        ``--threshold``.
    chosen : Threshold
        Of the saved classifier.
    folds : list of (str, Threshold)
        Of each outer fold, by its name.
    """

    asked: str
    chosen: Threshold
    folds: list[tuple[str, Threshold]]

    @property
    def notes(self) -> list[str]:
        """What the user must hear."""
        notes = [f"--threshold {self.asked}: {self.chosen.note}"] if self.chosen.note else []
        others = [name for name, one in self.folds if one.note]
        if others:
            what = "the same, or the like, happened in" if notes else f"--threshold {self.asked} was not met in"
            notes.append(f"{what[0].upper()}{what[1:]} {len(others)} of {len(self.folds)} folds ({', '.join(others)}).")
        return notes

    def to_dict(self) -> dict[str, Any]:
        """Return ``{asked, positive, value, sensitivity, ..., folds}`` for JSON and for the bundle's facts."""
        folds = [{"fold": name, **asdict(one)} for name, one in self.folds]
        return {"asked": self.asked, **asdict(self.chosen), "folds": folds}
