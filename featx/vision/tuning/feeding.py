"""Batches of pixels on their way to a device that trains meanwhile.

A thread puts the next batches together and has them copied on a lane of their own, as `featx.vision.staging` does it
for features; there results come back, here they stay. Host and device memory go round in a ring: a slot is used again
only after what was computed from it. On the CPU nobody would wait less: the cores that would copy are those that train.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from featx.vision.staging import CudaLanes, Event, Lanes

Item = TypeVar("Item")
Name = TypeVar("Name")
Pixels = Sequence[NDArray[np.uint8]]
"""Arrays (n, 3, h, w) that together are a batch."""

_AHEAD = 2
"""Batches that are ready, or on their way, while one is trained on."""


def lanes_of(device: str) -> Lanes | None:
    """Return the lanes to a GPU on which the caller computes; None for other devices."""
    chosen = torch.device(device)
    if chosen.type != "cuda":
        return None
    if chosen.index is None:  # another thread may mean another one by that
        chosen = torch.device("cuda", torch.cuda.current_device())
    return CudaLanes(chosen, computes_here=True)


def feed(
    batches: Iterator[tuple[Name, Pixels]], lanes: Lanes, *, ahead: int = _AHEAD
) -> Iterator[tuple[Name, torch.Tensor]]:
    """Yield batches as they are on a device.

    Parameters
    ----------
    batches : iterator of (anything, sequence of uint8 arrays (n, 3, h, w))
        Is asked in another thread.
    lanes : Lanes
        Whatever is computed with a batch is computed on its compute lane.
    ahead : int
        How many batches are under way while one is used, at least 1.

    Yields
    ------
    name : what came with the batch
    pixels : torch.Tensor
        uint8 (B, 3, h, w) on the device; they hold until the next are asked for.
    """
    slots = [_Slot(lanes) for _ in range(ahead + 1)]
    try:
        for name, slot in run_ahead(_sent(batches, slots), ahead):
            yield name, slot.arrive()
            slot.release()
    finally:  # the device may still read what is about to be given back
        for lane in (lanes.inward, lanes.compute):
            lane.mark().wait()


def _sent(batches: Iterator[tuple[Name, Pixels]], slots: Sequence[_Slot]) -> Iterator[tuple[Name, _Slot]]:
    for number, (name, pixels) in enumerate(batches):
        slot = slots[number % len(slots)]
        slot.send(pixels)
        yield name, slot


def run_ahead(items: Iterable[Item], ahead: int) -> Iterator[Item]:
    """Yield items while a thread has the next ones made.

    Parameters
    ----------
    items : iterable
        Of anything but None; its error is raised where the item would be.
    ahead : int
        How many are made, or are being made, while one is used, at least 1.
    """
    source = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="featx-feed") as thread:
        waiting = deque(thread.submit(next, source, None) for _ in range(ahead))
        try:
            while (item := waiting.popleft().result()) is not None:
                waiting.append(thread.submit(next, source, None))
                yield item
        finally:  # the caller stops early, or Ctrl-C comes
            for future in waiting:
                future.cancel()


class _Slot:
    """Memory for one batch, of the host and of the device."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._host = self._device = torch.empty(0, dtype=torch.uint8)
        self._shape: tuple[int, ...] = ()
        self._arrived: Event | None = None
        self._used: Event | None = None

    def send(self, pixels: Pixels) -> None:
        """Put a batch together and hand it in."""
        if self._used is not None:
            self._used.wait()
        self._shape = (sum(len(part) for part in pixels), *pixels[0].shape[1:])
        n_bytes = int(np.prod(self._shape))
        if len(self._host) < n_bytes:
            self._make_room(n_bytes)
        host, device = self._host[:n_bytes], self._device[:n_bytes]
        np.concatenate(pixels, out=host.numpy().reshape(self._shape))

        def copy() -> None:
            device.copy_(host, non_blocking=True)

        self._lanes.inward.run(copy)
        self._arrived = self._lanes.inward.mark()

    def _make_room(self, n_bytes: int) -> None:
        lanes = self._lanes
        self._host = lanes.host_memory(n_bytes)
        self._device = torch.empty(n_bytes, dtype=torch.uint8, device=lanes.device)
        lanes.inward.wait_for(lanes.compute.mark())  # what had that memory before may still be computed with

    def arrive(self) -> torch.Tensor:
        """Return the batch; the compute lane waits until it is there."""
        assert self._arrived is not None
        self._lanes.compute.wait_for(self._arrived)
        return self._device[: int(np.prod(self._shape))].view(self._shape)

    def release(self) -> None:
        """Let the memory be used again, after what was computed so far."""
        self._used = self._lanes.compute.mark()
