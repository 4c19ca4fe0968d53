"""How the results of a regression look on a terminal: at most 100 columns, most important first."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featx.learn.regression.predictions import NumberPredictions
    from featx.learn.regression.result import RegressionResult


def print_fit(result: RegressionResult) -> None:
    """Print the account of ``featx fit --task regression``."""
    raise NotImplementedError


def print_predictions(predictions: NumberPredictions, target: str | None) -> None:
    """Print how many images got a prediction, which failed, and the scores where labels are known."""
    raise NotImplementedError


def say_predictions(predictions: NumberPredictions) -> None:
    """Say on stderr what a CSV on stdout does not."""
    raise NotImplementedError
