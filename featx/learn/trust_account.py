"""The account of trust of one fit, from its folds and the heads that were fitted for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from featx.learn.calibration import IntArray
from featx.learn.conformal import Conformal
from featx.learn.dataset import Features
from featx.learn.groups import GroupIds
from featx.learn.novelty import fit_novelty
from featx.learn.options import FitOptions
from featx.learn.out_of_fold import calibration_of, plain_of
from featx.learn.plan import EvaluationPlan
from featx.learn.reliability import Reliability, reliability_fixed, reliability_folds
from featx.learn.scores import FoldPredictions
from featx.learn.search import Fitted
from featx.learn.splits import Fold, make_folds
from featx.learn.trust import Trust, make_conformal


def folds_for_sets(
    data: Features, groups: GroupIds, plan: EvaluationPlan, options: FitOptions, outer: Sequence[Fold]
) -> list[Fold]:
    """Return the folds whose heads make prediction sets; their positions are among ``plan.train``.

    Those of one repeat of the nested cross-validation, where there is one: choice and calibration are inside of each.
    Where the choice is made on a part of its own, they are made for this purpose, if they were asked for.
    """
    if options.conformal == "off":
        return []
    if outer or options.conformal == "auto":
        return [fold for fold in outer if fold.repeat == 0]
    rows = plan.train
    return make_folds(
        data.y[rows],
        _ids(groups, rows),
        n_splits=options.cv,
        random_state=options.random_state,
        group_names=groups.names,
        what="prediction sets",
        inner_splits=options.inner_cv,
    )


def make_trust(
    data: Features,
    groups: GroupIds,
    plan: EvaluationPlan,
    options: FitOptions,
    *,
    fold_names: Sequence[str],
    parts: Sequence[FoldPredictions],
    set_folds: Sequence[Fold],
    fitted: Sequence[Fitted],
) -> Trust:
    """Account for the probabilities, and keep what prediction sets and warnings of strangers need.

    Parameters
    ----------
    data : Features
        One row for each sample that was used.
    groups : GroupIds
    plan : EvaluationPlan
    options : FitOptions
    fold_names : sequence of str
        Of the outer folds.
    parts : sequence of FoldPredictions
        What was predicted in them.
    set_folds : sequence of Fold
        Of `folds_for_sets`.
    fitted : sequence of Fitted
        The best of the outer folds, or of `set_folds` where there are none; and last that of the final choice.
    """
    maps = [calibration_of(one) for one in fitted]
    is_mapped = any(one is not None and one.method != "none" for one in maps)
    sets, why_not = _make_sets(data, groups, plan, options, set_folds, fitted)
    novelty = None
    if options.novelty:
        X = data.X[plan.fit] if data.X.ndim == 2 else data.X[plan.fit, 0]
        novelty = fit_novelty(X, _ids(groups, plan.fit), random_state=options.random_state)
    return Trust(
        asked=options.calibration,
        calibration=maps[-1],
        fold_methods=[(name, one.method) for name, one in zip(fold_names, maps, strict=False) if one is not None],
        reliability=_reliability(data, groups, plan, options, parts, fitted[-1]),
        plain=_reliability(data, groups, plan, options, _plain_parts(parts, fitted), _plain(fitted[-1]))
        if is_mapped
        else None,
        conformal=sets,
        why_no_sets=why_not,
        novelty=novelty,
    )


def _make_sets(
    data: Features,
    groups: GroupIds,
    plan: EvaluationPlan,
    options: FitOptions,
    folds: Sequence[Fold],
    fitted: Sequence[Fitted],
) -> tuple[Conformal | None, str]:
    if options.conformal == "off":
        return None, "it was fitted with --conformal off"
    if not folds:
        return None, (
            "the choice was made on val, without folds; `featx fit --conformal on` makes folds of train and val for it"
        )
    return make_conformal(
        data.y,
        [plan.train[fold.test] for fold in folds],
        fitted[: len(folds)],
        [str(name) for name in np.unique(data.y[plan.train])],
        groups.ids,
        any_size=options.conformal == "on",
    )


def _reliability(
    data: Features,
    groups: GroupIds,
    plan: EvaluationPlan,
    options: FitOptions,
    parts: Sequence[FoldPredictions],
    final: Fitted,
) -> Reliability:
    rows, classes = (plan.choose if plan.scheme == "nested-cv" else plan.report), np.unique(data.y[plan.train])
    names = [str(name) for name in classes]
    y, ids, seed = data.y[rows], _ids(groups, rows), options.random_state
    if plan.scheme == "nested-cv":
        return reliability_folds(y, parts, names, groups=ids, random_state=seed)
    return reliability_fixed(y, final.predicted, final.probabilities, names, groups=ids, random_state=seed)


def _plain(fitted: Fitted) -> Fitted:
    return replace(fitted, probabilities=plain_of(fitted))


def _plain_parts(parts: Sequence[FoldPredictions], fitted: Sequence[Fitted]) -> list[FoldPredictions]:
    return [replace(part, probabilities=plain_of(one)) for part, one in zip(parts, fitted, strict=False)]


def _ids(groups: GroupIds, rows: IntArray) -> NDArray[np.int64] | None:
    return None if groups.ids is None else groups.ids[rows]
