"""How trainings went: a row for each epoch of each part, in JSON lines and in CSV, written as they go on."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.errors import InputError, StoreWriteError
from featx.store import disk

if TYPE_CHECKING:
    from featx.vision.tuning.epochs import Epoch

Recorder = Callable[[str, "Sequence[Epoch]"], None]
"""Is told a part's name and all its epochs so far, after each of them."""
LINES, TABLE = "history.jsonl", "history.csv"


@dataclass(frozen=True)
class EpochRow:
    """One epoch of one part.

    Attributes
    ----------
    part : str
    epoch : int
        From 1; 0 is the start.
    loss, validation : float or None
    lr : float
        Of the last step.
    distance : float
        Of the backbone's weights from their start.
    images_per_second : float or None
    """

    part: str
    epoch: int
    loss: float | None
    validation: float | None
    lr: float
    distance: float
    images_per_second: float | None

    @classmethod
    def of(cls, part: str, epoch: Epoch) -> EpochRow:
        """Say of which part an epoch is."""
        values = asdict(epoch)
        return cls(part=part, epoch=values.pop("number"), **values)


class HistoryFiles:
    """Keeps `LINES` and `TABLE` in a folder; both are always whole, and hold each epoch once.

    Parameters
    ----------
    folder : Path
    keep : bool
        Whether to go on with the rows that are there: a resumed run. Else they make way with the first record.

    Raises
    ------
    InputError
        The rows that are there cannot be read.
    """

    def __init__(self, folder: Path, *, keep: bool = False) -> None:
        self._folder = folder
        lines = folder / LINES
        self._rows = read_history(lines) if keep and lines.exists() else []

    def __call__(self, part: str, epochs: Sequence[Epoch]) -> None:
        """Write a part's epochs, in place of those that were known of it.

        Raises
        ------
        StoreWriteError
        """
        new = [EpochRow.of(part, epoch) for epoch in epochs]
        place = next((i for i, row in enumerate(self._rows) if row.part == part), len(self._rows))
        others = [row for row in self._rows if row.part != part]
        self._rows = [*others[:place], *new, *others[place:]]
        for name, text in ((LINES, _as_lines(self._rows)), (TABLE, _as_table(self._rows))):
            path = self._folder / name
            try:
                disk.write_whole(path, text.encode())
            except OSError as error:
                message = f"{path}: the history cannot be written ({error.strerror})"
                raise StoreWriteError(message, path=str(path), errno=error.errno) from error


def read_history(path: Path) -> list[EpochRow]:
    """Read the rows of a `LINES` file.

    Raises
    ------
    InputError
        The file cannot be read, or a line is none of its rows; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error})") from error
    return [_read_row(line, f"{path}, line {number}") for number, line in enumerate(text.splitlines(), 1)]


def _read_row(line: str, where: str) -> EpochRow:
    try:
        values: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error})") from error
    names = {field.name for field in fields(EpochRow)}
    if not isinstance(values, dict) or values.keys() != names:
        raise InputError(f"{where}: expected an object with {', '.join(sorted(names))}")
    return EpochRow(**values)


def _as_lines(rows: Sequence[EpochRow]) -> str:
    return "".join(json.dumps(asdict(row)) + "\n" for row in rows)


def _as_table(rows: Sequence[EpochRow]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [field.name for field in fields(EpochRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return buffer.getvalue()
