"""Features that were made elsewhere, as a reader hands them over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from featx.errors import InputError, UsageError

TEXT = "text"
"""`ForeignFeatures.dtype` of numbers that are written in digits."""

ROLES = ("key", "label", "group", "split", "fold")

ALIASES = {
    "key": (
        *("key", "keys", "path", "paths", "filepath", "file", "files", "filename", "filenames", "file_name"),
        *("file_names", "image", "images", "image_path", "image_paths", "name", "names", "slide", "slide_id", "id"),
    ),
    "label": ("label", "labels", "y", "class", "classes", "target", "targets"),
    "group": ("group", "groups"),
    "split": ("split", "splits"),
    "fold": ("fold", "folds"),
    "view": ("view", "views"),
    "sha256": ("sha256",),
}
"""Names in lower case by which a column or an array is known, best first."""


@dataclass(frozen=True)
class ImportOptions:
    """How foreign features are read.

    Attributes
    ----------
    made_by : str or None
        What made the features, in words; files imported in the same words, with rows of the same length, count as made
        in the same way. None: only files of the same bytes do.
    labels : str or None
        A table (.csv, .tsv) with a key and a label, group, split or fold; or labels alone, one for each row (.npy,
        .txt).
    names : str or None
        A text file with one key in each line; None: ``file_names.txt`` beside the features, where they have no keys.
    pool : str or None
        ``"mean"``: one row for each slide, the mean of its patches; None: a row for each patch.
    columns : dict of str to str
        Role (``"key"``, ``"label"``, ...) to the name of the column or array; those left out are found by `ALIASES`.
    feature_columns : str or None
        A regular expression: which columns of a table are features. None: ``f0, f1, ...`` where there are such columns,
        else all other columns of numbers.
    label_regex, group_regex : str or None
        Searched in every key; the first capture group is the label, or the group.
    """

    made_by: str | None = None
    labels: str | None = None
    names: str | None = None
    pool: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    feature_columns: str | None = None
    label_regex: str | None = None
    group_regex: str | None = None


@dataclass(frozen=True, eq=False)
class ForeignFeatures:
    """Rows of features that were made elsewhere, and what is known of them.

    Attributes
    ----------
    kind : str
        The layout: ``"npz"``, ``"npy"``, ``"txt"``, ``"csv"``, ``"parquet"``, ``"hdf5"``, ``"slides"``.
    files : list of Path
        Whose bytes say what the features are.
    shape : tuple of int
        Of one row.
    dtype : str
        Of the numbers, as numpy calls it; or `TEXT`.
    n_samples : int
        Samples; all but those in `failures` have a row.
    blocks : callable
        Returns an iterator over the rows, in blocks of (n, *shape).
    columns : dict of str to list of str
        By role (``"key"``, ``"label"``, ``"group"``, ``"split"``, ``"fold"``, ``"view"``, ``"sha256"``): those that
        there are, one value for each sample.
    meta : dict of str to list of str
        Every other column.
    failures : dict of int to str
        Samples without a row, by position, with the reason.
    group_source : str
        Where the groups come from, in words.
    notes : list of str
        What the user should hear.
    """

    kind: str
    files: list[Path]
    shape: tuple[int, ...]
    dtype: str
    n_samples: int
    blocks: Callable[[], Iterator[NDArray[Any]]]
    columns: dict[str, list[str]] = field(default_factory=dict)
    meta: dict[str, list[str]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    group_source: str = ""
    notes: list[str] = field(default_factory=list)


def find_columns(names: Sequence[str], given: Mapping[str, str], *, where: str, what: str = "column") -> dict[str, str]:
    """Return role to name, of the columns or arrays that are there.

    Parameters
    ----------
    names : sequence of str
        What is there.
    given : mapping of str to str
        Roles whose column the user named.
    where, what : str
        For the message.

    Raises
    ------
    UsageError
        If a column that the user named is not there.
    """
    strangers = [name for name in given.values() if name not in names]
    if strangers:
        raise UsageError(f"{where}: no {what} {strangers[0]!r}; there are {', '.join(sorted(names))}")
    free = [name for name in names if name not in given.values()]
    by_lower = {name.lower(): name for name in reversed(free)}
    found = dict(given)
    for role, aliases in ALIASES.items():
        name = next((by_lower[alias] for alias in aliases if alias in by_lower), None)
        if role not in found and name is not None:
            found[role] = name
    return found


def check_unique(keys: Sequence[str], *, where: str) -> None:
    """Raise an InputError where a key is empty, or there more than once; names such keys."""
    twice = [key for key, n in Counter(keys).items() if n > 1]
    if twice:
        shown = ", ".join(map(repr, twice[:5])) + (", ..." if len(twice) > 5 else "")
        raise InputError(f"{where}: {len(twice):,} keys are there more than once ({shown}); a key names one sample")
    if "" in keys:
        raise InputError(f"{where}: row {keys.index('') + 1:,} has an empty key")
