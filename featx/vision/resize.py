"""Pillow's resize and the crop as whole-number arithmetic on tensors, for many images at once and on any device.

Pillow resizes 8-bit images in two passes, each a weighted sum with weights rounded to 22 bits and a result rounded to 8
(libImaging/Resample.c): along the rows and then along the columns, and since version 13 the other way round where the
height shrinks much more than the width. The same whole numbers are added up here, so the result is Pillow's to the bit
wherever it is computed, and no part of the spec: `check_resize` compares both before the first batch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image

from featx.errors import DeviceError, UnknownNameError
from featx.spec import Preprocess
from featx.vision.images import geometry, preprocess_pixels

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_BITS = 22
"""Of a weight's fraction, as in Pillow."""
_SHORTENS_FIRST = int(PIL.__version__.partition(".")[0]) >= 13
"""Whether this Pillow begins with the height where it shrinks by more than twice as many pixels as the width."""
_VALUES_AT_ONCE = 1 << 23
"""Values of the first pass that are computed together; each takes about 20 bytes meanwhile."""


def _bilinear(x: Floats) -> Floats:
    x = np.abs(x)
    return np.where(x < 1, 1 - x, 0)


def _bicubic(x: Floats) -> Floats:
    a, x = -0.5, np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


_FILTERS: dict[str, tuple[Callable[[Floats], Floats], float]] = {"bilinear": (_bilinear, 1), "bicubic": (_bicubic, 2)}
"""Pillow's filters, and how far they reach in pixels of the smaller image."""


@dataclass(frozen=True)
class _Axis:
    """How the pixels of one axis come about: from which first one, with which weights for it and those behind it."""

    first: Ints
    weights: Ints


@dataclass(frozen=True)
class _Passes:
    """The two passes for one image.

    Attributes
    ----------
    along : _Axis
        Of the first pass, whose pixels are `step` bytes apart.
    across : _Axis
        Of the second pass, whose pixels, the lines of the first pass, are `line` bytes apart.
    step, line : int
        Bytes.
    last : int
        The last pixel of a line.
    first_line, n_lines : int
        Which lines the second pass needs.
    down_first : bool
        Whether the first pass goes down the columns.
    """

    along: _Axis
    across: _Axis
    step: int
    line: int
    last: int
    first_line: int
    n_lines: int
    down_first: bool


@dataclass(frozen=True)
class _Group:
    """Images that are resized together.

    Attributes
    ----------
    tables : list of int64 array
        Per image: where it goes in the batch (n,), the byte at which its first needed line begins (n,), `line`, the
        last needed line, `step` and `last` (n,); of the first pass the first pixel (n, n_along) and the weights
        (n, n_along, taps), of the second the first line (n, n_across) and the weights (n, n_across, taps).
    n_lines : int
        Most lines that one of them needs.
    down_first : bool
        As in `_Passes`.
    """

    tables: list[Ints]
    n_lines: int
    down_first: bool


