"""What a fit says about trusting its classifier: probabilities, prediction sets, what is unlike the training set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import UsageError
from featx.learn.calibration import ENOUGH_FOR_ISOTONIC, Calibration, IntArray
from featx.learn.conformal import Conformal
from featx.learn.novelty import FALSE_ALARMS, Novelty
from featx.learn.out_of_fold import CalibratedFit
from featx.learn.reliability import Reliability
from featx.learn.search import Fitted

CONFORMAL = ("auto", "on", "off")
"""Values of ``--conformal``."""
CHEAP = 32 << 20
"""Bytes of fold heads up to which ``auto`` keeps them."""
COVERAGES = (0.8, 0.9, 0.95)
"""For which the report states the floor."""


@dataclass(frozen=True, eq=False)
class Trust:
    """What is known about how far the saved classifier can be trusted, image by image.

    Attributes
    ----------
    asked : str
        ``--calibration``.
    calibration : Calibration or None
        Of the saved head; None where it was not asked for, or the head has a sigmoid instead.
    fold_methods : list of (str, str)
        The map of each outer fold, by its name.
    reliability : Reliability
        Of the probabilities that are reported.
    plain : Reliability or None
        Of those before calibration; None where nothing was calibrated.
    conformal : Conformal or None
    why_no_sets : str
        Why there is no `conformal`.
    novelty : Novelty or None
        None where it was not wanted.
    """

    asked: str
    calibration: Calibration | None
    fold_methods: list[tuple[str, str]]
    reliability: Reliability
    plain: Reliability | None = field(repr=False)
    conformal: Conformal | None = field(repr=False)
    why_no_sets: str = ""
    novelty: Novelty | None = field(default=None, repr=False)

    @property
    def method(self) -> str:
        """What makes the saved head's probabilities: a map, or ``"sigmoid of decision values"``, or ``"none"``."""
        if self.calibration is None:
            return "none" if self.asked == "none" else "sigmoid of decision values"
        return self.calibration.method

    @property
    def notes(self) -> list[str]:
        """What the user must hear."""
        notes = []
        if self.asked in ("temperature", "isotonic") and self.calibration is None:
            notes.append(
                f"--calibration {self.asked} is for heads with probabilities of their own: the saved one has none, and "
                "keeps the sigmoid that gives it some."
            )
        found = self.calibration
        if found is not None and found.method == "isotonic" and found.n_units < ENOUGH_FOR_ISOTONIC:
            notes.append(
                f"Isotonic regression on {found.n_units:,} samples or groups overfits more often than not (fewer than "
                f"{ENOUGH_FOR_ISOTONIC:,}); --calibration auto would not choose it."
            )
        return notes

    def to_dict(self) -> dict[str, Any]:
        """Return ``{calibration, conformal, novelty}`` for JSON and for the bundle's facts."""
        found = self.calibration
        return {
            "calibration": {
                "asked": self.asked,
                "method": self.method,
                "temperature": None if found is None else found.temperature,
                "log_loss": {} if found is None else found.losses,
                "n_samples": 0 if found is None else found.n_samples,
                "n_groups": 0 if found is None else found.n_units,
                "folds": [{"fold": name, "method": method} for name, method in self.fold_methods],
                **self.reliability.to_dict(),
                "uncalibrated": None if self.plain is None else self.plain.to_dict(),
            },
            "conformal": self._conformal_dict(),
            "novelty": describe_novelty(self.novelty),
        }

    def _conformal_dict(self) -> dict[str, Any]:
        sets = self.conformal
        if sets is None:
            return {"kept": False, "why_not": self.why_no_sets}
        counts = dict(zip(sets.classes, sets.n_groups_of_class.tolist(), strict=True))
        return {
            "kept": True,
            "n_folds": len(sets.heads),
            "n_groups": sets.n_groups,
            "n_groups_of_class": counts,
            "unit": sets.unit,
            "classes": sets.classes,
            "floor": {f"{coverage:g}": sets.floor(coverage) for coverage in COVERAGES},
            "floor_per_class": {f"{coverage:g}": sets.floor(coverage, per_class=True) for coverage in COVERAGES},
        }


def describe_novelty(found: Novelty | None) -> dict[str, Any]:
    """Return what a bundle's facts say of its `Novelty`, or that there is none."""
    if found is None:
        return {"kept": False}
    return {
        "kept": True,
        "neighbours": found.neighbours,
        "n_rows": len(found.rows),
        "n_groups": found.n_groups,
        "unit": found.unit,
        "false_alarms": FALSE_ALARMS,
    }


def check_conformal(value: str) -> None:
    """Raise UsageError for a value that ``--conformal`` does not take."""
    if value not in CONFORMAL:
        raise UsageError(f"--conformal {value}: expected auto, on or off")


def plain_of(fitted: Fitted) -> NDArray[np.float64]:
    """Return the probabilities (n_test, n_classes) before calibration."""
    return fitted.plain if isinstance(fitted, CalibratedFit) else fitted.probabilities


def calibration_of(fitted: Fitted) -> Calibration | None:
    """Return the map behind a head, where one was looked for."""
    return fitted.calibration if isinstance(fitted, CalibratedFit) else None


def make_conformal(
    y: NDArray[np.str_],
    tested: Sequence[IntArray],
    fitted: Sequence[Fitted],
    classes: Sequence[str],
    groups: IntArray | None,
    *,
    any_size: bool,
) -> tuple[Conformal | None, str]:
    """Keep the heads of some folds with the conformity of the samples that they did not see.

    Parameters
    ----------
    y : str array (n_samples,)
    tested : sequence of int array
        Positions that each fold tests; disjoint.
    fitted : sequence of Fitted
        With estimators.
    classes : sequence of str
        Of all those heads.
    groups : int array (n_samples,), or None
    any_size : bool
        Also where the heads take more than `CHEAP`.

    Returns
    -------
    (Conformal, ""), or (None, why not)
    """
    size = sum(bytes_of(one.estimator) for one in fitted)
    if size > CHEAP and not any_size:
        return None, (
            f"the {len(fitted)} fold heads would take {size / (1 << 20):.0f} MiB in the bundle; --conformal on keeps "
            "them all the same"
        )
    rows = np.concatenate(tested)
    true = np.searchsorted(np.asarray(classes), y[rows])
    probabilities = np.concatenate([one.probabilities for one in fitted])
    sets = Conformal(
        heads=[one.estimator for one in fitted],
        classes=list(classes),
        conformity=probabilities[np.arange(len(rows)), true],
        true=true.astype(np.int64),
        folds=np.repeat(np.arange(len(tested)), [len(some) for some in tested]),
        groups=rows if groups is None else groups[rows],
        unit="samples" if groups is None else "groups",
    )
    return sets, ""


def bytes_of(part: Any) -> int:
    """Count the bytes of all arrays in an estimator."""
    if isinstance(part, np.ndarray):
        return part.nbytes
    if isinstance(part, dict):
        return sum(bytes_of(value) for value in part.values())
    if isinstance(part, (list, tuple)):
        return sum(bytes_of(value) for value in part)
    return bytes_of(vars(part)) if hasattr(part, "__dict__") and not isinstance(part, type) else 0
