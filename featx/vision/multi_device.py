"""Several devices of one machine that share the work: batches are dealt out in turn, results come back in order."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from featx.errors import UsageError
from featx.vision.backbones import Backbone
from featx.vision.devices import AUTO, choose_devices
from featx.vision.embed import Embedder, Pending, Rows


class MultiDeviceEmbedder:
    """An `Embedder` on each of several devices, used like one.

    Each has a copy of the network, and a thread that feeds it. Batch i goes to device i modulo their number, however
    fast each of them is, so that a run can be repeated; a device that fails ends the run with an error that names it.

    Parameters
    ----------
    backbone : Backbone
        Its network goes to the first device, copies of it to the others.
    devices : sequence of str
        As from `featx.vision.devices.choose_devices`.
    also, runtime, n_images
        See `Embedder`.

    Attributes
    ----------
    backbone, backbones, ahead, numerics, runtime
        See `Embedder`.
    device : str
        All of them, with commas between them.

    Raises
    ------
    UsageError
        If a device is not there, or the network cannot be copied.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        devices: Sequence[str],
        also: Sequence[Backbone] = (),
        runtime: str = AUTO,
        n_images: int | None = None,
    ) -> None:
        copies = [backbone, *(_copy_of(backbone) for _ in devices[1:])]
        self._embedders = [
            Embedder(each, also=also, device=device, runtime=runtime, n_images=n_images)
            for each, device in zip(copies, devices, strict=True)
        ]
        # A thread ends when nothing refers to its pool any more.
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix=f"featx-{device}") for device in devices]
        self._last: list[Future[Pending] | None] = [None] * len(devices)
        self._turn = 0
        self.backbone = backbone
        self.backbones = self._embedders[0].backbones
        self.device = ",".join(devices)
        self.runtime = self._embedders[0].runtime
        self.numerics = ", ".join(dict.fromkeys(embedder.numerics for embedder in self._embedders))
        self.ahead = sum(embedder.ahead + 1 for embedder in self._embedders) - 1

    def __call__(self, pixels: NDArray[np.uint8]) -> Rows:
        """Compute one batch; see `Embedder`."""
        return self.submit(pixels).result()

    def buffer(self, n: int) -> NDArray[np.uint8]:
        """Return an array for the next batch; see `Embedder.buffer`."""
        last = self._last[self._turn]
        if last is not None:
            wait([last])  # its batch has left the memory that is given out here
        return self._embedders[self._turn].buffer(n)

    def submit(self, pixels: NDArray[np.uint8]) -> Pending:
        """Begin with one batch on the next device; see `Embedder.submit`.

        Returns
        -------
        Pending
            Errors come with its result. The pixels must stay as they are until then.
        """
        return self._deal(lambda embedder: embedder.submit(pixels))

    def submit_images(self, images: Sequence[NDArray[np.uint8]]) -> Pending:
        """Begin with one batch of whole images on the next device; see `Embedder.submit_images` and `submit`."""
        return self._deal(lambda embedder: embedder.submit_images(images))

    def _deal(self, begin: Callable[[Embedder], Pending]) -> Pending:
        turn, self._turn = self._turn, (self._turn + 1) % len(self._embedders)
        begun = self._threads[turn].submit(begin, self._embedders[turn])
        self._last[turn] = begun
        return _Dealt(begun)


AnyEmbedder = Embedder | MultiDeviceEmbedder


def make_embedder(
    backbone: Backbone,
    *,
    also: Sequence[Backbone] = (),
    device: str = AUTO,
    runtime: str = AUTO,
    n_images: int | None = None,
) -> AnyEmbedder:
    """Return the embedder for what the user wrote behind ``--device`` and ``--runtime``.

    Parameters
    ----------
    backbone, also
        See `Embedder`.
    device : str
        See `featx.vision.devices.choose_devices`.
    runtime, n_images
        See `Embedder`.

    Raises
    ------
    UnknownNameError, MissingExtraError, UsageError
        See `Embedder`.
    """
    devices = choose_devices(device)
    if len(devices) == 1:
        return Embedder(backbone, also=also, device=devices[0], runtime=runtime, n_images=n_images)
    return MultiDeviceEmbedder(backbone, devices=devices, also=also, runtime=runtime, n_images=n_images)


class _Dealt:
    def __init__(self, begun: Future[Pending]) -> None:
        self._begun = begun

    def result(self) -> Rows:
        return self._begun.result().result()

    def results(self) -> list[Rows]:
        return self._begun.result().results()

    def cancel(self) -> None:
        if not self._begun.cancel() and self._begun.exception() is None:
            self._begun.result().cancel()


def _copy_of(backbone: Backbone) -> Backbone:
    try:
        return replace(backbone, network=copy.deepcopy(backbone.network))
    except (TypeError, RuntimeError, AttributeError) as error:
        raise UsageError(
            f"backbone {backbone.spec.backbone} cannot be copied to several devices; name one --device: {error}"
        ) from error
