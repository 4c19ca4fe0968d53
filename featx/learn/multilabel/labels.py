"""Texts with several labels as a table of names and marks: ``"fox;snow"`` has two, ``"none"`` has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from featx.errors import LabelsError, UsageError
from featx.learn.splits import units_needed

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

GUESSES = (";", "|", ",", "\t", "/", "+", "&")
"""Separators that are tried where the one that was given divides nothing; the first that helps is named."""
_SHOWN = 10
SINGLE = 0.5
"""Above this share of labels on one sample each, and no sample with two, they are hardly labels."""


@dataclass(frozen=True)
class LabelSyntax:
    """How labels are written.

    Attributes
    ----------
    separator : str
        Between the labels of a sample.
    none : str
        The word for a sample that was looked at and has no label; the empty text is a sample that nobody labelled.

    Raises
    ------
    UsageError
        An empty separator or word, or a word with the separator in it.
    """

    separator: str = ";"
    none: str = "none"

    def __post_init__(self) -> None:
        if not self.separator:
            raise UsageError("--label-separator '': give what stands between the labels of an image, as in ';'")
        if not self.none.strip():
            raise UsageError("--none-label '': give the word for an image without any label, as in none")
        if self.separator in self.none:
            raise UsageError(f"--none-label {self.none}: it has the separator {self.separator!r} in it")

    def split(self, text: str) -> list[str]:
        """Return the names in a text, each once, in their order; what is empty between separators is nobody's name."""
        return list(dict.fromkeys(filter(None, (name.strip() for name in text.split(self.separator)))))

    def join(self, names: Sequence[str]) -> str:
        """Return names as a text that `split` reads; of no name, the word for that."""
        return self.separator.join(names) or self.none


@dataclass(frozen=True, eq=False)
class LabelTable:
    """Which samples have which labels.

    Attributes
    ----------
    names : list of str
        The vocabulary, sorted.
    marks : bool array (n_samples, n_labels)
    """

    names: list[str]
    marks: BoolArray

    def __len__(self) -> int:
        return len(self.marks)

    def take(self, rows: NDArray[np.int64] | BoolArray) -> LabelTable:
        """Return some of the samples, by position or mask; the vocabulary stays."""
        return replace(self, marks=self.marks[rows])

    def without(self, names: Sequence[str]) -> LabelTable:
        """Leave some labels out; the samples stay."""
        kept = ~np.isin(self.names, list(names))
        return LabelTable([name for name, one in zip(self.names, kept, strict=True) if one], self.marks[:, kept])

    def counts(self, names: Sequence[str]) -> dict[str, int]:
        """Count the samples that have some labels."""
        return {name: int(self.marks[:, self.names.index(name)].sum()) for name in names}

    def texts(self, syntax: LabelSyntax) -> list[str]:
        """Return the labels of each sample as it would be written."""
        names = np.array(self.names, dtype=object)
        return [syntax.join(names[row].tolist()) for row in self.marks]


def read_labels(
    texts: Sequence[str] | NDArray[np.str_], keys: Sequence[str] | NDArray[np.object_], syntax: LabelSyntax
) -> LabelTable:
    """Divide texts into labels.

    Parameters
    ----------
    texts : str sequence (n_samples,)
        None of them empty.
    keys : str sequence (n_samples,)
        For messages.
    syntax : LabelSyntax

    Raises
    ------
    LabelsError
        Only separators; the word for no label beside a label; no label at all; or a separator that divides nothing
        where another one would, which is named.
    """
    found = [syntax.split(str(text)) for text in texts]
    for key, text, names in zip(keys, texts, found, strict=True):
        if not names:
            raise LabelsError(
                f"sample {str(key)!r} has the label {str(text)!r}, which names nothing; write {syntax.none!r} for an "
                "image without any label (--none-label is another word for it), or leave it empty for one that was "
                "not looked at"
            )
        if syntax.none in names and len(names) > 1:
            raise LabelsError(
                f"sample {str(key)!r} has {syntax.none!r}, the word for no label, beside others: {str(text)!r}; mend "
                "it, or give another --none-label"
            )
    vocabulary = sorted({name for names in found for name in names} - {syntax.none})
    _check_separator([str(text) for text in texts], found, syntax)
    if not vocabulary:
        raise LabelsError(f"no sample has any label: all {len(found)} say {syntax.none!r} (--none-label)")
    place = {name: number for number, name in enumerate(vocabulary)}
    marks = np.zeros((len(found), len(vocabulary)), dtype=np.bool_)
    for row, names in zip(marks, found, strict=True):
        row[[place[name] for name in names if name in place]] = True
    return LabelTable(vocabulary, marks)


def mark_known(texts: Sequence[str], names: Sequence[str], syntax: LabelSyntax) -> tuple[BoolArray, list[str]]:
    """Divide texts into labels of a given vocabulary.

    Returns
    -------
    marks : bool array (n_samples, n_labels)
    unknown : list of str
        Labels of no place in the vocabulary, sorted.
    """
    place = {name: number for number, name in enumerate(names)}
    marks = np.zeros((len(texts), len(names)), dtype=np.bool_)
    unknown = set()
    for row, text in zip(marks, texts, strict=True):
        found = syntax.split(text)
        row[[place[name] for name in found if name in place]] = True
        unknown |= set(found) - set(place) - {syntax.none}
    return marks, sorted(unknown)


