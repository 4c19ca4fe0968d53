"""``featx heads``."""

from __future__ import annotations

from typing import Any

import click

from featx.cli import options, output


@click.command("heads")
@options.json_option
def command(as_json: bool) -> int:
    """List the heads that `featx fit --head` takes, and what is tried of each.

    \b
    Example:
      featx heads
      featx fit cache/scans.h5 --head logreg --head lda --head prototype
      featx fit cache/scans.h5 --head mymodule:make_head    any scikit-learn classifier
    """
    from featx.learn.heads import HEADS

    if as_json:
        output.print_json({"heads": [_facts(name) for name in HEADS]})
        return 0
    rows = []
    for name in HEADS:
        facts = _facts(name)
        values = facts["values"]
        tried = f"{facts['parameter']} {min(values):g} to {max(values):g}" if facts["parameter"] else ""
        rows.append((name, facts["summary"], tried))
    output.print_table(["head", "", "what is tried"], rows, indent=0)
    return 0


def _facts(name: str) -> dict[str, Any]:
    from featx.learn.heads import HEADS

    head = HEADS[name]
    return {
        "name": name,
        "summary": head.summary,
        "parameter": head.parameter.name or None,
        "values": list(head.parameter.values) if head.parameter.name else [],
        "has_probabilities": head.has_probabilities,
    }
