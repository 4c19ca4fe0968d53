"""The stage behind ``featx extract``: bring a feature file up to date with its source."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from featx.errors import UsageError
from featx.extract_report import ExtractReport
from featx.manifest import source as sources
from featx.manifest.record import Manifest
from featx.manifest.source import SourceOptions
from featx.spec import FeatureRequest, FeatureSpec
from featx.store import parts
from featx.store.answer import find_answer, own_library, stamp_of
from featx.store.output_names import output_paths
from featx.store.records import OK, FeatureBatch
from featx.store.run import ExtractionRun
from featx.store.work import Work, plan_work
from featx.version import __version__, versions_of
from featx.vision.decode_pool import prepare_workers
from featx.vision.engine import EngineOptions, Job, Notify, check_options, iter_batches

if TYPE_CHECKING:
    from featx.vision.backbones import Backbone
    from featx.vision.multi_device import AnyEmbedder

_DEFAULT_BATCH_SIZE = 32

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


@dataclass
class _Output:
    """One feature file of the pass, from the request to the report."""

    path: Path
    request: FeatureRequest
    stamp: dict[str, Any]
    answer: tuple[FeatureSpec, dict[str, Any]] | None
    backbone: Backbone | None = None
    embedder: AnyEmbedder | None = None
    batch_size: int = 0
    run: ExtractionRun | None = None
    work: Work = field(default_factory=lambda: Work([], []))
    n_computed: int = 0
    n_copied: int = 0
    found: set[str] = field(default_factory=set)

    @property
    def spec(self) -> FeatureSpec:
        """What decides its features."""
        if self.answer is not None:
            return self.answer[0]
        assert self.backbone is not None
        return self.backbone.spec

    def lookup(self, sha256: str) -> Any:
        """See `featx.vision.engine.Lookup`."""
        assert self.run is not None
        rows = self.run.features_of_sha256(sha256)
        if rows is not None:
            self.found.add(sha256)
        return rows

    def append(self, batch: FeatureBatch) -> None:
        """Keep a batch, and count what was computed for it."""
        assert self.run is not None
        good = [entry.sha256 for entry in batch.entries if entry.status == OK]
        n_computed = len(set(good) - self.found)
        self.n_computed += n_computed
        self.n_copied += len(good) - n_computed
        self.run.append(batch)


@overload
def extract(
    source: str | os.PathLike[str] | Manifest | Sequence[Any],
    output: str | os.PathLike[str],
    *,
    request: FeatureRequest = ...,
    source_options: SourceOptions = ...,
    engine: EngineOptions = ...,
    update: UpdateOptions = ...,
    progress: Progress | None = ...,
    on_download: Callable[[str, int, int | None], None] | None = ...,
    notify: Notify | None = ...,
) -> ExtractReport: ...


@overload
def extract(
    source: str | os.PathLike[str] | Manifest | Sequence[Any],
    output: str | os.PathLike[str],
    *,
    request: Sequence[FeatureRequest],
    source_options: SourceOptions = ...,
    engine: EngineOptions = ...,
    update: UpdateOptions = ...,
    progress: Progress | None = ...,
    on_download: Callable[[str, int, int | None], None] | None = ...,
    notify: Notify | None = ...,
) -> list[ExtractReport]: ...


def extract(
    source: str | os.PathLike[str] | Manifest | Sequence[Any],
    output: str | os.PathLike[str],
    *,
    request: FeatureRequest | Sequence[FeatureRequest] = FeatureRequest(),
    source_options: SourceOptions = SourceOptions(),
    engine: EngineOptions = EngineOptions(),
    update: UpdateOptions = UpdateOptions(),
    progress: Progress | None = None,
    on_download: Callable[[str, int, int | None], None] | None = None,
    notify: Notify | None = None,
) -> ExtractReport | list[ExtractReport]:
    """Compute the features of a source's images that a feature file does not hold yet.

    A request that the file answers already is recognised without loading the network. Several requests are answered in
    one pass over the images, each with a file of its own, the same as if it had been asked for alone: an image is read
    and decoded once, and a network runs once for all of its nodes.

    Parameters
    ----------
    source : path, Manifest, or sequence
        A folder, a table or an image; or paths, PIL images and uint8 arrays (height, width[, 3]). With
        labels and groups: ``featx.manifest_of(images, labels=..., groups=...)``.
    output : path
        The feature file; made if it is not there, brought up to date if it is. For several requests a folder, or a
        name with ``{backbone}``, ``{node}`` or ``{weights}`` in it.
    request : FeatureRequest, or sequence of them
        Backbone, weights, node, pooling and precision.
    source_options : SourceOptions
        How a folder or table is read.
    engine : EngineOptions
        Batch size, decoding processes and device: how, never what.
    update : UpdateOptions
        What may happen to stored rows.
    progress : callable, optional
        ``progress(done, total)`` in images.
    on_download : callable, optional
        ``on_download(file name, bytes received, bytes in total or None)``, while weights are fetched.
    notify : callable, optional
        ``notify(sentence)`` tells what the user should know meanwhile; without it, a warning.

    Returns
    -------
    ExtractReport, or list of them
        With every failed sample and its reason. Failures do not raise. A list for a sequence of requests.

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
    check_options(engine)
    many = not isinstance(request, FeatureRequest)
    requests = list(request) if not isinstance(request, FeatureRequest) else [request]
    if not requests:
        raise UsageError("no features are asked for: the list of requests is empty")
    manifest = sources.as_manifest(source, source_options)
    paths = output_paths(source, output, requests, many=many)
    outputs = [_output(path, each, manifest, update) for path, each in zip(paths, requests, strict=True)]
    todo = [each for each in outputs if each.answer is None]
    if todo and engine.engine == "local":
        prepare_workers(manifest, engine)
    _load(todo, manifest, engine, on_download)
    with ExitStack() as stack:
        # In one order whatever the order of the requests: two passes over the same files cannot wait for each other.
        for each in sorted(outputs, key=lambda each: str(each.path)):
            each.run = stack.enter_context(_open(each, manifest, engine, update))
            each.work = plan_work(manifest, each.run.outcomes, rehash=update.rehash)
            for position, size, mtime_ns in each.work.touched:
                each.run.keep(replace(each.run.outcomes.entry(position), bytes=size, mtime_ns=mtime_ns))
        busy = [each for each in outputs if each.work.positions]
        # What an answer had all of a moment ago may be out of date by now.
        _load([each for each in busy if each.backbone is None], manifest, engine, on_download)
        _embed(busy, manifest, engine)  # no network runs as far as a node of which nothing is wanted
        seconds = _compute(busy, manifest, engine, progress, notify) if busy else 0.0
        reports = [_report(each, manifest, engine, seconds) for each in outputs]
    total = round(time.monotonic() - started, 3)
    reports = [replace(report, seconds=total) for report in reports]
    return reports if many else reports[0]


