"""A batch on the CPU, a few images at a time on each core.

Each core takes the next few images by itself: no core waits for another after every layer, which costs most where
something else runs beside; what a layer gives fits the cache; and it is small enough that the C library keeps the
memory, where larger blocks come anew from the kernel and are filled with zeros each time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

PART_PIXELS = 4 * 224 * 224
"""Images of 224 x 224 go four at a time; measured, see docs/benchmarks.md."""
_MAX_WORKERS = 16

Outputs = tuple[torch.Tensor, ...]
Compute = Callable[[torch.Tensor], Outputs]


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
        self._threads = _start(self._n_workers, n_cores // self._n_workers) if self._n_workers > 1 else None

    def __call__(self, images: torch.Tensor) -> Outputs:
        """Return the outputs of the whole batch."""
        parts = torch.split(images, part_size(images.shape, self._n_workers))
        if self._threads is None or len(images) < self._n_workers:
            return self._joined([self._run(part) for part in parts])
        return self._joined(list(self._threads.map(self._run, parts)))

    def _run(self, images: torch.Tensor) -> Outputs:
        with torch.inference_mode():
            return self._compute(images)

    @staticmethod
    def _joined(parts: list[Outputs]) -> Outputs:
        return parts[0] if len(parts) == 1 else tuple(torch.cat(columns) for columns in zip(*parts, strict=True))


def part_size(shape: torch.Size, n_workers: int) -> int:
    """Return how many images of a batch (B, 3, h, w) to compute at a time: enough parts for all workers."""
    n, _, height, width = shape
    return max(1, min(PART_PIXELS // (height * width), -(-n // n_workers)))


def _start(n_workers: int, n_threads: int) -> ThreadPoolExecutor:
    """Start threads whose operators use `n_threads` cores each; all others' setting stays as it was."""
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
