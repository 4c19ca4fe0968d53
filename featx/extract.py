"""The stage behind ``featx extract``: bring a feature file up to date with its source."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import ImageDecodeError, UsageError
from featx.manifest import source as sources
from featx.manifest.record import Manifest
from featx.manifest.source import SourceOptions
from featx.spec import TIMM, FeatureRequest, FeatureSpec, is_own_code
from featx.store import parts
from featx.store.file import FeatureFile
from featx.store.outcomes import Outcomes
from featx.store.records import OK, REASONS, LedgerEntry
from featx.store.run import ExtractionRun
from featx.store.stored import FILE
from featx.version import __version__
from featx.vision.engine import EngineOptions, Job, iter_batches

if TYPE_CHECKING:
    from featx.vision.backbones import Backbone

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)`` with images of this run."""


@dataclass(frozen=True)
class UpdateOptions:
    """What may happen to what is stored already.

    Attributes
    ----------
    replace : bool
        Overwrite a file of another spec, or one most of whose keys would vanish.
    rehash : bool
        Hash every file again, also those whose size and modification time did not change.
    """

    replace: bool = False
    rehash: bool = False


@dataclass(frozen=True)
class ExtractReport:
    """The account of one run.

    Attributes
    ----------
    path, fingerprint, backbone, device : str
        The file, its spec's fingerprint, and what made it; device is ``""`` where nothing was computed.
    samples, rows, n_features : int
        Of the finished file.
    computed, copied, unchanged, vanished : int
        Samples computed in this run, copied from identical bytes, left as they were, and dropped
        because the source no longer has them.
    failures : dict of str to str
        Key to reason, of every failed sample in the file.
    seconds : float
        Of the whole stage.
    rate : float or None
        Images per second of the computing alone; None where nothing was computed.
    """

    path: str
    fingerprint: str
    backbone: str
    device: str
    samples: int
    rows: int
    n_features: int
    computed: int
    copied: int
    unchanged: int
    vanished: int
    seconds: float
    rate: float | None
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def failures_by_reason(self) -> dict[str, int]:
        """Count the failures by the code before the colon."""
        return dict(Counter(reason.partition(":")[0] for reason in self.failures.values()))

    @staticmethod
    def meaning(reason: str) -> str:
        """Return a reason's code in words."""
        return REASONS.get(reason, "")

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready builtins."""
        counts = {"failed": len(self.failures), "failures_by_reason": self.failures_by_reason}
        return {**asdict(self), **counts}


@dataclass
class _Work:
    """What a run has to do: positions to compute, and those whose entry stays under a new size and time."""

    positions: list[int]
    touched: list[tuple[int, int, int]]


@dataclass
class _Tally:
    """What the computing loop did."""

    computed: int = 0
    copied: int = 0
    seconds: float = 0.0


def extract(
    source: str | os.PathLike[str] | Manifest | Sequence[Any],
    output: str | os.PathLike[str],
    *,
    request: FeatureRequest = FeatureRequest(),
    source_options: SourceOptions = SourceOptions(),
    engine: EngineOptions = EngineOptions(),
    update: UpdateOptions = UpdateOptions(),
    progress: Progress | None = None,
    on_download: Callable[[str, int, int | None], None] | None = None,
) -> ExtractReport:
    """Compute the features of a source's images that a feature file does not hold yet.

    A request that the file answers already is recognised without loading the network.

    Parameters
    ----------
    source : path, Manifest, or sequence
        A folder, a table or an image; or paths, PIL images and uint8 arrays (height, width[, 3]). With
        labels and groups: ``featx.manifest_of(images, labels=..., groups=...)``.
    output : path
        The feature file; made if it is not there, brought up to date if it is.
    request : FeatureRequest
        Backbone, weights, node, pooling and precision.
    source_options : SourceOptions
        How a folder or table is read.
    engine : EngineOptions
        Batch size, decode threads and device: how, never what.
    update : UpdateOptions
        What may happen to stored rows.
    progress : callable, optional
        ``progress(done, total)`` in images.
    on_download : callable, optional
        ``on_download(file name, bytes received, bytes in total or None)``, while weights are fetched.

    Returns
    -------
    ExtractReport
        With every failed sample and its reason. Failures do not raise.

    Raises
    ------
    ManifestError, UsageError
        If the source, the output's name or an option is not usable.
    WeightsError
        If the weights cannot be had.
    StoreError
        If the file was made by another spec, is locked, damaged or cannot be written.
    """
    started = time.monotonic()
    manifest = sources.as_manifest(source, source_options)
    path = _target(source, output)
    stamp = _stamp(request)
    answer = None if update.replace else _answer(path, stamp, manifest, update.rehash)
    backbone, blob = None, None
    if answer is not None:
        spec, made_with = answer
    else:
        backbone = _load(request, on_download)
        spec, made_with = backbone.spec, _made_with(request.backbone, engine)
        blob = backbone.weights_blob() if backbone.weights_blob is not None else None
    with ExtractionRun.open(
        path,
        manifest=manifest,
        spec=spec,
        request=stamp,
        made_with=made_with,
        batch_size=engine.batch_size if isinstance(engine.batch_size, int) else 32,
        weights=blob,
        replace=update.replace,
    ) as run:
        work = _plan(manifest, run.outcomes, update.rehash)
        for position, size, mtime_ns in work.touched:
            run.keep(replace(run.outcomes.entry(position), bytes=size, mtime_ns=mtime_ns))
        device, tally = "", _Tally()
        if work.positions:
            device, tally = _compute(
                run, manifest, work.positions, backbone or _load(request, on_download), engine, progress
            )
        outcome = run.finish()
        failed = map(run.outcomes.entry, np.flatnonzero(~run.outcomes.column("is_ok")).tolist())
        failures = {entry.key: entry.reason for entry in failed}
    return ExtractReport(
        path=str(path),
        fingerprint=spec.fingerprint,
        backbone=spec.backbone,
        device=device,
        samples=outcome.n_samples,
        rows=outcome.n_rows,
        n_features=spec.n_features,
        computed=tally.computed,
        copied=tally.copied,
        unchanged=len(manifest) - len(work.positions),
        vanished=outcome.n_vanished,
        seconds=round(time.monotonic() - started, 3),
        rate=round(tally.computed / tally.seconds, 1) if tally.computed else None,
        failures=failures,
    )


def _target(source: Any, output: str | os.PathLike[str]) -> Path:
    """Return where the features go; whatever the user allows to be replaced, it is not the source."""
    path = Path(output)
    if not path.name or path.is_dir():
        raise UsageError(f"-o {os.fspath(output)!r} is a folder: name the file, as in {path / 'features.h5'}")
    is_path = isinstance(source, str | os.PathLike)
    if is_path and path.exists() and Path(source).exists() and path.samefile(source):
        raise UsageError(f"-o {os.fspath(output)!r} is SOURCE itself; give another -o FILE")
    return path


def _load(request: FeatureRequest, on_download: Any) -> Backbone:
    from featx.vision import backbones

    return backbones.load_backbone(request, progress=on_download)


def _plan(manifest: Manifest, outcomes: Outcomes, rehash: bool) -> _Work:
    """Compare each sample with its entry: same size and time is unchanged, everything else is hashed."""
    known = np.flatnonzero(outcomes.is_known)
    stats = sources.stat_all(manifest, known.tolist())
    is_same = (stats[:, 0] == outcomes.column("bytes")[known]) & (stats[:, 1] == outcomes.column("mtime_ns")[known])
    if rehash:
        is_same[:] = False
    elif manifest.arrays is not None or manifest.refused:  # of which size and time say nothing
        is_file = [bool(manifest.paths[position]) and position not in manifest.refused for position in known.tolist()]
        is_same &= np.array(is_file, bool)
    is_todo = ~outcomes.is_known
    touched = []
    for position, (size, mtime_ns) in zip(known[~is_same].tolist(), stats[~is_same].tolist(), strict=True):
        entry = outcomes.entry(position)
        if size < 0 or position in manifest.refused:
            is_todo[position] = entry.status == OK or bool(entry.sha256)  # it was a file, and is none now
        elif not _same_bytes(manifest, position, entry):
            is_todo[position] = True
        elif manifest.paths[position]:
            touched.append((position, size, mtime_ns))
    return _Work(np.flatnonzero(is_todo).tolist(), touched)


def _same_bytes(manifest: Manifest, position: int, entry: LedgerEntry) -> bool:
    if not entry.sha256:
        return False  # never read, so never the same
    try:
        return sources.sample_sha256(manifest, position) == entry.sha256
    except ImageDecodeError:
        return False


def _compute(
    run: ExtractionRun,
    manifest: Manifest,
    positions: list[int],
    backbone: Backbone,
    engine: EngineOptions,
    progress: Progress | None,
) -> tuple[str, _Tally]:
    from featx.vision.embed import Embedder

    embedder = Embedder(backbone, device=engine.device)
    tally, found = _Tally(), set[str]()
    started, done = time.monotonic(), 0

    def lookup(sha256: str) -> Any:
        row = run.features_of_sha256(sha256)
        if row is not None:
            found.add(sha256)
        return row

    if progress is not None:
        progress(0, len(positions))
    engine = replace(engine, batch_size=run.batch_size)
    for _, batch in iter_batches(manifest, [Job(embedder, positions, lookup)], engine):
        good = [entry.sha256 for entry in batch.entries if entry.status == OK]
        n_computed = len(set(good) - found)
        tally.computed += n_computed
        tally.copied += len(good) - n_computed
        run.append(batch)
        done += len(batch.entries)
        if progress is not None:
            progress(done, len(positions))
    tally.seconds = time.monotonic() - started
    return embedder.device, tally


def _answer(
    path: Path, stamp: dict[str, Any], manifest: Manifest, rehash: bool
) -> tuple[FeatureSpec, dict[str, Any]] | None:
    """Return spec and ``made_with`` of the file if it answers the request already; None: the network is needed.

    Looked up without the lock, so that a network is loaded before the lock is taken.
    """
    if "unknown" in stamp or not path.exists() or parts.pending(path) is not None:
        return None
    with FeatureFile.open(path) as file:
        if file.request != stamp:
            return None
        outcomes = Outcomes(manifest.keys)
        outcomes.add(FILE, file.accounts(manifest.keys))
        return None if _plan(manifest, outcomes, rehash).positions else (file.spec, file.made_with)


def _stamp(request: FeatureRequest) -> dict[str, Any]:
    """Return the request with what could make the same words mean something else.

    Holds ``unknown`` where only loading the network tells: a user's own function may give another one today.
    """
    stamp: dict[str, Any] = json.loads(json.dumps(asdict(request)))  # as it is when it has been stored
    if is_own_code(request.backbone):
        return {**stamp, "unknown": "own code"}
    stamp |= _versions(("torch", "torchvision", *_own_library(request.backbone)))
    weights = Path(request.weights)
    if weights.is_file():
        found = weights.stat()
        stamp["file"] = [str(weights.resolve()), found.st_size, found.st_mtime_ns]
    return stamp


def _made_with(backbone: str, engine: EngineOptions) -> dict[str, Any]:
    """Return the versions and settings that do not decide the numbers, for the record."""
    versions = _versions(("torch", "torchvision", "numpy", "pillow", "h5py", *_own_library(backbone)))
    return {
        "featx": __version__,
        "python": platform.python_version(),
        **versions,
        "runtime": "torch",
        "batch_size": engine.batch_size,
    }


def _own_library(backbone: str) -> tuple[str, ...]:
    """Return the library that a backbone comes from, beside torchvision."""
    return ("timm",) if backbone.startswith(TIMM) else ()


def _versions(libraries: Iterable[str]) -> dict[str, str]:
    """Return the versions of those that are installed; one that is missing is an error once it is needed."""
    versions = {}
    for library in libraries:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[library] = importlib.metadata.version(library)
    return versions
