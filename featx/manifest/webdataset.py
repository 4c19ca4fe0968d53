"""WebDataset's tar shards as a manifest.

The members of a shard that share a name up to its first dot are one sample (https://github.com/webdataset/webdataset):
``ants/0001.jpg`` is its image, ``ants/0001.cls`` or the field ``label`` of ``ants/0001.json`` its label. Nothing is
unpacked: a sample's place is the shard with the offset and the size of the image in it.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from featx.errors import ManifestError
from featx.manifest import columns, files, locator
from featx.manifest.columns import Columns
from featx.manifest.folder import EXTENSIONS, labels_and_splits, utf8
from featx.manifest.record import Manifest
from featx.manifest.tar import DamagedTarError, Member, iter_members

SUFFIX = ".tar"
COMPRESSED = (".tgz", ".tbz", ".tbz2", ".txz", ".tzst", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4")

_LONGEST_TEXT = 1 << 24
_CLASS = "cls"


@dataclass
class _Sample:
    images: dict[str, Member] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)


class ShardPlaces(Sequence[str]):
    """The places of samples in shards, made when they are asked for: a million take 20 MB.

    Parameters
    ----------
    shards : list of str
        Paths or URLs.
    """

    def __init__(self, shards: list[str]) -> None:
        self._shards = shards
        self._shard, self._offset, self._size = array("L"), array("Q"), array("Q")

    def append(self, shard: int, member: Member) -> None:
        """Add a sample that is a member of a shard."""
        self._shard.append(shard)
        self._offset.append(member.offset)
        self._size.append(member.size)

    def __len__(self) -> int:
        return len(self._shard)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(len(self))[index]]
        return locator.place_in(locator.TAR, self._shards[self._shard[index]], self._offset[index], self._size[index])


def read_shards(root: str, names: Sequence[str], *, wanted: Columns, layout: str = "auto") -> Manifest:
    """List the samples of tar shards, shard by shard in the order of their names, sample by sample in a shard's own.

    Parameters
    ----------
    root : str
        A folder or its URL.
    names : sequence of str
        The shards' paths below it.
    wanted : Columns
        What the fields of a sample's ``.json`` are called, or the extensions of members that hold such a text; `path`
        is the extension of the image, where a sample has several.
    layout : str
        As for a folder (`featx.manifest.folder.read_listed`): of the members' names where no sample has a label, and
        of the shards' names (``train/000.tar``, ``train-000.tar``) where no sample has a split.

    Returns
    -------
    Manifest
        Keys are ``shard/member``. Other fields of one value are in `meta`. `skipped` counts the members that are used
        for nothing, by extension; links and devices in shards are never followed.

    Raises
    ------
    ManifestError
        If a shard is damaged or cut off (with the last whole member), holds a name twice, or one that climbs out of
        it; a text that is not UTF-8 or not JSON; a field that was named and is nowhere; or no image at all.
    """
    places = ShardPlaces([f"{root}/{name}" for name in names])
    keys: dict[str, None] = {}
    inside: list[str] = []
    rows: list[dict[str, str]] = []
    skipped: Counter[str] = Counter()
    per_shard: list[int] = []
    for number, name in enumerate(names):
        before = len(rows)
        for sample in _read_shard(f"{root}/{name}", wanted, skipped).values():
            image = _image_of(sample, wanted, f"{root}/{name}")
            if image is None:
                continue
            member = _inside(image.name)
            key = f"{name.removesuffix(SUFFIX)}/{member}"
            if key in keys:
                raise ManifestError(f"the key {key!r} is there twice", path=f"{root}/{name}")
            keys[key] = None
            inside.append(member)
            rows.append(_with_label(sample.fields, wanted))
            places.append(number, image)
        per_shard.append(len(rows) - before)
    if not keys:
        others = f" ({sum(skipped.values())} other members)" if skipped else ""
        raise ManifestError(f"no images in these shards{others}; expected members like 0001.jpg", path=root)
    found = columns.from_records(rows, wanted, where=root)
    labels, splits = labels_and_splits(inside, layout, root=root)
    by_name = columns.splits_of_names(names, layout)
    if by_name is not None:
        splits = [split for split, count in zip(by_name, per_shard, strict=True) for _ in range(count)]
    return Manifest(
        root=root,
        keys=list(keys),
        paths=places,
        labels=found.labels if any(found.labels) else labels,
        groups=found.groups,
        splits=found.splits if any(found.splits) else splits,
        folds=found.folds,
        meta=found.meta,
        group_source=found.group_source,
        skipped=dict(sorted(skipped.items())),
    )


def _read_shard(shard: str, wanted: Columns, skipped: Counter[str]) -> dict[str, _Sample]:
    samples: dict[str, _Sample] = {}
    try:
        found = files.stat_file(shard)
        with files.open_file(shard) as file:
            for member in iter_members(file, found[0] if found is not None else 0):
                _add(member, file, samples, wanted, skipped, shard)
    except DamagedTarError as error:
        raise ManifestError(f"this tar file is damaged: {error}", path=shard) from error
    except OSError as error:
        raise ManifestError(f"cannot read this tar file: {files.said(error)}", path=shard) from error
    return samples


def _add(
    member: Member, file: BinaryIO, samples: dict[str, _Sample], wanted: Columns, skipped: Counter[str], shard: str
) -> None:
    """Take what a member says of its sample, or count it as skipped."""
    folder, _, name = member.name.rpartition("/")
    stem, _, extension = name.partition(".")
    if member.kind == "folder" or name.startswith(".") or "__MACOSX" in folder.split("/"):
        return
    if member.kind != "file":
        skipped[f"{member.kind}s"] += 1
        return
    extension = extension.lower()
    is_text = extension in (_CLASS, "json", *map(str.lower, wanted.named()))
    is_image = files.suffix_of(name) in EXTENSIONS
    if not is_text and not is_image:
        skipped[files.suffix_of(name)] += 1
        return
    sample = samples.setdefault(f"{folder}/{stem}", _Sample())
    if is_image:
        if extension in sample.images:
            raise ManifestError(f"the member {member.name!r} is there twice", path=shard)
        sample.images[extension] = member
    else:
        sample.fields |= _fields(extension, _text(member, file, shard), f"{shard}: {member.name}")


def _text(member: Member, file: BinaryIO, shard: str) -> str:
    if member.size > _LONGEST_TEXT:
        raise ManifestError(f"the member {member.name!r} has {member.size:,} bytes; a text was expected", path=shard)
    file.seek(member.offset)
    try:
        return file.read(member.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"the member {member.name!r} is not UTF-8", path=shard) from error


def _fields(extension: str, text: str, where: str) -> dict[str, str]:
    if extension != "json":
        return {extension: text.strip()}
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"not JSON: {error}", path=where) from error
    if not isinstance(content, dict):
        return {}
    texts = ((name, columns.text_of(value)) for name, value in content.items())
    return {name: value for name, value in texts if value is not None}


def _image_of(sample: _Sample, wanted: Columns, shard: str) -> Member | None:
    images = sample.images
    if not wanted.is_default("path"):
        return images.get(wanted.path.lstrip(".").lower())
    plain = [extension for extension in images if "." not in extension]
    if len(images) > 1 and len(plain) != 1:
        names = ", ".join(sorted(repr(member.name) for member in images.values()))
        raise ManifestError(
            f"one sample has {len(images)} images ({names}): name the extension of the one to take with --path-column",
            path=shard,
        )
    return images[plain[0]] if plain else next(iter(images.values()), None)


def _with_label(fields: dict[str, str], wanted: Columns) -> dict[str, str]:
    """Take the text of ``.cls`` for the label, whatever a ``.json`` says, unless the user named another field."""
    if _CLASS not in fields or not wanted.is_default("label"):
        return fields
    return {wanted.label: fields[_CLASS]} | {
        name: value for name, value in fields.items() if name not in (_CLASS, wanted.label)
    }


def _inside(name: str) -> str:
    """Return a member's name as a part of a key."""
    parts = [part for part in utf8(name).split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ManifestError(f"the member {name!r} climbs out of the tar file", path=name)
    return "/".join(parts)
