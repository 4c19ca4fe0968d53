"""Reading foreign HDF5 files in a process of its own first: HDF5 may crash on a damaged file, or follow it for ever.

featx's own files carry a seal that is checked before HDF5 sees them; those of other programs carry none.
"""

from __future__ import annotations

import contextlib
import json
import os
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


def try_reading(paths: Sequence[Path]) -> None:
    """Have each file read from beginning to end elsewhere; what is wrong with it in other ways is left to its reader.

    Raises
    ------
    InputError
        If HDF5 crashes or hangs on one; names it.
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
            n_begun, is_over = _follow(process.stdout.fileno())
        finally:
            process.kill()
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

    for path in json.load(sys.stdin):
        say(_FILE)
        try:
            for _ in read_foreign(Path(path)).blocks():
                say(_BLOCK)
        except InputError:
            continue  # its reader finds the same
    say(_FILE)


_FILE, _BLOCK = b"f", b"."


def _follow(fd: int) -> tuple[int, bool]:
    """Return how many files were begun (one more than there are: all were read), and whether the child has ended."""
    n_begun = 0
    while select.select([fd], [], [], TIME_LIMIT)[0]:
        signs = os.read(fd, _PIECE)
        if not signs:
            return n_begun, True
        n_begun += signs.count(_FILE)
    return n_begun, False
