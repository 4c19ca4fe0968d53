"""Ctrl-C while HDF5 is in the middle of something."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class HeldSignals:
    """Holds SIGINT and SIGTERM back until `check` or the end of the block.

    HDF5 calls Python to write its file. An exception that a signal handler raises in there leaves a file object that
    cannot be closed, and may crash the interpreter; so handlers run between the calls instead. Signals without a
    handler in Python are left alone, and outside of the main thread there is nothing to hold: handlers never
    run there.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._caught: list[int] = []

    def check(self) -> None:
        """Let the handlers of what has come so far do what they do: mostly raise."""
        while self._caught:
            number = self._caught.pop(0)
            self._handlers[number](number, None)

    def __enter__(self) -> HeldSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self.check()

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._caught.append(number)
