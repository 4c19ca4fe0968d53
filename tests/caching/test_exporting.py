"""Exporting: every value arrives, in every format, and nothing is pickled."""

import csv
import json
import zipfile

import numpy as np
import pytest
import store_samples as samples

from featx.caching import exporting
from featx.caching.exporting import FORMATS, export_features
from featx.caching.importing import import_features
from featx.errors import StoreError, StoreWriteError, UsageError
from featx.learn.dataset import load_features
from featx.store import disk
from featx.store.file import FeatureFile

N = 20  # of which 0007 and 0017 failed


def fixture_file(tmp_path, **changes):
    spec = samples.spec(**changes)
    columns = {"folds": [str(i % 3) for i in range(N)], "meta": {"site": ["ä,\n\"x'"] * N, "label": ["other"] * N}}
    samples.extract(tmp_path / "a.h5", samples.manifest(N, **columns), of=spec)
    return FeatureFile.open(tmp_path / "a.h5")


@pytest.fixture
def file(tmp_path):
    with fixture_file(tmp_path) as file:
        yield file


def export(file, ending, **options):
    output = file.path.with_name(f"out{ending}")
    return export_features(file.path, output, **options), output


def test_npz_holds_arrays_without_a_pickle(file):
    report, output = export(file, ".npz")
    assert (report.rows, report.lines, report.failed) == (18, 18, 2)
    with np.load(output, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["X"], file.features())
        np.testing.assert_array_equal(arrays["logits"], file.logits())
        names = {"y": "labels", "keys": "keys", "groups": "groups", "splits": "splits", "folds": "folds"}
        for array, column in names.items():
            assert arrays[array].dtype.kind == "U"
            assert arrays[array].tolist() == getattr(file, column)()
        assert arrays["views"].dtype == np.int16
        assert arrays["meta_site"].tolist() == ["ä,\n\"x'"] * 18
        assert [samples.sha256(key) for key in file.ledger().key if key[-5] != "7"] == arrays["sha256"].tolist()
        assert json.loads(arrays["spec"][0]) == file.spec.to_dict()
        assert "failed_keys" not in arrays


def test_npz_with_failed_samples_names_them(file):
    _, output = export(file, ".npz", with_failed=True)
    with np.load(output) as arrays:
        assert arrays["X"].shape == (18, 6)
        assert arrays["failed_keys"].tolist() == ["train/c1/0007.jpg", "train/c2/0017.jpg"]
        assert arrays["failed_reasons"].tolist() == ["truncated: image file ends"] * 2


def test_the_same_file_gives_the_same_bytes(file):
    for ending in FORMATS:
        if ending == ".parquet":
            pytest.importorskip("pyarrow")
        _, output = export(file, ending)
        first = output.read_bytes()
        export(file, ending)
        assert output.read_bytes() == first


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_csv_gives_back_every_number_exactly(tmp_path, storage):
    with fixture_file(tmp_path, storage=storage) as file:
        report, output = export(file, ".csv")
        with output.open(newline="", encoding="utf-8") as text:
            rows = list(csv.DictReader(text))
        assert report.notes == ["the network's own class scores are left out; .npz holds them"]
        assert list(rows[0]) == [
            *("key", "view", "label", "group", "split", "fold", "sha256", "meta_label", "site"),
            *(f"f{i}" for i in range(6)),
        ]
        X = np.array([[row[f"f{i}"] for i in range(6)] for row in rows], dtype=storage)
        np.testing.assert_array_equal(X, file.features())
        assert [row["key"] for row in rows] == file.keys()
        assert [row["fold"] for row in rows] == file.folds()
        assert {row["site"] for row in rows} == {"ä,\n\"x'"}


