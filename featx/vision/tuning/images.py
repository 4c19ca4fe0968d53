"""Training images as batches: another view of each in every epoch, decoded in worker processes beside the training."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray

from featx.errors import ImageDecodeError
from featx.manifest.record import Manifest
from featx.spec import FeatureSpec
from featx.vision.decode_pool import DecodePool
from featx.vision.engine import EngineOptions
from featx.vision.normalisation import Normalisation
from featx.vision.pixels import Outcome, PixelPlan
from featx.vision.staging import Lanes
from featx.vision.tuning.feeding import feed
from featx.vision.views import PLAIN, draw_view

_BATCHES_AHEAD = 2

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Batch:
    """Images of one step.

    Attributes
    ----------
    positions : int array (B,)
        Of the samples in the manifest.
    images : torch.Tensor
        Normalised float32 (B, 3, h, w), on the CPU or on the device of the reader's lanes.
    """

    positions: IntArray
    images: torch.Tensor


class ImageReader:
    """Reads samples of a manifest as a spec's network sees them; used as a context manager.

    Parameters
    ----------
    manifest : Manifest
    spec : FeatureSpec
        Its preprocess counts.
    options : EngineOptions
        Workers and time limit.
    lanes : Lanes, optional
        To a device that is fed ahead of its work, see `featx.vision.tuning.feeding`; without them images stay here.
    """

    def __init__(
        self, manifest: Manifest, spec: FeatureSpec, options: EngineOptions, *, lanes: Lanes | None = None
    ) -> None:
        self._manifest = manifest
        self._options = options
        self._plan = PixelPlan.of(spec)
        self._lanes = lanes
        self._normalised = Normalisation(spec.preprocess, "cpu" if lanes is None else lanes.device)
        self._pool: DecodePool | None = None

    def __enter__(self) -> ImageReader:
        self._pool = DecodePool(self._manifest, [self._plan], self._options)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.close()

    def keys(self, positions: Sequence[int] | IntArray) -> list[str]:
        """Return what samples are called."""
        return [self._manifest.keys[int(position)] for position in positions]

    def batches(
        self, positions: Sequence[int] | IntArray, batch_size: int, views: Iterable[str] | None = None
    ) -> Iterator[Batch]:
        """Yield samples in batches, in their order; later ones are decoded meanwhile.

        Parameters
        ----------
        positions : sequence of int
            In the manifest.
        batch_size : int
            The last batch may be smaller.
        views : iterable of str, optional
            A view's text for each of the positions, taken as it is needed; the plain image by default.

        Raises
        ------
        ImageDecodeError
            A sample that cannot be read; names it.
        """
        order = np.asarray(positions, dtype=np.int64)
        decoded = self._decoded(order, batch_size, itertools.repeat(PLAIN) if views is None else iter(views))
        if self._lanes is None:
            for part, arrays in decoded:
                yield Batch(part, self._normalised(torch.from_numpy(np.concatenate(arrays))))
        else:
            for part, pixels in feed(decoded, self._lanes):
                yield Batch(part, self._normalised(pixels))

    def _decoded(
        self, order: IntArray, batch_size: int, views: Iterator[str]
    ) -> Iterator[tuple[IntArray, list[NDArray[np.uint8]]]]:
        """Yield the positions of each batch and the pixels of its images."""
        assert self._pool is not None, "an ImageReader is used in a with statement"
        waiting: deque[Future[list[Outcome]]] = deque()
        begun, ahead = 0, _BATCHES_AHEAD * batch_size + 2 * self._options.n_threads
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            while begun < len(order) and len(waiting) < ahead:
                waiting.append(self._pool.submit(int(order[begun]), [0], (next(views),)))
                begun += 1
            yield part, [_pixels(waiting.popleft().result()[0]) for _ in part]


def _pixels(outcome: Outcome) -> NDArray[np.uint8]:
    if outcome.pixels is None:
        reason, _, detail = outcome.entry.reason.partition(": ")
        raise ImageDecodeError(reason, detail, key=outcome.entry.key)
    return outcome.pixels


def epoch_order(n: int, random_state: int, epoch: int) -> IntArray:
    """Return the order (n,) in which an epoch goes through n samples: a function of its arguments."""
    return np.random.default_rng((random_state, epoch, n)).permutation(n)


def epoch_views(positions: IntArray, kinds: Sequence[str], random_state: int, epoch: int) -> Iterator[str]:
    """Draw a view for each sample in an epoch, when it is asked for: a whole epoch's would keep a GPU waiting.

    Each is a function of the sample and of the arguments, not of its place.
    """
    return (draw_view(kinds, (random_state, epoch, int(position))) for position in positions)
