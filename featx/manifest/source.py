"""The one door to samples: whatever kind of source the user names, or Python's own lists."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import re
import struct
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from featx.errors import ImageDecodeError, ManifestError, UnknownNameError, UsageError
from featx.manifest import kinds
from featx.manifest.dicom_header import with_patients
from featx.manifest.find import look
from featx.manifest.folder import utf8
from featx.manifest.frames import FRAMES, with_frames
from featx.manifest.locator import read_place, stat_place
from featx.manifest.record import SPLITS, Manifest


@dataclass(frozen=True)
class SourceOptions:
    """How a source is read.

    Attributes
    ----------
    layout : str
        Of a folder: ``"auto"``, ``"classes"``, ``"splits"`` or ``"flat"``; see `featx.manifest.folder`.
    root : str or None
        Of a table: the folder to which its paths are relative; None: the table's own.
    path_column, label_column, group_column, split_column, fold_column : str
        Names of a table's columns. All but `path_column` may be absent, unless they are named here.
    group_regex : str or None
        Searched in every key; its first capture group is the group, ``""`` where it does not match. It takes the place
        of a table's group column, which is then kept as meta.
    frames : str
        Of files that hold several images ``"first"`` or ``"all"``; see `featx.manifest.frames`. What `group_regex` is
        searched in are the files' keys.
    limit : int or None
        Keep so many samples, spread over the manifest: every class of every split in proportion, and at least once
        where the limit allows.
    """

    layout: str = "auto"
    root: str | None = None
    path_column: str = "path"
    label_column: str = "label"
    group_column: str = "group"
    split_column: str = "split"
    fold_column: str = "fold"
    group_regex: str | None = None
    frames: str = "first"
    limit: int | None = None


def read_source(source: str | os.PathLike[str], options: SourceOptions = SourceOptions()) -> Manifest:
    """List the samples of a folder, a table, tar shards, Parquet files, CIFAR-10's batches, or one image file.

    Parameters
    ----------
    source : path
        Or a URL, or a pattern such as ``shards/train-{000..012}.tar``; see `featx.manifest.kinds` for what is
        recognised as what.
    options : SourceOptions
        Those that have no meaning for this kind of source must be left alone.

    Raises
    ------
    ManifestError
        If the source does not exist, holds no sample, or cannot be understood (with the line of a table); if
        `group_regex` matches no key.
    UsageError
        If the options do not fit together, or do not fit this kind of source; an `UnknownNameError` for an unknown
        value of `frames`.
    MissingExtraError
        If an optional dependency is needed for it.
    """
    found = look(source)
    kind = kinds.kind_of(found)
    named = {field.name for field in dataclasses.fields(options) if getattr(options, field.name) != field.default}
    _check_options(named, kind.options, kind.name)
    manifest = kind.read(found, options)
    if options.group_regex is not None:
        if "group_column" in named:
            raise UsageError("groups come from group_column or from group_regex, not from both")
        manifest = with_regex_groups(manifest, options.group_regex)
    manifest = _with_headers(manifest, options.frames)
    return manifest if options.limit is None else _limited(manifest, options.limit)


def _with_headers(manifest: Manifest, frames: str) -> Manifest:
    """Add what only the files themselves can tell: whom a DICOM file shows, and how many images there are."""
    if frames not in FRAMES:
        raise UnknownNameError("value of frames", frames, FRAMES)
    manifest = with_patients(manifest)
    return with_frames(manifest) if frames == "all" else manifest


def as_manifest(source: str | os.PathLike[str] | Manifest | Sequence[Any], options: SourceOptions) -> Manifest:
    """Return a stage's source as a manifest: a manifest as it is, a path read, a sequence listed.

    Raises
    ------
    ManifestError, UsageError
        As `read_source` and `manifest_of`.
    """
    if isinstance(source, Manifest):
        return source
    if isinstance(source, str | os.PathLike):
        return read_source(source, options)
    return _with_headers(manifest_of(source), options.frames)


def manifest_of(
    items: Sequence[Any],
    *,
    labels: Sequence[Any] | None = None,
    groups: Sequence[Any] | None = None,
    splits: Sequence[Any] | None = None,
    keys: Sequence[Any] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Manifest:
    """Return the manifest of samples that Python holds.

    Parameters
    ----------
    items : sequence of path, PIL.Image.Image, or uint8 array (height, width[, channels])
        May be mixed; an array (n, height, width, channels) is a sequence of images too.
    labels, groups, splits : sequence, or None
        One for each item, turned into text; None and NaN are unknown.
    keys : sequence, or None
        Unique names; None: a path as it is given, below `root` where one is given, and the position (``"000017"``)
        for images in memory.
    root : path, or None
        Folder to which relative paths are relative; None: the current one.

    Raises
    ------
    ManifestError
        If there is no item or one of another kind, a column of another length, a key twice, or an unknown split.
    """
    if isinstance(items, (str, bytes, os.PathLike)):
        raise UsageError(f"expected a sequence of images, got one path: read_source({str(items)!r}) reads it")
    if isinstance(items, np.ndarray) and items.ndim == 3 and items.shape[2] <= 4:
        raise UsageError(f"expected a sequence of images, got an array {items.shape}: put one image into a list")
    listed = list(items)
    if not listed:
        raise ManifestError("no images", path="list")
    paths, arrays = [], []
    for position, item in enumerate(listed):
        is_path = isinstance(item, (str, os.PathLike))
        if not is_path:
            _check_pixels(item, position)
        paths.append(os.fsdecode(item) if is_path else "")
        arrays.append(None if is_path else item)
    texts = [path or f"{position:06d}" for position, path in enumerate(paths)] if keys is None else _texts(keys)
    folder = "" if root is None else os.fsdecode(root)
    names = [utf8(text.replace(os.sep, "/")) for text in texts]
    twice = [key for key, n in Counter(names).items() if n > 1]
    if twice:
        raise ManifestError(f"{twice[0]!r} is there twice; give every item its own key with `keys`", path="list")
    manifest = Manifest(
        root=folder,
        keys=names,
        paths=[os.path.join(folder, path) if path else "" for path in paths],  # noqa: PTH118
        labels=_texts(labels, len(listed)),
        groups=_texts(groups, len(listed)),
        splits=[_split(text) for text in _texts(splits, len(listed))],
        folds=[""] * len(listed),
        arrays=arrays if "" in paths else None,
        group_source="argument groups" if groups is not None else "",
    )
    for name in ("keys", "labels", "groups", "splits"):
        if len(getattr(manifest, name)) != len(listed):
            raise ManifestError(f"{len(getattr(manifest, name))} {name} for {len(listed)} items", path="list")
    return manifest


def read_bytes(manifest: Manifest, position: int) -> bytes:
    """Read the file of a sample.

    Raises
    ------
    ImageDecodeError
        With the key and the reason ``"missing"``, ``"unreadable"``, ``"empty"``, ``"symlink-loop"`` or
        ``"name-not-utf8"``.
    """
    key = manifest.keys[position]
    if position in manifest.refused:
        raise ImageDecodeError(manifest.refused[position], key=key)
    return read_place(manifest.paths[position], key=key)


def stat(manifest: Manifest, position: int) -> tuple[int, int] | None:
    """Return (bytes, modification time in ns) of a sample's file.

    None if there is no such file. For pixels in memory (0, 0), which says nothing about whether they changed.
    """
    path = manifest.paths[position]
    if not path:
        return 0, 0
    return stat_place(path)


def stat_all(manifest: Manifest, positions: Sequence[int]) -> NDArray[np.int64]:
    """Return `stat` of some samples as int64 (n, 2); (-1, -1) where there is no such file."""
    paths, n = manifest.paths, len(positions)
    found = (stat_place(path) or (-1, -1) if (path := paths[position]) else (0, 0) for position in positions)
    return np.fromiter(itertools.chain.from_iterable(found), np.int64, 2 * n).reshape(n, 2)


def sample_sha256(manifest: Manifest, position: int, data: bytes | None = None) -> str:
    """Return the sample's SHA-256 (64 hex digits).

    Of a file's bytes (`data`, where they have been read already); of an array's shape, dtype and pixels; of a PIL
    image's mode, size, pixels, palette, transparency and orientation: of all that decides the result.

    Raises
    ------
    ImageDecodeError
        As `read_bytes`; ``"corrupt"`` for a PIL image that cannot be loaded.
    """
    if manifest.paths[position]:
        frame = 0 if manifest.frames is None else manifest.frames[position]
        return bytes_sha256(read_bytes(manifest, position) if data is None else data, frame=frame)
    item = manifest.arrays[position] if manifest.arrays is not None else None
    if isinstance(item, Image.Image):
        try:
            return _image_sha256(item)
        except (OSError, SyntaxError, ValueError, LookupError, TypeError, struct.error) as error:
            # a lazily opened file that turns out damaged
            raise ImageDecodeError("corrupt", str(error), key=manifest.keys[position]) from error
    array = np.ascontiguousarray(item)
    return hashlib.sha256(f"{array.shape} {array.dtype.str} ".encode() + array.tobytes()).hexdigest()


def bytes_sha256(data: bytes, *, frame: int = 0) -> str:
    """Return the SHA-256 of one image in a file: of the file's bytes, and of the frame's number after the first."""
    digest = hashlib.sha256(data)
    if frame:
        digest.update(f" frame {frame}".encode())
    return digest.hexdigest()


def _image_sha256(image: Image.Image) -> str:
    pixels = image.tobytes()
    palette = image.getpalette("RGBA") if image.mode in ("P", "PA") else None
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    about = (image.mode, image.size, palette, image.info.get("transparency"), orientation)
    return hashlib.sha256(f"{about}".encode() + pixels).hexdigest()


def count_by(manifest: Manifest) -> dict[str, dict[str, int]]:
    """Count the samples by label, group, split and fold: ``{"labels": {"ants": 70, ...}, ...}``, sorted by name.

    ``""`` counts those for which it is unknown.
    """
    names = ("labels", "groups", "splits", "folds")
    return {name: dict(sorted(Counter(getattr(manifest, name)).items())) for name in names}


def _check_options(named: set[str], allowed: frozenset[str], kind: str) -> None:
    strangers = named - allowed - {"group_regex", "limit"}
    if strangers:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(strangers))
        raise UsageError(f"{options} has no meaning for {kind}")


def with_regex_groups(manifest: Manifest, pattern: str) -> Manifest:
    """Take each sample's group from its key; see `SourceOptions.group_regex`.

    Raises
    ------
    UsageError
        If the pattern is not a regular expression with a group.
    ManifestError
        If it matches no key.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--group-regex {pattern!r} is not a regular expression: {error}") from error
    if not compiled.groups:
        raise UsageError(f"--group-regex {pattern!r} has no (group): put brackets around the part that names the group")
    matches = map(compiled.search, manifest.keys)
    groups = [(match.group(1) or "") if match else "" for match in matches]
    if not any(groups):
        raise ManifestError(
            f"--group-regex {pattern!r} finds no group in any key; {_example(manifest)}", path=manifest.root
        )
    meta = manifest.meta
    if manifest.group_source:
        meta = {manifest.group_source.removeprefix("column "): manifest.groups, **meta}
    return dataclasses.replace(manifest, groups=groups, meta=meta, group_source=f"regex {pattern}")


