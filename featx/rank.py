"""``featx rank``: which of several feature files of the same samples suits their labels best."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from featx.errors import StoreError
from featx.learn.alignment import align, check_paths
from featx.learn.dataset import Features, check_class_names, check_different, load_features
from featx.learn.groups import GroupIds, resolve_groups
from featx.learn.paired import metric_of
from featx.learn.plan import EvaluationPlan, plan_evaluation
from featx.learn.quick import QuickTest, is_tie
from featx.learn.ranking import RankedFile, RankOptions, RankResult
from featx.learn.scores import Evaluation
from featx.learn.search import Progress
from featx.learn.splits import find_small_classes
from featx.learn.transferability import leep, nce, score_features
from featx.store.file import FeatureFile

__all__ = ["RankOptions", "RankResult", "RankedFile", "rank"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

NO_LOGITS = (
    "the network's own class scores are not in the file; `featx extract --with-logits` stores them where the network "
    "has a classifier (add --replace, or another -o)"
)
NO_LOGITS_FOREIGN = "the features were made elsewhere and came without the network's own class scores"
UNBOUNDED = "the features explain a class exactly in fewer directions than there are samples: the evidence is infinite"


def rank(
    paths: Sequence[str | os.PathLike[str]],
    options: RankOptions = RankOptions(),  # noqa: B008  frozen
    *,
    progress: Progress | None = None,
) -> RankResult:
    """Rank feature files of the same samples by a cheap cross-validated score, with transferability scores beside it.

    Parameters
    ----------
    paths : sequence of path-like
        Feature files as `featx extract` writes them, of the same images and labels; of each the plain image's row.
    options : RankOptions
    progress : callable (done, total), optional

    Returns
    -------
    RankResult

    Raises
    ------
    StoreError
        A file that is missing, damaged or not complete.
    InputError
        Features that are not finite; files of different samples.
    LabelsError
        Files that disagree about labels, groups, splits or folds; labels that cannot be cross-validated.
    UsageError
        No file, or the same one twice.
    """
    names = [str(path) for path in paths]
    check_paths(names)
    start = time.perf_counter()
    columns = [_columns(name, options, is_alone=len(names) == 1) for name in names]
    alignment = align(names, columns, only_common=options.allow_missing)
    study = _Study.of(alignment.samples, options)
    test = study.test()
    tried = []
    for number, (name, rows) in enumerate(zip(names, alignment.rows, strict=True)):
        advance = None if progress is None else _part(progress, number, len(names))
        tried.append(_try(name, rows[study.rows], columns[number].digest, test, options, advance))
    metric = metric_of(options.scoring, tried[0].evaluation.scores)
    tried.sort(key=lambda one: one.order(metric))
    baseline = tried[0].evaluation.baseline
    return RankResult(
        files=[one.compare(tried[0], metric, test) for one in tried],
        metric=metric,
        guessing=None if baseline is None else baseline.scores[metric],
        classes=[str(name) for name in np.unique(study.data.y)],
        n_samples=len(study.data),
        description=study.describe(test),
        groups=study.groups,
        n_folds=len(test.folds),
        n_left_out=alignment.n_left_out,
        unlabelled=study.n_unlabelled,
        small_classes=study.small_classes,
        n_not_ranked=study.n_not_ranked,
        has_views=any(one.spec is not None and one.spec.n_views > 1 for one in columns),
        options=options,
        seconds=time.perf_counter() - start,
        locked=next((one.locked for one in columns if one.locked is not None), None),
    )


def _columns(path: str, options: RankOptions, *, is_alone: bool) -> Features:
    """Load what a file says of its samples; its features are read, checked, and let go.

    Beside others, a file whose features are all the same is simply the last.
    """
    features = load_features(path, allow_missing=options.allow_missing)
    check_class_names(features)
    if is_alone:
        check_different(features, name=path)
    return replace(features, X=np.empty((len(features), 0), dtype=np.float32))


@dataclass(frozen=True, eq=False)
class _Study:
    """The samples that files are ranked on.

    Attributes
    ----------
    data : Features
        Labelled, and of a part that a choice may be made on; `X` has no columns.
    rows : int array (n_samples,)
        Where they are among the samples that the files share.
    groups : GroupIds
        Of `data`.
    scheme : str
        How ``featx fit`` would evaluate, see `EvaluationPlan`.
    n_unlabelled, small_classes, n_not_ranked : int, dict of str to int, int
        What was left out.
    options : RankOptions
    """

    data: Features
    rows: IntArray
    groups: GroupIds
    scheme: str
    n_unlabelled: int
    small_classes: dict[str, int]
    n_not_ranked: int
    options: RankOptions

    @classmethod
    def of(cls, samples: Features, options: RankOptions) -> _Study:
        """Leave out what no choice may be made on, as ``featx fit`` does."""
        rows = np.flatnonzero(samples.y != "")
        small_classes: dict[str, int] = {}
        groups, plan = _plan(samples.take(rows), options)
        if options.min_per_class is not None:
            y = samples.y[rows]
            small = find_small_classes(y[plan.train], options.min_per_class, groups.take(plan.train).ids)
            small_classes = {name: int(np.sum(y == name)) for name in small}
            rows = rows[~np.isin(y, small)]
            groups, plan = _plan(samples.take(rows), options)
        chosen = rows[plan.train]
        return cls(
            samples.take(chosen),
            chosen,
            groups.take(plan.train),
            plan.scheme,
            int(np.sum(samples.y == "")),
            small_classes,
            len(rows) - len(chosen),
            options,
        )

    def test(self) -> QuickTest:
        """Deal the folds of the cheap score."""
        prescribed = self.data.folds if self.scheme != "val-test" and np.any(self.data.folds != "") else None
        options = self.options
        return QuickTest.plan(
            self.data.y,
            self.groups,
            options.of_fit.space,
            cv=options.cv,
            inner_cv=options.inner_cv,
            repeats=options.repeats,
            prescribed=prescribed,
        )

    def describe(self, test: QuickTest) -> str:
        """Say how the cheap score was made."""
        options, grid = self.options, test.space.C_grid
        others = self.n_not_ranked
        part = f" that a choice may be made on, not on the {others} others of the file's splits" if others else ""
        repeats = f", {options.repeats} times" if options.repeats > 1 else ""
        scaling = {"raw": "features as they are", "standardise": "standardised features", "l2": "rows of length 1"}
        of_c = f"C of {len(grid)} from {grid[0]:g} to {grid[-1]:g} chosen in {options.inner_cv} inner folds"
        return (
            f"Logistic regression on {scaling[options.scaling]}, {of_c if len(grid) > 1 else f'C = {grid[0]:g}'}, "
            f"cross-validated in {len(test.folds) // test.n_repeats} folds{repeats}, the same for every file, on "
            f"{len(self.data)} samples of {len(np.unique(self.data.y))} classes{part}."
        )


def _plan(samples: Features, options: RankOptions) -> tuple[GroupIds, EvaluationPlan]:
    groups = resolve_groups(samples.groups, samples.sha256, samples.group_source, keys=samples.keys)
    return groups, plan_evaluation(samples.splits, split=options.split, groups=groups)


@dataclass(frozen=True, eq=False)
class _Tried:
    """What was found of one file, before it is compared with the others; `evaluation` is of the cheap score."""

    file: RankedFile
    evaluation: Evaluation

    def order(self, metric: str) -> tuple[bool, float]:
        """Sort the better first, and the undefined last."""
        mean = self.evaluation.scores[metric].mean
        return (mean is None, 0.0 if mean is None else -mean)

    def compare(self, first: _Tried, metric: str, test: QuickTest) -> RankedFile:
        """Add the score and its difference to the first file's."""
        score = self.evaluation.scores[metric]
        if self is first:
            return replace(self.file, score=score)
        behind = test.difference(metric, first.evaluation.scores[metric], score)
        return replace(self.file, score=score, behind=behind, tied=is_tie(behind))


