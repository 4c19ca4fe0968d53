"""The accounts of a fit: what is said of the heads that were fitted for each fold, and last for the final choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featx.learn.by_group import GroupEvaluation, by_group, by_group_folds
from featx.learn.contest import Candidate, Contest, Entry
from featx.learn.leaks import LINEAR_HEADS, Leaks, contrast, find_splits, name_pairs, predict_by_nearest
from featx.learn.paired import Comparison, Comparisons, compare, compare_with_guessing
from featx.learn.result import HeadResult, OutOfFold
from featx.learn.scores import Evaluation, FoldPredictions, evaluate_fixed, evaluate_folds
from featx.learn.search import Fitted
from featx.learn.splits import Fold
from featx.learn.study import NOTHING, Study
from featx.learn.trust import Trust
from featx.learn.trust_account import make_trust


@dataclass(frozen=True, eq=False)
class Accounts:
    """What the predictions of a study's folds, and those of the final choice, say.

    Attributes
    ----------
    study : Study
    folds : list of Fold
        The outer ones; series of fits have one for each of them, and last that of the final choice.
    """

    study: Study
    folds: list[Fold]

    @property
    def fold_names(self) -> list[str]:
        """The names of the outer folds."""
        return [self.study.fold_name(fold) for fold in self.folds]

    def scores(self, fitted: Sequence[Fitted]) -> HeadResult[Evaluation]:
        """Score one series of choices."""
        study, folds = self.study, self.folds
        plan, options, y = study.plan, study.options, study.data.y
        cv = None
        if folds:
            cv = evaluate_folds(
                y[plan.choose],
                _parts(folds, fitted),
                study.classes(plan.choose),
                groups=study.ids(plan.choose),
                positive=options.positive,
            )
        evaluation = cv
        if plan.scheme != "nested-cv":
            evaluation = evaluate_fixed(
                y[plan.report],
                fitted[-1].predicted,
                fitted[-1].probabilities,
                study.classes(plan.train),
                groups=study.ids(plan.report),
                y_train=y[plan.train],
                positive=options.positive,
            )
        assert evaluation is not None
        choices = [(name, one.choice) for name, one in zip(self.fold_names, fitted, strict=False)]
        return HeadResult(evaluation, cv, fitted[-1].choice, choices)

    def by_group(self, fitted: Sequence[Fitted]) -> GroupEvaluation:
        """Score whole groups by the mean of their samples' probabilities."""
        study, plan = self.study, self.study.plan
        ids, y = study.groups.ids, study.data.y
        assert ids is not None
        if plan.scheme == "nested-cv":
            rows = plan.choose
            return by_group_folds(
                y[rows], _parts(self.folds, fitted), ids[rows], study.classes(rows), positive=study.options.positive
            )
        return by_group(
            y[plan.report],
            fitted[-1].probabilities,
            ids[plan.report],
            study.classes(plan.train),
            y_train=y[plan.train],
            groups_train=ids[plan.train],
            positive=study.options.positive,
        )

    def compare(self, contest: Contest) -> Comparisons:
        """Compare the chosen candidate with the next best, and the whole with guessing, on the reported part."""
        study, folds = self.study, self.folds
        plan, options = study.plan, study.options
        is_fixed = plan.scheme != "nested-cv"
        rows = plan.report if is_fixed else plan.choose
        one = Fold(0, 0, NOTHING, np.arange(len(rows)), plan.scheme)
        y, groups, classes = study.data.y[rows], study.ids(rows), study.classes(plan.train)

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
            y_train=study.data.y[plan.train] if is_fixed else None,
            groups=groups,
            random_state=options.random_state,
        )
        return Comparisons(runner_up, next_file, guessing, simpler, simpler_file)

    def out_of_fold(self, fitted: Sequence[Fitted]) -> list[OutOfFold]:
        """List every prediction for a row that the head was not fitted on."""
        plan, data = self.study.plan, self.study.data
        tested = [(name, plan.choose[fold.test]) for name, fold in zip(self.fold_names, self.folds, strict=True)]
        if plan.scheme != "nested-cv":
            tested.append(("val" if plan.scheme == "val" else "test", plan.report))
        return [
            OutOfFold(
                str(data.keys[row]), str(data.groups[row]), name, str(data.y[row]), str(predicted), tuple(p.tolist())
            )
            for (name, rows), one in zip(tested, fitted, strict=False)
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
            parts=_parts(self.folds, outcomes),
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

        Near-duplicates and nearest neighbours are those in the chosen file; the gap is that of the whole procedure.
        """
        plan, options = self.study.plan, self.study.options
        data, ids, near = chosen.samples, self.study.groups.ids, self.study.near[chosen.name]
        cuts = [(plan.choose[fold.train], plan.choose[fold.test]) for fold in self.folds]
        seen = cuts if plan.scheme == "nested-cv" else [(plan.train, plan.report)]
        others, is_split = find_splits(near, ids, seen)
        gap = None
        if loose_folds:
            ungrouped = [(plan.choose[f.test], one.predicted) for f, one in zip(loose_folds, loose, strict=True)]
            grouped = [(test, one.predicted) for (_, test), one in zip(cuts, contest.best(), strict=False)]
            gap = contrast(data.y, ungrouped, grouped, ids, random_state=options.random_state)
        # Each sample is tested once: in the first repeat, or in the reported part, which the last outcome predicts.
        first = [place for place, fold in enumerate(self.folds) if fold.repeat == 0] if seen is cuts else [-1]
        seen = [seen[place] for place in first]
        linear = next((name for name in LINEAR_HEADS if name in options.heads), "")
        outcomes = contest.outcomes[chosen.name]
        heads = [outcomes[place].heads[linear] if linear else outcomes[place].best for place in first]
        return Leaks(
            near=near,
            grouped=options.group_near_duplicates,
            n_other_groups=len(others),
            n_split=int(is_split.sum()),
            named=name_pairs(near, others, is_split, data.keys),
            gap=gap,
            no_gap=no_gap,
            one_nn=contrast(
                data.y,
                predict_by_nearest(chosen.plain, data.y, near, seen),
                [(test, head.predicted) for (_, test), head in zip(seen, heads, strict=True)],
                ids,
                random_state=options.random_state,
            ),
            linear=linear or "the chosen head",
        )


def _parts(folds: Sequence[Fold], fitted: Sequence[Fitted]) -> list[FoldPredictions]:
    return [FoldPredictions(fold, one.predicted, one.probabilities) for fold, one in zip(folds, fitted, strict=False)]
