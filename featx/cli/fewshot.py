"""``featx fewshot``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from featx.cli import options, output

if TYPE_CHECKING:
    from featx.learn.few_shot import FewShotResult, ShotHead, ShotScore
    from featx.learn.suggestion import Suggestion

AT_ONCE = 3  # heads side by side


class Shots(click.ParamType):  # type: ignore[type-arg]
    """Numbers of samples, as ``1,5,20``."""

    name = "K,K"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Split at the commas; each at least 1."""
        if isinstance(value, tuple):
            return value
        try:
            shots = tuple(int(part) for part in value.split(","))
        except ValueError:
            shots = (0,)
        if min(shots) < 1:
            self.fail(f"{value!r} is not numbers of samples from 1 on, as in 1,5,20", param, ctx)
        return shots


@click.command("fewshot")
@click.argument("file", metavar="FILE.h5", type=click.Path())
@click.option(
    "--head", "heads", multiple=True, default=["prototype", "logreg", "knn", "lda"], show_default=True, metavar="NAME",
    help="See: featx heads. Repeat it for several.",
)  # fmt: skip
@click.option("--shots", type=Shots(), metavar="K,K",
    help="Samples of each class.  [default: 1,2,5,10,20 ... up to all; 1,5 in episodes]")  # fmt: skip
@click.option("--repeats", type=click.IntRange(min=2), default=50, show_default=True,
    help="Training sets drawn for each; above 20 shots fewer, in proportion, but at least 10.")  # fmt: skip
@click.option("--scaling", type=click.Choice(["raw", "standardise", "l2"]), default="l2", show_default=True)
@click.option("--C", "C", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True,
    help="Of logreg and the SVMs.")  # fmt: skip
@click.option("--inner-cv", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
    help="Choose C and the like in N folds of each set, where it has N samples of each class; 0: never.")  # fmt: skip
@click.option("--scoring", type=click.Choice(["balanced_accuracy", "accuracy"]), default="balanced_accuracy",
    show_default=True)  # fmt: skip
@click.option("--split", type=click.Choice(["auto", "ignore"]), default="auto", show_default=True,
    help="auto: draw from the file's train part, score its test part (or val).")  # fmt: skip
@click.option("--episodes", type=click.IntRange(min=2), metavar="N", help="N-way episodes instead of a learning curve.")
@click.option("--ways", type=click.IntRange(min=2), default=5, show_default=True, help="Classes of an episode.")
@click.option("--queries", type=click.IntRange(min=1), default=15, show_default=True,
    help="Samples of each of its classes that are scored.")  # fmt: skip
@click.option("--transductive", is_flag=True,
    help="Show beside the heads what also learns from unlabelled samples, and from those not drawn.")  # fmt: skip
@click.option("--suggest", "n_suggested", type=click.IntRange(min=1), metavar="N",
    help="Name the N samples to label next, and score nothing.")  # fmt: skip
@click.option("--unlabelled", type=click.Path(), metavar="OTHER.h5",
    help="Where they are chosen from.  [default: the samples of FILE without a label]")  # fmt: skip
@click.option("--min-per-class", type=click.IntRange(min=1), metavar="N", help="Leave out classes with fewer samples.")
@click.option("--allow-missing", is_flag=True, help="Go on although some images failed and have no row.")
@click.option("--random-state", type=int, default=0, show_default=True)
@options.quiet_option
@options.json_option
def command(
    file: str, n_suggested: int | None, unlabelled: str | None, C: float, quiet: bool, as_json: bool, **values: Any
) -> int:
    """Score heads on few labels, say what more would bring, and which images to label next.

    Small training sets are drawn many times, and heads fitted on them are scored on samples of
    other groups. A power law through the scores says what more labels would bring, and how far it
    was off where that could be tried.

    \b
    Example:
      featx fewshot cache/photos.h5
      featx fewshot cache/photos.h5 --episodes 600 --ways 5 --shots 1,5
      featx fewshot cache/photos.h5 --suggest 20 --unlabelled cache/new-photos.h5
    """
    from featx.errors import UsageError
    from featx.fewshot import FewShotOptions, fewshot
    from featx.learn.small_fits import Fixed

    values["shots"], values["episodes"] = values["shots"] or (), values["episodes"] or 0
    few = FewShotOptions(fixed=Fixed(C=C), **values)
    if n_suggested is not None:
        from featx.suggest import suggest

        _show_suggestions(suggest(file, n_suggested, few, unlabelled=unlabelled), as_json)
        return 0
    if unlabelled is not None:
        raise UsageError("--unlabelled is what --suggest N chooses from; give both")
    _check_episodes(few.episodes)
    with output.progress("fewshot", "fits", quiet=quiet) as advance:
        result = fewshot(file, few, progress=advance)
    if as_json:
        output.print_json(result.to_dict())
    else:
        _print(result)
    return 0