def _check_separator(texts: Sequence[str], found: Sequence[Sequence[str]], syntax: LabelSyntax) -> None:
    """Raise where the separator divides nothing, and another would make of the texts fewer names than there are."""
    if any(len(names) > 1 for names in found):
        return
    distinct = set(texts)
    for separator in GUESSES:
        other = LabelSyntax(separator, syntax.none.replace(separator, "") or "none")
        names = {name for text in distinct for name in other.split(text)} - {syntax.none}
        divided = sum(len(other.split(text)) > 1 for text in texts)
        if separator != syntax.separator and divided and len(names) < len(distinct):
            raise LabelsError(
                f"--label-separator {syntax.separator!r} divides none of the {len(texts)} labels, so that each of "
                f"{len(distinct)} texts would be a label of its own, as {sorted(distinct)[0]!r}; {separator!r} would "
                f"divide {divided} of them into {len(names)} labels: try --label-separator {separator!r}"
            )


def count_units(marks: BoolArray, groups: IntArray | None) -> IntArray:
    """Count the samples (n_labels,) that have each label; or the groups with at least one of them."""
    if groups is None:
        return np.asarray(marks.sum(axis=0), dtype=np.int64)
    return np.array([len(np.unique(groups[own])) for own in marks.T], dtype=np.int64)


def find_small_labels(table: LabelTable, minimum: int, groups: IntArray | None = None) -> list[str]:
    """List the labels that fewer than `minimum` samples have, or lack; groups where there are groups.

    Raises
    ------
    LabelsError
        If no label would stay.
    """
    with_it, without = count_units(table.marks, groups), count_units(~table.marks, groups)
    small = [name for name, n in zip(table.names, np.minimum(with_it, without), strict=True) if n < minimum]
    if len(small) == len(table.names):
        unit = "samples" if groups is None else "groups"
        raise LabelsError(
            f"--min-per-class {minimum} leaves out all {len(small)} labels: none has, and is lacking in, {minimum} "
            f"{unit}"
        )
    return small


def check_labels(
    table: LabelTable,
    groups: IntArray | None,
    *,
    n_splits: int,
    what: str = "cross-validation",
    option: str = "--cv",
    inner_splits: int = 1,
) -> None:
    """Raise when some label is too rare, or too common, for the folds.

    Parameters
    ----------
    table : LabelTable
    groups : int array (n_samples,), or None
        With groups a label is counted in groups: those that have, or lack, it at least once.
    n_splits, what, option, inner_splits
        As in `featx.learn.splits.check_classes`; with `n_splits` of 1 there is only training.

    Raises
    ------
    LabelsError
        Names such labels; offers ``--cv N`` and ``--min-per-class N`` where they help.
    """
    unit = "samples" if groups is None else "groups"
    enough = units_needed(n_splits, inner_splits)
    with_it, without = count_units(table.marks, groups), count_units(~table.marks, groups)
    least = np.minimum(with_it, without)
    few = np.flatnonzero(least < enough)
    if not len(few):
        return
    listed = ", ".join(
        f"{table.names[k]!r} is in {with_it[k]}"
        if with_it[k] < enough
        else f"{table.names[k]!r} is lacking in {without[k]}"
        for k in few[:_SHOWN]
    )
    more = f", and {len(few) - _SHOWN} more labels" if len(few) > _SHOWN else ""
    needs = f"{n_splits} folds in {what}" if n_splits > 1 else what
    if inner_splits > 1:
        needs += f" with {inner_splits} inner folds"
    offers = _fewer_folds(int(least.min()), n_splits, inner_splits, option)
    if len(few) < len(table.names):
        offers.append(f"--min-per-class {enough} (leaves out {len(few)} of {len(table.names)} labels)")
    way_out = f"try {' or '.join(offers)}" if offers else f"each label needs at least {enough} {unit} with it"
    if (without == 0).any():
        way_out += "; a label that is everywhere tells nothing apart"
    if (table.marks.sum(axis=0) == 1).mean() > SINGLE and (table.marks.sum(axis=1) <= 1).all():
        way_out += ". Nearly every sample has a label of its own: are these labels, and is --label-separator right?"
    raise LabelsError(
        f"too few {unit} for {needs}: {listed}{more}; at least {enough} {unit} with each label and {enough} without it "
        f"are needed. {way_out}"
    )


def _fewer_folds(least: int, n_splits: int, inner_splits: int, option: str) -> list[str]:
    """Offer the most folds for which a label in so few samples, or groups, is enough; nothing where none are."""
    for inner in dict.fromkeys((inner_splits, min(inner_splits, 2))):
        for n in range(n_splits, 1, -1):
            if units_needed(n, inner) <= least:
                return [f"{option} {n}" + (f" --inner-cv {inner}" if inner != inner_splits else "")]
    return []
