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
from featx.vision.batch_size import batch_size
from featx.vision.decode_pool import DecodePool
from featx.vision.engine import EngineOptions, Job, Notify
from featx.vision.forward import Flight, Forward
from featx.vision.pixels import Outcome, PixelPlan
from featx.vision.reading import NVJPEG

_BATCHES_AHEAD = 2


def iter_local(
    manifest: Manifest, jobs: Sequence[Job], options: EngineOptions, notify: Notify
) -> Iterator[tuple[int, FeatureBatch]]:
    """See `featx.vision.engine.iter_batches`."""
    by_job = [PixelPlan.of(job.spec, whole=options.preprocess == "device") for job in jobs]
    plans = list(dict.fromkeys(by_job))
    open_jobs = [
        _OpenJob(plans.index(plan), batch_size(job, options), len(job.positions))
        for job, plan in zip(jobs, by_job, strict=True)
    ]
    ahead = max([_BATCHES_AHEAD * job.size for job in open_jobs] + [2 * options.n_threads])
    # The pool is closed also when the caller stops early or Ctrl-C comes.
    with DecodePool(manifest, plans, options) as pool:
        batches = _decoded(_batches(pool, _stream(jobs), open_jobs, ahead), jobs)
        yield from _ended(batches, Forward(jobs, notify, whole=[plan.whole for plan in by_job]), jobs)


def _batches(
    pool: DecodePool, stream: Iterator[tuple[int, list[int]]], open_jobs: Sequence[_OpenJob], ahead: int
) -> Iterator[tuple[int, list[Outcome]]]:
    """Yield a job's index and its next samples whenever these are a whole batch; decode `ahead` samples meanwhile."""
    waiting: deque[tuple[list[int], list[int], Future[list[Outcome]]]] = deque()

    def oldest() -> Iterator[tuple[int, list[Outcome]]]:
        wanted_by, wanted, future = waiting.popleft()
        outcomes = dict(zip(wanted, future.result(), strict=True))
        for index in wanted_by:
            batch = open_jobs[index].add(outcomes[open_jobs[index].plan])
            if batch:
                yield index, batch

    for position, wanted_by in stream:
        wanted = list(dict.fromkeys(open_jobs[index].plan for index in wanted_by))
        waiting.append((wanted_by, wanted, pool.submit(position, wanted)))
        if len(waiting) > ahead:
            yield from oldest()
    while waiting:
        yield from oldest()


def _decoded(batches: Iterator[tuple[int, list[Outcome]]], jobs: Sequence[Job]) -> Iterator[tuple[int, list[Outcome]]]:
    """Have the files decoded that the workers left to a GPU."""
    if all(job.spec.preprocess.decoder != NVJPEG for job in jobs):
        yield from batches
        return
    from featx.vision.nvjpeg import JpegDecoder, decode_outcomes

    decoders = [JpegDecoder(job.spec.preprocess, device=job.embedder.device.partition(",")[0]) for job in jobs]
    for index, outcomes in batches:
        yield index, decode_outcomes(outcomes, decoders[index])


def _ended(
    batches: Iterator[tuple[int, list[Outcome]]], forward: Forward, jobs: Sequence[Job]
) -> Iterator[tuple[int, FeatureBatch]]:
    """Compute batches and yield them in the order of their beginning, as many under way as keep a device busy."""
    flights: deque[Flight] = deque()
    try:
        for index, outcomes in batches:
            embedder = jobs[index].embedder
            flights.append(forward.begin(index, outcomes, [flight for flight in flights if flight.index == index]))
            while sum(flight.job.embedder is embedder for flight in flights) > embedder.ahead:
                yield flights[0].index, flights[0].end()
                flights.popleft()
        while flights:
            yield flights[0].index, flights[0].end()
            flights.popleft()
    finally:  # the caller stops early, or Ctrl-C comes
        for flight in flights:
            flight.cancel()


@dataclass
class _OpenJob:
    """A job and its batch that is being filled."""

    plan: int
    size: int
    left: int
    batch: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> list[Outcome]:
        """Take a sample; returns the batch where this one completes it."""
        self.batch.append(outcome)
        self.left -= 1
        if self.left and len(self.batch) < self.size:
            return []
        whole, self.batch = self.batch, []
        return whole


def _stream(jobs: Sequence[Job]) -> Iterator[tuple[int, list[int]]]:
    """Yield each position that is wanted, and the jobs that want it; of the only job as they come, else ascending."""
    wishes = [zip(job.positions, itertools.repeat(index)) for index, job in enumerate(jobs)]
    if len(wishes) == 1:
        yield from ((position, [index]) for position, index in wishes[0])
        return
    for position, wanted_by in itertools.groupby(heapq.merge(*wishes), key=lambda wish: wish[0]):
        yield position, [index for _, index in wanted_by]
