"""``featx audit``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from featx.cli import options, output

if TYPE_CHECKING:
    from featx.learn.auditing import AuditResult
    from featx.learn.left_out_sites import SiteStudy

NAME = 26  # letters of a column
SITE = 16  # of a site or class
KEY = 38  # of a sample


@click.command("audit")
@click.argument("file", metavar="FILE.h5", type=click.Path())
@click.option("--column", "columns", multiple=True, metavar="COLUMN",
    help="Test this column (or fact of the files) alone as a shortcut. Repeatable.")  # fmt: skip
@click.option("--site", "sites", multiple=True, metavar="COLUMN",
    help="Leave out each value of this column in turn. Repeatable. Default: every column with 2 to 20 values of which "
    "each has all classes.")  # fmt: skip
@click.option("--top", type=click.IntRange(min=0), default=20, show_default=True, help="Doubtful labels to show.")
@click.option("--csv", "csv_path", metavar="FILE.csv", help="Write every sample, the likeliest label error first.")
@click.option("--rank-by", type=click.Choice(["margin", "self_confidence"]), default="margin", show_default=True,
    help="Probability of the label less that of the likeliest other class, or that of the label alone.")  # fmt: skip
@click.option("--cv", type=click.IntRange(min=2), default=5, show_default=True, help="Outer folds.")
@click.option("--inner-cv", type=click.IntRange(min=2), default=3, show_default=True, help="Folds of each choice of C.")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True,
    help="Repeats of the folds behind the doubtful labels.")  # fmt: skip
@click.option("--C-grid", "C_grid", type=options.Grid(), default="1e-4:1:5", show_default=True, metavar="LO:HI:N")
@click.option("--min-per-class", type=click.IntRange(min=1), metavar="N", help="Leave out classes with fewer samples.")
@click.option("--allow-missing", is_flag=True, help="Go on although some samples failed.")
@click.option("--group-near-duplicates", is_flag=True,
    help="Join images whose features are nearly the same into one group, as featx fit does.")  # fmt: skip
@click.option(
    "--near-duplicate-distance", type=click.FloatRange(0, 2), metavar="D",
    help="With it, the largest cosine distance of centred features that counts as near.  [default: from the data]",
)  # fmt: skip
@click.option("--random-state", type=int, default=0, show_default=True)
@click.option("--n-jobs", type=int, default=-1, show_default=True, help="Processes, as in scikit-learn; -1: all cores.")
@options.quiet_option
@options.json_option
def command(file: str, csv_path: str | None, quiet: bool, as_json: bool, **values: Any) -> int:
    """Look for shortcuts, for sites at which scores do not hold, and for wrong labels.

    Shortcuts: can the features tell the other columns of the table, or format, size and bytes per pixel
    of the files, and do these go with the label? Sites: a head is trained at all others and tested at
    the one left out, beside ordinary cross-validation. Labels: the samples whose out-of-fold
    probabilities contradict their label.

    \b
    Example:
      featx extract scans.csv -o cache/scans.h5 --group-column patient
      featx audit cache/scans.h5 --site hospital --csv doubtful.csv
    """
    from featx.audit import AuditOptions, audit, save_labels
    from featx.store.target import check_target

    if csv_path is not None:
        check_target(csv_path, (".csv",), what="labels in doubt")
    audit_options = AuditOptions(**values)
    with output.progress("audit", "searches", quiet=quiet) as advance:
        result = audit(file, audit_options, progress=advance)
    if csv_path is not None:
        save_labels(result, csv_path)
    if as_json:
        output.print_json(result.to_dict())
    else:
        _print(result)
        if csv_path is not None:
            click.echo(f"saved: {csv_path}")
    return 0


def _print(result: AuditResult) -> None:
    for note in result.notes:
        output.say_warning(note)
    output.print_text(result.description)
    _print_shortcuts(result)
    click.echo("\nleave one site out")
    for number, study in enumerate(result.sites):
        if number:
            click.echo()
        _print_sites(study)
    if not result.sites:
        output.print_text("  No column looks like a site (2 to 20 values, each with every class); --site names one.")
    for one in result.sites_left_out:
        output.print_text(f"  {output.printable(one.name)} was left out: {one.reason}.")
    _print_remarks(result.site_remarks)
    _print_labels(result)
    click.echo(f"\n{output.count(result.n_samples, 'sample')} in {output.describe_seconds(result.seconds)}")


def _print_remarks(remarks: list[str]) -> None:
    for remark in remarks:
        output.print_text(f"  {output.printable(remark)}")


def _print_shortcuts(result: AuditResult) -> None:
    click.echo("\nshortcuts: what else the features tell")
    if result.shortcuts:
        output.print_table(
            ["column", "values", "told", "95 % interval", "chance", "by label", "V", "p", ""],
            [
                (
                    output.shorten(one.name, NAME),
                    len(one.values),
                    one.score.mean,
                    output.range_of(one.score),
                    one.chance,
                    one.from_label,
                    one.association.cramers_v,
                    f"{one.p_adjusted:.4f}",
                    "shortcut?" if one.is_flagged else "",
                )
                for one in result.shortcuts
            ],
        )
        output.print_text(
            "  told: balanced accuracy; by label: what the label alone would tell; V: Cramer's V with the label, "
            "bias-corrected; p: by permutation of whole groups, Holm-adjusted."
        )
        quarters = [one.name for one in result.shortcuts if one.kind != "values"]
        if quarters:
            output.print_text(f"  in quarters: {output.printable(', '.join(quarters))}")
    output.print_text(f"  {output.printable(result.verdict)}")
    _print_remarks(result.shortcut_remarks)
    if result.left_out:
        reasons = "; ".join(f"{one.name} ({one.reason})" for one in result.left_out)
        output.print_text(f"  not tested: {output.printable(reasons)}")


def _print_sites(study: SiteStudy) -> None:
    scores = ["left out", "95 % interval", "seen", "gap", "AUC", "seen"]
    output.print_table(
        [output.shorten(study.column, SITE), "samples", "classes", *scores],
        [
            (
                output.shorten(one.site, SITE),
                one.n_samples,
                len(one.classes),
                one.left_out.mean,
                output.range_of(one.left_out),
                one.ordinary,
                one.gap.mean,
                one.roc_auc,
                one.roc_auc_ordinary,
            )
            for one in study.sites
        ],
    )
    rows = [
        ("left out, mean over the sites", study.left_out.mean, output.range_of(study.left_out)),
        ("ordinary cross-validation", study.ordinary.mean, output.range_of(study.ordinary)),
        ("the same, mean within sites", study.ordinary_within, "-"),
        ("left out minus ordinary", study.gap.mean, output.range_of(study.gap)),
        ("guessing", study.guessing, "-"),
    ]
    click.echo()
    output.print_table(["balanced accuracy", "", "95 % interval"], rows)
    output.print_text("  left out: by a head trained at all others; seen: the same samples, by cross-validation")
    intervals = [study.gap, study.left_out, study.ordinary]
    method = next((one.method for one in intervals if one.low is not None), study.gap.method)
    output.print_text(f"  interval: {method}; of the samples of these sites, not of new sites")


def _print_labels(result: AuditResult) -> None:
    labels = result.labels
    click.echo("\nlabels in doubt")
    output.print_text(
        f"  estimated label errors: {labels.joint.n_errors:.0f} of {len(labels.issues)} (confident joint); "
        f"contradicted: {labels.n_against}; the head's balanced accuracy: "
        f"{labels.score.mean or 0.0:.3f} ({output.range_of(labels.score)}; guessing {labels.guessing:.3f})"
    )
    shown = labels.contradictions[: result.options.top]
    if shown:
        output.print_table(
            ["", "sample", "label", "suggested", "p label", "p sugg.", "repeats"],
            [
                (
                    one.rank,
                    output.shorten(one.key, KEY),
                    output.shorten(one.label, SITE),
                    output.shorten(one.suggested, SITE),
                    one.p_label,
                    one.p_suggested,
                    f"{one.n_against}/{labels.n_repeats}",
                )
                for one in shown
            ],
        )
    if len(shown) < labels.n_against:
        output.print_text(f"  and {labels.n_against - len(shown)} more (--top, --csv)")
    _print_remarks(result.label_remarks)
