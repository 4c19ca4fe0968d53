"""TensorBoard's event files of how trainings go."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.errors import MissingExtraError, UsageError
from featx.vision.tuning.history import EpochRow

if TYPE_CHECKING:
    from featx.vision.tuning.epochs import Epoch


class EventFiles:
    """Writes a folder of event files for each part, as ``tensorboard --logdir FOLDER`` reads them.

    The rows of `featx.vision.tuning.history.EpochRow` are scalars by epoch. A resumed run writes what is known again
    and tells TensorBoard to forget what an earlier one wrote, so that each epoch is shown once.

    Parameters
    ----------
    folder : Path
        Made where it is missing; a part's files are in the folder of its name.

    Raises
    ------
    MissingExtraError
        The tensorboard package is not installed.
    UsageError
        The folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("writing TensorBoard's files", "tensorboard") from error
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--tensorboard {folder}: this cannot be a folder ({error.strerror})") from error
        self._make_writer, self._folder = SummaryWriter, folder
        self._writers: dict[str, Any] = {}
        self._n_written: dict[str, int] = {}

    def __call__(self, part: str, epochs: Sequence[Epoch]) -> None:
        """Write the epochs of a part that were not written yet."""
        if part not in self._writers:
            self._writers[part] = self._make_writer(str(self._folder / part), purge_step=0)
        writer = self._writers[part]
        for epoch in epochs[self._n_written.get(part, 0) :]:
            for name, value in dataclasses.asdict(EpochRow.of(part, epoch)).items():
                if name not in ("part", "epoch") and value is not None:
                    writer.add_scalar(name, value, epoch.number)
        writer.flush()
        self._n_written[part] = len(epochs)

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
