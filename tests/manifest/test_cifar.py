"""CIFAR-10's own folders: both read the same, and a pickle in them can run nothing."""

import os
import pickle
import struct

import numpy as np
import pytest

from featx.errors import ManifestError, UsageError
from featx.manifest.source import SourceOptions, count_by, manifest_of, read_source, sample_sha256, stat

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
BATCHES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
N = 20


def made(seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (N, 3072), dtype=np.uint8), [i % 10 for i in range(N)]


def python2_pickle(data, labels):
    """A batch as Python 2 and NumPy 1.6 wrote it, opcode by opcode: byte strings, and numbers for booleans."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    dtype = (
        b"cnumpy\ndtype\n"
        + text(b"u1")
        + b"K\0K\1\x87R"
        + b"(K\3"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    )
    empty = b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + b"K\0\x85" + text(b"b") + b"\x87R"
    raw = b"T" + struct.pack("<i", data.nbytes) + data.tobytes()
    shape = b"M" + struct.pack("<H", data.shape[0]) + b"M" + struct.pack("<H", data.shape[1]) + b"\x86"
    array = empty + b"(K\1" + shape + dtype + b"\x89" + raw + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return (
        b"\x80\2}("
        + text(b"labels")
        + numbers
        + text(b"data")
        + array
        + text(b"batch_label")
        + text(b"batch 1")
        + b"u."
    )


def write(folder, kind):
    folder.mkdir()
    for seed, name in enumerate(BATCHES):
        data, labels = made(seed)
        if kind == "bin":
            records = np.column_stack([np.array(labels, np.uint8), data])
            (folder / f"{name}.bin").write_bytes(records.tobytes())
        elif kind == "python2":
            (folder / name).write_bytes(python2_pickle(data, labels))
        else:
            (folder / name).write_bytes(pickle.dumps({b"data": data, b"labels": labels}, protocol=kind))
    if kind == "bin":
        (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n")
    else:
        meta = {b"label_names": [name.encode() for name in NAMES], b"num_vis": 3072}
        (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    (folder / "readme.html").write_text("<html>")
    return folder


@pytest.mark.parametrize("kind", ["bin", "python2", 0, 2, 4, 5])
def test_cifar_batches_give_keys_splits_label_names_and_pixels(tmp_path, kind):
    manifest = read_source(write(tmp_path / "cifar", kind))
    assert len(manifest) == 6 * N
    assert manifest.keys[17] == "data_batch_1/00017"
    assert manifest.keys[-1] == f"test_batch/{N - 1:05d}"
    assert manifest.splits == ["train"] * 5 * N + ["test"] * N
    assert manifest.labels == (NAMES * 2) * 6
    assert count_by(manifest)["splits"] == {"test": N, "train": 5 * N}
    for seed in range(6):
        planes, _ = made(seed)
        for row in (0, 7, N - 1):
            image = manifest.arrays[seed * N + row]
            assert (image == planes[row].reshape(3, 32, 32).transpose(1, 2, 0)).all()
    assert len(manifest.arrays) == 6 * N
    assert (manifest.arrays[-1] == manifest.arrays[6 * N - 1]).all()
    with pytest.raises(IndexError):
        manifest.arrays[6 * N]


def test_both_folders_are_the_same_samples(tmp_path):
    one, other = read_source(write(tmp_path / "py", "python2")), read_source(write(tmp_path / "bin", "bin"))
    assert (one.keys, one.labels, one.splits) == (other.keys, other.labels, other.splits)
    for position in (0, N, 6 * N - 1):
        assert sample_sha256(one, position) == sample_sha256(other, position)
        assert sample_sha256(one, position) == sample_sha256(manifest_of([np.array(one.arrays[position])]), 0)
    assert stat(one, 0) == (0, 0)


def test_limit_and_group_regex_work_on_batches(tmp_path):
    options = SourceOptions(limit=20, group_regex=r"^([^/]+)/")
    manifest = read_source(write(tmp_path / "cifar", "bin"), options)
    whole = read_source(tmp_path / "cifar")
    assert len(manifest) == 20
    assert set(manifest.labels) == set(NAMES)
    for position, key in enumerate(manifest.keys):
        assert manifest.groups[position] == key.split("/")[0]
        assert (manifest.arrays[position] == whole.arrays[whole.keys.index(key)]).all()


class Evil:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("call", [os.system, eval, getattr, np.load, np.frombuffer, bytearray])
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path, call, protocol):
    folder = write(tmp_path / "cifar", 4)
    touched = tmp_path / "touched"
    argument = {os.system: f"touch {touched}", eval: f"open({str(touched)!r}, 'w')"}.get(call, str(touched))
    for name in ("data_batch_3", "batches.meta"):
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(pickle.dumps({b"data": Evil(call, argument)}, protocol=protocol))
        with pytest.raises(ManifestError, match=f"{name}.*which no batch needs"):
            read_source(folder)
        (folder / name).write_bytes(kept)
    assert not touched.exists()


def test_an_array_of_objects_and_a_changed_numpy_dtype_are_refused(tmp_path):
    folder = write(tmp_path / "cifar", 4)
    (folder / "data_batch_1").write_bytes(pickle.dumps({b"data": np.array([Evil(os.getcwd)]), b"labels": [0]}))
    with pytest.raises(ManifestError, match="data_batch_1"):
        read_source(folder)
    # a state for numpy's own dtype object must not reach it
    state = b"\x80\2cnumpy\ndtype\nU\2u1K\0K\1\x87R(K\3U\1>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb."
    (folder / "data_batch_1").write_bytes(state)
    with pytest.raises(ManifestError, match="data_batch_1"):
        read_source(folder)
    assert np.dtype(np.uint8).byteorder == "|"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        pickle.dumps([1]),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}),
        pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}),
        pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [-1]}),
        pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": ["x"]}),
        pickle.dumps({b"data": np.zeros((1, 3072), np.float32), b"labels": [1]}),
        pickle.dumps({b"data": np.zeros((1, 30), np.uint8), b"labels": [1]}),
        pickle.dumps({b"labels": [1]}),
        pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [1]})[:-900],
    ],
)
def test_a_damaged_batch_is_named(tmp_path, content):
    folder = write(tmp_path / "cifar", 4)
    (folder / "data_batch_2").write_bytes(content)
    with pytest.raises(ManifestError, match="data_batch_2"):
        read_source(folder)


def test_a_binary_batch_that_is_cut_short_is_named(tmp_path):
    folder = write(tmp_path / "cifar", "bin")
    (folder / "test_batch.bin").write_bytes(b"\0" * 3072)
    with pytest.raises(ManifestError, match=r"test_batch\.bin.*cut short"):
        read_source(folder)


@pytest.mark.parametrize(("kind", "name"), [(4, "batches.meta"), ("bin", "batches.meta.txt")])
def test_missing_class_names_are_named(tmp_path, kind, name):
    folder = write(tmp_path / "cifar", kind)
    (folder / name).unlink()
    with pytest.raises(ManifestError, match=rf"{name}: cannot read"):
        read_source(folder)
    (folder / name).write_bytes(b"" if kind == "bin" else pickle.dumps({}))
    with pytest.raises(ManifestError, match="no class names"):
        read_source(folder)


def test_layout_has_no_meaning_for_batches(tmp_path):
    with pytest.raises(UsageError, match="--layout has no meaning for CIFAR"):
        read_source(write(tmp_path / "cifar", "bin"), SourceOptions(layout="classes"))
