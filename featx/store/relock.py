"""Changing what is locked in a finished feature file, and nothing else of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from featx.errors import StoreError, StoreWriteError
from featx.store import disk
from featx.store.file import FeatureFile
from featx.store.locked import LockedSet
from featx.store.merge import Contents, write_feature_file
from featx.store.parts import Parts
from featx.store.stored import Rows


def change_locked(
    path: str | os.PathLike[str], change: Callable[[LockedSet | None], LockedSet], *, digest: str
) -> LockedSet:
    """Write a feature file anew with another account of what is locked; on the disk when this returns.

    Nobody else writes the file meanwhile, so no look is lost when two are made at once; a kill leaves the old file or
    the new one.

    Parameters
    ----------
    path : path-like
    change : callable
        From what is locked now to what shall be.
    digest : str
        Of the file that `change` is meant for.

    Returns
    -------
    LockedSet
        As it was written.

    Raises
    ------
    StoreLockedError
        If another process is writing the file.
    StoreError
        If the file has other contents by now.
    StoreWriteError
        If the file system refuses; the message says whether the file is as it was.
    """
    path = Path(path)
    parts = Parts.take(path)
    state = "the file is as it was"
    try:
        with FeatureFile.open(path) as file:
            if file.digest != digest:
                raise StoreError("the file was changed meanwhile; nothing was written, run the command again",
                                 path=str(path))  # fmt: skip
            locked = change(file.locked())
            write_feature_file(parts.temporary, _contents(file, locked), lambda start, stop: _rows(file, start, stop))
        disk.replace(parts.temporary, path)
        state = "the change is made, but may not outlast a power cut"
        disk.sync_folder(path.parent)
    except StoreError:
        raise
    except OSError as error:
        raise StoreWriteError(
            f"cannot be written ({error.strerror}); {state}", path=str(path), errno=error.errno
        ) from error
    finally:
        parts.release(discard=False)
    return locked


def _contents(file: FeatureFile, locked: LockedSet) -> Contents:
    first = file.logits(np.arange(min(1, file.n_rows)))
    return Contents(
        spec=file.spec,
        request=file.request,
        made_with=file.made_with,
        group_source=file.group_source,
        ledger=file.ledger(),
        meta=file.meta(),
        weights=file.weights(),
        n_logits=0 if first is None else int(first.shape[1]),
        locked=locked,
    )


def _rows(file: FeatureFile, start: int, stop: int) -> Rows:
    """Read the rows of some good samples, by their place in the file's order."""
    rows = np.arange(start * file.spec.n_views, stop * file.spec.n_views)
    return file.features(rows), file.logits(rows)
