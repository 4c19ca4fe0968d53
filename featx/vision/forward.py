"""From the pixels of a batch to its rows: each content is computed once, and what is not finite is a failure."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featx.errors import DeviceMemoryError
from featx.store.records import FAILED, OK, FeatureBatch, LedgerEntry

if TYPE_CHECKING:
    from featx.vision.embed import Pending
    from featx.vision.engine import Job, Notify, Row
    from featx.vision.multi_device import AnyEmbedder
    from featx.vision.pixels import Outcome

Pixels = NDArray[np.uint8]
Submit = Callable[[list[Pixels]], "Pending"]
"""Hands pixels of one size, or whole images, to an embedder."""


class Forward:
    """Computes the batches of several jobs; those that share an embedder share its passes over the same contents.

    Parameters
    ----------
    jobs : sequence of Job
        Their networks, and what they know already.
    notify : callable
        See `featx.vision.engine.Notify`.
    whole : sequence of bool
        Of which jobs the images come whole, for the device to resize.
    """

    def __init__(self, jobs: Sequence[Job], notify: Notify, *, whole: Sequence[bool]) -> None:
        self._jobs = jobs
        self._whole = {id(job.embedder): is_whole for job, is_whole in zip(jobs, whole, strict=True)}
        self._limits = {id(job.embedder): _Limit(notify) for job in jobs}
        self._last: dict[int, _Passes] = {}

    def begin(self, index: int, outcomes: Sequence[Outcome], before: Iterable[Flight]) -> Flight:
        """Begin with one batch.

        Parameters
        ----------
        index : int
            Of its job.
        outcomes : sequence of Outcome
            Its samples.
        before : iterable of Flight
            Batches of the same job that have begun and not ended.
        """
        job = self._jobs[index]
        flight = Flight(index, job, [outcome.entry for outcome in outcomes])
        new: dict[str, Pixels] = {}
        for outcome in outcomes:
            sha256 = outcome.entry.sha256
            if outcome.pixels is None or sha256 in flight.rows or sha256 in flight.earlier or sha256 in new:
                continue
            known = job.lookup(sha256) if job.lookup is not None else None
            if known is not None:
                flight.rows[sha256] = known
                continue
            under_way = next((other for other in before if sha256 in other.new), None)
            if under_way is not None:
                flight.earlier[sha256] = under_way
            else:
                new[sha256] = outcome.pixels
        if new:
            flight.new = tuple(new)
            flight.passes = self._passes(job, flight.new, list(new.values()))
        return flight

    def _passes(self, job: Job, hashes: tuple[str, ...], pixels: list[Pixels]) -> _Passes:
        embedder = job.embedder
        last = self._last.get(id(embedder))
        if last is None or last.hashes != hashes:
            n_views = job.spec.n_views
            submit = _submit_whole if self._whole[id(embedder)] else _submit
            begin = functools.partial(submit, embedder)
            last = self._last[id(embedder)] = _Passes(begin, hashes, pixels, n_views, self._limits[id(embedder)])
        return last


@dataclass(eq=False)
class Flight:
    """A batch that is being computed.

    Attributes
    ----------
    index : int
        Of its job.
    job : Job
        The same.
    entries : list of LedgerEntry
        Of its samples.
    rows : dict of str to Row
        By SHA-256, what is known of them.
    new : tuple of str
        Contents that this batch computes.
    earlier : dict of str to Flight
        Contents that another batch computes, which ends before.
    """

    index: int
    job: Job
    entries: list[LedgerEntry]
    rows: dict[str, Row] = field(default_factory=dict)
    new: tuple[str, ...] = ()
    earlier: dict[str, Flight] = field(default_factory=dict)
    passes: _Passes | None = None

    def end(self) -> FeatureBatch:
        """Wait for the rows, and return the batch: a row for each view of each good sample, or a failure."""
        for sha256, other in self.earlier.items():
            self.rows[sha256] = other.rows[sha256]
        if self.passes is not None:
            features, logits = self.passes.result(self.job.output)
            for i, sha256 in enumerate(self.new):
                self.rows[sha256] = features[i], None if logits is None else logits[i]
        self.earlier, self.passes = {}, None
        return self._batch()

    def cancel(self) -> None:
        """Leave what has not begun."""
        if self.passes is not None:
            self.passes.cancel()

    def _batch(self) -> FeatureBatch:
        spec, rows = self.job.spec, self.rows
        with np.errstate(over="ignore"):  # beyond float16's range is infinite, and that is a failure with a name
            stored = {sha256: row[0].reshape(spec.n_views, -1).astype(spec.storage) for sha256, row in rows.items()}
        good = {sha256 for sha256, row in rows.items() if _finite(stored[sha256], row[1])}
        entries = [
            replace(entry, status=FAILED, reason="not-finite")
            if entry.status == OK and entry.sha256 not in good
            else entry
            for entry in self.entries
        ]
        hashes = [entry.sha256 for entry in entries if entry.status == OK]
        features = np.zeros((len(hashes), spec.n_views, spec.n_features), spec.storage)
        for i, sha256 in enumerate(hashes):
            features[i] = stored[sha256]
        matrix = features.reshape(-1, spec.n_features)
        if not spec.logits:
            return FeatureBatch(entries, matrix)
        n_classes = self.job.embedder.backbone.n_classes or 0
        logits = np.zeros((len(hashes), spec.n_views, n_classes), np.float32)
        for i, sha256 in enumerate(hashes):
            scores = rows[sha256][1]
            assert scores is not None
            logits[i] = scores.reshape(spec.n_views, -1)
        return FeatureBatch(entries, matrix, logits.reshape(-1, n_classes))


class _Limit:
    """How many images an embedder may take at once: as many as there are, until its memory does not suffice."""

    def __init__(self, notify: Notify) -> None:
        self._size: int | None = None
        self._notify = notify

    def parts(self, pixels: list[Pixels]) -> list[list[Pixels]]:
        size = self._size or len(pixels)
        return [pixels[start : start + size] for start in range(0, len(pixels), size)]

    def halve(self, error: DeviceMemoryError) -> None:
        """Take half of what was too much from now on; the error goes on where that was one image."""
        if error.batch <= 1:
            raise error
        size = error.batch // 2
        if self._size is None or size < self._size:
            self._size = size
            self._notify(
                f"device {error.device} has too little memory for {error.batch} images at once: "
                f"from here on {size} in one forward pass"
            )


class _Passes:
    """The forward passes over the contents of a batch, one for each view.

    The pass over the plain view is that of a spec without views, so that its rows are the same to the last bit.
    """

    def __init__(
        self, submit: Submit, hashes: tuple[str, ...], pixels: list[Pixels], n_views: int, limit: _Limit
    ) -> None:
        self.hashes = hashes
        self._views = [_Pass(submit, [views[v] for views in pixels], limit) for v in range(n_views)]
        self._results: list[Row] | None = None

    def result(self, output: int) -> Row:
        """Wait for features (n, n_views, n_features) and logits of one of the embedder's backbones."""
        if self._results is None:
            by_view = [view.results() for view in self._views]
            self._results = [_stacked(rows) for rows in zip(*by_view, strict=True)]
            self._views = []
        return self._results[output]

    def cancel(self) -> None:
        """Leave what has not begun."""
        for view in self._views:
            view.cancel()


