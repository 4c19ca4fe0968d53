"""What a regression says about samples."""

from __future__ import annotations

from typing import Any

from featx.learn.answers import Answers, Told


class NumberPredictions(Answers):
    """The numbers."""


class NumberWitness:
    """Says which number a sample has."""

    def __init__(self, *arguments: Any) -> None:
        raise NotImplementedError

    def see(self, places: Any, X: Any) -> None:
        """Take features."""

    def conclude(self, told: Told) -> NumberPredictions:
        """Sum up."""
        raise NotImplementedError
