"""Which samples belong together: what must never be on both sides of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class GroupIds:
    """Groups as consecutive integers.

    Attributes
    ----------
    ids : int array (n_samples,), or None
        0 ... n - 1 in order of first appearance; None when nothing is grouped at all.
    n : int
        How many groups there are, groups of one sample included; 0 when `ids` is None.
    source : str
        Where they come from, in words: ``"column patient"``, ``"identical bytes"``, ``"column patient, joined by
        identical bytes and near-duplicates"``; ``""`` when `ids` is None.
    given : bool
        Whether the source named groups. False with `ids` not None: only identical bytes are held together, and the
        user must still hear that no groups were given.
    names : tuple of str
        One name for each group, for messages: what the source calls it (two that identical bytes join are
        ``"a + b"``), else the key of its sample (identical ones are ``"1.png = 2.png"``).
    """

    ids: IntArray | None
    n: int
    source: str
    given: bool
    names: tuple[str, ...]

    def take(self, rows: IntArray) -> GroupIds:
        """Return the groups of some samples; numbers and names stay."""
        if self.ids is None:
            return self
        ids = self.ids[rows]
        return replace(self, ids=ids, n=len(np.unique(ids)))


def resolve_groups(
    groups: Sequence[str] | NDArray[np.object_],
    sha256: Sequence[str] | NDArray[np.object_],
    group_source: str,
    *,
    keys: Sequence[str] | NDArray[np.object_] | None = None,
    pairs: IntArray | None = None,
) -> GroupIds:
    """Join samples of the same group, and samples of identical bytes, into connected components.

    Parameters
    ----------
    groups : str sequence (n_samples,)
        ``''`` = no group given: the sample is a group of its own.
    sha256 : str sequence (n_samples,)
        Of the samples' bytes; ``''`` = unknown, equal to nothing.
    group_source : str
        Where `groups` come from, in words.
    keys : str sequence (n_samples,), optional
        Names for groups that have none.
    pairs : int array (n_pairs, 2), optional
        Samples that are to be joined as well: near-duplicates.

    Returns
    -------
    GroupIds
        Two samples have the same id when a chain of equal groups, equal bytes and pairs leads from one to the other.
    """
    n_samples = len(groups)
    given = any(groups)
    # A graph of samples and of the values that they share; '' is shared with nobody.
    values = [("group", str(group)) for group in groups] + [("sha256", str(sha)) for sha in sha256]
    edges = [(place % n_samples, value) for place, value in enumerate(values) if value[1]]
    node_of = {value: n_samples + place for place, value in enumerate(dict.fromkeys(value for _, value in edges))}
    rows = [sample for sample, _ in edges]
    columns = [node_of[value] for _, value in edges]
    ids, n_groups = _components(n_samples, len(node_of), rows, columns)
    n_without_pairs = n_groups
    if pairs is not None and len(pairs):
        rows, columns = [*rows, *pairs[:, 0].tolist()], [*columns, *pairs[:, 1].tolist()]
        ids, n_groups = _components(n_samples, len(node_of), rows, columns)
    if not given and n_groups == n_samples:
        return GroupIds(None, 0, "", given=False, names=())

    n_apart = len({str(group) for group in groups if group}) + sum(1 for group in groups if not group)
    source = (group_source or "groups as given") if given else ""
    joined_by = ["identical bytes"] * (n_without_pairs < n_apart) + ["near-duplicates"] * (n_groups < n_without_pairs)
    if joined_by:
        source += f"{', joined by ' if given else ''}{' and '.join(joined_by)}"
    return GroupIds(ids, n_groups, source, given=given, names=_names(ids, n_groups, groups, keys))


def _components(n_samples: int, n_values: int, rows: list[int], columns: list[int]) -> tuple[IntArray, int]:
    """Give the samples of a graph of samples and values the numbers of their components, in order of appearance."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = n_samples + n_values
    graph = coo_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(size, size))
    _, components = connected_components(graph, directed=False)
    _, first, inverse = np.unique(components[:n_samples], return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse], len(first)


def _names(
    ids: IntArray,
    n_groups: int,
    groups: Sequence[str] | NDArray[np.object_],
    keys: Sequence[str] | NDArray[np.object_] | None,
) -> tuple[str, ...]:
    own: list[dict[str, None]] = [{} for _ in range(n_groups)]
    own_keys: list[list[str]] = [[] for _ in range(n_groups)]
    for place, (number, group) in enumerate(zip(ids, groups, strict=True)):
        if group:
            own[number][str(group)] = None
        own_keys[number].append(str(keys[place]) if keys is not None else f"sample {place}")
    return tuple(" + ".join(names) or " = ".join(some) for names, some in zip(own, own_keys, strict=True))
