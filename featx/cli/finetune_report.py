"""What ``featx finetune`` prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from featx.cli import output

if TYPE_CHECKING:
    from featx.finetuning.result import FinetuneResult, PartHistory
    from featx.learn.scores import Evaluation


def print_finetune(result: FinetuneResult, target: str, folder: Path) -> None:
    """Print the verdict first, then what it rests on."""
    head = result.frozen.whole.chosen.head
    output.print_text(f"Verdict: {result.verdict.describe()}")
    kept = "the tuned network" if result.holds == "tuned" else f"the frozen classifier ({head})"
    output.print_text(f"{target} holds {kept}.")
    click.echo("")
    output.print_table(
        ["score", "tuned", "95 % interval", "frozen", "95 % interval"],
        [
            [name, *_interval(result.tuned_scores, name), *_interval(result.frozen_scores, name)]
            for name in result.tuned_scores.scores
        ],
    )
    output.print_text(
        f"on {output.count(result.tuned_scores.n_samples, 'image')}; what they estimate: {result.tuned_scores.estimand}"
    )
    _print_trainings(result)
    for note in result.notes:
        output.print_text(f"! {note}")
    size = sum(path.stat().st_size for path in folder.glob("*") if path.is_file())
    force = ", and with --force as well keeps the tuned network all the same" if result.holds == "frozen" else ""
    output.print_text(
        f"\nkept: {folder} ({output.describe_bytes(size)}), what each training ended with: the same command with "
        f"--resume does not repeat them{force}. Remove the folder when you are done"
    )
    click.echo("next: " + output.to_type(f"featx predict {target} NEW-IMAGES/ -o predictions.csv"))


def _print_trainings(result: FinetuneResult) -> None:
    """Print how each training went."""
    scoring = result.frozen.options.scoring
    click.echo(f"\ntrainings, with {scoring} on the images kept for the choice of the epoch")
    output.print_table(
        ["part", "trained on", "chosen on", "begins with", "lr", "at its start", "best epoch", "there", "images/s"],
        [_history(part) for part in result.history],
    )
    if any(part.best_epoch == 0 for part in result.history):
        output.print_text(
            "Best epoch 0: none was better than the start, and the frozen classifier speaks for that part."
        )
    if blends := [f"{part.name} {100 * part.blend:.0f} %" for part in result.history if part.blend < 1]:
        output.print_text(
            "Weights between the start and the best epoch did better than the latter's, and are taken: of the way "
            f"there, {', '.join(blends)}."
        )


def _interval(evaluation: Evaluation, name: str) -> list[object]:
    score = evaluation.scores[name]
    if score.low is None or score.high is None:
        return [score.mean, "-"]
    return [score.mean, f"{score.low:.3f} to {score.high:.3f}"]


def _history(part: PartHistory) -> list[object]:
    scores = {epoch["number"]: epoch["validation"] for epoch in part.epochs}
    best = part.blends.get(part.blend, scores.get(part.best_epoch))
    rates = [epoch["images_per_second"] for epoch in part.epochs if epoch["images_per_second"]]
    return [
        part.name,
        part.n_train,
        part.n_validate,
        part.start["head"],
        f"{part.lr:.2g}",
        scores.get(0),
        part.best_epoch,
        best,
        round(sum(rates) / len(rates)) if rates else None,
    ]
