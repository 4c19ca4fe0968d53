"""The study behind a fit: labelled samples in one or more files, the plan of their evaluation, its folds and jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import LabelsError
from featx.learn.contest import Entry
from featx.learn.dataset import Features, LockedPart
from featx.learn.groups import GroupIds, resolve_groups
from featx.learn.heads import find_head
from featx.learn.near_duplicates import NearDuplicates, check_clusters, find_near_duplicates
from featx.learn.options import FitOptions
from featx.learn.out_of_fold import Finish
from featx.learn.plan import EvaluationPlan, plan_evaluation
from featx.learn.search import Job, Progress
from featx.learn.splits import Fold, check_classes, find_small_classes, make_folds

IntArray = NDArray[np.int64]
NOTHING: IntArray = np.array([], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Study:
    """Labelled samples with the plan of their evaluation; folds and jobs follow from them, the same for every file.

    Attributes
    ----------
    entries : list of Entry
        The files, with the labelled samples that all of them have.
    groups : GroupIds
    near : dict of str to NearDuplicates
        In the features of each file.
    plan : EvaluationPlan
    options : FitOptions
    """

    entries: list[Entry]
    groups: GroupIds
    near: dict[str, NearDuplicates]
    plan: EvaluationPlan
    options: FitOptions

    @classmethod
    def of(cls, entries: Sequence[Entry], options: FitOptions, looking: Progress | None = None) -> Study:
        """Resolve groups and plan the evaluation; near-duplicates to be grouped are those in any of the files."""
        data = entries[0].samples
        groups = resolve_groups(data.groups, data.sha256, data.group_source, keys=data.keys)
        distance = options.near_duplicate_distance
        near = {
            one.name: find_near_duplicates(one.plain, distance=distance, progress=looking)
            for one in entries
            if one.n_features  # none where they are yet to be made: folds ask for labels and groups alone
        }
        found = [one for one in near.values() if len(one)]
        if options.group_near_duplicates and found:
            apart = groups.ids
            pairs = np.concatenate([one.pairs for one in found])
            groups = resolve_groups(data.groups, data.sha256, data.group_source, keys=data.keys, pairs=pairs)
            check_clusters(groups.ids, apart, max(found, key=len), data.keys)
        plan = plan_evaluation(data.splits, split=options.split, refit=options.refit, groups=groups)
        return cls(list(entries), groups, near, plan, options)

    @classmethod
    def arrange(
        cls, labelled: Sequence[Entry], options: FitOptions, looking: Progress | None = None
    ) -> tuple[Study, dict[str, int]]:
        """Leave out the classes that are too small to choose on, and count them; `looking` as in `featx.fit.fit`."""
        study = cls.of(labelled, options, looking)
        if options.min_per_class is None:
            return study, {}
        y, rows = study.data.y, study.plan.train
        small = find_small_classes(y[rows], options.min_per_class, study.ids(rows))
        left_out = {name: int(np.sum(y == name)) for name in small}
        return cls.of([one.take(~np.isin(y, small)) for one in labelled], options, looking), left_out

    @property
    def data(self) -> Features:
        """The samples: their columns are the same in every file, and the features are those of the first."""
        return self.entries[0].samples

    @property
    def locked(self) -> LockedPart | None:
        """What is kept for the last test, in every file the same; with the looks of the file that had most of them."""
        return max(
            (one.samples.locked for one in self.entries), key=lambda part: 0 if part is None else len(part.looks)
        )

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

    @property
    def finish(self) -> Finish:
        """What follows the choice in every training part; of two classes the second is positive, unless told."""
        options = self.options
        positive = options.positive or self.classes(self.plan.train)[-1]
        return Finish(options.calibration, options.threshold_rule, positive)

    # Folds and jobs

    def outer_folds(self) -> list[Fold]:
        """Make the folds of nested cross-validation; their positions are among ``plan.choose``."""
        plan, options = self.plan, self.options
        if plan.scheme == "val-test":
            self._check_training(plan.choose)
            self._check_validation()
            return []
        return self._deal(
            plan.choose,
            n_splits=options.cv,
            n_repeats=options.repeats,
            prescribed=self.prescribed,
            inner_splits=options.inner_cv,
            what="cross-validation" if plan.scheme == "nested-cv" else "cross-validation of the split train",
        )

    def _check_validation(self) -> None:
        """Raise LabelsError where the validation part has one class: whatever always names it would be chosen."""
        classes = self.classes(self.plan.validate)
        if len(classes) < 2:
            raise LabelsError(
                f"val, on which the head is chosen, has samples of one class only, {classes[0]!r}: a head that always "
                "names it would look perfect. Put samples of every class into val, or use --split ignore"
            )

    def _check_training(self, rows: IntArray) -> None:
        """Raise LabelsError where some rows are not enough to train on."""
        check_classes(self.data.y[rows], self.ids(rows), n_splits=1, what="training")

    def _deal(self, rows: IntArray, **how: Any) -> list[Fold]:
        """Deal some rows into folds, as `featx.learn.splits.make_folds` is told how."""
        return make_folds(
            self.data.y[rows],
            self.ids(rows),
            random_state=self.options.random_state,
            group_names=self.groups.names,
            **how,
        )

    def outer_jobs(self, folds: Sequence[Fold]) -> list[Job]:
        """Make the job of each fold of nested cross-validation; those whose heads are kept for sets keep them."""
        rows, options = self.plan.choose, self.options
        needed = options.score_views == "average" or self.finish.needs_estimators(options.heads)
        return [
            replace(
                self._job(self.fold_name(fold), rows[fold.train], rows[fold.test]),
                keep=needed or (fold.repeat == 0 and options.conformal != "off"),
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
        inner = self._deal(
            rows,
            n_splits=self.options.inner_cv,
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

    def ungrouped(self, folds: Sequence[Fold]) -> tuple[Study, list[Fold], str]:
        """Deal the same samples into as many folds ignoring all groups; without folds, say why."""
        n_splits = len({fold.number for fold in folds})
        data = replace(self.data, folds=np.full(len(self.data), "", dtype=object))  # a fold column is a way to group
        entries = [replace(self.entries[0], samples=data)]
        options = replace(self.options, repeats=1, cv=max(n_splits, 2))
        loose = replace(self, entries=entries, groups=GroupIds(None, 0, "", given=False, names=()), options=options)
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
