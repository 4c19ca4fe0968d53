"""Damages files by the thousand, one seed each, and watches in processes of its own what featx says of them."""

import collections
import contextlib
import json
import os
import queue
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _kinds
from _image_kinds import FailedRow

READ, REFUSED = "read", "refused"
GOOD = (READ, REFUSED)
TIME_LIMIT = 150.0
"""Seconds for one case: far more than any takes, on a loaded machine too."""
START_LIMIT = 300.0
MOST_MEMORY = 3 << 30
"""Bytes that a process may grow to in all; an image of Pillow's largest size takes one and a half GiB to convert."""


@dataclass(frozen=True)
class Case:
    """What became of one damaged file.

    Attributes
    ----------
    seed : int
        Makes the same file again, with the same versions of the libraries that wrote the sound one.
    kind : str
        A name of `_kinds.KINDS`.
    outcome : str
        ``"read"``, ``"refused"`` (by one of featx's own errors), or what must not be.
    detail : str
        The error's words, or a traceback.
    """

    seed: int
    kind: str
    outcome: str
    detail: str

    @property
    def is_good(self) -> bool:
        return self.outcome in GOOD


def kinds_here() -> list[str]:
    return [name for name, kind in _kinds.KINDS.items() if kind.is_there]


def kind_of(seed: int, kinds: list[str]) -> str:
    return kinds[seed % len(kinds)]


# ---- in the child


