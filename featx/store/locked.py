"""The samples of a feature file that are kept for the last test, and an account of every look at them.

Who is locked is remembered by key, by the bytes and by the group, and nothing is ever taken out of that memory: a
sample that leaves the source and comes back, under another name or not, is locked again, and so is a new picture of the
same patient.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import h5py

from featx.store.columns import read_strings, write_strings

LOCKED = "locked"
"""Name of the HDF5 group."""
COLUMNS = ("keys", "sha256", "groups")


@dataclass(frozen=True)
class Look:
    """One look at the labels of the locked samples.

    Attributes
    ----------
    date : str
        When, in UTC: ``2026-03-01T09:30:00Z``.
    bundle, bundle_sha256 : str
        The classifier that was scored: name of its file, and SHA-256 of its bytes.
    n_samples : int
        How many samples were scored.
    looks_before_fit : int or None
        How many looks there had been when the classifier was fitted on this file; None where it does not say.
    scores : dict of str to float or None
        What came out.
    """

    date: str
    bundle: str
    bundle_sha256: str
    n_samples: int
    looks_before_fit: int | None = None
    scores: dict[str, float | None] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class LockedSet:
    """The locked part of a feature file.

    Attributes
    ----------
    date : str
        When it was locked, in UTC.
    how : str
        How the samples were chosen, in words.
    members : tuple of (str, str, str)
        Key, SHA-256 and group of every sample that is or was locked; ``""`` = unknown. A sample whose bytes or group
        changed is there more than once.
    group_source : str
        Where the groups come from, in words.
    looks : tuple of Look
        Earliest first.
    """

    date: str
    how: str
    members: tuple[tuple[str, str, str], ...] = field(repr=False)
    group_source: str = ""
    looks: tuple[Look, ...] = ()

    @property
    def keys(self) -> frozenset[str]:
        """Keys of all samples that are locked; a file is written so that it needs no more to know its own."""
        return frozenset(key for key, _, _ in self.members)

    def with_look(self, look: Look) -> LockedSet:
        """Return the same with one more look."""
        return replace(self, looks=(*self.looks, look))

    def find(
        self, keys: Sequence[str], sha256: Iterable[str], groups: Iterable[str], *, group_source: str
    ) -> list[bool]:
        """Say which samples are locked.

        A sample is, if it has the key, the bytes or the group of one that is or was locked, or shares bytes or group
        with a sample that is locked for such a reason, and so on. Groups of the past count as long as they come from
        the same source: ``1`` of another column is somebody else.

        Parameters
        ----------
        keys : sequence of str (n,)
        sha256, groups : iterable of str (n,)
            ``""`` = unknown.
        group_source : str
            Where `groups` come from.
        """
        known_keys = {key for key, _, _ in self.members}
        known = {("sha256", sha) for _, sha, _ in self.members if sha}
        if group_source == self.group_source:
            known |= {("group", group) for _, _, group in self.members if group}
        own = [
            [value for value in (("sha256", sha), ("group", group)) if value[1]]
            for sha, group in zip(sha256, groups, strict=True)
        ]
        locked = [False] * len(keys)
        is_new = True
        while is_new:
            is_new = False
            for place, key in enumerate(keys):
                if not locked[place] and (key in known_keys or any(value in known for value in own[place])):
                    locked[place] = is_new = True
                    known.update(own[place])
        return locked

    def extended(
        self, keys: Sequence[str], sha256: Sequence[str], groups: Sequence[str], *, group_source: str
    ) -> LockedSet:
        """Take in all samples of a manifest that are locked now, see `find`."""
        locked = self.find(keys, sha256, groups, group_source=group_source)
        now = [
            (key, sha, group)
            for key, sha, group, is_locked in zip(keys, sha256, groups, locked, strict=True)
            if is_locked
        ]
        members = self.members
        if group_source != self.group_source:  # names of another source would be taken for those of this one
            members = tuple((key, sha, "") for key, sha, _ in members)
        return replace(self, members=tuple(dict.fromkeys((*members, *now))), group_source=group_source)


def united(sets: Iterable[LockedSet | None]) -> LockedSet | None:
    """Return one locked set for several files that become one: what is locked in any is locked, every look counts."""
    known = list(dict.fromkeys(one for one in sets if one is not None))
    if len(known) < 2:
        return known[0] if known else None
    earliest = min(known, key=lambda one: one.date)
    same_source = len({one.group_source for one in known}) == 1
    members = dict.fromkeys(
        (key, sha, group if same_source else "") for one in known for key, sha, group in one.members
    )
    looks = {json.dumps(asdict(look), sort_keys=True): look for one in known for look in one.looks}
    return LockedSet(
        date=earliest.date,
        how="; ".join(dict.fromkeys(one.how for one in known)),
        members=tuple(members),
        group_source=earliest.group_source if same_source else "",
        looks=tuple(sorted(looks.values(), key=lambda look: look.date)),
    )


def write_locked(h5: h5py.File, locked: LockedSet) -> None:
    """Write it as a group of strings."""
    group = h5.create_group(LOCKED)
    for place, name in enumerate(COLUMNS):
        write_strings(group, name, [member[place] for member in locked.members])
    write_strings(group, "looks", [json.dumps(asdict(look), sort_keys=True) for look in locked.looks])
    about = {"date": locked.date, "how": locked.how, "group_source": locked.group_source}
    write_strings(group, "about", [json.dumps(about, sort_keys=True)])


def read_locked(h5: h5py.File) -> LockedSet | None:
    """Read what `write_locked` wrote; None where nothing is locked; ValueError or TypeError where it is damaged."""
    if LOCKED not in h5:
        return None
    group = h5[LOCKED]
    columns = [read_strings(group, name) for name in COLUMNS]
    about: dict[str, Any] = json.loads(read_strings(group, "about")[0])
    return LockedSet(
        date=str(about["date"]),
        how=str(about["how"]),
        members=tuple(zip(*columns, strict=True)),
        group_source=str(about["group_source"]),
        looks=tuple(_looks(read_strings(group, "looks"))),
    )


def _looks(texts: list[str]) -> Iterator[Look]:
    fields = set(Look.__dataclass_fields__)
    for text in texts:
        yield Look(**{name: value for name, value in json.loads(text).items() if name in fields})
