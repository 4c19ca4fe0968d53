"""Leave-one-site-out: how a head fares at a site that it has not seen, beside ordinary cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import LabelsError
from featx.learn.groups import GroupIds
from featx.learn.intervals import Interval, bootstrap_intervals, resampling_units
from featx.learn.metrics import Predictions, Statistic, encode_predictions, statistic
from featx.learn.quick import QuickTest
from featx.learn.search import Fitted, Job, Progress, Space, run_jobs
from featx.learn.splits import Fold, make_folds
from featx.learn.traits import Trait

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

METRIC = "balanced_accuracy"
FEWEST, MOST = 2, 20
"""So many values has a column that looks like a site."""


@dataclass(frozen=True)
class SiteScore:
    """How a head that was trained at all other sites fares at one.

    Attributes
    ----------
    site : str
    n_samples, n_groups : int
    classes : tuple of str
        Those that the site has; balanced accuracy is the mean over them.
    unseen : tuple of str
        Of these, the ones that no other site has: always told wrongly.
    n_kept_out : int
        Samples of other sites that were not trained on, because this site has samples of the same group.
    left_out : Interval
        Balanced accuracy of the head that was trained without the site.
    ordinary : float or None
        Of the same samples, by the heads of ordinary cross-validation, which have seen the site.
    gap : Interval
        `left_out` minus `ordinary`, over the same resamples.
    roc_auc, roc_auc_ordinary : float or None
        The same for ROC AUC, which needs no threshold; None where the site lacks a class.
    why_not : str
        Why there is no score; mostly ``""``.
    """

    site: str
    n_samples: int
    n_groups: int
    classes: tuple[str, ...]
    unseen: tuple[str, ...]
    n_kept_out: int
    left_out: Interval
    ordinary: float | None
    gap: Interval
    roc_auc: float | None
    roc_auc_ordinary: float | None
    why_not: str = ""


@dataclass(frozen=True)
class SiteStudy:
    """Leave-one-site-out beside ordinary cross-validation of the same procedure on the same samples.

    Attributes
    ----------
    column : str
    sites : list of SiteScore
    n_samples, n_unknown : int
        Samples with a site, and without.
    ordinary : Interval
        Balanced accuracy of the out-of-fold predictions of ordinary cross-validation, all sites together.
    ordinary_within : float or None
        The mean over the sites of what these predictions score there: far below `ordinary` where the head tells the
        sites and not the classes.
    left_out : Interval
        The mean over the sites of `SiteScore.left_out`.
    guessing : float or None
        The same mean for a head that names one class.
    gap : Interval
        `left_out` minus `ordinary`.
    """

    column: str
    sites: list[SiteScore]
    n_samples: int
    n_unknown: int
    ordinary: Interval
    ordinary_within: float | None
    left_out: Interval
    guessing: float | None
    gap: Interval

    @property
    def is_worse(self) -> bool:
        """Whether the head is worse at sites that it has not seen, by more than chance."""
        return self.gap.high is not None and self.gap.high < 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, numbers and None, for JSON."""
        return asdict(self) | {"worse": self.is_worse}


@dataclass(frozen=True, eq=False)
class SitePlan:
    """The folds of a study.

    Attributes
    ----------
    trait : Trait
    rows : int array (n_samples,)
        Samples whose site is known.
    y, sites : str array (n_samples,)
        Of these.
    groups : GroupIds
        Of these.
    ordinary : QuickTest
    jobs : dict of str to Job
        For each site that can be left out; positions among `rows`.
    why_not : dict of str to str
        For the others.
    """

    trait: Trait
    rows: IntArray
    y: NDArray[np.str_]
    sites: NDArray[np.str_]
    groups: GroupIds
    ordinary: QuickTest
    jobs: dict[str, Job]
    why_not: dict[str, str]

    @property
    def n_steps(self) -> int:
        """How many steps `study_sites` reports."""
        return 2 * (len(self.ordinary.jobs) + len(self.jobs))


def looks_like_a_site(trait: Trait, y: NDArray[np.str_]) -> bool:
    """Whether a column may be a site: `FEWEST` to `MOST` values, each with every class."""
    names = set(trait.values) - {""}
    if trait.kind != "values" or not FEWEST <= len(names) <= MOST:
        return False
    n_classes = len(np.unique(y))
    return all(len(np.unique(y[trait.values == name])) == n_classes for name in names)


