"""Decoding processes between two pools: whoever reads one image after another does not start one for each."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from featx.errors import FeatxError
from featx.vision.decode_worker import DecodeWorker

_MOST = 16
"""That wait at a time; each holds some 35 MB, and ends by itself when nothing comes for long."""


class SpareWorkers:
    """Starts decoding processes, and keeps those that are idle.

    All are started by one thread that lives as long as this process: they are to end when the thread that started them
    ends (see `featx.vision.decoder`), and that must not be one of a pool.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, as a forked child must: neither the processes nor the thread that starts them are its own."""
        self._lock = threading.Lock()
        self._spares: list[DecodeWorker] = []
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="featx-starter")

    def take(self, command: Sequence[str]) -> DecodeWorker:
        """Return a process that runs `command`: an idle one, or a new one.

        Raises
        ------
        FeatxError
            If the operating system starts none.
        """
        with self._lock:
            fitting = next((worker for worker in self._spares if worker.command == command), None)
            if fitting is not None:
                self._spares.remove(fitting)
        if fitting is not None:
            if fitting.is_alive:
                return fitting
            fitting.close()
            return self.take(command)
        try:
            return self._starter.submit(DecodeWorker, command).result()
        except OSError as error:
            raise FeatxError(
                f"the process that decodes images cannot be started: {error.strerror}; --num-workers 0 does without"
            ) from error

    def prepare(self, command: Sequence[str], n: int) -> None:
        """Have n processes ready soon; does not wait for them."""
        self._starter.submit(self._prepare, command, min(n, _MOST))

    def _prepare(self, command: Sequence[str], n: int) -> None:
        for _ in range(n - sum(worker.command == command for worker in self._spares)):
            self.put(DecodeWorker(command))

    def put(self, worker: DecodeWorker) -> None:
        """Keep a process for the next `take`."""
        with self._lock:
            is_kept = worker.is_alive and len(self._spares) < _MOST
            if is_kept:
                self._spares.append(worker)
        if not is_kept:
            worker.close()

    def close(self) -> None:
        """End all that wait."""
        with self._lock:
            spares, self._spares = self._spares, []
        for worker in spares:
            worker.close()


SPARES = SpareWorkers()
"""Of this process."""

atexit.register(SPARES.close)
os.register_at_fork(after_in_child=SPARES.forget)
