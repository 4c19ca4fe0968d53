"""What a fine-tune is done and judged on: the folds of the frozen head, and in each a validation part and a start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from featx.errors import LabelsError
from featx.learn.choice import Choice
from featx.learn.heads import order_of
from featx.learn.linear_layer import LinearLayer
from featx.learn.search import Job, run_jobs
from featx.learn.splits import make_folds
from featx.learn.study import NOTHING, Study

IntArray = NDArray[np.int64]

FINAL = "final"
LINEAR = ("logreg", "logreg-ovr", "svm", "ridge", "lda")
"""Heads of `featx.learn.heads` that fold into a layer; in the place of others a logistic regression is the start."""


@dataclass(frozen=True, eq=False)
class TuningPart:
    """One training part. All arrays are positions among the study's samples.

    Attributes
    ----------
    name : str
        Of the outer fold, or `FINAL`.
    train : int array
        What the weights are trained on.
    validate : int array
        What epochs are chosen by; may be empty. No group is in both.
    test : int array
        What is predicted, for the score; may be empty.
    start : LinearLayer
        The head that the training begins with, fitted on `train`.
    choice : Choice
        Of that head.
    """

    name: str
    train: IntArray
    validate: IntArray
    test: IntArray
    start: LinearLayer
    choice: Choice


def start_heads(heads: Sequence[str]) -> tuple[str, ...]:
    """Return the heads among which the start of a fine-tune is chosen: the linear ones, or logistic regression."""
    linear = tuple(name for name in heads if name in LINEAR)
    return tuple(sorted(linear, key=order_of)) or ("logreg",)


def plan_parts(study: Study, *, validation: float) -> list[TuningPart]:
    """Plan the training parts of a study, that of the saved network last, and fit their starts.

    Parameters
    ----------
    study : Study
        Of one file.
    validation : float
        Share of each training part that is kept for the choice of epochs, 0 to below 1; at 0 none is. More, where a
        class has few groups.

    Raises
    ------
    LabelsError
        Where the training parts are too small to be divided.
    """
    plan = study.plan
    cuts = [(study.fold_name(fold), plan.choose[fold.train], plan.choose[fold.test]) for fold in study.outer_folds()]
    cuts.append((FINAL, plan.train, NOTHING if plan.scheme == "nested-cv" else plan.report))
    if plan.scheme != "nested-cv":  # the reported part is fixed: nothing else is scored
        cuts = cuts[-1:]
    return _with_starts(study, cuts, validation)


def plan_final(study: Study, *, validation: float) -> TuningPart:
    """Plan one training part of all samples of a study, of which none is scored; as `plan_parts`."""
    (part,) = _with_starts(study, [(FINAL, study.plan.train, NOTHING)], validation)
    return part


def _with_starts(study: Study, cuts: Sequence[tuple[str, IntArray, IntArray]], validation: float) -> list[TuningPart]:
    """Divide the training part of each (name, training part, test part), and fit its start."""
    divided = [(name, *_divide(study, rows, validation), test) for name, rows, test in cuts]
    jobs = [replace(_job(study, name, train), keep=True) for name, train, _, _ in divided]
    space = replace(study.options.space, heads=start_heads(study.options.heads))
    X = study.entries[0].plain.astype(np.float64)
    outcomes = run_jobs(X, study.data.y, jobs, space, n_jobs=study.options.n_jobs)
    parts = []
    for (name, train, validate, test), outcome in zip(divided, outcomes, strict=True):
        layer = LinearLayer.of(outcome.best.estimator)
        assert layer is not None
        parts.append(TuningPart(name, train, validate, test, layer, outcome.best.choice))
    return parts


def _divide(study: Study, rows: IntArray, validation: float) -> tuple[IntArray, IntArray]:
    """Divide a training part into what is trained on and what epochs are chosen by, whole groups in either."""
    plan = study.plan
    if plan.scheme == "val-test":
        return plan.choose, plan.validate
    if not validation:
        return rows, NOTHING
    fold = make_folds(
        study.data.y[rows],
        study.ids(rows),
        n_splits=_most_folds(study, rows, round(1 / validation)),
        random_state=study.options.random_state,
        group_names=study.groups.names,
        what="the validation part of a fine-tune",
        option="",
    )[0]
    return rows[fold.train], rows[fold.test]


def _job(study: Study, name: str, rows: IntArray) -> Job:
    folds = make_folds(
        study.data.y[rows],
        study.ids(rows),
        n_splits=_most_folds(study, rows, study.options.inner_cv),
        random_state=study.options.random_state,
        group_names=study.groups.names,
        what=f"the start of fold {name}",
        option="",
    )
    calibration = np.zeros(len(rows), dtype=np.int64)
    for fold in folds:
        calibration[fold.test] = fold.number
    return Job(name, [(rows[fold.train], rows[fold.test]) for fold in folds], rows, calibration, NOTHING)


def _most_folds(study: Study, rows: IntArray, wanted: int) -> int:
    """Return into how many folds, up to those that are wanted, the smallest class can be dealt.

    A validation part leaves fewer groups than the outer folds were planned with: a share that is a little larger, or
    one fold fewer, is better than no training.

    Raises
    ------
    LabelsError
        If it cannot be dealt into two.
    """
    y, ids = study.data.y[rows], study.ids(rows)
    sizes = {str(name): len(np.unique((rows if ids is None else ids)[y == name])) for name in np.unique(y)}
    least = min(sizes, key=lambda name: sizes[name])
    if sizes[least] < 2:
        unit = "samples" if ids is None else "groups"
        raise LabelsError(
            f"too few {unit} of class {least!r} to tune on: once a part is kept for the choice of epochs, some "
            f"training part has {sizes[least]} of them. Take --validation 0, or give each class more {unit}"
        )
    return min(wanted, sizes[least])