def _output(path: Path, request: FeatureRequest, manifest: Manifest, update: UpdateOptions) -> _Output:
    stamp = stamp_of(request)
    answer = None if update.replace else find_answer(path, stamp, manifest, rehash=update.rehash)
    return _Output(path, request, stamp, answer)


def _load(outputs: Sequence[_Output], manifest: Manifest, engine: EngineOptions, on_download: Any) -> None:
    """Give outputs their networks, those of one network an embedder together, and a batch size."""
    if not outputs:
        return
    from featx.vision import backbones, batch_size

    loaded = backbones.load_backbones([each.request for each in outputs], progress=on_download)
    for each, backbone in zip(outputs, loaded, strict=True):
        each.backbone = backbone
    _embed(outputs, manifest, engine)
    for each in outputs:
        pending = parts.pending(each.path)
        if pending is not None:
            each.batch_size = pending.batch_size
        elif isinstance(engine.batch_size, int):
            each.batch_size = engine.batch_size
        else:
            same = [other.batch_size for other in outputs if other.embedder is each.embedder and other.batch_size]
            assert each.embedder is not None
            each.batch_size = same[0] if same else batch_size.fastest_batch_size(each.embedder)


def _embed(outputs: Sequence[_Output], manifest: Manifest, engine: EngineOptions) -> None:
    """Give outputs of the same network one embedder, for them and no others."""
    groups: dict[int, list[_Output]] = {}
    for each in outputs:
        groups.setdefault(id(each.backbone and each.backbone.network), []).append(each)
    for group in groups.values():
        backbones = [each.backbone for each in group if each.backbone is not None]
        if group[0].embedder is not None and len(group[0].embedder.backbones) == len(backbones):
            continue
        from featx.vision.multi_device import make_embedder

        # The actors of a cluster have embedders of their own: this one only holds the network.
        device, runtime = ("cpu", "torch") if engine.engine == "ray" else (engine.device, engine.runtime)
        embedder = make_embedder(
            backbones[0], also=backbones[1:], device=device, runtime=runtime, n_images=len(manifest)
        )
        for each in group:
            each.embedder = embedder


