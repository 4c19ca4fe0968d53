"""A foreign HDF5 file is read in another process first: what that one does not survive is an error here."""

import struct

import h5py
import numpy as np
import pytest

from featx.errors import InputError
from featx.store import probe

X = np.arange(24, dtype=np.float32).reshape(8, 3)


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{name}.h5" for name in "ab"]
    for path in paths:
        with h5py.File(path, "w") as file:
            file["features"] = X
            file["label"] = ["moss", "rust"] * 4
    return paths


def test_sound_files_are_read_and_nothing_is_said(files, capfd):
    probe.check_readable(files)
    assert capfd.readouterr() == ("", "")


def test_the_file_at_fault_is_named_with_what_is_wrong_with_it(files):
    files[1].write_bytes(files[1].read_bytes()[:-900])
    with pytest.raises(InputError, match=r"b\.h5: cannot be read as HDF5"):
        probe.check_readable(files)
    files[0].unlink()
    with pytest.raises(InputError, match=r"a\.h5: cannot be read \(No such file"):
        probe.check_readable(files)


def test_texts_that_claim_gigabytes_take_none(files):
    data = bytearray(files[0].read_bytes())
    for place in range(data.index(b"GCOL"), len(data)):  # where the texts lie: their lengths
        if data[place : place + 8] == struct.pack("<Q", 4) and data[place + 8 : place + 12] in (b"moss", b"rust"):
            data[place : place + 8] = struct.pack("<Q", 0xE0000000)
    with h5py.File(files[0]) as file:
        start = file["label"].id.get_offset()
    for place in range(start, start + 8 * 16, 16):
        data[place : place + 4] = struct.pack("<I", 0xE0000000)
    files[0].write_bytes(data)
    with pytest.raises(InputError, match=r"a\.h5: "):
        probe.check_readable(files)


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", r"b\.h5: HDF5 crashes on it \(Segmentation fault\)"),
        ("time.sleep(1000)", r"b\.h5: HDF5 does not come to an end"),
        ("raise SystemExit('no h5py here')", r"b\.h5: .*failed: no h5py here"),
    ],
)
def test_a_crash_and_a_loop_without_end_are_errors(files, monkeypatch, deed, said):
    monkeypatch.setattr(probe, "QUIET_LIMIT", 1.5)
    program = f"import os, signal, time; os.write(1, b'.\\n.'); {deed}"
    with pytest.raises(InputError, match=said):
        probe.check_readable(files, program=program)