def plan_sites(
    trait: Trait, y: NDArray[np.str_], groups: GroupIds, space: Space, *, cv: int, inner_cv: int
) -> SitePlan:
    """Deal the folds.

    Parameters
    ----------
    trait : Trait
        The site of each sample.
    y : str array (n_samples,)
    groups : GroupIds
    space : Space
    cv, inner_cv : int

    Raises
    ------
    LabelsError
        Fewer than two sites, or samples with a site that cannot be cross-validated.
    """
    rows = np.flatnonzero(trait.values != "")
    labels, sites, groups = y[rows], trait.values[rows].astype(str), groups.take(rows)
    names = np.unique(sites)
    if len(names) < 2:
        found = f"only {str(names[0])!r}" if len(names) else "no value at all"
        raise LabelsError(f"column {trait.name!r} has {found}; to leave a site out, there must be two")
    ordinary = QuickTest.plan(labels, groups, space, cv=cv, inner_cv=inner_cv)
    jobs, why_not = {}, {}
    for name in names.tolist():
        try:
            jobs[name] = _leave_out(name, sites, labels, groups, inner_cv, space.random_state)
        except LabelsError as error:
            why_not[name] = str(error)
    return SitePlan(trait, rows, labels, sites, groups, ordinary, jobs, why_not)


def _leave_out(
    name: str, sites: NDArray[np.str_], y: NDArray[np.str_], groups: GroupIds, inner_cv: int, random_state: int
) -> Job:
    """Plan one site's fold: trained on other sites' groups only, chosen inside them by whole groups."""
    test = np.flatnonzero(sites == name)
    others = sites != name
    if groups.ids is not None:
        others &= ~np.isin(groups.ids, groups.ids[test])
    train = np.flatnonzero(others)
    inner = _inner_folds(name, y[train], groups.take(train), inner_cv, random_state)
    calibration = np.zeros(len(train), dtype=np.int64)
    for part in inner:
        calibration[part.test] = part.number
    pairs = [(train[part.train], train[part.test]) for part in inner]
    return Job(name, pairs, train, calibration, test)


def _inner_folds(name: str, y: NDArray[np.str_], groups: GroupIds, inner_cv: int, random_state: int) -> list[Fold]:
    """Deal the folds of a choice: fewer of them where a class is rare at the other sites."""

    def deal(n_splits: int) -> list[Fold]:
        return make_folds(
            y,
            groups.ids,
            n_splits=n_splits,
            random_state=random_state,
            group_names=groups.names,
            what=f"what is left without {name!r}",
            option="--inner-cv",
        )

    for n_splits in range(inner_cv, 2, -1):
        with suppress(LabelsError):
            return deal(n_splits)
    return deal(2)


def study_sites(plan: SitePlan, X: FloatArray, *, n_jobs: int = 1, progress: Progress | None = None) -> SiteStudy:
    """Leave out each site of a plan; `X` is (all samples, n_features).

    Intervals are percentile bootstraps over whole groups, the same resamples for both ways of scoring. They hold the
    spread of the samples of these sites, not of sites that nobody has seen.
    """
    X = X[plan.rows]
    n_ordinary = 2 * len(plan.ordinary.jobs)
    test = plan.ordinary
    outcomes = run_jobs(X, plan.y, test.jobs, test.space, n_jobs=n_jobs, progress=_part(progress, 0, plan.n_steps))
    classes = [str(label) for label in np.unique(plan.y)]
    usual = _Said.nothing(len(plan.y), classes)
    for fold, outcome in zip(test.folds, outcomes, strict=True):
        usual.add(fold.test, outcome.best, classes)
    unseen = _Said.nothing(len(plan.y), classes)
    if plan.jobs:
        jobs = list(plan.jobs.values())
        report = _part(progress, n_ordinary, plan.n_steps)
        for job, outcome in zip(
            jobs, run_jobs(X, plan.y, jobs, test.space, n_jobs=n_jobs, progress=report), strict=True
        ):
            unseen.add(job.test, outcome.best, np.unique(plan.y[job.rows]).tolist())
    return _compare(plan, usual, unseen)


class _Said:
    """What heads said about all samples: labels, and probabilities in the order of all classes."""

    def __init__(self, predicted: NDArray[np.object_], probabilities: FloatArray, classes: Sequence[str]) -> None:
        self.predicted, self.probabilities, self.classes = predicted, probabilities, list(classes)

    @classmethod
    def nothing(cls, n_samples: int, classes: Sequence[str]) -> _Said:
        return cls(np.full(n_samples, "", dtype=object), np.zeros((n_samples, len(classes))), classes)

    def add(self, rows: IntArray, fitted: Fitted, known: Sequence[str]) -> None:
        self.predicted[rows] = fitted.predicted
        self.probabilities[np.ix_(rows, np.searchsorted(self.classes, known))] = fitted.probabilities

    def of(self, rows: IntArray, y: NDArray[np.str_]) -> Predictions:
        return encode_predictions(y[rows], self.predicted[rows], self.probabilities[rows], self.classes)