def serve(folder: Path) -> None:
    """Answer seeds on stdin with cases on stdout, one line each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (4 * MOST_MEMORY, resource.RLIM_INFINITY))
    kinds = kinds_here()
    bench = _Bench(folder)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        seed = int(line)
        outcome, detail = bench.run(seed, kind_of(seed, kinds))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if grown > MOST_MEMORY and outcome in GOOD:
            outcome, detail = "memory", f"{grown / 2**30:.1f} GiB"
        print(json.dumps([seed, outcome, detail]), file=answers, flush=True)


class _Bench:
    """Sound files of all kinds, written when they are first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._samples: dict[str, list[Path]] = {}
        self._sound: dict[tuple[str, Path], Any] = {}

    def run(self, seed: int, name: str) -> tuple[str, str]:
        rng = random.Random(seed)
        kind = _kinds.KINDS[name]
        source = self._folder / "sound" / str(list(_kinds.KINDS).index(name))
        if name not in self._samples:
            shutil.rmtree(source, ignore_errors=True)
            source.mkdir(parents=True)
            self._samples[name] = kind.samples(source)
        samples = self._samples[name]
        sample = samples[seed // len(_kinds.KINDS) % len(samples)]
        wanted = self._read_sound(name, sample, source)
        others = [path.read_bytes() for path in samples] + [b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", bytes(64)]
        data = rng.choice(kind.ways)(sample.read_bytes(), rng, others)
        path = _kinds.copy_for_damage(sample, source, self._folder / "damaged")
        path.write_bytes(data)
        outcome, detail, found = _try(kind, path)
        if outcome == READ and found is not None and found != wanted:
            return "wrong", f"{path.name} of {name} was read, and gave other values than the sound file"
        return outcome, detail

    def _read_sound(self, name: str, sample: Path, source: Path) -> Any:
        """Read a sample as it is, which must go well, or nothing is learnt from what becomes of it."""
        if (name, sample) not in self._sound:
            path = _kinds.copy_for_damage(sample, source, self._folder / "damaged")
            outcome, detail, found = _try(_kinds.KINDS[name], path)
            if outcome != READ:
                raise SystemExit(f"a sound file of {name} ({sample.name}) is {outcome}: {detail}")
            self._sound[name, sample] = found
        return self._sound[name, sample]


def _try(kind: _kinds.Kind, path: Path) -> tuple[str, str, Any]:
    from featx.errors import FeatxError

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = kind.read(path)
    except (FeatxError, FailedRow) as error:
        with contextlib.suppress(UnicodeEncodeError):
            str(error).encode()
            return REFUSED, str(error), None
        return "unprintable", ascii(str(error)), None
    except BaseException as error:  # noqa: BLE001  this is what is looked for
        return type(error).__name__, traceback.format_exc(), None
    if caught:
        return "warning", "\n".join(f"{one.category.__name__}: {one.message} ({one.filename})" for one in caught), None
    return READ, "", found


# ---- in the parent


class _Child:
    """A process that tries one case at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    def ask(self, seed: int, kind: str) -> Case:
        if self._process is None:
            self._process = self._start()
        assert self._process.stdin is not None
        try:
            print(seed, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            return Case(seed, kind, *self._death())
        line = self._line(TIME_LIMIT)
        if line is None:
            self.close()
            return Case(seed, kind, "hang", f"no answer in {TIME_LIMIT:g} s")
        if not line:
            return Case(seed, kind, *self._death())
        found = json.loads(line)
        if found[1] == "memory":
            self.close()  # what it has had, it keeps: the next case needs a new one
        return Case(seed, kind, found[1], found[2])

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._forget()

    def _forget(self) -> str:
        """Let a process that has ended go; returns the end of what it said on stderr."""
        assert self._process is not None
        self._process.communicate()
        self._process = None
        with self._stderr:
            self._stderr.seek(0)
            return self._stderr.read()[-3000:]

    def _start(self) -> "subprocess.Popen[str]":
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
        self._stderr = (self._folder / "stderr").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            bufsize=1,
            env=environment,
        )
        if not self._line(START_LIMIT):
            raise SystemExit(f"the process that tries damaged files does not start: {self._death()}")
        return self._process

    def _line(self, seconds: float) -> str | None:
        assert self._process is not None
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        return self._process.stdout.readline() if ready else None

    def _death(self) -> tuple[str, str]:
        assert self._process is not None
        code = self._process.wait()
        said = self._forget()
        return "crash", (f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}") + f"\n{said}"


def try_cases(seeds: Iterable[int], *, n_processes: int = 1) -> Iterator[Case]:
    """Yield what became of each seed's file, in the order in which they are done."""
    kinds, waiting = kinds_here(), iter(seeds)
    done: queue.Queue[Case | BaseException | None] = queue.Queue()
    lock = threading.Lock()
    stop = threading.Event()

    def work(folder: Path) -> None:
        child = _Child(folder)
        try:
            while not stop.is_set():
                with lock:
                    seed = next(waiting, None)
                if seed is None:
                    break
                done.put(child.ask(seed, kind_of(seed, kinds)))
        except BaseException as error:  # noqa: BLE001  raised where the cases are wanted
            done.put(error)
        finally:
            child.close()
            done.put(None)

    with tempfile.TemporaryDirectory() as scratch:
        threads = []
        for number in range(n_processes):
            folder = Path(scratch, str(number))
            folder.mkdir()
            threads.append(threading.Thread(target=work, args=(folder,)))
            threads[-1].start()
        left = len(threads)
        try:
            while left:
                case = done.get()
                if isinstance(case, BaseException):
                    raise case
                if case is None:
                    left -= 1
                else:
                    yield case
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def table(cases: Iterable[Case]) -> str:
    """Count the outcomes by kind, as a table."""
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for case in cases:
        counts[case.kind][case.outcome if case.is_good else "else"] += 1
    lines = ["| damaged files | tried | still readable | refused by featx's own errors | anything else |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    total: collections.Counter[str] = collections.Counter()
    for kind in (name for name in _kinds.KINDS if name in counts):
        found = counts[kind]
        total += found
        lines.append(f"| {kind} | {found.total():,} | {found[READ]:,} | {found[REFUSED]:,} | {found['else']:,} |")
    lines.append(f"| all | {total.total():,} | {total[READ]:,} | {total[REFUSED]:,} | {total['else']:,} |")
    return "\n".join(lines)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
