"""From one sample's place to its pixels and its entry in the ledger, once for everything that is wanted of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featx.errors import ImageDecodeError
from featx.manifest import source
from featx.manifest.locator import read_place, stat_place
from featx.manifest.record import Manifest
from featx.spec import FeatureSpec, Preprocess
from featx.store.records import FAILED, OK, LedgerEntry
from featx.vision.images import ImageFacts, array_to_rgb, extension_note, open_rgb, preprocess_pixels

PLAIN = "plain"


@dataclass(frozen=True)
class Reading:
    """A way in which an image becomes pixels.

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
    def of(cls, spec: FeatureSpec) -> Reading:
        """Return how a spec reads its images."""
        return cls(replace(spec.preprocess, mean=(), std=()), spec.views)

    @property
    def decoding(self) -> Preprocess:
        """What of the preprocess decides how a file is decoded: readings that agree in it share the decoded image."""
        if self.preprocess.decoder != "pillow":  # it may look at the size that is wanted
            return self.preprocess
        return replace(self.preprocess, resize=(), crop=(), interpolation="")


@dataclass(frozen=True)
class Outcome:
    """What became of one reading of a sample.

    Attributes
    ----------
    entry : LedgerEntry
        Its account.
    pixels : uint8 array (n_views, 3, height, width), or None
        None where it failed.
    """

    entry: LedgerEntry
    pixels: NDArray[np.uint8] | None = None


def read_sample(manifest: Manifest, position: int, readings: Sequence[Reading]) -> list[Outcome]:
    """Read, hash and decode a sample in this process: one outcome for each reading."""
    key = manifest.keys[position]
    if position in manifest.refused:
        return [Outcome(LedgerEntry(key, FAILED, manifest.refused[position]))] * len(readings)
    if manifest.arrays is not None and not manifest.paths[position]:
        return _read_item(manifest, position, readings)
    return read_file(manifest.paths[position], key, frame_of(manifest, position), readings)


def frame_of(manifest: Manifest, position: int) -> int:
    """Return which image of its file a sample is."""
    return 0 if manifest.frames is None else int(manifest.frames[position])


def read_file(place: str, key: str, frame: int, readings: Sequence[Reading]) -> list[Outcome]:
    """Read, hash and decode one image of a file: one outcome for each reading.

    Parameters
    ----------
    place, key : str
        See `featx.manifest.record.Manifest`.
    frame : int
        Which image of the file.
    readings : sequence of Reading
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
        return [Outcome(_failed(entry, error))] * len(readings)
    sha256 = source.bytes_sha256(data, frame=frame)
    entry = LedgerEntry(key, FAILED, sha256=sha256, bytes=len(data), mtime_ns=mtime_ns)
    return _outcomes(entry, readings, lambda decoding: open_rgb(data, window=decoding.window))


def _read_item(manifest: Manifest, position: int, readings: Sequence[Reading]) -> list[Outcome]:
    entry = LedgerEntry(manifest.keys[position], FAILED)
    try:
        entry = replace(entry, sha256=source.sample_sha256(manifest, position))
    except ImageDecodeError as error:
        return [Outcome(_failed(entry, error))] * len(readings)

    def to_rgb(decoding: Preprocess) -> tuple[Image.Image, ImageFacts]:
        assert manifest.arrays is not None
        image = array_to_rgb(manifest.arrays[position], window=decoding.window)
        return image, ImageFacts("", "", image.width, image.height)

    return _outcomes(entry, readings, to_rgb)


def _outcomes(entry: LedgerEntry, readings: Sequence[Reading], decode: Any) -> list[Outcome]:
    decoded: dict[Preprocess, tuple[Image.Image, ImageFacts] | ImageDecodeError] = {}
    for reading in readings:
        if reading.decoding not in decoded:
            try:
                decoded[reading.decoding] = decode(reading.decoding)
            except ImageDecodeError as error:
                decoded[reading.decoding] = error
    return [_outcome(entry, reading, decoded[reading.decoding]) for reading in readings]


def _outcome(
    entry: LedgerEntry, reading: Reading, decoded: tuple[Image.Image, ImageFacts] | ImageDecodeError
) -> Outcome:
    if isinstance(decoded, ImageDecodeError):
        return Outcome(_failed(entry, decoded))
    image, facts = decoded
    entry = replace(entry, format=facts.format, width=facts.width, height=facts.height, mode=facts.mode)
    try:
        pixels = np.stack([preprocess_pixels(_seen(image, view), reading.preprocess) for view in reading.views])
    except ImageDecodeError as error:
        return Outcome(_failed(entry, error))
    return Outcome(replace(entry, status=OK, reason=extension_note(entry.key, facts.format)), pixels)


def _seen(image: Image.Image, view: str) -> Image.Image:
    if view == PLAIN:
        return image
    from featx.vision.views import apply_view

    return apply_view(image, view)


def _failed(entry: LedgerEntry, error: ImageDecodeError) -> LedgerEntry:
    reason = f"{error.reason}: {error.detail}" if error.detail else error.reason
    return replace(entry, status=FAILED, reason=reason)
