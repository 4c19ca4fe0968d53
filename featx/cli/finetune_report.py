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
    output.print_text(f"Verdict: {result.verdict.describe()}")
    click.echo("")
    rows = [
        [name, _interval(result.tuned_scores, name), _interval(result.frozen_scores, name)]
        for name in result.tuned_scores.scores
    ]
    output.print_table(["score", "tuned", "frozen"], rows)
    output.print_text(f"what they estimate: {result.tuned_scores.estimand}")
    click.echo("")
    output.print_table(
        ["part", "trained on", "validated on", "start", "best epoch", "of the way", "at the start", "best", "images/s"],
        [_history(part) for part in result.history],
    )
    if any(part.best_epoch == 0 for part in result.history):
        output.print_text(
            "Where the best epoch is 0, none was better than the start on the validation part: the frozen head speaks."
        )
    for note in result.notes:
        output.print_text(f"! {note}")
    kept = "the tuned network" if result.holds == "tuned" else "the frozen classifier"
    click.echo(f"\nsaved: {target}, which holds {kept}")
    size = sum(path.stat().st_size for path in folder.glob("*") if path.is_file())
    output.print_text(
        f"kept: {folder} ({output.describe_bytes(size)}): histories and the best weights of each part. The same "
        "command with --resume takes them up, as with --force; remove the folder when you are done"
    )
    click.echo("next: " + output.to_type(f"featx predict {target} NEW-IMAGES/ -o predictions.csv"))


def _interval(evaluation: Evaluation, name: str) -> str:
    score = evaluation.scores[name]
    if score.mean is None:
        return "-"
    if score.low is None or score.high is None:
        return f"{score.mean:.3f}"
    return f"{score.mean:.3f} [{score.low:.3f}, {score.high:.3f}]"


def _history(part: PartHistory) -> list[object]:
    scores = {epoch["number"]: epoch["validation"] for epoch in part.epochs}
    rates = [epoch["images_per_second"] for epoch in part.epochs if epoch["images_per_second"]]
    rate = sum(rates) / len(rates) if rates else None
    return [
        part.name,
        part.n_train,
        part.n_validate,
        part.start["head"],
        part.best_epoch,
        f"{100 * part.blend:.0f} %",
        scores.get(0),
        scores.get(part.best_epoch),
        None if rate is None else f"{rate:.1f}",
    ]
