"""Parquet tables of features."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from featx.errors import InputError
from featx.manifest.parquet_values import pyarrow

ROW_GROUP_BYTES = 64 * 1024 * 1024
"""Of features in a row group: as few as memory allows, because each costs a description of every column."""


def check_parquet() -> None:
    """Raise a MissingExtraError where pyarrow is not installed."""
    pyarrow()


class ParquetWriter:
    """Writes a table in row groups: text columns, and one float32 column for each feature.

    Parameters
    ----------
    file : binary file
        Open for writing.
    texts : sequence of str
        Names of the text columns; ``"view"`` is one of small whole numbers.
    numbers : sequence of str
        Names of the features' columns.
    facts : mapping of str to str
        Kept in the file's metadata.
    """

    def __init__(self, file: BinaryIO, texts: Sequence[str], numbers: Sequence[str], facts: Mapping[str, str]) -> None:
        pa = pyarrow()
        self._kinds = [pa.int16() if name == "view" else pa.string() for name in texts]
        fields = [*zip(texts, self._kinds, strict=True), *((name, pa.float32()) for name in numbers)]
        self._schema = pa.schema(fields, metadata=dict(facts))
        self._arrow = pa
        self._writer = pa.parquet.ParquetWriter(
            file, self._schema, use_dictionary=[name for name in texts if name != "view"], compression="snappy"
        )

    def write(self, texts: Sequence[Sequence[Any]], rows: NDArray[np.floating], has_row: NDArray[np.bool_]) -> None:
        """Write a row group.

        Parameters
        ----------
        texts : sequence of columns
            In the order of their names.
        rows : float array (n_rows, n_features)
            The features of those lines that have some.
        has_row : bool array (n_lines,)
            Which lines these are; the others hold nulls.
        """
        values = np.zeros((len(has_row), rows.shape[1]), np.float32)
        values[has_row] = rows
        columns = [self._arrow.array(column, kind) for column, kind in zip(texts, self._kinds, strict=True)]
        nulls = None if has_row.all() else ~has_row
        columns += [self._arrow.array(values[:, i], mask=nulls) for i in range(values.shape[1])]
        self._writer.write_table(self._arrow.Table.from_arrays(columns, schema=self._schema))

    def __enter__(self) -> ParquetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        broken = (OSError, ValueError) if error is not None else ()
        with contextlib.suppress(*broken):  # closed after an error too, or it would try again when nobody listens
            self._writer.close()


class ParquetTable:
    """A Parquet file, read column by column.

    Attributes
    ----------
    names : list of str
        Of the columns.
    n_rows : int
        Of the table.

    Raises
    ------
    InputError
        If it is not a Parquet file.
    """

    def __init__(self, path: Path) -> None:
        pa = pyarrow()
        self._arrow, self._path = pa, path
        self._errors = (pa.ArrowException, ArithmeticError, LookupError, MemoryError, OSError, TypeError, ValueError)
        try:
            self._file = pa.parquet.ParquetFile(path)
            self.names: list[str] = list(self._file.schema_arrow.names)
        except self._errors as error:
            raise InputError(f"{path}: not a Parquet file ({error})") from error
        self.n_rows: int = self._file.metadata.num_rows

    def vectors(self) -> list[str]:
        """Name the columns that hold a list of numbers in each row."""
        types = self._arrow.types
        return [
            field.name
            for field in self._file.schema_arrow
            if (types.is_list(field.type) or types.is_large_list(field.type) or types.is_fixed_size_list(field.type))
            and _is_number(types, field.type.value_type)
        ]

    def numbers(self) -> list[str]:
        """Name the columns that hold a number in each row."""
        return [field.name for field in self._file.schema_arrow if _is_number(self._arrow.types, field.type)]

    def dtype_of(self, name: str) -> str:
        """Return the type of a column's numbers, as numpy calls it."""
        kind = self._file.schema_arrow.field(name).type
        kind = getattr(kind, "value_type", kind) if name in self.vectors() else kind
        return str(np.dtype(kind.to_pandas_dtype()))

    def texts(self, name: str) -> list[str]:
        """Read a column as text; null is ``""``."""
        try:
            values = self._file.read(columns=[name]).column(0).to_pylist()
        except self._errors as error:  # a UnicodeDecodeError among them
            raise InputError(f"{self._path}: column {name!r} cannot be read ({error})") from error
        return ["" if value is None else str(value) for value in values]

    def blocks(self, names: Sequence[str]) -> Iterator[NDArray[np.floating]]:
        """Yield the numbers of some columns, or of one column of lists: arrays (n, n_features), null as NaN.

        Raises
        ------
        InputError
            If lists differ in length, or the file is damaged.
        """
        try:
            for batch in self._file.iter_batches(columns=list(names)):
                yield (
                    self._vectors(batch.column(0), names[0])
                    if names[0] in self.vectors()
                    else np.column_stack([_numbers(batch.column(name)) for name in names])
                )
        except self._errors as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self._path}: cannot be read ({error})") from error

    def _vectors(self, column: Any, name: str) -> NDArray[np.floating]:
        n_features = {len(row) for row in column if row.is_valid}
        if len(n_features) > 1:
            raise InputError(f"{self._path}: the lists in column {name!r} differ in length")
        width = n_features.pop() if n_features else 0
        rows = np.full((len(column), width), np.nan)
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        rows[valid] = _numbers(column.drop_null().flatten()).reshape(-1, width)
        return rows


def _is_number(types: Any, kind: Any) -> bool:
    return bool(types.is_floating(kind) or types.is_integer(kind))


def _numbers(column: Any) -> NDArray[np.floating]:
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values if values.dtype.kind == "f" else values.astype(np.float64)
