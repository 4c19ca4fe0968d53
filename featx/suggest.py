"""What to label next: ``featx fewshot --suggest``."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

from featx.errors import LabelsError, SpecMismatchError, UsageError
from featx.learn.dataset import check_learnable, load_features
from featx.learn.few_shot import FewShotOptions, parts_of
from featx.learn.heads import make_scaler
from featx.learn.suggestion import Suggestion, suggest_rows

__all__ = ["FewShotOptions", "Suggestion", "suggest"]


def suggest(
    path: str | os.PathLike[str],
    n: int,
    options: FewShotOptions = FewShotOptions(),  # noqa: B008  frozen
    *,
    unlabelled: str | os.PathLike[str] | None = None,
) -> list[Suggestion]:
    """Choose the samples to label next: logistic regression is unsure of them, and each stands for others like it.

    Parameters
    ----------
    path : path-like
        A feature file with labels; where it has splits, those of train (and val beside test) are learnt from.
    n : int
        How many; fewer where there are fewer.
    options : FewShotOptions
        Scaling, C, split and random state are used.
    unlabelled : path-like, optional
        The feature file that is chosen from, all of it, made in the same way; None: the samples of `path` without a
        label. Samples whose bytes have a label already are left out.

    Returns
    -------
    list of Suggestion
        In the order in which to label them; see `featx.learn.suggestion.suggest_rows`.

    Raises
    ------
    StoreError, InputError
        As `fewshot`; SpecMismatchError for features made in another way.
    LabelsError
        Fewer than two classes with labels, or nothing to choose from.
    """
    if n < 1:
        raise UsageError(f"--suggest {n}: give at least 1")
    if options.scaling == "standardise":
        raise UsageError("--scaling standardise with --suggest: the few labelled ones say too little; take l2 or raw")
    features = load_features(path, allow_missing=options.allow_missing)
    check_learnable(features)
    known = features.take(np.flatnonzero(features.y != ""))
    known = known.take(parts_of(known, options.split)[0])
    if len(np.unique(known.y)) < 2:
        raise LabelsError("--suggest needs labelled samples of at least two classes to learn from")
    if unlabelled is None:
        others = features.take(np.flatnonzero((features.y == "") & np.isin(features.splits, ["", "train"])))
    else:
        others = load_features(unlabelled, allow_missing=options.allow_missing)
        assert features.spec is not None
        assert others.spec is not None
        differences = replace(others.spec, views=features.spec.views).differences(features.spec)  # the plain rows alone
        if differences:
            raise SpecMismatchError(differences, path=str(unlabelled), hint="extract both in the same way")
    labelled_bytes = set(features.sha256[features.y != ""].tolist()) - {""}
    n_offered = len(others)
    others = others.take(np.array([sha not in labelled_bytes for sha in others.sha256], dtype=bool))
    if unlabelled is not None and n_offered and not len(others):
        raise LabelsError(f"all {n_offered:,} images of {unlabelled} have a label already, in {path}: by their bytes")
    if not len(others):
        raise LabelsError("there is no sample without a label to choose from; give a file of them by --unlabelled")
    scaler = make_scaler(options.scaling)
    X, candidates = (each.X.astype(np.float64) for each in (known, others))
    if scaler is not None:
        X, candidates = scaler.fit_transform(X), scaler.transform(candidates)
    rows, predicted, probabilities = suggest_rows(
        X, known.y, candidates, n, C=options.fixed.C, random_state=options.random_state
    )
    top = np.sort(probabilities, axis=1)
    return [
        Suggestion(str(others.keys[row]), str(predicted[row]), float(top[row, -1]), float(top[row, -1] - top[row, -2]))
        for row in rows
    ]
