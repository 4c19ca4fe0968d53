"""``featx fewshot``: what heads make of few labels, and what more would bring."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featx.errors import LabelsError, UsageError
from featx.learn.choice import setting
from featx.learn.crossed import CrossedScore, Resamples, crossed_score
from featx.learn.dataset import Features, check_learnable, load_features
from featx.learn.draws import SCORED_SHARE, Deal, Draw, deal, deal_episodes, shots_up_to
from featx.learn.few_shot import FewShotOptions, FewShotResult, ShotHead, ShotScore, groups_of, parts_of
from featx.learn.groups import GroupIds
from featx.learn.heads import NEIGHBOURS, find_head, make_scaler
from featx.learn.inner_folds import OWN_SCALING, Samples
from featx.learn.intervals import Interval
from featx.learn.learning_curve import learning_curve
from featx.learn.search import Progress
from featx.learn.small_fits import call, choose
from featx.learn.splits import check_classes, find_small_classes
from featx.learn.transductive import METHODS

__all__ = ["FewShotOptions", "FewShotResult", "fewshot"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Right = list[NDArray[np.bool_]]
"""For each draw, whether each of its scored samples was called right."""


def fewshot(
    path: str | os.PathLike[str],
    options: FewShotOptions = FewShotOptions(),  # noqa: B008  frozen
    *,
    progress: Progress | None = None,
) -> FewShotResult:
    """Score heads on few samples of each class, drawn many times, and fit a learning curve to the scores.

    Parameters
    ----------
    path : path-like
        A feature file as `featx extract` writes it; of each sample the plain image's row.
    options : FewShotOptions
    progress : callable (done, total), optional

    Returns
    -------
    FewShotResult

    Raises
    ------
    StoreError
        A file that is missing, damaged or not complete.
    InputError
        Features that are not finite.
    LabelsError
        Labels or groups that leave too few to draw or to score.
    """
    start = time.perf_counter()
    features = load_features(path, allow_missing=options.allow_missing)
    study = _Study.of(features, options)
    heads = _episodes(study, progress) if options.episodes else _curves(study, progress)
    pool, scored = study.parts if study.parts is not None else (np.arange(study.n_labelled),) * 2
    return FewShotResult(
        heads=heads,
        classes=study.classes,
        n_pool=len(pool),
        n_scored=len(scored),
        description=study.describe(),
        groups=study.groups,
        unlabelled=len(study.samples.y) - study.n_labelled,
        small_classes=study.small_classes,
        not_scored=study.not_scored,
        options=options,
        seconds=time.perf_counter() - start,
        locked=features.locked,
    )


@dataclass(frozen=True, eq=False)
class _Study:
    """The labelled samples that take part, followed by those without a label.

    Attributes
    ----------
    samples : Samples
    codes : int array (n_labelled,)
    groups : GroupIds
        Of all.
    parts : (int array, int array), or None
        Pool and scored samples, where the file fixes them.
    small_classes : dict of str to int
    options : FewShotOptions
    """

    samples: Samples
    codes: IntArray
    classes: list[str]
    groups: GroupIds
    parts: tuple[IntArray, IntArray] | None
    small_classes: dict[str, int]
    options: FewShotOptions

    @property
    def n_labelled(self) -> int:
        return len(self.codes)

    @property
    def not_scored(self) -> list[str]:
        """The classes of which the part that is scored has no sample."""
        if self.parts is None:
            return []
        return [self.classes[code] for code in np.setdiff1d(self.codes, self.codes[self.parts[1]])]

    @property
    def ids(self) -> IntArray | None:
        return None if self.groups.ids is None else self.groups.ids[: self.n_labelled]

    @classmethod
    def of(cls, features: Features, options: FewShotOptions) -> _Study:
        check_learnable(features)
        labelled = np.flatnonzero(features.y != "")
        pool, scored = parts_of(features.take(labelled), options.split)
        small_classes: dict[str, int] = {}
        if options.min_per_class is not None:
            ids = groups_of(features.take(labelled[pool])).ids
            small = find_small_classes(features.y[labelled[pool]], options.min_per_class, ids)
            small_classes = {name: int(np.sum(features.y == name)) for name in small}
            labelled = labelled[~np.isin(features.y[labelled], small)]
            pool, scored = parts_of(features.take(labelled), options.split)
        chosen = pool if scored is None else np.union1d(pool, scored)
        rows = labelled[chosen]
        y = features.y[rows]
        classes = [str(name) for name in np.unique(y)]
        if len(classes) < 2:
            check_classes(y, None, n_splits=1, what="few-shot learning")
        parts = None
        if scored is not None:
            parts = np.searchsorted(chosen, pool), np.searchsorted(chosen, scored)
            missing = np.setdiff1d(y[parts[1]], y[parts[0]])
            if len(missing):
                raise LabelsError(
                    f"class {str(missing[0])!r} is scored, but there is none of it to draw from; mend the split, or "
                    "use --split ignore"
                )
        free = np.flatnonzero((features.y == "") & np.isin(features.splits, ["", "train"]))
        data = features.take(np.concatenate([rows, free]))
        samples = Samples.scaled(data.X.astype(np.float64), data.y, options.scaling)
        codes = np.searchsorted(np.array(classes), y)
        return cls(samples, codes, classes, groups_of(data), parts, small_classes, options)

    def deals(self) -> list[Deal]:
        """Shuffle what may be drawn, for each repeat."""
        options = self.options
        return deal(
            self.codes,
            self.ids,
            repeats=options.repeats,
            random_state=options.random_state,
            parts=self.parts,
            group_names=self.groups.names,
            class_names=self.classes,
        )

    def shots(self, most: int) -> tuple[int, ...]:
        """Return the k that are tried, of so many samples of every class."""
        asked = tuple(sorted(set(self.options.shots)))
        if asked and asked[-1] > most:
            raise UsageError(f"--shots {asked[-1]}: there are {most} samples of the smallest class to draw")
        return asked or shots_up_to(most)

    def value(self, head: str, draw: Draw, k: int) -> float:
        """Return the value of a head's parameter for a draw: fixed, or chosen inside it."""
        options = self.options
        parameter = find_head(head).parameter
        if options.inner_cv < 2 or k < options.inner_cv or not parameter.name:
            return options.fixed.value(head, k)
        n_fitted = len(draw.fitted) - -(-len(draw.fitted) // options.inner_cv)
        values = tuple(v for v in parameter.values if parameter is not NEIGHBOURS or v <= n_fitted // 2)
        return choose(
            self.samples,
            draw,
            self.ids,
            head,
            values,
            n_folds=options.inner_cv,
            scoring=options.scoring,
            random_state=options.random_state,
        )

    def describe(self) -> str:
        options = self.options
        scaling = {"raw": "features as they are", "standardise": "standardised features", "l2": "rows of length 1"}
        if options.episodes:
            how = (
                f"{options.episodes} episodes of {options.ways} of {len(self.classes)} classes, {options.queries} "
                "queries of each, of other groups than the shots"
            )
        elif self.parts is not None:
            how = (
                f"Up to {options.repeats} sets of k samples of each of {len(self.classes)} classes, drawn from "
                f"{len(self.parts[0])}; {len(self.parts[1])} others, the file's own, are scored"
            )
        else:
            how = (
                f"Up to {options.repeats} sets of k samples of each of {len(self.classes)} classes; a fold of "
                f"{SCORED_SHARE}, of other groups, is scored, another for each, of {self.n_labelled} samples in all"
            )
        chosen = "" if options.inner_cv < 2 else f"; parameters chosen in {options.inner_cv} folds of each set"
        return f"{how}. On {scaling[options.scaling]}{chosen}."


# Learning curves


def _curves(study: _Study, progress: Progress | None) -> list[ShotHead]:
    options = study.options
    deals = study.deals()
    ks = study.shots(min(one.most for one in deals))
    draws = {k: [one.draw(k) for one in deals[: _n_draws(study, deals[0], k)]] for k in ks}
    names = list(options.ordered_heads) + (list(METHODS) if options.transductive else [])
    report = _counter(sum(map(len, draws.values())) * len(names), progress)
    resamples = Resamples.of(len(deals), study.n_labelled, study.ids, random_state=options.random_state)

    def score(k: int, right: Right) -> CrossedScore:
        return crossed_score(right, [draw.scored for draw in draws[k]], study.codes, resamples, options.scoring)

    found = []
    for name in names:
        scores: dict[int, tuple[CrossedScore, dict[str, int], int]]
        if name in METHODS:
            of_all = _learn_from_all(study, draws, name, report)
            scores = {k: (score(k, of_all[k]), {}, 0) for k in ks}
        else:
            scores = {}
            for k in ks:
                right, values, n_unconverged = _fit_draws(study, draws[k], name, k, report)
                scores[k] = (score(k, right), values, n_unconverged)
        means = np.array([one.interval.mean for one, _, _ in scores.values()], dtype=np.float64)
        curve = learning_curve(ks, means, np.stack([one.resampled for one, _, _ in scores.values()], axis=1))
        shots = [ShotScore(k, one.interval, values, failed) for k, (one, values, failed) in scores.items()]
        found.append(ShotHead(name, shots, curve))
    return found


def _n_draws(study: _Study, first: Deal, k: int) -> int:
    """Return how many sets are drawn: one where each would be the whole pool."""
    whole = study.parts is not None and all(len(order) == k for order in first.orders)
    return 1 if whole else study.options.n_draws(k)


def _fit_draws(
    study: _Study, draws: Sequence[Draw], head: str, k: int, report: Callable[[int], None]
) -> tuple[Right, dict[str, int], int]:
    """Fit a head on each draw; return what it called right, the values of its parameter, and failures."""
    values = [study.value(head, draw, k) for draw in draws]
    right, n_unconverged = [], 0
    for draw, called in zip(draws, call(study.samples, study.codes, draws, head, values), strict=True):
        right.append(called.codes == study.codes[draw.scored])
        n_unconverged += not called.converged
        report(1)
    named = Counter(setting(head, value) for value in values)
    named.pop("", None)
    return right, dict(named), n_unconverged


def _learn_from_all(
    study: _Study, draws: dict[int, list[Draw]], method: str, report: Callable[[int], None]
) -> dict[int, Right]:
    """Learn also from what was not drawn, and from the samples without a label; draws of one pool together."""
    right: dict[int, Right] = {k: [np.empty(0, dtype=bool)] * len(some) for k, some in draws.items()}
    by_pool: dict[int, list[tuple[int, int, Draw]]] = {}
    for k, some in draws.items():
        for number, draw in enumerate(some):
            by_pool.setdefault(0 if study.parts is not None else number, []).append((k, number, draw))
    for members in by_pool.values():
        first = members[0][2]
        labelled_pool = np.union1d(first.fitted, first.rest)
        pool = np.concatenate([labelled_pool, _unlabelled(study, first.scored)])
        scaled, scored = _rows(study, pool, first.scored)
        called = METHODS[method](
            scaled,
            [np.searchsorted(labelled_pool, draw.fitted) for _, _, draw in members],
            [study.codes[draw.fitted] for _, _, draw in members],
            scored,
        )
        for (k, number, draw), codes in zip(members, called, strict=True):
            right[k][number] = codes == study.codes[draw.scored]
        report(len(members))
    return right


def _unlabelled(study: _Study, scored: IntArray) -> IntArray:
    """Return the samples without a label that are of no group that is scored."""
    free = np.arange(study.n_labelled, len(study.samples.y))
    ids = study.groups.ids
    return free if ids is None else free[~np.isin(ids[free], ids[scored])]


def _rows(study: _Study, pool: IntArray, scored: IntArray) -> tuple[FloatArray, FloatArray]:
    samples = study.samples
    if samples.scaling in OWN_SCALING:
        scaler = make_scaler(samples.scaling).fit(samples.X[pool])
        return scaler.transform(samples.X[pool]), scaler.transform(samples.X[scored])
    X = samples.X if samples.coordinates is None else samples.coordinates
    return X[pool], X[scored]


def _counter(total: int, progress: Progress | None) -> Callable[[int], None]:
    done = 0

    def report(n: int) -> None:
        nonlocal done
        done += n
        if progress is not None:
            progress(done, total)

    return report


# Episodes


def _episodes(study: _Study, progress: Progress | None) -> list[ShotHead]:
    options = study.options
    ks = tuple(sorted(set(options.shots))) or (1, 5)
    if options.ways > len(study.classes):
        raise UsageError(f"--ways {options.ways}: the file has {len(study.classes)} classes")
    draws = {
        k: deal_episodes(
            study.codes,
            study.ids,
            episodes=options.episodes,
            ways=options.ways,
            shots=k,
            queries=options.queries,
            random_state=options.random_state,
            parts=study.parts,
        )
        for k in ks
    }
    report = _counter(options.episodes * len(ks) * len(options.ordered_heads), progress)
    heads = []
    for name in options.ordered_heads:
        scores = []
        for k in ks:
            right, values, n_unconverged = _fit_draws(study, draws[k], name, k, report)
            scores.append(ShotScore(k, _over_episodes(right), values, n_unconverged))
        heads.append(ShotHead(name, scores, None))
    return heads


def _over_episodes(right: Right) -> Interval:
    """Return the mean accuracy with the interval of the literature: 1.96 standard errors over the episodes."""
    own = np.array([each.mean() for each in right])
    half = 1.96 * float(own.std(ddof=1)) / len(own) ** 0.5
    mean = float(own.mean())
    low, high = max(mean - half, 0.0), min(mean + half, 1.0)
    return Interval(mean, low, high, own.tolist(), f"1.96 standard errors over {len(own)} episodes")
