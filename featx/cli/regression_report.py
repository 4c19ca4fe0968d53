"""How the results of a regression look on a terminal: at most 100 columns, most important first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from featx.cli import output, report
from featx.cli.trust_report import describe_novelty, describe_strangers

if TYPE_CHECKING:
    from featx.learn.intervals import Interval
    from featx.learn.regression.predictions import NumberPredictions
    from featx.learn.regression.result import RegressionResult
    from featx.learn.regression.scores import NumberEvaluation

DIGITS = 4  # of a number in the unit of the labels


def print_fit(result: RegressionResult) -> None:
    """Print the account of ``featx fit --task regression``."""
    for note in result.notes:
        output.say_warning(note)
    report.print_chosen(result, "head", _number)
    folds = [name for name, _ in result.whole.folds]
    print_evaluation(result.whole.evaluation, folds)
    if result.whole.cv is not None and result.whole.cv is not result.whole.evaluation:
        click.echo("\ncross-validation of the same procedure on the training part")
        print_evaluation(result.whole.cv, folds)
    click.echo()
    output.print_text(_describe_intervals_kept(result))
    if result.novelty is not None:
        output.print_text(describe_novelty(result.novelty))
    if result.files:
        _print_alone("file", {name: one.evaluation for name, one in result.files.items()})
    if len(result.heads) > 1:
        _print_alone("head", {name: one.evaluation for name, one in result.heads.items()})
    report.print_worth(result)
    click.echo(
        f"\n{len(result.plan.fit):,} samples in the saved head; {result.n_fits:,} fits in "
        f"{output.describe_seconds(result.seconds)}"
    )


def print_evaluation(evaluation: NumberEvaluation, folds: Sequence[str] = ()) -> None:
    """Print scores with intervals beside a guess; `folds` are the names of the folds."""
    header = ["score", "value", "95 % interval"]
    rows = [[name, _number(one.mean), _range(one)] for name, one in evaluation.scores.items()]
    if any(value is not None for value in evaluation.guessing.values()):
        header.append("guessing")
        for row in rows:
            row.append(_number(evaluation.guessing[row[0]]))
    by_fold = {name: one.folds for name, one in evaluation.scores.items() if one.folds}
    if by_fold and len(folds) <= report.MOST_FOLDS:
        header.append("by fold")
        for row in rows:
            row.append(" ".join(_number(value) for value in by_fold[row[0]]))
    output.print_table(header, rows)
    report.print_methods(evaluation.scores)
    spread = evaluation.spread
    output.print_text(
        f"  labels: {_number(spread.lowest)} to {_number(spread.highest)}, mean {_number(spread.mean)}, deviation "
        f"{_number(spread.deviation)}; rmse and mae are in their unit"
    )
    if "guessing" in header:
        output.print_text("  guessing: the mean of the training part, for mae its median")
    output.print_text(f"  what they estimate: {evaluation.estimand}")
    if by_fold and len(folds) > report.MOST_FOLDS:
        click.echo()
        columns = [[_number(value) for value in values] for values in by_fold.values()]
        output.print_table(["fold", *by_fold], list(zip(folds, *columns, strict=True)))


def print_predictions(predictions: NumberPredictions, target: str | None) -> None:
    """Print how many images got a number, which failed, and the scores where labels are known."""
    for note in predictions.notes:
        output.say_warning(note)
    good = [float(number) for number in predictions.predicted if number == number]
    click.echo(f"{output.count(len(good), 'image')} predicted")
    if good:
        click.echo(f"  {_number(min(good))} to {_number(max(good))}, mean {_number(sum(good) / len(good))}")
    report.print_failures(predictions)
    for line in _describe_caution(predictions):
        output.print_text(line)
    evaluation, which = report.to_quote(predictions)
    if evaluation is not None:
        click.echo(f"\nscores on the {which}")
        print_evaluation(evaluation)
    if target is not None:
        click.echo(f"saved: {target}")


def say_predictions(predictions: NumberPredictions) -> None:
    """Say on stderr what a CSV on stdout does not: warnings, failures, and two scores where labels are known."""
    report.say_what_failed(predictions)
    for line in _describe_caution(predictions):
        output.say(line)
    evaluation, which = report.to_quote(predictions)
    if evaluation is not None:
        scores = [f"{name} {_number(evaluation.scores[name].mean)}" for name in ("mae", "r2")]
        output.say(f"{which}: {', '.join(scores)} (-o FILE prints the whole account)")


def _describe_intervals_kept(result: RegressionResult) -> str:
    found = result.intervals
    if found is None:
        return f"prediction intervals: none ({result.why_no_intervals})"
    why = found.too_few(0.9)
    return (
        f"prediction intervals (predict --coverage 0.9): {len(found.heads)} fold heads, {found.n_groups:,} "
        f"{found.unit}; " + (why or f"coverage of {found.floor(0.9):.3f} proven for 0.9, usually close to 0.9")
    )


def _describe_caution(predictions: NumberPredictions) -> list[str]:
    lines = []
    found = predictions.intervals
    if found is not None:
        width = "" if found.mean_width is None else f": {_number(found.mean_width)} wide on average"
        lines.append(f"prediction intervals at coverage {found.coverage:g}{width}; proven: at least {found.floor:.3f}")
        if found.found is not None:
            held = found.found
            lines.append(f"  found on the new images: {_number(held.mean)} ({output.range_of(held)}; {held.method})")
    return lines + describe_strangers(predictions.strangers)


def _print_alone(what: str, alone: dict[str, NumberEvaluation]) -> None:
    click.echo(f"\neach {what} alone, on the same images")
    names = list(next(iter(alone.values())).scores)
    rows = [
        (report.short_file(name), *(_number(one.scores[score].mean) for score in names)) for name, one in alone.items()
    ]
    output.print_table([what, *names], rows)


def _range(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return "-"
    return f"{_number(interval.low)} to {_number(interval.high)}"


def _number(value: float | None) -> str:
    """Write a number of any unit: so many digits, no exponent where it can be read without."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10**DIGITS else f"{value:.{DIGITS}g}"
