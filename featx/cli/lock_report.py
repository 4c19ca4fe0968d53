"""How a locked part and the looks at it are shown on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from featx.cli import label_report, output, regression_report, report

if TYPE_CHECKING:
    from featx.learn.lock_reports import LockReport, LookReport

MOST_CLASSES = 20


def print_lock(done: LockReport) -> None:
    """Print what was locked."""
    for note in done.notes:
        output.say_warning(note)
    output.print_text(
        f"locked {output.count(done.n_locked, 'sample')} of {done.n_samples:,} in {done.path} on {done.date}: "
        + done.how
    )
    if done.n_others:
        click.echo(f"  and {done.n_others:,} without a label or features, which share a group with them")
    if done.looks:
        click.echo(f"  with {output.count(done.looks, 'look')} at the same samples in the other file")
    shown = list(done.classes.items())[:MOST_CLASSES]
    output.print_table(
        ["class", "locked", "open", "share"], [(name, n, rest, n / (n + rest)) for name, (n, rest) in shown]
    )
    if len(done.classes) > len(shown):
        click.echo(f"  ... and {len(done.classes) - len(shown):,} more classes (--json has all)")
    accuracy = done.accuracy
    output.print_text(
        f"  an accuracy of {accuracy.mean:.2f} there would be known to {accuracy.low:.2f} to {accuracy.high:.2f} "
        f"({accuracy.method}, 95 %)\n"
        "\nFrom now on nothing is chosen or fitted by these labels. When all choices are made:"
    )
    click.echo(
        "  " + output.to_type(f"featx lock {done.path} --open NAME.featx") + "    # counted and dated in the file"
    )


def print_look(look: LookReport) -> None:
    """Print the scores of a look, and which look it was."""
    for note in look.notes:
        output.say_warning(note)
    output.print_text(look.sentence)
    if look.earlier:
        _print_looks([vars(one) for one in [*look.earlier, look.look]])
    output.print_text(
        f"\n{look.look.bundle} on {output.count(look.look.n_samples, 'locked sample')}"
        + (f", groups: {look.groups}" if look.groups else "")
    )
    from featx.learn.multilabel.scores import LabelEvaluation
    from featx.learn.scores import Evaluation

    if isinstance(look.evaluation, Evaluation):
        report.print_evaluation(look.evaluation)
    elif isinstance(look.evaluation, LabelEvaluation):
        label_report.print_evaluation(look.evaluation)
    else:
        regression_report.print_evaluation(look.evaluation)


def print_locked(locked: dict[str, Any]) -> None:
    """Print what ``featx info`` shows of it."""
    looks = locked["looks"]
    seen = f"looked at {output.count(len(looks), 'time')}" if looks else "not looked at yet"
    output.print_text(f"  locked on {locked['date']}: {output.count(locked['n'], 'sample')} ({locked['how']}), {seen}")
    if looks:
        _print_looks(looks)


def _print_looks(looks: list[dict[str, Any]]) -> None:
    output.print_table(
        ["look", "date", "bundle", "sha256", "samples", "score", "value"],
        [
            (number, one["date"], one["bundle"], one["bundle_sha256"][:8], one["n_samples"],
             *_main_score(one["scores"]))
            for number, one in enumerate(looks, 1)
        ],
        indent=4,
    )  # fmt: skip


def _main_score(scores: dict[str, float | None]) -> tuple[str, float | None]:
    name = next((name for name in ("balanced_accuracy", "average_precision_macro", "mae") if name in scores), "")
    return name, scores.get(name)
