"""``featx heads``."""

from __future__ import annotations

from typing import Any

import click

from featx.cli import options, output
from featx.learn.tasks import MULTILABEL, REGRESSION


@click.command("heads")
@options.json_option
def command(as_json: bool) -> int:
    """List the heads that `featx fit --head` takes for each task, and what is tried of each.

    \b
    Example:
      featx heads
      featx fit cache/scans.h5 --head logreg --head lda --head prototype
      featx fit cache/scans.h5 --head mymodule:make_head    any scikit-learn classifier
      featx fit cache/wrists.h5 --task regression --head ridge --head svr
    """
    from featx.learn.heads import HEADS
    from featx.learn.multilabel.heads import LABEL_HEADS
    from featx.learn.regression.heads import HEADS as NUMBER_HEADS

    classifiers = [{**_facts(head), "has_probabilities": head.has_probabilities} for head in HEADS.values()]
    regressors = [_facts(head) for head in NUMBER_HEADS.values()]
    of_labels = [name for name in HEADS if name in LABEL_HEADS]
    if as_json:
        output.print_json({"heads": classifiers, f"{MULTILABEL}_heads": of_labels, f"{REGRESSION}_heads": regressors})
        return 0
    _print(classifiers)
    click.echo(f"\nwith --task {MULTILABEL}: {', '.join(of_labels)}, each label against its absence")
    click.echo(f"\nwith --task {REGRESSION}")
    _print(regressors)
    return 0


def _print(heads: list[dict[str, Any]]) -> None:
    rows = []
    for facts in heads:
        values = facts["values"]
        tried = f"{facts['parameter']} {min(values):g} to {max(values):g}" if facts["parameter"] else ""
        rows.append((facts["name"], facts["summary"], tried))
    output.print_table(["head", "", "what is tried"], rows, indent=0)


def _facts(head: Any) -> dict[str, Any]:
    return {
        "name": head.name,
        "summary": head.summary,
        "parameter": head.parameter.name or None,
        "values": list(head.parameter.values) if head.parameter.name else [],
    }
