"""How results look on a terminal: at most 100 columns, most important first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from featx.cli import output, trust_report
from featx.cli.leak_report import print_leaks
from featx.cli.race_report import print_race

if TYPE_CHECKING:
    from featx.fit import FitResult
    from featx.learn.answers import Answers
    from featx.learn.intervals import Interval
    from featx.learn.result import HeadResult, Result
    from featx.learn.scores import Baseline, BinaryScores, Evaluation
    from featx.learn.threshold import Threshold, Thresholds
    from featx.predict import Predictions

MOST_CLASSES = 20  # in a table by class; the rest is in --json
MOST_CONFUSED = 12  # classes up to which the whole confusion matrix is shown
MOST_FOLDS = 6  # beside their mean; more have a table of their own
MOST_KEYS = 10
LONGEST_NAME = 40  # letters of a class in a table
LONGEST_FILE = 24  # and of a file or head beside scores


def print_fit(result: FitResult) -> None:
    """Print the account of ``featx fit``."""
    for note in result.notes:
        output.say_warning(note)
    print_chosen(result)
    if result.thresholds is not None:
        _print_threshold(result.thresholds)
    folds = [name for name, _ in result.whole.folds]
    print_evaluation(result.whole.evaluation, folds)
    if result.whole.cv is not None and result.whole.cv is not result.whole.evaluation:
        click.echo("\ncross-validation of the same procedure on the training part")
        _print_scores(result.whole.cv.scores, result.whole.cv.baseline, folds)
    trust_report.print_trust(result.trust)
    if result.by_group is not None:
        click.echo(f"\nby group: mean probability of each of {result.by_group.n_groups:,} groups")
        _print_scores(result.by_group.evaluation.scores, result.by_group.evaluation.baseline, folds)
    if result.files:
        print_alone("file", result.files)
    if len(result.heads) > 1:
        print_alone("head", result.heads)
    if result.race is not None:
        print_race(result.race)
    print_worth(result, None if result.thresholds is None else result.thresholds.folds)
    click.echo(
        f"\n{len(result.plan.fit):,} samples in the saved classifier; {result.n_fits:,} fits in "
        f"{output.describe_seconds(result.seconds)}"
    )


def _print_threshold(found: Thresholds) -> None:
    chosen = found.chosen
    output.print_text(f"{describe_threshold(chosen)} (--threshold {found.asked})")
    if chosen.sensitivity is not None and chosen.specificity is not None:
        text = (
            f"  out of fold inside the training part: sensitivity {chosen.sensitivity:.3f} of {chosen.n_positive:,}, "
            f"specificity {chosen.specificity:.3f} of {chosen.n_negative:,} samples"
        )
        if found.folds:
            text += ". Each fold chose its own without its test samples: what is scored may be more or less than asked"
        output.print_text(text)
    click.echo()


def describe_threshold(threshold: Threshold) -> str:
    """Say when the positive class is called."""
    return f"{output.printable(threshold.positive)!r} is called from a probability of {threshold.value:.4g} on"


def print_chosen(
    result: Result[Any], what: str = "classifier", written: Callable[[float], str] = "{:.3f}".format
) -> None:
    """Print what was chosen on, scored and fitted, and what is in the saved classifier, or whatever else it is."""
    chosen = result.whole.chosen
    output.print_text(result.description)
    if result.locked is not None:
        output.print_text(
            f"{output.count(result.locked.n_samples, 'sample')} took no part, locked on {result.locked.date}"
        )
    parts = (short_file(result.file), chosen.head, chosen.scaling, chosen.setting)
    click.echo(
        f"chosen for the saved {what}: {', '.join(filter(None, parts))}\n"
        f"  ({result.options.scoring} of {written(chosen.score)} inside the training part)\n"
    )


def print_worth(result: Result[Any], thresholds: Sequence[tuple[str, Threshold]] | None = None) -> None:
    """Print what the choice is worth, what was chosen in each fold, and what could make the scores too good."""
    click.echo("\nwhat the choice is worth")
    for text in result.comparisons.describe():
        output.print_text(f"  {text}")
    print_choices(result.whole, result.file_of_fold, thresholds)
    print_leaks(result.leaks)


def print_evaluation(evaluation: Evaluation, folds: Sequence[str] = ()) -> None:
    """Print scores with intervals, the table by class, and the confusion matrix; `folds` are their names."""
    _print_scores(evaluation.scores, evaluation.baseline, folds)
    if evaluation.estimand:
        output.print_text(f"  what they estimate: {evaluation.estimand}")
    if evaluation.binary is not None:
        _print_binary(evaluation.binary)
    click.echo()
    shown = evaluation.per_class[:MOST_CLASSES]
    output.print_table(
        ["class", "precision", "recall", "F1", "support"],
        [(short(one.name), one.precision, one.recall, one.f1, one.support) for one in shown],
    )
    if len(evaluation.per_class) > len(shown):
        click.echo(f"  ... and {len(evaluation.per_class) - len(shown):,} more classes (--json has all)")
    _print_confusion(evaluation)


def print_predictions(predictions: Predictions, target: str | None) -> None:
    """Print how many images got a prediction, which failed, and the scores where labels are known."""
    for note in predictions.notes:
        output.say_warning(note)
    counts = Counter(predictions.predicted)
    click.echo(f"{output.count(len(predictions) - len(predictions.failures), 'image')} classified")
    if predictions.threshold is not None:
        output.print_text(f"{describe_threshold(predictions.threshold)} (featx fit --threshold)")
    shown = predictions.classes[:MOST_CLASSES]
    output.print_table(["predicted", "images"], [(short(name), counts[name]) for name in shown])
    if len(predictions.classes) > len(shown):
        click.echo(f"  ... and {len(predictions.classes) - len(shown):,} more classes")
    print_failures(predictions)
    trust_report.print_judgement(predictions.judgement)
    evaluation, which = to_quote(predictions)
    if evaluation is not None:
        click.echo(f"\nscores on the {which}")
        print_evaluation(evaluation)
    if target is not None:
        click.echo(f"saved: {target}")


def print_failures(predictions: Answers[Any]) -> None:
    """Print which images have no prediction, and why."""
    if predictions.failures:
        click.echo(f"{output.count(len(predictions.failures), 'image')} failed, without a prediction:")
        for key, reason in list(predictions.failures.items())[:MOST_KEYS]:
            click.echo(f"  {output.printable(key)}  ({reason})")
        if len(predictions.failures) > MOST_KEYS:
            click.echo(f"  ... and {len(predictions.failures) - MOST_KEYS:,} more")


def say_predictions(predictions: Predictions) -> None:
    """Say on stderr what a CSV on stdout does not: warnings, failures, and two scores where labels are known."""
    say_what_failed(predictions)
    if predictions.threshold is not None:
        output.say(describe_threshold(predictions.threshold))
    for line in trust_report.describe_judgement(predictions.judgement):
        output.say(line)
    evaluation, which = to_quote(predictions)
    if evaluation is not None:
        scores = [f"{name} {evaluation.scores[name].mean:.3f}" for name in ("balanced_accuracy", "accuracy")]
        output.say(f"{which}: {', '.join(scores)} (-o FILE prints the whole account)")


def say_what_failed(predictions: Answers[Any]) -> None:
    """Say warnings and failures on stderr."""
    for note in predictions.notes:
        output.say_warning(note)
    for key, reason in predictions.failures.items():
        output.say_warning(f"{output.printable(key)}: {reason}")


def to_quote(predictions: Any) -> tuple[Any, str]:
    """Return the scores that say most about new images, and on which images they are."""
    evaluation, which = predictions.evaluation_new, "whose label is known"
    if evaluation is None:
        evaluation, which = predictions.evaluation, "that the classifier was fitted on"
    elif any(predictions.seen):
        which = f"that are new to the classifier and {which}"
    return evaluation, "" if evaluation is None else f"{output.count(evaluation.n_samples, 'image')} {which}"


def _print_scores(scores: dict[str, Interval], baseline: Baseline | None, folds: Sequence[str] = ()) -> None:
    if baseline is None:
        print_scores(scores, None, folds)
    else:
        guessing = f"always the largest class of the training part ({output.printable(baseline.majority)})"
        print_scores(scores, baseline.scores, folds, guessing=guessing)


def print_scores(
    scores: dict[str, Interval],
    baseline: Mapping[str, float | None] | None,
    folds: Sequence[str] = (),
    *,
    guessing: str = "",
) -> None:
    """Print scores with their intervals, and beside them those of guessing, which is said to be what.

    `folds` are the names of the folds.
    """
    header = ["score", "mean", "95 % interval"]
    rows = [[name, interval.mean, output.range_of(interval)] for name, interval in scores.items()]
    by_fold = {name: interval.folds for name, interval in scores.items() if interval.folds}
    if baseline is not None:
        header.append("guessing")
        for row in rows:
            row.append(baseline.get(str(row[0])))
    if by_fold and len(folds) <= MOST_FOLDS:
        header.append("by fold")
        for row in rows:
            row.append(" ".join("-" if value is None else f"{value:.3f}" for value in by_fold[str(row[0])]))
    output.print_table(header, rows)
    print_methods(scores)
    if guessing:
        output.print_text(f"  guessing: {guessing}")
    if by_fold and len(folds) > MOST_FOLDS:
        click.echo()
        output.print_table(["fold", *by_fold], list(zip(folds, *by_fold.values(), strict=True)))


def print_methods(scores: dict[str, Interval]) -> None:
    """Print how intervals were made: one line where all were made alike."""
    by_method: dict[str, list[str]] = {}
    for name, interval in scores.items():
        by_method.setdefault(interval.method, []).append(name)
    for method, names in by_method.items():
        which = "interval" if len(by_method) == 1 else f"interval of {', '.join(names)}"
        output.print_text(f"  {which}: {method}")


def _print_binary(binary: BinaryScores) -> None:
    output.print_text(f"\nwith {binary.positive!r} as the positive class (featx fit --positive names another)")
    named = {"sensitivity": binary.sensitivity, "specificity": binary.specificity, "PPV": binary.ppv, "NPV": binary.npv}
    output.print_table(
        ["proportion", "value", "95 % interval"],
        [(name, interval.mean, output.range_of(interval)) for name, interval in named.items()],
    )
    print_methods(named)


def _print_confusion(evaluation: Evaluation) -> None:
    if len(evaluation.classes) > MOST_CONFUSED:
        pairs = [
            (short(evaluation.classes[i]), short(evaluation.classes[j]), count)
            for i, row in enumerate(evaluation.confusion)
            for j, count in enumerate(row)
            if i != j and count
        ]
        click.echo("\nmost frequent confusions")
        output.print_table(["true", "predicted", "images"], sorted(pairs, key=lambda pair: -pair[2])[:MOST_KEYS])
        return
    repeats = f", pooled over {evaluation.n_repeats} repeats" if evaluation.n_repeats > 1 else ""
    click.echo(f"\nconfusion matrix (rows: true, columns: predicted{repeats})")
    names = [short(name, 20) for name in evaluation.classes]
    width = (output.COLUMNS - max(map(len, names))) // len(names) - 2
    rows = [(name, *row) for name, row in zip(names, evaluation.confusion, strict=True)]
    output.print_table(["", *(short(name, width) for name in names)], rows)


def print_alone(what: str, alone: Mapping[str, HeadResult[Any]]) -> None:
    """Print the scores of each file, or head, beside one another."""
    click.echo(f"\neach {what} alone, on the same images")
    names = list(next(iter(alone.values())).evaluation.scores)
    rows = [
        (short_file(name), *(result.evaluation.scores[score].mean for score in names)) for name, result in alone.items()
    ]
    output.print_table([what, *names], rows)


def print_choices(
    whole: HeadResult[Any], files: Sequence[str], thresholds: Sequence[tuple[str, Threshold]] | None = None
) -> None:
    """Print what was chosen in each outer fold."""
    if not whole.folds:
        return
    click.echo("\nchosen in each fold")
    columns: dict[str, list[object]] = {"fold": [name for name, _ in whole.folds]}
    if files:
        columns["file"] = [short_file(file) for file in files]
    columns |= {
        "head": [choice.head for _, choice in whole.folds],
        "scaling": [choice.scaling for _, choice in whole.folds],
        "parameter": [choice.setting for _, choice in whole.folds],
        "inner score": [choice.score for _, choice in whole.folds],
        "grid": [f"{choice.edge} edge" if choice.edge else "" for _, choice in whole.folds],
    }
    if thresholds is not None:
        columns["threshold"] = [f"{threshold.value:.4g}" for _, threshold in thresholds]
    output.print_table(list(columns), list(zip(*columns.values(), strict=True)))


def short_file(name: str) -> str:
    """Leave out the middle: names of feature files often differ at the end alone."""
    if len(name) <= LONGEST_FILE:
        return name
    half = LONGEST_FILE // 2
    return f"{name[: half - 3]}...{name[-half:]}"


def short(name: str, letters: int = LONGEST_NAME) -> str:
    """Leave out the end of a long name."""
    name = output.printable(name)
    return name if len(name) <= letters else f"{name[: letters - 3]}..."
