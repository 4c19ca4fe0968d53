"""The study behind a fit on labels: which samples have which, and folds that spread them evenly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from featx.errors import LabelsError
from featx.learn.contest import Entry
from featx.learn.multilabel.folds import make_label_folds
from featx.learn.multilabel.labels import (
    IntArray,
    LabelSyntax,
    LabelTable,
    check_labels,
    find_small_labels,
    read_labels,
)
from featx.learn.multilabel.searching import LabelJob, LabelSpace
from featx.learn.options import FitOptions
from featx.learn.search import Job, Progress
from featx.learn.splits import Fold
from featx.learn.study import NOTHING, Study


@dataclass(frozen=True, eq=False)
class LabelStudy(Study):
    """Samples with labels, with the plan of their evaluation.

    Attributes
    ----------
    table : LabelTable
        The labels of all samples of the study.
    left_out, unseen : dict of str to int
        Labels that are too rare or too common, or only on samples that nothing is trained on; and on how many samples
        they are.
    """

    table: LabelTable
    left_out: dict[str, int]
    unseen: dict[str, int]

    @property
    def syntax(self) -> LabelSyntax:
        """How labels are written."""
        return LabelSyntax(self.options.label_separator, self.options.none_label)

    @classmethod
    def read(cls, labelled: Sequence[Entry], options: FitOptions, looking: Progress | None = None) -> LabelStudy:
        """Divide the samples' texts into labels; leave out those that are too small to choose on."""
        plain = Study.of(labelled, options, looking)
        if not len(plain.data):
            raise LabelsError("no labelled samples; give `featx extract` a table with a label column")
        syntax, rows = LabelSyntax(options.label_separator, options.none_label), plain.plan.train
        everything = read_labels(plain.data.y, plain.data.keys, syntax)
        unseen = [
            name
            for name, n in zip(everything.names, everything.take(rows).marks.sum(axis=0).tolist(), strict=True)
            if not n
        ]
        table, small = everything.without(unseen), []
        if not table.names:
            raise LabelsError("no sample that could be trained on has any label")
        if options.min_per_class is not None:
            small = find_small_labels(table.take(rows), options.min_per_class, plain.ids(rows))
        left_out, not_seen = everything.counts(small), everything.counts(unseen)
        table = table.without(small)
        return cls(plain.entries, plain.groups, plain.near, plain.plan, options, table, left_out, not_seen)

    @property
    def space(self) -> LabelSpace:
        """What is chosen from."""
        return LabelSpace.of(self.options, self.table.names)

    def refit_job(self, rows: IntArray, name: str) -> Job:
        """Make a job without a choice."""
        groups = rows if self.groups.ids is None else self.groups.ids[rows]
        return LabelJob(name, [], rows, np.zeros(len(rows), dtype=np.int64), NOTHING, keep=True, groups=groups)

    def _job(self, name: str, rows: IntArray, test: IntArray) -> Job:
        plain = super()._job(name, rows, test)
        return replace(self.refit_job(rows, name), inner=plain.inner, test=test, keep=False)

    def _check_training(self, rows: IntArray) -> None:
        check_labels(self.table.take(rows), None, n_splits=1, what="training")

    def _check_validation(self) -> None:
        """Leave a label that val lacks to the scores, which are undefined for it."""

    def _deal(self, rows: IntArray, **how: Any) -> list[Fold]:
        return make_label_folds(
            self.table.take(rows),
            self.ids(rows),
            random_state=self.options.random_state,
            group_names=self.groups.names,
            **how,
        )
