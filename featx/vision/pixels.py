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
from featx.vision.images import array_to_rgb, extension_note, geometry, open_rgb, preprocess_pixels
from featx.vision.jpeg import read_jpeg
from featx.vision.reading import NVJPEG, ImageFacts, Reading
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
    whole : bool
        Whether the image is left as large as it is, for a device to resize it to the same pixels.
    """

    preprocess: Preprocess
    views: tuple[str, ...] = (PLAIN,)
    whole: bool = False

    @classmethod
    def of(cls, spec: FeatureSpec, *, whole: bool = False) -> PixelPlan:
        """Return how a spec reads its images; views are never whole, nor is what a GPU decodes."""
        whole = whole and spec.views == (PLAIN,) and spec.preprocess.decoder != NVJPEG
        return cls(replace(spec.preprocess, mean=(), std=()), spec.views, whole)

    def with_views(self, views: Sequence[str] | None) -> PixelPlan:
        """Return the plan with other views; None: as it is."""
        return self if views is None else replace(self, views=tuple(views))

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
    pixels : uint8 array, or None
        (n_views, 3, height, width); by a plan for whole images (1, height, width, 3); the bytes (n_bytes,) of a file
        that a GPU is to decode; None where it failed.
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
    by_gpu = {i: _file_outcome(entry, data) for i, plan in enumerate(plans) if plan.preprocess.decoder == NVJPEG}
    left = [plan for i, plan in enumerate(plans) if by_gpu.get(i) is None]
    outcomes = iter(_outcomes(entry, left, lambda reading: open_rgb(data, reading, frame=frame)))
    return [by_gpu.get(i) or next(outcomes) for i in range(len(plans))]


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


def _file_outcome(entry: LedgerEntry, data: bytes) -> Outcome | None:
    """Return a file as it is, if it is one for a GPU to decode."""
    jpeg = read_jpeg(data)
    if jpeg is None:
        return None
    entry = replace(entry, status=OK, format="JPEG", width=jpeg.width, height=jpeg.height, mode=jpeg.mode)
    return Outcome(entry, np.frombuffer(data, np.uint8))


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
        if plan.whole:
            geometry(*image.size, plan.preprocess)
            return Outcome(_good(entry), np.asarray(image)[None])
        pixels = np.stack([preprocess_pixels(apply_view(image, view), plan.preprocess) for view in plan.views])
    except ImageDecodeError as error:
        return failed(entry, error)
    return Outcome(_good(entry), pixels)


def failed(entry: LedgerEntry, error: ImageDecodeError) -> Outcome:
    """Return the outcome of a sample that has no pixels."""
    return Outcome(_failed(entry, error))


def _good(entry: LedgerEntry) -> LedgerEntry:
    return replace(entry, status=OK, reason=extension_note(entry.key, entry.format))


def _failed(entry: LedgerEntry, error: ImageDecodeError) -> LedgerEntry:
    reason = f"{error.reason}: {error.detail}" if error.detail else error.reason
    if error.missing:  # as if never read, so that it is tried again
        entry = LedgerEntry(entry.key, FAILED)
    return replace(entry, status=FAILED, reason=reason)
