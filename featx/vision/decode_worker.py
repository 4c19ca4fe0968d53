"""The parent's end of a decoding process: start it, ask it, know why it died."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx import errors
from featx.errors import FeatxError
from featx.store.records import LedgerEntry
from featx.vision.decoder import LENGTHS, PROGRAM
from featx.vision.pixels import Outcome

START_LIMIT = 120.0
"""Seconds in which a process must be ready; on a loaded machine with a slow disk it may take many."""

_PIPE_BYTES = 512 * 1024  # the pixels of three images of 224 x 224; a pipe holds 64 KiB unless it is told
_F_SETPIPE_SZ = 1031  # fcntl.h of Linux; Python has no name for it everywhere
_MOST_JSON = 1 << 20  # bytes; more was not written by a process in its right mind
_MOST_PIXELS = 1 << 31
_ENVIRONMENT = {
    # There is one process for each core.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # glibc otherwise hands the memory of every image back to the kernel, to take it again for the next one: a quarter
    # of the time of a photograph of 500 x 375 pixels. Up to 64 MB stay; what is larger than 32 MB goes back at once.
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
}
"""Of a decoding process, where the user has not set them."""


class DecoderDiedError(Exception):
    """The process ended before it answered; the message says how."""


class DecoderTimeoutError(Exception):
    """The process did not answer in time."""


def default_command() -> list[str]:
    """Return the command that starts `featx.vision.decoder` so that it finds what this process found."""
    # -P: no file in the current folder takes the place of a module, unless it does so here.
    return [sys.executable, "-P", "-c", PROGRAM, str(os.getpid()), *sys.path]


class DecodeWorker:
    """One process. A thread asks, another one may kill.

    Parameters
    ----------
    command : sequence of str
        See `default_command`.

    Attributes
    ----------
    command : sequence of str
        As given.

    Raises
    ------
    OSError
        If the process cannot be started.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.command = command
        self._greeting = b""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,
                env=_ENVIRONMENT | os.environ,
            )
        except BaseException:
            self._stderr.close()
            raise
        self._requests, self._answers = _raw(self._process.stdin), _raw(self._process.stdout)
        self._poll = select.poll()
        self._poll.register(self._answers, select.POLLIN)
        _widen(self._answers.fileno())

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def greet(self, greeting: bytes) -> None:
        """Send a greeting, unless it was the last one, and wait until the process is ready.

        Raises
        ------
        DecoderDiedError, DecoderTimeoutError
            If it is never.
        """
        if greeting != self._greeting:
            deadline = time.monotonic() + START_LIMIT
            self._write(greeting)
            self._receive(deadline)
            self._greeting = greeting

    def ask(self, request: bytes, time_limit: float) -> list[Outcome]:
        """Send one request and wait for the outcomes.

        Raises
        ------
        DecoderDiedError
            If the process ends instead.
        DecoderTimeoutError
            If there is no answer after `time_limit` seconds; the process is of no use any more.
        FeatxError
            What the process raised, where it is not the image's fault.
        """
        deadline = time.monotonic() + time_limit
        self._write(request)
        message, pixels = self._receive(deadline)
        if "error" in message:
            raise _rebuilt(message)
        outcomes, start = [], 0
        for told in message["outcomes"]:
            array = None
            if told["shape"] is not None:
                stop = start + int(np.prod(told["shape"]))
                array = pixels[start:stop].reshape(told["shape"])
                start = stop
            outcomes.append(Outcome(LedgerEntry(**told["entry"]), array))
        return outcomes

    def close(self) -> None:
        """Kill the process, which keeps nothing, and wait for its end."""
        self._process.kill()
        self._process.wait()
        for stream in (self._requests, self._answers, self._stderr):
            stream.close()

    def kill(self) -> None:
        """Kill the process; a thread that waits for its answer is told that it died."""
        self._process.kill()

    def _write(self, data: bytes) -> None:
        try:
            self._requests.write(data)
        except OSError as error:
            raise DecoderDiedError(self._cause()) from error

    def _receive(self, deadline: float) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        head = bytearray(LENGTHS.size)
        self._fill(memoryview(head), deadline)
        n_json, n_pixels = LENGTHS.unpack(head)
        if n_json > _MOST_JSON or n_pixels > _MOST_PIXELS:
            raise DecoderDiedError("answered nonsense")
        data, pixels = bytearray(n_json), np.empty(n_pixels, np.uint8)
        self._fill(memoryview(data), deadline)
        self._fill(pixels.data, deadline)
        message: dict[str, Any] = json.loads(data)
        if "died" in message:
            raise DecoderDiedError(message["died"])
        return message, pixels

    def _fill(self, view: memoryview, deadline: float) -> None:
        while view:
            left = deadline - time.monotonic()
            if left <= 0 or not self._poll.poll(min(1000 * left, 2**31 - 1)):
                if deadline <= time.monotonic():
                    raise DecoderTimeoutError
                continue
            n = self._answers.readinto(view)
            if not n:
                raise DecoderDiedError(self._cause())
            view = view[n:]

    def _cause(self) -> str:
        code = self._process.wait()
        if code < 0:
            return f"signal {-code} ({signal.strsignal(-code)})"
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f"exit code {code}" + (f" ({lines[-1]})" if lines else "")


def _raw(pipe: object) -> io.FileIO:
    assert isinstance(pipe, io.FileIO)
    return pipe


def _rebuilt(message: dict[str, Any]) -> FeatxError:
    """Return the error of the tree in `featx.errors` that another process raised."""
    kind = getattr(errors, message["error"])
    error: FeatxError = kind.__new__(kind, message["message"])
    vars(error).update(message["facts"])
    return error


def _widen(pipe: int) -> None:
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):  # beyond what the user may have in all: it works with less
            fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIPE_BYTES)
