"""TIFFs that are measurements more than pictures: many bands, 16 to 64 bits, signed numbers and floats.

Read here are the pages that Pillow cannot read or of which it keeps 8 bits only: strips and tiles, bands side by side
or in planes, either byte order, BigTIFF, both predictors. What is compressed without loss is unpacked segment by
segment (by Pillow's libtiff, but for deflate); of each segment only the bands that are wanted are kept.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from featx.errors import ImageDecodeError
from featx.manifest.tiff_pages import Directory, iter_directories
from featx.vision.damage import check_size
from featx.vision.reading import ImageFacts, Reading
from featx.vision.tones import on_white, to_uint8

_VALUES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
"""Types of a tag's numbers that are whole, as `struct` has them."""

_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
"""SampleFormat to numpy's kind."""

_DEFLATE = (8, 32946)
"""Compression by zlib, under its number and an old one."""

_LOSSLESS = (5, 32773, 34925, 50000)
"""Other compressions that give back bytes: LZW, packbits, LZMA, Zstandard."""

_PLAIN = (0, 1, 2)
"""PhotometricInterpretation of bands that are what they are: WhiteIsZero, BlackIsZero, RGB."""

_MOST_BYTES_A_PIXEL = 8
"""One strip or tile may have so many bytes for each pixel that an image may have (see `check_size`)."""


@dataclass(frozen=True)
class Page:
    """What the tags of a page say.

    Attributes
    ----------
    order : str
        ``"<"`` or ``">"``.
    width, height, samples : int
        Pixels, and bands including alpha.
    tags : dict of int to tuple of int
        Every tag that holds whole numbers.
    """

    order: str
    width: int
    height: int
    samples: int
    tags: dict[int, tuple[int, ...]]

    def tag(self, number: int, default: int) -> int:
        """Return a tag's first number."""
        return self.tags.get(number, (default,))[0]

    @property
    def bits(self) -> int:
        """Of one band; 0 where the bands differ."""
        bits = set(self.tags.get(258, (1,)))
        return bits.pop() if len(bits) == 1 else 0

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """Of the numbers in the file; None: not one that this module reads."""
        kinds = set(self.tags.get(339, (1,)))
        kind = _KINDS.get(kinds.pop(), "") if len(kinds) == 1 else ""
        known = (16, 32, 64) if kind == "f" else (8, 16, 32, 64)
        return np.dtype(f"{self.order}{kind}{self.bits // 8}") if kind and self.bits in known else None

    @property
    def is_plain(self) -> bool:
        """Whether the bands are themselves, and no palette, ink or luminance."""
        return self.tag(262, 1) in _PLAIN

    @property
    def in_planes(self) -> bool:
        """Whether each band lies apart."""
        return self.tag(284, 1) == 2 and self.samples > 1

    @property
    def alpha(self) -> int | None:
        """Which band, from 0 on, is the opacity."""
        extra = self.tags.get(338, ())
        found = [self.samples - len(extra) + i for i, kind in enumerate(extra) if kind in (1, 2)]
        return found[0] if found and found[0] > 0 else None

    @property
    def name(self) -> str:
        """``"uint16 x 8"``: numbers and bands."""
        kind = self.dtype.name if self.dtype is not None else f"{self.bits or 'mixed'} bits"
        return f"{kind} x {self.samples}"

    def is_measured(self, reading: Reading) -> bool:
        """Whether Pillow, which could open it, would not read this page by our rules."""
        if not self.is_plain:
            return False
        deep_colour = self.samples > 1 and self.bits > 8
        return (
            self.samples > 4
            or (bool(reading.bands) and self.bits >= 8)
            or (deep_colour and (reading.stretches or self.in_planes))
        )


def read_page(data: bytes, frame: int = 0) -> Page | None:
    """Return what a TIFF says about one of its pages; None if there is no such page, or it says too little."""
    for number, directory in enumerate(iter_directories(io.BytesIO(data))):
        if number == frame:
            tags = _tags(data, directory)
            width, height = (tags.get(number, (0,))[0] for number in (256, 257))
            samples = tags.get(277, (1,))[0]
            if min(width, height, samples) < 1:
                return None
            return Page(directory.order, width, height, samples, tags)
    return None


