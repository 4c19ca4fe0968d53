"""How a regression is fitted: the stage behind ``featx fit --task regression``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from featx.learn.contest import Contest, enter
from featx.learn.dataset import Features, check_different
from featx.learn.numbers import FloatArray
from featx.learn.options import FitOptions
from featx.learn.regression.accounts import NumberAccounts
from featx.learn.regression.result import RegressionResult
from featx.learn.regression.study import NumberStudy
from featx.learn.saveable import check_saveable
from featx.learn.search import Outcome, Progress, run_jobs
from featx.learn.search_ledger import SearchLedger
from featx.learn.views import ViewUse


def fit_numbers(
    features: Features | Mapping[str, Features],
    options: FitOptions,
    *,
    progress: Progress | None,
    ledger: SearchLedger | None,
    target: str | None,
    looking: Progress | None,
) -> RegressionResult:
    """Train and cross-validate heads on labels that are numbers; see `featx.fit.fit`.

    Raises
    ------
    LabelsError
        Labels that are no numbers, or all the same; groups or folds with which the evaluation cannot be done.
    InputError
        All samples have the same features.
    BundleError
        A head that cannot be saved, where there is a `target`.
    """
    entries = enter(features, views=options.views, score_views=options.score_views, allow_missing=options.allow_missing)
    samples = entries[0].samples
    for one in entries:
        check_different(one.samples, name=one.name)
    labelled = [one.take(samples.y != "") for one in entries]
    study = NumberStudy.of(labelled, options, looking)
    assert isinstance(study, NumberStudy)
    y, space, plan = study.numbers, study.space, study.plan
    folds = study.outer_folds()
    if target is not None:
        check_saveable(study, y, space, target)
    set_folds = study.set_folds(folds)
    jobs = [*study.outer_jobs(folds), *study.jobs_for_sets(folds, set_folds), study.final_job()]
    start = time.perf_counter()

    def search(X: FloatArray, use: ViewUse, advance: Progress | None) -> list[Outcome]:
        return run_jobs(X, y, jobs, replace(space, views=use), n_jobs=options.n_jobs, progress=advance, ledger=ledger)

    everything = Contest.hold(study.entries, search, progress)
    contest = everything.of_jobs([*range(len(folds)), len(jobs) - 1])
    best = contest.best()
    chosen, final = contest.entry(contest.winners()[-1].file), best[-1]
    estimator, n_fits = final.estimator, sum(space.n_fits(job) for job in jobs) * len(entries)
    if len(plan.fit) > len(plan.train):
        job = study.refit_job(plan.fit, "all")
        saved, _ = replace(space, views=chosen.use).refit(chosen.samples.X.astype(np.float64), y, job, final.choice)
        estimator, n_fits = saved.estimator, n_fits + 1
    seconds = time.perf_counter() - start

    accounts = NumberAccounts(study, folds)
    intervals, why_not = accounts.intervals(set_folds, everything.best(contest.of_files([chosen.name])))
    return RegressionResult(
        **accounts.of_result(contest),
        estimator=estimator,
        out_of_fold=accounts.out_of_fold(best),
        n_fits=n_fits,
        unlabelled=len(samples) - len(labelled[0].samples),
        n_missing=samples.n_missing,
        seconds=seconds,
        leaks=accounts.near_duplicates(chosen),
        intervals=intervals,
        why_no_intervals=why_not,
        novelty=accounts.novelty(chosen) if options.novelty else None,
    )
