"""How many images go through a network at once, where that is left to the machine."""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featx.errors import DeviceMemoryError

if TYPE_CHECKING:
    from featx.vision.engine import EngineOptions, Job
    from featx.vision.multi_device import AnyEmbedder

SMALLEST, LARGEST = 8, 512
_GAIN = 1.05
"""A batch twice as large must be that much faster, or it is only more to lose at a stop."""
_SECONDS = 0.25
"""Of each size, at least, in passes after the first one, which is there to warm up."""
_MEMORY_SHARE = 0.5
"""Of the free memory that a probe on the CPU may be expected to take: beyond it the kernel might end this process."""


def batch_size(job: Job, options: EngineOptions) -> int:
    """Return the size of a job's batches: its own, that of the options, or the one that is fastest here."""
    size = job.batch_size or options.batch_size
    return size if isinstance(size, int) else fastest_batch_size(job.embedder)


def fastest_batch_size(embedder: AnyEmbedder) -> int:
    """Try batches of 8, 16, 32, ... images, and return the size beyond which it gets hardly faster.

    Parameters
    ----------
    embedder : Embedder
        Is given random pixels.

    Raises
    ------
    DeviceMemoryError
        If memory does not suffice for the smallest size.
    """
    best, fastest = SMALLEST, 0.0
    size, before = SMALLEST, _resident_bytes()
    while size <= LARGEST:
        try:
            rate = _images_per_second(embedder, size)
        except DeviceMemoryError:
            if size == SMALLEST:
                raise
            break
        if rate < _GAIN * fastest:
            break
        best, fastest = size, rate
        if embedder.device == "cpu" and 2 * (_peak_bytes() - before) > _MEMORY_SHARE * _free_bytes():
            break
        size *= 2
    return best


def _images_per_second(embedder: AnyEmbedder, size: int) -> float:
    preprocess = embedder.backbone.spec.preprocess
    height, width = preprocess.crop or preprocess.resize
    pixels = np.random.default_rng(0).integers(0, 256, (size, 3, height, width), np.uint8)
    embedder(pixels)
    n, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < _SECONDS or not n:
        under_way = [embedder.submit(pixels) for _ in range(embedder.ahead + 1)]
        for pending in under_way:
            pending.result()
        n += len(under_way)
    return n * size / seconds


def _resident_bytes() -> float:
    """Return what this process holds in memory; infinite where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return math.inf


def _peak_bytes() -> float:
    """Return the most that this process has ever held in memory."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _free_bytes() -> float:
    """Return the memory that this process may still take: of the machine, and of its container."""
    free = math.inf
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
        group = Path("/sys/fs/cgroup")
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    except (OSError, ValueError, StopIteration):  # no container, or one without a limit
        return free
    return free
