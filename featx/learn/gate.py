"""The gate: whether a tuned network has earned its place beside the frozen one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.learn.paired import LEVEL, Comparison, compare
from featx.learn.scores import FoldPredictions

BETTER, NO_EVIDENCE, WORSE = "better", "no-evidence", "worse"
SCORING = "accuracy"
"""What the gate compares: the share of right ones, so that what flips is the correctness of a sample or a group."""


@dataclass(frozen=True)
class Verdict:
    """What the gate says.

    Attributes
    ----------
    verdict : str
        `BETTER`, `NO_EVIDENCE` or `WORSE`: of the tuned network.
    comparison : Comparison
        Tuned beside frozen.
    is_single : bool
        Whether both were fitted once, on one training part: the interval holds nothing of how trainings differ.
    """

    verdict: str
    comparison: Comparison
    is_single: bool

    @classmethod
    def of(
        cls,
        y: NDArray[Any],
        tuned: Sequence[FoldPredictions],
        frozen: Sequence[FoldPredictions],
        classes: Sequence[str],
        *,
        groups: NDArray[np.int64] | None = None,
        is_fixed: bool = False,
        random_state: int = 0,
    ) -> Verdict:
        """Judge two series of predictions for the same folds, or for one fixed part; see `featx.learn.paired`.

        With one fold alone, or a fixed part, nothing is known of the variance of training.
        """
        is_single = is_fixed or len(tuned) == 1
        comparison = compare(
            y,
            ("tuned", "frozen"),
            tuned,
            frozen,
            classes,
            SCORING,
            groups=groups,
            is_fixed=is_single,
            random_state=random_state,
        )
        verdict = NO_EVIDENCE
        if not comparison.is_tie:
            verdict = BETTER if (comparison.difference or 0.0) > 0 else WORSE
        return cls(verdict, comparison, is_single)

    def describe(self) -> str:
        """Say it in words, with the numbers."""
        found = self.comparison
        if found.difference is None or found.p_value is None:
            return "no evidence: the two cannot be compared"
        one, two = found.scores
        between = (
            "" if found.low is None else f", 95 % interval {100 * found.low:+.1f} to {100 * (found.high or 0):+.1f}"
        )
        numbers = (
            f"{one:.3f} tuned, {two:.3f} frozen; difference {100 * found.difference:+.1f} points{between}; "
            f"p = {found.p_value:.2g} over {found.n_units} {found.unit}"
        )
        said = {
            BETTER: "better: the tuned network is right more often than the frozen head",
            WORSE: "worse: the tuned network is right less often than the frozen head",
            NO_EVIDENCE: "no evidence that tuning helps: the two cannot be told apart",
        }[self.verdict]
        text = f"{said} ({numbers}; sign flips, two-sided at {100 * LEVEL:g} %)."
        if self.is_single:
            text += " One training each: how much trainings differ among themselves is not in this interval."
        return text

    def to_dict(self) -> dict[str, Any]:
        """Return ``{verdict, difference, ...}`` for JSON."""
        found = self.comparison
        return {
            "verdict": self.verdict,
            "difference": {
                "mean": found.difference,
                "low": found.low,
                "high": found.high,
                "folds": list(found.folds),
            },
            "comparison": found.to_dict(),
            "single_training": self.is_single,
            "words": self.describe(),
        }