def _try(
    path: str, rows: IntArray, digest: str, test: QuickTest, options: RankOptions, progress: Progress | None
) -> _Tried:
    """Compute everything about one file but its rank."""
    features = load_features(path, allow_missing=options.allow_missing)
    if features.digest != digest:
        raise StoreError("the file was replaced while it was being ranked; run featx rank again", path=path)
    spec = features.spec
    assert spec is not None
    X = features.X[rows].astype(np.float64)
    del features
    evaluation, outcomes = test.run(X, n_jobs=options.n_jobs, progress=progress)
    of_features = score_features(X, test.y)
    scores: dict[str, float | None] = {
        "logme": of_features.logme if np.isfinite(of_features.logme) else None,
        "h_score": of_features.h_score,
        "h_score_regularised": of_features.h_score_regularised,
        "transrate": of_features.transrate,
    }
    why_none = {} if np.isfinite(of_features.logme) else {"logme": UNBOUNDED}
    probabilities = _source_probabilities(path, rows)
    if probabilities is None:
        scores |= {"leep": None, "nce": None}
        why_none |= dict.fromkeys(("leep", "nce"), NO_LOGITS_FOREIGN if spec.is_foreign else NO_LOGITS)
    else:
        scores |= {"leep": leep(probabilities, test.y), "nce": nce(probabilities.argmax(axis=1), test.y)}
    choices = [outcome.best.choice for outcome in outcomes]
    file = RankedFile(
        path=path,
        backbone=spec.backbone,
        weights=spec.weights,
        node=spec.node,
        n_features=X.shape[1],
        score=next(iter(evaluation.scores.values())),
        behind=None,
        tied=False,
        transferability=scores,
        why_none=why_none,
        h_score_of_chance=of_features.h_score_of_chance,
        saturated=of_features.saturated,
        edges=dict(Counter(choice.edge for choice in choices if choice.edge)),
        n_unconverged=sum(len(outcome.unconverged) for outcome in outcomes),
    )
    return _Tried(file, evaluation)


def _source_probabilities(path: str, rows: IntArray) -> FloatArray | None:
    """Return what the network's own classifier says (n_samples, n_source_classes), where the file has it."""
    from scipy.special import softmax

    with FeatureFile.open(path) as file:
        plain = np.flatnonzero(np.asarray(file.views()) == 0)
        logits = file.logits(plain[rows])
    if logits is None:
        return None
    probabilities: FloatArray = softmax(np.asarray(logits, dtype=np.float64), axis=1)
    return probabilities


def _part(progress: Progress, number: int, n_parts: int) -> Progress:
    """Report the steps of one of several parts that have equally many."""
    return lambda done, total: progress(number * total + done, n_parts * total)
