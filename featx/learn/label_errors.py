"""Label errors: samples whose out-of-fold probabilities contradict their label.

Confident learning (Northcutt, Jiang and Chuang, Confident learning: estimating uncertainty in dataset labels, Journal
of Artificial Intelligence Research 70, 2021): a sample counts as one of another class when its probability of that
class is at least the mean probability that samples labelled so get for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.learn.intervals import Interval
from featx.learn.quick import QuickTest
from featx.learn.search import Progress

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

RANKINGS = ("margin", "self_confidence")
"""What samples are ranked by, lowest first: probability of the label less that of the likeliest other class, or the
probability of the label alone."""

CSV_HEADER = (
    "rank", "key", "group", "label", "suggested", "p_label", "p_suggested", "margin", "contradicts", "confident",
    "repeats_against",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class ConfidentJoint:
    """How many samples labelled i are, by their probabilities, of class j.

    Attributes
    ----------
    thresholds : float64 array (n_classes,)
        The mean probability of each class among the samples labelled so.
    counts : int array (n_classes, n_classes)
        ``counts[i, j]``: samples labelled i that count as class j; of classes over their thresholds, the likeliest.
        A sample over none is not counted.
    calibrated : float64 array (n_classes, n_classes)
        The same, with rows that sum to the number of samples labelled so.
    confident : int array (n_samples,)
        The class as which each sample counts; -1 = none.
    """

    thresholds: FloatArray
    counts: IntArray
    calibrated: FloatArray
    confident: IntArray

    @property
    def n_errors(self) -> float:
        """The estimated number of wrong labels: what `calibrated` has off its diagonal."""
        return float(self.calibrated.sum() - np.trace(self.calibrated))


def confident_joint(codes: IntArray, probabilities: FloatArray) -> ConfidentJoint:
    """Count label against likely class.

    Parameters
    ----------
    codes : int array (n_samples,)
        The label of each sample, 0 ... n_classes - 1; every class has one.
    probabilities : float array (n_samples, n_classes)
        Out of fold: of heads that have not seen the sample.
    """
    n_classes = probabilities.shape[1]
    thresholds = np.array([probabilities[codes == label, label].mean() for label in range(n_classes)])
    over = probabilities >= thresholds - 1e-12  # a class whose probabilities are all the same is over its mean
    likeliest = np.where(over, probabilities, -1.0).argmax(axis=1)
    confident = np.where(over.any(axis=1), likeliest, -1)
    counts = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(counts, (codes[confident >= 0], confident[confident >= 0]), 1)
    rows = counts.astype(np.float64)
    empty = rows.sum(axis=1) == 0
    rows[empty] = np.eye(n_classes)[empty]
    labelled = np.bincount(codes, minlength=n_classes)
    return ConfidentJoint(thresholds, counts, rows / rows.sum(axis=1, keepdims=True) * labelled[:, None], confident)


@dataclass(frozen=True)
class LabelIssue:
    """How the out-of-fold probabilities of a sample go with its label.

    Attributes
    ----------
    rank : int
        From 1: the likeliest error.
    key, group, label, suggested : str
        `suggested` is the class as which the confident joint counts it, where that is not the label; else the likeliest
        class.
    p_label, p_suggested, margin : float
        Mean over the repeats; `margin` is the label's probability less that of the likeliest other class.
    is_confident : bool
        Whether the confident joint counts it as an error.
    n_against : int
        In how many repeats another class than the label was the likeliest.
    """

    rank: int
    key: str
    group: str
    label: str
    suggested: str
    p_label: float
    p_suggested: float
    margin: float
    is_confident: bool
    n_against: int


@dataclass(frozen=True, eq=False)
class LabelAudit:
    """What the probabilities say of the labels.

    Attributes
    ----------
    issues : list of LabelIssue
        All samples, the likeliest error first; the first `n_against` are those that contradict their label.
    n_against : int
        Samples whose likeliest class is not their label, or which the confident joint counts as another class: the
        second can be without the first where a class is rare.
    joint : ConfidentJoint
    classes : list of str
    score : Interval
        Balanced accuracy of the same predictions: near guessing, they say nothing about labels.
    guessing : float
    n_repeats : int
    ranked_by : str
    """

    issues: list[LabelIssue]
    n_against: int
    joint: ConfidentJoint
    classes: list[str]
    score: Interval
    guessing: float
    n_repeats: int
    ranked_by: str

    @property
    def contradictions(self) -> list[LabelIssue]:
        """The samples that contradict their label, the likeliest error first."""
        return self.issues[: self.n_against]

    @property
    def n_confident(self) -> int:
        """How many samples the confident joint counts as errors."""
        return int(self.joint.counts.sum() - np.trace(self.joint.counts))

    @property
    def pairs(self) -> list[tuple[str, str, int]]:
        """Label, likely class and number of confident errors, the most frequent first."""
        counts = self.joint.counts
        pairs = [
            (self.classes[i], self.classes[j], int(counts[i, j])) for i, j in np.argwhere(counts > 0).tolist() if i != j
        ]
        return sorted(pairs, key=lambda pair: (-pair[2], pair))

    def to_dict(self, top: int) -> dict[str, Any]:
        """Return plain dicts, lists and numbers, for JSON, with the first `top` contradictions."""
        return {
            "n_estimated": self.joint.n_errors,
            "n_confident": self.n_confident,
            "n_against": self.n_against,
            "n_samples": len(self.issues),
            "n_repeats": self.n_repeats,
            "ranked_by": self.ranked_by,
            "score": self.score.to_dict(),
            "guessing": self.guessing,
            "classes": self.classes,
            "thresholds": self.joint.thresholds.tolist(),
            "confident_joint": self.joint.counts.tolist(),
            "issues": [asdict(issue) for issue in self.contradictions[:top]],
        }

    def iter_csv_rows(self) -> Iterator[list[str]]:
        """Yield a header and one line for each sample, in the order of the ranking."""
        yield list(CSV_HEADER)
        for place, one in enumerate(self.issues):
            yield [
                str(one.rank), one.key, one.group, one.label, one.suggested, f"{one.p_label:.6f}",
                f"{one.p_suggested:.6f}", f"{one.margin:.6f}", _yes(place < self.n_against), _yes(one.is_confident),
                str(one.n_against),
            ]  # fmt: skip


def find_label_errors(
    test: QuickTest,
    X: FloatArray,
    keys: Sequence[str],
    groups: Sequence[str],
    *,
    rank_by: str = "margin",
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> LabelAudit:
    """Rank samples by how much their out-of-fold probabilities contradict their label.

    Parameters
    ----------
    test : QuickTest
        Of the labels, repeated; its `scoring` should be ``"neg_log_loss"``, which wants right probabilities.
    X : float64 array (n_samples, n_features)
    keys, groups : str sequence (n_samples,)
    rank_by : str
        One of `RANKINGS`.
    n_jobs, progress
        As for `QuickTest.run`.
    """
    evaluation, outcomes = test.run(X, n_jobs=n_jobs, progress=progress)
    classes, codes = np.unique(test.y, return_inverse=True)
    n_times = np.zeros(len(codes), dtype=np.int64)
    n_against = np.zeros(len(codes), dtype=np.int64)
    probabilities = np.zeros((len(codes), len(classes)))
    for fold, outcome in zip(test.folds, outcomes, strict=True):
        said = outcome.best.probabilities
        probabilities[fold.test] += said
        n_against[fold.test] += said.argmax(axis=1) != codes[fold.test]
        n_times[fold.test] += 1
    probabilities /= n_times[:, None]
    joint = confident_joint(codes, probabilities)
    issues = rank_labels(codes, probabilities, joint, classes, keys, groups, n_against, rank_by)
    return LabelAudit(
        issues=issues,
        n_against=sum(issue.suggested != issue.label for issue in issues),
        joint=joint,
        classes=[str(name) for name in classes],
        score=evaluation.scores["balanced_accuracy"],
        guessing=1 / len(classes),
        n_repeats=test.n_repeats,
        ranked_by=rank_by,
    )


def rank_labels(
    codes: IntArray,
    probabilities: FloatArray,
    joint: ConfidentJoint,
    classes: Sequence[str] | NDArray[Any],
    keys: Sequence[str],
    groups: Sequence[str],
    n_against: IntArray,
    rank_by: str,
) -> list[LabelIssue]:
    """Return all samples, first those that contradict their label, each part by `rank_by`."""
    n_samples = len(codes)
    own = probabilities[np.arange(n_samples), codes]
    others = probabilities.copy()
    others[np.arange(n_samples), codes] = -1.0
    margin = own - others.max(axis=1)
    is_confident = (joint.confident >= 0) & (joint.confident != codes)
    suggested = np.where(is_confident, joint.confident, np.where(margin < 0, others.argmax(axis=1), codes))
    order = np.lexsort((own if rank_by == "self_confidence" else margin, suggested == codes))
    return [
        LabelIssue(
            rank=place + 1,
            key=str(keys[row]),
            group=str(groups[row]),
            label=str(classes[codes[row]]),
            suggested=str(classes[suggested[row]]),
            p_label=float(own[row]),
            p_suggested=float(probabilities[row, suggested[row]]),
            margin=float(margin[row]),
            is_confident=bool(is_confident[row]),
            n_against=int(n_against[row]),
        )
        for place, row in enumerate(order.tolist())
    ]


def _yes(value: bool) -> str:
    return "yes" if value else "no"
