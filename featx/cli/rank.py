"""``featx rank``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from featx.cli import options, output

if TYPE_CHECKING:
    from featx.learn.ranking import RankResult

LONGEST_NAME = 30  # letters of a file in the first table
SHORT_NAME = 22  # and of a file or backbone beside the scores


@click.command("rank")
@click.argument("files", metavar="FILE.h5 ...", nargs=-1, required=True, type=click.Path())
@click.option("--cv", type=click.IntRange(min=2), default=5, show_default=True, help="Outer folds.")
@click.option("--inner-cv", type=click.IntRange(min=2), default=3, show_default=True, help="Folds of each choice of C.")
@click.option("--repeats", type=click.IntRange(min=1), default=1, show_default=True, help="Repeats of the outer folds.")
@click.option("--scaling", type=click.Choice(["raw", "standardise", "l2"]), default="standardise", show_default=True)
@click.option("--C-grid", "C_grid", type=options.Grid(), default="1e-4:1:5", show_default=True, metavar="LO:HI:N")
@click.option(
    "--scoring", default="balanced_accuracy", show_default=True, metavar="NAME", help="What the files are ranked by."
)
@click.option("--split", type=click.Choice(["auto", "ignore"]), default="auto", show_default=True,
    help="auto: rank on train (and val where there is a test part) alone.")  # fmt: skip
@click.option("--min-per-class", type=click.IntRange(min=1), metavar="N", help="Leave out classes with fewer samples.")
@click.option("--allow-missing", is_flag=True,
    help="Go on although some file lacks samples: rank on those that every file has.")  # fmt: skip
@click.option("--random-state", type=int, default=0, show_default=True)
@click.option("--n-jobs", type=int, default=-1, show_default=True, help="Processes, as in scikit-learn; -1: all cores.")
@options.quiet_option
@options.json_option
def command(files: tuple[str, ...], quiet: bool, as_json: bool, **values: Any) -> int:
    """Rank feature files of the same images by how well they suit the labels.

    The order is that of a cheap score, logistic regression cross-validated on the same folds for every
    file; files that cannot be told from the first are named. Beside it stand transferability scores,
    which train nothing: LogME, H-score, TransRate, and LEEP and NCE where featx extract --with-logits
    stored the network's own class scores.

    \b
    Example:
      featx extract photos/ -o cache/ --backbone resnet50 --backbone vit_b_16 --with-logits
      featx rank cache/*.h5
    """
    from featx.rank import RankOptions, rank

    rank_options = RankOptions(**values)
    with output.progress("rank", "searches", quiet=quiet) as advance:
        result = rank(files, rank_options, progress=advance)
    if as_json:
        output.print_json(result.to_dict())
    else:
        _print(result)
    return 0


def _print(result: RankResult) -> None:
    from featx.learn.ranking import CAUTION, SCORES

    for note in result.notes:
        output.say_warning(note)
    output.print_text(f"ranked by {result.metric}. {result.description}")
    click.echo()
    rows = [
        (
            output.shorten(name, LONGEST_NAME),
            file.n_features,
            file.score.mean,
            output.range_of(file.score),
            None if file.behind is None else file.behind.mean,
            "" if file.behind is None else output.range_of(file.behind),
            "tie" if file.tied else "",
        )
        for name, file in zip(result.names, result.files, strict=True)
    ]
    header = ["file", "features", "score", "95 % interval", "behind", "95 % interval", ""]
    output.print_table(header, rows)
    for method in dict.fromkeys(file.score.method for file in result.files):
        output.print_text(f"  interval: {method}")
    if result.guessing is not None:
        click.echo(f"  guessing the largest class: {result.guessing:.3f}")
    if result.ties:
        output.print_text(f"  {result.ties}")
    click.echo("\ntransferability scores, larger is better")
    output.print_table(
        ["file", "backbone", *SCORES.values()],
        [
            (
                output.shorten(name, SHORT_NAME),
                output.shorten(file.backbone, SHORT_NAME),
                *(_value(file.transferability[name]) for name in SCORES),
            )
            for name, file in zip(result.names, result.files, strict=True)
        ],
    )
    for remark in result.remarks:
        output.print_text(f"  {remark}")
    output.print_text(f"  {CAUTION}")
    click.echo(f"\n{output.count(len(result.files), 'file')} in {output.describe_seconds(result.seconds)}")


def _value(value: float | None) -> float | int | None:
    """Leave out decimals that nobody reads."""
    return round(value) if value is not None and abs(value) >= 1000 else value
