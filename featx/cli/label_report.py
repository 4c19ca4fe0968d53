"""How results on labels look on a terminal: at most 100 columns, most important first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from featx.cli import output
from featx.cli.report import (
    MOST_CLASSES,
    print_alone,
    print_chosen,
    print_failures,
    print_scores,
    print_worth,
    say_what_failed,
    short,
    to_quote,
)
from featx.cli.trust_report import describe_novelty

if TYPE_CHECKING:
    from featx.learn.multilabel.predictions import LabelAnswers
    from featx.learn.multilabel.result import LabelResult
    from featx.learn.multilabel.scores import LabelEvaluation

LONGEST_LABEL = 28  # letters in a table
GUESSING = (
    "a random order for precision and area; for the others the same labels for every image, the most frequent ones or "
    "the most frequent set of the training part, whichever scores best there"
)


def print_fit(result: LabelResult) -> None:
    """Print the account of ``featx fit --task multilabel``."""
    for note in result.notes:
        output.say_warning(note)
    print_chosen(result)
    folds = [name for name, _ in result.whole.folds]
    thresholds = dict(zip(result.labels, result.maps.thresholds.tolist(), strict=True))
    print_evaluation(result.whole.evaluation, folds, thresholds)
    if result.whole.cv is not None and result.whole.cv is not result.whole.evaluation:
        click.echo("\ncross-validation of the same procedure on the training part")
        print_scores(result.whole.cv.scores, result.whole.cv.baseline, folds)
    if result.novelty is not None:
        click.echo()
        output.print_text(describe_novelty(result.novelty))
    if result.files:
        print_alone("file", result.files)
    if len(result.heads) > 1:
        print_alone("head", result.heads)
    print_worth(result)
    click.echo(
        f"\n{len(result.plan.fit):,} samples in the saved classifier, {result.n_without:,} of all without any label; "
        f"{result.n_fits:,} fits of {output.count(len(result.labels), 'label')} in "
        f"{output.describe_seconds(result.seconds)}"
    )


def print_evaluation(
    evaluation: LabelEvaluation, folds: Sequence[str] = (), thresholds: dict[str, float] | None = None
) -> None:
    """Print scores with intervals and the table by label; `folds` are the names of the folds."""
    guessing = "" if evaluation.baseline is None else GUESSING
    print_scores(evaluation.scores, evaluation.baseline, folds, guessing=guessing)
    if evaluation.estimand:
        output.print_text(f"  what they estimate: {evaluation.estimand}")
    click.echo()
    rows: list[tuple[Any, ...]] = [
        (short(one.name, LONGEST_LABEL), one.support, one.average_precision, one.chance, one.roc_auc)
        + (one.precision, one.recall, one.f1)
        + (() if thresholds is None else (thresholds[one.name],))
        for one in evaluation.per_label[:MOST_CLASSES]
    ]
    header = ["label", "images", "AP", "chance", "ROC AUC", "precision", "recall", "F1"]
    output.print_table([*header, *([] if thresholds is None else ["threshold"])], rows)
    if len(evaluation.per_label) > len(rows):
        click.echo(f"  ... and {len(evaluation.per_label) - len(rows):,} more labels (--json has all)")
    click.echo("  AP: average precision; chance: that of a random order")
    if thresholds is not None:
        output.print_text(
            "  threshold: of the saved classifier, which calls a label from this probability on; each fold's own, "
            "chosen inside its training part, made precision, recall and F1"
        )


def print_predictions(predictions: LabelAnswers, target: str | None) -> None:
    """Print how many images got a prediction, which failed, and the scores where labels are known."""
    for note in predictions.notes:
        output.say_warning(note)
    click.echo(f"{output.count(len(predictions) - len(predictions.failures), 'image')} classified")
    counts = predictions.counts()
    shown = [*counts][:MOST_CLASSES]
    output.print_table(["called", "images"], [(short(name), counts[name]) for name in shown])
    if len(counts) > len(shown):
        click.echo(f"  ... and {len(counts) - len(shown):,} more labels")
    print_failures(predictions)
    evaluation, which = to_quote(predictions)
    if evaluation is not None:
        click.echo(f"\nscores on the {which}")
        print_evaluation(evaluation)
    if target is not None:
        click.echo(f"saved: {target}")


def say_predictions(predictions: LabelAnswers) -> None:
    """Say on stderr what a CSV on stdout does not: warnings, failures, and two scores where labels are known."""
    say_what_failed(predictions)
    evaluation, which = to_quote(predictions)
    if evaluation is not None:
        named = ((name, evaluation.scores[name].mean) for name in ("average_precision_macro", "f1_macro"))
        scores = ", ".join(f"{name} {'-' if mean is None else f'{mean:.3f}'}" for name, mean in named)
        output.say(f"{which}: {scores} (-o FILE prints the whole account)")
