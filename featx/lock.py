"""The stage behind ``featx lock``: a part of a feature file is kept for one last test, and every look is counted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import BundleError, LabelsError, SpecMismatchError, UsageError
from featx.learn.bundle import Bundle, load_bundle
from featx.learn.dataset import Features, check_learnable, load_features, load_locked
from featx.learn.groups import GroupIds, resolve_groups
from featx.learn.held_out import draw_held_out
from featx.learn.intervals import wilson_interval
from featx.learn.lock_reports import MOST_PAIRS, LockReport, LookReport, describe_near
from featx.learn.near_duplicates import check_clusters, check_distance, find_near_duplicates
from featx.learn.numbers import parse_numbers, strata_of
from featx.learn.scores import Evaluation, evaluate_fixed
from featx.learn.splits import check_whole_groups
from featx.learn.tasks import CLASSIFICATION, MULTILABEL, REGRESSION
from featx.store.file import FeatureFile
from featx.store.locked import LockedSet, Look
from featx.store.relock import change_locked

if TYPE_CHECKING:
    from featx.learn.multilabel.scores import LabelEvaluation
    from featx.learn.regression.scores import NumberEvaluation

DEFAULT_FRACTION = 0.2
_EXPECTED_ACCURACY = 0.9  # for which the width of the interval to come is foretold


@dataclass(frozen=True, kw_only=True)
class LockOptions:
    """How the samples that are locked are chosen.

    Attributes
    ----------
    fraction : float, optional
        Share of each class, 0.2 where nothing else is said. Not beside a ``test`` split or `like`.
    split : {"auto", "ignore"}
        ``"auto"``: where the file has a ``test`` split, that is what is locked. ``"ignore"``: draw from all samples.
    like : path-like, optional
        Lock what another feature file has locked (the same images by another backbone), with its looks.
    group_near_duplicates, near_duplicate_distance
        As in `featx.learn.options.FitOptions`: no near-duplicate of a locked sample stays open.
    random_state : int
        Seeds the draw.

    Raises
    ------
    UsageError
        Options that do not go together.
    """

    fraction: float | None = None
    split: str = "auto"
    like: str | os.PathLike[str] | None = None
    group_near_duplicates: bool = False
    near_duplicate_distance: float | None = None
    random_state: int = 0

    def __post_init__(self) -> None:
        if self.split not in ("auto", "ignore"):
            raise UsageError(f"--split {self.split}: expected auto or ignore")
        if self.fraction is not None and not 0 < self.fraction < 1:
            raise UsageError(f"--fraction {self.fraction:g}: expected more than 0 and less than 1")
        check_distance(self.near_duplicate_distance)
        if self.random_state < 0:
            raise UsageError(f"--random-state: at least 0 is needed, got {self.random_state}")
        chosen = self.fraction is not None or self.split != "auto" or self.group_near_duplicates
        if self.like is not None and chosen:
            raise UsageError(f"--like {os.fspath(self.like)} says what is locked; leave the other options out")


def lock(
    path: str | os.PathLike[str],
    options: LockOptions = LockOptions(),
    *,
    now: datetime | None = None,
) -> LockReport:
    """Lock a part of a feature file: from then on no label of it is used for choosing or fitting.

    Whole groups are locked (given ones, joined by identical bytes), and about the same share of each class, or of each
    range of labels that are numbers. The lock is
    part of the file. It stays when the file is brought up to date or made anew; a new image that shares a group or its
    bytes with a locked one is locked too, others are open.

    Parameters
    ----------
    path : path-like
        A feature file as `featx extract` writes it.
    options : LockOptions
    now : datetime, optional
        The date that is written down.

    Raises
    ------
    UsageError
        If the file has a locked part already, or options do not suit it.
    LabelsError
        If no part can be locked that has two classes on both sides, or a split tears groups apart.
    StoreError
        If the file cannot be read or written.
    """
    with FeatureFile.open(path) as file:
        digest, previous = file.digest, file.locked()
        ledger, group_source = file.ledger(), file.group_source
    if previous is not None:
        raise UsageError(
            f"{os.fspath(path)} has been locked on {previous.date} ({previous.how}); what is locked stays locked, and "
            "grows only with new images of its groups"
        )
    features = load_features(path, allow_missing=True)
    check_learnable(features)
    labelled = features.take(features.y != "")
    labelled = replace(labelled, y=strata_of(labelled.y))
    near = find_near_duplicates(labelled.X, distance=options.near_duplicate_distance)
    groups = resolve_groups(labelled.groups, labelled.sha256, labelled.group_source, keys=labelled.keys)
    if options.group_near_duplicates and len(near):
        apart = groups.ids
        groups = resolve_groups(
            labelled.groups, labelled.sha256, labelled.group_source, keys=labelled.keys, pairs=near.pairs
        )
        check_clusters(groups.ids, apart, near, labelled.keys)
    start = _like(options, group_source) if options.like is not None else _drawn(labelled, groups, options)
    start = replace(start, date=start.date or _written(now))
    locked = start.extended(ledger.key, ledger.sha256, ledger.group, group_source=group_source)
    report = _lock_report(path, labelled, groups, locked, ledger.key, near.rule, near.pairs)
    change_locked(path, lambda _: locked, digest=digest)
    return report


def open_locked(
    path: str | os.PathLike[str], bundle: str | os.PathLike[str], *, now: datetime | None = None
) -> LookReport:
    """Score a classifier on the locked part; the look is counted and dated in the file before this returns.

    Parameters
    ----------
    path : path-like
        A feature file with a locked part.
    bundle : path-like
        What ``featx fit -o`` wrote: the classifier is fixed before the look.
    now : datetime, optional
        The date that is written down.

    Raises
    ------
    UsageError
        If nothing is locked.
    BundleError
        If the bundle cannot be loaded, or its head was fitted on locked samples.
    SpecMismatchError
        If the bundle needs features that were made in another way.
    LabelsError
        If no locked sample has a label.
    StoreError
        If the file cannot be read; if the look cannot be written down, there is none.
    """
    loaded = load_bundle(bundle)
    needed = loaded.needed_spec
    with FeatureFile.open(path) as file:
        digest, locked = file.digest, file.locked()
        if locked is None:
            raise UsageError(f"nothing is locked in {os.fspath(path)}; `featx lock {os.fspath(path)}` locks a part")
        differences = replace(file.spec, views=file.spec.views[: needed.n_views]).differences(needed)
        if differences:
            raise SpecMismatchError(differences, path=os.fspath(path), hint="the bundle needs features made in its way")
        ledger, keys = file.ledger(), locked.keys
        n_failed = sum(key in keys for key, row in zip(ledger.key, ledger.row.tolist(), strict=True) if row < 0)
    part = load_locked(path, views=needed.n_views > 1).by_sample()
    labelled = part.take(part.y != "")
    if not len(labelled):
        raise LabelsError(f"{os.fspath(path)}: none of the {len(part)} locked samples has a label and features")
    _check_not_fitted_on(loaded, labelled)
    rest = load_features(path, allow_missing=True)
    rest = rest.take(rest.y != "")
    near_rule, pairs = _near_across(rest, labelled)

    X = labelled.X if labelled.X.ndim == 2 else labelled.X[:, : needed.n_views].reshape(-1, needed.n_features)
    groups = resolve_groups(labelled.groups, labelled.sha256, labelled.group_source, keys=labelled.keys)
    evaluation = _EVALUATIONS[loaded.task](loaded, X, labelled, groups, rest)
    look = Look(
        date=_written(now),
        bundle=Path(bundle).name,
        bundle_sha256=hashlib.sha256(Path(bundle).read_bytes()).hexdigest(),
        n_samples=len(labelled),
        looks_before_fit=_looks_before_fit(loaded, locked),
        scores={name: interval.mean for name, interval in evaluation.scores.items()},
    )
    # Nobody sees a score of which the file does not know.
    written = change_locked(path, lambda now_locked: _counted(now_locked, locked, look), digest=digest)
    return LookReport(
        path=os.fspath(path),
        look=look,
        number=len(written.looks),
        earlier=list(written.looks[:-1]),
        evaluation=evaluation,
        n_failed=n_failed,
        n_unlabelled=len(part) - len(labelled),
        groups=groups.source,
        near_duplicates=pairs[:MOST_PAIRS],
        n_near_duplicates=len(pairs),
        near_rule=near_rule,
    )


def _evaluate_classes(
    bundle: Bundle, X: NDArray[np.float32], labelled: Features, groups: GroupIds, rest: Features
) -> Evaluation:
    predicted, probabilities = bundle.classify(X)
    return evaluate_fixed(
        labelled.y,
        predicted,
        probabilities,
        bundle.classes,
        groups=groups.ids,
        y_train=rest.y[np.isin(rest.y, bundle.classes)],
        positive=bundle.positive,
    )


def _evaluate_labels(
    bundle: Bundle, X: NDArray[np.float32], labelled: Features, groups: GroupIds, rest: Features
) -> LabelEvaluation:
    from featx.learn.multilabel.predictions import evaluate_texts

    called, probabilities = bundle.pipeline.call(X.astype(np.float64), len(X) // len(labelled))
    return evaluate_texts(
        bundle, labelled.y.tolist(), called, probabilities, groups=groups.ids, train=rest.y.tolist() or None
    )


def _evaluate_numbers(
    bundle: Bundle, X: NDArray[np.float32], labelled: Features, groups: GroupIds, rest: Features
) -> NumberEvaluation:
    from featx.learn.regression.scores import evaluate_fixed as evaluate
    from featx.learn.regression.search import predict_numbers

    y = parse_numbers(labelled.y, labelled.keys)
    predicted = predict_numbers(bundle.pipeline, np.asarray(X, dtype=np.float64), len(X) // len(y))
    return evaluate(y, predicted, groups.ids, y_train=parse_numbers(rest.y, rest.keys) if len(rest) else None)


_EVALUATIONS: dict[str, Callable[..., Evaluation | LabelEvaluation | NumberEvaluation]] = {
    CLASSIFICATION: _evaluate_classes,
    MULTILABEL: _evaluate_labels,
    REGRESSION: _evaluate_numbers,
}
"""What scores the locked part, by task."""


def _counted(now_locked: LockedSet | None, locked: LockedSet, look: Look) -> LockedSet:
    """Add a look to those that are in the file now: another may have come meanwhile."""
    return (now_locked or locked).with_look(look)


def _like(options: LockOptions, group_source: str) -> LockedSet:
    assert options.like is not None
    with FeatureFile.open(options.like) as other:
        theirs = other.locked()
    if theirs is None:
        raise UsageError(f"--like {os.fspath(options.like)}: nothing is locked in it")
    same = theirs.group_source == group_source
    members = tuple((key, sha, group if same else "") for key, sha, group in theirs.members)
    return replace(theirs, members=members, group_source=group_source)


def _drawn(labelled: Features, groups: GroupIds, options: LockOptions) -> LockedSet:
    """Choose the samples: the test split where there is one, else a draw."""
    is_test = labelled.splits == "test"
    if options.split == "auto" and is_test.any():
        if options.fraction is not None:
            raise UsageError(
                f"the file has a test split of {int(is_test.sum())} samples, which is what is locked: leave --fraction "
                "out, or draw from all samples with --split ignore"
            )
        if groups.ids is not None:
            check_whole_groups(
                np.where(is_test, "test", "the rest"), groups.ids, what="the split", group_names=groups.names,
                hint="mend the split, or draw whole groups from all samples with --split ignore",
            )  # fmt: skip
        chosen, how = is_test, "the test split"
    else:
        fraction = DEFAULT_FRACTION if options.fraction is None else options.fraction
        chosen = draw_held_out(labelled.y, groups.ids, fraction=fraction, random_state=options.random_state)
        units = f"whole groups ({groups.source})" if groups.ids is not None else "samples"
        how = f"{fraction:g} of {units}, stratified, random state {options.random_state}"
    members = zip(labelled.keys[chosen], labelled.sha256[chosen], labelled.groups[chosen], strict=True)
    return LockedSet(
        date="",
        how=how,
        members=tuple((str(key), str(sha), str(group)) for key, sha, group in members),
        group_source=labelled.group_source,
    )


def _lock_report(
    path: str | os.PathLike[str],
    labelled: Features,
    groups: GroupIds,
    locked: LockedSet,
    keys: Any,
    near_rule: str,
    near_pairs: Any,
) -> LockReport:
    is_locked = np.array([key in locked.keys for key in labelled.keys], dtype=np.bool_)
    if not is_locked.any() or is_locked.all():
        what = "none" if not is_locked.any() else "all"
        raise LabelsError(
            f"{os.fspath(path)}: {what} of the {len(labelled)} labelled samples would be locked ({locked.how})"
        )
    classes = {
        str(name): (int(np.sum(is_locked & (labelled.y == name))), int(np.sum(~is_locked & (labelled.y == name))))
        for name in np.unique(labelled.y)
    }
    unit = "samples" if groups.ids is None else "groups"
    n_groups = int(is_locked.sum()) if groups.ids is None else len(np.unique(groups.ids[is_locked]))
    pairs = [
        (str(labelled.keys[one]), str(labelled.keys[other]))
        for one, other in near_pairs[is_locked[near_pairs[:, 0]] != is_locked[near_pairs[:, 1]]]
    ]
    notes = []
    if not groups.given:
        notes.append(
            "No groups were given. If several images show the same patient, animal or part, the locked part is not "
            "independent of the rest: give `featx extract` a group column or --group-regex first."
        )
    one_sided = [name for name, (n, rest) in classes.items() if not n or not rest]
    if one_sided:
        notes.append(f"Classes that are on one side only, too few groups hold them: {', '.join(one_sided[:10])}.")
    if pairs:
        notes.append(
            describe_near(len(pairs), pairs, near_rule)
            + " To lock them together: a fresh file and `featx lock --group-near-duplicates`."
        )
    return LockReport(
        path=os.fspath(path),
        date=locked.date,
        how=locked.how,
        n_locked=int(is_locked.sum()),
        n_samples=len(labelled),
        n_groups=n_groups,
        n_others=len(locked.keys.intersection(keys)) - int(is_locked.sum()),
        classes=classes,
        looks=len(locked.looks),
        accuracy=wilson_interval(_EXPECTED_ACCURACY * n_groups, n_groups, unit=unit),
        near_duplicates=pairs[:MOST_PAIRS],
        n_near_duplicates=len(pairs),
        near_rule=near_rule,
        notes=notes,
    )


def _check_not_fitted_on(bundle: Bundle, labelled: Features) -> None:
    seen = [str(key) for key, sha in zip(labelled.keys, labelled.sha256, strict=True) if bundle.was_fitted_on(sha)]
    if seen:
        raise BundleError(
            f"the head was fitted on {len(seen)} of the {len(labelled)} locked images, {seen[0]!r} among them: its "
            "score there would say nothing. Fit it anew on the locked file, which leaves them out; nothing was counted",
            path=bundle.path,
        )


def _near_across(rest: Features, labelled: Features) -> tuple[str, list[tuple[str, str]]]:
    """Find near-duplicates of which one is open and one is locked."""
    plain = labelled.X if labelled.X.ndim == 2 else labelled.X[:, 0]
    near = find_near_duplicates(np.concatenate([rest.X, plain]))
    keys = [*rest.keys, *labelled.keys]
    across = near.pairs[(near.pairs[:, 0] < len(rest)) != (near.pairs[:, 1] < len(rest))]
    return near.rule, [(str(keys[one]), str(keys[other])) for one, other in across]


def _looks_before_fit(bundle: Bundle, locked: LockedSet) -> int | None:
    """How many looks there had been when the head was fitted, where it was fitted with this lock in place."""
    facts = bundle.facts.get("locked")
    if not isinstance(facts, dict) or facts.get("date") != locked.date or not isinstance(facts.get("looks"), list):
        return None
    return len(facts["looks"])


def _written(now: datetime | None) -> str:
    return (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
