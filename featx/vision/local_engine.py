"""The engine on this machine: workers read and decode ahead, the networks run in the caller's thread."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from featx.manifest.record import Manifest
from featx.store.records import FeatureBatch
from featx.vision.decoder import Outcome, Reading, read_sample
from featx.vision.engine import EngineOptions, Job, Notify
from featx.vision.forward import Forward

_BATCHES_AHEAD = 2
_DEFAULT_BATCH_SIZE = 32


def iter_local(
    manifest: Manifest, jobs: Sequence[Job], options: EngineOptions, notify: Notify
) -> Iterator[tuple[int, FeatureBatch]]:
    """See `featx.vision.engine.iter_batches`."""
    del notify
    tables = [Reading.of(job.embedder.backbone.spec) for job in jobs]
    readings = list(dict.fromkeys(tables))
    open_jobs = [
        _OpenJob(_size(job, options), len(job.positions), readings.index(table), Forward(job))
        for job, table in zip(jobs, tables, strict=True)
    ]
    ahead = max([_BATCHES_AHEAD * job.size for job in open_jobs] + [2 * options.n_threads])
    threads = ThreadPoolExecutor(options.n_threads, thread_name_prefix="featx-decode")
    waiting: deque[tuple[list[int], list[int], Future[list[Outcome]]]] = deque()

    def first() -> Iterator[tuple[int, FeatureBatch]]:
        """Hand the oldest sample to the jobs that want it; yields the batches that it completes."""
        wanted_by, wanted, future = waiting.popleft()
        outcomes = dict(zip(wanted, future.result(), strict=True))
        for index in wanted_by:
            job = open_jobs[index]
            batch = job.add(outcomes[job.reading])
            if batch:
                yield index, job.forward(batch)

    try:
        for position, wanted_by in _stream(jobs):
            wanted = list(dict.fromkeys(open_jobs[index].reading for index in wanted_by))
            future = threads.submit(read_sample, manifest, position, [readings[i] for i in wanted])
            waiting.append((wanted_by, wanted, future))
            if len(waiting) > ahead:
                yield from first()
        while waiting:
            yield from first()
    finally:
        # Also when the caller stops early or Ctrl-C comes: what has not begun is not begun.
        threads.shutdown(wait=True, cancel_futures=True)


@dataclass
class _OpenJob:
    """A job and its batch that is being filled."""

    size: int
    left: int
    reading: int
    forward: Forward
    batch: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> list[Outcome]:
        """Take a sample; returns the batch where this one completes it."""
        self.batch.append(outcome)
        self.left -= 1
        if self.left and len(self.batch) < self.size:
            return []
        whole, self.batch = self.batch, []
        return whole


def _size(job: Job, options: EngineOptions) -> int:
    size = job.batch_size or options.batch_size
    return size if isinstance(size, int) else _DEFAULT_BATCH_SIZE


def _stream(jobs: Sequence[Job]) -> Iterator[tuple[int, list[int]]]:
    """Yield each position that is wanted, and the jobs that want it; of the only job as they come, else ascending."""
    wishes = [zip(job.positions, itertools.repeat(index)) for index, job in enumerate(jobs)]
    if len(wishes) == 1:
        yield from ((position, [index]) for position, index in wishes[0])
        return
    for position, wanted_by in itertools.groupby(heapq.merge(*wishes), key=lambda wish: wish[0]):
        yield position, [index for _, index in wanted_by]
