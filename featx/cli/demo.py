"""``featx demo``."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import click

from featx.cli import options, output, report

if TYPE_CHECKING:
    from featx.demo import DemoFiles, DemoImages
    from featx.extract_report import ExtractReport
    from featx.fit import FitResult
    from featx.predict import Predictions


@click.command("demo")
@click.argument("folder", metavar="[FOLDER]", default="cache/demo", type=click.Path(file_okay=False))
@options.quiet_option
@options.json_option
def command(folder: str, quiet: bool, as_json: bool) -> int:
    """Run the whole job on real images: handwritten digits that come with scikit-learn.

    It needs no network. Everything is written below FOLDER (cache/demo by default), so that you can
    look at the pictures, the feature file, the classifier and the predictions afterwards.

    \b
    Example:
      featx demo
    """
    from featx.demo import run_demo

    def watch(what: str, unit: str) -> AbstractContextManager[output.Advance]:
        return output.progress(what, unit, quiet=quiet)

    result = run_demo(folder, on_stage=None if as_json else _Stages().show, progress=watch)
    if as_json:
        stages = ("extraction", "fit", "pixels", "predictions")
        output.print_json({stage: getattr(result, stage).to_dict() for stage in stages})
    return 0


class _Stages:
    """Shows the outcome of each stage as it comes."""

    def __init__(self) -> None:
        self.files: DemoFiles | None = None
        self.fitted: FitResult | None = None

    def show(self, stage: str, outcome: Any) -> None:
        """Print one stage."""
        getattr(self, f"_show_{stage}")(outcome)

    def _head(self, number: int, title: str, stage: str = "") -> None:
        click.secho(f"\n{number}. {title}", bold=True)
        if stage and self.files is not None:
            click.echo(f"   $ {output.to_type(self.files.commands[stage])}")

    def _show_images(self, images: DemoImages) -> None:
        self.files = images.files
        self._head(1, "Images on disk: handwritten digits, scanned")
        click.echo(f"   {images.n_scans:,} to learn from, in class folders: {images.files.scans}")
        click.echo(f"   {images.n_unseen:,} kept aside:                     {images.files.unseen}")

    def _show_extract(self, extraction: ExtractReport) -> None:
        self._head(2, f"Features: each image once through a frozen network ({extraction.backbone})", "extract")
        rate = f"{extraction.rate:.0f} images/s, " if extraction.rate else ""
        click.echo(
            f"   {extraction.rows:,} rows of {extraction.n_features:,} features, "
            f"{rate or 'unchanged since the last time, '}{output.describe_seconds(extraction.seconds)}"
        )

    def _show_fit(self, fitted: FitResult) -> None:
        self.fitted = fitted
        self._head(3, "A classifier, scored by nested cross-validation", "fit")
        report.print_fit(fitted)

    def _show_pixels(self, pixels: FitResult) -> None:
        self._head(4, "Is the network worth it? The same head and folds on the raw pixels")
        assert self.fitted is not None
        rows = [
            (name, interval.mean, f"{interval.low:.3f} to {interval.high:.3f}" if interval.low is not None else "-")
            for name, interval in (
                ("features of the network", self.fitted.whole.evaluation.scores["balanced_accuracy"]),
                ("64 raw pixels", pixels.whole.evaluation.scores["balanced_accuracy"]),
            )
        ]
        output.print_table(["balanced accuracy of", "mean", "95 % interval"], rows)
        better, other = sorted(rows, key=lambda row: -(row[1] or 0))
        click.echo(f"  ahead here: {better[0]}, by {(better[1] or 0) - (other[1] or 0):.3f}")

    def _show_predict(self, predictions: Predictions) -> None:
        self._head(5, "Predictions for the pictures kept aside", "predict")
        assert self.files is not None
        right = sum(a == b for a, b in zip(predictions.labels, predictions.predicted, strict=True))
        click.echo(f"   {right} of {len(predictions)} right; the first ones of {self.files.predictions}:")
        rows = [
            (key, predicted, float(row.max()))
            for key, predicted, row in list(
                zip(predictions.keys, predictions.predicted, predictions.probabilities, strict=True)
            )[::12]
        ]
        output.print_table(["image", "predicted", "probability"], rows[:5], indent=4)
        self._show_next()

    def _show_next(self) -> None:
        from featx.demo import NEXT_COMMANDS

        self._head(6, "Next: your own pictures, one folder for each class")
        for line in NEXT_COMMANDS:
            click.echo(f"   $ {output.to_type(line)}")
