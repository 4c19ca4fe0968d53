"""Views: augmented readings of an image, each written out as a text that is its whole recipe.

A view is applied to the decoded RGB image, before the preprocess of the backbone. The text alone reproduces it, on any
machine with the same Pillow, and every image of a file gets the same views: ``"plain"``, then texts such as ``"hflip"``
or ``"crop=0.12,0.05,0.80 hflip rotate=-7.5 brightness=1.12"``. Words are applied from left to right:

- ``crop=LEFT,TOP,SIZE``: a window of SIZE times the image's width and height, in shares of them;
- ``hflip``: mirrored, left for right;
- ``turn=90``, ``180`` or ``270``: turned counterclockwise by quarters, no pixel lost;
- ``rotate=DEGREES``: turned counterclockwise (bicubic), then cut to the largest window of the image's own proportions
  that lies inside: no black corners, no invented pixels;
- ``brightness=F``, ``contrast=F``, ``saturation=F``: Pillow's `ImageEnhance`, 1 leaves the image as it is.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from featx.errors import UnknownNameError, UsageError
from featx.spec import VIEW_KINDS

PLAIN = "plain"
MAX_VIEWS = 64
"""Rows of one sample, at most: each costs as much as another image."""

_DRAWS = 200  # until a view is given up that differs from those before it
_NUMBER = re.compile(r"-?\d{1,3}(\.\d{1,4})?", re.ASCII)
_QUARTERS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}

Words = tuple[tuple[str, tuple[float, ...]], ...]


def plan_views(n: int, seed: int = 0, kinds: Collection[str] = VIEW_KINDS) -> tuple[str, ...]:
    """Draw a plan of views, the same for the same arguments; a shorter plan is the beginning of a longer one.

    Parameters
    ----------
    n : int
        How many, 1 to `MAX_VIEWS`. The first is the plain image. Where mirroring is allowed, the second is its mirror
        image, and every other one of the rest is mirrored.
    seed : int
        At least 0.
    kinds : collection of str
        What may be done to an image: of `KINDS`.

    Returns
    -------
    tuple of str
        `n` different texts.

    Raises
    ------
    UsageError
        If `n` or the seed is out of range, or the kinds do not give so many different views.
    UnknownNameError
        If a kind does not exist.
    """
    if not 1 <= n <= MAX_VIEWS:
        raise UsageError(f"--views {n}: 1 to {MAX_VIEWS} are possible")
    if seed < 0:
        raise UsageError(f"--view-seed {seed}: at least 0 is needed")
    for kind in kinds:
        if kind not in KINDS:
            raise UnknownNameError("kind of view", kind, KINDS)
    chosen = [kind for kind in KINDS if kind in kinds]
    views = [PLAIN]
    while len(views) < n:
        rng, place = np.random.default_rng((seed, len(views))), len(views)
        drawn = ("hflip" if place == 1 and "flip" in kinds else _draw(rng, chosen, place) for _ in range(_DRAWS))
        new = next((view for view in drawn if view not in views), None)
        if new is None:
            listed = ",".join(chosen) or "none"
            raise UsageError(f"--view-kinds {listed} gives {len(views)} different views, --views {n} asks for more")
        views.append(new)
    return tuple(views)


def draw_view(kinds: Collection[str], seed: Sequence[int]) -> str:
    """Draw one view by itself, the same for the same arguments; where mirroring is allowed, half of them are mirrored.

    Parameters
    ----------
    kinds : collection of str
        What may be done to an image: of `KINDS`; or ``"spin"`` in place of ``"rotate"``, by up to 45 degrees either
        way, which together with ``"turn"`` is any angle.
    seed : sequence of int
        At least 0 each.
    """
    rng = np.random.default_rng(seed)
    return _draw(rng, [kind for kind in _DRAWN if kind in kinds], int(rng.integers(2)))


def check_views(views: Sequence[str]) -> None:
    """Check the views of a spec that came from a file.

    Raises
    ------
    UsageError
        If there is none or too many, the first is not the plain image, one occurs twice or is not a view's text.
    """
    if not 1 <= len(views) <= MAX_VIEWS or views[0] != PLAIN or len(set(views)) < len(views):
        raise UsageError(
            f"a plan of views is 'plain' and up to {MAX_VIEWS - 1} others, all different; "
            f"got {len(views)} that begin with {str(list(views[:1]))[:80]}"
        )
    for view in views:
        parse_view(view)


def apply_view(image: Image.Image, view: str) -> Image.Image:
    """Make one view of an image.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB, decoded and upright, not yet resized. It is not changed; ``"plain"`` gives it back.
    view : str
        A view's text.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, at least 1 x 1.

    Raises
    ------
    UsageError
        If the text is not a view's.
    """
    for name, values in parse_view(view):
        image = _OPERATIONS[name].apply(image, *values)
    return image


@functools.lru_cache(maxsize=4 * MAX_VIEWS)
def parse_view(view: str) -> Words:
    """Read a view's text: names of operations with their numbers, in the order of the text.

    Raises
    ------
    UsageError
        If a word is unknown, occurs twice, or has other numbers than it takes.
    """
    if view == PLAIN:
        return ()
    words: dict[str, tuple[float, ...]] = {}
    for word in view.split(" "):
        name, equals, text = word.partition("=")
        operation = _OPERATIONS.get(name)
        numbers = text.split(",") if equals else []
        if (
            operation is None
            or name in words
            or not all(_NUMBER.fullmatch(number) for number in numbers)
            or not operation.takes(values := tuple(map(float, numbers)))
        ):
            raise UsageError(
                f"{word[:40]!r} in the view {view[:200]!r} is not understood; each word once, of: {_USAGE}"
            )
        words[name] = values
    return tuple(words.items())


@dataclass(frozen=True)
class _Operation:
    """One word of a view's text: what it looks like, which numbers it takes, and what it does."""

    usage: str
    takes: Callable[[tuple[float, ...]], bool]
    apply: Callable[..., Image.Image]


