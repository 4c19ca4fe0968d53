"""How ``featx cache`` prints what it found."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from featx.cli import output

if TYPE_CHECKING:
    from featx.caching.listing import CacheItem
    from featx.caching.pruning import PrunePlan
    from featx.caching.verification import VerifyReport

MOST_NAMES = 10  # of failed rows and the like; the rest is counted

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
"""Of time spans, in seconds."""


def print_items(items: Sequence[CacheItem]) -> None:
    """Print the contents of a folder as a table, and what is damaged in words below."""
    header = ["path", "backbone", "node", "spec", "rows", "failed", "size", "age", "state"]
    output.print_table(header, [_cells(item) for item in items])
    total = output.describe_bytes(sum(item.bytes for item in items))
    click.echo(f"{output.count(len(items), 'item')}, {total}")
    for item in items:
        if item.is_damaged:
            output.print_text(f"  {output.printable(item.path)}: {item.state}")


def _cells(item: CacheItem) -> tuple[Any, ...]:
    state = "damaged" if item.is_damaged else item.state
    age = _age(max(0.0, time.time() - item.modified))
    size = output.describe_bytes(item.bytes)
    spec = item.fingerprint[:8]
    return item.path, item.backbone or "-", item.node or "-", spec or "-", item.rows, item.failed, size, age, state


def _age(seconds: float) -> str:
    """Return a time span in the largest unit that leaves at least 1: ``3 d``."""
    for unit in ("w", "d", "h", "m"):
        if seconds >= UNITS[unit]:
            return f"{int(seconds // UNITS[unit])} {unit}"
    return f"{int(seconds)} s"


def print_verified(report: VerifyReport) -> None:
    """Print what was found in one file."""
    what = f"{output.count(report.samples, 'sample')}, {output.count(report.rows, 'row')}"
    click.echo(f"{report.path}: {'good' if report.is_good else 'NOT as it was written'}, {what}")
    for problem in report.problems:
        output.print_text(f"  {output.printable(problem)}")
    check = report.sample
    if check is not None:
        output.print_text(
            f"  {output.count(check.compared, 'sample')} computed again: largest deviation {check.worst_deviation:.2g} "
            f"standard deviations ({output.printable(check.worst_key)}), lowest cosine {check.lowest_cosine:.7f}; "
            f"allowed {check.tolerance.deviation:g} and {check.tolerance.cosine:g} ({check.tolerance.why})"
        )
    for note in report.notes:
        output.print_text(f"  {output.printable(note)}")


def print_plan(plan: PrunePlan) -> None:
    """Print what would go, and what stays although it looks unused."""
    going = plan.going
    if going:
        rows = [(one.path, output.describe_bytes(one.bytes), one.why) for one in going]
        output.print_table(["would go", "size", "why"], rows)
        click.echo(f"{output.count(len(going), 'item')}, {output.describe_bytes(plan.bytes)}")
    else:
        click.echo("nothing to remove")
    for path, why in plan.staying.items():
        output.print_text(f"  {output.printable(path)} stays: {why}")


def print_some(lines: Iterable[str]) -> None:
    """Print the first lines, and count the rest."""
    every = list(lines)
    for line in every[:MOST_NAMES]:
        output.print_text(f"    {output.printable(line)}")
    if len(every) > MOST_NAMES:
        click.echo(f"    ... and {len(every) - MOST_NAMES:,} more: --json lists all")


def say_notes(notes: Sequence[str]) -> None:
    """Print what is worth a word."""
    for note in notes:
        output.print_text(f"  {output.printable(note)}")
