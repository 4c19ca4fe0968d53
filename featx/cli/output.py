"""What a person or a program reads: messages and progress on stderr, results on stdout."""

from __future__ import annotations

import json
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import click

if TYPE_CHECKING:
    from featx.learn.intervals import Interval


class Advance(Protocol):
    """Called as ``advance(done, total)``, with a note where there is something to add."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show how far the work is."""


COLUMNS = 99  # of a line at most, where its words allow it
PLAIN_SECONDS = 5.0  # between two lines of progress where stderr is not a terminal


def say(message: str) -> None:
    """Print a line for a person, to stderr, so that stdout holds results only."""
    click.echo(wrapped(message), err=True)


def say_error(message: str) -> None:
    """Print the one message with which a command fails."""
    click.secho(wrapped(f"error: {message}"), fg="red" if sys.stderr.isatty() else None, err=True)


def say_warning(message: str) -> None:
    """Print something that the user should not overlook."""
    click.secho(wrapped(f"warning: {message}"), fg="yellow" if sys.stderr.isatty() else None, err=True)


def to_type(command: str) -> str:
    """Return a ``featx ...`` command as this user types it: ``bin/featx`` says by FEATX_COMMAND how it was called."""
    return os.environ.get("FEATX_COMMAND", "featx") + command.removeprefix("featx")


def print_json(data: Any) -> None:
    """Print one object to stdout; floats that JSON cannot hold are an error, not ``NaN``."""
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    click.echo(json.dumps(data, indent=2, ensure_ascii=not is_utf8, allow_nan=False))


def print_text(text: str) -> None:
    """Print words to stdout, see `wrapped`."""
    click.echo(wrapped(text))


def wrapped(text: str) -> str:
    """Break lines longer than `COLUMNS` between words; names and paths stay whole, indents are kept."""
    lines = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip(" "))]
        parts = textwrap.wrap(
            line,
            COLUMNS,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        )
        lines += parts if len(line) > COLUMNS else [line]
    return "\n".join(lines)


def printable(text: str) -> str:
    r"""Return a name in one line: a line break in it as ``\n``, other control characters alike."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shorten(name: str, letters: int) -> str:
    """Leave out the middle of a long name: beginning and end tell it from its neighbours."""
    half = (letters - 3) // 2
    return name if len(name) <= letters else f"{name[:half]}...{name[-half:]}"


def range_of(interval: Interval) -> str:
    """Return ``"0.700 to 0.800"``, or ``"-"`` where there is no interval."""
    if interval.low is None or interval.high is None:
        return "-"
    return f"{interval.low:.3f} to {interval.high:.3f}"


def count(number: int, noun: str) -> str:
    """Return ``1 image``, ``2,000 images``, ``2 classes``, ``2 searches``."""
    plural = f"{noun}es" if noun.endswith(("s", "ch")) else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]], *, indent: int = 2) -> None:
    """Print aligned columns to stdout: text to the left, numbers to the right."""
    text = [[_cell(value) for value in row] for row in rows]
    header = [printable(name) for name in header]
    widths = [max(len(line[i]) for line in [header, *text]) for i in range(len(header))]
    numeric = [all(_is_number(row[i]) for row in rows) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        aligned = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(cells, widths, numeric, strict=True)]
        return (" " * indent + "  ".join(aligned)).rstrip()

    click.echo(line(header))
    for cells in text:
        click.echo(line(cells))


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return printable(str(value))


def describe_seconds(seconds: float) -> str:
    """Return a duration as people write it: ``4.2 s``, ``3:07``, ``2:15:00``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def describe_bytes(size: int) -> str:
    """Return a size in the largest binary unit that leaves at least 1."""
    value = float(size)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


@contextmanager
def progress(what: str, unit: str, *, quiet: bool = False) -> Iterator[Advance]:
    """Show work that goes on: a bar with rate and time left on a terminal, plain lines elsewhere."""
    if quiet:
        yield lambda done, total, note="": None
    elif sys.stderr.isatty():
        with _bar(what, unit) as advance:
            yield advance
    else:
        yield _Lines(what, unit)


def downloads(*, quiet: bool = False) -> Callable[[str, int, int | None], None]:
    """Return what shows a download of weights: called with file name, bytes received, bytes in total."""
    lines: dict[str, _Lines] = {}

    def show(name: str, received: int, total: int | None) -> None:
        if not quiet:
            line = lines.setdefault(name, _Lines(f"download {name}", "MB"))
            line(received // 1_000_000, (total or received + 1_000_000) // 1_000_000)

    return show


class _Lines:
    """Progress as plain lines: at most one in `PLAIN_SECONDS`."""

    def __init__(self, what: str, unit: str) -> None:
        self.what, self.unit = what, unit
        self.started = self.printed = time.monotonic()

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if now - self.printed < PLAIN_SECONDS or not 0 < done < total:
            return
        self.printed = now
        rate = done / (now - self.started)
        left = describe_seconds((total - done) / rate)
        more = f"; {note}" if note else ""
        say(f"{self.what}: {done:,} of {total:,} {self.unit}, {rate:.1f} {self.unit}/s, {left} left{more}")


@contextmanager
def _bar(what: str, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Task as RichTask
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: RichTask) -> Text:
            return Text(f"{task.speed:.1f} {unit}/s" if task.speed else f"- {unit}/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), RateColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(what, total=None)

    def advance(done: int, total: int, note: str = "") -> None:
        bar.start()  # with the first news: messages of what comes before stay whole
        bar.update(task, completed=done, total=total, description=f"{what}: {note}" if note else what)
        if done >= total:
            bar.stop()  # one bar at a time: that of the next part comes now

    try:
        yield advance
    finally:
        bar.stop()
