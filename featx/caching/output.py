"""Writing a feature file whose rows are known already: its name is looked at before the work."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from featx.caching.listing import PARTS
from featx.errors import StoreError, UsageError
from featx.manifest.record import Manifest
from featx.spec import FeatureSpec
from featx.store import leftovers, parts
from featx.store.locked import LockedSet
from featx.store.records import FeatureBatch, RunReport
from featx.store.run import ExtractionRun

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)`` with samples."""


def check_feature_target(
    output: str | os.PathLike[str], *, inputs: Sequence[str | os.PathLike[str]], replace: bool
) -> Path:
    """Return where a feature file goes; nothing that is there is overwritten without a word.

    Raises
    ------
    UsageError
        If the name is a folder's or an input's, or, without `replace`, if there is such a file or an unfinished run of
        it.
    """
    path, name = Path(output), os.fspath(output)
    if not path.name or path.is_dir():
        raise UsageError(f"-o {name!r} is a folder: name the file, as in {path / 'features.h5'}")
    if path.exists() and any(Path(one).exists() and path.samefile(one) for one in inputs):
        raise UsageError(f"-o {name!r} is one of the inputs; give another -o FILE")
    if not replace and path.exists():
        raise UsageError(f"-o {name!r} is there already; give another -o FILE, or --replace to overwrite it")
    if not replace and parts.pending(path) is not None:
        raise UsageError(
            f"-o {name!r}: {path.name}{PARTS} keeps an unfinished run of that file; give another -o FILE, or --replace "
            "to throw the run away"
        )
    return path


def write_batches(
    target: Path,
    batches: Iterable[FeatureBatch],
    manifest: Manifest,
    spec: FeatureSpec,
    *,
    request: dict[str, Any],
    made_with: dict[str, Any],
    weights: bytes | None = None,
    locked: LockedSet | None = None,
    progress: Progress | None = None,
) -> RunReport:
    """Write a feature file of rows that cost nothing to have again: an interruption leaves nothing behind.

    Parameters
    ----------
    target : Path
        Overwritten.
    batches : iterable of FeatureBatch
        All samples of the manifest, in its order.
    manifest, spec, request, made_with, weights, locked
        As for `featx.store.run.ExtractionRun.open`.
    progress : callable, optional
        See `Progress`.

    Raises
    ------
    StoreError
        If another process writes the file, or the file system refuses.
    """
    run = ExtractionRun.open(
        target,
        manifest=manifest,
        spec=spec,
        request=request,
        made_with=made_with,
        batch_size=1,
        weights=weights,
        replace=True,
        locked=locked,
    )
    try:
        with run:
            done = 0
            for batch in batches:
                run.append(batch)
                done += len(batch.entries)
                if progress is not None:
                    progress(done, len(manifest))
            return run.finish()
    except BaseException:
        with contextlib.suppress(StoreError):
            leftovers.remove_run(target)
        raise
