"""The samples of a study as images to train on: what the stage and the classifier both ask of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featx.learn.calibration import Calibration, Scored, choose_calibration
from featx.learn.metrics import scoring_value
from featx.learn.study import Study
from featx.learn.training import softmax
from featx.learn.tuning_parts import TuningPart
from featx.vision.tuning.part import PartTask, TunedPart
from featx.vision.tuning.training import Part

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_CHECKED = 64
"""Samples whose values are compared before the first step, where there is no validation part."""


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Samples of a study, and where their images are.

    Attributes
    ----------
    study : Study
    positions : int array (n_samples,)
        Of each sample of the study in the manifest of images.
    """

    study: Study
    positions: IntArray

    @property
    def classes(self) -> list[str]:
        """In the order of the networks' values."""
        return self.study.classes(self.study.plan.train)

    def codes(self, rows: IntArray) -> IntArray:
        """Return the places of samples' labels among the classes."""
        return np.searchsorted(self.classes, self.study.data.y[rows])

    def task(self, part: TuningPart) -> PartTask:
        """Return a training part as what is to be done with images."""
        check = part.validate if len(part.validate) else part.train[:_CHECKED]
        return PartTask(
            part.name,
            self._samples(part.train),
            self._samples(part.validate) if len(part.validate) else None,
            self.positions[part.test],
            part.start.coef,
            part.start.intercept,
            part.start.unit_length,
            self.positions[check],
            part.start.decisions(self.study.entries[0].plain[check].astype(np.float64)),
        )

    def _samples(self, rows: IntArray) -> Part:
        return Part(self.positions[rows], self.codes(rows))

    def score(self, values: FloatArray, codes: IntArray) -> tuple[float, float]:
        """Score validation values as heads are scored; ties go to the smaller log loss."""
        classes = np.asarray(self.classes)
        y, predicted, probabilities = classes[codes], classes[values.argmax(axis=1)], softmax(values)
        first, second = (
            scoring_value(name, y, predicted, probabilities, self.classes)
            for name in (self.study.options.scoring, "neg_log_loss")
        )
        return -np.inf if first is None else first, -np.inf if second is None else second

    def calibration(self, part: TuningPart, outcome: TunedPart) -> Calibration:
        """Choose on the validation part what makes probabilities come true; with none, they stay as they are."""
        if not len(part.validate):
            return Calibration("none")
        codes, ids = self.codes(part.validate), self.study.ids(part.validate)
        units = np.arange(len(codes)) if ids is None else ids
        scored = Scored(softmax(outcome.validate)[:, None], codes, np.zeros(len(codes), dtype=np.int64), units)
        return choose_calibration(scored, "auto")
