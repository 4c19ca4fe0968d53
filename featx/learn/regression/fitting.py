"""How a regression is fitted."""

from __future__ import annotations

from typing import Any

from featx.learn.regression.result import RegressionResult


def fit_numbers(*arguments: Any, **options: Any) -> RegressionResult:
    """Train and cross-validate heads on numbers."""
    raise NotImplementedError
