"""``featx lock``."""

from __future__ import annotations

from typing import Any

import click

from featx.cli import lock_report, options, output
from featx.errors import UsageError


@click.command("lock")
@click.argument("file", metavar="FILE.h5", type=click.Path())
@click.option("--fraction", type=float, metavar="F",
    help="Share of the samples of each class.  [default: 0.2; or the file's test split]")  # fmt: skip
@click.option("--split", type=click.Choice(["auto", "ignore"]), default="auto", show_default=True,
    help="auto: a test split of the file is what is locked; ignore: draw from all samples.")  # fmt: skip
@click.option("--like", metavar="OTHER.h5", type=click.Path(),
    help="Lock what another feature file of the same images has locked, with its looks.")  # fmt: skip
@click.option("--group-near-duplicates", is_flag=True,
    help="Leave no near-duplicate of a locked image open.")  # fmt: skip
@click.option(
    "--near-duplicate-distance", type=click.FloatRange(0, 2), metavar="D",
    help="Largest cosine distance of centred features that counts as near.  [default: from the data, printed]",
)  # fmt: skip
@click.option("--random-state", type=int, default=0, show_default=True, help="Seeds the draw.")
@click.option("--open", "bundle", metavar="NAME.featx", type=click.Path(),
    help="Score this classifier on the locked part. The look is counted and dated in FILE.h5.")  # fmt: skip
@options.json_option
@click.pass_context
def command(context: click.Context, /, file: str, bundle: str | None, as_json: bool, **values: Any) -> int:
    """Keep a part of FILE.h5 for one last test, and count every look at it.

    Whole groups are locked, about the same share of each class. From then on featx fit leaves them
    out, and whatever else reads labels does too; the lock stays when featx extract brings the file
    up to date. --open scores a saved classifier on the locked part: look no. 1, no. 2, ...

    \b
    Example:
      featx lock cache/scans.h5 --fraction 0.2
      featx fit cache/scans.h5 -o scans.featx
      featx lock cache/scans.h5 --open scans.featx
    """
    from featx.lock import LockOptions, lock, open_locked

    if bundle is not None:
        given = [
            f"--{name.replace('_', '-')}"
            for name in values
            if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        ]
        if given:
            raise UsageError(f"{given[0]} has no meaning beside --open: what is locked has been decided")
        look = open_locked(file, bundle)
        if as_json:
            output.print_json(look.to_dict())
        else:
            lock_report.print_look(look)
        return 0
    done = lock(file, LockOptions(**values))
    if as_json:
        output.print_json(done.to_dict())
    else:
        lock_report.print_lock(done)
    return 0
