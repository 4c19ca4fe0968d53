"""The tasks: what a label is, and which options of ``featx fit`` have a meaning for it.

What a task does is looked up by its name in few places: `featx.fit` (how it is fitted), `featx.cli.fit` (how its report
looks), `featx.learn.bundle` (how its head is checked) and `featx.predict` (what is said of a sample).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from featx.errors import UnknownNameError, UsageError

CLASSIFICATION, MULTILABEL, REGRESSION = "classification", "multilabel", "regression"
_OF_LABELS = {"label_separator": "--label-separator", "none_label": "--none-label", "thresholds": "--thresholds"}


@dataclass(frozen=True)
class Task:
    """What is to be learnt of the labels.

    Attributes
    ----------
    name, summary : str
        As in ``--task``, and one line about it.
    heads : tuple of str
        Heads that are tried unless told otherwise.
    scoring : str
        What the choice maximises unless told otherwise.
    has_classes : bool
        Whether a head knows classes, and gives probabilities of them.
    fewest_classes : int
        How many classes a head knows at least, where it has any.
    several : bool
        Whether a sample may be of several classes, or of none.
    without : mapping of str to str
        Fields of `featx.learn.options.FitOptions` that have no meaning here, and the options that set them.
    careless : mapping of str to str
        The same of `featx.learn.judgement.Caution`, for ``featx predict``.
    """

    name: str
    summary: str
    heads: tuple[str, ...]
    scoring: str
    has_classes: bool = True
    fewest_classes: int = 2
    several: bool = False
    without: Mapping[str, str] = field(default_factory=dict)
    careless: Mapping[str, str] = field(default_factory=dict)

    def check(self, options: Any, meaningless: Mapping[str, str]) -> None:
        """Raise where an option that has no meaning for this task was given another value than its default.

        Parameters
        ----------
        options : dataclass instance
            Its fields have defaults.
        meaningless : mapping of str to str
            `without` or `careless`.

        Raises
        ------
        UsageError
            Names the option and the task.
        """
        usual = {one.name: one.default for one in fields(options)}
        for name, option in meaningless.items():
            if getattr(options, name) != usual[name]:
                raise UsageError(f"{option} has no meaning for --task {self.name}; leave it out")


TASKS = {
    task.name: task
    for task in (
        Task(CLASSIFICATION, "a label is one of several classes", ("logreg",), "balanced_accuracy", without=_OF_LABELS),
        Task(
            MULTILABEL,
            "an image has any number of labels",
            ("logreg",),
            "average_precision_macro",
            fewest_classes=1,
            several=True,
            without={
                "positive": "--positive",
                "threshold": "--threshold",
                "by_group": "--by-group",
                "conformal": "--conformal",
                "leak_gap": "--no-leak-gap",
            },
            careless={
                "coverage": "--coverage",
                "per_class": "--coverage-per-class",
                "abstain_below": "--abstain-below",
            },
        ),
        Task(
            REGRESSION,
            "a label is a number",
            ("ridge",),
            "neg_mean_absolute_error",
            has_classes=False,
            without={
                **_OF_LABELS,
                "class_weight": "--class-weight",
                "threshold": "--threshold",
                "positive": "--positive",
                "min_per_class": "--min-per-class",
                "by_group": "--by-group",
                "calibration": "--calibration",
                "leak_gap": "--no-leak-gap",
                "device": "--device",
            },
            careless={"per_class": "--coverage-per-class", "abstain_below": "--abstain-below"},
        ),
    )
}
"""By name."""


def find_task(name: str) -> Task:
    """Return the task of a name; raises UnknownNameError."""
    if name not in TASKS:
        raise UnknownNameError("task", name, TASKS)
    return TASKS[name]
