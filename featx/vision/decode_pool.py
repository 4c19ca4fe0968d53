"""Workers that read and decode images side by side; an image that crashes or hangs one costs that image alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from featx.errors import FeatxError
from featx.manifest.record import Manifest
from featx.store.records import FAILED, LedgerEntry
from featx.vision import decoder
from featx.vision.decode_worker import DecoderDiedError, DecoderTimeoutError, DecodeWorker, default_command
from featx.vision.engine import EngineOptions
from featx.vision.pixels import Outcome, PixelPlan, frame_of, read_sample
from featx.vision.spare_workers import SPARES

_TRIES = 2
"""For an image whose worker died: it may have been killed from outside, for want of memory, without being to blame."""
_CLOSED = "the decoders have been closed"  # read by nobody: who closes them waits for no image any more
_STARTS = 3
"""Workers that may die one after another before they are ready."""


def prepare_workers(manifest: Manifest, options: EngineOptions) -> None:
    """Start the processes that a pool will want; they load while this process loads something else."""
    n_files = sum(map(bool, manifest.paths[: options.n_threads]))
    if options.num_workers != 0 and n_files:
        SPARES.prepare(default_command(), n_files)


class DecodePool:
    """Reads samples of a manifest in worker processes, pixels that are in memory already in threads.

    Threads of this process ask the workers, each for one image at a time, and replace those that die. Used as a context
    manager: on the way out the threads end, and so do workers that are at work; idle ones wait for the next pool.

    Parameters
    ----------
    manifest : Manifest
        The samples.
    plans : sequence of PixelPlan
        All that may be wanted of them.
    options : EngineOptions
        Its `num_workers` and `time_limit` count.
    command : sequence of str, optional
        Starts another worker than `featx.vision.decoder`.
    """

    def __init__(
        self,
        manifest: Manifest,
        plans: Sequence[PixelPlan],
        options: EngineOptions,
        *,
        command: Sequence[str] | None = None,
    ) -> None:
        self._manifest = manifest
        self._plans = plans
        self._time_limit = options.time_limit
        self._in_process = options.num_workers == 0
        self._command = list(default_command() if command is None else command)
        self._greeting = decoder.greeting(plans)
        self._threads = ThreadPoolExecutor(options.n_threads, thread_name_prefix="featx-decode")
        self._lock = threading.Lock()
        self._idle: list[DecodeWorker] = []
        self._busy: set[DecodeWorker] = set()
        self._is_closed = False

    def submit(self, position: int, wanted: Sequence[int], views: Sequence[str] | None = None) -> Future[list[Outcome]]:
        """Have a sample read: gives an outcome for each plan that is wanted, by its number.

        Views take the place of those of the plans. The future raises what is no fault of the image.
        """
        return self._threads.submit(self._read, position, wanted, views)

    def close(self) -> None:
        """End everything at once; what has not begun is not begun."""
        with self._lock:
            self._is_closed = True
            idle, busy = self._idle, list(self._busy)
            self._idle = []
        for worker in busy:
            worker.kill()
        for worker in idle:
            SPARES.put(worker)
        self._threads.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, position: int, wanted: Sequence[int], views: Sequence[str] | None) -> list[Outcome]:
        manifest = self._manifest
        place = manifest.paths[position]
        if self._in_process or not place or position in manifest.refused:
            return read_sample(manifest, position, [self._plans[i].with_views(views) for i in wanted])
        key = manifest.keys[position]
        request = decoder.request(place, key, frame_of(manifest, position), wanted, views)
        reason = ""
        for _ in range(_TRIES):
            worker = self._take()
            try:
                outcomes = worker.ask(request, self._time_limit)
            except DecoderDiedError as death:
                self._retire(worker)
                reason = f"decoder-crash: {death}"
            except DecoderTimeoutError:
                self._retire(worker)
                reason = f"timeout: {self._time_limit:g} s"
                break
            except BaseException:
                self._release(worker)
                raise
            else:
                self._release(worker)
                return outcomes
        return [Outcome(LedgerEntry(key, FAILED, reason))] * len(wanted)

    def _take(self) -> DecodeWorker:
        """Return a worker that is ready to be asked."""
        problem = ""
        for _ in range(_STARTS):
            worker = self._next()
            try:
                worker.greet(self._greeting)
                return worker
            except (DecoderDiedError, DecoderTimeoutError) as error:
                problem = str(error) or "no sign of life"
                self._retire(worker)
        raise FeatxError(
            f"the process that decodes images does not start: {problem}\n"
            "--num-workers 0 decodes without it, in the one process that there is"
        )

    def _next(self) -> DecodeWorker:
        worker = self._idle_one() or SPARES.take(self._command)
        with self._lock:
            if not self._is_closed:
                self._busy.add(worker)
                return worker
        SPARES.put(worker)
        raise FeatxError(_CLOSED)

    def _idle_one(self) -> DecodeWorker | None:
        """Return a worker that lives: one that died while it had nothing to do is no image's fault."""
        while True:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None or worker.is_alive:
                return worker
            worker.close()

    def _release(self, worker: DecodeWorker) -> None:
        with self._lock:
            self._busy.discard(worker)
            if not self._is_closed:
                self._idle.append(worker)
                return
        SPARES.put(worker)

    def _retire(self, worker: DecodeWorker) -> None:
        with self._lock:
            self._busy.discard(worker)
        worker.close()
        if self._is_closed:
            raise FeatxError(_CLOSED)
