"""The faults that strike a run from outside: kills, signals, dead and hanging processes, a second run."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from _scene import FAILED_ROWS, FINISHED, Contents, Extraction, Scene, Tally, count_rows, failures

LOCKED = 5
DECODER = b"featx.vision.decoder"
ACTOR = b"ray::Worker"
_EARLY = 0.2
"""Of a run's time: Python itself starts, and answers a signal in its own way, as when it ends."""
_PER_FILE = 3
"""Stops of one file: more would only find it almost finished."""
_LAST_TO_GO = 120.0
"""Seconds: the agents of a Ray cluster whose run was killed notice it after a minute."""


class Faults:
    """Strikes at random moments of one scene.

    Parameters
    ----------
    scene : Scene
        What is extracted.
    options : tuple of str
        More of the command.
    wanted : dict
        The undisturbed file.
    seconds : float
        How long the undisturbed run took: moments are drawn from it.
    rng : random.Random
        Draws them.
    """

    def __init__(
        self, scene: Scene, options: tuple[str, ...], wanted: Contents, seconds: float, rng: random.Random
    ) -> None:
        self._scene, self._options, self._wanted, self._seconds, self._rng = scene, options, wanted, seconds, rng
        self._n_files = 0

    def _next_file(self, tally: Tally, *options: str) -> Extraction:
        self._n_files += 1
        return Extraction(self._scene, f"{id(self)}-{self._n_files}.h5", tally, *self._options, *options)

    def stop(self, number: signal.Signals, n: int, code: int) -> Iterator[Tally]:
        """Stop runs by a signal, each file up to three times; yields after every fault and finished file."""
        tally, family = Tally(), set[int]()
        while tally.tries < n:
            run = self._next_file(tally)
            for is_last in (*[False] * _PER_FILE, True):
                process = run.start()
                moment = self._rng.uniform(0, self._seconds)
                if is_last or tally.tries >= n or run.wait(process, moment):
                    run.wait(process)
                    run.check(process.returncode, (FINISHED,))
                    break
                family.update(_descendants(process.pid))
                process.send_signal(number)
                run.wait(process)
                by_python = moment < _EARLY * self._seconds or run.path.exists()
                if process.returncode != -number or not by_python:
                    run.check(process.returncode, (code, FINISHED))
                run.note_fault()
                yield tally
            tally.compare(run.path, self._wanted)
            yield tally
        _await_end(family, tally)
        yield tally

    def strike_workers(
        self, number: signal.Signals, n: int, *, name: bytes, at_once: int, options: tuple[str, ...] = ()
    ) -> Iterator[Tally]:
        """Send a signal to the processes of runs that go on without them; yields after every finished file.

        Images that failed for it are tried again by a second run, which nobody disturbs.
        """
        tally = Tally()
        while tally.tries < n:
            run = self._next_file(tally, *options)
            process = run.start()
            while tally.tries < n and not run.wait(process, self._rng.uniform(0, self._seconds / 4)):
                if not count_rows(run.path):
                    continue  # it is still starting: its processes have nothing to do yet
                workers = [pid for pid in _descendants(process.pid) if _is_named(pid, name)]
                for pid in self._rng.sample(workers, min(at_once, len(workers))):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                        tally.tries += 1
            run.wait(process)
            run.check(process.returncode, (FINISHED, FAILED_ROWS))
            tally.kept.append(count_rows(run.path))
            again = failures(run.path) if process.returncode == FAILED_ROWS else []
            if process.returncode != FINISHED:
                run.run()
            tally.compare(run.path, self._wanted, again=again)
            yield tally

    def run_twice(self, n: int) -> Iterator[Tally]:
        """Start a second run on the same file while the first is at work, or about to begin."""
        tally = Tally()
        while tally.tries < n:
            run, second = self._next_file(tally), None
            second = Extraction(self._scene, run.path.name, tally, *self._options)
            processes = [run.start()]
            time.sleep(self._rng.choice((0, self._rng.uniform(0, self._seconds))))
            processes.append(second.start())
            run.wait(processes[0])
            second.wait(processes[1])
            for one, process in zip((run, second), processes, strict=True):
                one.check(process.returncode, (FINISHED, LOCKED))
            if all(process.returncode == LOCKED for process in processes):
                tally.remarks.append("both runs were refused")
            tally.tries += 1
            tally.compare(run.path, self._wanted)
            yield tally


def _descendants(pid: int) -> list[int]:
    """Children of a process, theirs, and so on."""
    found, waiting = [], [pid]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                children = [int(word) for word in task.read_text().split()]
                found += children
                waiting += children
    return found


def _is_named(pid: int, name: bytes) -> bool:
    with contextlib.suppress(OSError):
        return name in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _await_end(family: set[int], tally: Tally) -> None:
    """Wait until the processes of runs that were stopped have ended too; note those that have not."""
    deadline = time.monotonic() + _LAST_TO_GO
    while any(map(_is_running, family)) and time.monotonic() < deadline:
        time.sleep(0.02)
    left = [pid for pid in family if _is_running(pid)]
    for pid in left:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
        tally.remarks.append(f"left behind for {_LAST_TO_GO:g} s: {words}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
