"""Verifying: whatever byte is wrong is found, named, and what to do is said."""

import h5py
import numpy as np
import pytest
import store_samples as samples
from hypothesis import given, settings
from hypothesis import strategies as st
from test_listing import keep_rows, stop_a_run

from featx.caching.verification import verify_features
from featx.errors import StoreError
from featx.store.columns import write_numbers, write_strings
from featx.store.file import FeatureFile


@pytest.fixture
def path(tmp_path):
    samples.extract(tmp_path / "a.h5", samples.manifest(20))
    return tmp_path / "a.h5"


def problems(path):
    return verify_features(path).problems


def test_a_good_file_is_good(path):
    report = verify_features(path)
    assert (report.is_good, report.samples, report.rows, report.notes) == (True, 20, 18, [])
    assert report.to_dict()["good"]


def test_nothing_there_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="no such feature file"):
        verify_features(tmp_path / "a.h5")


def test_a_file_with_views_is_good(tmp_path):
    samples.extract(tmp_path / "a.h5", samples.manifest(20), of=samples.spec(views=("plain", "flip")))
    report = verify_features(tmp_path / "a.h5")
    assert (report.problems, report.samples, report.rows) == ([], 20, 36)


STRINGS = ["keys", "labels", "groups", "splits", "folds", "classes", "ledger/reason", "meta/site"]


@pytest.mark.parametrize("name", [*STRINGS, "views", "ledger/row"])
def test_a_column_that_was_changed_is_named(path, name):
    with samples.edited(path) as h5:
        h5[name][-1] = b"changed" if name in STRINGS else 7
    (problem,) = problems(path)
    assert problem.startswith(f"{name.partition('/')[0]}: '/{name}' does not match its sha256"), problem
    assert problem.endswith("extract again with --replace")


@pytest.mark.parametrize("name", ["features", "logits"])
def test_rows_that_were_changed_are_found(path, name):
    with samples.edited(path) as h5:
        h5[name][3, 1] += 1
    assert problems(path) == [f"{name}: they do not match their sha256; extract again with --replace"]


def test_rows_of_a_damaged_chunk_are_named_with_their_keys(path):
    with h5py.File(path) as h5:
        offset = h5["features"].id.get_chunk_info(0).byte_offset
        first = h5["keys"].asstr()[0]
    data = bytearray(path.read_bytes())
    data[offset + 5] ^= 1
    path.write_bytes(data)
    (problem,) = problems(path)
    assert problem.startswith(f"features: rows 0 to 17 ({first}, ")
    assert "and 13 more" in problem


def test_several_problems_are_all_said(path):
    with samples.edited(path) as h5:
        h5["labels"][0] = "x"
        h5["groups"][0] = "y"
        h5["features"][0, 0] += 1
    assert [problem.partition(":")[0] for problem in problems(path)[:2]] == ["labels", "groups"]
    assert problems(path)[2] == "features: they do not match their sha256; extract again with --replace"


def reseal(h5, name):
    """Give a column the sha256 of what is in it now: a writer with a bug, not a damaged disk."""
    values = h5[name][...] if h5[name].dtype.kind in "if" else list(h5[name].asstr()[:])
    parent, _, leaf = name.rpartition("/")
    del h5[name]
    (write_numbers if isinstance(values, np.ndarray) else write_strings)(h5[parent] if parent else h5, leaf, values)


@pytest.mark.parametrize(
    ("name", "place", "value", "words"),
    [
        ("labels", 2, "other", "labels: not what the ledger says"),
        ("keys", 0, "other", "keys: not what the ledger says"),
        ("classes", 0, "a", "classes: not the labels of the ledger"),
        ("views", 1, 1, "views: not 0 to 0"),
        ("ledger/status", 7, "ok", "ledger/status: train/c1/0007.jpg have a row and failed, or neither"),
        ("ledger/reason", 7, "", "ledger/reason: a failed sample has no reason"),
        ("ledger/row", 0, 5, "ledger/row: the rows are not in the order"),
        ("ledger/key", 7, "train/c0/0000.jpg", "ledger/key: a key is there twice"),
    ],
)
def test_what_does_not_fit_together_is_found_although_each_column_is_whole(path, name, place, value, words):
    with samples.edited(path) as h5:
        h5[name][place] = value
        reseal(h5, name)
    assert any(words in problem for problem in problems(path)), problems(path)