class _Pass:
    """One pass over one view of a batch, in parts where memory does not suffice for the whole."""

    def __init__(self, submit: Submit, pixels: list[Pixels], limit: _Limit) -> None:
        self._submit = submit
        self._pixels = pixels
        self._limit = limit
        self._pending = self._begin()

    def results(self) -> list[Row]:
        """Wait for features and logits of each of the embedder's backbones."""
        while True:
            try:
                parts = [pending.results() for pending in self._pending]
            except DeviceMemoryError as error:
                self._limit.halve(error)
                self._pending = self._begin()
            else:
                return [_joined(rows) for rows in zip(*parts, strict=True)]

    def cancel(self) -> None:
        for pending in self._pending:
            pending.cancel()

    def _begin(self) -> list[Pending]:
        while True:
            try:
                return [self._submit(part) for part in self._limit.parts(self._pixels)]
            except DeviceMemoryError as error:
                self._limit.halve(error)


def _submit(embedder: AnyEmbedder, pixels: list[Pixels]) -> Pending:
    return embedder.submit(np.stack(pixels, out=embedder.buffer(len(pixels))))


def _submit_whole(embedder: AnyEmbedder, images: list[Pixels]) -> Pending:
    return embedder.submit_images(images)


def _joined(rows: Sequence[Row]) -> Row:
    """Join rows of several parts of a batch."""
    if len(rows) == 1:
        return rows[0]
    logits = [scores for _, scores in rows if scores is not None]
    return np.concatenate([features for features, _ in rows]), np.concatenate(logits) if logits else None


def _stacked(rows: Sequence[Row]) -> Row:
    """Stack rows of several views: (n, n_views, ...)."""
    logits = [scores for _, scores in rows if scores is not None]
    return np.stack([features for features, _ in rows], axis=1), np.stack(logits, axis=1) if logits else None


def _finite(features: NDArray[np.floating], logits: NDArray[np.floating] | None) -> bool:
    return bool(np.isfinite(features).all() and (logits is None or np.isfinite(logits).all()))
