"""Races between backbones: which of them are worth computing further, told from growing parts of the samples.

Features are dear and heads are cheap, so backbones are dropped before all images have gone through them: by successive
halving (Karnin, Koren and Somekh, Almost optimal exploration in multi-armed bandits, ICML 2013; Jamieson and Talwalkar,
Non-stochastic best arm identification and hyperparameter optimization, AISTATS 2016). There is one race for each
training part: of the outer folds, and of the saved classifier. A race sees the samples of its own training part and
nothing else, so the score of its winner on the outer fold is that of the whole procedure, and pays for the choice of
the backbone. All races run at once, on the same dealt order of groups, so that the images of a rung are nearly the
same for all of them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from featx.errors import LabelsError, UsageError
from featx.learn.groups import GroupIds
from featx.learn.intervals import Interval
from featx.learn.options import FitOptions
from featx.learn.paired import Comparison, compare, metric_of
from featx.learn.quick import QuickTest
from featx.learn.ranking import RankOptions
from featx.learn.scores import FoldPredictions
from featx.learn.search import Job, Space

IntArray = NDArray[np.int64]
Fetch = Callable[[Mapping[str, IntArray]], Mapping[str, NDArray[np.float32]]]
"""Gives the features of some samples, by backbone: positions (n_wanted,) to an array (n_wanted, n_features)."""
Advance = Callable[[int, int], None]
Progress = Callable[[str, str], AbstractContextManager[Advance]]
"""Called as ``progress(step, unit)`` when a step begins; what it returns is entered and called with (done, total)."""


def silent(*_: object) -> AbstractContextManager[Advance]:
    """Show no progress."""
    return nullcontext(_ignore)


def _ignore(*_: object) -> None:
    """Take no notice."""


TIES = ("best", "smaller")
LEAST = 10
"""Groups of a class that a rung has at least, where there are so many: nested cross-validation of few tells nothing."""
MOST = 2 / 3
"""Of a training part; a rung with more of it would save next to nothing, and the contest on all of it comes next."""


@dataclass(frozen=True, kw_only=True)
class RaceRules:
    """How backbones race.

    Attributes
    ----------
    first : int
        About how many samples the first rung has; each rung has twice as many as the one before.
    ties : {"best", "smaller"}
        Among backbones that the race could not tell apart, take the best by the inner folds of the whole training
        part (of equals the smaller), or the smallest of those that are tied with the best there.
    cheap : RankOptions
        Of the score that a rung looks at; its scoring, random state and processes are those of the fit.

    Raises
    ------
    UsageError
        A value that an option does not take.
    """

    first: int = 100
    ties: str = "best"
    cheap: RankOptions = RankOptions()  # noqa: RUF009  frozen

    def __post_init__(self) -> None:
        if self.first < 1:
            raise UsageError(f"--auto-first {self.first}: at least 1 is needed")
        if self.ties not in TIES:
            raise UsageError(f"--auto-ties {self.ties}: expected {' or '.join(TIES)}")


@dataclass(frozen=True, eq=False)
class Field:
    """The samples that backbones are raced on.

    Attributes
    ----------
    y : str array (n_samples,)
    groups : GroupIds
    order : uint64 array (n_samples,)
        The dealt order, the same for all samples of a group: rungs take groups from its beginning.
    """

    y: NDArray[np.str_]
    groups: GroupIds
    order: NDArray[np.uint64]

    @classmethod
    def deal(cls, y: NDArray[np.str_], groups: GroupIds, keys: Sequence[str], *, random_state: int) -> Field:
        """Put groups, or samples where there are none, into an order that only their names and the seed decide.

        So a sample more or less changes no other's place, and no label decides which images are computed first.
        """
        names = [groups.names[one] for one in groups.ids] if groups.ids is not None else [str(key) for key in keys]
        digests = [hashlib.sha256(f"{random_state} {name}".encode()).digest()[:8] for name in names]
        return cls(y, groups, np.frombuffer(b"".join(digests), dtype=np.dtype(">u8")).astype(np.uint64))

    @property
    def units(self) -> IntArray:
        """The group of each sample; without groups each is its own."""
        return np.arange(len(self.y)) if self.groups.ids is None else self.groups.ids

    def share(self, rows: IntArray, share: float) -> IntArray:
        """Take about a share of some samples: whole groups, and of each class the first in the dealt order.

        A group counts for the class that most of its samples among `rows` are of. Of each class there are `LEAST`
        groups at least, if it has so many. A larger share has all samples of a smaller one.
        """
        _, first, unit = np.unique(self.units[rows], return_index=True, return_inverse=True)
        classes, codes = np.unique(self.y[rows], return_inverse=True)
        counts = np.zeros((len(first), len(classes)), dtype=np.int64)
        np.add.at(counts, (unit, codes), 1)
        home, order = counts.argmax(axis=1), self.order[rows][first]
        taken = np.zeros(len(first), dtype=bool)
        for code in range(len(classes)):
            own = np.flatnonzero(home == code)
            n_taken = max(math.ceil(share * len(own) - 1e-9), LEAST)
            taken[own[np.argsort(order[own], kind="stable")][:n_taken]] = True
        return rows[taken[unit]]


@dataclass(frozen=True)
class Standing:
    """A backbone in one rung of one race.

    Attributes
    ----------
    backbone : str
    score : Interval
        The cheap score.
    beside_best : Comparison or None
        The best of the rung beside it, on the same predictions by group; None for the best itself.
    dropped : bool
    """

    backbone: str
    score: Interval
    beside_best: Comparison | None
    dropped: bool


@dataclass(frozen=True)
class Decision:
    """One rung of one race.

    Attributes
    ----------
    race : str
        The name of the training part: an outer fold's, or ``"final"``.
    rung : int
        From 1.
    n_samples : int
    standings : tuple of Standing
        Best first, of equals the smaller; empty where nothing could be judged.
    unjudged : str
        Why not; then nobody is dropped.
    """

    race: str
    rung: int
    n_samples: int
    standings: tuple[Standing, ...]
    unjudged: str = ""


@dataclass(frozen=True, eq=False)
class Races:
    """What became of the races.

    Attributes
    ----------
    backbones : tuple of str
        The smallest first.
    roster : dict of str to tuple of str
        For each training part the backbones that may win it, the smallest first.
    decisions : list of Decision
        By rung, then by race.
    wanted : dict of str to int array
        The samples that the rungs wanted of each backbone.
    """

    backbones: tuple[str, ...]
    roster: dict[str, tuple[str, ...]]
    decisions: list[Decision] = field(default_factory=list)
    wanted: dict[str, IntArray] = field(default_factory=dict)

    @property
    def survivors(self) -> tuple[str, ...]:
        """The backbones that may win somewhere."""
        return tuple(name for name in self.backbones if any(name in left for left in self.roster.values()))


@dataclass(frozen=True, eq=False)
class _Judge:
    """Scores backbones on some samples, and says who is to be dropped."""

    field: Field
    space: Space
    cv: int
    inner_cv: int
    n_jobs: int

    @classmethod
    def of(cls, field: Field, cheap: RankOptions, options: FitOptions) -> _Judge:
        """Take the cheap score of ``featx rank``, by the scoring and the class weights of the fit."""
        space = replace(
            cheap.of_fit.space,
            scoring=options.scoring,
            random_state=options.random_state,
            class_weight=options.class_weight,
        )
        return cls(field, space, cheap.cv, cheap.inner_cv, options.n_jobs)

    def decide(self, decision: Decision, rows: IntArray, features: Mapping[str, NDArray[np.float32]]) -> Decision:
        """Fill in the standings of a rung; `features` are those of `rows`, the smallest backbone first."""
        y = self.field.y[rows]
        try:
            test = QuickTest.plan(y, self.field.groups.take(rows), self.space, cv=self.cv, inner_cv=self.inner_cv)
        except LabelsError as error:
            return replace(decision, unjudged=str(error))
        scores: dict[str, Interval] = {}
        parts: dict[str, list[FoldPredictions]] = {}
        for name, X in features.items():
            evaluation, outcomes = test.run(X.astype(np.float64), n_jobs=self.n_jobs)
            scores[name] = evaluation.scores[metric_of(self.space.scoring, evaluation.scores)]
            parts[name] = test.predictions(outcomes)
        ranked = sorted(scores, key=lambda name: _order(scores[name]))  # stable: of equals the smaller
        best, worse_half = ranked[0], ranked[math.ceil(len(ranked) / 2) :]
        classes = [str(name) for name in np.unique(y)]
        standings = []
        for name in ranked:
            beside = None
            if name != best:
                beside = compare(
                    y,
                    (best, name),
                    parts[best],
                    parts[name],
                    classes,
                    self.space.scoring,
                    groups=test.groups,
                    random_state=self.space.random_state,
                )
            dropped = name in worse_half and beside is not None and not beside.is_tie and (beside.difference or 0) > 0
            standings.append(Standing(name, scores[name], beside, dropped))
        return replace(decision, standings=tuple(standings))


def _order(score: Interval) -> tuple[bool, float]:
    """Sort the better first and the undefined last; means of the same values in another order are equal."""
    return (score.mean is None, 0.0 if score.mean is None else -round(score.mean, 12))


def hold_races(
    field: Field,
    jobs: Sequence[Job],
    backbones: Sequence[str],
    fetch: Fetch,
    rules: RaceRules,
    options: FitOptions,
    *,
    progress: Progress = silent,
) -> Races:
    """Race backbones on every training part at once, and compute features only while some race still wants them.

    Parameters
    ----------
    field : Field
    jobs : sequence of Job
        The training parts, by name, each with its rows; the largest decides how many rungs there are.
    backbones : sequence of str
        The smallest first.
    fetch : callable
        See `Fetch`.
    rules : RaceRules
    options : FitOptions
        Scoring, class weights, random state and processes of the cheap score.
    progress : callable, optional

    Returns
    -------
    Races
        In a rung, a backbone is dropped from a race when it is in the worse half and the best is better by a test that
        is paired by group (`featx.learn.paired`). Training parts of which a rung would be nearly everything keep all.
    """
    races = Races(tuple(backbones), {job.name: tuple(backbones) for job in jobs})
    judge = _Judge.of(field, rules.cheap, options)
    largest = max(len(job.rows) for job in jobs)
    share, seen = rules.first / largest, dict.fromkeys(races.roster, 0)
    while share <= MOST:
        rows = {job.name: field.share(job.rows, share) for job in jobs if len(races.roster[job.name]) > 1}
        n_of = {job.name: len(job.rows) for job in jobs}
        rows = {name: own for name, own in rows.items() if seen[name] < len(own) <= MOST * n_of[name]}
        seen |= {name: len(own) for name, own in rows.items()}
        if rows:
            races = _run(races, rows, judge, fetch, progress)
        share *= 2
    if rules.ties == "smaller":
        rows = {job.name: job.rows for job in jobs if len(races.roster[job.name]) > 1}
        if rows:
            races = _settle(_run(races, rows, judge, fetch, progress), rows)
    return races


def _run(races: Races, rows: Mapping[str, IntArray], judge: _Judge, fetch: Fetch, progress: Progress) -> Races:
    """Run one rung of the races of which there are rows."""
    rung = 1 + max((one.rung for one in races.decisions), default=0)
    wanted: dict[str, IntArray] = {}
    for race, own in rows.items():
        for name in races.roster[race]:
            wanted[name] = np.union1d(wanted.get(name, own), own)
    features = fetch(wanted)
    decisions: list[Decision] = []
    with progress(f"rung {rung}", "races") as advance:
        for race, own in rows.items():
            advance(len(decisions), len(rows))
            of_race = {name: features[name][np.searchsorted(wanted[name], own)] for name in races.roster[race]}
            decisions.append(judge.decide(Decision(race, rung, len(own), ()), own, of_race))
    out = {(one.race, standing.backbone) for one in decisions for standing in one.standings if standing.dropped}
    return replace(
        races,
        roster={race: tuple(name for name in left if (race, name) not in out) for race, left in races.roster.items()},
        decisions=[*races.decisions, *decisions],
        wanted={**races.wanted, **{n: np.union1d(races.wanted.get(n, own), own) for n, own in wanted.items()}},
    )


def _settle(races: Races, settled: Mapping[str, IntArray]) -> Races:
    """In the last rung of some races, drop all but the smallest of those that are tied with the best."""
    last = max(one.rung for one in races.decisions)
    roster = dict(races.roster)
    decisions: list[Decision] = []
    for one in races.decisions:
        if one.rung == last and one.race in settled and one.standings:
            tied = {s.backbone for s in one.standings if s.beside_best is None or s.beside_best.is_tie}
            winner = next(name for name in races.backbones if name in tied)
            roster[one.race] = (winner,)
            one = replace(one, standings=tuple(replace(s, dropped=s.backbone != winner) for s in one.standings))
        decisions.append(one)
    return replace(races, roster=roster, decisions=decisions)