def _example(manifest: Manifest) -> str:
    return f"the first key is {manifest.keys[0]!r}"


def _limited(manifest: Manifest, limit: int) -> Manifest:
    """Keep some samples: as many of each (split, label) as is its share, and those evenly spread."""
    if limit < 1:
        raise UsageError(f"--limit needs at least 1, got {limit}")
    members: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for position, kind in enumerate(zip(manifest.splits, manifest.labels, strict=True)):
        members[kind].append(position)
    # Adams' apportionment: everyone's first seat comes before anyone's second.
    seats = sorted((seat / len(some), kind) for kind, some in members.items() for seat in range(len(some)))
    shares = Counter(kind for _, kind in seats[:limit])
    kept = [members[kind][seat * len(members[kind]) // n] for kind, n in shares.items() for seat in range(n)]
    return manifest.take(sorted(kept))


def _texts(values: Sequence[Any] | None, n: int = 0) -> list[str]:
    if values is None:
        return [""] * n
    return ["" if value is None or value != value else str(value) for value in values]  # NaN is not itself


def _split(text: str) -> str:
    if text and text.lower() not in SPLITS:
        raise ManifestError(f"{text!r} is not a split; expected {', '.join(SPLITS)}", path="list")
    return SPLITS[text.lower()] if text else ""


def _check_pixels(item: object, position: int) -> None:
    if isinstance(item, Image.Image):
        return
    expected = f"item {position}: expected a path, a PIL image or a uint8 array (height, width[, 1 to 4 channels])"
    if not isinstance(item, np.ndarray):
        raise ManifestError(f"{expected}, got {type(item).__name__}", path="list")
    shape_is_right = item.size and (item.ndim == 2 or (item.ndim == 3 and 1 <= item.shape[2] <= 4))
    if item.dtype != np.uint8 or not shape_is_right:
        raise ManifestError(f"{expected}, got {item.dtype} {item.shape}", path="list")
