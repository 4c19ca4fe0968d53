"""``featx info``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from featx.cli import lock_report, options, output
from featx.errors import BundleError
from featx.learn.tasks import CLASSIFICATION, REGRESSION
from featx.spec import FOREIGN

MOST_NAMES = 20  # of a table of counts; the rest is counted


@click.command("info")
@click.argument("file", metavar="FILE", type=click.Path())
@click.option("--failures", is_flag=True, help="List every failed image with its reason.")
@options.json_option
def command(file: str, failures: bool, as_json: bool) -> int:
    """Show what is in a feature file (.h5) or a bundle (.featx).

    \b
    Example:
      featx info cache/photos.h5
      featx info photos.featx --json
    """
    if file.endswith(".featx"):
        _show_bundle(file, as_json)
        return 0
    from featx import info as stage

    facts = stage.describe(file)
    if as_json:
        output.print_json(facts)
    elif failures:
        _show_failures(facts.get("failures"))
    else:
        _show_file(facts)
    return 0


def _show_file(facts: dict[str, Any]) -> None:
    spec = facts["spec"]
    click.echo(facts["path"])
    if "rows" in facts:
        size = output.describe_bytes(facts["bytes"])
        click.echo(
            f"  {output.count(facts['rows'], 'row')} of {facts['n_features']:,} features, "
            f"{output.count(facts['samples'], 'sample')}, {size}"
        )
    pending = facts["pending"]
    if pending is None:
        click.echo("  complete: every sample is a row or a named failure")
    else:
        output.print_text(
            f"  not complete: a run that was stopped has {pending['done']:,} of {pending['samples']:,} images, "
            f"{pending['left']:,} left; the same featx extract command goes on"
        )
    if facts.get("locked"):
        lock_report.print_locked(facts["locked"])
    click.echo(f"  fingerprint {facts['fingerprint']}")
    if spec["weights"] == FOREIGN:
        output.print_text("  made elsewhere and imported: no image can be turned into such features here")
    click.echo("\nmade by")
    output.print_table(["field", "value"], list(_fields(spec)))
    for library, version in facts.get("made_with", {}).items():
        click.echo(f"  with {library} {_brief(version)}")
    for column, by_name in facts.get("counts", {}).items():
        _show_counts(column, by_name, facts.get("group_source", ""))
    failures = facts.get("failures", {})
    if failures:
        click.echo(
            f"\n{output.count(len(failures), 'failed image')}: "
            + output.to_type(f"featx info {facts['path']} --failures")
        )


def _show_counts(column: str, by_name: dict[str, int], group_source: str) -> None:
    if set(by_name) <= {""}:
        click.echo(f"\nno {column} given")
        return
    source = f" ({group_source})" if column == "group" and group_source else ""
    click.echo(f"\nby {column}{source}")
    shown = list(by_name.items())[:MOST_NAMES]
    output.print_table([column, "samples"], [(name or "(none)", count) for name, count in shown])
    if len(by_name) > MOST_NAMES:
        click.echo(f"  ... and {len(by_name) - MOST_NAMES:,} more")


def _show_failures(failures: dict[str, str] | None) -> None:
    if failures is None:
        click.echo("not complete: the failed images are known when the run has finished")
        return
    if not failures:
        click.echo("no failed images")
    for key, reason in failures.items():
        output.print_text(f"{output.printable(key)}  ({reason})")


def _fields(spec: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield a line for each field: ``preprocess.crop`` for what is inside another."""
    for name, value in spec.items():
        if isinstance(value, dict):
            yield from _fields(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", _brief(value)


def _brief(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _show_bundle(path: str, as_json: bool) -> None:
    from featx.learn import bundle

    facts = bundle.read_facts(path)
    for digests in ("fitted_on", "locked_away"):  # of images: for `featx predict`, not for reading
        facts.pop(digests, None)
    if as_json:
        output.print_json(facts)
        return
    try:
        _show_facts(path, facts)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        message = f"does not say all that featx fit writes down ({error}); --json shows what it says"
        raise BundleError(message, path=path) from error


def _settings(chosen: dict[str, Any]) -> list[str]:
    own = [f"{chosen['parameter']} = {chosen['value']:g}"] if chosen["parameter"] else []
    return [chosen["head"], chosen["scaling"], *own]


def _labels(facts: dict[str, Any]) -> str:
    if facts.get("task", CLASSIFICATION) == REGRESSION:
        spread = facts["labels"]
        return f"regression: numbers, from {spread['lowest']:g} to {spread['highest']:g} where it was scored"
    classes = facts["classes"]
    named = ", ".join(classes[:MOST_NAMES]) + (", ..." if len(classes) > MOST_NAMES else "")
    return f"{output.count(len(classes), 'class')}: {output.printable(named)}"


def _show_facts(path: str, facts: dict[str, Any]) -> None:
    chosen = facts["chosen"]
    click.echo(path)
    output.print_text(f"  {_labels(facts)}")
    click.echo(
        f"  {', '.join(_settings(chosen))}, fitted on "
        f"{output.count(facts['n_fitted'], 'sample')} of {facts['n_samples']:,}"
    )
    output.print_text(f"\n{facts['description']}")
    scores = [(name, score["mean"], score["low"], score["high"]) for name, score in facts["scores"].items()]
    output.print_table(["score", "mean", "low", "high"], scores)
    for warning in facts["warnings"]:
        output.print_text(f"  {warning}")
    if facts["spec"]["weights"] == FOREIGN:
        output.print_text("  for features that were made elsewhere: it is for feature files, and not for images")
    click.echo("\nfeatures made by")
    output.print_table(["field", "value"], list(_fields(facts["spec"])))
    for library, version in facts["versions"].items():
        click.echo(f"  with {library} {version}")
    click.echo("\nfeatx info --json shows all that is known of it")
