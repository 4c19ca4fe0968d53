"""How results look on a terminal: at most 100 columns, most important first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from featx.cli import output

if TYPE_CHECKING:
    from featx.fit import FitResult
    from featx.learn.intervals import Interval
    from featx.learn.result import HeadResult
    from featx.learn.scores import Baseline, BinaryScores, Evaluation
    from featx.predict import Predictions

MOST_CLASSES = 20  # in a table by class; the rest is in --json
MOST_CONFUSED = 12  # classes up to which the whole confusion matrix is shown
MOST_FOLDS = 10
MOST_KEYS = 10


def print_fit(result: FitResult) -> None:
    """Print the account of ``featx fit``."""
    for note in result.notes:
        output.say_warning(note)
    chosen = result.whole.chosen
    click.echo(click.wrap_text(result.plan.description, 98))
    click.echo(
        f"chosen for the saved classifier: {chosen.head}, {chosen.scaling}, C = {chosen.C:g}\n"
        f"  ({result.options.scoring} of {chosen.score:.3f} inside the training part)\n"
    )
    print_evaluation(result.whole.evaluation)
    if result.whole.cv is not None and result.whole.cv is not result.whole.evaluation:
        click.echo("\ncross-validation of the same procedure on the training part")
        _print_scores(result.whole.cv.scores, result.whole.cv.baseline)
    if result.by_group is not None:
        click.echo(f"\nby group: mean probability of each of {result.by_group.n_groups:,} groups")
        _print_scores(result.by_group.evaluation.scores, result.by_group.evaluation.baseline)
    if len(result.heads) > 1:
        _print_heads(result.heads)
    _print_choices(result.whole)
    click.echo(
        f"\n{len(result.plan.fit):,} samples in the saved classifier; {result.n_fits:,} fits in "
        f"{output.describe_seconds(result.seconds)}"
    )


def print_evaluation(evaluation: Evaluation) -> None:
    """Print scores with intervals, the table by class, and the confusion matrix."""
    _print_scores(evaluation.scores, evaluation.baseline)
    if evaluation.binary is not None:
        _print_binary(evaluation.binary)
    click.echo()
    shown = evaluation.per_class[:MOST_CLASSES]
    output.print_table(
        ["class", "precision", "recall", "F1", "support"],
        [(one.name, one.precision, one.recall, one.f1, one.support) for one in shown],
    )
    if len(evaluation.per_class) > len(shown):
        click.echo(f"  ... and {len(evaluation.per_class) - len(shown):,} more classes (--json has all)")
    _print_confusion(evaluation)


def print_predictions(predictions: Predictions, target: str | None) -> None:
    """Print how many images got a prediction, which failed, and the scores where labels are known."""
    counts = {name: predictions.predicted.count(name) for name in predictions.classes}
    click.echo(f"{len(predictions) - len(predictions.failures):,} images classified")
    output.print_table(["predicted", "images"], list(counts.items())[:MOST_CLASSES])
    if predictions.failures:
        click.echo(f"{len(predictions.failures):,} images failed and have no prediction:")
        for key, reason in list(predictions.failures.items())[:MOST_KEYS]:
            click.echo(f"  {key}  ({reason})")
        if len(predictions.failures) > MOST_KEYS:
            click.echo(f"  ... and {len(predictions.failures) - MOST_KEYS:,} more")
    if predictions.evaluation is not None:
        click.echo(f"\nscores on the {predictions.evaluation.n_samples:,} images whose label is known")
        print_evaluation(predictions.evaluation)
    if target is not None:
        click.echo(f"saved: {target}")


def _print_scores(scores: dict[str, Interval], baseline: Baseline | None) -> None:
    with_folds = any(len(interval.folds) > 1 for interval in scores.values())
    rows = []
    for name, interval in scores.items():
        row = [name, interval.mean, _range(interval)]
        if baseline is not None:
            row.append(baseline.scores.get(name))
        if with_folds:
            row.append(" ".join("-" if value is None else f"{value:.3f}" for value in interval.folds[:MOST_FOLDS]))
        rows.append(row)
    header = ["score", "mean", "95 % interval"]
    if baseline is not None:
        header.append("guessing")
    if with_folds:
        header.append("by fold" if max(len(i.folds) for i in scores.values()) <= MOST_FOLDS else "first folds")
    output.print_table(header, rows)
    _print_methods(scores)
    if baseline is not None:
        click.echo(f"  guessing: always the largest class of the training part ({baseline.majority})")


def _print_methods(scores: dict[str, Interval]) -> None:
    by_method: dict[str, list[str]] = {}
    for name, interval in scores.items():
        by_method.setdefault(interval.method, []).append(name)
    for method, names in by_method.items():
        which = "interval" if len(by_method) == 1 else f"interval of {', '.join(names)}"
        for line in click.wrap_text(f"{which}: {method}", 98, "  ", "    ").splitlines():
            click.echo(line)


def _print_binary(binary: BinaryScores) -> None:
    click.echo(f"\nwith {binary.positive!r} as the positive class (--positive names another)")
    named = {"sensitivity": binary.sensitivity, "specificity": binary.specificity, "PPV": binary.ppv, "NPV": binary.npv}
    output.print_table(
        ["proportion", "value", "95 % interval"],
        [(name, interval.mean, _range(interval)) for name, interval in named.items()],
    )
    _print_methods(named)


def _print_confusion(evaluation: Evaluation) -> None:
    if len(evaluation.classes) > MOST_CONFUSED:
        pairs = [
            (evaluation.classes[i], evaluation.classes[j], count)
            for i, row in enumerate(evaluation.confusion)
            for j, count in enumerate(row)
            if i != j and count
        ]
        click.echo("\nmost frequent confusions")
        output.print_table(["true", "predicted", "images"], sorted(pairs, key=lambda pair: -pair[2])[:MOST_KEYS])
        return
    repeats = f", pooled over {evaluation.n_repeats} repeats" if evaluation.n_repeats > 1 else ""
    click.echo(f"\nconfusion matrix (rows: true, columns: predicted{repeats})")
    rows = [(name, *row) for name, row in zip(evaluation.classes, evaluation.confusion, strict=True)]
    output.print_table(["", *(name[:10] for name in evaluation.classes)], rows)


def _print_heads(heads: dict[str, HeadResult]) -> None:
    click.echo("\neach head alone, on the same folds")
    names = list(next(iter(heads.values())).evaluation.scores)
    rows = [(head, *(result.evaluation.scores[name].mean for name in names)) for head, result in heads.items()]
    output.print_table(["head", *names], rows)


def _print_choices(whole: HeadResult) -> None:
    if not whole.folds:
        return
    click.echo("\nchosen in each fold")
    output.print_table(
        ["fold", "head", "scaling", "C", "inner score", "grid"],
        [(n, c.head, c.scaling, f"{c.C:g}", c.score, f"{c.edge} edge" if c.edge else "") for n, c in whole.folds],
    )


def _range(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return "-"
    return f"{interval.low:.3f} to {interval.high:.3f}"
