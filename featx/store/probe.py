"""Reads foreign HDF5 files once in a process of its own, before this one does.

HDF5 follows what a file says of itself: a damaged one may lead it into a crash, a loop without end or gigabytes of
memory. A feature file has a seal against that, a file of another program has none; so it is read to its end first where
nothing is lost when that goes wrong. What went well there goes well here: it is the same library and the same bytes.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from featx.errors import InputError

QUIET_LIMIT = 60.0
"""Seconds in which a block of some megabytes must have been read, on a slow disk too."""

PROGRAM = "import sys; sys.path[:] = sys.argv[2:]; from featx.store.probe import main; main(sys.argv[1])"
"""For ``python -c``, followed by the files as JSON and ``sys.path``."""

_FREE_BYTES = 2 << 30
_SIGN, _ERROR = b".", b"!"


def check_readable(paths: Sequence[Path], *, program: str = PROGRAM) -> None:
    """Have files read as `featx.store.foreign` reads them.

    Parameters
    ----------
    paths : sequence of Path
        HDF5 files.
    program : str
        Another one than `PROGRAM`.

    Raises
    ------
    InputError
        If one cannot be read to its end.
    """
    command = [sys.executable, "-P", "-c", program, json.dumps([str(path) for path in paths]), *sys.path]
    with (
        tempfile.TemporaryFile() as stderr,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        ) as process,
    ):
        try:
            n_read, said = _follow(process)
        finally:
            process.kill()
        if said is None:
            raise InputError(f"{_nth(paths, n_read)}: HDF5 does not come to an end with it; the file is damaged")
        if said:
            raise InputError(said)
        code = process.wait()
        if code:
            stderr.seek(0)
            raise InputError(f"{_nth(paths, n_read)}: {_died(code, stderr.read())}")


def main(paths: str) -> None:
    """Read files and give signs of life on stdout: a dot for a block, the number of a file that is done, an error."""
    from featx.store.foreign import read_foreign

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    largest = 0
    for text in json.loads(paths):
        path = Path(text)
        try:
            largest = max(largest, path.stat().st_size)
            _limit_memory(_FREE_BYTES + 2 * largest)
            for _ in read_foreign(path).blocks():
                _say(_SIGN)
        except InputError as error:
            _say(_ERROR + json.dumps(str(error)).encode())
            return
        except OSError as error:
            _say(_ERROR + json.dumps(f"{path}: cannot be read ({error.strerror})").encode())
            return
        _say(b"\n")


def _limit_memory(n_bytes: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard == resource.RLIM_INFINITY or n_bytes < hard:
        resource.setrlimit(resource.RLIMIT_AS, (n_bytes, hard))


def _say(words: bytes) -> None:
    os.write(1, words)


def _follow(process: subprocess.Popen[bytes]) -> tuple[int, str | None]:
    """Return how many files were read, and an error (``""``: none); None: it has given no sign of life for too long."""
    assert process.stdout is not None
    said = b""
    while select.select([process.stdout], [], [], QUIET_LIMIT)[0]:
        piece = os.read(process.stdout.fileno(), 65536)
        if not piece:
            files, _, error = said.partition(_ERROR)
            return files.count(b"\n"), str(json.loads(error)) if error else ""
        said += piece
    return said.count(b"\n"), None


def _nth(paths: Sequence[Path], n: int) -> Path:
    return paths[min(n, len(paths) - 1)]


def _died(code: int, stderr: bytes) -> str:
    if code < 0:
        return f"HDF5 crashes on it ({signal.strsignal(-code)}); the file is damaged"
    lines = stderr.decode(errors="replace").strip().splitlines()
    return f"the process that looks whether it can be read failed: {lines[-1] if lines else f'exit code {code}'}"