def test_bytes_that_are_no_feature_file(path):
    path.write_bytes(path.read_bytes()[:3000])
    (problem,) = problems(path)
    assert "the seal at its end is missing" in problem
    assert "extract again with --replace" in problem


def test_damage_that_only_the_seal_shows(path):
    data = path.read_bytes()
    path.write_bytes(data.replace(b"c1/0001.jpg", b"c1/0002.jpg", 1))
    (problem,) = problems(path)
    assert "its bytes do not match the seal at its end" in problem


def test_an_unfinished_run_is_read_shard_by_shard(tmp_path, monkeypatch):
    monkeypatch.setattr("featx.store.open_shard.MAX_SAMPLES", 4)
    path = tmp_path / "a.h5"
    manifest = samples.manifest(20)
    with samples.open_run(path, manifest) as run:
        for start in (0, 4, 8):
            run.append(samples.batch(manifest.keys[start : start + 4]))
    folder = tmp_path / "a.h5.parts"
    for name in (path, folder):
        report = verify_features(name)
        assert (report.is_good, report.samples, report.rows) == (True, 12, 11)
    shards = sorted(folder.glob("shard-*"))
    data = bytearray(shards[1].read_bytes())
    data[len(data) // 2] ^= 1
    shards[1].write_bytes(data)
    shards[2].write_bytes(b"short")
    one, two = problems(path)
    assert one.startswith(f"a.h5.parts: {shards[1].name}, line 2 of the journal: it does not have its sha256")
    assert two.startswith(f"a.h5.parts: {shards[2].name}, line 3 of the journal: it has 5 bytes, not")
    assert all("the same featx extract again" in problem for problem in (one, two))
    shards[2].unlink()
    assert "cannot be read" in problems(path)[1]


def test_lines_of_the_journal(tmp_path):
    path, journal = tmp_path / "a.h5", tmp_path / "a.h5.parts" / "journal"
    stop_a_run(path)
    good = journal.read_bytes()
    journal.write_bytes(good + good[:30])
    report = verify_features(path)
    assert report.is_good
    assert report.notes == ["a.h5.parts: line 2 of the journal ends in the middle: the writer was killed"]
    journal.write_bytes(good.replace(b'"samples": 8', b'"samples": 9'))
    report = verify_features(path)
    assert "line 1 of the journal does not match its checksum" in report.problems[0]
    assert "1 shards that no line names" in report.notes[0]


def test_a_file_with_a_run_beside_it_is_both(path):
    stop_a_run(path, 24, 24)
    report = verify_features(path)
    assert (report.is_good, report.samples) == (True, 44)


def test_a_folder_of_kept_rows(tmp_path):
    folder = keep_rows(tmp_path)
    report = verify_features(folder)
    assert (report.is_good, report.rows) == (True, 3)
    (shard,) = folder.glob("shard-*")
    shard.write_bytes(shard.read_bytes() + b"x")
    assert "computed again when they are needed" in problems(folder)[0]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("flip") / "a.h5"
    samples.extract(path, samples.manifest(6))
    return path


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_byte_is_flipped_it_is_found_or_harmless(small, data):
    """A flip may hit bytes that mean nothing (HDF5's free space); then every value reads as before."""
    whole, flipped_path = small.read_bytes(), small.with_name("b.h5")
    place = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 7))
    flipped = bytearray(whole)
    flipped[place] ^= 1 << bit
    flipped_path.write_bytes(flipped)
    if verify_features(flipped_path).is_good:
        assert content(flipped_path) == content(small)


def content(path):
    with FeatureFile.open(path) as file:
        rows = (file.features().tobytes(), file.logits().tobytes())
        return file.spec, file.keys(), file.labels(), file.meta(), file.ledger().entries(), rows
