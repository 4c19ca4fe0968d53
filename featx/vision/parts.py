"""A batch on the CPU, a few images at a time on each core.

Each core takes the next few images by itself: no core waits for another after every layer, which costs most where
something else runs beside; what a layer gives fits the cache; and it is small enough that the C library keeps the
memory, where larger blocks come anew from the kernel and are filled with zeros each time. The cores are shared by all
networks of the process: what is handed in next is begun where a core has nothing left of what came before.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from featx.vision.devices import exact_arithmetic

PART_PIXELS = 4 * 224 * 224
"""Images of 224 x 224 go four at a time; measured, see docs/benchmarks.md."""
_MAX_WORKERS = 16
_USUAL_BATCH = 32

Outputs = tuple[torch.Tensor, ...]
Prepare = Callable[[torch.Tensor], torch.Tensor]
Compute = Callable[[torch.Tensor], Outputs]


def _as_it_is(images: torch.Tensor) -> torch.Tensor:
    return images


class Parts:
    """Computes a batch in parts, several at once.

    Parameters
    ----------
    compute : callable
        From images (b, 3, h, w) to tensors with b rows each; called from several threads, in inference mode.
    n_cores : int
        How many cores to use; PyTorch's own number (`torch.get_num_threads`) unless there is a reason.

    Notes
    -----
    How a batch is cut depends on its size and on `n_cores` alone: the same batch gives the same bits.
    """

    def __init__(self, compute: Compute, n_cores: int) -> None:
        self._compute, self._n_cores = compute, n_cores
        self._n_workers = min(n_cores, _MAX_WORKERS)
        self._threads = _threads(self._n_workers, n_cores // self._n_workers) if self._n_workers > 1 else None

    @property
    def beside(self) -> bool:
        """Whether batches are computed beside the caller."""
        return self._threads is not None

    def __call__(self, images: torch.Tensor) -> Outputs:
        """Return the outputs of the whole batch."""
        return self.begin(images).result()

    def begin(self, images: torch.Tensor, prepare: Prepare = _as_it_is) -> Begun:
        """Hand in a batch; `prepare` makes what is computed of it, part by part.

        Without threads, or with more of them than images, it is computed at once.
        """
        parts = self._split(images)
        if self._threads is None or len(images) < self._n_workers:
            return Begun([_done(self._run(part, prepare)) for part in parts])
        return Begun([self._threads.submit(self._run, part, prepare) for part in parts])

    def one(self, images: torch.Tensor) -> Outputs:
        """Return the outputs of images that go as one part, computed where parts are."""
        if self._threads is None:
            return self._run(images, _as_it_is)
        return self._threads.submit(self._run, images, _as_it_is).result()

    def usual_size(self, image_size: tuple[int, int]) -> int:
        """Return how many images a part of a batch of the usual size has; (height, width) in pixels."""
        return part_size(torch.Size((_USUAL_BATCH, 3, *image_size)), self._n_workers)

    def _split(self, images: torch.Tensor) -> Sequence[torch.Tensor]:
        return torch.split(images, part_size(images.shape, self._n_workers))

    def _run(self, images: torch.Tensor, prepare: Prepare) -> Outputs:
        with torch.inference_mode(), exact_arithmetic:
            return self._compute(prepare(images))


class Begun:
    """A batch whose parts are being computed."""

    def __init__(self, parts: list[Future[Outputs]]) -> None:
        self._parts = parts

    def result(self) -> Outputs:
        """Wait, and return the outputs of the whole batch."""
        try:
            return _joined([part.result() for part in self._parts])
        except BaseException:  # Ctrl-C too: no core goes on with what nobody waits for
            self.cancel()
            raise

    def cancel(self) -> None:
        """Leave what has not begun."""
        for part in self._parts:
            part.cancel()


def _done(outputs: Outputs) -> Future[Outputs]:
    future: Future[Outputs] = Future()
    future.set_result(outputs)
    return future


def _joined(parts: list[Outputs]) -> Outputs:
    return parts[0] if len(parts) == 1 else tuple(torch.cat(columns) for columns in zip(*parts, strict=True))


def part_size(shape: torch.Size, n_workers: int) -> int:
    """Return how many images of a batch (B, 3, h, w) to compute at a time: enough parts for all workers."""
    n, _, height, width = shape
    return max(1, min(PART_PIXELS // (height * width), -(-n // n_workers)))


@functools.cache
def _threads(n_workers: int, n_threads: int) -> ThreadPoolExecutor:
    """Return threads whose operators use `n_threads` cores each; all others' setting stays as it was."""
    before = torch.get_num_threads()
    started = threading.Barrier(n_workers + 1)

    def begin() -> None:
        torch.set_num_threads(n_threads)
        # A thread takes over the number of all once, when it is first asked: now, and not when that is put back.
        torch.get_num_threads()

    threads = ThreadPoolExecutor(n_workers, thread_name_prefix="featx-forward", initializer=begin)
    for _ in range(n_workers):
        threads.submit(started.wait)
    started.wait()
    # PyTorch sets it for the calling thread and for threads that are yet to come.
    torch.set_num_threads(before)
    return threads