def _open(output: _Output, manifest: Manifest, engine: EngineOptions, update: UpdateOptions) -> ExtractionRun:
    made_with, blob = output.answer[1] if output.answer is not None else {}, None
    if output.backbone is not None and output.embedder is not None:
        made_with = _made_with(engine, output.embedder, output.batch_size)
        blob = output.backbone.weights_blob() if output.backbone.weights_blob is not None else None
    return ExtractionRun.open(
        output.path,
        manifest=manifest,
        spec=output.spec,
        request=output.stamp,
        made_with=made_with,
        batch_size=output.batch_size or _DEFAULT_BATCH_SIZE,
        weights=blob,
        replace=update.replace,
    )


def _compute(
    outputs: Sequence[_Output],
    manifest: Manifest,
    engine: EngineOptions,
    progress: Progress | None,
    notify: Notify | None,
) -> float:
    """Compute what outputs lack in one pass over the images; returns the seconds that it took."""
    started = time.monotonic()
    jobs = [_job(each) for each in outputs]
    n_images = len(set().union(*(job.positions for job in jobs)))
    n_done, n_all = 0, sum(len(job.positions) for job in jobs)
    if progress is not None:
        progress(0, n_images)
    for index, batch in iter_batches(manifest, jobs, engine, notify=notify):
        outputs[index].append(batch)
        n_done += len(batch.entries)
        if progress is not None:
            progress(n_images * n_done // n_all, n_images)
    return time.monotonic() - started


def _job(output: _Output) -> Job:
    assert output.embedder is not None
    assert output.run is not None
    place = next(i for i, backbone in enumerate(output.embedder.backbones) if backbone is output.backbone)
    return Job(output.embedder, output.work.positions, output.lookup, output.run.batch_size, place)


def _report(output: _Output, manifest: Manifest, engine: EngineOptions, seconds: float) -> ExtractReport:
    """Finish a feature file and account for it; `seconds` are those of the computing."""
    run = output.run
    assert run is not None
    outcome = run.finish()
    embedder = output.embedder if output.work.positions else None
    failed = map(run.outcomes.entry, np.flatnonzero(~run.outcomes.column("is_ok")).tolist())
    return ExtractReport(
        path=str(output.path),
        fingerprint=output.spec.fingerprint,
        backbone=output.spec.backbone,
        node=output.spec.node,
        device=embedder.device if embedder is not None else "",
        numerics=_numerics(engine, embedder) if embedder is not None else "",
        samples=outcome.n_samples,
        rows=outcome.n_rows,
        n_features=output.spec.n_features,
        computed=output.n_computed,
        copied=output.n_copied,
        unchanged=len(manifest) - len(output.work.positions),
        vanished=outcome.n_vanished,
        seconds=seconds,
        rate=round(output.n_computed / seconds, 1) if output.n_computed else None,
        failures={entry.key: entry.reason for entry in failed},
        locked=outcome.n_locked,
        bfloat16_gain=_bfloat16_gain(output) if output.n_computed else None,
    )


def _numerics(engine: EngineOptions, embedder: AnyEmbedder) -> str:
    """Return the arithmetic in words; of actors, which have devices of their own, no more than the spec says."""
    return embedder.backbone.spec.dtype if engine.engine == "ray" else embedder.numerics


def _bfloat16_gain(output: _Output) -> float | None:
    from featx.vision.precision import bfloat16_gain

    assert output.embedder is not None
    exact = output.spec.dtype == "float32"
    return bfloat16_gain(output.spec.backbone, output.embedder.device) if exact else None


def _made_with(engine: EngineOptions, embedder: AnyEmbedder, batch_size: int) -> dict[str, Any]:
    """Return the versions and settings that do not decide the numbers, for the record."""
    backbone = embedder.backbone.spec.backbone
    return {
        "featx": __version__,
        "python": platform.python_version(),
        **versions_of(("torch", "torchvision", "numpy", "pillow", "h5py", *own_library(backbone))),
        "engine": engine.engine,
        "runtime": embedder.runtime if engine.runtime == "auto" else engine.runtime,
        "device": engine.device if engine.engine == "ray" else embedder.device,
        "numerics": _numerics(engine, embedder),
        "batch_size": batch_size,
    }