def _compare(plan: SitePlan, usual: _Said, unseen: _Said) -> SiteStudy:
    y = plan.y
    units, n_units = resampling_units(plan.groups.ids, len(y))
    everything = np.arange(len(y))
    statistics: dict[str, Statistic] = {"ordinary": statistic(METRIC, usual.of(everything, y), units, n_units)}
    left_out, within = {}, {}
    for name, job in plan.jobs.items():
        left_out[name] = statistic(METRIC, unseen.of(job.test, y), units[job.test], n_units)
        within[name] = statistic(METRIC, usual.of(job.test, y), units[job.test], n_units)
        statistics["left out " + name] = left_out[name]
        statistics["gap " + name] = _minus(left_out[name], within[name])
    if plan.jobs:
        statistics["left_out"] = _mean(list(left_out.values()))
        statistics["gap"] = _minus(statistics["left_out"], statistics["ordinary"])
    unit = "samples" if plan.groups.ids is None else "groups"
    intervals = bootstrap_intervals(statistics, n_units, unit=unit, random_state=plan.ordinary.space.random_state)

    def once(one: Statistic) -> float:
        return float(one(np.ones((n_units, 1)))[0])

    scores = []
    for name in sorted({*plan.jobs, *plan.why_not}):
        rows = np.flatnonzero(plan.sites == name)
        why_not = plan.why_not.get(name, "")
        here = np.unique(y[rows])
        trained = everything[:0] if why_not else plan.jobs[name].rows
        nothing = Interval(None, None, None, [], "not scored")
        scores.append(
            SiteScore(
                site=name,
                n_samples=len(rows),
                n_groups=len(np.unique(units[rows])),
                classes=tuple(here.tolist()),
                unseen=() if why_not else tuple(np.setdiff1d(here, y[trained]).tolist()),
                n_kept_out=0 if why_not else len(y) - len(rows) - len(trained),
                left_out=nothing if why_not else intervals["left out " + name],
                ordinary=None if why_not else once(within[name]),
                gap=nothing if why_not else intervals["gap " + name],
                roc_auc=None if why_not else _roc_auc(unseen.of(rows, y)),
                roc_auc_ordinary=None if why_not else _roc_auc(usual.of(rows, y)),
                why_not=why_not,
            )
        )
    scored = [score for score in scores if not score.why_not]
    undefined = Interval(None, None, None, [], "no site can be left out")
    return SiteStudy(
        column=plan.trait.name,
        sites=scores,
        n_samples=len(y),
        n_unknown=len(plan.trait.values) - len(y),
        ordinary=intervals["ordinary"],
        ordinary_within=once(_mean(list(within.values()))) if scored else None,
        left_out=intervals.get("left_out", undefined),
        guessing=float(np.mean([1 / len(score.classes) for score in scored])) if scored else None,
        gap=intervals.get("gap", undefined),
    )


def _roc_auc(predictions: Predictions) -> float | None:
    """Return the area under the curve; the mean of each class against the rest where there are several."""
    units = np.zeros(len(predictions.true), dtype=np.int64)
    name = "roc_auc" if len(predictions.classes) == 2 else "roc_auc_ovr"
    value = float(statistic(name, predictions, units, 1)(np.ones((1, 1)))[0])
    return None if np.isnan(value) else value


def _minus(one: Statistic, two: Statistic) -> Statistic:
    return lambda counts: one(counts) - two(counts)


def _mean(parts: Sequence[Statistic]) -> Statistic:
    """Return the mean of several scores; of a resample, that of the ones that are defined in it."""

    def mean(counts: FloatArray) -> FloatArray:
        values = np.array([part(counts) for part in parts])
        defined = ~np.isnan(values)
        total = np.where(defined, values, 0.0).sum(axis=0)
        n = defined.sum(axis=0)
        means: FloatArray = np.divide(total, n, out=np.full(values.shape[1], np.nan), where=n > 0)
        return means

    return mean


def _part(progress: Progress | None, start: int, total: int) -> Progress | None:
    """Report the steps of a part that begins after some steps."""
    return None if progress is None else lambda done, _: progress(start + done, total)
