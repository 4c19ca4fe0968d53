"""The accounts of a fit, whatever its task: what is said of the heads that were fitted for each fold, and for all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from featx.learn.candidates import Searched
from featx.learn.contest import Candidate, Contest, Entry
from featx.learn.leaks import Leaks, find_splits, name_pairs
from featx.learn.novelty import Novelty, fit_novelty
from featx.learn.out_of_fold import threshold_of
from featx.learn.paired import Comparison, Comparisons
from featx.learn.result import HeadResult, Scored
from featx.learn.scores import FoldPredictions
from featx.learn.search import Fitted
from featx.learn.splits import Fold
from featx.learn.study import IntArray, Study

E = TypeVar("E", bound=Scored)


@dataclass(frozen=True, eq=False)
class Accounts(ABC, Generic[E]):
    """What the predictions of a study's folds, and those of the final choice, say.

    Attributes
    ----------
    study : Study
    folds : list of Fold
        The outer ones; series of fits have one for each of them, and last that of the final choice.
    """

    study: Study
    folds: list[Fold]

    guess: ClassVar[str]
    """What guessing is, in words."""

    @abstractmethod
    def evaluate_folds(self, parts: Sequence[FoldPredictions]) -> E:
        """Score a cross-validation."""

    @abstractmethod
    def evaluate_part(self, fitted: Fitted) -> E:
        """Score the final choice on the part that is reported."""

    @abstractmethod
    def beside(self, names: tuple[str, str], first: Sequence[Fitted], second: Sequence[Fitted]) -> Comparison:
        """Compare two series of fits on what is reported."""

    @abstractmethod
    def beside_guessing(self, fitted: Sequence[Fitted]) -> Comparison:
        """Compare the whole procedure with guessing on what is reported."""

    @property
    def fold_names(self) -> list[str]:
        """The names of the outer folds."""
        return [self.study.fold_name(fold) for fold in self.folds]

    @property
    def is_fixed(self) -> bool:
        """Whether a part of its own is what is reported."""
        return self.study.plan.scheme != "nested-cv"

    @property
    def cuts(self) -> list[tuple[IntArray, IntArray]]:
        """The training and the test part of each outer fold."""
        choose = self.study.plan.choose
        return [(choose[fold.train], choose[fold.test]) for fold in self.folds]

    @property
    def reported(self) -> list[tuple[IntArray, IntArray]]:
        """The training and the test part behind each prediction that is reported."""
        return [(self.study.plan.train, self.study.plan.report)] if self.is_fixed else self.cuts

    def parts(self, fitted: Sequence[Fitted]) -> list[FoldPredictions]:
        """Return the predictions of the outer folds."""
        return [
            FoldPredictions(fold, one.predicted, one.probabilities, threshold_of(one))
            for fold, one in zip(self.folds, fitted, strict=False)
        ]

    def scores(self, fitted: Sequence[Fitted]) -> HeadResult[E]:
        """Score one series of choices."""
        cv = self.evaluate_folds(self.parts(fitted)) if self.folds else None
        evaluation = self.evaluate_part(fitted[-1]) if self.is_fixed else cv
        assert evaluation is not None
        choices = [(name, one.choice) for name, one in zip(self.fold_names, fitted, strict=False)]
        return HeadResult(evaluation, cv, fitted[-1].choice, choices)

    def compare(self, contest: Contest) -> Comparisons:
        """Compare the chosen candidate with the next best, and the whole with guessing, on the reported part."""
        runner_up = next_file = None
        simpler = simpler_file = ""
        first, second = contest.runner_up()
        if second is not None:
            runner_up = self.beside((str(first), str(second)), contest.fitted(first), contest.fitted(second))
            simpler = contest.simpler(first, second)
        if other := contest.next_file():
            mine, others = (contest.best(contest.of_files([name])) for name in (first.file, other))
            next_file = self.beside((first.file, other), mine, others)
            simpler_file = contest.simpler(Candidate(first.file, ""), Candidate(other, ""))
        guessing = self.beside_guessing(contest.best())
        return Comparisons(runner_up, next_file, guessing, simpler, simpler_file, guess=self.guess)

    def iter_tested(self, fitted: Sequence[Fitted]) -> Iterator[tuple[str, IntArray, Fitted]]:
        """Yield each part that a head not fitted on it predicted: its name, its rows, and that head's fit."""
        tested = [(name, rows) for name, (_, rows) in zip(self.fold_names, self.cuts, strict=True)]
        if self.is_fixed:
            tested.append(("val" if self.study.plan.scheme == "val" else "test", self.study.plan.report))
        for (name, rows), one in zip(tested, fitted, strict=False):
            yield name, rows, one

    def near_duplicates(self, chosen: Entry) -> Leaks:
        """Say which samples are nearly the same in the chosen file, and whether training and test come between."""
        near = self.study.near[chosen.name]
        others, is_split = find_splits(near, self.study.groups.ids, self.reported)
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

    def of_result(self, contest: Contest) -> dict[str, Any]:
        """Return what every `Result` has of a contest between heads, and files, by name."""
        study, candidates, winners = self.study, contest.candidates, contest.winners()
        chosen = contest.entry(winners[-1].file)
        names = [entry.name for entry in contest.entries] if len(contest.entries) > 1 else []

        def alone(some: Sequence[Candidate]) -> HeadResult[E]:
            return self.scores(contest.best(some))

        kinds = dict.fromkeys(one.head for one in candidates)
        heads = {head: alone([one for one in candidates if one.head == head]) for head in kinds}
        return {
            "whole": self.scores(contest.best()) if len(candidates) > 1 else next(iter(heads.values())),
            "heads": heads,
            "plan": study.plan,
            "prescribed_folds": study.prescribed is not None,
            "groups": study.groups,
            "fitted_on": [sha256 for sha256 in study.data.sha256[study.plan.fit] if sha256],
            "options": study.options,
            "comparisons": self.compare(contest),
            "file": chosen.name,
            "files": {name: alone(contest.of_files([name])) for name in names},
            "file_of_fold": [winner.file for winner in winners[:-1]] if names else [],
            "views": chosen.use,
            "spec": chosen.samples.spec,
            "digest": chosen.samples.digest,
            "locked": study.locked,
            "searches": [
                Searched(file, name, outcome.candidates)
                for file, outcomes in contest.outcomes.items()
                for name, outcome in zip([*self.fold_names, "final"], outcomes, strict=True)
            ],
        }