def read_rgb(data: bytes, page: Page, reading: Reading) -> tuple[Image.Image, ImageFacts]:
    """Return a page as it is stored (its orientation is not applied), as RGB.

    Raises
    ------
    ImageDecodeError
        Also ``"unsupported"`` for bands that are not there, or more than four of which none were chosen.
    """
    check_size(page.width, page.height)
    if page.dtype is None or not page.is_plain or page.tag(266, 1) != 1:
        raise ImageDecodeError("unsupported", f"TIFF of {page.name}, photometric {page.tag(262, 1)}")
    bands = _bands(page, reading)
    values = read_bands(data, page, bands)
    pixels = _to_uint8(values, reading)
    if page.tag(262, 1) == 0:
        pixels = 255 - pixels
    if len(bands) == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    if page.alpha is not None and not reading.bands:
        pixels = on_white(pixels, _opacity(read_bands(data, page, (page.alpha,))))
    return Image.fromarray(pixels), ImageFacts("TIFF", page.name, page.width, page.height)


def _opacity(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Map an alpha channel, whatever happens to the colours."""
    return values if values.dtype == np.uint8 else to_uint8(values, Reading())


def _to_uint8(values: NDArray[Any], reading: Reading) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16 and values.shape[2] == 3 and not reading.stretches:
        return (values >> 8).astype(np.uint8)  # as Pillow reads colour
    return to_uint8(values, reading)


def _bands(page: Page, reading: Reading) -> tuple[int, ...]:
    """Return which bands become the picture, counted from 0."""
    if reading.bands:
        if max(reading.bands) > page.samples:
            asked = ",".join(map(str, reading.bands))
            raise ImageDecodeError("unsupported", f"{page.samples} bands, and --bands {asked} asks for others")
        return tuple(band - 1 for band in reading.bands)
    if page.samples > 4:
        raise ImageDecodeError("unsupported", f"{page.samples} bands; say which with --bands")
    colours = page.samples - (page.alpha is not None)
    return (0, 1, 2) if colours >= 3 else (0,)


def read_bands(data: bytes, page: Page, bands: tuple[int, ...]) -> NDArray[Any]:
    """Return (height, width, len(bands)) in the machine's byte order."""
    assert page.dtype is not None
    is_tiled = 322 in page.tags
    height, width = (page.tag(323, 0), page.tag(322, 0)) if is_tiled else (page.tag(278, page.height), page.width)
    if min(height, width) < 1:
        raise ImageDecodeError("corrupt", f"tiles of {width} x {height} pixels")
    if not is_tiled:
        height = min(height, page.height)
    depth = 1 if page.in_planes else page.samples
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height * depth * page.dtype.itemsize > limit * _MOST_BYTES_A_PIXEL:
        raise ImageDecodeError("bomb", f"a strip or tile of {width} x {height} pixels, {page.name}")
    starts = [(y, x) for y in range(0, page.height, height) for x in range(0, page.width, width)]
    pixels = np.zeros((page.height, page.width, len(bands)), page.dtype.newbyteorder("="))
    for first, wanted, target in (
        [(band * len(starts), [0], [i]) for i, band in enumerate(bands)]
        if page.in_planes
        else [(0, list(bands), list(range(len(bands))))]
    ):
        for number, (y, x) in enumerate(starts):
            rows = height if is_tiled else min(height, page.height - y)
            segment = _segment(data, page, first + number, (rows, width, depth))
            if segment is not None:
                part = pixels[y : y + height, x : x + width]
                part[..., target] = segment[: part.shape[0], : part.shape[1], wanted]
    return pixels


def _segment(data: bytes, page: Page, number: int, shape: tuple[int, int, int]) -> NDArray[Any] | None:
    """Return one strip or tile (rows, columns, bands); None where the file leaves it out, as sparse files do."""
    assert page.dtype is not None
    starts = page.tags.get(324) or page.tags.get(273, ())
    counts = page.tags.get(325) or page.tags.get(279, ())
    if number >= len(starts):
        raise ImageDecodeError("truncated", f"{len(starts)} strips or tiles")
    size = shape[0] * shape[1] * shape[2] * page.dtype.itemsize
    n_bytes = counts[number] if number < len(counts) else size
    if not n_bytes:
        return None
    compression = page.tag(259, 1)
    packed = data[starts[number] : starts[number] + n_bytes]
    if len(packed) < (size if compression == 1 else n_bytes):
        raise ImageDecodeError("truncated", f"{len(packed)} bytes of a strip or tile")
    if compression == 1:
        unpacked = np.frombuffer(packed, np.uint8, size)
    elif compression in _DEFLATE:
        inflated = zlib.decompressobj().decompress(packed, size)
        if len(inflated) < size:
            raise ImageDecodeError("truncated", f"{len(inflated)} bytes in a strip or tile of {size}")
        unpacked = np.frombuffer(inflated, np.uint8)
    elif compression in _LOSSLESS:
        unpacked = _unpack(packed, compression, shape[0], size // shape[0])
    else:
        raise ImageDecodeError("unsupported", f"TIFF of {page.name} with compression {compression}")
    return _predicted(unpacked.reshape(shape[0], -1), page, shape)


def _unpack(packed: bytes, compression: int, rows: int, row_bytes: int) -> NDArray[np.uint8]:
    """Let libtiff unpack bytes, as though they were an image of 8-bit grey: never more than are expected."""
    tags = [(256, row_bytes), (257, rows), (258, 8), (259, compression), (262, 1)]
    tags += [(273, 0), (277, 1), (278, rows), (279, len(packed))]
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, start if tag == 273 else value) for tag, value in tags)
    whole = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0" + packed
    with TiffImagePlugin.TiffImageFile(io.BytesIO(whole)) as image:
        return np.asarray(image).reshape(-1)


