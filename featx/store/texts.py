"""Sequences of strings that take little memory: a million labels are a million small numbers and a few texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

BLOCK = 65536
"""How many strings are turned into Python's objects at a time."""


class LazyTexts(Sequence[str], ABC):
    """Strings that are made when they are asked for; a slice of them is a list."""

    @abstractmethod
    def _made(self, where: slice) -> list[str]:
        """Make some of them."""

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self._made(index) if isinstance(index, slice) else self._made(slice(index, index + 1 or None))[0]

    def __iter__(self) -> Iterator[str]:
        for block in iter_blocks(self):
            yield from block


class Numbered(LazyTexts):
    """Some of a few texts, by their numbers."""

    def __init__(self, numbers: NDArray[np.int32], texts: Sequence[str]) -> None:
        self._numbers = numbers
        self._texts = texts

    def __len__(self) -> int:
        return len(self._numbers)

    def _made(self, where: slice) -> list[str]:
        texts = self._texts
        return [texts[number] for number in self._numbers[where].tolist()]


class Picked(LazyTexts):
    """Some items of another sequence, by their positions."""

    def __init__(self, items: Sequence[str], positions: NDArray[np.int64]) -> None:
        self._items = items
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    def _made(self, where: slice) -> list[str]:
        items = self._items
        return [items[position] for position in self._positions[where].tolist()]


class Digests(LazyTexts):
    """The hex digits of SHA-256 digests, uint8 (n, 32); ``""`` where all bytes are 0, which stands for no digest."""

    def __init__(self, digests: NDArray[np.uint8]) -> None:
        self._digests = digests

    def __len__(self) -> int:
        return len(self._digests)

    def _made(self, where: slice) -> list[str]:
        text = self._digests[where].tobytes().hex()
        made = [text[start : start + 64] for start in range(0, len(text), 64)]
        return ["" if digits == _NO_DIGEST else digits for digits in made]


_NO_DIGEST = 64 * "0"


def digests_of(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Undo `Digests`; ValueError for what is neither ``""`` nor 64 hex digits."""
    if not {len(text) for text in texts} <= {0, 64}:
        raise ValueError("a sha256 does not have 64 hex digits")
    data = bytes.fromhex("".join([text or _NO_DIGEST for text in texts]))
    return np.frombuffer(data, np.uint8).reshape(-1, 32)


class Texts:
    """Texts, each once, numbered in the order in which they came.

    Attributes
    ----------
    texts : list of str
        By number.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._number: dict[str, int] = {}

    def number(self, text: str) -> int:
        """Return the number of a text; a text that is new gets the next one."""
        number = self._number.get(text)
        if number is None:
            number = self._number[text] = len(self.texts)
            self.texts.append(text)
        return number

    def numbers(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Return the number of each text."""
        return np.fromiter(map(self.number, texts), np.int32, len(texts))


class Decoder:
    """Turns UTF-8 into strings, of which those that are alike are one object as long as they are few."""

    def __init__(self) -> None:
        self._known: dict[bytes, str] | None = {}

    def __call__(self, values: list[bytes]) -> list[str]:
        """Decode some more values."""
        if self._known is not None:
            new = set(values) - self._known.keys()
            if len(new) > len(values) // 2 + 16:
                self._known = None  # names of their own, such as keys: a table of them is of no use
            else:
                self._known.update((value, value.decode()) for value in new)
        known = self._known
        return [value.decode() for value in values] if known is None else [known[value] for value in values]


def iter_blocks(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield lists of neighbours."""
    for start in range(0, len(texts), BLOCK):
        yield list(texts[start : start + BLOCK])
