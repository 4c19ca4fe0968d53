"""``featx cache``: looking after feature files."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import click

from featx.cli import cache_report, options, output
from featx.errors import EXIT_FAILED_ROWS, StoreError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from featx.caching.comparison import SampleCheck, SampleSize
    from featx.vision.engine import EngineOptions

DEFAULT_FOLDER = "cache"


class Age(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    """A time span as ``7d``, ``12h`` or ``0``, in seconds."""

    name = "AGE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a number and its unit; without one, seconds."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d*)?)([smhdw]?)", value)
        if not match:
            self.fail(f"{value!r} is not a time span as in 7d, 12h, 30m or 0", param, ctx)
        return float(match.group(1)) * cache_report.UNITS[match.group(2) or "s"]


class Sample(click.ParamType):  # type: ignore[type-arg]
    """How many: ``50``, or ``1%``."""

    name = "N|P%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        """Read a number of samples, or a part of all."""
        if isinstance(value, tuple):
            return value
        number, percent = value.removesuffix("%"), value.endswith("%")
        try:
            wanted = float(number) if percent else int(number)
        except ValueError:
            self.fail(f"{value!r} is neither a number of samples nor a part of them, as in 50 or 1%", param, ctx)
        if wanted <= 0 or (percent and wanted > 100):
            self.fail(f"{value!r}: more than 0{' and at most 100' if percent else ''} is needed", param, ctx)
        return "%" if percent else "", wanted


class _Group(click.Group):
    """Names close matches for a command that does not exist."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise UnknownNameError("command", f"cache {args[0]}", [f"cache {name}" for name in self.commands])
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group("cache", cls=_Group)
def command() -> None:
    """Look after feature files: list, check, clean up, join, hand on, take in.

    \b
    Example:
      featx cache ls
      featx cache verify cache/photos.h5
      featx cache export cache/photos.h5 -o photos.parquet
    """


@command.command("ls", short_help="List feature files, unfinished runs and kept rows.")
@click.argument("folder", metavar="[FOLDER]", default=DEFAULT_FOLDER, type=click.Path())
@options.json_option
def list_command(folder: str, as_json: bool) -> int:
    """List the feature files, unfinished runs and kept rows in FOLDER (cache/) and the folders in it.

    Symbolic links are not followed. Damaged files are listed as such; `featx cache verify` says more.

    \b
    Example:
      featx cache ls
      featx cache ls features/ --json
    """
    from featx.caching.listing import list_folder

    items = list_folder(folder)
    if as_json:
        output.print_json({"folder": folder, "items": [item.to_dict() for item in items]})
        return 0
    if not items:
        click.echo(f"nothing in {folder}")
        return 0
    cache_report.print_items(items)
    return 0


