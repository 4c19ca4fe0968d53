"""How a regression is fitted: the stage behind ``featx fit --task regression``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from featx.learn.contest import Candidate, Contest, Entry, enter
from featx.learn.dataset import Features
from featx.learn.leaks import Leaks, find_splits, name_pairs
from featx.learn.novelty import Novelty, fit_novelty
from featx.learn.numbers import FloatArray
from featx.learn.options import FitOptions
from featx.learn.paired import Comparison, Comparisons
from featx.learn.regression.intervals import NumberIntervals
from featx.learn.regression.metrics import Tested
from featx.learn.regression.result import NumberOutOfFold, RegressionResult
from featx.learn.regression.scores import NumberEvaluation, compare, evaluate_fixed, evaluate_folds, of_fixed, of_folds
from featx.learn.regression.study import NumberStudy
from featx.learn.result import HeadResult
from featx.learn.scores import FoldPredictions
from featx.learn.search import Fitted, Outcome, Progress, run_jobs
from featx.learn.search_ledger import SearchLedger
from featx.learn.splits import Fold
from featx.learn.trust import CHEAP, bytes_of
from featx.learn.views import ViewUse


def fit_numbers(
    features: Features | Mapping[str, Features],
    options: FitOptions,
    *,
    progress: Progress | None,
    ledger: SearchLedger | None,
) -> RegressionResult:
    """Train and cross-validate heads on labels that are numbers; see `featx.fit.fit`.

    Raises
    ------
    LabelsError
        Labels that are no numbers, or all the same; groups or folds with which the evaluation cannot be done.
    """
    entries = enter(features, views=options.views, score_views=options.score_views, allow_missing=options.allow_missing)
    samples = entries[0].samples
    labelled = [one.take(samples.y != "") for one in entries]
    study = NumberStudy.of(labelled, options)
    assert isinstance(study, NumberStudy)
    y, space, plan = study.numbers, study.space, study.plan
    folds = study.outer_folds()
    set_folds = study.set_folds(folds)
    jobs = [*study.outer_jobs(folds), *study.jobs_for_sets(folds, set_folds), study.final_job()]
    start = time.perf_counter()

    def search(X: FloatArray, use: ViewUse, advance: Progress | None) -> list[Outcome]:
        return run_jobs(X, y, jobs, replace(space, views=use), n_jobs=options.n_jobs, progress=advance, ledger=ledger)

    everything = Contest.hold(study.entries, search, progress)
    contest = everything.of_jobs([*range(len(folds)), len(jobs) - 1])
    winners, best = contest.winners(), contest.best()
    chosen, final = contest.entry(winners[-1].file), best[-1]
    estimator, n_fits = final.estimator, sum(space.n_fits(job) for job in jobs) * len(entries)
    if len(plan.fit) > len(plan.train):
        job = study.refit_job(plan.fit, "all")
        saved, _ = replace(space, views=chosen.use).refit(chosen.samples.X.astype(np.float64), y, job, final.choice)
        estimator, n_fits = saved.estimator, n_fits + 1
    seconds = time.perf_counter() - start

    accounts = _Accounts(study, y, folds)

    def alone(candidates: Sequence[Candidate]) -> HeadResult[NumberEvaluation]:
        return accounts.scores(contest.best(candidates))

    among = contest.candidates
    heads = {name: alone([one for one in among if one.head == name]) for name in space.heads}
    files = {one.name: alone(contest.of_files([one.name])) for one in entries if len(entries) > 1}
    on_chosen = everything.best(contest.of_files([chosen.name]))
    intervals, why_not = accounts.intervals(set_folds, on_chosen)
    return RegressionResult(
        estimator=estimator,
        whole=accounts.scores(best) if len(among) > 1 else heads[final.choice.head],
        heads=heads,
        plan=plan,
        prescribed_folds=study.prescribed is not None,
        groups=study.groups,
        out_of_fold=accounts.out_of_fold(best),
        n_fits=n_fits,
        unlabelled=len(samples) - len(labelled[0].samples),
        n_missing=samples.n_missing,
        seconds=seconds,
        fitted_on=[sha256 for sha256 in study.data.sha256[plan.fit] if sha256],
        options=options,
        comparisons=accounts.compare(contest),
        leaks=accounts.leaks(chosen),
        intervals=intervals,
        why_no_intervals=why_not,
        novelty=accounts.novelty(chosen) if options.novelty else None,
        file=chosen.name,
        files=files,
        file_of_fold=[winner.file for winner in winners[:-1]] if files else [],
        views=chosen.use,
        spec=chosen.samples.spec,
        digest=chosen.samples.digest,
        locked=study.locked,
    )


@dataclass(frozen=True, eq=False)
class _Accounts:
    """What the predictions of a study's folds, and last those of the final choice, say."""

    study: NumberStudy
    y: FloatArray
    folds: list[Fold]

    @property
    def fold_names(self) -> list[str]:
        return [self.study.fold_name(fold) for fold in self.folds]

    @property
    def is_fixed(self) -> bool:
        """Whether a part of its own is what is reported."""
        return self.study.plan.scheme != "nested-cv"

    def scores(self, fitted: Sequence[Fitted]) -> HeadResult[NumberEvaluation]:
        """Score one series of choices."""
        plan, y, ids = self.study.plan, self.y, self.study.ids
        cv = evaluate_folds(y[plan.choose], self._parts(fitted), ids(plan.choose)) if self.folds else None
        evaluation = cv
        if self.is_fixed:
            evaluation = evaluate_fixed(y[plan.report], fitted[-1].predicted, ids(plan.report), y_train=y[plan.train])
        assert evaluation is not None
        choices = [(name, one.choice) for name, one in zip(self.fold_names, fitted, strict=False)]
        return HeadResult(evaluation, cv, fitted[-1].choice, choices)

    def compare(self, contest: Contest) -> Comparisons:
        """Compare the chosen candidate with the next best, and the whole with guessing, on the reported part."""
        evaluation = self.scores(contest.best()).evaluation

        def beside(names: tuple[str, str], one: Tested, two: Tested) -> Comparison:
            return compare(
                names,
                one,
                two,
                unit=evaluation.unit,
                is_fixed=self.is_fixed,
                random_state=self.study.options.random_state,
            )

        runner_up = next_file = None
        simpler = simpler_file = ""
        first, second = contest.runner_up()
        if second is not None:
            one, two = (self._tested(contest.fitted(each)) for each in (first, second))
            runner_up, simpler = beside((str(first), str(second)), one, two), contest.simpler(first, second)
        if other := contest.next_file():
            one, two = (self._tested(contest.best(contest.of_files([name]))) for name in (first.file, other))
            next_file = beside((first.file, other), one, two)
            simpler_file = contest.simpler(Candidate(first.file, ""), Candidate(other, ""))
        whole = self._tested(contest.best())
        guessing = beside(("the whole procedure", "guessing"), whole, whole.guessed(whole.middle))
        return Comparisons(runner_up, next_file, guessing, simpler, simpler_file, guess="the median")

    def out_of_fold(self, fitted: Sequence[Fitted]) -> list[NumberOutOfFold]:
        """List every prediction for a row that the head was not fitted on."""
        plan, data = self.study.plan, self.study.data
        tested = [(name, plan.choose[fold.test]) for name, fold in zip(self.fold_names, self.folds, strict=True)]
        if self.is_fixed:
            tested.append(("val" if plan.scheme == "val" else "test", plan.report))
        return [
            NumberOutOfFold(str(data.keys[row]), str(data.groups[row]), name, float(self.y[row]), float(predicted))
            for (name, rows), one in zip(tested, fitted, strict=False)
            for row, predicted in zip(rows, one.predicted, strict=True)
        ]

    def intervals(self, folds: Sequence[Fold], fitted: Sequence[Fitted]) -> tuple[NumberIntervals | None, str]:
        """Keep the heads of some folds with how far off they were, or say why not."""
        study, asked = self.study, self.study.options.conformal
        if asked == "off":
            return None, "it was fitted with --conformal off"
        if not folds:
            return None, (
                "the choice was made on val, without folds; `featx fit --conformal on` makes folds of train and val "
                "for it"
            )
        kept = fitted[: len(folds)]
        size = sum(bytes_of(one.estimator) for one in kept)
        if size > CHEAP and asked != "on":
            return None, (
                f"the {len(kept)} fold heads would take {size / (1 << 20):.0f} MiB in the bundle; --conformal on keeps "
                "them all the same"
            )
        rows = np.concatenate([study.plan.train[fold.test] for fold in folds])
        ids = study.ids(rows)
        return NumberIntervals(
            heads=[one.estimator for one in kept],
            residuals=np.abs(self.y[rows] - np.concatenate([one.predicted for one in kept])),
            folds=np.repeat(np.arange(len(folds)), [len(fold.test) for fold in folds]),
            groups=rows if ids is None else ids,
            unit="samples" if ids is None else "groups",
        ), ""

    def leaks(self, chosen: Entry) -> Leaks:
        """Say which near-duplicates could make the scores too good."""
        plan, near = self.study.plan, self.study.near[chosen.name]
        cuts = [(plan.choose[fold.train], plan.choose[fold.test]) for fold in self.folds]
        others, is_split = find_splits(
            near, self.study.groups.ids, [(plan.train, plan.report)] if self.is_fixed else cuts
        )
        return Leaks(
            near=near,
            grouped=self.study.options.group_near_duplicates,
            n_other_groups=len(others),
            n_split=int(is_split.sum()),
            named=name_pairs(near, others, is_split, chosen.samples.keys),
        )

    def novelty(self, chosen: Entry) -> Novelty:
        """Keep what tells images unlike those of the saved head."""
        rows = self.study.plan.fit
        return fit_novelty(chosen.plain[rows], self.study.ids(rows), random_state=self.study.options.random_state)

    def _parts(self, fitted: Sequence[Fitted]) -> list[FoldPredictions]:
        return [FoldPredictions(fold, one.predicted, None) for fold, one in zip(self.folds, fitted, strict=False)]

    def _tested(self, fitted: Sequence[Fitted]) -> Tested:
        """Lay out the predictions that are reported."""
        plan, y = self.study.plan, self.y
        if not self.is_fixed:
            return of_folds(y[plan.choose], self._parts(fitted), self.study.ids(plan.choose))
        rows = plan.report
        return of_fixed(y[rows], fitted[-1].predicted, self.study.ids(rows), y_train=y[plan.train])
