"""``featx fit``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli import label_report, options, output, regression_report, report
from featx.cli.auto import auto_options, fit_auto, take_auto
from featx.learn.tasks import CLASSIFICATION, MULTILABEL, REGRESSION, TASKS, Task

if TYPE_CHECKING:
    from featx.learn.search_ledger import SearchLedger

REPORTS: dict[str, Callable[[Any], None]] = {
    CLASSIFICATION: report.print_fit,
    MULTILABEL: label_report.print_fit,
    REGRESSION: regression_report.print_fit,
}
"""What prints the account of a fit, by task."""


def _usual(of: Callable[[Task], str]) -> str:
    """Say the default of an option that a task may have its own of."""
    usual = of(TASKS[CLASSIFICATION])
    others = [f"for {task.name} {of(task)}" for task in TASKS.values() if of(task) != usual]
    return f"  [default: {'; '.join([usual, *others])}]"


@click.command("fit")
@click.argument("files", metavar="FILE.h5 ... | SOURCE", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", "target", metavar="NAME.featx", help="Where the fitted head is saved.")
@click.option("--task", type=click.Choice(list(TASKS)), default=CLASSIFICATION, show_default=True,
    help="; ".join(f"{task.name}: {task.summary}" for task in TASKS.values()) + ".")  # fmt: skip
@click.option(
    "--head", "heads", multiple=True, metavar="NAME",
    help="logreg, svm, lda, ... or package.module:factory (see: featx heads). Repeat it to let them compete."
    + _usual(lambda task: ", ".join(task.heads)),
)  # fmt: skip
@click.option("--cv", type=click.IntRange(min=2), default=5, show_default=True, help="Outer folds.")
@click.option("--inner-cv", type=click.IntRange(min=2), default=5, show_default=True, help="Folds of each choice.")
@click.option("--repeats", type=click.IntRange(min=1), default=1, show_default=True, help="Repeats of the outer folds.")
@click.option(
    "--scaling", "scalings", multiple=True, type=click.Choice(["raw", "standardise", "l2"]),
    default=["raw", "standardise", "l2"], show_default=True, help="Repeat it to let several compete.",
)  # fmt: skip
@click.option("--C-grid", "C_grid", type=options.Grid(), default="1e-6:1e3:10", show_default=True, metavar="LO:HI:N")
@click.option("--class-weight", type=click.Choice(["balanced"]),
    help="Every class counts the same, however many images it has.")  # fmt: skip
@click.option(
    "--scoring", default="", metavar="NAME", help="What the choice maximises." + _usual(lambda task: task.scoring)
)  # fmt: skip
@click.option("--split", type=click.Choice(["auto", "ignore"]), default="auto", show_default=True,
    help="Whether train, val and test of the file are kept apart.")  # fmt: skip
@click.option("--refit", type=click.Choice(["default", "all"]), default="default", show_default=True,
    help="all: the saved head is fitted on every row, also the reported ones.")  # fmt: skip
@click.option("--views", type=click.Choice(["train", "none"]),
    help="Of a file with views: fit on all of them, or on plain images alone.  [default: train]")  # fmt: skip
@click.option("--score-views", type=click.Choice(["plain", "average"]),
    help="Call a sample by its plain image, or by the mean over its views, as predict then does "
    "too.  [default: plain]")  # fmt: skip
@click.option("--positive", metavar="CLASS", help="Of two classes, the one whose sensitivity is meant.")
@click.option("--threshold", default="none", show_default=True, metavar="RULE",
    help="Of two classes, call the positive one from a probability on: balanced_accuracy or f1 (the best out of "
    "fold), sensitivity=0.95, specificity=0.95, a number, or none: the head decides.")  # fmt: skip
@click.option("--min-per-class", type=click.IntRange(min=1), metavar="N", help="Leave out classes with fewer samples.")
@click.option("--label-separator", default=";", show_default=True, metavar="TEXT",
    help="multilabel: what stands between the labels of an image, as in fox;snow.")  # fmt: skip
@click.option("--none-label", default="none", show_default=True, metavar="WORD",
    help="multilabel: the word for an image without any label; an empty text is one not looked at.")  # fmt: skip
@click.option("--thresholds", type=click.Choice(["f1", "half"]), default="f1", show_default=True,
    help="multilabel: call a label where its F1 is largest, or where it is more probable than not.")  # fmt: skip
@click.option("--allow-missing", is_flag=True,
    help="Go on although some images failed and have no row; of several files, on those that all have.")  # fmt: skip
@click.option("--by-group", is_flag=True, help="Also score groups (patients) by their mean probability.")
@click.option("--group-near-duplicates", is_flag=True,
    help="Join images whose features are nearly the same into one group; they are reported in any case.")  # fmt: skip
@click.option(
    "--near-duplicate-distance", type=click.FloatRange(0, 2), metavar="D",
    help="Largest cosine distance of centred features that counts as near.  [default: from the data, printed]",
)  # fmt: skip
@click.option("--leak-gap/--no-leak-gap", default=True, show_default=True,
    help="With groups, score the same procedure ignoring them as well; about doubles the time.")  # fmt: skip
@click.option("--oof", metavar="FILE.csv", help="Write every out-of-fold prediction.")
@click.option("--cv-results", metavar="FILE.csv",
    help="Write all that was compared, with its score on each inner fold, as scikit-learn's cv_results_.")  # fmt: skip
@options.trust_options
@click.option("--resume", is_flag=True, help="Go on with the searches of a fit with -o that was interrupted.")
@click.option("--random-state", type=int, default=0, show_default=True)
@click.option("--n-jobs", type=int, default=-1, show_default=True, help="Processes, as in scikit-learn; -1: all cores.")
@click.option("--device", default="cpu", show_default=True, metavar="NAME",
    help="Where logreg and svm are searched: cpu, or cuda for very large files.")  # fmt: skip
@auto_options
@options.quiet_option
@options.json_option
def command(
    files: tuple[str, ...],
    target: str | None,
    oof: str | None,
    cv_results: str | None,
    resume: bool,
    quiet: bool,
    as_json: bool,
    **values: Any,
) -> int:
    """Train and cross-validate a head on the features in FILE.h5, and save it.

    Head, scaling and C are chosen inside each training part, so that the score printed is the score
    of the whole procedure. Samples of one group are never on both sides. Several files of the same
    images (other backbones, nodes, views) compete in the same way; the winner is saved. With --auto
    the files are made from the images of SOURCE, and only as far as a backbone may still win.

    \b
    Example:
      featx fit cache/scans.h5 -o scans.featx
      featx fit cache/scans.h5 --head logreg --head svm --repeats 4 --positive tumour --oof oof.csv
      featx fit cache/scans.h5 -o scans.featx --positive tumour --threshold sensitivity=0.95
      featx fit cache/scans-resnet50.h5 cache/scans-vit_b_16.h5 -o scans.featx
      featx fit cache/chests.h5 --task multilabel --label-separator '|' --none-label 'No Finding'
      featx fit cache/wrists.h5 --task regression -o age.featx    labels are numbers
      featx fit photos/ --auto -o photos.featx
      featx fit scans.csv --auto --auto-backbone resnet18 --auto-backbone vit_b_16 --group-column patient
    """
    from featx.errors import UsageError
    from featx.fit import FitOptions, fit, save, save_cv_results, save_out_of_fold
    from featx.learn.search_ledger import SearchLedger
    from featx.store.target import check_target

    if target is not None:
        check_target(target, (".featx",), what="bundles")
    if oof is not None:
        check_target(oof, (".csv",), what="out-of-fold predictions")
    if cv_results is not None:
        check_target(cv_results, (".csv",), what="results of the search")
        if oof is not None and Path(oof).resolve() == Path(cv_results).resolve():
            raise UsageError("--oof and --cv-results name the same file: give each its own")
    if resume and target is None:
        raise UsageError("--resume goes on with a fit that was to be saved: give the same -o NAME.featx")
    auto = take_auto(values)
    if auto is not None and len(files) > 1:
        raise UsageError(f"--auto takes one SOURCE of images, not {len(files)}")
    folders = [name for name in files if auto is None and Path(name).is_dir()]
    if folders:
        raise UsageError(
            f"{folders[0]} is a folder, not a feature file: extract it first, or let backbones race: --auto"
        )
    fit_options = FitOptions(**values | {"heads": values["heads"] or None})
    if auto is not None and fit_options.task != CLASSIFICATION:
        raise UsageError(f"--auto races backbones for classes; it has no meaning for --task {fit_options.task} yet")
    ledger = None if target is None else SearchLedger(Path(f"{target}.search"), resume=resume)
    if ledger is not None:
        _say_dropped(ledger)
    try:
        result: Any = None
        if auto is not None:
            result = fit_auto(files[0], auto, fit_options, ledger, quiet=quiet)
        else:
            with (
                output.progress("near-duplicates", "images", quiet=quiet) as looking,
                output.progress("fit", "searches", quiet=quiet) as advance,
            ):
                result = fit(files, fit_options, progress=advance, ledger=ledger, target=target, looking=looking)
    except KeyboardInterrupt:
        if ledger is not None and ledger.path.exists():
            output.say("finished searches are kept: the same command with --resume goes on")
        raise
    if ledger is not None:
        _say_taken_up(ledger)
    try:
        if not as_json:
            REPORTS[fit_options.task](result)  # before what can fail: a full disk must not cost the answer
    finally:  # nor a reader who has seen enough (`| head`) the classifier
        if target is not None:
            save(result, target)
        if ledger is not None:
            ledger.remove()
        if oof is not None:
            save_out_of_fold(result, oof)
        if cv_results is not None:
            save_cv_results(result, cv_results)
    if as_json:
        output.print_json(result.to_dict())
    elif target is not None:
        click.echo(f"\nsaved: {target}")
        click.echo("next: " + output.to_type(f"featx predict {target} NEW-IMAGES/ -o predictions.csv"))
    return 0


def _say_dropped(ledger: SearchLedger) -> None:
    """Say what is forgotten of an earlier fit, where it was not asked to go on."""
    if ledger.n_kept and not ledger.resume:
        output.say_warning(
            f"{output.count(ledger.n_kept, 'search')} of an interrupted fit {'is' if ledger.n_kept == 1 else 'are'} "
            "dropped and begun again: --resume would have gone on with what is the same."
        )


def _say_taken_up(ledger: SearchLedger) -> None:
    """Say what `--resume` went on with, and why it was nothing."""
    if not ledger.resume:
        return
    if ledger.n_found:
        output.say(f"taken up from the fit that was interrupted: {output.count(ledger.n_found, 'search')}")
    elif ledger.n_kept:
        output.say_warning(
            f"--resume: none of the {output.count(ledger.n_kept, 'search')} in {ledger.path} is of this fit (other "
            "features, labels, options or versions), so all were made."
        )
    else:
        output.say_warning(f"--resume: there was nothing to go on with: no finished search in {ledger.path}.")