@command.command("verify", short_help="Read every byte and say what is wrong; compute samples again.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@click.option("--sample", type=Sample(), metavar="N|P%", help="Compute so many samples again: 50, or 1%.")
@click.option("--source", metavar="SOURCE", type=click.Path(), help="The images, as for extract; for --sample.")
@click.option("--random-state", type=int, default=0, show_default=True, help="Seeds the draw of --sample.")
@options.source_options
@options.engine_options
@click.option("--backbone", metavar="MODULE:FUNCTION", help="Allows the file's own network code to run, by its name.")
@options.quiet_option
@options.json_option
def verify_command(
    files: tuple[str, ...],
    sample: tuple[str, float] | None,
    source: str | None,
    random_state: int,
    quiet: bool,
    as_json: bool,
    **values: Any,
) -> int:
    """Read every byte of feature files and unfinished runs, and say what is wrong.

    FILE is a feature file (with the run beside it, if one is unfinished), a folder FILE.h5.parts, or a
    folder of ImageFeatures(cache=...). With --sample, rows are computed again from the images as well.
    Ends with 5 if anything is wrong.

    \b
    Example:
      featx cache verify cache/photos.h5
      featx cache verify cache/photos.h5 --sample 1% --source photos/
    """
    from featx.caching.verification import verify_features

    if (sample is None) != (source is None):
        raise UsageError(
            "--sample and --source go together: the rows to compute again, and the images they are made of"
        )
    allow_code = values.pop("backbone")
    source_options, engine = options.read_source_options(values), options.read_engine_options(values)
    reports = []
    for name in files:
        report = verify_features(name)
        if sample is not None and report.is_good:
            report = report.with_sample(
                _compare(name, source, _size(sample), source_options, engine, allow_code, random_state, quiet)
            )
        reports.append(report)
        if not as_json:
            cache_report.print_verified(report)
    if as_json:
        output.print_json({"good": all(r.is_good for r in reports), "files": [r.to_dict() for r in reports]})
    return 0 if all(report.is_good for report in reports) else StoreError.exit_code


@command.command("prune", short_help="Remove what can be made again, after showing it.")
@click.argument("folder", metavar="[FOLDER]", default=DEFAULT_FOLDER, type=click.Path())
@click.option(
    "--older-than",
    type=Age(),
    default="7d",
    show_default=True,
    metavar="AGE",
    help="Unfinished runs and kept rows go if nothing was written for so long: 7d, 12h, 0.",
)
@click.option(
    "--files",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Finished feature files go as well, if their name matches: 'old-*.h5'. May be repeated.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.json_option
def prune_command(folder: str, older_than: float, patterns: tuple[str, ...], yes: bool, as_json: bool) -> int:
    """Remove from FOLDER (cache/) what can be made again, after showing it.

    That is what killed runs left of no use, unfinished runs and kept rows that are old, and the feature
    files that --files names. What is being written stays. Without --yes it asks; where nobody can be
    asked, nothing is removed.

    \b
    Example:
      featx cache prune
      featx cache prune --older-than 1d --files 'old-*.h5' --yes
    """
    from featx.caching.pruning import PruneReport, plan_prune, prune

    plan = plan_prune(folder, older_than=older_than, files=patterns)
    if not as_json:
        cache_report.print_plan(plan)
    report = PruneReport(plan.folder, [], plan.staying)
    if plan.going and (yes or (not as_json and _may_remove())):
        report = prune(plan)
        if not as_json:
            count = output.count(len(report.removed), "item")
            click.echo(f"removed {count}, {output.describe_bytes(report.bytes)}")
            for path in report.staying.keys() - plan.staying.keys():
                output.say_warning(f"{output.printable(path)} stays: {report.staying[path]}")
    elif plan.going:
        output.say("nothing was removed" + ("" if yes else "; --yes removes it"))
    if as_json:
        planned = [leftover.path for leftover in plan.going]
        output.print_json({"planned": planned, **report.to_dict()})
    return 0


@command.command("merge", short_help="Join feature files of one spec into one.")
@click.argument("files", metavar="FILE FILE...", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", "target", required=True, metavar="FILE.h5", help="The feature file to write.")
@click.option(
    "--prefer",
    type=click.Choice(["first", "last"]),
    help="Which file is right where they say different things of a sample.",
)
@click.option("--replace", is_flag=True, help="Overwrite the output.")
@options.quiet_option
@options.json_option
def merge_command(
    files: tuple[str, ...], target: str, prefer: str | None, replace: bool, quiet: bool, as_json: bool
) -> int:
    """Join feature files of one spec into one, as if one extraction had seen all their images.

    A sample that is in several files becomes one. If they say different things of it (other bytes,
    another label, group, split or column), nothing is written, unless --prefer says who is right.

    \b
    Example:
      featx cache merge cache/site-a.h5 cache/site-b.h5 -o cache/all.h5
    """
    from featx.caching.merging import merge_features

    with output.progress("merge", "samples", quiet=quiet) as advance:
        report = merge_features(files, target, prefer=prefer, replace=replace, progress=advance)
    if as_json:
        output.print_json(report.to_dict())
        return 0
    files_in = output.count(len(report.files), "file")
    click.echo(
        f"{report.path}: {output.count(report.rows, 'row')}, {output.count(report.samples, 'sample')} from {files_in}"
    )
    click.echo(f"  in more than one file {report.shared:,}, failed {report.failed:,}")
    if report.conflicts:
        click.echo(f"  {output.count(len(report.conflicts), 'conflict')}, settled by --prefer {prefer}:")
        cache_report.print_some(
            f"{key}: " + ", ".join(f"{name} {one!r} and {other!r}" for name, (one, other) in fields.items())
            for key, fields in report.conflicts.items()
        )
    cache_report.say_notes(report.notes)
    return 0


@command.command("export")
@click.argument("file", metavar="FILE", type=click.Path())
@click.option("-o", "--output", "target", required=True, metavar="OUT", help="A .npz, .csv, .parquet or .json file.")
@click.option("--ledger", is_flag=True, help="Include the samples that failed, with their reason and no features.")
@click.option("--root", metavar="FOLDER", help="For .json: the folder of the images, below which the keys are paths.")
@options.quiet_option
@options.json_option
def export_command(file: str, target: str, ledger: bool, root: str | None, quiet: bool, as_json: bool) -> int:
    """Write the rows of a feature file for other programs.

    .npz holds arrays (X, y, keys, groups, ...), none pickled. .csv and .parquet hold a line for each row:
    key, view, label, group, split, fold, sha256, the source's other columns, f0, f1, ... .json holds
    samples for FiftyOne: filepath, ground_truth, embedding.

    \b
    Example:
      featx cache export cache/photos.h5 -o photos.parquet
    """
    from featx.caching.exporting import export_features

    with output.progress("export", "rows", quiet=quiet) as advance:
        report = export_features(file, target, with_failed=ledger, root=root, progress=advance)
    if as_json:
        output.print_json(report.to_dict())
        return 0
    click.echo(f"{report.path}: {output.count(report.rows, 'row')}, {output.describe_bytes(report.bytes)}")
    if report.failed:
        is_in = "with their reason" if ledger else "not in it (--ledger includes them)"
        click.echo(f"  {output.count(report.failed, 'failed sample')}, {is_in}")
    cache_report.say_notes(report.notes)
    return 0


@command.command("import")
@click.argument("file", metavar="FILE", type=click.Path())
@click.option("-o", "--output", "target", required=True, metavar="NAME.h5", help="The feature file to write.")
@click.option(
    "--made-by",
    metavar="WORDS",
    help="What made the features ('uni_v1 at 20x'): files imported in the same words count as made in the same way.",
)
@click.option(
    "--labels",
    metavar="TABLE",
    help="A .csv with key and label, group, split or fold; or a .npy or .txt with a label for each row.",
)
@click.option("--names", metavar="FILE", help="A key in each line (default: file_names.txt beside FILE, if needed).")
@click.option("--pool", type=click.Choice(["mean"]), help="One row for each slide: the mean of its patches.")
@click.option(
    "--label-regex", metavar="REGEX", help="The label is what the first (...) matches in the key: '([^/]+)/'."
)
@click.option("--group-regex", metavar="REGEX", help="The group is what the first (...) matches in the key.")
@click.option("--feature-columns", metavar="REGEX", help="Which columns of a table are features: '^emb_'.")
@click.option("--key-column", metavar="NAME", help="The column or array with the keys.")
@click.option("--label-column", metavar="NAME", help="The column or array with the labels.")
@click.option("--group-column", metavar="NAME", help="The column or array with the groups.")
@click.option("--split-column", metavar="NAME", help="The column or array with train, val or test.")
@click.option("--fold-column", metavar="NAME", help="The column or array with folds of your own.")
@click.option("--replace", is_flag=True, help="Overwrite the output.")
@options.quiet_option
@options.json_option
def import_command(file: str, target: str, replace: bool, quiet: bool, as_json: bool, **values: Any) -> int:
    """Make a feature file of features that were made elsewhere.

    FILE is a .npz (X, y, groups, keys, ...), .npy, .csv, .parquet or .h5 file; a folder that thingsvision
    wrote; or a folder with an .h5 for each slide (CLAM, TRIDENT). Heads are trained on the result as on
    any feature file; images cannot be turned into such features here.

    \b
    Example:
      featx cache import embeddings.npz -o cache/foreign.h5
      featx cache import features_uni_v1/ -o cache/slides.h5 --pool mean --labels slides.csv
    """
    from featx.caching.foreign import ROLES, ImportOptions
    from featx.caching.importing import import_features

    named = {role: values.pop(f"{role}_column") for role in ROLES}
    columns = {role: name for role, name in named.items() if name is not None}
    with output.progress("import", "rows", quiet=quiet) as advance:
        report = import_features(
            file, target, ImportOptions(columns=columns, **values), replace=replace, progress=advance
        )
    if as_json:
        output.print_json(report.to_dict())
    else:
        click.echo(
            f"{report.path}: {output.count(report.rows, 'row')} of {report.n_features:,} features, made elsewhere "
            f"({output.printable(report.backbone)})"
        )
        click.echo(
            f"  with a label {report.labelled:,}, groups {report.groups:,}; fingerprint {report.fingerprint[:16]}"
        )
        if report.failures:
            has = "has" if len(report.failures) == 1 else "have"
            click.echo(f"  {output.count(len(report.failures), 'sample')} failed and {has} no row:")
            cache_report.print_some(f"{key}  ({reason})" for key, reason in report.failures.items())
        cache_report.say_notes(report.notes)
    return EXIT_FAILED_ROWS if report.failures else 0


def _size(sample: tuple[str, float]) -> SampleSize:
    from featx.caching.comparison import SampleSize

    unit, wanted = sample
    return SampleSize(fraction=wanted / 100) if unit else SampleSize(number=int(wanted))


def _compare(
    name: str,
    source: Any,
    size: SampleSize,
    source_options: Any,
    engine: EngineOptions,
    allow_code: str | None,
    random_state: int,
    quiet: bool,
) -> SampleCheck:
    from featx.caching.comparison import compare_sample

    with output.progress("verify", "images", quiet=quiet) as advance:
        return compare_sample(
            name,
            source,
            size,
            source_options=source_options,
            engine=engine,
            allow_code=allow_code,
            random_state=random_state,
            progress=advance,
        )


def _may_remove() -> bool:
    """Ask; where nobody can be asked, the answer is no."""
    return _is_terminal() and click.confirm("remove them?")


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()
