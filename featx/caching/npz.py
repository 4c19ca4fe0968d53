"""NumPy's archives of arrays, written and read in blocks, and never with a pickle in them."""

from __future__ import annotations

import contextlib
import lzma
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from featx.errors import InputError

_STEP = 65536  # texts at a time
_BLOCK_BYTES = 8 * 1024 * 1024
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, OSError, EOFError, ValueError, TypeError),
    *(RuntimeError, LookupError, SyntaxError, ArithmeticError, MemoryError, tokenize.TokenError),
)
"""What zipfile and numpy raise for bytes that are no arrays (RuntimeError: encrypted, or packed in an unknown way)."""


class ArrayWriter:
    """Writes an ``.npz`` array after array; the same arrays give the same bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True)

    def numbers(self, name: str, shape: tuple[int, ...], dtype: str, blocks: Iterable[NDArray[Any]]) -> None:
        """Write numbers of a shape that is known, in blocks along the first axis."""
        # The time is that of no clock: an archive says nothing of when it was written.
        info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
        kind = np.dtype(dtype)
        with self._zip.open(info, "w", force_zip64=True) as member:
            header = {"descr": npy.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
            npy.write_array_header_2_0(member, header)
            for block in blocks:
                member.write(np.ascontiguousarray(block, kind).tobytes())

    def texts(self, name: str, values: Sequence[str]) -> None:
        """Write texts, as unicode of the length of the longest."""
        dtype = f"<U{max(1, max(map(len, values), default=1))}"
        blocks = (np.array(values[start : start + _STEP], dtype) for start in range(0, len(values), _STEP))
        self.numbers(name, (len(values),), dtype, blocks)

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, ValueError) if error is not None else contextlib.nullcontext():
            self._zip.close()  # after an error too, or it would try again when nobody listens


@dataclass(frozen=True)
class ArrayHeader:
    """What an array is, before its numbers are read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran: bool


class ArrayArchive:
    """An ``.npz``, or one ``.npy`` as an archive of the single array ``""``.

    Attributes
    ----------
    names : list of str
        Of the arrays.

    Raises
    ------
    InputError
        If it is neither.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _reading(path):
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    self.names = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
            else:
                self.names = [""]
                self.header("")

    def header(self, name: str) -> ArrayHeader:
        """Return the shape and type of an array.

        Raises
        ------
        InputError
            If it holds Python objects: reading them could run code.
        """
        with _reading(self.path), self._open(name) as file:
            return _read_header(file, self._called(name))

    def texts(self, name: str) -> list[str]:
        """Read an array of one axis as text: numbers without a fraction as whole ones, NaN as ``""``."""
        header = self.header(name)
        if len(header.shape) != 1:
            raise InputError(f"{self._called(name)} has the shape {header.shape}, expected one value for each row")
        with _reading(self.path), self._open(name) as file:
            array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
        return as_texts(array)

    def blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield an array's rows, some megabytes at a time."""
        header = self.header(name)
        with _reading(self.path), self._open(name) as file:
            if header.is_fortran:  # stored column by column: no row is there before all are
                yield npy.read_array(file, allow_pickle=False)
                return
            _read_header(file, self._called(name))
            width = math.prod(header.shape[1:]) * header.dtype.itemsize
            step = max(1, _BLOCK_BYTES // max(1, width))
            for start in range(0, header.shape[0], step):
                n_rows = min(step, header.shape[0] - start)
                data = _read_all(file, n_rows * width, self._called(name))
                yield np.frombuffer(data, header.dtype).reshape(n_rows, *header.shape[1:])

    def _called(self, name: str) -> str:
        return f"{self.path}: array {name!r}" if name else str(self.path)

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[IO[bytes]]:
        if not name:
            with self.path.open("rb") as file:
                yield file
        else:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as member:
                yield member


def as_texts(array: NDArray[Any]) -> list[str]:
    """Return labels and the like as text; a number without a fraction is a whole one, NaN is ``""``."""
    if array.dtype.kind == "S":
        return [value.decode("utf-8", "backslashreplace") for value in array.tolist()]
    if array.dtype.kind == "f":
        return ["" if v != v else str(int(v)) if v.is_integer() else str(v) for v in array.astype(float).tolist()]
    return [str(value) for value in array.tolist()]


def _read_header(file: IO[bytes], called: str) -> ArrayHeader:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, is_fortran, dtype = read(file)
    if dtype.hasobject:
        raise InputError(
            f"{called} holds Python objects, which could run code when they are read; save it as numbers or text: "
            "np.array(values, dtype=str)"
        )
    if dtype.kind not in "fiubUS" or min(shape, default=0) < 0:
        raise InputError(f"{called} is of type {dtype}, which is neither numbers nor text")
    return ArrayHeader(shape, dtype, is_fortran)


def _read_all(file: IO[bytes], n_bytes: int, called: str) -> bytes:
    pieces = []
    while n_bytes:
        piece = file.read(n_bytes)
        if not piece:
            raise InputError(f"{called} ends too early")
        pieces.append(piece)
        n_bytes -= len(piece)
    return b"".join(pieces)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(f"{os.fspath(path)}: cannot be read as NumPy's arrays ({error})") from error
