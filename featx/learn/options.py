"""What ``featx fit`` may be told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featx.errors import UnknownNameError, UsageError
from featx.learn.calibration import check_calibration
from featx.learn.device import check_device
from featx.learn.heads import SCALINGS, find_head, order_of
from featx.learn.metrics import check_scoring
from featx.learn.near_duplicates import check_distance
from featx.learn.search import Space
from featx.learn.tasks import CLASSIFICATION, MULTILABEL, REGRESSION, find_task
from featx.learn.threshold import NONE, Rule
from featx.learn.trust import check_conformal
from featx.learn.views import check_views_options


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """What ``featx fit`` may be told; the values are checked when it is made.

    Attributes
    ----------
    task : str
        What a label is: one of `featx.learn.tasks.TASKS`.
    heads, scalings : tuple of str
        What competes: as `featx.learn.heads.find_head` takes them (the heads of the task), and of `SCALINGS`. None
        is made the heads that are the task's default.
    cv, inner_cv, repeats : int
        Outer folds, folds of each choice, repeats of the outer folds.
    C_grid : (float, float, int)
        Lowest, highest and number of values of C, spaced evenly in the logarithm; for heads whose parameter is C.
    class_weight : str, optional
        ``"balanced"``: every class counts the same, however many samples it has.
    scoring : str
        What the choice maximises: one of `featx.learn.metrics.SCORINGS`, or of the task's own. ``""`` is made the
        task's default.
    split : {"auto", "ignore"}
        Whether train, val and test of the file are kept apart.
    refit : {"default", "all"}
        ``"all"``: the saved head is fitted on every row, also the reported ones.
    positive : str, optional
        Of two classes, the one whose sensitivity is meant; the second by default.
    threshold : str
        Of two classes, from which probability on the positive one is called: ``"none"`` (the head's own decision),
        ``"balanced_accuracy"`` or ``"f1"`` (the best out of fold), ``"sensitivity=0.95"``, ``"specificity=0.95"``, or a
        probability; see `featx.learn.threshold`.
    min_per_class : int, optional
        Classes with fewer samples (or groups) to choose on are left out.
    allow_missing : bool
        Go on although some samples failed and have no row.
    by_group : bool
        Also score groups by their mean probability.
    views : {"train", "none"}, optional
        Where a file has several rows for each sample: fit on all of them, or on the plain image alone. None: train.
    score_views : {"plain", "average"}, optional
        Whether a sample is called by its plain image or by the mean over its views, while choosing, in the scores and
        by `featx predict`. None: plain.
    calibration : {"auto", "none", "temperature", "sigmoid", "isotonic"}
        What makes probabilities come true as often as they say; see `featx.learn.calibration.choose_calibration`.
    conformal : {"auto", "on", "off"}
        Whether the heads of the outer folds are kept for prediction sets. ``"auto"``: where they are small, and the
        evaluation makes them anyway.
    novelty : bool
        Whether the bundle can tell what is unlike the training set; it then holds features of training images.
    random_state : int
        Seeds folds and solvers.
    n_jobs : int
        Processes, as in scikit-learn; the result does not depend on it.
    device : str
        Where logistic regression and linear SVMs are searched: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` ... Another device
        than the CPU loads PyTorch, and uses one process.
    group_near_duplicates : bool
        Join samples whose features are nearly the same into one group; they are looked for in any case.
    near_duplicate_distance : float, optional
        Largest cosine distance of centred features that counts as near, 0 to 2. None: from the data, see
        `featx.learn.near_duplicates.find_near_duplicates`.
    label_separator, none_label : str
        With several labels for a sample: what stands between them, and the word for none of them.
    thresholds : {"f1", "half"}
        Whether such a label is called where its F1 is largest, or where it is more probable than not.
    leak_gap : bool
        Where there are groups, score the same procedure ignoring them as well; about doubles the time.

    Raises
    ------
    UsageError, UnknownNameError
        A value that an option does not take.
    """

    task: str = CLASSIFICATION
    heads: tuple[str, ...] = None  # type: ignore[assignment]  # never None once it is made
    cv: int = 5
    inner_cv: int = 5
    repeats: int = 1
    scalings: tuple[str, ...] = tuple(SCALINGS)
    C_grid: tuple[float, float, int] = (1e-6, 1e3, 10)
    class_weight: str | None = None
    scoring: str = ""
    split: str = "auto"
    refit: str = "default"
    positive: str | None = None
    threshold: str = NONE
    min_per_class: int | None = None
    allow_missing: bool = False
    by_group: bool = False
    views: str | None = None
    score_views: str | None = None
    calibration: str = "auto"
    conformal: str = "auto"
    novelty: bool = True
    random_state: int = 0
    n_jobs: int = -1
    device: str = "cpu"
    group_near_duplicates: bool = False
    near_duplicate_distance: float | None = None
    leak_gap: bool = True
    label_separator: str = ";"
    none_label: str = "none"
    thresholds: str = "f1"

    def __post_init__(self) -> None:
        task = find_task(self.task)
        if self.heads is None:
            object.__setattr__(self, "heads", task.heads)  # how a frozen dataclass completes itself
        object.__setattr__(self, "scoring", self.scoring or task.scoring)
        task.check(self, task.without)
        for scaling in self.scalings:
            if scaling not in SCALINGS:
                raise UnknownNameError("scaling", scaling, SCALINGS)
        for option, value, least in (
            ("--head", len(self.heads), 1),
            ("--scaling", len(self.scalings), 1),
            ("--cv", self.cv, 2),
            ("--inner-cv", self.inner_cv, 2),
            ("--repeats", self.repeats, 1),
            ("--min-per-class", 1 if self.min_per_class is None else self.min_per_class, 1),
            ("--random-state", self.random_state, 0),
        ):
            if value < least:
                raise UsageError(f"{option}: at least {least} is needed, got {value}")
        if self.class_weight not in (None, "balanced"):
            raise UsageError(f"--class-weight {self.class_weight}: expected balanced, or nothing")
        if self.n_jobs == 0:
            raise UsageError("--n-jobs 0: give a number of processes, or -1 for all cores")
        low, high, count = self.C_grid
        if not (0 < low <= high < np.inf and count >= 1 and (low < high) == (count > 1)):
            raise UsageError(
                f"--C-grid {low:g}:{high:g}:{count}: expected LO:HI:N with 0 < LO < HI and N > 1, or LO:LO:1"
            )
        if self.split not in ("auto", "ignore"):
            raise UsageError(f"--split {self.split}: expected auto or ignore")
        if self.refit not in ("default", "all"):
            raise UsageError(f"--refit {self.refit}: expected default or all")
        check_device(self.device)
        check_calibration(self.calibration)
        Rule.read(self.threshold)
        check_conformal(self.conformal)
        check_distance(self.near_duplicate_distance)
        check_views_options(self.views, self.score_views)
        _CHECKS[self.task](self)

    @property
    def threshold_rule(self) -> Rule | None:
        """What `threshold` says; None: the head's own decision."""
        return Rule.read(self.threshold)

    @property
    def space(self) -> Space:
        """What is chosen from; each name once, in the order in which ties are broken."""
        # Twelve digits: 0.01 rather than 0.010000000000000002.
        grid = tuple(float(f"{C:.12g}") for C in np.geomspace(*self.C_grid))
        heads = tuple(sorted(dict.fromkeys(self.heads), key=order_of))
        scalings = tuple(name for name in SCALINGS if name in self.scalings)
        return Space(
            heads, scalings, grid, self.scoring, self.random_state, class_weight=self.class_weight, device=self.device
        )


def _check_classification(options: FitOptions) -> None:
    """Raise where heads and scoring are not known, or do not go together."""
    for head in options.heads:
        find_head(head)
    check_scoring(options.scoring)
    options.space  # noqa: B018


def _check_regression(options: FitOptions) -> None:
    from featx.learn.regression.heads import find_head as find
    from featx.learn.regression.metrics import check_scoring as check

    for head in options.heads:
        find(head)
    check(options.scoring)


def _check_multilabel(options: FitOptions) -> None:
    from featx.learn.multilabel.heads import MAPS, THRESHOLDS, check_label_head
    from featx.learn.multilabel.labels import LabelSyntax
    from featx.learn.multilabel.metrics import check_label_scoring

    for head in options.heads:
        check_label_head(head)
    check_label_scoring(options.scoring)
    LabelSyntax(options.label_separator, options.none_label)
    if options.thresholds not in THRESHOLDS:
        raise UsageError(f"--thresholds {options.thresholds}: expected {' or '.join(THRESHOLDS)}")
    if options.calibration not in MAPS:
        raise UsageError(f"--calibration {options.calibration}: --task multilabel takes {', '.join(MAPS)}")


_CHECKS = {
    CLASSIFICATION: _check_classification,
    MULTILABEL: _check_multilabel,
    REGRESSION: _check_regression,
}
