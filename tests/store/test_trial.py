"""Foreign HDF5 files are read in a process of their own first: one that crashes or hangs is an error with a name."""

import h5py
import numpy as np
import pytest

from featx.errors import InputError
from featx.store import trial
from featx.store.trial import try_reading


@pytest.fixture
def paths(tmp_path):
    paths = [tmp_path / f"s{i}.h5" for i in range(3)]
    for path in paths:
        with h5py.File(path, "w") as file:
            file["features"] = np.zeros((4, 3))
    return paths


def test_files_that_can_be_read_or_are_wrong_in_ways_that_their_reader_finds(paths):
    paths[1].write_bytes(b"no HDF5")
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
