"""A command that several processes run together, as torchrun starts them: one of them speaks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featx.errors import EXIT_INTERRUPTED, FeatxError

if TYPE_CHECKING:
    from featx.vision.tuning.ranks import Ranks


@contextlib.contextmanager
def together() -> Iterator[Ranks]:
    """Join the other processes, where torchrun has started any; only the first of them prints.

    Of errors and interruptions the process speaks that meets one first: torchrun then ends the others.
    """
    from featx.vision.tuning.ranks import joined

    with joined() as here:
        try:
            with _silent(not here.ranks.is_first):
                yield here.ranks
        except (FeatxError, OSError, KeyboardInterrupt) as error:
            if here.fails_first():
                raise
            code = error.exit_code if isinstance(error, FeatxError) else EXIT_INTERRUPTED
            raise click.exceptions.Exit(code) from error


@contextlib.contextmanager
def _silent(is_silent: bool) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if is_silent:
            nowhere = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield
