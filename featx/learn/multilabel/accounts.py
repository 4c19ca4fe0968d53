"""The accounts of a fit on labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from featx.learn.accounts import Accounts
from featx.learn.multilabel.metrics import LabelPredictions
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
from featx.learn.multilabel.study import LabelStudy
from featx.learn.paired import Comparison
from featx.learn.result import OutOfFold
from featx.learn.scores import FoldPredictions
from featx.learn.search import Fitted
from featx.learn.splits import Fold
from featx.learn.study import NOTHING


@dataclass(frozen=True, eq=False)
class LabelAccounts(Accounts[LabelEvaluation]):
    """What the predictions of labels say."""

    study: LabelStudy

    guess: ClassVar[str] = "without a look at the image"

    def evaluate_folds(self, parts: Sequence[FoldPredictions]) -> LabelEvaluation:
        """Score a cross-validation."""
        rows = self.study.plan.choose
        return evaluate_label_folds(self.study.table.take(rows), parts, groups=self.study.ids(rows))

    def evaluate_part(self, fitted: Fitted) -> LabelEvaluation:
        """Score the final choice on the part that is reported."""
        study, plan = self.study, self.study.plan
        return evaluate_label_part(
            study.table.take(plan.report),
            fitted.predicted,
            fitted.probabilities,
            groups=study.ids(plan.report),
            train=study.table.marks[plan.train],
        )

    def beside(self, names: tuple[str, str], first: Sequence[Fitted], second: Sequence[Fitted]) -> Comparison:
        """Compare two series of fits on what is reported."""
        return self._beside(names, self._tested(first), self._tested(second))

    def beside_guessing(self, fitted: Sequence[Fitted]) -> Comparison:
        """Compare the whole procedure with guessing on what is reported."""
        rows, marks, scoring = self._tested(fitted), self.study.table.marks, self.study.options.scoring
        trained = [train for train, _ in self.reported]
        guesses = [constant_answer(scoring, marks[train]) for train in trained]
        called, probabilities = (np.array(each)[rows.folds] for each in zip(*guesses, strict=True))
        guessed = replace(rows, predictions=LabelPredictions(rows.predictions.true, called, probabilities))
        expected = [
            guess_labels(marks[train], rows.predictions.true[tested])[scoring]
            for train, tested in zip(trained, rows.parts(), strict=True)
        ]
        return self._beside(("the whole procedure", "guessing"), rows, guessed, expected)

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
            n_repeats=None if self.is_fixed else options.repeats,
            random_state=options.random_state,
        )

    def _tested(self, fitted: Sequence[Fitted]) -> LabelRows:
        """Lay out the predictions that are reported."""
        plan, marks = self.study.plan, self.study.table.marks
        if not self.is_fixed:
            return label_rows(marks[plan.choose], self.parts(fitted), self.study.ids(plan.choose))
        rows = plan.report
        whole = Fold(0, 0, NOTHING, np.arange(len(rows)), plan.scheme)
        part = FoldPredictions(whole, fitted[-1].predicted, fitted[-1].probabilities)
        return label_rows(marks[rows], [part], self.study.ids(rows))

    def out_of_fold(self, fitted: Sequence[Fitted]) -> list[OutOfFold]:
        """List every prediction for a row that the head was not fitted on."""
        study, data = self.study, self.study.data
        return [
            OutOfFold(str(data.keys[row]), str(data.groups[row]), name, true, called, tuple(p.tolist()))
            for name, rows, one in self.iter_tested(fitted)
            for row, true, called, p in zip(
                rows,
                study.table.take(rows).texts(study.syntax),
                replace(study.table, marks=one.predicted).texts(study.syntax),
                one.probabilities,
                strict=True,
            )
        ]
