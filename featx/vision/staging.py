"""Batches on their way through a device that works beside the caller: in, computed and out again, each on its own lane.

While the device computes one batch, the next one's pixels are copied to it and the last one's features back. A lane is
a queue of work in order (a CUDA stream); lanes run side by side, and one waits for another only through an event.
Nothing here depends on how long anything takes:

- host memory goes round in a ring of slots; a slot is used again only after its batch's last event;
- a batch holds its tensors on the device until that event too, so that their memory serves nothing else before;
- a batch's result is copied out of its slot before the slot is used again, whether somebody asked for it or not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

Compute = Callable[[torch.Tensor], Sequence[torch.Tensor]]
"""From a batch's bytes on the device, uint8 (n_bytes,), to float32 tensors on the device."""


class Event(Protocol):
    """A point in a lane's work."""

    def wait(self) -> None:
        """Block the caller until the lane has come there."""


class Lane(Protocol):
    """Work that a device does in order."""

    def run(self, work: Callable[[], None]) -> None:
        """Hand in work that queues operations of the device."""

    def wait_for(self, event: Event) -> None:
        """Let what is handed in from now on wait for another lane's event."""

    def mark(self) -> Event:
        """Return the point after all that was handed in so far."""


class Lanes(Protocol):
    """A device as staging sees it.

    Attributes
    ----------
    device : torch.device
        Where tensors are allocated.
    inward, compute, outward : Lane
        For copies to the device, computation, and copies back.
    """

    device: torch.device
    inward: Lane
    compute: Lane
    outward: Lane

    def host_memory(self, n_bytes: int) -> torch.Tensor:
        """Return uint8 (n_bytes,) of the host's memory from and to which the device copies by itself."""

    def release(self) -> None:
        """Give memory of the device that nothing uses back to it."""


class Flight:
    """A batch on its way."""

    def __init__(self, slot: _Slot) -> None:
        self.slot = slot
        self.pixels: torch.Tensor | None = None
        self.outputs: Sequence[torch.Tensor] = ()
        self.landed: list[torch.Tensor] = []
        self.done: Event | None = None
        self.arrays: list[NDArray[np.float32]] | None = None


