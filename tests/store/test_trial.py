"""Foreign HDF5 files are read in a process of their own first: one that crashes or hangs is an error with a name."""

import h5py
import numpy as np
import pytest

from featx.errors import InputError
from featx.store import trial
from featx.store.foreign import read_foreign
from featx.store.trial import try_reading


@pytest.fixture
def paths(tmp_path):
    paths = [tmp_path / f"s{i}.h5" for i in range(3)]
    for path in paths:
        with h5py.File(path, "w") as file:
            file["features"] = np.zeros((4, 3))
    return paths


def test_files_that_can_be_read_or_are_wrong_in_ways_that_their_reader_finds(paths, capfd):
    try_reading(paths)
    assert capfd.readouterr() == ("", "")
    paths[1].write_bytes(b"no HDF5")
    with pytest.raises(InputError, match=r"s1\.h5: cannot be read as HDF5") as caught:
        try_reading(paths)
    with pytest.raises(InputError) as of_its_reader:
        read_foreign(paths[1])
    assert str(caught.value) == str(of_its_reader.value)


def test_texts_that_claim_gigabytes_take_none(paths):
    with h5py.File(paths[2], "w") as file:
        file["features"] = np.zeros((4, 3))
        file["label"] = ["moss", "rust"] * 2
        start = file["label"].id.get_offset()
    data = bytearray(paths[2].read_bytes())
    claimed, heap = 0xE0000000, data.index(b"GCOL")
    for place in range(heap, heap + 4096, 8):  # where the texts lie, with their lengths
        if data[place : place + 12] in (b"\4\0\0\0\0\0\0\0moss", b"\4\0\0\0\0\0\0\0rust"):
            data[place : place + 8] = claimed.to_bytes(8, "little")
    for place in range(start, start + 4 * 16, 16):  # where they are named, with their lengths once more
        data[place : place + 4] = claimed.to_bytes(4, "little")
    paths[2].write_bytes(data)
    with pytest.raises(InputError, match=r"s2\.h5"):
        try_reading(paths)


@pytest.mark.parametrize(
    ("end", "words"),
    [("os.abort()", "the process in which HDF5 read it died"), ("time.sleep(99)", "within 0.5 seconds")],
)
def test_the_file_on_which_hdf5_dies_or_hangs_is_named(paths, monkeypatch, end, words):
    begin = "import os, sys, time; sys.stdin.read(); os.write(1, b'f..f'); "
    monkeypatch.setattr(trial, "_PROGRAM", begin + end)
    monkeypatch.setattr(trial, "TIME_LIMIT", 0.5 if "sleep" in end else 60.0)
    with pytest.raises(InputError, match=f"s1.h5: damaged: .*{words}"):
        try_reading(paths)


def test_a_process_that_cannot_even_begin(paths, monkeypatch):
    monkeypatch.setattr(trial, "_PROGRAM", "raise SystemExit")
    with pytest.raises(InputError, match=r"s0\.h5"):
        try_reading(paths)
