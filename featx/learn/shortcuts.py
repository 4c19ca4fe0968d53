"""Shortcuts: what else the features tell of a sample, and whether that goes with the label.

A network that can tell the scanner, in data in which one scanner took most of the images of the sick, can look right
for the wrong reason (Zech et al., PLOS Medicine 15, 2018; Geirhos et al., Nature Machine Intelligence 2, 2020).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import LabelsError
from featx.learn.association import Association, adjust_holm, associate, weighted_table
from featx.learn.groups import GroupIds
from featx.learn.intervals import Interval
from featx.learn.quick import QuickTest
from featx.learn.search import Progress, Space
from featx.learn.traits import LeftOut, Trait

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

ALPHA = 0.05
"""Adjusted p-values below it count as a column that goes with the label."""
MOST_VALUES = 50
"""More values than these, the most frequent ones, are not told from each other."""
METRIC = "balanced_accuracy"


@dataclass(frozen=True, eq=False)
class ShortcutTest:
    """A column that will be told from the features.

    Attributes
    ----------
    trait : Trait
    rows : int array (n_samples,)
        Samples that take part.
    values : tuple of str
        What is told, sorted.
    n_unknown, n_rare : int
        Samples without a value, and with one that is in too few groups.
    test : QuickTest
    """

    trait: Trait
    rows: IntArray
    values: tuple[str, ...]
    n_unknown: int
    n_rare: int
    test: QuickTest


@dataclass(frozen=True)
class Shortcut:
    """What was found of one column.

    Attributes
    ----------
    name, source, kind, note : str
        As in `featx.learn.traits.Trait`.
    values : tuple of str
        What was told.
    n_samples, n_unknown, n_rare : int
        Samples that took part; without a value; with a value in too few groups.
    score : Interval
        Balanced accuracy with which the features tell the values, cross-validated by group.
    chance : float
        What it is without knowing anything: 1 over the number of values.
    from_label : float
        What it would be if nothing but the label were known: where `score` is no better, the features may tell the
        column through the label alone.
    association : Association
        Of the column and the label.
    p_adjusted : float
        Its p-value, adjusted for the number of columns.
    """

    name: str
    source: str
    kind: str
    note: str
    values: tuple[str, ...]
    n_samples: int
    n_unknown: int
    n_rare: int
    score: Interval
    chance: float
    from_label: float
    association: Association
    p_adjusted: float

    @property
    def is_told(self) -> bool:
        """Whether the features tell it: the score's interval lies above chance."""
        return self.score.low is not None and self.score.low > self.chance

    @property
    def goes_with_label(self) -> bool:
        """Whether it goes with the label by more than chance."""
        return self.p_adjusted < ALPHA

    @property
    def is_flagged(self) -> bool:
        """Whether a head may take it for the label: the features tell it, and it goes with the label."""
        return self.is_told and self.goes_with_label

    @property
    def beyond_label(self) -> bool:
        """Whether the features tell it better than the label would."""
        return self.score.low is not None and self.score.low > self.from_label

    @property
    def order(self) -> tuple[bool, float, float, str]:
        """Sort flagged ones first, of them the stronger association, then what is told better."""
        above = 0.0 if self.score.mean is None else (self.score.mean - self.chance) / (1 - self.chance)
        return (not self.is_flagged, -self.association.cramers_v, -above, self.name)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, numbers and None, for JSON."""
        return asdict(self) | {
            "told": self.is_told,
            "goes_with_label": self.goes_with_label,
            "flagged": self.is_flagged,
            "told_beyond_label": self.beyond_label,
        }


def plan_shortcut(trait: Trait, groups: GroupIds, space: Space, *, cv: int, inner_cv: int) -> ShortcutTest | LeftOut:
    """Deal the folds in which a column is told, or say why it cannot be.

    Parameters
    ----------
    trait : Trait
    groups : GroupIds
        Of the same samples.
    space : Space
        As for `featx.learn.quick.QuickTest`; its `scoring` should be balanced accuracy.
    cv, inner_cv : int

    Returns
    -------
    ShortcutTest or LeftOut
        A value in fewer groups than the folds need takes no part; nor does one beyond the `MOST_VALUES` most frequent.
    """
    enough = groups_needed(cv, inner_cv)
    known = trait.values != ""
    ids = np.arange(len(known)) if groups.ids is None else groups.ids
    in_groups = Counter(value for value, _ in {*zip(trait.values[known], ids[known].tolist(), strict=True)})
    kept = [value for value, count in in_groups.most_common(MOST_VALUES) if count >= enough]
    if len(kept) < 2:
        unit = "samples" if groups.ids is None else "groups"
        most = max(in_groups.values())
        what = "no value is" if not kept else "only one value is"
        return LeftOut(
            trait.name,
            trait.source,
            f"too thin: of {len(in_groups)} values {what} in {enough} {unit}, which {cv} folds need (the most: {most})",
        )
    rows = np.flatnonzero(np.isin(trait.values, kept))
    values = trait.values[rows].astype(str)
    try:
        test = QuickTest.plan(values, groups.take(rows), space, cv=cv, inner_cv=inner_cv)
    except LabelsError:
        reason = f"its {len(kept)} values cannot be dealt into {cv} folds of whole groups with each in every one"
        return LeftOut(trait.name, trait.source, reason)
    n_known = int(known.sum())
    return ShortcutTest(trait, rows, tuple(sorted(kept)), len(known) - n_known, n_known - len(rows), test)


def groups_needed(cv: int, inner_cv: int) -> int:
    """Return how many groups a class must be in, so that each fold tests some and each inner fold of the rest too."""
    enough = cv
    while enough - -(-enough // cv) < inner_cv:
        enough += 1
    return enough


def try_shortcut(
    planned: ShortcutTest, X: FloatArray, y: NDArray[np.str_], *, n_jobs: int = 1, progress: Progress | None = None
) -> Shortcut:
    """Tell a column from features (all samples, n_features), and compare it with their labels."""
    trait, test, labels = planned.trait, planned.test, y[planned.rows]
    evaluation, _ = test.run(X[planned.rows], n_jobs=n_jobs, progress=progress)
    association = associate(test.y, labels, test.groups, random_state=test.space.random_state)
    return Shortcut(
        name=trait.name,
        source=trait.source,
        kind=trait.kind,
        note=trait.note,
        values=planned.values,
        n_samples=len(planned.rows),
        n_unknown=planned.n_unknown,
        n_rare=planned.n_rare,
        score=evaluation.scores[METRIC],
        chance=1 / len(planned.values),
        from_label=best_guess(weighted_table(labels, test.y, test.groups)),
        association=association,
        p_adjusted=association.p_value,
    )


def sort_shortcuts(found: Sequence[Shortcut]) -> list[Shortcut]:
    """Adjust the p-values of columns that were tested together, and put the flagged ones first."""
    adjusted = adjust_holm([one.association.p_value for one in found])
    together = [replace(one, p_adjusted=p) for one, p in zip(found, adjusted, strict=True)]
    return sorted(together, key=lambda one: one.order)


def best_guess(table: FloatArray) -> float:
    """Return the best balanced accuracy with which columns are told by rows, from counts (n_rows, n_columns)."""
    shares = table / table.sum(axis=0)
    return float(shares.max(axis=1).sum() / table.shape[1])
