"""From samples to batches of features: what is to be computed, and the one door to the engines that do it.

The promise, whatever the engine: every position of every job comes back exactly once, as a row or as a failure. The
local engine gives them in order; one that spreads batches over machines gives each whole batch when it is finished.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from featx.errors import UnknownNameError, UsageError
from featx.manifest.record import Manifest
from featx.spec import FeatureSpec
from featx.store.records import FeatureBatch
from featx.vision import engines

if TYPE_CHECKING:  # a type only: the options above the loop must not cost a torch import
    from featx.vision.multi_device import AnyEmbedder
    from featx.vision.ray_cluster import RayOptions

Row = tuple[NDArray[np.floating], NDArray[np.floating] | None]
"""Features (n_views, n_features) of a sample, and its logits (n_views, n_source_classes) or None."""
Lookup = Callable[[str], Row | None]
"""From a sample's SHA-256 to its rows, where they are known already."""
Notify = Callable[[str], None]
"""Told, in a sentence, what the user should know of a run that goes on."""

AUTO = "auto"
PREPROCESS_PLACES = ("cpu", "device")


@dataclass(frozen=True)
class EngineOptions:
    """How features are computed; none of it changes them beyond rounding.

    Attributes
    ----------
    batch_size : int or "auto"
        Images in one forward pass; ``"auto"`` tries which is fastest on this machine.
    num_workers : int or None
        Processes that read and decode; None: one for each core that this process may use; 0: none, images are decoded
        in this process, where one that crashes the decoder ends the run and no time limit holds.
    device : str
        See `featx.vision.devices.choose_device`.
    runtime : str
        What executes the network: ``"auto"`` or a name of `featx.vision.runtimes`.
    engine : str
        Where the work is done: a name of `featx.vision.engines`.
    time_limit : float
        Seconds after which an image that is still being decoded is given up as a failure.
    preprocess : str
        Where images are resized, to the same bits: ``"cpu"``, by the workers, or ``"device"``, which takes load off
        them where a GPU waits for pixels.
    ray : RayOptions or None
        Of the engine ``"ray"``, see `featx.vision.ray_cluster.RayOptions`; None: its defaults.
    """

    batch_size: int | Literal["auto"] = 32
    num_workers: int | None = None
    device: str = AUTO
    runtime: str = AUTO
    engine: str = "local"
    time_limit: float = 60.0
    preprocess: str = "cpu"
    ray: RayOptions | None = None

    @property
    def n_threads(self) -> int:
        """How many images are read and decoded at once."""
        if self.num_workers is not None:
            return max(1, self.num_workers)
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Job:
    """Features that are wanted of some samples.

    Attributes
    ----------
    embedder : Embedder
        The network on its device.
    positions : sequence of int
        Of the samples in the manifest. The only job may want them in any order, several jobs in ascending order.
    lookup : callable or None
        See `Lookup`. Asked right before a batch is computed, in the caller's thread: rows of earlier batches may be
        known to it by then.
    batch_size : int or None
        Of this job alone; None: that of the options.
    output : int
        Which of the embedder's backbones is wanted. Jobs with the same embedder share its forward passes wherever they
        want the same samples in the same batch.
    """

    embedder: AnyEmbedder
    positions: Sequence[int]
    lookup: Lookup | None = None
    batch_size: int | None = None
    output: int = 0

    @property
    def spec(self) -> FeatureSpec:
        """What decides the features."""
        return self.embedder.backbones[self.output].spec


def iter_batches(
    manifest: Manifest,
    jobs: Sequence[Job],
    options: EngineOptions = EngineOptions(),
    *,
    notify: Notify | None = None,
) -> Iterator[tuple[int, FeatureBatch]]:
    """Compute features of a manifest's samples, batch by batch, each image read and decoded once for all jobs.

    A job's batch i holds its ``positions[i * B : (i + 1) * B]``, whatever fails in it and whatever other jobs there
    are. Identical bytes in one batch are computed once; those that the job's `lookup` knows are copied. Memory does
    not grow with the number of samples.

    Parameters
    ----------
    manifest : Manifest
        The samples.
    jobs : sequence of Job
        What is wanted of them.
    options : EngineOptions
        `device` and `runtime` are not looked at: the embedders have theirs.
    notify : callable, optional
        See `Notify`; without it, a warning.

    Yields
    ------
    job : int
        Index in `jobs`.
    batch : FeatureBatch
        Features in the spec's storage dtype, all finite; logits in float32.

    Raises
    ------
    UsageError
        If an option is out of range, positions of several jobs are not in ascending order, or memory does not
        suffice for a single image.
    UnknownNameError, MissingExtraError
        If there is no such engine, or not on this machine.
    """
    check_options(options)
    if len(jobs) > 1 and not all(_ascend(job.positions) for job in jobs):
        raise UsageError("positions of several jobs must be in ascending order")
    return engines.find_engine(options.engine)(manifest, jobs, options, notify or _warn)


def check_options(options: EngineOptions) -> None:
    """Raise a UsageError if a number is out of range, or a name unknown."""
    size = options.batch_size
    if size != AUTO and (not isinstance(size, int) or size < 1):
        raise UsageError(f"the batch size must be at least 1, or 'auto', got {size!r}")
    if options.num_workers is not None and options.num_workers < 0:
        raise UsageError(f"the number of workers must be at least 0, got {options.num_workers}")
    if options.preprocess not in PREPROCESS_PLACES:
        raise UnknownNameError("place to preprocess", options.preprocess, PREPROCESS_PLACES)
    if not options.time_limit > 0:
        raise UsageError(f"the time limit must be above 0 seconds, got {options.time_limit}")


def _ascend(positions: Sequence[int]) -> bool:
    return bool((np.diff(np.asarray(positions, dtype=np.int64)) > 0).all())


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)
