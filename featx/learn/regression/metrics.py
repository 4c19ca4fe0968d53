"""The scores of a regression."""

from __future__ import annotations


def check_scoring(name: str) -> None:
    """Raise where a scoring is not known."""