def test_csv_with_failed_samples(file):
    report, output = export(file, ".csv", with_failed=True)
    assert (report.lines, report.rows) == (20, 18)
    with output.open(newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    assert [row["key"] for row in rows] == file.ledger().key
    assert [row["reason"] for row in rows if row["status"] == "failed"] == ["truncated: image file ends"] * 2
    assert {rows[7][f"f{i}"] for i in range(6)} == {""}


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_parquet_is_what_pandas_reads(tmp_path, storage):
    pytest.importorskip("pyarrow")
    pandas = pytest.importorskip("pandas")
    with fixture_file(tmp_path, storage=storage) as file:
        _, output = export(file, ".parquet", with_failed=True)
        table = pandas.read_parquet(output)
        X = table.filter(regex=r"^f\d+$")
        good = X.notna().all(axis=1)
        np.testing.assert_array_equal(X[good].to_numpy(), file.features().astype(np.float32))
        assert table["key"].tolist() == file.ledger().key
        assert table["view"].tolist() == [0] * 20
        assert table["status"][~good].tolist() == ["failed"] * 2
        assert table["meta_label"].tolist() == ["other"] * 20


def test_json_is_what_fiftyone_takes(file):
    _, output = export(file, ".json", root="/data/photos", with_failed=True)
    content = json.loads(output.read_text(encoding="utf-8"))
    assert content["fingerprint"] == file.fingerprint
    assert len(content["samples"]) == 20
    first = content["samples"][0]
    assert first["filepath"] == "/data/photos/train/c0/0000.jpg"
    assert first["ground_truth"] == {"_cls": "Classification", "label": "c0"}
    assert first["tags"] == ["train"]
    np.testing.assert_array_equal(np.array(first["embedding"], np.float32), file.features()[0])
    failed = content["samples"][7]
    assert (failed["embedding"], failed["failed"]) == (None, "truncated: image file ends")
    assert "without --root" in export(file, ".json")[0].notes[-1]


def test_each_view_is_a_line_and_comes_back_as_its_sample(tmp_path):
    views = ("plain", "flip", "crop 1 2")
    with fixture_file(tmp_path, views=views, logits=False) as file:
        report, output = export(file, ".csv", with_failed=True)
        assert (report.lines, report.rows) == (18 * 3 + 2, 18 * 3)
        with output.open(newline="", encoding="utf-8") as text:
            rows = [row for row in csv.DictReader(text) if row["status"] == "ok"]
        assert [row["view"] for row in rows] == ["0", "1", "2"] * 18
        assert [row["key"] for row in rows] == file.keys()
        X = np.array([[row[f"f{i}"] for i in range(6)] for row in rows], dtype=np.float32)
        np.testing.assert_array_equal(X, file.features())
        with np.load(export(file, ".npz")[1]) as arrays:
            assert arrays["views"].tolist() == [0, 1, 2] * 18
            assert arrays["y"].tolist() == file.labels()
        report, output = export(file, ".json")
        assert report.notes[0] == "only the plain view of each sample is in it"
        embeddings = [sample["embedding"] for sample in json.loads(output.read_text())["samples"]]
        np.testing.assert_array_equal(np.array(embeddings, np.float32), file.features()[::3])
        again = import_features(tmp_path / "out.npz", tmp_path / "plain.h5")
        assert any("36 rows of views other than the plain one are left out" in note for note in again.notes)
        np.testing.assert_array_equal(load_features(tmp_path / "plain.h5").X, file.features()[::3])


@pytest.mark.parametrize("ending", FORMATS)
def test_blocks_of_any_size_give_the_same_file(file, monkeypatch, ending):
    if ending == ".parquet":
        arrow = pytest.importorskip("pyarrow.parquet")
    _, output = export(file, ending, with_failed=True)
    whole = output.read_bytes()
    monkeypatch.setattr(exporting, "_BLOCK_BYTES", 3 * 4 * 6)
    monkeypatch.setattr(exporting, "ROW_GROUP_BYTES", 3 * 4 * 6)
    seen = []
    export(file, ending, with_failed=True, progress=lambda done, total: seen.append(done))
    assert len(seen) == 7
    if ending == ".parquet":
        assert arrow.ParquetFile(output).num_row_groups == 7
    else:
        assert output.read_bytes() == whole


def test_features_are_never_read_whole(file, monkeypatch):
    monkeypatch.setattr(exporting, "_BLOCK_BYTES", 3 * 4 * 6)
    sizes, read = [], FeatureFile.features

    def watched(self, rows=None):
        sizes.append(len(values := read(self, rows)))
        return values

    monkeypatch.setattr(FeatureFile, "features", watched)
    for ending in (".npz", ".csv", ".json"):
        export(file, ending)
    assert max(sizes) == 3


@pytest.mark.parametrize(
    ("output", "options", "words"),
    [
        ("out.txt", {}, "written as .npz or .csv"),
        ("nothing/out.csv", {}, "there is no folder"),
        ("out.csv", {"root": "x"}, "--root has a meaning for .json only"),
    ],
)
def test_outputs_that_cannot_be(file, output, options, words):
    with pytest.raises(UsageError, match=words):
        export_features(file.path, file.path.parent / output, **options)


def test_the_feature_file_itself_is_never_overwritten(tmp_path):
    with fixture_file(tmp_path) as file:
        (tmp_path / "link.csv").symlink_to(file.path)
        with pytest.raises(UsageError, match="the feature file itself"):
            export_features(file.path, tmp_path / "link.csv")


def test_a_disk_that_refuses_leaves_the_old_file(file, monkeypatch):
    _, output = export(file, ".csv")
    before = output.read_bytes()

    def refuse(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "sync", refuse)
    with pytest.raises(StoreWriteError, match="No space left"):
        export(file, ".csv", with_failed=True)
    assert output.read_bytes() == before
    assert not list(output.parent.glob("*.tmp"))


@pytest.mark.parametrize("ending", FORMATS)
def test_a_damaged_file_is_an_error_and_no_file(file, monkeypatch, ending):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")

    def damaged(self, rows=None):
        raise StoreError("damaged", path="a.h5")

    monkeypatch.setattr(FeatureFile, "features", damaged)
    with pytest.raises(StoreError, match="damaged"):
        export(file, ending)
    assert sorted(path.name for path in file.path.parent.iterdir()) == ["a.h5"]


def test_a_file_in_which_all_failed(tmp_path):
    samples.extract(tmp_path / "a.h5", samples.manifest(["a/7.jpg"]))
    with FeatureFile.open(tmp_path / "a.h5") as file:
        for ending in (".npz", ".csv", ".json"):
            report, _ = export(file, ending, with_failed=True)
            assert (report.rows, report.failed) == (0, 1)
        assert zipfile.ZipFile(file.path.with_name("out.npz")).testzip() is None
        with np.load(file.path.with_name("out.npz")) as arrays:
            assert arrays["X"].shape == (0, 6)
