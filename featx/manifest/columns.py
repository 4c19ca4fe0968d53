"""What is known of samples, as columns of text: labels, groups, splits, folds, and the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from featx.errors import ManifestError
from featx.manifest.record import SPLITS

_MOST_KNOWN = 65536  # values of a column; where there are more, most are there but once

_WORD = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True)
class Columns:
    """Which column holds what; see `featx.manifest.source.SourceOptions`."""

    path: str = "path"
    label: str = "label"
    group: str = "group"
    split: str = "split"
    fold: str = "fold"

    def is_default(self, role: str) -> bool:
        """Tell whether a role's column was not named by the user, so that it may be absent."""
        return bool(getattr(self, role) == getattr(DEFAULT, role))

    def named(self) -> list[str]:
        """Return the names that the user gave."""
        return [getattr(self, role.name) for role in fields(self) if not self.is_default(role.name)]


DEFAULT = Columns()


class TextColumn:
    """A column that grows; values that are alike are one object, as long as they are few.

    Attributes
    ----------
    values : list of str
    """

    def __init__(self) -> None:
        self.values: list[str] = []
        self._known: dict[str, str] = {}

    def add(self, value: str) -> None:
        """Append a value."""
        known = self._known
        self.values.append(known.setdefault(value, value) if len(known) < _MOST_KNOWN else known.get(value, value))


@dataclass(frozen=True)
class Known:
    """The columns of a manifest that are not about where the pixels are; as in `featx.manifest.record.Manifest`."""

    labels: list[str]
    groups: list[str]
    splits: list[str]
    folds: list[str]
    meta: dict[str, list[str]] = field(default_factory=dict)
    group_source: str = ""


def find_column(names: Sequence[str], wanted: Columns, role: str, *, where: str) -> str | None:
    """Return the column of a role: the one of that name, or else the only one of that name in any case.

    Raises
    ------
    ManifestError
        If the user named a column that is not there.
    """
    name = getattr(wanted, role)
    if name in names:
        return str(name)
    alike = [other for other in names if other.casefold() == name.casefold()]
    if len(alike) == 1:
        return alike[0]
    if not alike and wanted.is_default(role):
        return None
    there = ", ".join(map(repr, names)) or "none"
    raise ManifestError(f"no column {name!r}; there are: {there}; name another with --{role}-column", path=where)


def from_columns(columns: Mapping[str, list[str]], n: int, wanted: Columns, *, where: str) -> Known:
    """Give columns of `n` texts their roles.

    Raises
    ------
    ManifestError
        If a column that was named is not there, or a split has another name than train, val or test.
    """
    names = list(columns)
    found = {role: find_column(names, wanted, role, where=where) for role in ("label", "group", "split", "fold")}

    def column(role: str) -> list[str]:
        name = found[role]
        return [""] * n if name is None else [value.strip() for value in columns[name]]

    return Known(
        labels=column("label"),
        groups=column("group"),
        splits=[split_of(value, where=where) for value in column("split")],
        folds=column("fold"),
        meta={name: values for name, values in columns.items() if name not in found.values()},
        group_source=f"column {found['group']}" if found["group"] is not None else "",
    )


def from_records(records: Sequence[Mapping[str, str]], wanted: Columns, *, where: str) -> Known:
    """Give the fields of records their roles; a field that a record does not have is ``""``.

    Raises
    ------
    ManifestError
        As `from_columns`.
    """
    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: [record.get(name, "") for record in records] for name in names}
    return from_columns(columns, len(records), wanted, where=where)


def text_of(value: Any) -> str | None:
    """Return a single value as text, an unknown one as ``""``; None for lists and other compounds, and for bytes."""
    if value is None or value != value:  # NaN is not itself
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple | dict | bytes):
        return None
    return str(value)


def split_of(value: str, *, where: str) -> str:
    """Return a split as it is stored."""
    if value and value.lower() not in SPLITS:
        raise ManifestError(f"{value!r} is not a split; expected {', '.join(SPLITS)} or nothing", path=where)
    return SPLITS[value.lower()] if value else ""


def splits_of_names(names: Sequence[str], layout: str) -> list[str] | None:
    """Return the splits that files of many samples are named after, or None if not all of them are.

    The first folder says it (``train/000.tar``), or the last one, or the first word of the file's own name
    (``train-000.tar``).
    """
    if layout not in ("auto", "splits"):
        return None
    folders = [name.split("/")[:-1] for name in names]
    first, last = ([some[end] if some else "" for some in folders] for end in (0, -1))
    words = [match[0] if (match := _WORD.match(name.rpartition("/")[2])) else "" for name in names]
    for found in (first, last, words):
        if all(word.lower() in SPLITS for word in found):
            return [SPLITS[word.lower()] for word in found]
    return None
