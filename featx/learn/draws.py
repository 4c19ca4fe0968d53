"""Small training sets as they might have been drawn: k samples of each class, apart by group from what is scored.

Draws are nested: the k samples of a draw are the first k of the same order, so that a learning curve over k is one of
sets that grow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featx.errors import LabelsError
from featx.learn.splits import make_folds

IntArray = NDArray[np.int64]

SCORED_SHARE = 4
"""Without a fixed part to be scored, each draw leaves one of so many stratified folds of whole groups for it."""


@dataclass(frozen=True, eq=False)
class Draw:
    """One small training set.

    Attributes
    ----------
    fitted : int array (n_classes * k,)
        Positions of the labelled samples, k of each class.
    scored : int array
        Positions of what is scored; no group has samples in both.
    rest : int array
        Positions of the pool that were not drawn: samples that might have been there without labels.
    """

    fitted: IntArray
    scored: IntArray
    rest: IntArray


@dataclass(frozen=True, eq=False)
class Deal:
    """An order of the samples of each class, of which any draw is a beginning.

    Attributes
    ----------
    orders : tuple of int array
        For each class its samples in the pool, in the order in which they are drawn.
    scored : int array
    """

    orders: tuple[IntArray, ...]
    scored: IntArray

    @property
    def most(self) -> int:
        """How many samples of every class there are."""
        return min(len(order) for order in self.orders)

    def draw(self, k: int) -> Draw:
        """Take the first k samples of each class."""
        fitted = np.concatenate([order[:k] for order in self.orders])
        return Draw(np.sort(fitted), self.scored, np.sort(np.concatenate([order[k:] for order in self.orders])))


def deal(
    codes: IntArray,
    groups: IntArray | None,
    *,
    repeats: int,
    random_state: int = 0,
    parts: tuple[IntArray, IntArray] | None = None,
    group_names: Sequence[str] = (),
    class_names: Sequence[str] = (),
) -> list[Deal]:
    """Shuffle the samples that may be drawn, so many times.

    Parameters
    ----------
    codes : int array (n_samples,)
        Class of each sample, from 0.
    groups : int array (n_samples,), or None
        The samples of a class come from its groups in turn, one at a time: k samples are of k groups where there are
        so many.
    repeats : int
    random_state : int
    parts : (int array, int array), optional
        The pool, and what is scored, the same for all. None: every sample is in the pool or scored; what is scored is
        one of `SCORED_SHARE` folds, another one each time.
    group_names, class_names : sequence of str
        For messages.

    Raises
    ------
    LabelsError
        If some class has no sample in the pool, or there are too few for the folds.
    """
    rng = np.random.default_rng(random_state)
    if parts is not None:
        pairs = [parts] * repeats
    else:
        folds = make_folds(
            np.asarray(class_names)[codes] if class_names else codes.astype(str),
            groups,
            n_splits=SCORED_SHARE,
            n_repeats=-(-repeats // SCORED_SHARE),
            random_state=random_state,
            group_names=group_names,
            what="the parts that are drawn from and scored",
            option="",
        )
        pairs = [(fold.train, fold.test) for fold in folds[:repeats]]
    n_classes = int(codes.max()) + 1
    deals = []
    for pool, scored in pairs:
        orders = tuple(_order(pool[codes[pool] == code], groups, rng) for code in range(n_classes))
        if not all(len(order) for order in orders):
            raise LabelsError("some class has no sample to draw: every class of the scored part must be in the pool")
        deals.append(Deal(orders, scored))
    return deals


def _order(samples: IntArray, groups: IntArray | None, rng: np.random.Generator) -> IntArray:
    """Shuffle samples; of groups, one of each in turn, the groups in random order."""
    samples = rng.permutation(samples)
    if groups is None or not len(samples):
        return samples
    _, own = np.unique(groups[samples], return_inverse=True)
    turn = np.empty(len(samples), dtype=np.int64)
    by_group = np.argsort(own, kind="stable")
    counts = np.bincount(own)
    turn[by_group] = np.arange(len(samples)) - np.repeat(np.cumsum(counts) - counts, counts)
    place_of_group = rng.permutation(len(counts))
    return samples[np.lexsort((place_of_group[own], turn))]


def deal_episodes(
    codes: IntArray,
    groups: IntArray | None,
    *,
    episodes: int,
    ways: int,
    shots: int,
    queries: int,
    random_state: int = 0,
    parts: tuple[IntArray, IntArray] | None = None,
) -> list[Draw]:
    """Draw n-way episodes: some of the classes, k samples of each to learn from, and others to be scored.

    The protocol of Vinyals et al. (Matching networks, NeurIPS 2016), here of the file's own classes; query samples are
    of groups that gave none to the support.

    Parameters
    ----------
    codes, groups, random_state, parts
        As in `deal`; with parts the support is of the pool, and the queries of what is scored.
    episodes, ways, shots, queries : int
        Shots and queries are of each class.

    Raises
    ------
    LabelsError
        If there are too few classes, or fewer than `ways` of them have samples (or groups) enough.
    """
    rng = np.random.default_rng(random_state)
    pool, scored = parts if parts is not None else (np.arange(len(codes)),) * 2
    n_classes = int(codes.max()) + 1
    own_pool = [pool[codes[pool] == code] for code in range(n_classes)]
    own_scored = [scored[codes[scored] == code] for code in range(n_classes)]
    need = shots + queries if parts is None else 0
    able = [
        code
        for code in range(n_classes)
        if len(own_pool[code]) >= max(shots, need) and len(own_scored[code]) >= max(queries, need)
    ]
    if len(able) < ways:
        raise LabelsError(
            f"--ways {ways} --queries {queries}: only {len(able)} of {n_classes} classes have {shots} samples to learn "
            f"from and {queries} to be scored; ask for fewer"
        )
    draws = []
    for _ in range(episodes):
        for _ in range(_TRIES):
            chosen = rng.choice(able, size=ways, replace=False)
            draw = _episode([own_pool[c] for c in chosen], [own_scored[c] for c in chosen], groups, shots, queries, rng)
            if draw is not None:
                draws.append(draw)
                break
        else:
            raise LabelsError(
                f"--queries {queries}: whole groups leave no {queries} samples of {ways} classes that are of other "
                f"groups than the {shots} to learn from; ask for fewer"
            )
    return draws


_TRIES = 100
"""How many times an episode is drawn anew where whole groups left too few queries."""


def _episode(
    pools: Sequence[IntArray],
    scored: Sequence[IntArray],
    groups: IntArray | None,
    shots: int,
    queries: int,
    rng: np.random.Generator,
) -> Draw | None:
    fitted = np.concatenate([_order(pool, groups, rng)[:shots] for pool in pools])
    asked = []
    for own in scored:
        apart = own[~np.isin(own, fitted) if groups is None else ~np.isin(groups[own], groups[fitted])]
        if len(apart) < queries:
            return None
        asked.append(rng.permutation(apart)[:queries])
    return Draw(np.sort(fitted), np.sort(np.concatenate(asked)), np.array([], dtype=np.int64))


def shots_up_to(most: int) -> tuple[int, ...]:
    """Return 1, 2, 5, 10, 20, 50 ... up to the most there is, which is the last."""
    found = [k * 10**power for power in range(len(str(most))) for k in (1, 2, 5) if k * 10**power < most]
    return (*found, most)
