"""``featx extract``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from featx.cli import options, output
from featx.errors import EXIT_FAILED_ROWS, StoreError, UsageError
from featx.spec import FeatureRequest

WORTH_A_HINT = 30.0  # seconds of a run from which on it is worth a line how it could be shorter
COUNTED = {"class": "labels", "group": "groups", "split": "splits", "fold": "folds"}


@click.command("extract")
@click.argument("source", metavar="SOURCE", type=click.Path())
@click.option(
    "-o",
    "--output",
    "target",
    metavar="FILE.h5",
    help="The feature file to write or bring up to date; for several a folder, or a name with {backbone} and {node}.",
)
@options.source_options
@click.option("--dry-run", is_flag=True, help="Only count the images by class, group and split.")
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    default=["resnet50"],
    show_default=True,
    metavar="NAME",
    help="A torchvision model, featx-mini, timm:NAME, or package.module:function (see: featx backbones). Repeat it "
    "for several files in one pass.",
)
@click.option(
    "--weights",
    multiple=True,
    default=["DEFAULT"],
    show_default=True,
    metavar="WEIGHTS",
    help="DEFAULT, a member (IMAGENET1K_V1, timm: a1_in1k), a file (.pth, .safetensors), random or random:SEED. Once "
    "for all backbones, or once for each.",
)
@click.option(
    "--node",
    "nodes",
    multiple=True,
    metavar="NODE",
    help="Where features are read (default: the input of the classifier). Repeat it for several files in one pass.",
)
@click.option(
    "--pooling",
    type=click.Choice(["avg", "max", "cls", "mean-tokens", "none"]),
    help="How the node's output becomes a vector (default: what suits the node).",
)
@click.option(
    "--image-size",
    type=click.IntRange(min=1),
    metavar="PIXELS",
    help="Side of the square images that the network sees (default: as its weights were evaluated). Smaller is faster, "
    "and enough for small pictures; vision transformers take one size only.",
)
@click.option("--with-logits", is_flag=True, help="Also store the network's own class scores.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Of the network's arithmetic; part of the spec.",
)
@click.option(
    "--storage",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Of the features in the file; part of the spec.",
)
@options.reading_options
@options.view_options
@options.engine_options
@click.option("--replace", is_flag=True, help="Overwrite a file of another spec or of other images.")
@click.option("--rehash", is_flag=True, help="Hash every file again, also those whose size and time did not change.")
@options.quiet_option
@options.json_option
def command(source: str, target: str | None, dry_run: bool, quiet: bool, as_json: bool, **values: Any) -> int:
    """Turn the images of SOURCE into a file of features.

    SOURCE is a folder of class folders, a folder of train/val/test folders of class folders, a flat
    folder, one image, a table (.csv, .tsv, .parquet) with a column `path` (and label, group, split,
    fold), WebDataset's tar shards ('train-{000..012}.tar'), Parquet with the images' bytes, CIFAR-10's
    own folder, or any of them behind a URL. Run it again to compute only what is missing or changed.

    \b
    Example:
      featx extract photos/ -o cache/photos.h5
      featx extract scans.csv -o cache/scans.h5 --backbone vit_b_16 --group-column patient
    """
    source_options = options.read_source_options(values)
    if dry_run:
        return _dry_run(source, source_options, as_json)
    if target is None:
        raise UsageError(f"-o is missing: say where the features go, as in -o cache/{Path(source).stem or 'NAME'}.h5")

    from featx.extract import UpdateOptions, extract
    from featx.store.output_names import output_paths

    engine = options.read_engine_options(values)
    update = UpdateOptions(replace=values.pop("replace"), rehash=values.pop("rehash"))
    requests = _requests(values)
    many = len(requests) > 1
    paths = output_paths(source, target, requests, many=many)
    if any(request.backbone == "featx-mini" for request in requests) and not quiet:
        output.say(
            "featx-mini: the small network inside featx, trained without labels of its own; "
            "a network trained on ImageNet (--backbone resnet50) will do better."
        )
    try:
        with output.progress("extract", "images", quiet=quiet) as advance:
            reports = extract(
                source,
                target if many else paths[0],
                request=requests,
                source_options=source_options,
                engine=engine,
                update=update,
                progress=advance,
                on_download=output.downloads(quiet=quiet),
                notify=output.say_warning,
            )
    except KeyboardInterrupt:
        _say_what_is_kept(paths)
        raise
    if as_json:
        output.print_json({"files": [report.to_dict() for report in reports]} if many else reports[0].to_dict())
    else:
        for report in reports:
            _print_summary(report)
    return EXIT_FAILED_ROWS if any(report.failures for report in reports) else 0


def _requests(values: dict[str, Any]) -> list[FeatureRequest]:
    """Return a request for each backbone and node."""
    backbones, weights, nodes = values.pop("backbones"), values.pop("weights"), values.pop("nodes")
    if 1 not in (len(weights), len(backbones)) and len(weights) != len(backbones):
        raise UsageError(
            f"--weights is there {len(weights)} times and --backbone {len(backbones)} times: give the weights once for "
            "all backbones, or once for each, in the same order"
        )
    n = max(len(weights), len(backbones))
    pairs = zip(backbones * (n // len(backbones)), weights * (n // len(weights)), strict=True)
    return [
        FeatureRequest(backbone=backbone, weights=each, node=node, **values)
        for backbone, each in pairs
        for node in nodes or (None,)
    ]


def _dry_run(source: str, source_options: Any, as_json: bool) -> int:
    from featx.manifest import source as sources

    manifest = sources.read_source(source, source_options)
    by_column = sources.count_by(manifest)
    counts = {word: by_column[column] for word, column in COUNTED.items() if column != "folds" or any(manifest.folds)}
    if as_json:
        output.print_json({"samples": len(manifest), "skipped": manifest.skipped, **counts})
        return 0
    click.echo(f"{output.count(len(manifest), 'image')} in {source}")
    if manifest.skipped:
        others = ", ".join(f"{count:,} {kind or 'without an extension'}" for kind, count in manifest.skipped.items())
        output.print_text(f"left out, not images by their names: {others}")
    for column, by_name in counts.items():
        if set(by_name) == {""}:
            click.echo(f"\nno {column} given")
            continue
        click.echo(f"\n{output.count(len(by_name.keys() - {''}), column)}")
        shown = list(by_name.items())[:20]
        output.print_table([column, "images"], [(name or "(none)", count) for name, count in shown])
        if len(by_name) > len(shown):
            click.echo(f"  ... and {len(by_name) - len(shown):,} more")
    return 0


def _print_summary(report: Any) -> None:
    click.echo(
        f"{report.path}: {output.count(report.rows, 'row')} of {report.n_features:,} features, {report.backbone}"
    )
    parts = [f"computed {report.computed:,}", f"unchanged {report.unchanged:,}"]
    if report.copied:
        parts.append(f"copied from identical images {report.copied:,}")
    if report.vanished:
        parts.append(f"no longer in SOURCE {report.vanished:,}")
    if report.locked:
        parts.append(f"locked for the last test {report.locked:,}")
    click.echo("  " + ", ".join(parts))
    rate = f", {report.rate:.1f} images/s" if report.rate is not None else ""
    if report.device:
        rate += f" on {report.device} ({report.numerics})"
    click.echo(f"  {output.describe_seconds(report.seconds)}{rate}; fingerprint {report.fingerprint[:16]}")
    if report.bfloat16_gain is not None and report.seconds >= WORTH_A_HINT:
        output.print_text(
            f"  --dtype bfloat16 would compute about {report.bfloat16_gain:.1f} times as fast on this processor: "
            "another spec, with slightly other features (docs/benchmarks.md)"
        )
    if report.failures:
        has = "has" if len(report.failures) == 1 else "have"
        click.echo(f"  {output.count(len(report.failures), 'image')} failed and {has} no row:")
        reasons = sorted(report.failures_by_reason.items(), key=lambda item: -item[1])
        output.print_table(["reason", "images", "meaning"], [(r, n, report.meaning(r)) for r, n in reasons], indent=4)
        for key, reason in list(report.failures.items())[:10]:
            output.print_text(f"    {output.printable(key)}  ({reason})")
        if len(report.failures) > 10:
            click.echo(
                f"    ... and {len(report.failures) - 10:,} more: "
                + output.to_type(f"featx info {report.path} --failures")
            )


def _say_what_is_kept(paths: Sequence[Path]) -> None:
    for path in paths:
        output.say(f"stopped: {_kept(path)}")
    output.say("to go on, run the same command again:")
    click.echo("  " + output.to_type(f"featx {shlex.join(sys.argv[1:])}"), err=True)  # in one line, to be copied


def _kept(path: Path) -> str:
    from featx.store import parts

    try:
        run = parts.pending(path)
    except StoreError:
        run = None
    if run is not None:
        n_all = run.header.n_samples
        return f"{n_all - run.n_left:,} of {n_all:,} images are kept in {path}.parts"
    return f"nothing new was kept yet; {path} is as it was" if path.exists() else f"nothing was kept yet for {path}"