def _predicted(rows: NDArray[np.uint8], page: Page, shape: tuple[int, int, int]) -> NDArray[Any]:
    """Undo the predictor (TIFF 6.0, section 14; for floats Adobe's technical note 3)."""
    assert page.dtype is not None
    predictor = page.tag(317, 1)
    if predictor == 3 and page.dtype.kind == "f":
        size = page.dtype.itemsize
        total = np.cumsum(rows.reshape(shape[0], -1, shape[2]), axis=1, dtype=np.uint8)
        most_significant_first = total.reshape(shape[0], size, -1).transpose(0, 2, 1)
        return np.ascontiguousarray(most_significant_first).view(f">f{size}").reshape(shape)
    values = rows.reshape(-1).view(page.dtype).reshape(shape)
    if predictor == 1:
        return values
    if predictor != 2:
        raise ImageDecodeError("unsupported", f"TIFF of {page.name} with predictor {predictor}")
    whole = np.dtype(f"u{page.dtype.itemsize}")
    native = np.ascontiguousarray(values, page.dtype.newbyteorder("=")).view(whole)
    return np.cumsum(native, axis=1, dtype=whole).view(page.dtype.newbyteorder("="))


def _tags(data: bytes, directory: Directory) -> dict[int, tuple[int, ...]]:
    order, size = directory.order, directory.entry_size
    head, inline = (f"{order}HHQ", 8) if directory.big else (f"{order}HHI", 4)
    tags: dict[int, tuple[int, ...]] = {}
    for start in range(0, len(directory.entries), size):
        entry = directory.entries[start : start + size]
        tag, kind, count = struct.unpack_from(head, entry)
        code = _VALUES.get(kind)
        if code is None or not count:
            continue
        value, n_bytes = entry[-inline:], count * struct.calcsize(code)
        if n_bytes > inline:
            at = struct.unpack(f"{order}{'Q' if directory.big else 'I'}", value)[0]
            value = data[at : at + n_bytes]
        if len(value) >= n_bytes and tag not in tags:
            tags[tag] = struct.unpack(f"{order}{count}{code}", value[:n_bytes])
    return tags
