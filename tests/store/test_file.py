import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
import store_samples as samples
from hypothesis import given, settings
from hypothesis import strategies as st

from featx.errors import StoreError, StoreFormatError
from featx.store.file import FeatureFile, escape, unescape
from featx.store.trailer import row_ranges

DOCS = Path(__file__).parents[2] / "docs" / "file-format.md"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "x.h5"
    samples.extract(path, samples.manifest(20), weights=b"some weights")
    return path


@pytest.fixture
def path(made, tmp_path):
    path = tmp_path / "x.h5"
    path.write_bytes(made.read_bytes())
    return path


def everything(path):
    with FeatureFile.open(path) as file:
        ledger = file.ledger()
        return [
            file.spec,
            file.request,
            file.made_with,
            file.group_source,
            file.digest,
            [file.keys(), file.labels(), file.groups(), file.splits(), file.folds(), file.classes()],
            [file.views().tobytes(), file.features().tobytes(), file.logits().tobytes(), file.weights()],
            [list(ledger.entries()), ledger.label, ledger.group, ledger.split, ledger.fold, ledger.row.tolist()],
            file.meta(),
        ]


MUTATE = """
import signal, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from test_file import everything
from featx.errors import StoreError
good = open(sys.argv[2], "rb").read()
expected = everything(sys.argv[2])
heaps = [at for at in range(len(good)) if good.startswith(b"GCOL", at)]  # of the strings
for seed in range(int(sys.argv[4])):
    print("seed", seed, flush=True)
    signal.alarm(5)  # HDF5 follows some damaged strings for ever
    rng = np.random.default_rng(seed)
    data = bytearray(good)
    for _ in range(rng.integers(1, 4)):
        n = rng.integers(1, 9)
        start = rng.choice(heaps) + rng.integers(64) if seed % 2 else rng.integers(len(data))
        data[start : start + n] = rng.bytes(len(data[start : start + n]))
    if seed % 5 == 0:
        del data[rng.integers(len(data)) :]
    open(sys.argv[3], "wb").write(data)
    try:
        found = everything(sys.argv[3])
    except StoreError:
        print("refused", flush=True)
    else:
        assert found == expected, seed
        print("read", flush=True)
"""


@pytest.mark.parametrize("n", [300, pytest.param(3000, marks=pytest.mark.slow)])
def test_mutations_of_a_good_file_are_refused_or_read_right_and_never_stop_hdf5(made, tmp_path, n):
    command = [sys.executable, "-c", MUTATE, os.path.dirname(__file__), made, tmp_path / "bad.h5", str(n)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-20:] + done.stderr[-2000:]
    counts = Counter(re.findall("refused|read", done.stdout))
    assert counts.total() == n
    assert counts["refused"] > n / 2, counts


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "not an HDF5 file"), (b"hello", "not an HDF5 file"), (b"\x89PNG\r\n\x1a\n" * 999, "not an HDF5 file")],
)
def test_a_file_that_is_not_hdf5_is_a_format_error(tmp_path, data, message):
    (tmp_path / "x.h5").write_bytes(data)
    with pytest.raises(StoreFormatError, match=message):
        FeatureFile.open(tmp_path / "x.h5")


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file_is_a_format_error(path, part):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(StoreFormatError, match="--replace"):
        FeatureFile.open(path)


def test_a_newer_format_is_a_format_error_that_says_so(path):
    with samples.edited(path) as file:
        file.attrs["featx_format"] = 2
    with pytest.raises(StoreFormatError, match=r"format 2 is newer .* update featx"):
        FeatureFile.open(path)


def test_a_missing_file_and_a_folder_are_store_errors(tmp_path):
    with pytest.raises(StoreError, match="no such feature file"):
        FeatureFile.open(tmp_path / "none.h5")
    with pytest.raises(StoreError, match="cannot be read"):
        FeatureFile.open(tmp_path)


