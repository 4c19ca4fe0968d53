"""``featx predict``."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from featx.cli import label_report, options, output, regression_report, report
from featx.errors import EXIT_FAILED_ROWS, UsageError
from featx.learn.tasks import CLASSIFICATION, MULTILABEL, REGRESSION

REPORTS: dict[str, Any] = {CLASSIFICATION: report, MULTILABEL: label_report, REGRESSION: regression_report}
"""The module that prints the account of predictions, by task."""


@click.command("predict")
@click.argument("bundle", metavar="NAME.featx", type=click.Path())
@click.argument("source", metavar="SOURCE", type=click.Path())
@click.option("-o", "--output", "target", metavar="FILE", help="A .csv or .jsonl file (default: CSV to stdout).")
@options.caution_options
@options.source_options
@options.engine_options
@click.option("--backbone", metavar="MODULE:FUNCTION", help="Allows the bundle's own network code to run, by its name.")
@click.option("--trust", is_flag=True, help="Allow whatever network code the bundle names.")
@options.quiet_option
@options.json_option
def command(bundle: str, source: str, target: str | None, quiet: bool, as_json: bool, **values: Any) -> int:
    """Classify the images of SOURCE (as for extract), or the rows of a feature file of the same spec.

    Every image is in the output: key, status, predicted class, the probability of each class, and
    whether it is unlike the training set. A bundle of --task multilabel gives all labels
    that are called, one of --task regression numbers.

    \b
    Example:
      featx predict photos.featx new-photos/ -o predictions.csv
      featx predict photos.featx new-photos/ -o sure.csv --coverage 0.9 --abstain-below 0.8
    """
    from featx.learn.bundle import load_bundle
    from featx.predict import FORMATS, predict
    from featx.store.target import check_target

    if target is not None:
        check_target(target, FORMATS, what="predictions")
        if os.path.realpath(target) == os.path.realpath(source):
            raise UsageError(f"-o {target} is SOURCE itself; give another -o FILE")
    backbone, trust = values.pop("backbone"), values.pop("trust")
    source_options, caution = options.read_source_options(values), options.read_caution(values)
    loaded = load_bundle(bundle)
    for note in loaded.notes:
        output.say_warning(note)
    if backbone is not None and backbone != loaded.spec.backbone:
        raise UsageError(f"--backbone {backbone}: this bundle's features come from {loaded.spec.backbone}")
    with output.progress("predict", "images", quiet=quiet) as advance:
        predictions = predict(
            loaded,
            source,
            source_options=source_options,
            engine=options.read_engine_options(values),
            caution=caution,
            allow_code=loaded.spec.backbone if trust else backbone,
            progress=advance,
            on_download=output.downloads(quiet=quiet),
            notify=output.say_warning,
        )
    if target is not None:
        predictions.save(target)
    if as_json:
        output.print_json(predictions.to_dict())
    elif target is not None:
        REPORTS[loaded.task].print_predictions(predictions, target)
    else:
        predictions.write_csv(sys.stdout)
        REPORTS[loaded.task].say_predictions(predictions)
    return EXIT_FAILED_ROWS if predictions.failures else 0
