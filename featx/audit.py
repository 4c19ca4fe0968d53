"""``featx audit``: can the features tell what they should not, do scores hold at new sites, are labels wrong."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featx.errors import LabelsError, StoreError, UnknownNameError
from featx.learn.auditing import AuditOptions, AuditResult
from featx.learn.dataset import Features, check_learnable, load_features
from featx.learn.groups import GroupIds, resolve_groups
from featx.learn.label_errors import find_label_errors
from featx.learn.left_out_sites import SitePlan, looks_like_a_site, plan_sites, study_sites
from featx.learn.near_duplicates import check_clusters, find_near_duplicates
from featx.learn.quick import QuickTest
from featx.learn.search import Progress
from featx.learn.shortcuts import ShortcutTest, plan_shortcut, sort_shortcuts, try_shortcut
from featx.learn.splits import find_small_classes
from featx.learn.traits import TABLE, LeftOut, Trait, read_facts, read_trait
from featx.store.file import FeatureFile
from featx.store.ledger import Ledger
from featx.store.target import check_target, save_text

__all__ = ["AuditOptions", "AuditResult", "audit", "save_labels"]

IntArray = NDArray[np.int64]


def audit(
    path: str | os.PathLike[str],
    options: AuditOptions = AuditOptions(),  # noqa: B008  frozen
    *,
    progress: Progress | None = None,
) -> AuditResult:
    """Look for shortcuts, for scores that do not hold at other sites, and for wrong labels.

    Parameters
    ----------
    path : path-like
        A feature file as `featx extract` writes it, with the other columns of its table. Labelled samples take part,
        by their plain image.
    options : AuditOptions
    progress : callable (done, total), optional

    Returns
    -------
    AuditResult

    Raises
    ------
    StoreError
        A file that is missing, damaged or not complete.
    InputError
        Features that are not finite.
    LabelsError
        Labels that cannot be cross-validated; a column given as a site that has one value.
    UnknownNameError
        A column that the file does not have.
    """
    start = time.perf_counter()
    study = _Study.of(os.fspath(path), options)
    tests, left_out = study.plan_shortcuts()
    sites, sites_left_out = study.plan_sites()
    of_labels = study.plan_labels()
    steps = _Steps(
        sum(2 * len(one.test.jobs) for one in tests) + sum(one.n_steps for one in sites) + 2 * len(of_labels.jobs),
        progress,
    )
    data, n_jobs = study.data, options.n_jobs
    X = data.X.astype(np.float64)
    found = [try_shortcut(one, X, data.y, n_jobs=n_jobs, progress=steps.part(2 * len(one.test.jobs))) for one in tests]
    studies = [study_sites(one, X, n_jobs=n_jobs, progress=steps.part(one.n_steps)) for one in sites]
    labels = find_label_errors(
        of_labels,
        X,
        data.keys.tolist(),
        data.groups.tolist(),
        rank_by=options.rank_by,
        n_jobs=n_jobs,
        progress=steps.part(2 * len(of_labels.jobs)),
    )
    return AuditResult(
        path=os.fspath(path),
        shortcuts=sort_shortcuts(found),
        left_out=left_out,
        sites=studies,
        sites_left_out=sites_left_out,
        labels=labels,
        classes=labels.classes,
        n_samples=len(data),
        n_features=X.shape[1],
        description=study.describe(),
        groups=study.groups,
        unlabelled=study.n_unlabelled,
        n_missing=data.n_missing,
        small_classes=study.small_classes,
        locked=data.locked,
        has_splits=bool(np.any(data.splits != "")),
        has_folds=bool(np.any(data.folds != "")),
        has_views=data.spec is not None and data.spec.n_views > 1,
        options=options,
        seconds=time.perf_counter() - start,
    )


def save_labels(result: AuditResult, path: str | os.PathLike[str]) -> None:
    """Write every labelled sample to a ``.csv``, the likeliest label error first.

    Raises
    ------
    UsageError
        If the name ends otherwise, or its folder is not there.
    StoreWriteError
        If the file system refuses.
    """
    check_target(path, (".csv",), what="labels in doubt")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(result.labels.iter_csv_rows())
    save_text(path, text.getvalue(), what="labels in doubt")


class _Steps:
    """Progress over parts whose numbers of steps are known."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self.progress, self.start = total, progress, 0

    def part(self, n_steps: int) -> Progress | None:
        """Return what the next part reports to."""
        start, self.start = self.start, self.start + n_steps
        if self.progress is None:
            return None
        progress = self.progress
        return lambda done, _: progress(start + done, self.total)


