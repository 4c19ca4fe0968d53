"""How the leak guard looks on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx.cli import output

if TYPE_CHECKING:
    from featx.learn.leaks import Leaks


def print_leaks(leaks: Leaks) -> None:
    """Print what was looked for and found; what is alarming has been said as a warning."""
    near = leaks.near
    found = output.count(len(near), "pair") if len(near) else "none"
    kept = ", kept in one group" if leaks.grouped and len(near) else ""
    output.print_text(f"\nnear-duplicates in the features: {found}{kept}\n  near: {near.rule}")
    if leaks.gap is not None:
        output.print_text(
            f"leak gap: {leaks.gap.describe()}, balanced accuracy of {leaks.gap.first:.3f} if all groups were ignored, "
            f"{leaks.gap.second:.3f} with them\n  interval: {leaks.gap.difference.method}"
        )
