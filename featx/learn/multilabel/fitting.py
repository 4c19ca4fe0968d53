"""How a head on labels is chosen, judged and fitted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from featx.learn.contest import Contest, enter
from featx.learn.dataset import Features, check_different
from featx.learn.multilabel.accounts import LabelAccounts
from featx.learn.multilabel.result import LabelResult
from featx.learn.multilabel.searching import LabelFit
from featx.learn.multilabel.study import LabelStudy
from featx.learn.options import FitOptions
from featx.learn.search import Outcome, Progress, run_jobs
from featx.learn.search_ledger import SearchLedger
from featx.learn.views import ViewUse

FloatArray = NDArray[np.float64]


def fit_labels(
    features: Features | Mapping[str, Features],
    options: FitOptions,
    *,
    progress: Progress | None = None,
    ledger: SearchLedger | None = None,
    target: str | None = None,
    looking: Progress | None = None,
) -> LabelResult:
    """Train and cross-validate heads on labels; see `featx.fit.fit`. Every head can be saved, whatever the target."""
    del target
    entries = enter(features, views=options.views, score_views=options.score_views, allow_missing=options.allow_missing)
    samples = entries[0].samples
    for one in entries:
        check_different(one.samples, name=one.name)
    study = LabelStudy.read([one.take(samples.y != "") for one in entries], options, looking)
    plan, marks, space = study.plan, study.table.marks, study.space
    folds = study.outer_folds()
    jobs = [*(replace(job, keep=False) for job in study.outer_jobs(folds)), study.final_job()]
    start = time.perf_counter()

    def search(X: FloatArray, use: ViewUse, advance: Progress | None) -> list[Outcome]:
        of_views = replace(space, views=use)
        return run_jobs(X, marks, jobs, of_views, n_jobs=options.n_jobs, progress=advance, ledger=ledger)

    contest = Contest.hold(study.entries, search, progress)
    best = contest.best()
    chosen, final = contest.entry(contest.winners()[-1].file), best[-1]
    assert isinstance(final, LabelFit)
    estimator, unconverged = final.estimator, contest.unconverged
    n_fits = sum(space.n_fits(job) for job in jobs) * len(entries)
    if len(plan.fit) > len(plan.train):
        job, X = study.refit_job(plan.fit, "all"), chosen.samples.X.astype(np.float64)
        saved, failures = replace(space, views=chosen.use).refit_with(final.maps, X, marks, job, final.choice)
        estimator, unconverged, n_fits = saved.estimator, unconverged + failures, n_fits + 1
    seconds = time.perf_counter() - start

    accounts = LabelAccounts(study, folds)
    return LabelResult(
        **accounts.of_result(contest),
        estimator=estimator,
        labels=study.table.names,
        maps=final.maps,
        out_of_fold=accounts.out_of_fold(best),
        unconverged=unconverged,
        n_fits=n_fits,
        n_without=int((~marks.any(axis=1)).sum()),
        is_exclusive=bool((marks.sum(axis=1) <= 1).all()),
        unlabelled=len(samples) - len(study.data),
        n_missing=samples.n_missing,
        left_out=study.left_out,
        unseen=study.unseen,
        seconds=seconds,
        leaks=accounts.near_duplicates(chosen),
        novelty=accounts.novelty(chosen) if options.novelty else None,
    )
