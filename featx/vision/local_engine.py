"""The engine on this machine: workers read and decode ahead, the networks run in the caller's thread."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from featx.manifest.record import Manifest
from featx.store.records import FeatureBatch
from featx.vision.decode_pool import DecodePool
from featx.vision.engine import EngineOptions, Job, Notify
from featx.vision.forward import Forward
from featx.vision.pixels import Outcome, PixelPlan

_BATCHES_AHEAD = 2
_DEFAULT_BATCH_SIZE = 32


def iter_local(
    manifest: Manifest, jobs: Sequence[Job], options: EngineOptions, notify: Notify
) -> Iterator[tuple[int, FeatureBatch]]:
    """See `featx.vision.engine.iter_batches`."""
    del notify
    by_job = [PixelPlan.of(job.embedder.backbone.spec) for job in jobs]
    plans = list(dict.fromkeys(by_job))
    open_jobs = [
        _OpenJob(_size(job, options), len(job.positions), plans.index(plan), Forward(job))
        for job, plan in zip(jobs, by_job, strict=True)
    ]
    ahead = max([_BATCHES_AHEAD * job.size for job in open_jobs] + [2 * options.n_threads])
    waiting: deque[tuple[list[int], list[int], Future[list[Outcome]]]] = deque()

    def first() -> Iterator[tuple[int, FeatureBatch]]:
        """Hand the oldest sample to the jobs that want it; yields the batches that it completes."""
        wanted_by, wanted, future = waiting.popleft()
        outcomes = dict(zip(wanted, future.result(), strict=True))
        for index in wanted_by:
            job = open_jobs[index]
            batch = job.add(outcomes[job.plan])
            if batch:
                yield index, job.forward(batch)

    # The pool is closed also when the caller stops early or Ctrl-C comes.
    with DecodePool(manifest, plans, options) as pool:
        for position, wanted_by in _stream(jobs):
            wanted = list(dict.fromkeys(open_jobs[index].plan for index in wanted_by))
            waiting.append((wanted_by, wanted, pool.submit(position, wanted)))
            if len(waiting) > ahead:
                yield from first()
        while waiting:
            yield from first()


@dataclass
class _OpenJob:
    """A job and its batch that is being filled."""

    size: int
    left: int
    plan: int
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
