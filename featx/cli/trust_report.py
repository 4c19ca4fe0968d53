"""How trust looks on a terminal: probabilities, prediction sets, abstaining, images unlike the training set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from featx.cli import output

if TYPE_CHECKING:
    from featx.learn.judgement import Abstaining, Judgement, Sets
    from featx.learn.novelty import Novelty
    from featx.learn.reliability import Reliability
    from featx.learn.strangers import Strangers
    from featx.learn.trust import Trust

MOST_CLASSES = 10  # whose found coverage is named


def print_trust(trust: Trust) -> None:
    """Print what ``featx fit`` says about the probabilities, and what its bundle can do for ``featx predict``."""
    output.print_text(f"\nprobabilities: {_describe_map(trust)}")
    _print_reliability(trust.reliability, trust.plain)
    click.echo("\nif only the surest were called (predict --abstain-below)")
    output.print_table(
        ["called", "from probability", "accuracy", "95 % interval"],
        [
            (f"{100 * one.share:.0f} %", one.threshold, one.accuracy.mean, output.range_of(one.accuracy))
            for one in trust.reliability.kept
        ],
    )
    click.echo()
    output.print_text(_describe_sets_kept(trust))
    if trust.novelty is not None:
        output.print_text(describe_novelty(trust.novelty))


def describe_novelty(novelty: Novelty) -> str:
    """Say whether and how ``featx predict`` will flag images unlike the training set."""
    if why := novelty.too_few():
        return f"images unlike the training set: {why}"
    return (
        f"images unlike the training set are flagged by predict: distance to {novelty.neighbours} of "
        f"{len(novelty.rows):,} training images, at most 5 % false alarms (--false-alarms)"
    )


def print_judgement(judgement: Judgement) -> None:
    """Print what caution said of the images of ``featx predict``."""
    for line in describe_judgement(judgement):
        output.print_text(line)
    if judgement.abstaining is not None and judgement.abstaining.curve:
        output.print_table(
            ["called", "from probability", "accuracy", "95 % interval"],
            [
                (f"{100 * one.share:.0f} %", one.threshold, one.accuracy.mean, output.range_of(one.accuracy))
                for one in judgement.abstaining.curve
            ],
        )


def describe_judgement(judgement: Judgement) -> list[str]:
    """Say the same in a few lines."""
    lines = []
    if judgement.sets is not None:
        lines += _describe_sets(judgement.sets)
    if judgement.abstaining is not None:
        lines.append(_describe_abstaining(judgement.abstaining))
    return lines + describe_strangers(judgement.strangers)


def describe_strangers(found: Strangers | None) -> list[str]:
    """Say how many images are unlike the training set, where that is known."""
    if found is None:
        return []
    return [f"unlike the training set: {found.n_unlike:,} of {output.count(found.n_images, 'new image')}"]


def _describe_map(trust: Trust) -> str:
    found = trust.calibration
    if found is None:
        words = {"none": "the head's own, not calibrated"}
        return words.get(trust.method, "a sigmoid of the head's decision values, learnt out of fold")
    others = ", ".join(f"{name} {loss:.4f}" for name, loss in found.losses.items())
    text = {
        "none": "the head's own; no map was clearly better",
        "temperature": f"temperature {found.temperature or 1.0:.3g}",
        "sigmoid": "sigmoid (Platt)",
        "isotonic": "isotonic regression",
    }[found.method]
    return f"{text}\n  ({found.n_samples:,} out-of-fold samples; log loss of those left out: {others})"


def _print_reliability(reliability: Reliability, plain: Reliability | None) -> None:
    header = ["score", "value", "95 % interval"]
    named = {"brier": reliability.brier, "ece": reliability.ece}
    rows: list[list[object]] = [[name, interval.mean, output.range_of(interval)] for name, interval in named.items()]
    if plain is not None:
        header.append("uncalibrated")
        for row, interval in zip(rows, (plain.brier, plain.ece), strict=True):
            row.append(interval.mean)
    if reliability.expected is not None:
        header.append("by chance alone")
        rows[0].append("")
        rows[1].append(f"{reliability.expected.mean:.3f}, up to {reliability.expected.high:.3f}")
    output.print_table(header, rows)
    for name, interval in named.items():
        output.print_text(f"  interval of {name}: {interval.method}")
    output.print_text(
        "  ece: mean distance between the probability of what is predicted and how often it is right; by chance alone: "
        "what it would be if every probability were true"
    )


def _describe_sets_kept(trust: Trust) -> str:
    sets = trust.conformal
    if sets is None:
        return f"prediction sets: none ({trust.why_no_sets})"
    why = sets.too_few(0.9)
    return (
        f"prediction sets (predict --coverage 0.9): {len(sets.heads)} fold heads, {sets.n_groups:,} {sets.unit}; "
        + (why if why else f"coverage of {sets.floor(0.9):.3f} proven for 0.9, usually close to 0.9")
    )


def _describe_sets(sets: Sets) -> list[str]:
    what = f"coverage {sets.coverage:g}" + (" per class" if sets.per_class else "")
    size = "" if sets.mean_size is None else f": {sets.mean_size:.2f} classes on average"
    single = "" if sets.singletons is None else f", one class in {100 * sets.singletons:.1f} % of the sets"
    lines = [f"prediction sets at {what}{size}{single}; proven: at least {sets.floor:.3f}"]
    if sets.found is not None:
        text = f"  found on the new images: {sets.found.mean:.3f} ({output.range_of(sets.found)}; {sets.found.method})"
        if sets.found_by_group is not None:
            text += f"; every group counted once: {sets.found_by_group:.3f}"
        lines.append(text)
        named = list(sets.found_of_class.items())
        listed = ", ".join(f"{output.printable(name)} {share:.3f}" for name, share in named[:MOST_CLASSES])
        more = f" and {len(named) - MOST_CLASSES} more classes (--json)" if len(named) > MOST_CLASSES else ""
        lines.append(f"  by class: {listed}{more}")
    return lines


def _describe_abstaining(found: Abstaining) -> str:
    n_images = found.n_abstained + found.n_called
    text = f"abstained below {found.below:g}: {found.n_abstained:,} of {output.count(n_images, 'image')}"
    if found.accuracy is None:
        return text
    accuracy = f"{found.accuracy.mean:.3f} ({output.range_of(found.accuracy)})"
    return f"{text}; accuracy of the new ones that were called: {accuracy}"