def test_another_hdf5_file_is_a_format_error(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"] = np.zeros((3, 4))
    with pytest.raises(StoreFormatError, match="featx did not make it; `featx cache import`"):
        FeatureFile.open(tmp_path / "x.h5")


def change_spec(file):
    spec = json.loads(file.attrs["spec"])
    file.attrs["spec"] = json.dumps(spec | {"pooling": "max"})


def change_label(file):
    file["labels"][3] = "another"


def change_row(file):
    file["ledger/row"][3] = 0


def change_features(file):
    features, attributes = file["features"][:], dict(file["features"].attrs)
    del file["features"]
    file["features"] = np.vstack([features, features[:1]])
    file["features"].attrs.update(attributes)


def drop_keys(file):
    del file["keys"]


def change_mtime(file):
    file["ledger/mtime_ns"][0] += 1


@pytest.mark.parametrize(
    "change",
    [change_spec, change_label, change_row, change_features, drop_keys, change_mtime],
    ids=lambda f: f.__name__,
)
def test_a_file_that_was_edited_is_a_format_error(path, change):
    with samples.edited(path) as file:
        change(file)
    with pytest.raises(StoreFormatError):
        everything(path)


def test_a_file_that_another_program_wrote_to_is_refused_for_its_seal(path):
    with h5py.File(path, "a") as file:
        file.attrs["colour"] = "blue"
    with pytest.raises(StoreFormatError, match=r"the seal at its end is missing: .*changed by another program"):
        FeatureFile.open(path)


def test_every_byte_but_those_of_the_rows_is_under_the_seal(path):
    good = path.read_bytes()
    with h5py.File(path) as file:
        ranges = row_ranges([file["features"], file["logits"]])
    assert sum(length for _, length in ranges) == 18 * (6 + 3) * 4 + 2 * 4  # each with a checksum
    of_rows = [offset + length // 2 for offset, length in ranges]
    for at in [*of_rows, *range(0, len(good), 197), len(good) - 1]:
        data = bytearray(good)
        data[at] ^= 1
        path.write_bytes(data)
        if any(offset <= at < offset + length for offset, length in ranges):
            with FeatureFile.open(path) as file, pytest.raises(StoreFormatError):
                file.verify()
        else:
            with pytest.raises(StoreFormatError):
                FeatureFile.open(path)


def test_a_damaged_row_is_an_error_and_not_a_number(path):
    with h5py.File(path) as file:
        offset = file["features"].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[offset + 5] ^= 4
    path.write_bytes(data)
    with FeatureFile.open(path) as file:
        assert len(file.keys()) == 18
        with pytest.raises(StoreFormatError):
            file.features()
        with pytest.raises(StoreFormatError):
            file.features([3])


def test_what_a_reader_does_not_know_is_ignored(path):
    expected = everything(path)
    with samples.edited(path) as file:
        file["saliency"] = np.zeros(3)
        file.attrs["colour"] = "blue"
        file["ledger/extra"] = np.zeros(2)
    assert everything(path) == expected


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_keys_labels_and_columns_of_any_unicode_come_back_as_they_were(tmp_path_factory, data):
    keys = data.draw(st.lists(text, min_size=1, max_size=5, unique=True))
    column = st.lists(text, min_size=len(keys), max_size=len(keys))
    labels, groups, splits, folds = (data.draw(column) for _ in range(4))
    meta = data.draw(st.dictionaries(text, column, max_size=3))
    manifest = samples.manifest(keys, labels=labels, groups=groups, splits=splits, folds=folds, meta=meta)
    path = tmp_path_factory.mktemp("unicode") / "x.h5"
    samples.extract(path, manifest)
    with FeatureFile.open(path) as file:
        ledger = file.ledger()
        assert [ledger.key, ledger.label, ledger.group, ledger.split, ledger.fold] == [
            keys,
            labels,
            groups,
            splits,
            folds,
        ]
        assert file.meta() == meta
        assert file.classes() == sorted(set(labels) - {""})
        good = [i for i, status in enumerate(ledger.status) if status == "ok"]
        assert file.labels() == [labels[i] for i in good]


@given(text)
def test_column_names_are_escaped_for_hdf5_and_back(name):
    assert unescape(escape(name)) == name
    assert "/" not in escape(name)
    assert escape(name) not in ("", ".")


def test_the_digest_is_of_the_training_data_alone(tmp_path):
    def digest(**columns):
        samples.extract(tmp_path / "y.h5", samples.manifest(8, **columns))
        with FeatureFile.open(tmp_path / "y.h5") as file:
            return file.digest

    first = digest()
    assert digest(meta={"camera": ["a"] * 8}) == first
    others = [digest(labels=["x"] * 8), digest(groups=["x"] * 8), digest(splits=["test"] * 8)]
    assert len({first, *others}) == 4


def test_a_forked_child_opens_the_file_anew(path):
    with FeatureFile.open(path) as file:
        expected = file.features()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(write, file.features().tobytes())
            finally:
                os._exit(0)
        os.close(write)
        os.waitpid(child, 0)
        assert os.read(read, 1_000_000) == expected.tobytes()
        os.close(read)
        np.testing.assert_array_equal(file.features(), expected)


def test_a_child_does_not_mix_a_replaced_file_with_the_old_one(path):
    with FeatureFile.open(path) as file:
        samples.extract(path, samples.manifest(30))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                file.features()
            except StoreError as error:
                code = 0 if "replaced" in str(error) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert file.n_rows == len(file.features()) == 18


def test_the_ten_line_reader_of_the_docs_works(path, monkeypatch, capsys):
    code = re.search(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)[1]
    assert len(code.splitlines()) <= 10
    assert set(re.findall(r"^import (\w+)", code, re.MULTILINE)) == {"h5py", "json"}
    path.rename(path.with_name("NAME.h5"))
    monkeypatch.chdir(path.parent)
    exec(code, {})
    assert capsys.readouterr().out == "tiny (18, 6) ['c0', 'c1', 'c2'] 2 failed\n"


def test_the_docs_name_every_dataset_and_attribute(path):
    docs = DOCS.read_text("utf-8")
    names = []
    with h5py.File(path) as file:
        file.visit(names.append)
        names += file.attrs
    missing = {name.split("/")[-1] for name in names if not name.startswith("meta/")} - set(
        re.findall(r"`(\w+)`", docs)
    )
    assert not missing


def test_features_are_chunked_uncompressed_and_checksummed(tmp_path):
    wide = samples.spec(feature_shape=(2048,), logits=False)
    samples.extract(tmp_path / "x.h5", samples.manifest(100), of=wide)
    with h5py.File(tmp_path / "x.h5") as file:
        features = file["features"]
        assert features.chunks == (32, 2048)  # 256 KiB
        assert features.compression is None
        assert features.fletcher32
    very_wide = samples.spec(feature_shape=(512, 256), logits=False)
    samples.extract(tmp_path / "y.h5", samples.manifest(2), of=very_wide)
    with h5py.File(tmp_path / "y.h5") as file:
        assert file["features"].chunks == (1, 512 * 256)


def test_reading_a_file_loads_h5py_and_numpy_only():
    script = "import sys, featx.store.file; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"torch", "torchvision", "sklearn", "scipy", "pandas", "PIL", "click", "rich", "asyncio"})
