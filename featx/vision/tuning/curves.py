"""A picture of how trainings went: loss and validation score by epoch, a line for each part."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from featx.errors import MissingExtraError, StoreWriteError, UsageError
from featx.store import disk
from featx.vision.tuning.history import EpochRow

SUFFIXES = (".png", ".svg")


def check_curves(path: Path) -> None:
    """Raise before a long run what `draw_curves` would raise after it.

    Raises
    ------
    UsageError
        The suffix is none of `SUFFIXES`, or the folder is not there.
    MissingExtraError
        matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--curves {path}: expected a name that ends in {' or '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise UsageError(f"--curves {path}: there is no folder {path.parent}; make it first")
    _library()


def draw_curves(
    rows: Sequence[EpochRow],
    path: Path,
    *,
    score: str = "validation score",
    taken: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Draw loss and validation score by epoch.

    Parameters
    ----------
    rows : sequence of EpochRow
    path : Path
        ``.png`` or ``.svg``. The same rows give the same bytes.
    score : str
        What the validation score is called.
    taken : mapping of str to int
        The epoch that was taken of each part: is marked. Rows alone do not tell, as ties go by a second score.

    Raises
    ------
    UsageError, MissingExtraError
        As `check_curves`.
    StoreWriteError
    """
    check_curves(path)
    matplotlib = _library()
    form = path.suffix.lower().removeprefix(".")
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "featx"}):
        metadata: dict[str, str | None] = {"Date": None} if form == "svg" else {"Software": None}
        _figure(rows, score, taken).savefig(buffer, format=form, dpi=150, metadata=metadata)
    try:
        disk.write_whole(path, buffer.getbuffer())
    except OSError as error:
        message = f"{path}: the curves cannot be written ({error.strerror})"
        raise StoreWriteError(message, path=str(path), errno=error.errno) from error


def _library() -> Any:
    try:
        import matplotlib.figure
    except ImportError as error:
        raise MissingExtraError("a picture of the curves", "report") from error
    return matplotlib


def _figure(rows: Sequence[EpochRow], score: str, taken: Mapping[str, int]) -> Any:
    figure = _library().figure.Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    parts = list(dict.fromkeys(row.part for row in rows))
    for number, part in enumerate(parts):
        own, colour = [row for row in rows if row.part == part], f"C{number % 10}"
        losses = [(row.epoch, row.loss) for row in own if row.loss is not None]
        scores = [(row.epoch, row.validation) for row in own if row.validation is not None]
        left.plot(*_columns(losses), color=colour, marker=".", label=part)
        right.plot(*_columns(scores), color=colour, marker=".", label=part)
        marked = [(epoch, value) for epoch, value in scores if epoch == taken.get(part)]
        right.plot(*_columns(marked), color=colour, marker="o", markersize=8, fillstyle="none", linestyle="none")
    for axes, name in ((left, "training loss"), (right, score)):
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    if parts:
        right.legend(title="part; circle: taken" if taken else "part", fontsize="small")
    return figure


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [epoch for epoch, _ in points], [value for _, value in points]