def _crop(image: Image.Image, left: float, top: float, size: float) -> Image.Image:
    width, height = max(1, round(size * image.width)), max(1, round(size * image.height))
    x, y = min(round(left * image.width), image.width - width), min(round(top * image.height), image.height - height)
    return image.crop((x, y, x + width, y + height))


def _rotate(image: Image.Image, degrees: float) -> Image.Image:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    width, height = image.size
    # The window, turned back, must fit into the image in both directions. Its middle is the image's, to the fraction of
    # a pixel: then no corner of it lies outside.
    share = min(width / (width * cos + height * abs(sin)), height / (width * abs(sin) + height * cos))
    inner = max(1, int(share * width)), max(1, int(share * height))
    x = width / 2 - (cos * inner[0] - sin * inner[1]) / 2
    y = height / 2 - (sin * inner[0] + cos * inner[1]) / 2
    matrix = (cos, -sin, x, sin, cos, y)  # from the window to the image
    return image.transform(inner, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)


def _enhanced(kind: Any) -> Callable[..., Image.Image]:
    return lambda image, factor: kind(image).enhance(factor)


def _is_crop(values: tuple[float, ...]) -> bool:
    if len(values) != 3:
        return False
    left, top, size = values
    return left >= 0 and top >= 0 and size > 0 and round(max(left, top) + size, 4) <= 1


def _is_factor(values: tuple[float, ...]) -> bool:
    return len(values) == 1 and 0.1 <= values[0] <= 10


_OPERATIONS = {
    "crop": _Operation("crop=LEFT,TOP,SIZE", _is_crop, _crop),
    "hflip": _Operation(
        "hflip", lambda values: not values, lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    ),
    "turn": _Operation(
        "turn=90|180|270",
        lambda values: len(values) == 1 and values[0] in _QUARTERS,
        lambda image, degrees: image.transpose(_QUARTERS[int(degrees)]),
    ),
    "rotate": _Operation(
        "rotate=DEGREES (-45 to 45)", lambda values: len(values) == 1 and abs(values[0]) <= 45, _rotate
    ),
    "brightness": _Operation("brightness=F", _is_factor, _enhanced(ImageEnhance.Brightness)),
    "contrast": _Operation("contrast=F", _is_factor, _enhanced(ImageEnhance.Contrast)),
    "saturation": _Operation("saturation=F", _is_factor, _enhanced(ImageEnhance.Color)),
}
_USAGE = ", ".join(operation.usage for operation in _OPERATIONS.values())


# How each kind is drawn. Few digits, so that the text is short and exact at once.


def _draw(rng: np.random.Generator, kinds: Sequence[str], place: int) -> str:
    return " ".join(word for kind in kinds if (word := _DRAWN[kind](rng, place))) or PLAIN


def _draw_crop(rng: np.random.Generator, _place: int) -> str:
    size = round(rng.uniform(0.7, 1.0), 2)
    left, top = (math.floor(100 * rng.uniform(0.0, 1.0 - size)) / 100 for _ in range(2))
    return f"crop={left:.2f},{top:.2f},{size:.2f}"


def _draw_flip(_rng: np.random.Generator, place: int) -> str:
    return "hflip" if place % 2 else ""  # not by chance: half of an even number of views is mirrored


def _draw_turn(rng: np.random.Generator, _place: int) -> str:
    quarters = int(rng.integers(4))
    return f"turn={90 * quarters}" if quarters else ""


def _draw_rotate(rng: np.random.Generator, _place: int) -> str:
    return f"rotate={round(rng.uniform(-10.0, 10.0), 1) or 0.1:.1f}"


def _draw_spin(rng: np.random.Generator, _place: int) -> str:
    return f"rotate={round(rng.uniform(-45.0, 45.0), 1) or 0.1:.1f}"


def _draw_colour(rng: np.random.Generator, _place: int) -> str:
    return " ".join(f"{name}={rng.uniform(0.8, 1.2):.2f}" for name in ("brightness", "contrast", "saturation"))


KINDS: dict[str, Callable[[np.random.Generator, int], str]] = {
    "crop": _draw_crop,
    "flip": _draw_flip,
    "turn": _draw_turn,
    "rotate": _draw_rotate,
    "colour": _draw_colour,
}
"""What may be done to an image, in the order in which it is done; each draws its words for the view
in some place of the plan, ``""`` for nothing."""
_DRAWN = {**KINDS, "spin": _draw_spin}
