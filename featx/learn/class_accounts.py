"""The accounts of a classifier's fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from featx.learn.accounts import Accounts
from featx.learn.by_group import GroupEvaluation, by_group, by_group_folds
from featx.learn.contest import Contest, Entry
from featx.learn.leaks import LINEAR_HEADS, Leaks, contrast, predict_by_nearest
from featx.learn.out_of_fold import own_of, threshold_of
from featx.learn.paired import Comparison, compare, compare_with_guessing
from featx.learn.result import OutOfFold
from featx.learn.scores import Evaluation, FoldPredictions, evaluate_fixed, evaluate_folds
from featx.learn.search import Fitted
from featx.learn.splits import Fold
from featx.learn.study import NOTHING, IntArray
from featx.learn.threshold import Thresholds
from featx.learn.trust import Trust
from featx.learn.trust_account import make_trust


@dataclass(frozen=True, eq=False)
class ClassAccounts(Accounts[Evaluation]):
    """What the predictions of classes say."""

    guess: ClassVar[str] = "the largest class"

    def evaluate_folds(self, parts: Sequence[FoldPredictions]) -> Evaluation:
        """Score a cross-validation."""
        study, rows = self.study, self.study.plan.choose
        return evaluate_folds(
            study.data.y[rows],
            parts,
            study.classes(rows),
            groups=study.ids(rows),
            positive=study.options.positive,
        )

    def evaluate_part(self, fitted: Fitted) -> Evaluation:
        """Score the final choice on the part that is reported."""
        study, plan = self.study, self.study.plan
        return evaluate_fixed(
            study.data.y[plan.report],
            fitted.predicted,
            fitted.probabilities,
            study.classes(plan.train),
            groups=study.ids(plan.report),
            y_train=study.data.y[plan.train],
            positive=study.options.positive,
        )

    def by_group(self, fitted: Sequence[Fitted]) -> GroupEvaluation:
        """Score whole groups by the mean of their samples' probabilities."""
        study, plan = self.study, self.study.plan
        ids, y = study.groups.ids, study.data.y
        assert ids is not None
        if plan.scheme == "nested-cv":
            rows = plan.choose
            return by_group_folds(
                y[rows], self.parts(fitted), ids[rows], study.classes(rows), positive=study.options.positive
            )
        return by_group(
            y[plan.report],
            fitted[-1].probabilities,
            ids[plan.report],
            study.classes(plan.train),
            y_train=y[plan.train],
            groups_train=ids[plan.train],
            positive=study.options.positive,
            threshold=threshold_of(fitted[-1]),
        )

    def thresholds(self, fitted: Sequence[Fitted]) -> Thresholds | None:
        """List the thresholds of the outer folds and of the final choice; None where heads decide by themselves."""
        found = [threshold_of(one) for one in fitted]
        if found[-1] is None:
            return None
        folds = [(name, one) for name, one in zip(self.fold_names, found, strict=False) if one is not None]
        return Thresholds(self.study.options.threshold, found[-1], folds)

    def beside(self, names: tuple[str, str], first: Sequence[Fitted], second: Sequence[Fitted]) -> Comparison:
        """Compare two series of fits on what is reported."""
        study, rows = self.study, self._rows
        return compare(
            study.data.y[rows],
            names,
            self._tested(first),
            self._tested(second),
            study.classes(study.plan.train),
            study.options.scoring,
            groups=study.ids(rows),
            is_fixed=self.is_fixed,
            random_state=study.options.random_state,
        )

    def beside_guessing(self, fitted: Sequence[Fitted]) -> Comparison:
        """Compare the whole procedure with guessing on what is reported."""
        study, rows = self.study, self._rows
        return compare_with_guessing(
            study.data.y[rows],
            "the whole procedure",
            self._tested(fitted),
            study.classes(study.plan.train),
            study.options.scoring,
            y_train=study.data.y[study.plan.train] if self.is_fixed else None,
            groups=study.ids(rows),
            random_state=study.options.random_state,
        )

    @property
    def _rows(self) -> IntArray:
        """What the positions of `_tested` point into."""
        return self.study.plan.report if self.is_fixed else self.study.plan.choose

    def _tested(self, fitted: Sequence[Fitted]) -> list[FoldPredictions]:
        """Return the predictions that are reported."""
        if not self.is_fixed:
            return self.parts(fitted)
        last = fitted[-1]
        part = Fold(0, 0, NOTHING, np.arange(len(self._rows)), self.study.plan.scheme)
        return [FoldPredictions(part, last.predicted, last.probabilities, threshold_of(last))]

    def out_of_fold(self, fitted: Sequence[Fitted]) -> list[OutOfFold]:
        """List every prediction for a row that the head was not fitted on."""
        data = self.study.data
        return [
            OutOfFold(
                str(data.keys[row]), str(data.groups[row]), name, str(data.y[row]), str(predicted), tuple(p.tolist())
            )
            for name, rows, one in self.iter_tested(fitted)
            for row, predicted, p in zip(rows, one.predicted, one.probabilities, strict=True)
        ]

    def trust(self, chosen: Entry, set_folds: Sequence[Fold], outcomes: Sequence[Fitted]) -> Trust:
        """Account for the probabilities of the heads on one file: the best of the outer folds, and those for sets.

        `outcomes` are of the jobs of the outer folds, of the folds that are for sets alone, and of the final choice.
        """
        study = self.study
        return make_trust(
            chosen.samples,
            study.groups,
            study.plan,
            study.options,
            fold_names=self.fold_names,
            parts=self.parts(outcomes),
            set_folds=set_folds,
            fitted=outcomes,
        )

    def leaks(
        self,
        chosen: Entry,
        contest: Contest,
        loose_folds: Sequence[Fold],
        loose: Sequence[Fitted],
        no_gap: str,
    ) -> Leaks:
        """Say what could make the scores too good.

        Near-duplicates and nearest neighbours are those in the chosen file; the gap is that of the whole procedure. All
        heads decide by themselves here: a threshold would move balanced accuracies for reasons of its own.
        """
        plan, options = self.study.plan, self.study.options
        y, ids, near = chosen.samples.y, self.study.groups.ids, self.study.near[chosen.name]
        gap = None
        if loose_folds:
            ungrouped = [(plan.choose[f.test], one.predicted) for f, one in zip(loose_folds, loose, strict=True)]
            grouped = [(test, own_of(one)) for (_, test), one in zip(self.cuts, contest.best(), strict=False)]
            gap = contrast(y, ungrouped, grouped, ids, random_state=options.random_state)
        # Each sample is tested once: in the first repeat, or in the reported part, which the last outcome predicts.
        first = [-1] if self.is_fixed else [place for place, fold in enumerate(self.folds) if fold.repeat == 0]
        seen = [self.reported[place] for place in first]
        linear = next((name for name in LINEAR_HEADS if name in options.heads), "")
        outcomes = contest.outcomes[chosen.name]
        heads = [outcomes[place].heads[linear] if linear else outcomes[place].best for place in first]
        return replace(
            self.near_duplicates(chosen),
            gap=gap,
            no_gap=no_gap,
            one_nn=contrast(
                y,
                predict_by_nearest(chosen.plain, y, near, seen),
                [(test, own_of(head)) for (_, test), head in zip(seen, heads, strict=True)],
                ids,
                random_state=options.random_state,
            ),
            linear=linear or "the chosen head",
        )
