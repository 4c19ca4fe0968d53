"""The heads of a regression."""

from __future__ import annotations

from featx.errors import UnknownNameError


def find_head(name: str) -> None:
    """Return the head of a name."""
    if name != "ridge":
        raise UnknownNameError("head for --task regression", name, ["ridge"])
