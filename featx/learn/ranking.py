"""What ``featx rank`` may be told, and what it gives: feature files in order, and the scores of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from featx.learn.dataset import LockedPart
from featx.learn.groups import GroupIds
from featx.learn.intervals import Interval
from featx.learn.notes import note_locked_out, note_no_groups, note_plain, note_small_classes, note_unlabelled
from featx.learn.options import FitOptions

SCORES = {
    "logme": "LogME",
    "h_score": "H",
    "h_score_regularised": "H reg.",
    "transrate": "TransRate",
    "leep": "LEEP",
    "nce": "NCE",
}
"""Of `featx.learn.transferability`: name to heading, in the order in which they are shown."""

CLOSE = 0.25
"""Of the largest H-score: more than this of labels in random order is worth a word."""

CAUTION = (
    "These scores are an aid, not a verdict: over eight public image sets, the order that such a score gives to "
    "backbones agreed with the order after transfer by a weighted tau of 0.42 to 0.69 on average, depending on the "
    "score (1: the same order, 0: chance). The order above is that of the cross-validated score."
)


@dataclass(frozen=True, kw_only=True)
class RankOptions:
    """What ``featx rank`` may be told; the values are checked when it is made.

    Attributes
    ----------
    scaling : str
        Of `featx.learn.heads.SCALINGS`. Standardised features make one grid of C suit backbones of any scale.
    C_grid : (float, float, int)
        Lowest, highest and number of values of C, spaced evenly in the logarithm.
    cv, inner_cv, repeats : int
        Outer folds, folds of each choice of C, repeats of the outer folds.
    scoring : str
        What is ranked by, and C chosen by: one of `featx.learn.metrics.SCORINGS`.
    split : {"auto", "ignore"}
        ``"auto"``: of files with splits, only what a head may be chosen on is used: train, or train and val.
    min_per_class : int, optional
        Classes with fewer samples (or groups) are left out.
    allow_missing : bool
        Go on although some file lacks samples, on those that every file has.
    random_state : int
        Seeds folds and solvers.
    n_jobs : int
        Processes, as in scikit-learn; the result does not depend on it.

    Raises
    ------
    UsageError, UnknownNameError
        A value that an option does not take.
    """

    scaling: str = "standardise"
    C_grid: tuple[float, float, int] = (1e-4, 1.0, 5)
    cv: int = 5
    inner_cv: int = 3
    repeats: int = 1
    scoring: str = "balanced_accuracy"
    split: str = "auto"
    min_per_class: int | None = None
    allow_missing: bool = False
    random_state: int = 0
    n_jobs: int = -1

    def __post_init__(self) -> None:
        self.of_fit  # noqa: B018  checks the values

    @property
    def of_fit(self) -> FitOptions:
        """The same for the head behind the cheap score, logistic regression."""
        values = {name: value for name, value in asdict(self).items() if name != "scaling"}
        return FitOptions(heads=("logreg",), scalings=(self.scaling,), **values)


@dataclass(frozen=True)
class RankedFile:
    """One feature file among those that were ranked.

    Attributes
    ----------
    path, backbone, weights, node : str
        The file, and what made its features.
    n_features : int
    score : Interval
        The cheap cross-validated score.
    behind : Interval or None
        By how much it is behind the first, fold by fold; None for the first itself.
    tied : bool
        Whether `behind` may be nothing.
    transferability : dict of str to float or None
        Of `SCORES`, larger is better; None where there is none.
    why_none : dict of str to str
        For each that is None: why, and what would give it.
    h_score_of_chance : float
        The mean H-score of the same labels in random order.
    saturated : bool
        Whether the H-score is the number of classes minus 1 for any labels, and says nothing.
    edges : dict of str to int
        In how many folds the chosen C was at the ``"lower"`` or ``"upper"`` edge of the grid.
    n_unconverged : int
        Fits that did not converge.
    """

    path: str
    backbone: str
    weights: str
    node: str
    n_features: int
    score: Interval
    behind: Interval | None
    tied: bool
    transferability: dict[str, float | None]
    why_none: dict[str, str]
    h_score_of_chance: float
    saturated: bool
    edges: dict[str, int]
    n_unconverged: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, numbers and None, for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class RankResult:
    """Feature files of the same samples, best first.

    Attributes
    ----------
    files : list of RankedFile
        By the mean of the cheap score; of equals, in the order in which they were given.
    metric : str
        What that score is.
    guessing : float or None
        What always naming the largest class of the training part would score.
    classes : list of str
    n_samples : int
        Samples that the files were ranked on.
    description : str
        How the cheap score was made.
    groups : GroupIds
    n_folds : int
        Over all repeats.
    n_left_out : int
        Samples that not every file has.
    unlabelled, small_classes, n_not_ranked : int, dict of str to int, int
        Samples left out: without a label; by class; of a split that no choice may be made on.
    has_views : bool
        Whether some file has several rows for each sample, of which the plain image's was taken.
    options : RankOptions
    seconds : float
    locked : LockedPart or None
        What a file keeps for the last test: it took no part.
    """

    files: list[RankedFile]
    metric: str
    guessing: float | None
    classes: list[str]
    n_samples: int
    description: str
    groups: GroupIds = field(repr=False)
    n_folds: int
    n_left_out: int
    unlabelled: int
    small_classes: dict[str, int]
    n_not_ranked: int
    has_views: bool
    options: RankOptions
    seconds: float
    locked: LockedPart | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the object that ``featx rank --json`` prints."""
        return {
            "metric": self.metric,
            "files": [file.to_dict() for file in self.files],
            "guessing": self.guessing,
            "ties": self.ties,
            "classes": self.classes,
            "n_samples": self.n_samples,
            "description": self.description,
            "groups": None if self.groups.ids is None else {"n": self.groups.n, "source": self.groups.source},
            "left_out": {
                "not_in_every_file": self.n_left_out,
                "unlabelled": self.unlabelled,
                "small_classes": self.small_classes,
                "not_for_choosing": self.n_not_ranked,
                "locked": 0 if self.locked is None else self.locked.n_samples,
            },
            "caution": CAUTION,
            "remarks": self.remarks,
            "warnings": self.notes,
            "options": asdict(self.options),
            "seconds": self.seconds,
        }

    @property
    def names(self) -> list[str]:
        """The files without their folders, where that tells them apart."""
        paths = [file.path for file in self.files]
        names = [Path(path).name for path in paths]
        return names if len(set(names)) == len(names) else paths

    @property
    def tied(self) -> list[RankedFile]:
        """The files that cannot be told from the first."""
        return [file for file in self.files if file.tied]

    @property
    def ties(self) -> str:
        """Which files cannot be told from the first, in words; ``""`` for a single file."""
        if len(self.files) == 1:
            return ""
        if not self.tied:
            return "No file is tied with the first: no 95 % interval of a difference to it, fold by fold, holds 0."
        names = ", ".join(name for name, file in zip(self.names, self.files, strict=True) if file.tied)
        return (
            f"Tied with the first (the 95 % interval of the difference to it, fold by fold, holds 0): {names}. Of tied "
            "files take the one that is cheaper to compute."
        )

    @property
    def remarks(self) -> list[str]:
        """What to know about the transferability scores of these files."""
        remarks = []
        saturated = [name for name, file in zip(self.names, self.files, strict=True) if file.saturated]
        if saturated:
            remarks.append(
                f"H is {len(self.classes) - 1} (classes - 1) for any labels where there are no more samples than "
                f"features, and says nothing of {self._listed(saturated)}; H reg. does not saturate."
            )
        most = len(self.classes) - 1
        close = [
            f"{file.h_score_of_chance:.3f} ({name})"
            for name, file in zip(self.names, self.files, strict=True)
            if not file.saturated and file.h_score_of_chance > CLOSE * most
        ]
        if close:
            remarks.append(f"H of labels in random order would on average be {', '.join(close)}, of at most {most}.")
        lacking: dict[str, dict[str, list[str]]] = {}
        for name, file in zip(self.names, self.files, strict=True):
            for score, reason in file.why_none.items():
                lacking.setdefault(reason, {}).setdefault(SCORES[score], []).append(name)
        for reason, by_score in lacking.items():
            names = list(dict.fromkeys(name for some in by_score.values() for name in some))
            remarks.append(f"No {' and '.join(by_score)} of {self._listed(names)}: {reason}.")
        return remarks

    @property
    def notes(self) -> list[str]:
        """What the user must hear, most important first."""
        notes = note_no_groups(self.groups)
        if len(self.files) > 1:
            notes.append(
                f"The first score is the best of {len(self.files)}, and too good by having been picked: report one "
                "that pays for the choice, or that of samples which took no part in it."
            )
        if self.n_left_out:
            notes.append(f"Samples that not every file has, left out: {self.n_left_out}.")
        notes += [
            *note_locked_out(self.locked),
            *note_unlabelled(self.unlabelled),
            *note_small_classes(self.small_classes),
            *note_plain(self.has_views),
        ]
        for name, file in zip(self.names, self.files, strict=True):
            for edge, count in file.edges.items():
                if count > self.n_folds / 2:
                    notes.append(
                        f"{name}: C was chosen at the {edge} edge of the grid in {count} of {self.n_folds} folds: "
                        "a better one may lie beyond (--C-grid)."
                    )
            if file.n_unconverged:
                notes.append(f"{name}: {file.n_unconverged} fits did not converge.")
        return notes

    def _listed(self, names: Sequence[str]) -> str:
        return "all files" if len(names) == len(self.files) > 1 else ", ".join(names)
