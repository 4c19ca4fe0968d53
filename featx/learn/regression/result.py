"""What a regression gives."""

from __future__ import annotations

from featx.learn.result import FitResult


class RegressionResult(FitResult):
    """A fitted regression."""
