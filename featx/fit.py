"""``featx fit``: from a feature file to a classifier with scores that its user can defend."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from featx.errors import UsageError
from featx.learn.alignment import check_paths
from featx.learn.by_group import GroupEvaluation, by_group, by_group_folds
from featx.learn.contest import Candidate, Contest, enter, name_files
from featx.learn.dataset import Features, load_features
from featx.learn.groups import GroupIds, resolve_groups
from featx.learn.heads import find_head
from featx.learn.options import FitOptions
from featx.learn.paired import Comparison, Comparisons, compare, compare_with_guessing
from featx.learn.plan import EvaluationPlan, plan_evaluation
from featx.learn.result import FitResult, HeadResult, OutOfFold, save, save_out_of_fold
from featx.learn.scores import FoldPredictions, check_positive, evaluate_fixed, evaluate_folds
from featx.learn.search import Fitted, Job, Outcome, Progress, refit, run_jobs
from featx.learn.splits import Fold, check_classes, find_small_classes, make_folds
from featx.learn.views import ViewUse
from featx.store.file import FeatureFile

__all__ = ["FitOptions", "FitResult", "fit", "fit_features", "save", "save_out_of_fold"]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
NOTHING: IntArray = np.array([], dtype=np.int64)


def fit(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    options: FitOptions = FitOptions(),  # noqa: B008  frozen
    *,
    progress: Progress | None = None,
) -> FitResult:
    """Train and cross-validate a classifier on the features in a file, or on those of the best of several.

    Parameters
    ----------
    path : path-like, or a sequence of them
        A feature file as `featx extract` writes it. Several of the same samples compete: which one is best is chosen
        inside each training part, as head, scaling and C are.
    options : FitOptions
    progress : callable (done, total), optional

    Returns
    -------
    FitResult

    Raises
    ------
    StoreError
        A file that is missing, damaged or not complete.
    InputError
        Features that are not finite; files of different samples.
    LabelsError
        Labels, groups or folds with which the evaluation cannot be done; files that disagree about them.
    UsageError
        Options that do not suit the data.
    """
    needs_views = options.views != "none" or options.score_views == "average"
    paths = [os.fspath(one) for one in ([path] if isinstance(path, str | os.PathLike) else path)]
    check_paths(paths)
    files = {
        name: load_features(one, allow_missing=options.allow_missing, views=needs_views)
        for name, one in zip(name_files(paths), paths, strict=True)
    }
    result = fit_features(files if len(files) > 1 else next(iter(files.values())), options, progress=progress)
    with FeatureFile.open(paths[list(files).index(result.file)] if result.file else paths[0]) as file:
        weights = file.weights()
    return replace(result, weights=weights)


def fit_features(
    features: Features | Mapping[str, Features],
    options: FitOptions = FitOptions(),  # noqa: B008  frozen
    *,
    progress: Progress | None = None,
) -> FitResult:
    """Train and cross-validate a classifier on features that are already in memory, several by name; see `fit`."""
    entries = enter(features, views=options.views, score_views=options.score_views, allow_missing=options.allow_missing)
    samples = entries[0].samples
    labelled = samples.take(samples.y != "")
    study, small_classes = _arrange(labelled, options)
    plan = study.plan
    check_positive(options.positive, study.classes(plan.train))
    if options.by_group and not study.groups.given:
        raise UsageError("--by-group needs groups: give a group column or --group-regex to `featx extract`")

    folds = study.outer_folds()
    jobs = [*(study.outer_job(fold) for fold in folds), study.final_job()]
    y, space = study.data.y, options.space
    start = time.perf_counter()

    def search(X: FloatArray, use: ViewUse, progress: Progress | None) -> list[Outcome]:
        return run_jobs(X, y, jobs, replace(space, views=use), n_jobs=options.n_jobs, progress=progress)

    contest = Contest.hold(entries, study.data, search, progress)
    winners, best = contest.winners(), contest.best()
    chosen, final = contest.entry(winners[-1].file), best[-1]
    estimator, unconverged = final.estimator, contest.unconverged
    n_fits = sum(job.n_fits(space) for job in jobs) * len(entries)
    if len(plan.fit) > len(plan.train):
        job, X = study.refit_job(plan.fit, "all"), contest.features(chosen.name, study.data)
        saved, failures = refit(X, y, job, final.choice, replace(space, views=chosen.use))
        estimator, unconverged = saved.estimator, unconverged + failures
        n_fits += job.n_refits(final.choice.head)
    seconds = time.perf_counter() - start

    def alone(candidates: Sequence[Candidate]) -> HeadResult:
        return study.account(folds, contest.best(candidates))

    among = contest.candidates
    heads = {name: alone([one for one in among if one.head == name]) for name in space.heads}
    files = {one.name: alone(contest.of_files([one.name])) for one in entries if len(entries) > 1}
    return FitResult(
        estimator=estimator,
        classes=[str(name) for name in estimator.classes_],
        whole=study.account(folds, best) if len(among) > 1 else heads[final.choice.head],
        heads=heads,
        plan=plan,
        prescribed_folds=study.prescribed is not None,
        groups=study.groups,
        by_group=study.account_by_group(folds, best) if options.by_group else None,
        out_of_fold=study.out_of_fold(folds, best),
        out_of_fold_classes=study.classes(plan.train),
        unconverged=unconverged,
        n_fits=n_fits,
        unlabelled=len(samples) - len(labelled),
        small_classes=small_classes,
        n_missing=samples.n_missing,
        seconds=seconds,
        fitted_on=[sha256 for sha256 in study.data.sha256[plan.fit] if sha256],
        options=options,
        file=chosen.name,
        files=files,
        file_of_fold=[winner.file for winner in winners[:-1]] if files else [],
        comparisons=study.compare(folds, contest),
        views=chosen.use,
        spec=chosen.samples.spec,
        digest=chosen.samples.digest,
    )


def _arrange(labelled: Features, options: FitOptions) -> tuple[_Study, dict[str, int]]:
    """Resolve groups and plan the evaluation; leave out the classes that are too small to choose on."""
    study = _Study.of(labelled, options)
    if options.min_per_class is None:
        return study, {}
    rows = study.plan.train
    small = find_small_classes(labelled.y[rows], options.min_per_class, study.ids(rows))
    left_out = {name: int(np.sum(labelled.y == name)) for name in small}
    return _Study.of(labelled.take(~np.isin(labelled.y, small)), options), left_out


@dataclass(frozen=True, eq=False)
class _Study:
    """Labelled samples with the plan of their evaluation; folds, jobs and accounts follow from them."""

    data: Features
    groups: GroupIds
    plan: EvaluationPlan
    options: FitOptions

    @classmethod
    def of(cls, data: Features, options: FitOptions) -> _Study:
        groups = resolve_groups(data.groups, data.sha256, data.group_source, keys=data.keys)
        plan = plan_evaluation(data.splits, split=options.split, refit=options.refit, groups=groups)
        return cls(data, groups, plan, options)

    def ids(self, rows: IntArray) -> IntArray | None:
        """Return the groups of some rows."""
        return None if self.groups.ids is None else self.groups.ids[rows]

    def classes(self, rows: IntArray) -> list[str]:
        """List the classes of some rows, as a head fitted on them has them."""
        return [str(name) for name in np.unique(self.data.y[rows])]

    @property
    def prescribed(self) -> NDArray[np.object_] | None:
        """The fold column of the rows in ``plan.choose``, where there is one that prescribes the outer folds."""
        column = self.data.folds[self.plan.choose]
        return column if self.plan.scheme != "val-test" and np.any(column != "") else None

    # Folds and jobs

    def outer_folds(self) -> list[Fold]:
        """Make the folds of nested cross-validation; their positions are among ``plan.choose``."""
        plan, options = self.plan, self.options
        y, groups = self.data.y[plan.choose], self.ids(plan.choose)
        if plan.scheme == "val-test":
            check_classes(y, groups, n_splits=1, what="training")
            return []
        return make_folds(
            y,
            groups,
            n_splits=options.cv,
            n_repeats=options.repeats,
            random_state=options.random_state,
            prescribed=self.prescribed,
            group_names=self.groups.names,
            inner_splits=options.inner_cv,
        )

    def outer_job(self, fold: Fold) -> Job:
        """Make the job of one fold of nested cross-validation."""
        rows = self.plan.choose
        return self._job(self.fold_name(fold), rows[fold.train], rows[fold.test])

    def final_job(self) -> Job:
        """Make the job that chooses the saved head, and predicts the fixed part if there is one."""
        plan, rows = self.plan, self.plan.train
        report = NOTHING if plan.scheme == "nested-cv" else plan.report
        if plan.scheme == "val-test":
            job = self.refit_job(rows, "final")
            return replace(job, inner=[(plan.choose, plan.validate)], test=report)
        return replace(self._job("final", rows, report), keep=True)

    def refit_job(self, rows: IntArray, name: str) -> Job:
        """Make a job without a choice."""
        if all(find_head(head).has_probabilities for head in self.options.heads):
            return Job(name, [], rows, np.zeros(len(rows), dtype=np.int64), NOTHING, keep=True)
        return replace(self._job(name, rows, NOTHING), inner=[], keep=True)

    def _job(self, name: str, rows: IntArray, test: IntArray) -> Job:
        inner = make_folds(
            self.data.y[rows],
            self.ids(rows),
            n_splits=self.options.inner_cv,
            random_state=self.options.random_state,
            group_names=self.groups.names,
            what=f"the inner folds of {'the final choice' if name == 'final' else f'fold {name}'}",
            option="--inner-cv",
        )
        calibration = np.zeros(len(rows), dtype=np.int64)
        for fold in inner:
            calibration[fold.test] = fold.number
        return Job(name, [(rows[fold.train], rows[fold.test]) for fold in inner], rows, calibration, test)

    def fold_name(self, fold: Fold) -> str:
        """Return ``"2"``, with repeats ``"1.2"``."""
        return f"{fold.repeat + 1}.{fold.name}" if self.options.repeats > 1 else fold.name

    # Accounts: of what was fitted for each fold, and last for the final choice

    def account(self, folds: Sequence[Fold], fitted: Sequence[Fitted]) -> HeadResult:
        """Score one series of choices."""
        plan, options, y = self.plan, self.options, self.data.y
        cv = None
        if folds:
            cv = evaluate_folds(
                y[plan.choose],
                _parts(folds, fitted),
                self.classes(plan.choose),
                groups=self.ids(plan.choose),
                positive=options.positive,
            )
        evaluation = cv
        if plan.scheme != "nested-cv":
            evaluation = evaluate_fixed(
                y[plan.report],
                fitted[-1].predicted,
                fitted[-1].probabilities,
                self.classes(plan.train),
                groups=self.ids(plan.report),
                y_train=y[plan.train],
                positive=options.positive,
            )
        assert evaluation is not None
        names = [self.fold_name(fold) for fold in folds]
        return HeadResult(
            evaluation, cv, fitted[-1].choice, [(n, f.choice) for n, f in zip(names, fitted, strict=False)]
        )

    def account_by_group(self, folds: Sequence[Fold], fitted: Sequence[Fitted]) -> GroupEvaluation:
        """Score whole groups by the mean of their samples' probabilities."""
        plan, ids, y = self.plan, self.groups.ids, self.data.y
        assert ids is not None
        if plan.scheme == "nested-cv":
            rows = plan.choose
            return by_group_folds(
                y[rows], _parts(folds, fitted), ids[rows], self.classes(rows), positive=self.options.positive
            )
        return by_group(
            y[plan.report],
            fitted[-1].probabilities,
            ids[plan.report],
            self.classes(plan.train),
            y_train=y[plan.train],
            groups_train=ids[plan.train],
            positive=self.options.positive,
        )

    def compare(self, folds: Sequence[Fold], contest: Contest) -> Comparisons:
        """Compare the chosen candidate with the next best, and the whole with guessing, on the reported part."""
        plan, options = self.plan, self.options
        is_fixed = plan.scheme != "nested-cv"
        rows = plan.report if is_fixed else plan.choose
        one = Fold(0, 0, NOTHING, np.arange(len(rows)), plan.scheme)
        y, groups, classes = self.data.y[rows], self.ids(rows), self.classes(plan.train)

        def parts(fitted: Sequence[Fitted]) -> list[FoldPredictions]:
            return _parts([one], fitted[-1:]) if is_fixed else _parts(folds, fitted)

        def beside(names: tuple[str, str], one: Sequence[Fitted], two: Sequence[Fitted]) -> Comparison:
            return compare(
                y,
                names,
                parts(one),
                parts(two),
                classes,
                options.scoring,
                groups=groups,
                is_fixed=is_fixed,
                random_state=options.random_state,
            )

        runner_up = next_file = None
        simpler = simpler_file = ""
        first, second = contest.runner_up()
        if second is not None:
            runner_up = beside((str(first), str(second)), contest.fitted(first), contest.fitted(second))
            simpler = contest.simpler(first, second)
        if other := contest.next_file():
            mine, others = (contest.best(contest.of_files([name])) for name in (first.file, other))
            next_file = beside((first.file, other), mine, others)
            simpler_file = contest.simpler(Candidate(first.file, ""), Candidate(other, ""))
        guessing = compare_with_guessing(
            y,
            "the whole procedure",
            parts(contest.best()),
            classes,
            options.scoring,
            y_train=self.data.y[plan.train] if is_fixed else None,
            groups=groups,
            random_state=options.random_state,
        )
        return Comparisons(runner_up, next_file, guessing, simpler, simpler_file)

    def out_of_fold(self, folds: Sequence[Fold], fitted: Sequence[Fitted]) -> list[OutOfFold]:
        """List every prediction for a row that the head was not fitted on."""
        tested = [(self.fold_name(fold), self.plan.choose[fold.test]) for fold in folds]
        if self.plan.scheme != "nested-cv":
            tested.append(("val" if self.plan.scheme == "val" else "test", self.plan.report))
        data = self.data
        return [
            OutOfFold(
                str(data.keys[row]), str(data.groups[row]), name, str(data.y[row]), str(predicted), tuple(p.tolist())
            )
            for (name, rows), one in zip(tested, fitted, strict=False)
            for row, predicted, p in zip(rows, one.predicted, one.probabilities, strict=True)
        ]


def _parts(folds: Sequence[Fold], fitted: Sequence[Fitted]) -> list[FoldPredictions]:
    return [FoldPredictions(fold, one.predicted, one.probabilities) for fold, one in zip(folds, fitted, strict=False)]
