"""How a race between backbones looks on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from featx.cli import output

if TYPE_CHECKING:
    from featx.learn.race_account import RaceAccount, RaceLine

LONGEST_NAME = 24  # letters of a backbone
LONGEST_IN_RUNGS = 15  # where a line has more to hold
MOST_KEYS = 10


def print_race(race: RaceAccount) -> None:
    """Print who was dropped where and why, and what that saved."""
    click.echo("\nthe race: a score on a part of the images, in the final race; and in how many races it was dropped")
    if not race.races.decisions:
        click.echo("  no rungs: every backbone went through all images")
    else:
        print_rungs(race.lines())
    click.echo()
    output.print_table(
        ["backbone", "million parameters", "images", "computed now", "may win in"],
        [
            (
                _short(one.backbone),
                f"{one.n_parameters / 1e6:.1f}",
                one.n_images,
                one.n_computed,
                f"{sum(one.backbone in left for left in race.races.roster.values())} of {len(race.races.roster)}",
            )
            for one in race.runners
        ],
    )
    n_images = race.n_everything - race.n_saved
    output.print_text(
        f"  images through a network: {n_images:,}; comparing all on everything takes {race.n_everything:,}, so "
        f"{race.n_saved:,} were saved"
    )
    for one in race.runners:
        more = "" if one.n_images == race.n_images else f" ({one.n_images:,} of {race.n_images:,} images)"
        click.echo(f"  {one.file}{more}")
    if race.tie:
        output.print_text(f"  {race.tie}")
    if race.failures:
        click.echo(f"  {output.count(len(race.failures), 'image')} failed and took no part:")
        for key, reason in list(race.failures.items())[:MOST_KEYS]:
            click.echo(f"    {output.printable(key)}  ({reason})")
        if len(race.failures) > MOST_KEYS:
            click.echo(f"    ... and {len(race.failures) - MOST_KEYS:,} more")


def print_rungs(lines: Sequence[RaceLine]) -> None:
    """Print the score of each backbone in each rung, and what became of it."""
    header = ["rung", "images", "backbone", "score", "95 % interval", "dropped", ""]
    output.print_table(header, [_row(line) for line in lines])
    output.print_text("  p: of the sign-flip test beside the best of the rung; tied and kept ones went on")


def _row(line: RaceLine) -> tuple[object, ...]:
    score = line.standing.score
    interval = "-" if score.low is None or score.high is None else f"{score.low:.3f} to {score.high:.3f}"
    where = "" if line.race == "final" else f"fold {line.race}: "
    name, dropped = _short(line.standing.backbone, LONGEST_IN_RUNGS), f"{line.n_dropped} of {line.n_races}"
    return line.rung, line.n_samples, name, score.mean, interval, dropped, where + line.words


def _short(name: str, longest: int = LONGEST_NAME) -> str:
    return name if len(name) <= longest else f"...{name[3 - longest :]}"
