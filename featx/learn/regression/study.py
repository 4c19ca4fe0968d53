"""The study behind a regression: what `featx.learn.study` is to classes, with folds that are stratified by numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from featx.learn.numbers import FloatArray, parse_numbers
from featx.learn.regression.folds import FoldPlan, IntArray, check_numbers, make_folds
from featx.learn.regression.heads import order_of
from featx.learn.regression.search import NumberSpace
from featx.learn.search import Job
from featx.learn.splits import Fold
from featx.learn.study import NOTHING, Study


@dataclass(frozen=True, eq=False)
class NumberStudy(Study):
    """Samples whose labels are numbers, with the plan of their evaluation."""

    @property
    def numbers(self) -> FloatArray:
        """The labels (n_samples,); raises LabelsError where one is no number."""
        return parse_numbers(self.data.y, self.data.keys)

    @property
    def space(self) -> NumberSpace:
        """What is chosen from."""
        of = self.options.space
        return NumberSpace(tuple(sorted(of.heads, key=order_of)), of.scalings, of.C_grid, of.scoring, of.random_state)

    def outer_folds(self) -> list[Fold]:
        """Make the folds of nested cross-validation; their positions are among ``plan.choose``."""
        rows, options = self.plan.choose, self.options
        if self.plan.scheme == "val-test":
            check_numbers(self.numbers[rows], self.ids(rows), FoldPlan(1, what="training"))
            return []
        plan = FoldPlan(options.cv, options.repeats, options.random_state, options.inner_cv)
        return self._folds(rows, plan, prescribed=self.prescribed)

    def set_folds(self, outer: Sequence[Fold]) -> list[Fold]:
        """Return the folds whose heads make prediction intervals; see `featx.learn.trust_account.folds_for_sets`."""
        options = self.options
        if options.conformal == "off":
            return []
        if outer or options.conformal == "auto":
            return [fold for fold in outer if fold.repeat == 0]
        plan = FoldPlan(options.cv, 1, options.random_state, options.inner_cv, what="prediction intervals")
        return self._folds(self.plan.train, plan)

    def refit_job(self, rows: IntArray, name: str) -> Job:
        """Make a job without a choice."""
        return Job(name, [], rows, np.zeros(len(rows), dtype=np.int64), NOTHING, keep=True)

    def _job(self, name: str, rows: IntArray, test: IntArray) -> Job:
        what = f"the inner folds of {'the final choice' if name == 'final' else f'fold {name}'}"
        options = self.options
        plan = FoldPlan(options.inner_cv, 1, options.random_state, what=what, option="--inner-cv")
        inner = [(rows[fold.train], rows[fold.test]) for fold in self._folds(rows, plan)]
        return replace(self.refit_job(rows, name), inner=inner, test=test, keep=False)

    def _folds(self, rows: IntArray, plan: FoldPlan, prescribed: NDArray[np.object_] | None = None) -> list[Fold]:
        return make_folds(
            self.numbers[rows], self.ids(rows), plan, prescribed=prescribed, group_names=self.groups.names
        )
