import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featx.errors import InputError
from featx.store import columns, texts
from featx.store.columns import (
    SEAL,
    check_strings,
    iter_strings,
    numbers_sha256,
    read_numbers,
    read_strings,
    strings_sha256,
    verify_column,
    write_numbers,
    write_strings,
)

TEXT = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5), max_size=12)


@pytest.fixture
def group():
    with h5py.File("columns", "w", driver="core", backing_store=False) as file:
        yield file


@pytest.fixture
def small_blocks(monkeypatch):
    for module in (texts, columns):
        monkeypatch.setattr(module, "BLOCK", 3)


@settings(deadline=None, max_examples=25)
@given(TEXT)
def test_the_size_of_blocks_decides_neither_what_is_written_nor_its_sha256(values):
    def written(block):
        with pytest.MonkeyPatch.context() as patch, h5py.File("x", "w", driver="core", backing_store=False) as file:
            for module in (texts, columns):
                patch.setattr(module, "BLOCK", block)
            write_strings(file, "column", values)
            assert read_strings(file, "column") == values
            assert verify_column(file, "column") == strings_sha256(values) == file["column"].attrs[SEAL]
            return file["column"].attrs[SEAL]

    assert written(1) == written(3) == written(65536)


def test_a_changed_string_is_found_at_the_end_of_its_column(group, small_blocks):
    write_strings(group, "column", ["a", "b", "c", "d", "e"])
    group["column"][1] = "B"
    for read in (read_strings, verify_column, lambda *args: list(iter_strings(*args))):
        with pytest.raises(ValueError, match="column"):
            read(group, "column")


@pytest.mark.parametrize("shape", [(0,), (5,), (0, 3), (4, 0), (7, 3)])
@pytest.mark.parametrize("dtype", ["int64", "int16", "float16", "uint8"])
def test_numbers_come_back_and_changed_ones_are_found(group, monkeypatch, shape, dtype):
    monkeypatch.setattr(columns, "_BLOCK_BYTES", 8)
    values = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    write_numbers(group, "column", values)
    np.testing.assert_array_equal(read_numbers(group, "column"), values)
    assert verify_column(group, "column") == numbers_sha256(values)
    if values.size:
        group["column"][-1] += 1
        for read in (read_numbers, verify_column):
            with pytest.raises(ValueError, match="column"):
                read(group, "column")


@pytest.mark.parametrize("bad", ["a\0b", "lone \ud800"])
@pytest.mark.parametrize("at", [0, 4])
def test_what_hdf5_cannot_hold_is_refused_by_name(small_blocks, bad, at):
    values = ["a", "b", "c", "d", "e"]
    check_strings("label", values)
    values[at] = bad
    with pytest.raises(InputError, match="label"):
        check_strings("label", values)
