"""A training that can go on where it was: one file, replaced whole after each epoch."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from featx.errors import InputError, StoreWriteError
from featx.store import disk
from featx.vision.tuning.ranks import Ranks

_FORMAT = 1
_SPARE = 64 * 2**20


@dataclass(frozen=True)
class Checkpoint:
    """Where a training keeps its state.

    Attributes
    ----------
    path : Path
    identity : mapping
        Everything that decides the training, JSON-ready: another one's state is refused.
    """

    path: Path
    identity: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the identity."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    def check_space(self, n_bytes: int, *, besides: int = 0) -> None:
        """Raise before a training begins that could not be kept.

        Parameters
        ----------
        n_bytes : int
            Of one state; while it is replaced there are two.
        besides : int
            What else will be kept in the folder.

        Raises
        ------
        StoreWriteError
        """
        folder = self.path.parent
        free = shutil.disk_usage(folder).free
        needed = 2 * n_bytes + besides + _SPARE
        if free < needed:
            raise StoreWriteError(
                f"{folder} has {free / 2**20:,.0f} MiB left, and checkpoints of this training need "
                f"{needed / 2**20:,.0f}; make room, or write elsewhere",
                path=str(self.path),
            )

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a state, all of it or nothing; of several processes that train together the first one does.

        Raises
        ------
        StoreWriteError
            If the file system refuses.
        """
        if not Ranks.here().is_first:
            return
        buffer = io.BytesIO()
        torch.save({"format": _FORMAT, "fingerprint": self.fingerprint, "state": dict(state)}, buffer)
        try:
            disk.write_whole(self.path, buffer.getbuffer())
        except OSError as error:
            raise StoreWriteError(
                f"{self.path}: the checkpoint cannot be written ({error.strerror})",
                path=str(self.path),
                errno=error.errno,
            ) from error

    def load(self) -> dict[str, Any] | None:
        """Return the last state that was written; None: there is none.

        Raises
        ------
        InputError
            If the file is damaged, or of another training.
        """
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{self.path} is not a checkpoint, or damaged ({error}); remove it to begin anew"
            ) from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise InputError(f"{self.path} is not a checkpoint of this version; remove it to begin anew")
        if content["fingerprint"] != self.fingerprint:
            raise InputError(
                f"{self.path} is a checkpoint of another training (other images, start, options or folds); give the "
                "same options again, or remove it to begin anew"
            )
        return dict(content["state"])

    def remove(self) -> None:
        """Remove the file, if it is there."""
        self.path.unlink(missing_ok=True)
