"""``featx fit --auto``: from images to the classifier on the backbone that wins a race.

The folds depend on labels and groups alone, so they are dealt before anything is computed. Then backbones race on every
training part at once (`featx.learn.racing`), and are extracted further only while some race still wants them. What
outlasts the races is extracted on everything, and `featx.fit` lets it compete.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import ImageDecodeError, StoreIncompleteError, UsageError, WeightsError
from featx.fit import FitOptions, FitResult, arrange, fit_classes
from featx.learn.contest import Entry, name_files
from featx.learn.dataset import Features
from featx.learn.race_account import RaceAccount, Runner
from featx.learn.racing import Advance, Field, Progress, RaceRules, hold_races, silent
from featx.learn.search import Job
from featx.learn.search_ledger import SearchLedger
from featx.learn.study import Study
from featx.learn.views import choose_use
from featx.manifest import source as sources
from featx.manifest.record import Manifest
from featx.manifest.source import SourceOptions
from featx.spec import TIMM, FeatureRequest
from featx.stock import BrokenImagesError, Stock
from featx.store.file import FeatureFile
from featx.store.output_names import stem_of
from featx.vision.engine import EngineOptions, Notify

__all__ = ["RaceOptions", "RaceRules", "race"]

IntArray = NDArray[np.int64]

BACKBONES = ("featx-mini", "mobilenet_v2", "resnet18", "resnet50", "convnext_tiny")
"""Raced unless others are named: from what costs next to nothing to what is still bearable on a CPU."""


@dataclass(frozen=True, kw_only=True)
class RaceOptions:
    """What is raced, and how.

    Attributes
    ----------
    backbones : tuple of str
        As for `FeatureRequest`; each name once.
    weights : mapping of str to str
        Weights of some of them, as for `FeatureRequest`; ``DEFAULT`` for the others.
    folder : path
        Where the feature files are kept.
    rules : RaceRules
    reading : FeatureRequest
        How images are read: window, percentiles, bands and decoder; nothing else of it is used.

    Raises
    ------
    UsageError
        No backbone, or weights for one that does not race.
    """

    backbones: tuple[str, ...] = BACKBONES
    weights: Mapping[str, str] = field(default_factory=dict)
    folder: str | os.PathLike[str] = "cache"
    rules: RaceRules = RaceRules()  # noqa: RUF009  frozen
    reading: FeatureRequest = FeatureRequest()

    def __post_init__(self) -> None:
        if not self.backbones:
            raise UsageError("no backbone to race: name at least one")
        strangers = [name for name in self.weights if name not in self.backbones]
        if strangers:
            raise UsageError(
                f"weights for {strangers[0]}, which does not race; the backbones are {', '.join(self.backbones)}"
            )

    def request(self, backbone: str) -> FeatureRequest:
        """Return what is asked of a backbone."""
        return replace(self.reading, backbone=backbone, weights=self.weights.get(backbone, "DEFAULT"))


def race(
    source: str | os.PathLike[str] | Manifest | Sequence[Any],
    options: RaceOptions = RaceOptions(),
    fit_options: FitOptions = FitOptions(),  # noqa: B008  frozen
    *,
    source_options: SourceOptions = SourceOptions(),
    engine: EngineOptions = EngineOptions(),
    progress: Progress = silent,
    on_download: Callable[[str, int, int | None], None] | None = None,
    notify: Notify | None = None,
    ledger: SearchLedger | None = None,
) -> FitResult:
    """Train and cross-validate a classifier on the backbone that wins a race, without computing all features of all.

    Every outer fold has a race of its own, on its training part, and so has the saved classifier. What a race has
    dropped cannot win its part, so the scores are those of the whole procedure. Features are kept in feature files:
    run again, also after a stop, it computes only what is missing.

    Parameters
    ----------
    source : path, Manifest, or sequence
        As for `featx.extract`; labelled.
    options : RaceOptions
    fit_options : FitOptions
        Of the contest between those that outlast the races. `scoring` is also what the races look at.
    source_options : SourceOptions
    engine : EngineOptions
        How features are computed.
    progress : callable, optional
        ``progress(step, unit)`` is called when a step begins and gives a context that is called with (done, total).
    on_download, notify : callable, optional
        As for `featx.extract`.
    ledger : SearchLedger, optional
        As for `featx.fit`.

    Returns
    -------
    FitResult
        With its `race`.

    Raises
    ------
    LabelsError
        Labels, groups or folds with which the evaluation cannot be done; before anything is computed.
    WeightsError
        No backbone's weights can be had, or not those that were named.
    UnknownNameError
        No such backbone.
    StoreIncompleteError
        Images that failed, without `allow_missing`; what was computed is kept.
    InputError
        A feature file with a locked part.
    UsageError
        Near-duplicates are to be grouped: folds are dealt before there are features.
    """
    if fit_options.group_near_duplicates:
        raise UsageError(
            "--auto deals its folds before there are features in which near-duplicates could be found, so it cannot "
            "group them; give groups, or run featx fit --group-near-duplicates on a feature file that --auto has made"
        )
    _check_names(options.backbones)
    manifest = sources.as_manifest(source, source_options)
    with progress("read", "images") as advance:
        columns, failures = _columns(manifest, advance)
    _Start.of(columns, fit_options)  # labels that will not do are said before anything is downloaded
    sizes, absent = _load(options, on_download)
    template = Path(options.folder) / f"{stem_of(source)}-{{backbone}}.h5"
    requests = {name: options.request(name) for name in sizes}
    stock = Stock(source, manifest, requests, template, engine, progress, notify)
    stock.check_locks()
    while True:
        if failures and not fit_options.allow_missing:
            key, reason = next(iter(failures.items()))
            raise StoreIncompleteError(
                f"{len(failures)} of the images looked at so far have no features, the first {key!r} ({reason}); mend "
                "them and run the same command again, or leave them out with --allow-missing",
                path=os.fspath(options.folder),
                missing=len(failures),
            )
        good = columns.take(np.array([key not in failures for key in columns.keys], dtype=np.bool_))
        try:
            result = _fit_raced(_Start.of(good, fit_options), stock, sizes, options.rules, ledger)
        except BrokenImagesError as found:
            failures |= found.failures
            continue
        account = replace(result.race, absent=absent, failures=failures) if result.race is not None else None
        return replace(result, race=account, n_missing=len(failures))


def _check_names(backbones: Sequence[str]) -> None:
    """Raise UnknownNameError for a name that does not exist, before anything is loaded."""
    from featx.vision import networks, own

    for name in backbones:
        if not (name == networks.MINI or own.is_own(name) or name.startswith(TIMM)):
            networks.check_name(name)


def _columns(manifest: Manifest, advance: Advance) -> tuple[Features, dict[str, str]]:
    """Return what is known of the samples before there are features, and those that cannot be read at all."""
    failures, shas = {}, []
    for position, key in enumerate(manifest.keys):
        advance(position, len(manifest))
        try:
            if position in manifest.refused:
                raise ImageDecodeError(manifest.refused[position], key=key)
            shas.append(sources.sample_sha256(manifest, position))
        except ImageDecodeError as error:
            shas.append("")
            if manifest.labels[position]:
                failures[key] = error.reason

    def column(values: Sequence[str]) -> NDArray[np.object_]:
        return np.array(values, dtype=object)

    columns = Features(
        X=np.empty((len(manifest), 0), dtype=np.float32),
        y=np.array(manifest.labels, dtype=str),
        groups=column(manifest.groups),
        keys=column(manifest.keys),
        splits=column(manifest.splits),
        folds=column(manifest.folds),
        sha256=column(shas),
        group_source=manifest.group_source,
    )
    return columns, failures


def _load(options: RaceOptions, on_download: Any) -> tuple[dict[str, int], dict[str, str]]:
    """Load every network once: the sizes of those that can be had, the smallest first, and why others cannot."""
    from featx.vision import backbones

    sizes, absent = {}, {}
    for name in dict.fromkeys(options.backbones):
        try:
            network = backbones.load_backbone(options.request(name), progress=on_download).network
        except WeightsError as error:
            if name in options.weights:
                raise
            absent[name] = str(error)
            continue
        sizes[name] = sum(parameter.numel() for parameter in network.parameters())
    if not sizes:
        name, why = next(iter(absent.items()))
        raise WeightsError(
            f"none of the {len(absent)} backbones has weights that can be had; of {name}: {why}\n--auto-backbone "
            "featx-mini needs none, and --auto-weights NAME=FILE takes a file",
            weights=name,
        )
    return dict(sorted(sizes.items(), key=lambda item: item[1])), absent


@dataclass(frozen=True, eq=False)
class _Start:
    """What the races start from: labelled samples with the plan of their evaluation, and its training parts.

    Attributes
    ----------
    study : Study
        Of samples without features.
    jobs : list of Job
        Of the outer folds, and last the final one.
    unlabelled, small_classes : int, dict of str to int
        What was left out.
    """

    study: Study
    jobs: list[Job]
    unlabelled: int
    small_classes: dict[str, int]

    @classmethod
    def of(cls, columns: Features, options: FitOptions) -> _Start:
        labelled = columns.take(columns.y != "")
        entry = Entry("", labelled, choose_use(options.views, options.score_views, 1))
        study, small_classes = arrange([entry], options)
        jobs = [*study.outer_jobs(study.outer_folds()), study.final_job()]
        return cls(study, jobs, len(columns) - len(labelled), small_classes)

    @property
    def used(self) -> IntArray:
        """The samples that take part in anything."""
        plan = self.study.plan
        return np.union1d(np.union1d(plan.train, plan.report), plan.fit)


def _fit_raced(
    start: _Start, stock: Stock, sizes: Mapping[str, int], rules: RaceRules, ledger: SearchLedger | None
) -> FitResult:
    """Hold the races, and let those that outlast them compete."""
    study, options = start.study, start.study.options
    data, used = study.data, start.used

    def fetch(wanted: Mapping[str, IntArray]) -> dict[str, NDArray[np.float32]]:
        keys = {name: data.keys[rows].tolist() for name, rows in wanted.items()}
        stock.update(keys)
        return {name: stock.load(name, own).X for name, own in keys.items()}

    track = Field.deal(data.y, study.groups, data.keys.tolist(), random_state=options.random_state)
    races = hold_races(track, start.jobs, list(sizes), fetch, rules, options, progress=stock.watch)
    keys = data.keys[used].tolist()
    stock.update(dict.fromkeys(races.survivors, keys))
    names = dict(zip(sizes, name_files(list(stock.paths.values())), strict=True))
    files = {names[one]: stock.load(one, keys) for one in races.survivors}
    roster = {race: [names[one] for one in left] for race, left in races.roster.items()}
    with stock.watch("fit", "searches") as advance:
        several = files if len(files) > 1 else next(iter(files.values()))
        result = fit_classes(
            several, options, progress=advance, ledger=ledger, roster=roster if len(files) > 1 else None
        )
    winner = next(name for name in races.survivors if names[name] == result.file or not result.file)
    with FeatureFile.open(stock.paths[winner]) as file:
        weights = file.weights()
    wanted = races.wanted | dict.fromkeys(races.survivors, used)
    plan = replace(result.plan, description=study.plan.description, n_without_split=study.plan.n_without_split)
    return replace(
        result,
        weights=weights,
        plan=plan,
        unlabelled=start.unlabelled,
        small_classes=start.small_classes,
        race=RaceAccount(
            runners=[
                Runner(one, stock.paths[one], size, len(wanted[one]), stock.n_computed[one])
                for one, size in sizes.items()
            ],
            races=races,
            rules=rules,
            n_images=len(used),
            winner=winner,
            tied=_tied(result, names),
        ),
    )


def _tied(result: FitResult, names: Mapping[str, str]) -> str:
    """Return the backbone whose file is tied with the chosen one; ``""`` where none is."""
    beside = result.comparisons.next_file
    if beside is None or not beside.is_tie:
        return ""
    return next((backbone for backbone, file in names.items() if file == beside.second), "")
