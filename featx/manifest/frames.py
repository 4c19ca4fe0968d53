"""The images of files that hold several: pages of a TIFF, frames of an animation or of a DICOM file."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections import Counter
from typing import BinaryIO

from PIL import Image

from featx.errors import ManifestError
from featx.manifest.dicom_header import count_dicom_frames
from featx.manifest.locator import open_place
from featx.manifest.record import Manifest
from featx.manifest.signatures import DECODE_ERRORS, signature
from featx.manifest.tiff_pages import iter_directories

FRAMES = ("first", "all")
GROUP_SOURCE = "file of several images"

_HEAD = 256  # bytes in which a format shows itself


def with_frames(manifest: Manifest) -> Manifest:
    """Make a sample of each image in each file.

    A file of one image, and one that cannot be read, stays as it is. The others' keys are ``scan.tif#0001``,
    ``scan.tif#0002`` and so on, as viewers count pages. All images of a file have its label, split, fold and meta, and
    its group, or else the file itself is their group: they never straddle folds.

    Raises
    ------
    ManifestError
        If another sample has such a key already.
    """
    positions: list[int] = []
    keys: list[str] = []
    frames: list[int] = []
    several: list[int] = []
    for position, (key, place) in enumerate(zip(manifest.keys, manifest.paths, strict=True)):
        n = count_frames(place) if place and position not in manifest.refused else 1
        if n > 1:
            several += range(len(keys), len(keys) + n)
        digits = max(4, len(str(n)))
        positions += [position] * n
        keys += [f"{key}#{number:0{digits}}" for number in range(1, n + 1)] if n > 1 else [key]
        frames += range(n)
    if not several:
        return manifest
    if len(set(keys)) != len(keys):
        twice = next(key for key, n in Counter(keys).items() if n > 1)
        raise ManifestError(f"{twice!r} is the key of a file, and of an image in another file", path=manifest.root)
    expanded = manifest.take(positions)
    groups, ungrouped = list(expanded.groups), [sample for sample in several if not expanded.groups[sample]]
    for sample in ungrouped:
        groups[sample] = manifest.keys[positions[sample]]
    source = expanded.group_source
    if ungrouped:
        source = f"{source}, else the file" if source else GROUP_SOURCE
    return dataclasses.replace(expanded, keys=keys, frames=frames, groups=groups, group_source=source)


def count_frames(place: str) -> int:
    """Return how many images a file holds, without decoding any; 1 where it cannot be told."""
    try:
        with open_place(place) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            n = _count(file)
            # A number that is only claimed may be anything, but every image has a byte at least.
            return n if 1 <= n <= file.seek(0, os.SEEK_END) else 1
    except DECODE_ERRORS:
        return 1


def _count(file: BinaryIO) -> int:
    kind = signature(file.read(_HEAD))
    file.seek(0)
    match kind:
        case "TIFF":
            return sum(1 for _ in iter_directories(file))
        case "DICOM":
            return count_dicom_frames(file)
        case "GIF" | "WEBP" | "PNG" | "AVIF":
            with Image.open(file, formats=(kind,)) as image:
                return getattr(image, "n_frames", 1)
        case "HEIC":
            return _count_heic(file.read())
    return 1


def _count_heic(data: bytes) -> int:
    try:
        from pillow_heif import open_heif
    except ImportError:
        return 1
    return len(open_heif(data))
