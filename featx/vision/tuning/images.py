"""Training images as batches: decoded in worker processes, another view of each in every epoch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
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
from featx.vision.pixels import Outcome, PixelPlan
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
        Normalised float32 (B, 3, h, w), on the CPU.
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
    """

    def __init__(self, manifest: Manifest, spec: FeatureSpec, options: EngineOptions) -> None:
        self._manifest = manifest
        self._options = options
        self._plan = PixelPlan.of(spec)
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (spec.preprocess.mean, spec.preprocess.std))
        self._mean, self._std = mean, std
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
        self, positions: Sequence[int] | IntArray, batch_size: int, views: Sequence[str] | None = None
    ) -> Iterator[Batch]:
        """Yield samples in batches, in their order; later ones are decoded meanwhile.

        Parameters
        ----------
        positions : sequence of int
            In the manifest.
        batch_size : int
            The last batch may be smaller.
        views : sequence of str, optional
            A view's text for each of the positions; the plain image by default.

        Raises
        ------
        ImageDecodeError
            A sample that cannot be read; names it.
        """
        assert self._pool is not None, "an ImageReader is used in a with statement"
        order = np.asarray(positions, dtype=np.int64)
        chosen = [PLAIN] * len(order) if views is None else views
        waiting: deque[Future[list[Outcome]]] = deque()
        begun, ahead = 0, _BATCHES_AHEAD * batch_size + 2 * self._options.n_threads
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            while begun < len(order) and len(waiting) < ahead:
                waiting.append(self._pool.submit(int(order[begun]), [0], (chosen[begun],)))
                begun += 1
            yield Batch(part, self._normalised([waiting.popleft().result()[0] for _ in part]))

    def _normalised(self, outcomes: Sequence[Outcome]) -> torch.Tensor:
        for outcome in outcomes:
            if outcome.pixels is None:
                reason, _, detail = outcome.entry.reason.partition(": ")
                raise ImageDecodeError(reason, detail, key=outcome.entry.key)
        pixels = torch.from_numpy(
            np.concatenate([outcome.pixels for outcome in outcomes if outcome.pixels is not None])
        )
        images = pixels.to(torch.float32).div_(255.0).sub_(self._mean).div_(self._std)
        return images.contiguous(memory_format=torch.channels_last)


def epoch_order(n: int, random_state: int, epoch: int) -> IntArray:
    """Return the order (n,) in which an epoch goes through n samples: a function of its arguments."""
    return np.random.default_rng((random_state, epoch, n)).permutation(n)


def epoch_views(positions: IntArray, kinds: Sequence[str], random_state: int, epoch: int) -> list[str]:
    """Draw a view for each sample in an epoch: a function of the sample and of the arguments, not of its place."""
    return [draw_view(kinds, (random_state, epoch, int(position))) for position in positions]
