"""``featx fit``: from a feature file to a classifier with scores that its user can defend."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import UsageError
from featx.learn.alignment import check_paths
from featx.learn.class_accounts import ClassAccounts
from featx.learn.contest import Contest, Entry, enter, name_files
from featx.learn.dataset import Features, check_learnable, load_features
from featx.learn.fit_result import FitResult
from featx.learn.options import FitOptions
from featx.learn.out_of_fold import Steps, finish, like
from featx.learn.result import save, save_cv_results, save_out_of_fold
from featx.learn.saveable import check_saveable
from featx.learn.scores import check_positive
from featx.learn.search import Outcome, Progress, refit, run_jobs
from featx.learn.search_ledger import SearchLedger
from featx.learn.study import Study
from featx.learn.tasks import CLASSIFICATION, MULTILABEL, REGRESSION
from featx.learn.threshold import check_two_classes
from featx.learn.trust_account import folds_for_sets
from featx.learn.views import ViewUse
from featx.store.file import FeatureFile

if TYPE_CHECKING:
    from featx.learn.multilabel.result import LabelResult
    from featx.learn.regression.result import RegressionResult

__all__ = ["FitOptions", "FitResult", "fit", "fit_features", "save", "save_cv_results", "save_out_of_fold"]

FloatArray = NDArray[np.float64]


def fit(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    options: FitOptions = FitOptions(),
    *,
    progress: Progress | None = None,
    ledger: SearchLedger | None = None,
    target: str | None = None,
    looking: Progress | None = None,
) -> FitResult | LabelResult | RegressionResult:
    """Train and cross-validate a head on the features in a file, or on those of the best of several.

    Parameters
    ----------
    path : path-like, or a sequence of them
        A feature file as `featx extract` writes it. Several of the same samples compete: which one is best is chosen
        inside each training part, as head, scaling and C are.
    options : FitOptions
    progress : callable (done, total), optional
    ledger : SearchLedger, optional
        Keeps finished searches, so that an interrupted fit can go on.
    target : str, optional
        Where the result is to be saved: a head of the user's own that cannot be is refused before the search.
    looking : callable (done, total), optional
        Called while samples are compared for near-duplicates, before the search.

    Returns
    -------
    FitResult, or what the task of the options gives instead
        Each has ``to_dict``; `save`, `save_cv_results` and `save_out_of_fold` take it.

    Raises
    ------
    StoreError
        A file that is missing, damaged or not complete.
    InputError
        Features that are not finite; files of different samples, or with different ones locked.
    LabelsError
        Labels, groups or folds with which the evaluation cannot be done; files that disagree about them.
    UsageError
        Options that do not suit the data.
    BundleError
        A head that cannot be saved, where there is a `target`.
    """
    needs_views = options.views != "none" or options.score_views == "average"
    paths = [os.fspath(one) for one in ([path] if isinstance(path, str | os.PathLike) else path)]
    check_paths(paths)
    files = {
        name: load_features(one, allow_missing=options.allow_missing, views=needs_views)
        for name, one in zip(name_files(paths), paths, strict=True)
    }
    features = files if len(files) > 1 else next(iter(files.values()))
    result = fit_features(features, options, progress=progress, ledger=ledger, target=target, looking=looking)
    with FeatureFile.open(paths[list(files).index(result.file)] if result.file else paths[0]) as file:
        weights = file.weights()
    return replace(result, weights=weights)


def arrange(
    labelled: Sequence[Entry], options: FitOptions, looking: Progress | None = None
) -> tuple[Study, dict[str, int]]:
    """Plan the evaluation, and check that it can be what the options ask for; with the classes left out as too small.

    Raises
    ------
    LabelsError, UsageError
        As `fit`.
    """
    study, small_classes = Study.arrange(labelled, options, looking)
    classes = study.classes(study.plan.train)
    check_positive(options.positive, classes)
    check_two_classes(options.threshold_rule, classes)
    if options.by_group and not study.groups.given:
        raise UsageError("--by-group needs groups: give a group column or --group-regex to `featx extract`")
    return study, small_classes


def fit_features(
    features: Features | Mapping[str, Features],
    options: FitOptions = FitOptions(),
    *,
    progress: Progress | None = None,
    ledger: SearchLedger | None = None,
    target: str | None = None,
    looking: Progress | None = None,
) -> FitResult | LabelResult | RegressionResult:
    """Train and cross-validate a head on features that are already in memory, several by name; see `fit`."""
    return _FITS[options.task](features, options, progress=progress, ledger=ledger, target=target, looking=looking)


def _fit_numbers(*arguments: Any, **options: Any) -> RegressionResult:
    from featx.learn.regression.fitting import fit_numbers

    return fit_numbers(*arguments, **options)


def _fit_labels(*arguments: Any, **options: Any) -> LabelResult:
    from featx.learn.multilabel.fitting import fit_labels

    return fit_labels(*arguments, **options)


def fit_classes(
    features: Features | Mapping[str, Features],
    options: FitOptions,
    *,
    progress: Progress | None = None,
    ledger: SearchLedger | None = None,
    target: str | None = None,
    looking: Progress | None = None,
    roster: Mapping[str, Sequence[str]] | None = None,
) -> FitResult:
    """Train and cross-validate a classifier, see `fit_features`.

    `roster` says which files may win a training part, by its name (of an outer fold, or ``"final"``), where something
    that saw no more than that part has left out others before (`featx.learn.racing`).
    """
    entries = enter(features, views=options.views, score_views=options.score_views, allow_missing=options.allow_missing)
    samples = entries[0].samples
    for one in entries:
        check_learnable(one.samples, name=one.name)
    labelled = [one.take(samples.y != "") for one in entries]
    study, small_classes = arrange(labelled, options, looking)
    plan, y = study.plan, study.data.y
    folds = study.outer_folds()
    if target is not None:
        check_saveable(study, y, options.space, target)
    set_folds = folds_for_sets(study.data, study.groups, plan, options, folds)
    jobs = [*study.outer_jobs(folds), *study.jobs_for_sets(folds, set_folds), study.final_job()]
    loose, loose_folds, no_gap = study.ungrouped(folds)
    loose_jobs = [replace(job, name=f"ungrouped {job.name}", keep=False) for job in loose.outer_jobs(loose_folds)]
    n_after, n_fits_after = study.finish.n_fits(jobs, options.space)
    start = time.perf_counter()

    def search(X: FloatArray, use: ViewUse, progress: Progress | None) -> list[Outcome]:
        steps, space = Steps(progress, n_after), replace(options.space, views=use)
        outcomes = run_jobs(
            X, y, [*jobs, *loose_jobs], space, n_jobs=options.n_jobs, progress=steps.searched, ledger=ledger
        )
        finished = finish(
            X,
            y,
            jobs,
            outcomes[: len(jobs)],
            space,
            study.finish,
            groups=study.groups.ids,
            n_jobs=options.n_jobs,
            progress=steps.finished,
        )
        return [*finished, *outcomes[len(jobs) :]]

    every, part_names = [one.name for one in entries], [job.name for job in (*jobs, *loose_jobs)]
    rosters = [roster.get(name, every) for name in part_names] if roster else ()
    everything = Contest.hold(study.entries, search, progress, rosters=rosters)
    contest = everything.of_jobs([*range(len(folds)), len(jobs) - 1])
    ungrouped = everything.of_jobs(range(len(jobs), len(jobs) + len(loose_jobs)))
    best = contest.best()
    chosen, final = contest.entry(contest.winners()[-1].file), best[-1]
    estimator, unconverged = final.estimator, everything.unconverged
    n_fits = (sum(job.n_fits(options.space) for job in (*jobs, *loose_jobs)) + n_fits_after) * len(entries)
    if len(plan.fit) > len(plan.train):
        job, space = study.refit_job(plan.fit, "all"), replace(options.space, views=chosen.use)
        saved, failures = refit(chosen.samples.X.astype(np.float64), y, job, final.choice, space)
        estimator, unconverged = like(saved, final, study.finish).estimator, unconverged + failures
        n_fits += job.n_refits(final.choice.head)
    seconds = time.perf_counter() - start

    accounts = ClassAccounts(study, folds)
    on_chosen = everything.of_jobs(range(len(jobs))).best(contest.of_files([chosen.name]))
    return FitResult(
        **accounts.of_result(contest),
        estimator=estimator,
        classes=[str(name) for name in estimator.classes_],
        by_group=accounts.by_group(best) if options.by_group else None,
        out_of_fold=accounts.out_of_fold(best),
        out_of_fold_classes=study.classes(plan.train),
        unconverged=unconverged,
        n_fits=n_fits,
        unlabelled=len(samples) - len(labelled[0].samples),
        small_classes=small_classes,
        n_missing=samples.n_missing,
        seconds=seconds,
        trust=accounts.trust(chosen, set_folds, on_chosen),
        leaks=accounts.leaks(chosen, contest, loose_folds, ungrouped.best() if loose_jobs else [], no_gap),
        thresholds=accounts.thresholds(best),
    )


_FITS: dict[str, Callable[..., FitResult | LabelResult | RegressionResult]] = {
    CLASSIFICATION: fit_classes,
    MULTILABEL: _fit_labels,
    REGRESSION: _fit_numbers,
}
"""What fits, by task."""
