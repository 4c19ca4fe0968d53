"""Reading foreign HDF5 files in a process of its own first.

On a damaged one HDF5 may crash, read for ever, or take gigabytes of memory.

featx's own files carry a seal that is checked before HDF5 sees them; those of other programs carry none.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from featx.errors import InputError

TIME_LIMIT = 60.0
"""Seconds in which HDF5 must hand on the next few megabytes."""

_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from featx.store.trial import read_all; read_all()"
_PIECE = 4096
_FREE_BYTES = 2 << 30  # of address space, which the libraries take a part of


def try_reading(paths: Sequence[Path]) -> None:
    """Have each file read from beginning to end elsewhere.

    Raises
    ------
    InputError
        If HDF5 crashes or hangs on one, or as its reader would: names it.
    """
    # -P: no file in the current folder takes the place of a module, unless it does so here.
    command = [sys.executable, "-P", "-c", _PROGRAM, *sys.path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # a child that died at once
                process.stdin.write(json.dumps([os.fspath(path) for path in paths]).encode())
                process.stdin.close()
            n_begun, is_over, problem = _follow(process.stdout.fileno())
        finally:
            process.kill()
    if problem:
        raise InputError(problem)
    if not is_over:
        raise InputError(
            f"{paths[max(0, n_begun - 1)]}: damaged: HDF5 did not hand on the next rows within {TIME_LIMIT:g} seconds"
        )
    if n_begun <= len(paths):
        raise InputError(f"{paths[max(0, n_begun - 1)]}: damaged: the process in which HDF5 read it died")


def read_all() -> None:
    """Read the files that standard input names: the child's side of `try_reading`."""
    from featx.store.foreign import read_foreign

    def say(sign: bytes) -> None:
        os.write(sys.stdout.fileno(), sign)

    largest = 0
    for path in map(Path, json.load(sys.stdin)):
        say(_FILE)
        with contextlib.suppress(OSError):  # a file that is not there: its reader says so
            largest = max(largest, path.stat().st_size)
        _limit_memory(_FREE_BYTES + 2 * largest)
        try:
            for _ in read_foreign(path).blocks():
                say(_BLOCK)
        except InputError as error:
            say(_PROBLEM + json.dumps(str(error)).encode())
            return
    say(_FILE)


_FILE, _BLOCK, _PROBLEM = b"f", b".", b"!"


def _limit_memory(n_bytes: int) -> None:
    """Have HDF5 refused what a damaged length asks for: so its reader is never asked for it."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard == resource.RLIM_INFINITY or n_bytes < hard:
        resource.setrlimit(resource.RLIMIT_AS, (n_bytes, hard))


def _follow(fd: int) -> tuple[int, bool, str]:
    """Return what the child said.

    Returns
    -------
    n_begun : int
        Files that were begun; one more than there are: all were read.
    is_over : bool
        Whether the child has ended.
    problem : str
        What is wrong with the last file.
    """
    n_begun, said = 0, b""
    while select.select([fd], [], [], TIME_LIMIT)[0]:
        piece = os.read(fd, _PIECE)
        if not piece:
            return n_begun, True, str(json.loads(said[1:])) if said else ""
        signs, sign, rest = (b"", b"", piece) if said else piece.partition(_PROBLEM)
        n_begun += signs.count(_FILE)
        said += sign + rest
    return n_begun, False, ""