class ResizePlan:
    """What it takes to resize and crop a batch of images of any sizes on a device.

    Parameters
    ----------
    preprocess : Preprocess
        `resize`, `crop` and `interpolation` are used.
    sizes : sequence of (int, int)
        Height and width of each image.

    Attributes
    ----------
    tables : uint8 array (n_bytes,)
        Travels to the device in front of the images' bytes.

    Raises
    ------
    ImageDecodeError
        As `featx.vision.images.preprocess_pixels`.
    UnknownNameError
        If there is no such interpolation.
    """

    def __init__(self, preprocess: Preprocess, sizes: Sequence[tuple[int, int]]) -> None:
        self._n, self._shape = len(sizes), preprocess.crop or preprocess.resize
        passes = [_passes_of(preprocess, height, width) for height, width in sizes]
        ends = np.cumsum([3 * height * width for height, width in sizes], dtype=np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
        self._groups = [_group(members, passes, starts) for members in _alike(passes)]
        flat = [table.reshape(-1) for group in self._groups for table in group.tables]
        self.tables: NDArray[np.uint8] = np.concatenate(flat).view(np.uint8)

    def __call__(self, data: torch.Tensor) -> torch.Tensor:
        """Resize and crop.

        Parameters
        ----------
        data : torch.Tensor
            uint8 (n_bytes,): `tables`, then the bytes of each image (height, width, 3), one behind another.

        Returns
        -------
        torch.Tensor
            uint8 (B, 3, h, w) on the same device.
        """
        height, width = self._shape
        result = torch.empty((self._n, 3, height, width), dtype=torch.uint8, device=data.device)
        numbers, pixels = data[: len(self.tables)].view(torch.int64), data[len(self.tables) :]
        start = 0
        for group in self._groups:
            tables = []
            for table in group.tables:
                tables.append(numbers[start : start + table.size].view(table.shape))
                start += table.size
            resized = _resize_group(pixels, tables[1:], group.n_lines)
            result[tables[0]] = resized.permute(0, 3, 2, 1) if group.down_first else resized.permute(0, 3, 1, 2)
        return result


def check_resize(preprocess: Preprocess, device: torch.device) -> None:
    """Raise a DeviceError unless a device resizes as this machine's Pillow does."""
    noise = np.random.default_rng(0)
    sizes = ((97, 131), (400, 300), (40, 60), (700, 260), (256, 300), (900, 500))
    images = [noise.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    plan = ResizePlan(preprocess, sizes)
    data = np.concatenate([plan.tables, *(image.reshape(-1) for image in images)])
    found = plan(torch.from_numpy(data).to(device)).cpu().numpy()
    wanted = np.stack([preprocess_pixels(Image.fromarray(image), preprocess) for image in images])
    if not np.array_equal(found, wanted):
        raise DeviceError("it does not resize images as Pillow does here; preprocess on the CPU", device=str(device))


def _resize_group(pixels: torch.Tensor, tables: list[torch.Tensor], n_lines: int) -> torch.Tensor:
    """Return uint8 (n, n_across, n_along, 3)."""
    origin, line, last_line, step, last, first_along, weights_along, first_across, weights_across = tables
    lines = torch.arange(n_lines, device=pixels.device).minimum(last_line[:, None])
    begin = (origin[:, None] + lines * line[:, None])[:, :, None, None]
    colours = torch.arange(3, device=pixels.device)

    def pixel(k: int) -> torch.Tensor:
        offset = (first_along + k).minimum(last[:, None]) * step[:, None]
        return pixels[begin + offset[:, None, :, None] + colours]

    between = _weighted(pixel, weights_along[:, None, :, None])
    images = torch.arange(len(between), device=pixels.device)[:, None]

    def whole_line(k: int) -> torch.Tensor:
        return between[images, (first_across + k).clamp(max=n_lines - 1)]

    return _weighted(whole_line, weights_across[:, :, None, None])


def _weighted(values: Callable[[int], torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
    """Return Pillow's weighted sum over the taps k, rounded to uint8; weights (..., taps at the end)."""
    whole = weights.to(torch.int32)
    total: torch.Tensor | None = None
    for k in range(weights.shape[-1]):
        summand = values(k).to(torch.int32).mul_(whole[..., k])
        total = summand.add_(1 << (_BITS - 1)) if total is None else total.add_(summand)
    assert total is not None
    return total.bitwise_right_shift_(_BITS).clamp_(0, 255).to(torch.uint8)


def _group(members: list[int], passes: list[_Passes], starts: Ints) -> _Group:
    chosen = [passes[i] for i in members]
    numbers = [
        (i, starts[i] + each.first_line * each.line, each.line, each.n_lines - 1, each.step, each.last)
        for i, each in zip(members, chosen, strict=True)
    ]
    across = [_Axis(np.maximum(each.across.first - each.first_line, 0), each.across.weights) for each in chosen]
    tables = [*np.array(numbers, dtype=np.int64).T.copy()]
    tables += [*_stacked([each.along for each in chosen]), *_stacked(across)]
    return _Group(tables, max(each.n_lines for each in chosen), chosen[0].down_first)


def _stacked(axes: list[_Axis]) -> tuple[Ints, Ints]:
    n_taps = max(axis.weights.shape[1] for axis in axes)
    weights = np.zeros((len(axes), len(axes[0].first), n_taps), dtype=np.int64)
    for i, axis in enumerate(axes):
        weights[i, :, : axis.weights.shape[1]] = axis.weights
    return np.stack([axis.first for axis in axes]), weights


def _alike(passes: list[_Passes]) -> list[list[int]]:
    """Return the images in groups of one order of passes and of similar size, each small enough to compute at once."""
    groups: list[list[int]] = []
    for i in sorted(range(len(passes)), key=lambda i: (passes[i].down_first, -passes[i].n_lines)):
        largest = passes[groups[-1][0]] if groups else passes[i]
        values = (len(groups[-1]) + 1 if groups else 1) * largest.n_lines * len(largest.along.first) * 3
        if (
            groups
            and values <= _VALUES_AT_ONCE
            and passes[i].down_first == largest.down_first
            and 2 * passes[i].n_lines >= largest.n_lines
        ):
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def _passes_of(preprocess: Preprocess, height: int, width: int) -> _Passes:
    (new_width, new_height), (left, top) = geometry(width, height, preprocess)
    n_rows, n_columns = preprocess.crop or (new_height, new_width)
    rows = _axis(height, new_height, top, n_rows, preprocess.interpolation)
    columns = _axis(width, new_width, left, n_columns, preprocess.interpolation)
    down_first = _SHORTENS_FIRST and 0 < height - new_height > 2 * (width - new_width)
    if down_first:
        return _Passes(rows, columns, 3 * width, 3, height - 1, *_needed(columns, width), down_first)
    return _Passes(columns, rows, 3, 3 * width, width - 1, *_needed(rows, height), down_first)


def _needed(axis: _Axis, size: int) -> tuple[int, int]:
    """Return the first line of an image that counts after the crop, and how many lines do."""
    used = axis.weights.any(axis=1)
    if not used.any():
        return 0, 1
    first = int(axis.first[used].min())
    return first, min(int(axis.first[used].max()) + axis.weights.shape[1], size) - first


@functools.lru_cache(maxsize=4096)
def _axis(n_in: int, n_out: int, start: int, n: int, interpolation: str) -> _Axis:
    """Return the n pixels from `start` on (what lies outside is black) of an axis resized from n_in to n_out."""
    if n_in == n_out:
        first, weights = np.arange(n_out, dtype=np.int64), np.full((n_out, 1), 1 << _BITS, dtype=np.int64)
    elif interpolation == "nearest":
        steps = np.full(n_out, n_in / n_out)
        steps[0] /= 2
        first = np.cumsum(steps).astype(np.int64)  # added up one by one, as in Pillow's Geometry.c
        weights = np.full((n_out, 1), 1 << _BITS, dtype=np.int64)
    elif interpolation in _FILTERS:
        first, weights = _coefficients(n_in, n_out, *_FILTERS[interpolation])
    else:
        raise UnknownNameError("interpolation", interpolation, ["nearest", *_FILTERS])
    wanted = np.arange(start, start + n)
    inside = (wanted >= 0) & (wanted < n_out)
    chosen = np.where(inside, wanted, 0)
    return _Axis(first[chosen], weights[chosen] * inside[:, None])


def _coefficients(n_in: int, n_out: int, weight_of: Callable[[Floats], Floats], reach: float) -> tuple[Ints, Ints]:
    """Return Pillow's ``precompute_coeffs`` and ``normalize_coeffs_8bpc``, each operation in its order."""
    scale = n_in / n_out
    filter_scale = max(scale, 1.0)
    support = reach * filter_scale
    n_taps = math.ceil(support) * 2 + 1
    centre = (np.arange(n_out) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    behind = np.minimum((centre + support + 0.5).astype(np.int64), n_in)
    taps = np.arange(n_taps)
    weights = weight_of((taps + first[:, None] - centre[:, None] + 0.5) * (1.0 / filter_scale))
    weights[taps >= (behind - first)[:, None]] = 0
    total = np.cumsum(weights, axis=1)[:, -1:]  # one after another: NumPy's own sum adds in another order
    weights = np.divide(weights, total, out=weights, where=total != 0)
    rounded = weights * (1 << _BITS) + np.where(weights < 0, -0.5, 0.5)
    return first, rounded.astype(np.int64)
