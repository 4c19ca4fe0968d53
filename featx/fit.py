"""``featx fit``: from a feature file to a classifier with scores that its user can defend."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from featx.errors import LabelsError, UsageError
from featx.learn.by_group import GroupEvaluation, by_group, by_group_folds
from featx.learn.dataset import Features, check_finite, load_features
from featx.learn.groups import GroupIds, resolve_groups
from featx.learn.heads import find_head
from featx.learn.leaks import LINEAR_HEADS, Leaks, contrast, find_splits, name_pairs, predict_by_nearest
from featx.learn.near_duplicates import NearDuplicates, check_clusters, find_near_duplicates
from featx.learn.options import FitOptions
from featx.learn.out_of_fold import Steps, calibrate, n_calibration_fits, recalibrate
from featx.learn.plan import EvaluationPlan, plan_evaluation
from featx.learn.result import FitResult, HeadResult, OutOfFold, save, save_out_of_fold
from featx.learn.scores import FoldPredictions, check_positive, evaluate_fixed, evaluate_folds
from featx.learn.search import Fitted, Job, Outcome, Progress, refit, run_jobs
from featx.learn.search_ledger import SearchLedger
from featx.learn.splits import Fold, check_classes, find_small_classes, make_folds
from featx.learn.trust_account import folds_for_sets, make_trust
from featx.learn.views import ViewUse, choose_use
from featx.store.file import FeatureFile

__all__ = ["FitOptions", "FitResult", "fit", "fit_features", "save", "save_out_of_fold"]

IntArray = NDArray[np.int64]
NOTHING: IntArray = np.array([], dtype=np.int64)


def fit(
    path: str | os.PathLike[str],
    options: FitOptions = FitOptions(),  # noqa: B008  frozen
    *,
    progress: Progress | None = None,
    ledger: SearchLedger | None = None,
) -> FitResult:
    """Train and cross-validate a classifier on the features in a file.

    Parameters
    ----------
    path : path-like
        A feature file as `featx extract` writes it.
    options : FitOptions
    progress : callable (done, total), optional
    ledger : SearchLedger, optional
        Keeps finished searches, so that an interrupted fit can go on.

    Returns
    -------
    FitResult

    Raises
    ------
    StoreError
        A file that is missing, damaged or not complete.
    InputError
        Features that are not finite.
    LabelsError
        Labels, groups or folds with which the evaluation cannot be done.
    UsageError
        Options that do not suit the data.
    """
    needs_views = options.views != "none" or options.score_views == "average"
    features = load_features(path, allow_missing=options.allow_missing, views=needs_views)
    with FeatureFile.open(path) as file:
        weights = file.weights()
    return replace(fit_features(features, options, progress=progress, ledger=ledger), weights=weights)


def fit_features(
    features: Features,
    options: FitOptions = FitOptions(),  # noqa: B008  frozen
    *,
    progress: Progress | None = None,
    ledger: SearchLedger | None = None,
) -> FitResult:
    """Train and cross-validate a classifier on features that are already in memory; see `fit`."""
    check_finite(features)
    samples = features.by_sample()
    use = choose_use(options.views, options.score_views, samples.X.shape[1] if samples.X.ndim == 3 else 1)
    if samples.X.ndim == 3 and use == ViewUse():
        samples = replace(samples, X=samples.X[:, 0])
    labelled = samples.take(samples.y != "")
    study, small_classes = _arrange(labelled, options)
    plan = study.plan
    check_positive(options.positive, study.classes(plan.train))
    if options.by_group and not study.groups.given:
        raise UsageError("--by-group needs groups: give a group column or --group-regex to `featx extract`")

    folds = study.outer_folds()
    set_folds = folds_for_sets(study.data, study.groups, plan, options, folds)
    jobs = [*study.outer_jobs(folds), *study.jobs_for_sets(folds, set_folds), study.final_job()]
    n_jobs_of_study = len(jobs)
    loose, loose_folds, no_gap = study.ungrouped(folds)
    loose_jobs = [replace(job, name=f"ungrouped {job.name}", keep=False) for job in loose.outer_jobs(loose_folds)]
    X, y, space = study.data.X.astype(np.float64), study.data.y, replace(options.space, views=use)
    start = time.perf_counter()
    n_maps, n_fits_for_maps = n_calibration_fits(jobs, space, options.calibration)
    steps = Steps(progress, n_maps)
    outcomes = run_jobs(
        X, y, [*jobs, *loose_jobs], space, n_jobs=options.n_jobs, progress=steps.searched, ledger=ledger
    )
    outcomes, loose_outcomes = outcomes[:n_jobs_of_study], outcomes[n_jobs_of_study:]
    outcomes = calibrate(
        X,
        y,
        jobs,
        outcomes,
        space,
        method=options.calibration,
        groups=study.groups.ids,
        n_jobs=options.n_jobs,
        progress=steps.mapped,
    )
    final = outcomes[-1].best
    estimator, unconverged = (
        final.estimator,
        [failure for outcome in (*outcomes, *loose_outcomes) for failure in outcome.unconverged],
    )
    n_fits = sum(job.n_fits(space) for job in (*jobs, *loose_jobs)) + n_fits_for_maps
    if len(plan.fit) > len(plan.train):
        job = study.refit_job(plan.fit, "all")
        saved, failures = refit(X, y, job, final.choice, space)
        estimator, unconverged = recalibrate(saved, final).estimator, unconverged + failures
        n_fits += job.n_refits(final.choice.head)
    seconds = time.perf_counter() - start

    told = [*outcomes[: len(folds)], outcomes[-1]]
    best = [outcome.best for outcome in told]
    heads = {name: study.account(folds, [outcome.heads[name] for outcome in told]) for name in space.heads}
    return FitResult(
        estimator=estimator,
        classes=[str(name) for name in estimator.classes_],
        whole=study.account(folds, best) if len(heads) > 1 else heads[final.choice.head],
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
        n_missing=features.n_missing,
        seconds=seconds,
        fitted_on=[sha256 for sha256 in study.data.sha256[plan.fit] if sha256],
        options=options,
        trust=make_trust(
            study.data,
            study.groups,
            plan,
            options,
            fold_names=[study.fold_name(fold) for fold in folds],
            parts=_parts(folds, best),
            set_folds=set_folds,
            fitted=[outcome.best for outcome in outcomes],
        ),
        views=use,
        spec=features.spec,
        digest=features.digest,
        locked=features.locked,
        leaks=study.leaks(folds, outcomes, loose_folds, loose_outcomes, no_gap),
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
    near: NearDuplicates
    plan: EvaluationPlan
    options: FitOptions

    @classmethod
    def of(cls, data: Features, options: FitOptions) -> _Study:
        groups = resolve_groups(data.groups, data.sha256, data.group_source, keys=data.keys)
        near = find_near_duplicates(_plain(data.X), distance=options.near_duplicate_distance)
        if options.group_near_duplicates and len(near):
            apart = groups.ids
            groups = resolve_groups(data.groups, data.sha256, data.group_source, keys=data.keys, pairs=near.pairs)
            check_clusters(groups.ids, apart, near, data.keys)
        plan = plan_evaluation(data.splits, split=options.split, refit=options.refit, groups=groups)
        return cls(data, groups, near, plan, options)

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

    def outer_jobs(self, folds: Sequence[Fold]) -> list[Job]:
        """Make the job of each fold of nested cross-validation; those whose heads are kept for sets keep them."""
        rows, averaged = self.plan.choose, self.options.score_views == "average"
        return [
            replace(
                self._job(self.fold_name(fold), rows[fold.train], rows[fold.test]),
                keep=averaged or (fold.repeat == 0 and self.options.conformal != "off"),
            )
            for fold in folds
        ]

    def jobs_for_sets(self, outer: Sequence[Fold], folds: Sequence[Fold]) -> list[Job]:
        """Make the jobs of folds that are for prediction sets alone, where there is no nested cross-validation."""
        if outer:
            return []
        rows = self.plan.train
        named = ((f"set {fold.name}", rows[fold.train], rows[fold.test]) for fold in folds)
        return [replace(self._job(*job), keep=True) for job in named]

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

    # Leaks

    def ungrouped(self, folds: Sequence[Fold]) -> tuple[_Study, list[Fold], str]:
        """Deal the same samples into as many folds ignoring all groups; without folds, say why."""
        n_splits = len({fold.number for fold in folds})
        data = replace(self.data, folds=np.full(len(self.data), "", dtype=object))  # a fold column is a way to group
        options = replace(self.options, repeats=1, cv=max(n_splits, 2))
        loose = replace(self, data=data, groups=GroupIds(None, 0, "", given=False, names=()), options=options)
        ids = self.ids(self.plan.choose)
        if ids is None or len(np.unique(ids)) == len(ids):
            return loose, [], "no two samples share a group"
        if not folds:
            return loose, [], "the split leaves nothing to cross-validate"
        if not self.options.leak_gap:
            return loose, [], "left out as asked for"
        try:
            return loose, loose.outer_folds(), ""
        except LabelsError as error:
            return loose, [], str(error)

    def leaks(
        self,
        folds: Sequence[Fold],
        outcomes: Sequence[Outcome],
        loose_folds: Sequence[Fold],
        loose_outcomes: Sequence[Outcome],
        no_gap: str,
    ) -> Leaks:
        """Say what could make the scores too good."""
        plan, data, options = self.plan, self.data, self.options
        cuts = [(plan.choose[fold.train], plan.choose[fold.test]) for fold in folds]
        seen = cuts if plan.scheme == "nested-cv" else [(plan.train, plan.report)]
        others, is_split = find_splits(self.near, self.groups.ids, seen)
        gap = None
        if loose_folds:
            ungrouped = [
                (plan.choose[f.test], o.best.predicted) for f, o in zip(loose_folds, loose_outcomes, strict=True)
            ]
            grouped = [(test, o.best.predicted) for (_, test), o in zip(cuts, outcomes, strict=False)]
            gap = contrast(data.y, ungrouped, grouped, self.groups.ids, random_state=options.random_state)
        # Each sample is tested once: in the first repeat, or in the reported part, which the last outcome predicts.
        first = [place for place, fold in enumerate(folds) if fold.repeat == 0] if seen is cuts else [-1]
        seen = [seen[place] for place in first]
        linear = next((name for name in LINEAR_HEADS if name in options.heads), "")
        heads = [outcomes[place].heads[linear] if linear else outcomes[place].best for place in first]
        return Leaks(
            near=self.near,
            grouped=options.group_near_duplicates,
            n_other_groups=len(others),
            n_split=int(is_split.sum()),
            named=name_pairs(self.near, others, is_split, data.keys),
            gap=gap,
            no_gap=no_gap,
            one_nn=contrast(
                data.y,
                predict_by_nearest(_plain(data.X), data.y, self.near, seen),
                [(test, head.predicted) for (_, test), head in zip(seen, heads, strict=True)],
                self.groups.ids,
                random_state=options.random_state,
            ),
            linear=linear or "the chosen head",
        )

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
                random_state=options.random_state,
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
                random_state=options.random_state,
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
            random_state=self.options.random_state,
        )

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


def _plain(X: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the plain image's row of each sample."""
    return X[:, 0] if X.ndim == 3 else X
