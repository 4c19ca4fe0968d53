"""A device that does its work late, and in whatever order its lanes allow: like a GPU on its worst day, on the CPU."""

import random
import threading
from collections import deque

import torch


class DeferredEvent:
    def __init__(self, lanes, name):
        self.lanes, self.name, self.reached = lanes, name, False

    def wait(self):
        with self.lanes.lock:
            self.lanes.waits += 1
            while not self.reached:
                self.lanes.step()


class DeferredLane:
    def __init__(self, lanes, name):
        self.lanes, self.name, self.queue, self.n_marks = lanes, name, deque(), 0

    def run(self, work):
        with self.lanes.lock:
            self.queue.append(("run", work))
            self.lanes.handed_in(self)

    def wait_for(self, event):
        with self.lanes.lock:
            self.queue.append(("wait", event))

    def mark(self):
        with self.lanes.lock:
            event = DeferredEvent(self.lanes, f"{self.name} {self.n_marks}")
            self.n_marks += 1
            self.queue.append(("mark", event))
            return event

    @property
    def is_ready(self):
        while self.queue and self.queue[0][0] == "wait" and self.queue[0][1].reached:
            self.queue.popleft()
        return bool(self.queue) and self.queue[0][0] != "wait"

    def step(self):
        kind, what = self.queue.popleft()
        if kind == "mark":
            what.reached = True
            self.lanes.log.append(what.name)
        else:
            what()


class DeferredLanes:
    """The lanes of a device whose work is done only when somebody waits for it.

    Parameters
    ----------
    choose : random.Random
        Which lane goes on when several can.
    at_once : bool
        Whether work that can be done is done when it is handed in, so that its errors come then, as on CUDA.
    """

    def __init__(self, choose=None, *, at_once=False):
        self.device = torch.device("cpu")
        self.choose, self.at_once = choose or random.Random(0), at_once
        self.inward, self.compute, self.outward = (DeferredLane(self, n) for n in ("inward", "compute", "outward"))
        self.lock = threading.RLock()  # lanes may be used by several threads
        self.log, self.waits, self.released = [], 0, 0
        self.before_release = None

    @property
    def ready(self):
        return [lane for lane in (self.inward, self.compute, self.outward) if lane.is_ready]

    def step(self):
        self.choose.choice(self.ready).step()

    def handed_in(self, lane):
        while self.at_once and self.ready:
            self.step()

    def host_memory(self, n_bytes):
        return torch.full((n_bytes,), 0xA5, dtype=torch.uint8)

    def release(self):
        if self.before_release is not None:
            self.before_release()
        self.released += 1
