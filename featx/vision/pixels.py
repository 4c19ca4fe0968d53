"""From one sample's place to its pixels and its entry in the ledger, once for everything that is wanted of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featx.errors import ImageDecodeError
from featx.manifest import source
from featx.manifest.locator import read_place, stat_place
from featx.manifest.record import Manifest
from featx.spec import FeatureSpec, Preprocess
from featx.store.records import FAILED, OK, LedgerEntry
from featx.vision.images import array_to_rgb, extension_note, open_rgb, preprocess_pixels
from featx.vision.reading import ImageFacts, Reading
from featx.vision.views import PLAIN, apply_view

Decode = Callable[[Reading], tuple[Image.Image, ImageFacts]]


@dataclass(frozen=True)
class PixelPlan:
    """How an image becomes the pixels that one spec's network sees.

    Attributes
    ----------
    preprocess : Preprocess
        Without mean and std, which are for the network's input, later.
    views : tuple of str
        As in `featx.spec.FeatureSpec`.
    """

    preprocess: Preprocess
    views: tuple[str, ...] = (PLAIN,)

    @classmethod
    def of(cls, spec: FeatureSpec) -> PixelPlan:
        """Return how a spec reads its images."""
        return cls(replace(spec.preprocess, mean=(), std=()), spec.views)

    @property
    def reading(self) -> Reading:
        """How a file is decoded: plans that agree in it share the decoded image."""
        return Reading.of(self.preprocess)


@dataclass(frozen=True)
class Outcome:
    """What became of a sample by one plan.

    Attributes
    ----------
    entry : LedgerEntry
        Its account.
    pixels : uint8 array (n_views, 3, height, width), or None
        None where it failed.
    """

    entry: LedgerEntry
    pixels: NDArray[np.uint8] | None = None


def read_sample(manifest: Manifest, position: int, plans: Sequence[PixelPlan]) -> list[Outcome]:
    """Read, hash and decode a sample in this process: one outcome for each plan."""
    key = manifest.keys[position]
    if position in manifest.refused:
        return [Outcome(LedgerEntry(key, FAILED, manifest.refused[position]))] * len(plans)
    if manifest.arrays is not None and not manifest.paths[position]:
        return _read_item(manifest, position, plans)
    return read_file(manifest.paths[position], key, frame_of(manifest, position), plans)


def frame_of(manifest: Manifest, position: int) -> int:
    """Return which image of its file a sample is."""
    return 0 if manifest.frames is None else int(manifest.frames[position])


def read_file(place: str, key: str, frame: int, plans: Sequence[PixelPlan]) -> list[Outcome]:
    """Read, hash and decode one image of a file: one outcome for each plan.

    Parameters
    ----------
    place, key : str
        See `featx.manifest.record.Manifest`.
    frame : int
        Which image of the file.
    plans : sequence of PixelPlan
        What is wanted of it.
    """
    # The time before the bytes: a file that changes in between looks changed the next time.
    known = stat_place(place)
    mtime_ns = known[1] if known is not None else 0
    try:
        data = read_place(place, key=key)
    except ImageDecodeError as error:
        # An empty file that did not change is not read again.
        entry = LedgerEntry(key, FAILED, mtime_ns=mtime_ns if error.reason == "empty" else 0)
        return [Outcome(_failed(entry, error))] * len(plans)
    sha256 = source.bytes_sha256(data, frame=frame)
    # The size as it will be asked for again: of an image in a Parquet file that is not its own.
    size = known[0] if known is not None else len(data)
    entry = LedgerEntry(key, FAILED, sha256=sha256, bytes=size, mtime_ns=mtime_ns)
    return _outcomes(entry, plans, lambda reading: open_rgb(data, reading, frame=frame))


def _read_item(manifest: Manifest, position: int, plans: Sequence[PixelPlan]) -> list[Outcome]:
    entry = LedgerEntry(manifest.keys[position], FAILED)
    try:
        entry = replace(entry, sha256=source.sample_sha256(manifest, position))
    except ImageDecodeError as error:
        return [Outcome(_failed(entry, error))] * len(plans)

    def to_rgb(reading: Reading) -> tuple[Image.Image, ImageFacts]:
        assert manifest.arrays is not None
        image = array_to_rgb(manifest.arrays[position], reading)
        return image, ImageFacts("", "", image.width, image.height)

    return _outcomes(entry, plans, to_rgb)


def _outcomes(entry: LedgerEntry, plans: Sequence[PixelPlan], decode: Decode) -> list[Outcome]:
    decoded: dict[Reading, tuple[Image.Image, ImageFacts] | ImageDecodeError] = {}
    readings = [plan.reading for plan in plans]
    for reading in readings:
        if reading not in decoded:
            try:
                decoded[reading] = decode(reading)
            except ImageDecodeError as error:
                decoded[reading] = error
    return [_outcome(entry, plan, decoded[reading]) for plan, reading in zip(plans, readings, strict=True)]


def _outcome(
    entry: LedgerEntry, plan: PixelPlan, decoded: tuple[Image.Image, ImageFacts] | ImageDecodeError
) -> Outcome:
    if isinstance(decoded, ImageDecodeError):
        return Outcome(_failed(entry, decoded))
    image, facts = decoded
    entry = replace(entry, format=facts.format, width=facts.width, height=facts.height, mode=facts.mode)
    try:
        pixels = np.stack([preprocess_pixels(apply_view(image, view), plan.preprocess) for view in plan.views])
    except ImageDecodeError as error:
        return Outcome(_failed(entry, error))
    return Outcome(replace(entry, status=OK, reason=extension_note(entry.key, facts.format)), pixels)


def _failed(entry: LedgerEntry, error: ImageDecodeError) -> LedgerEntry:
    reason = f"{error.reason}: {error.detail}" if error.detail else error.reason
    if error.missing:  # as if never read, so that it is tried again
        entry = LedgerEntry(entry.key, FAILED)
    return replace(entry, status=FAILED, reason=reason)
