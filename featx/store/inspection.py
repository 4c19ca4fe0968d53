"""Looking at shards and their journal without using them: every line, every byte."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from featx.store.shards import Shard, parse_line

_PIECE = 8 * 1024 * 1024


@dataclass(frozen=True)
class FolderState:
    """What a folder of shards holds.

    Attributes
    ----------
    shards : list of Shard
        Those that count.
    problems : list of str
        Lines and shards that do not count because of damage.
    notes : list of str
        What a kill leaves behind and is no damage.
    """

    shards: list[Shard] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def inspect_shards(folder: Path) -> FolderState:
    """Check each line of a journal, and the bytes of each shard that it names.

    Raises
    ------
    OSError
        If the journal cannot be read.
    """
    state = FolderState()
    named = set()
    for number, line in enumerate((folder / "journal").read_bytes().splitlines(keepends=True), start=1):
        shard = parse_line(line)
        if shard is not None:
            named.add(shard.name)
            damage = _damage_of(folder / shard.name, shard)
            if damage:
                state.problems.append(f"{shard.name}, line {number} of the journal: {damage}")
            else:
                state.shards.append(shard)
        elif line.endswith(b"\n"):
            state.problems.append(f"line {number} of the journal does not match its checksum")
        else:
            state.notes.append(f"line {number} of the journal ends in the middle: the writer was killed")
    orphans = sum(path.name not in named for path in folder.glob("shard-*.h5"))
    if orphans:
        state.notes.append(f"{orphans:,} shards that no line names: the writer was killed before it wrote the line")
    return state


def _damage_of(path: Path, shard: Shard) -> str:
    """Say what is wrong with a shard's file; ``""`` where it is what was written."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
                size += len(piece)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    if size != shard.size:
        return f"it has {size:,} bytes, not {shard.size:,}"
    return "" if digest.hexdigest() == shard.sha256 else "it does not have its sha256"
