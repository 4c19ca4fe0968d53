"""The ``featx`` command: finds the subcommand, and turns errors and signals into exit codes."""

from __future__ import annotations

import importlib
import io
import logging
import os
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

import click

from featx.cli import output
from featx.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, FeatxError
from featx.version import __version__

# A table instead of imports: `featx --help` must not pay for torch or scikit-learn.
COMMANDS = {
    "demo": "Run the whole job on real images, with no options and no network.",
    "extract": "Turn a folder or table of images into a file of features.",
    "rank": "Rank feature files of the same images: which backbone suits the labels?",
    "lock": "Keep a part of a feature file for one last test, and count every look at it.",
    "fewshot": "What few labels give, what more would bring, and which to get next.",
    "audit": "Look for shortcuts, sites where scores do not hold, and wrong labels.",
    "fit": "Train and cross-validate a head on a feature file.",
    "finetune": "Train the network itself, and keep that only where it wins.",
    "predict": "Classify new images with a saved bundle.",
    "info": "Show what is in a feature file or a bundle.",
    "cache": "Look after feature files: list, check, clean up, join, export, import.",
    "heads": "List the heads, and what is tried of each.",
    "backbones": "List the backbones, or the nodes of one.",
}


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C but with its own exit code."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the job, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module named like the command and return its ``command``."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"featx.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Name close matches for a command that does not exist."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from featx.errors import UnknownNameError

            raise UnknownNameError("command", args[0], COMMANDS, hint="featx --help lists them")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Print the table without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="The first thing to try: featx demo.  Exit codes: 0 done, 1 other, 2 usage, 3 missing extra, 4 input, "
    "5 feature file, 6 bundle, 7 weights, 8 finished with failed images, 130 Ctrl-C, 143 SIGTERM.",
)
@click.version_option(__version__, prog_name="featx")
def featx() -> None:
    """From a folder of labelled images to a classifier you can defend.

    \b
    Example:
      featx extract photos/ -o cache/photos.h5
      featx fit cache/photos.h5 -o photos.featx
      featx predict photos.featx new-photos/ -o predictions.csv
    """


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and exit the process with the documented code."""
    signal.signal(signal.SIGTERM, _raise_terminated)
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it logs of a broken image is in the ledger
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no reason to fail
    try:
        code = featx.main(args=args, prog_name="featx", standalone_mode=False)
        sys.stdout.flush()
    except FeatxError as error:
        _fail(str(error), error.exit_code, error)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code, error)
    except (KeyboardInterrupt, click.Abort) as error:
        # click turns KeyboardInterrupt into Abort and keeps it as the cause
        terminated = isinstance(error, Terminated) or isinstance(error.__cause__ or error.__context__, Terminated)
        _fail("terminated" if terminated else "interrupted", EXIT_TERMINATED if terminated else EXIT_INTERRUPTED, error)
    except BrokenPipeError:
        # The reader of a pipe went away: nothing to say, and nothing to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:  # what no part of featx expects: a name that is too long, a disk that fails, /dev/full
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), FeatxError.exit_code, error)
    sys.exit(code if isinstance(code, int) else 0)


def _raise_terminated(signum: int, frame: FrameType | None) -> None:
    raise Terminated


def _fail(message: str, code: int, error: BaseException) -> NoReturn:
    output.say_error(message)
    context = getattr(error, "ctx", None)
    if context is not None:
        output.say(f"{context.command_path} --help shows the options" if context.parent else "featx --help")
    if "--json" in sys.argv:
        output.print_json({"error": {"type": type(error).__name__, "message": message, "exit_code": code}})
    sys.exit(code)
