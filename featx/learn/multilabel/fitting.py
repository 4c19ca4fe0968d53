"""How a head on labels is chosen, judged and fitted."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from featx.learn.contest import Contest, enter
from featx.learn.dataset import Features
from featx.learn.leaks import Leaks, find_splits, name_pairs
from featx.learn.multilabel.result import LabelHeadResult, LabelResult
from featx.learn.multilabel.scores import LabelEvaluation, evaluate_label_folds, evaluate_label_part
from featx.learn.multilabel.searching import LabelFit, Refitting
from featx.learn.multilabel.study import LabelStudy
from featx.learn.options import FitOptions
from featx.learn.result import OutOfFold
from featx.learn.scores import FoldPredictions
from featx.learn.search import Fitted, Job, Outcome, Progress, Space, run_jobs
from featx.learn.search_ledger import SearchLedger
from featx.learn.splits import Fold
from featx.learn.views import ViewUse

FloatArray = NDArray[np.float64]


def fit_labels(
    features: Features | Mapping[str, Features],
    options: FitOptions,
    *,
    progress: Progress | None = None,
    ledger: SearchLedger | None = None,
) -> LabelResult:
    """Train and cross-validate heads on labels; see `featx.fit.fit`."""
    entries = enter(features, views=options.views, score_views=options.score_views, allow_missing=options.allow_missing)
    samples = entries[0].samples
    study = LabelStudy.read([one.take(samples.y != "") for one in entries], options)
    plan, marks = study.plan, study.table.marks
    folds = study.outer_folds()
    jobs = [*(replace(job, keep=False) for job in study.outer_jobs(folds)), study.final_job()]
    refitting = Refitting(study.table.names, study.groups.ids, options.calibration, options.thresholds)
    start = time.perf_counter()

    def search(X: FloatArray, use: ViewUse, progress: Progress | None) -> list[Outcome]:
        space = replace(options.space, views=use)
        return run_jobs(
            X,
            marks,
            jobs,
            space,
            method=refitting.method,
            n_jobs=options.n_jobs,
            progress=progress,
            ledger=ledger,
        )

    contest = Contest.hold(study.entries, search, progress)
    winners, best = contest.winners(), contest.best()
    chosen, final = contest.entry(winners[-1].file), best[-1]
    assert isinstance(final, LabelFit)
    estimator, unconverged = final.estimator, contest.unconverged
    n_fits = sum(_n_fits(job, options.space) for job in jobs) * len(entries)
    if len(plan.fit) > len(plan.train):
        job, space = study.refit_job(plan.fit, "all"), replace(options.space, views=chosen.use)
        again = replace(refitting, maps=final.maps).method
        saved, failures = again.refit(chosen.samples.X.astype(np.float64), marks, job, final.choice, space)
        estimator, unconverged, n_fits = saved.estimator, unconverged + failures, n_fits + 1
    accounts = _Accounts(study, folds)
    among = contest.candidates
    return LabelResult(
        estimator=estimator,
        labels=study.table.names,
        maps=final.maps,
        whole=accounts.scores(best),
        heads={
            name: accounts.scores(contest.best([one for one in among if one.head == name]))
            for name in options.space.heads
        },
        files={
            one.name: accounts.scores(contest.best(contest.of_files([one.name]))) for one in entries if len(entries) > 1
        },
        plan=plan,
        prescribed_folds=study.prescribed is not None,
        groups=study.groups,
        out_of_fold=accounts.out_of_fold(best),
        unconverged=unconverged,
        n_fits=n_fits,
        n_without=int((~marks.any(axis=1)).sum()),
        is_exclusive=bool((marks.sum(axis=1) <= 1).all()),
        unlabelled=len(samples) - len(study.data),
        n_missing=samples.n_missing,
        left_out=study.left_out,
        unseen=study.unseen,
        seconds=time.perf_counter() - start,
        fitted_on=[sha256 for sha256 in study.data.sha256[plan.fit] if sha256],
        options=options,
        leaks=accounts.near_duplicates(chosen.name),
        file=chosen.name,
        file_of_fold=[winner.file for winner in winners[:-1]] if len(entries) > 1 else [],
        views=chosen.use,
        spec=chosen.samples.spec,
        digest=chosen.samples.digest,
        locked=study.locked,
    )


def _n_fits(job: Job, space: Space) -> int:
    """How many fits of all labels a job takes: the search, and for each head its inner folds once more and itself."""
    return space.n_candidates * len(job.inner) + len(space.heads) * (len(job.inner) + 1)


@dataclass(frozen=True, eq=False)
class _Accounts:
    """What the predictions of the outer folds, and of the final choice, say; as `featx.learn.accounts.Accounts`."""

    study: LabelStudy
    folds: list[Fold]

    @property
    def _fold_names(self) -> list[str]:
        return [self.study.fold_name(fold) for fold in self.folds]

    def scores(self, fitted: Sequence[Fitted]) -> LabelHeadResult:
        """Score one series of choices."""
        study, plan = self.study, self.study.plan
        cv: LabelEvaluation | None = None
        if self.folds:
            parts = [
                FoldPredictions(fold, one.predicted, one.probabilities)
                for fold, one in zip(self.folds, fitted, strict=False)
            ]
            cv = evaluate_label_folds(study.table.take(plan.choose), parts, groups=study.ids(plan.choose))
        evaluation = cv
        if plan.scheme != "nested-cv":
            evaluation = evaluate_label_part(
                study.table.take(plan.report),
                fitted[-1].predicted,
                fitted[-1].probabilities,
                groups=study.ids(plan.report),
                train=study.table.marks[plan.train],
            )
        assert evaluation is not None
        choices = [(name, one.choice) for name, one in zip(self._fold_names, fitted, strict=False)]
        return LabelHeadResult(evaluation, cv, fitted[-1].choice, choices)

    def out_of_fold(self, fitted: Sequence[Fitted]) -> list[OutOfFold]:
        """List every prediction for a row that the head was not fitted on."""
        study, plan, data = self.study, self.study.plan, self.study.data
        tested = [(name, plan.choose[fold.test]) for name, fold in zip(self._fold_names, self.folds, strict=True)]
        if plan.scheme != "nested-cv":
            tested.append(("val" if plan.scheme == "val" else "test", plan.report))
        return [
            OutOfFold(str(data.keys[row]), str(data.groups[row]), name, true, called, tuple(p.tolist()))
            for (name, rows), one in zip(tested, fitted, strict=False)
            for row, true, called, p in zip(
                rows,
                study.table.take(rows).texts(study.syntax),
                replace(study.table, marks=one.predicted).texts(study.syntax),
                one.probabilities,
                strict=True,
            )
        ]

    def near_duplicates(self, file: str) -> Leaks:
        """Say which samples are nearly the same, and whether training and test come between."""
        study, plan, near = self.study, self.study.plan, self.study.near[file]
        cuts = [(plan.choose[fold.train], plan.choose[fold.test]) for fold in self.folds]
        seen = cuts if plan.scheme == "nested-cv" else [(plan.train, plan.report)]
        others, is_split = find_splits(near, study.groups.ids, seen)
        return Leaks(
            near=near,
            grouped=study.options.group_near_duplicates,
            n_other_groups=len(others),
            n_split=int(is_split.sum()),
            named=name_pairs(near, others, is_split, study.data.keys),
            no_gap="it is told of classes alone",
        )
