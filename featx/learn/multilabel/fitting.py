"""How a head on labels is chosen, judged and fitted."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from featx.learn.candidates import Searched
from featx.learn.contest import Candidate, Contest, Entry, enter
from featx.learn.dataset import Features, check_different
from featx.learn.leaks import Leaks, find_splits, name_pairs
from featx.learn.multilabel.metrics import LabelPredictions
from featx.learn.multilabel.result import LabelResult
from featx.learn.multilabel.scores import (
    LabelEvaluation,
    LabelRows,
    compare_label_rows,
    constant_answer,
    evaluate_label_folds,
    evaluate_label_part,
    guess_labels,
    label_rows,
)
from featx.learn.multilabel.searching import LabelFit
from featx.learn.multilabel.study import LabelStudy
from featx.learn.novelty import Novelty, fit_novelty
from featx.learn.options import FitOptions
from featx.learn.paired import Comparison, Comparisons
from featx.learn.result import HeadResult, OutOfFold
from featx.learn.scores import FoldPredictions
from featx.learn.search import Fitted, Outcome, Progress, run_jobs
from featx.learn.search_ledger import SearchLedger
from featx.learn.splits import Fold
from featx.learn.study import NOTHING
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
    winners, best = contest.winners(), contest.best()
    chosen, final = contest.entry(winners[-1].file), best[-1]
    assert isinstance(final, LabelFit)
    estimator, unconverged = final.estimator, contest.unconverged
    n_fits = sum(space.n_fits(job) for job in jobs) * len(entries)
    if len(plan.fit) > len(plan.train):
        job, X = study.refit_job(plan.fit, "all"), chosen.samples.X.astype(np.float64)
        saved, failures = replace(space, views=chosen.use).refit_with(final.maps, X, marks, job, final.choice)
        estimator, unconverged, n_fits = saved.estimator, unconverged + failures, n_fits + 1
    seconds = time.perf_counter() - start

    accounts = _Accounts(study, folds)
    among = contest.candidates

    def alone(candidates: Sequence[Candidate]) -> HeadResult[LabelEvaluation]:
        return accounts.scores(contest.best(candidates))

    return LabelResult(
        estimator=estimator,
        labels=study.table.names,
        maps=final.maps,
        whole=accounts.scores(best),
        heads={name: alone([one for one in among if one.head == name]) for name in space.heads},
        files={one.name: alone(contest.of_files([one.name])) for one in entries if len(entries) > 1},
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
        seconds=seconds,
        fitted_on=[sha256 for sha256 in study.data.sha256[plan.fit] if sha256],
        options=options,
        comparisons=accounts.compare(contest),
        leaks=accounts.near_duplicates(chosen.name),
        novelty=accounts.novelty(chosen) if options.novelty else None,
        file=chosen.name,
        file_of_fold=[winner.file for winner in winners[:-1]] if len(entries) > 1 else [],
        views=chosen.use,
        spec=chosen.samples.spec,
        digest=chosen.samples.digest,
        locked=study.locked,
        searches=[
            Searched(name, job.name, outcome.candidates)
            for name, outcomes in contest.outcomes.items()
            for job, outcome in zip(jobs, outcomes, strict=True)
        ],
    )


@dataclass(frozen=True, eq=False)
class _Accounts:
    """What the predictions of the outer folds, and of the final choice, say; as `featx.learn.accounts.Accounts`."""

    study: LabelStudy
    folds: list[Fold]

    @property
    def _fold_names(self) -> list[str]:
        return [self.study.fold_name(fold) for fold in self.folds]

    @property
    def _is_fixed(self) -> bool:
        """Whether a part of its own is what is reported."""
        return self.study.plan.scheme != "nested-cv"

    def _parts(self, fitted: Sequence[Fitted]) -> list[FoldPredictions]:
        pairs = zip(self.folds, fitted, strict=False)
        return [FoldPredictions(fold, one.predicted, one.probabilities) for fold, one in pairs]

    def scores(self, fitted: Sequence[Fitted]) -> HeadResult[LabelEvaluation]:
        """Score one series of choices."""
        study, plan = self.study, self.study.plan
        cv: LabelEvaluation | None = None
        if self.folds:
            cv = evaluate_label_folds(study.table.take(plan.choose), self._parts(fitted), groups=study.ids(plan.choose))
        evaluation = cv
        if self._is_fixed:
            evaluation = evaluate_label_part(
                study.table.take(plan.report),
                fitted[-1].predicted,
                fitted[-1].probabilities,
                groups=study.ids(plan.report),
                train=study.table.marks[plan.train],
            )
        assert evaluation is not None
        choices = [(name, one.choice) for name, one in zip(self._fold_names, fitted, strict=False)]
        return HeadResult(evaluation, cv, fitted[-1].choice, choices)

    def compare(self, contest: Contest) -> Comparisons:
        """Compare the chosen candidate with the next best, and the whole with guessing, on the reported part."""
        runner_up = next_file = None
        simpler = simpler_file = ""
        first, second = contest.runner_up()
        if second is not None:
            names = (str(first), str(second))
            one, two = (self._tested(contest.fitted(each)) for each in (first, second))
            runner_up = self._beside(names, one, two)
            simpler = contest.simpler(first, second)
        if other := contest.next_file():
            one, two = (self._tested(contest.best(contest.of_files([name]))) for name in (first.file, other))
            next_file = self._beside((first.file, other), one, two)
            simpler_file = contest.simpler(Candidate(first.file, ""), Candidate(other, ""))
        guessing = self._beside_guessing(self._tested(contest.best()))
        return Comparisons(runner_up, next_file, guessing, simpler, simpler_file, guess="without a look at the image")

    def _beside(
        self, names: tuple[str, str], one: LabelRows, two: LabelRows, expected: Sequence[float | None] | None = None
    ) -> Comparison:
        options = self.study.options
        return compare_label_rows(
            names,
            one,
            two,
            options.scoring,
            expected=expected,
            n_repeats=None if self._is_fixed else options.repeats,
            random_state=options.random_state,
        )

    def _beside_guessing(self, rows: LabelRows) -> Comparison:
        plan, marks, scoring = self.study.plan, self.study.table.marks, self.study.options.scoring
        trained = [plan.train] if self._is_fixed else [plan.choose[fold.train] for fold in self.folds]
        guesses = [constant_answer(scoring, marks[train]) for train in trained]
        called, probabilities = (np.array(each)[rows.folds] for each in zip(*guesses, strict=True))
        guessed = replace(rows, predictions=LabelPredictions(rows.predictions.true, called, probabilities))
        expected = [
            guess_labels(marks[train], rows.predictions.true[tested])[scoring]
            for train, tested in zip(trained, rows.parts(), strict=True)
        ]
        return self._beside(("the whole procedure", "guessing"), rows, guessed, expected)

    def _tested(self, fitted: Sequence[Fitted]) -> LabelRows:
        """Lay out the predictions that are reported."""
        plan, marks = self.study.plan, self.study.table.marks
        if not self._is_fixed:
            return label_rows(marks[plan.choose], self._parts(fitted), self.study.ids(plan.choose))
        rows = plan.report
        whole = Fold(0, 0, NOTHING, np.arange(len(rows)), plan.scheme)
        part = FoldPredictions(whole, fitted[-1].predicted, fitted[-1].probabilities)
        return label_rows(marks[rows], [part], self.study.ids(rows))

    def novelty(self, chosen: Entry) -> Novelty:
        """Keep what tells images unlike those of the saved head."""
        rows = self.study.plan.fit
        return fit_novelty(chosen.plain[rows], self.study.ids(rows), random_state=self.study.options.random_state)

    def out_of_fold(self, fitted: Sequence[Fitted]) -> list[OutOfFold]:
        """List every prediction for a row that the head was not fitted on."""
        study, plan, data = self.study, self.study.plan, self.study.data
        tested = [(name, plan.choose[fold.test]) for name, fold in zip(self._fold_names, self.folds, strict=True)]
        if self._is_fixed:
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
        seen = [(plan.train, plan.report)] if self._is_fixed else cuts
        others, is_split = find_splits(near, study.groups.ids, seen)
        return Leaks(
            near=near,
            grouped=study.options.group_near_duplicates,
            n_other_groups=len(others),
            n_split=int(is_split.sum()),
            named=name_pairs(near, others, is_split, study.data.keys),
        )
