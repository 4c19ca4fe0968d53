"""What a user knows of foreign features beside them: a table of labels, or labels alone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath

from featx.caching.arrays import read_lines
from featx.caching.foreign import ROLES, ForeignFeatures, check_unique, find_columns
from featx.caching.npz import ArrayArchive
from featx.caching.tables import ENDINGS, TextTable
from featx.errors import InputError, UsageError


def with_labels(features: ForeignFeatures, path: Path) -> ForeignFeatures:
    """Join a file of labels.

    A table (.csv, .tsv) is joined by its key column: with a sample's key, else with its group (labels of slides for
    patches), with or without an ending like ``.svs``. Where the samples have no keys, its lines are taken in order, as
    are the values of an array (.npy) and the lines of a text file.

    Raises
    ------
    InputError
        If it has not one label for each row, or no key that is among the samples'.
    UsageError
        If it has another ending.
    """
    ending = path.suffix.lower()
    if ending == ".npy":
        return _aligned(features, {"label": ArrayArchive(path).texts("")}, path)
    if ending == ".txt":
        return _aligned(features, {"label": read_lines(path)}, path)
    if ending not in ENDINGS:
        raise UsageError(f"--labels {str(path)!r}: expected a .csv or .tsv table, or a .npy or .txt of labels alone")
    table = TextTable(path)
    roles = {role: name for role, name in find_columns(table.names, {}, where=str(path)).items() if role in ROLES}
    if not roles.keys() - {"key"}:
        raise InputError(f"{path}: no column label, group, split or fold among {', '.join(table.names)}")
    columns = table.columns(table.names)
    found = {role: columns[name] for role, name in roles.items()}
    if "key" not in features.columns:
        return _aligned(features, found, path, roles.get("group"))
    if "key" not in found:
        raise InputError(f"{path}: no key column among {', '.join(table.names)}; name it key, path or slide_id")
    return _joined(features, found, path, roles.get("group"))


def with_label_regex(features: ForeignFeatures, pattern: str) -> ForeignFeatures:
    """Take each sample's label from its key."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--label-regex {pattern!r} is not a regular expression: {error}") from error
    if not compiled.groups:
        raise UsageError(f"--label-regex {pattern!r} has no (group): put brackets around the part that is the label")
    keys = features.columns.get("key", [])
    labels = [(match.group(1) or "") if (match := compiled.search(key)) else "" for key in keys]
    if not any(labels):
        example = f"; the first key is {keys[0]!r}" if keys else ": the rows have no keys"
        raise InputError(f"--label-regex {pattern!r} finds no label in any key{example}")
    return replace(features, columns={**features.columns, "label": labels})


def _aligned(
    features: ForeignFeatures, found: dict[str, list[str]], path: Path, group_column: str | None = None
) -> ForeignFeatures:
    for role, values in found.items():
        if len(values) != features.n_samples:
            raise InputError(f"{path}: {len(values):,} values of {role} for {features.n_samples:,} rows")
    return replace(
        features,
        columns={**features.columns, **found},
        group_source=f"column {group_column}" if group_column is not None else features.group_source,
    )


def _joined(
    features: ForeignFeatures, found: dict[str, list[str]], path: Path, group_column: str | None
) -> ForeignFeatures:
    keys = found.pop("key")
    check_unique(keys, where=str(path))
    line_of_key = {key: line for line, key in enumerate(keys)}
    stems = [str(PurePosixPath(key).with_suffix("")) if PurePosixPath(key).name else key for key in keys]
    if len(set(stems)) == len(stems):  # else a name without its ending might be anybody's
        line_of_key = {stem: line for line, stem in enumerate(stems)} | line_of_key
    groups = features.columns.get("group") or [""] * features.n_samples
    lines = [
        line_of_key.get(key, line_of_key.get(group, -1))
        for key, group in zip(features.columns["key"], groups, strict=True)
    ]
    n_without, n_unused = lines.count(-1), len(keys) - len(set(lines) - {-1})
    if n_without == len(lines):
        raise InputError(
            f"{path}: none of its keys is a sample's; the first is {keys[0]!r}, the first sample "
            f"{features.columns['key'][0]!r}"
        )
    columns = dict(features.columns)
    for role, values in found.items():
        columns[role] = [values[line] if line >= 0 else "" for line in lines]
    if "group" in found:  # a patch without a word keeps its slide
        columns["group"] = [new or old for new, old in zip(columns["group"], groups, strict=True)]
    notes = list(features.notes)
    if n_without:
        notes.append(f"{n_without:,} of {len(lines):,} samples are not in {path.name}: no label")
    if n_unused:
        notes.append(f"{n_unused:,} of {len(keys):,} keys of {path.name} are no sample's")
    return replace(
        features,
        columns=columns,
        group_source=f"column {group_column}" if group_column is not None else features.group_source,
        notes=notes,
    )
