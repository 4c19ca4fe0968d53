"""The accounts of a regression's fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featx.learn.accounts import Accounts
from featx.learn.paired import Comparison
from featx.learn.regression.intervals import NumberIntervals
from featx.learn.regression.metrics import Tested
from featx.learn.regression.result import NumberOutOfFold
from featx.learn.regression.scores import NumberEvaluation, compare, evaluate_fixed, evaluate_folds, of_fixed, of_folds
from featx.learn.regression.study import NumberStudy
from featx.learn.scores import FoldPredictions
from featx.learn.search import Fitted
from featx.learn.splits import Fold
from featx.learn.trust import CHEAP, bytes_of


@dataclass(frozen=True, eq=False)
class NumberAccounts(Accounts[NumberEvaluation]):
    """What the predictions of numbers say."""

    study: NumberStudy

    guess: ClassVar[str] = "the median"

    def evaluate_folds(self, parts: Sequence[FoldPredictions]) -> NumberEvaluation:
        """Score a cross-validation."""
        rows = self.study.plan.choose
        return evaluate_folds(self.study.numbers[rows], parts, self.study.ids(rows))

    def evaluate_part(self, fitted: Fitted) -> NumberEvaluation:
        """Score the final choice on the part that is reported."""
        y, plan = self.study.numbers, self.study.plan
        return evaluate_fixed(y[plan.report], fitted.predicted, self.study.ids(plan.report), y_train=y[plan.train])

    def beside(self, names: tuple[str, str], first: Sequence[Fitted], second: Sequence[Fitted]) -> Comparison:
        """Compare two series of fits on what is reported."""
        return self._beside(names, self._tested(first), self._tested(second))

    def beside_guessing(self, fitted: Sequence[Fitted]) -> Comparison:
        """Compare the whole procedure with guessing on what is reported."""
        whole = self._tested(fitted)
        return self._beside(("the whole procedure", "guessing"), whole, whole.guessed(whole.middle))

    def _beside(self, names: tuple[str, str], one: Tested, two: Tested) -> Comparison:
        options = self.study.options
        return compare(
            names,
            one,
            two,
            unit=one.unit(1 if self.is_fixed else options.repeats),
            is_fixed=self.is_fixed,
            random_state=options.random_state,
        )

    def _tested(self, fitted: Sequence[Fitted]) -> Tested:
        """Lay out the predictions that are reported."""
        plan, y = self.study.plan, self.study.numbers
        if not self.is_fixed:
            return of_folds(y[plan.choose], self.parts(fitted), self.study.ids(plan.choose))
        rows = plan.report
        return of_fixed(y[rows], fitted[-1].predicted, self.study.ids(rows), y_train=y[plan.train])

    def out_of_fold(self, fitted: Sequence[Fitted]) -> list[NumberOutOfFold]:
        """List every prediction for a row that the head was not fitted on."""
        data, y = self.study.data, self.study.numbers
        return [
            NumberOutOfFold(str(data.keys[row]), str(data.groups[row]), name, float(y[row]), float(predicted))
            for name, rows, one in self.iter_tested(fitted)
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
            residuals=np.abs(self.study.numbers[rows] - np.concatenate([one.predicted for one in kept])),
            folds=np.repeat(np.arange(len(folds)), [len(fold.test) for fold in folds]),
            groups=rows if ids is None else ids,
            unit="samples" if ids is None else "groups",
        ), ""