class _Slot:
    """Host memory for one batch's way in and out."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._inward = self._outward = torch.empty(0, dtype=torch.uint8)
        self.flight: Flight | None = None

    def inward(self, n_bytes: int) -> torch.Tensor:
        if len(self._inward) < n_bytes:
            self._inward = self._lanes.host_memory(n_bytes)
        return self._inward[:n_bytes]

    def outward(self, n_floats: int) -> torch.Tensor:
        if len(self._outward) < 4 * n_floats:
            self._outward = self._lanes.host_memory(4 * n_floats)
        return self._outward[: 4 * n_floats].view(torch.float32)


class Stager:
    """Keeps a device busy: takes the next batches while it computes.

    May be used by several threads at once.

    Parameters
    ----------
    lanes : Lanes
        The device.
    ahead : int
        How many batches are handed in before the first one's result is taken, at least 1.
    """

    def __init__(self, lanes: Lanes, *, ahead: int = 2) -> None:
        self._lanes = lanes
        self._lock = threading.RLock()
        self._slots = [_Slot(lanes) for _ in range(ahead + 1)]
        self._reserved: tuple[_Slot, NDArray[np.uint8]] | None = None

    def buffer(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return an array of host memory that `launch` takes without copying it once more.

        It holds until the next call of `buffer` or until it is launched; a launch that fails leaves it as it is.
        """
        with self._lock:
            slot = self._reserved[0] if self._reserved is not None else self._free_slot()
            array: NDArray[np.uint8] = slot.inward(int(np.prod(shape))).numpy().reshape(shape)
            self._reserved = slot, array
            return array

    def launch(self, parts: Sequence[NDArray[np.uint8]], compute: Compute) -> Flight:
        """Send a batch on its way.

        Parameters
        ----------
        parts : sequence of uint8 array
            They arrive on the device one behind another, as one row of bytes.
        compute : callable
            See `Compute`; it runs on the compute lane.

        Returns
        -------
        Flight
            For `land`.
        """
        with self._lock:
            is_reserved = self._reserved is not None and len(parts) == 1 and parts[0] is self._reserved[1]
            slot = self._reserved[0] if self._reserved is not None and is_reserved else self._free_slot()
            host = slot.inward(sum(part.nbytes for part in parts))
            if not is_reserved:
                start = 0
                for part in parts:
                    host[start : start + part.nbytes] = torch.from_numpy(np.ascontiguousarray(part)).reshape(-1)
                    start += part.nbytes
            flight = Flight(slot)
            self._fly(flight, host, compute)
            if is_reserved:
                self._reserved = None
            slot.flight = flight
            return flight

    def land(self, flight: Flight) -> list[NDArray[np.float32]]:
        """Wait for a batch, and return what was computed in arrays of their own."""
        done = flight.done
        if done is not None:
            done.wait()  # not under the lock: another thread may launch meanwhile
        with self._lock:
            if flight.arrays is None:
                flight.arrays = [landed.numpy().copy() for landed in flight.landed]
                flight.pixels, flight.outputs, flight.landed, flight.done = None, (), [], None
                if flight.slot.flight is flight:
                    flight.slot.flight = None
            return flight.arrays

    def recover(self) -> None:
        """Land every batch and give memory back, after a launch that failed for want of it."""
        with self._lock:
            for slot in self._slots:
                if slot.flight is not None:
                    self.land(slot.flight)
            for lane in (self._lanes.inward, self._lanes.compute, self._lanes.outward):
                lane.mark().wait()  # also what belongs to the launch that failed
            self._lanes.release()

    def _fly(self, flight: Flight, host: torch.Tensor, compute: Compute) -> None:
        lanes = self._lanes

        def copy_in() -> None:
            flight.pixels = torch.empty_like(host, device=lanes.device).copy_(host, non_blocking=True)

        def run() -> None:
            assert flight.pixels is not None
            flight.outputs = compute(flight.pixels)

        def copy_out() -> None:
            room = flight.slot.outward(sum(output.numel() for output in flight.outputs))
            start = 0
            for output in flight.outputs:
                part = room[start : start + output.numel()].view(output.shape)
                part.copy_(output, non_blocking=True)
                flight.landed.append(part)
                start += output.numel()

        lanes.inward.run(copy_in)
        lanes.compute.wait_for(lanes.inward.mark())
        lanes.compute.run(run)
        lanes.outward.wait_for(lanes.compute.mark())
        lanes.outward.run(copy_out)
        flight.done = lanes.outward.mark()

    def _free_slot(self) -> _Slot:
        """Return the slot that was used longest ago, its batch landed; never the one that `buffer` gave away."""
        kept = self._reserved[0] if self._reserved is not None else None
        slot = next(slot for slot in self._slots if slot is not kept)
        self._slots.remove(slot)
        self._slots.append(slot)
        if slot.flight is not None:
            self.land(slot.flight)
        return slot


class CudaLanes:
    """The three lanes of an NVIDIA GPU: CUDA streams, with page-locked host memory.

    Parameters
    ----------
    device : torch.device
        Of type cuda.
    computes_here : bool
        Whether the compute lane is the caller's current stream, and not one of its own.
    """

    def __init__(self, device: torch.device, *, computes_here: bool = False) -> None:
        self.device = device
        self.inward: Lane = _CudaLane(device)
        self.compute: Lane = _CudaLane(device, torch.cuda.current_stream(device) if computes_here else None)
        self.outward: Lane = _CudaLane(device)

    def host_memory(self, n_bytes: int) -> torch.Tensor:
        """Return page-locked memory."""
        return torch.empty(n_bytes, dtype=torch.uint8, pin_memory=True)

    def release(self) -> None:
        """Empty the allocator's cache."""
        with torch.cuda.device(self.device):
            torch.cuda.empty_cache()


class _CudaLane:
    def __init__(self, device: torch.device, stream: torch.cuda.Stream | None = None) -> None:
        self._stream = stream or torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        if stream is None:  # what was put on the device before (the weights) is there when the lane begins
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def run(self, work: Callable[[], None]) -> None:
        with torch.cuda.stream(self._stream):
            work()

    def wait_for(self, event: Event) -> None:
        assert isinstance(event, _CudaEvent)
        self._stream.wait_event(event.event)

    def mark(self) -> Event:
        event = _CudaEvent()
        event.event.record(self._stream)
        return event


class _CudaEvent:
    def __init__(self) -> None:
        # The waiting thread sleeps: the cores are for the decoders.
        self.event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        self.event.synchronize()