@dataclass(frozen=True, eq=False)
class _Study:
    """The samples that are audited, and what is known of them.

    Attributes
    ----------
    data : Features
        Labelled, of classes that are not too small.
    groups : GroupIds
    traits : list of Trait or LeftOut
        Columns of the table, and facts of the files.
    n_unlabelled, small_classes : int, dict of str to int
        What was left out.
    options : AuditOptions
    """

    data: Features
    groups: GroupIds
    traits: list[Trait | LeftOut]
    n_unlabelled: int
    small_classes: dict[str, int]
    options: AuditOptions

    @classmethod
    def of(cls, path: str, options: AuditOptions) -> _Study:
        features = load_features(path, allow_missing=options.allow_missing)
        with FeatureFile.open(path) as file:
            if file.digest != features.digest:
                raise StoreError("the file was replaced while it was being read; run featx audit again", path=path)
            ledger, meta = file.ledger(), file.meta()
        check_learnable(features)
        rows = np.flatnonzero(features.y != "")
        groups = _groups(features.take(rows), options)
        small_classes: dict[str, int] = {}
        if options.min_per_class is not None:
            y = features.y[rows]
            small = find_small_classes(y, options.min_per_class, groups.ids)
            small_classes = {name: int(np.sum(y == name)) for name in small}
            rows = rows[~np.isin(y, small)]
            groups = _groups(features.take(rows), options)
        data = features.take(rows)
        place = dict(zip(ledger.key, range(len(ledger)), strict=True))
        traits = _traits(ledger, meta, np.array([place[key] for key in data.keys], dtype=np.int64), options)
        return cls(data, groups, traits, int(np.sum(features.y == "")), small_classes, options)

    def plan_shortcuts(self) -> tuple[list[ShortcutTest], list[LeftOut]]:
        """Deal the folds of every column that can be tested."""
        options, tests, left_out = self.options, [], []
        for trait in self.traits:
            if options.columns and trait.name not in options.columns:
                continue
            planned = (
                plan_shortcut(trait, self.groups, options.for_columns, cv=options.cv, inner_cv=options.inner_cv)
                if isinstance(trait, Trait)
                else trait
            )
            if isinstance(planned, ShortcutTest):
                tests.append(planned)
            else:
                left_out.append(planned)
        return tests, left_out

    def plan_sites(self) -> tuple[list[SitePlan], list[LeftOut]]:
        """Deal the folds of the columns that were given as sites, else of those that look like one."""
        options, plans, left_out = self.options, [], []
        for trait in self.traits:
            asked = trait.source == TABLE and trait.name in options.sites
            if isinstance(trait, LeftOut):
                if asked:
                    raise LabelsError(f"no value of column {trait.name!r} can be left out: it is {trait.reason}")
                continue
            if not asked and (options.sites or trait.source != TABLE or not looks_like_a_site(trait, self.data.y)):
                continue
            try:
                plans.append(
                    plan_sites(
                        trait, self.data.y, self.groups, options.for_labels, cv=options.cv, inner_cv=options.inner_cv
                    )
                )
            except LabelsError as error:
                if asked:
                    raise
                left_out.append(LeftOut(trait.name, trait.source, str(error)))
        return plans, left_out

    def plan_labels(self) -> QuickTest:
        """Deal the folds behind the probabilities of the labels."""
        options = self.options
        return QuickTest.plan(
            self.data.y,
            self.groups,
            options.for_probabilities,
            cv=options.cv,
            inner_cv=options.inner_cv,
            repeats=options.repeats,
        )

    def describe(self) -> str:
        """Say how everything was scored."""
        options, grid = self.options, self.options.for_labels.C_grid
        of_c = f"C of {len(grid)} from {grid[0]:g} to {grid[-1]:g} chosen in {options.inner_cv} inner folds"
        whole = "" if self.groups.ids is None else f" of whole groups ({self.groups.source})"
        return (
            f"Logistic regression on standardised features, {of_c if len(grid) > 1 else f'C = {grid[0]:g}'}, "
            f"cross-validated in {options.cv} folds{whole}, on {len(self.data)} samples of "
            f"{len(np.unique(self.data.y))} classes."
        )


def _groups(data: Features, options: AuditOptions) -> GroupIds:
    groups = resolve_groups(data.groups, data.sha256, data.group_source, keys=data.keys)
    if not options.group_near_duplicates:
        return groups
    near = find_near_duplicates(data.X, distance=options.near_duplicate_distance)
    joined = resolve_groups(data.groups, data.sha256, data.group_source, keys=data.keys, pairs=near.pairs)
    check_clusters(joined.ids, groups.ids, near, data.keys)
    return joined


def _traits(ledger: Ledger, meta: dict[str, list[str]], rows: IntArray, options: AuditOptions) -> list[Trait | LeftOut]:
    """Read columns and facts of the samples at some places of the ledger."""

    def take(column: Sequence[str]) -> list[str]:
        return [column[row] for row in rows]

    asked = {*options.columns, *options.sites}
    columns = [read_trait(name, take(column), asked=name in asked) for name, column in meta.items()]
    files = set(zip(ledger.bytes[rows].tolist(), ledger.mtime_ns[rows].tolist(), strict=True))
    shas = set(take(ledger.sha256))
    facts = read_facts(
        take(ledger.format),
        take(ledger.mode),
        ledger.width[rows],
        ledger.height[rows],
        ledger.bytes[rows],
        shared_files=2 * len(files) <= len(shas),
    )
    for name in options.sites:
        if name not in meta:
            raise UnknownNameError("column", name, meta, hint=_hint(meta))
    known = {trait.name for trait in (*columns, *facts)}
    for name in options.columns:
        if name not in known:
            raise UnknownNameError("column", name, known)
    return [*columns, *facts]


def _hint(meta: dict[str, list[str]]) -> str:
    if meta:
        return "a site is a column of the source's table that is neither label, group, split nor fold"
    return "the source had no further columns: extract from a table that has them"