def _check_episodes(n: int) -> None:
    """Raise UsageError for an option of episodes where none were asked for."""
    from featx.errors import UsageError

    if n:
        return
    context = click.get_current_context()
    for name in ("ways", "queries"):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise UsageError(f"--{name} is of episodes: give --episodes N as well")


def _show_suggestions(found: list[Suggestion], as_json: bool) -> None:
    if as_json:
        output.print_json({"suggestions": [one.to_dict() for one in found]})
        return
    output.print_text(
        f"label these {output.count(len(found), 'image')} next: logistic regression is unsure of them, and each "
        "stands for others like it"
    )
    rows = [(i + 1, one.predicted, one.probability, one.margin, one.key) for i, one in enumerate(found)]
    output.print_table(["", "would be called", "probability", "margin", "image"], rows)


def _print(result: FewShotResult) -> None:
    for note in result.notes:
        output.say_warning(note)
    output.print_text(f"{result.metric}, mean and 95 % interval. {result.description}")
    for start in range(0, len(result.heads), AT_ONCE):
        click.echo()
        _print_scores(result, result.heads[start : start + AT_ONCE])
    for line in _settings(result):
        output.print_text(f"  {line}")
    first = result.heads[0].scores[0].score
    output.print_text(f"  interval of k = {result.heads[0].scores[0].k}: {first.method}")
    curves = [head for head in result.heads if head.curve is not None]
    if curves:
        _print_curves(curves)
    n_fits = sum(score.n_draws for head in result.heads for score in head.scores)
    click.echo(f"\n{output.count(n_fits, 'fit')} in {output.describe_seconds(result.seconds)}")


def _print_scores(result: FewShotResult, heads: list[ShotHead]) -> None:
    ways = result.options.ways if result.options.episodes else len(result.classes)
    unit = "episodes" if result.options.episodes else "draws"
    rows = [
        (of_k[0].k, of_k[0].k * ways, of_k[0].n_draws, *(_score(one) for one in of_k))
        for of_k in zip(*(head.scores for head in heads), strict=True)
    ]
    output.print_table(["k", "labels", unit, *(head.name for head in heads)], rows)


def _score(shot: ShotScore) -> str:
    score = shot.score
    if score.mean is None:
        return "-"
    return f"{score.mean:.3f}" + ("" if score.low is None else f" ({score.low:.3f} to {score.high:.3f})")


def _settings(result: FewShotResult) -> list[str]:
    """Say which values of the heads' parameters were taken, in few words."""
    if result.options.inner_cv < 2:
        return [line for head in result.heads if (line := result.options.fixed.describe(head.name))]
    lines = []
    for head in result.heads:
        for shot in head.scores:
            taken = sorted(shot.values.items(), key=lambda item: -item[1])
            words = ", ".join(name if len(taken) == 1 else f"{name} ({n} x)" for name, n in taken[:3])
            lines += [f"{head.name}, k = {shot.k}: {words}" + (" ..." if len(taken) > 3 else "")] if taken else []
    return lines


def _print_curves(heads: list[ShotHead]) -> None:
    from featx.learn.learning_curve import GAIN

    rows = []
    for head in heads:
        curve = head.curve
        assert curve is not None
        if curve.check is None or curve.doubled is None:
            continue
        check, (doubled, low, high) = curve.check, curve.doubled
        at = f"{check.predicted:.3f} ({check.low:.3f} to {check.high:.3f})"
        further = f"{doubled:.3f} ({low:.3f} to {high:.3f})"
        rows.append((head.name, at, check.measured, f"{100 * check.error:+.1f}", further))
    if rows:
        click.echo("\nlearning curve, error = a + b k^-c; tried: fitted to half of the largest k, what it says of that")
        assert heads[0].curve is not None
        k = heads[0].curve.ks[-1]
        header = ["head", f"said of k = {k}", "found", "points off", f"k = {2 * k}"]
        output.print_table(header, rows)
    click.echo(f"\nhow many more labels for {100 * GAIN:g} points more?")
    for head in heads:
        assert head.curve is not None
        more = head.curve.more
        verdict = "" if more.verdict == "number" else f"{more.verdict}: "
        output.print_text(f"  {head.name}: {verdict}{more.why}")
