"""What tuned networks and the frozen head say of the same samples, and the gate between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import LabelsError
from featx.finetuning.labelled import LabelledImages
from featx.fit import FitResult
from featx.learn.gate import Verdict
from featx.learn.scores import Evaluation, FoldPredictions, evaluate_fixed, evaluate_folds
from featx.learn.splits import Fold
from featx.learn.study import Study
from featx.learn.training import softmax
from featx.learn.tuning_parts import FINAL, TuningPart
from featx.vision.tuning.part import TunedPart

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Called = tuple[NDArray[Any], FloatArray]
"""Classes (n,) and probabilities (n, n_classes) of samples."""


@dataclass(frozen=True, eq=False)
class Judging:
    """Judges tuned networks beside the frozen head.

    Attributes
    ----------
    images : LabelledImages
    frozen : FitResult
        Of the same samples.
    """

    images: LabelledImages
    frozen: FitResult

    @property
    def study(self) -> Study:
        """The samples, and how they are divided."""
        return self.images.study

    @property
    def classes(self) -> list[str]:
        """In the order of the networks' values."""
        return self.images.classes

    def check(self, parts: Sequence[TuningPart]) -> None:
        """Raise LabelsError where all that will be compared is of one class: what always names it would win."""
        called = np.unique(self.study.data.y[np.concatenate([part.test for part in parts])])
        if len(called) > 1:
            return
        name, way = self._scored(parts[0]), "Put samples of every class into it, or use --split ignore"
        if parts[0].name != FINAL:
            name, way = f"fold {name}", "Compare on all folds: --cv 5"
        raise LabelsError(
            f"{name}, on which tuned and frozen are compared, has samples of one class only, {str(called[0])!r}: a "
            f"network that always names it would win. {way}"
        )

    def judge(
        self, parts: Sequence[TuningPart], outcomes: Sequence[TunedPart]
    ) -> tuple[Evaluation, Evaluation, Verdict]:
        """Return the scores of the tuned networks, those of the frozen head on the same samples, and the verdict."""
        plan, study = self.study.plan, self.study
        is_fixed = plan.scheme != "nested-cv"
        rows = plan.report if is_fixed else np.sort(np.concatenate([part.test for part in parts]))
        y, groups = study.data.y[rows], study.ids(rows)
        tuned, frozen = [], []
        for number, (part, outcome) in enumerate(zip(parts, outcomes, strict=True)):
            test = np.searchsorted(rows, part.test)
            fold = Fold(0, number, np.setdiff1d(np.arange(len(rows)), test), test, part.name)
            tuned.append(FoldPredictions(fold, *self._called(part, outcome)))
            frozen.append(FoldPredictions(fold, *self._called_frozen(part)))
        verdict = Verdict.of(
            y, tuned, frozen, self.classes, groups=groups, is_fixed=is_fixed, random_state=study.options.random_state
        )
        if verdict.is_single:
            return self._evaluate_one(parts[0], tuned[0]), self._evaluate_one(parts[0], frozen[0]), verdict
        evaluate = partial(evaluate_folds, classes=self.classes, groups=groups, positive=study.options.positive)
        return evaluate(y, tuned), evaluate(y, frozen), verdict

    def _evaluate_one(self, part: TuningPart, said: FoldPredictions) -> Evaluation:
        y = self.study.data.y
        return evaluate_fixed(
            y[part.test],
            said.predicted,
            said.probabilities,
            self.classes,
            groups=self.study.ids(part.test),
            y_train=y[np.union1d(part.train, part.validate)],
            positive=self.study.options.positive,
        )

    def _called(self, part: TuningPart, outcome: TunedPart) -> Called:
        """Return what is said of the test part: by the frozen head, where no epoch was better than the start."""
        if outcome.tuned.best_epoch == 0:
            return self._called_frozen(part)
        probabilities = self.images.calibration(part, outcome).apply(softmax(outcome.test))
        return np.asarray(self.classes)[outcome.test.argmax(axis=1)], probabilities

    def _called_frozen(self, part: TuningPart) -> Called:
        """Return what the frozen head of the same training part says of the test part."""
        fold = self._scored(part)
        said = {row.key: row for row in self.frozen.out_of_fold if row.fold == fold}
        rows = [said[key] for key in self.study.data.keys[part.test]]
        return np.array([row.predicted for row in rows]), np.array([row.probabilities for row in rows])

    def _scored(self, part: TuningPart) -> str:
        """Return the name of a part's test part: an outer fold, or a part of the split."""
        return part.name if part.name != FINAL else "val" if self.study.plan.scheme == "val" else "test"
