"""Parquet files as sources, through pyarrow: opening them, and reading one image of millions with little memory.

A column of images may be many gigabytes in a single row group, so none is ever read whole: each process keeps, for the
few columns that it reads at the moment, the last two pieces of some megabytes, and goes forward from there. Rows are
asked for in their order, or nearly; one far behind means to begin again at its row group.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from featx.errors import MissingExtraError
from featx.manifest import files

_PIECE_BYTES = 8 << 20
_BUFFER = 1 << 20
_READERS = 4


def pyarrow() -> Any:
    """Return the package, with its Parquet module loaded.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("reading Parquet", "parquet") from error
    return pyarrow


def open_parquet(path: str) -> Any:
    """Return a ``pyarrow.parquet.ParquetFile`` of a path or URL, of which only the end is read.

    Raises
    ------
    OSError
        If it cannot be read, or is no Parquet file.
    """
    arrow = pyarrow()
    with only_os_errors():
        if not files.is_url(path):
            files.check_regular(path)
            return arrow.parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
        file = files.open_file(path)
        with contextlib.ExitStack() as on_failure:
            on_failure.enter_context(file)
            opened = arrow.parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
            on_failure.pop_all()
        return opened


@contextlib.contextmanager
def only_os_errors() -> Iterator[None]:
    """Turn what pyarrow raises on damaged files into OSError."""
    arrow = pyarrow()
    try:
        yield
    except OSError:
        raise
    except (arrow.ArrowException, ValueError, LookupError, TypeError, MemoryError, OverflowError) as error:
        raise OSError(
            f"damaged or not a Parquet file: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from error


def read_value(path: str, group: int, row: int, column: str) -> bytes:
    """Return a value of a binary column, ``b""`` where it is null.

    Parameters
    ----------
    path : str
        Of the Parquet file, or its URL.
    group, row : int
        The row group, and the row in it, from 0 on.
    column : str
        The column's path in the schema: ``"image"``, or ``"image.bytes"`` in a struct.

    Raises
    ------
    OSError
        If it cannot be read, or the file is another one by now.
    """
    # A file that was written anew is another file.
    reader = _reader((path, files.stat_file(path), group, column))
    with reader.lock:
        return reader.read(row)


class _Reader:
    """One column of one row group, read forward piece by piece."""

    def __init__(self, path: str, group: int, column: str) -> None:
        self.lock = threading.Lock()
        self._path, self._group, self._column = path, group, column
        self._file: Any = None
        self._pieces: list[tuple[int, Any]] = []
        self._rest: Iterator[Any] = iter(())

    def read(self, row: int) -> bytes:
        with only_os_errors():
            if not self._pieces or row < self._pieces[0][0]:
                self._begin()
            while True:
                for start, piece in self._pieces:
                    if start <= row < start + len(piece):
                        return _bytes_of(piece[row - start].as_py())
                self._go_on()

    def _begin(self) -> None:
        if self._file is None:
            self._file = open_parquet(self._path)
        # What the column alone takes would be nearer, but asked for it, pyarrow ends the process on some damage.
        about = self._file.metadata.row_group(self._group)
        mean = about.total_byte_size // max(1, about.num_rows)
        n_rows = max(1, min(1024, _PIECE_BYTES // max(1, mean)))
        self._rest = self._file.iter_batches(n_rows, row_groups=[self._group], columns=[self._column])
        self._pieces = []
        self._go_on()

    def _go_on(self) -> None:
        piece = next(self._rest, None)
        if piece is None:
            raise OSError("there is no such row: was the file changed?")
        start = self._pieces[-1][0] + len(self._pieces[-1][1]) if self._pieces else 0
        self._pieces = [*self._pieces[-1:], (start, piece.column(0))]


def _bytes_of(value: Any) -> bytes:
    while isinstance(value, dict):  # of the struct, only one field was read
        value = next(iter(value.values()))
    return b"" if value is None else bytes(value)


_readers: OrderedDict[tuple[Any, ...], _Reader] = OrderedDict()
_lock = threading.Lock()


def _reader(key: tuple[str, tuple[int, int] | None, int, str]) -> _Reader:
    with _lock:
        if key not in _readers:
            _readers[key] = _Reader(key[0], key[2], key[3])
            while len(_readers) > _READERS:
                _readers.popitem(last=False)
        _readers.move_to_end(key)
        return _readers[key]
