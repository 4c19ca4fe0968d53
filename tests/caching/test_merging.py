"""Merging: the file that one extraction over all samples would have written."""

import dataclasses
import random

import numpy as np
import pytest
import store_samples as samples
from hypothesis import given, settings
from hypothesis import strategies as st

import featx
from featx.caching import output
from featx.caching.merging import merge_features
from featx.errors import MergeConflictError, SpecMismatchError, StoreLockedError, StoreWriteError, UsageError
from featx.store import disk
from featx.store.file import FeatureFile
from featx.store.parts import Parts

KEYS = [f"train/c{i % 3}/{i:04d}.jpg" for i in range(20)]


def whole(keys=20):
    """A manifest that says the same of a key in whatever company it is."""
    keys = KEYS[:keys] if isinstance(keys, int) else list(keys)
    columns = {
        "groups": [f"patient {key[-6]}" for key in keys],
        "meta": {"site": [f"site {key[-5]}" for key in keys]},
    }
    return samples.manifest(keys, **columns)


def write(path, keys, of=samples.SPEC, **options):
    manifest = keys if not isinstance(keys, list) else whole(keys)
    samples.extract(path, manifest, of=of, **options)
    return path


@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_a_merged_file_is_byte_for_byte_the_one_of_all_samples(tmp_path, storage, logits):
    spec = samples.spec(storage=storage, logits=logits)
    write(tmp_path / "all.h5", sorted(KEYS), spec)
    write(tmp_path / "a.h5", sorted(KEYS[:12]), spec)
    write(tmp_path / "b.h5", sorted(KEYS[8:]), spec)
    report = merge_features([tmp_path / "b.h5", tmp_path / "a.h5"], tmp_path / "ab.h5")
    assert (tmp_path / "ab.h5").read_bytes() == (tmp_path / "all.h5").read_bytes()
    assert (report.samples, report.rows, report.failed, report.shared) == (20, 18, 2, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "ab.h5", "all.h5", "b.h5"]


def test_all_views_of_a_sample_come_along(tmp_path):
    spec = samples.spec(views=("plain", "flip", "crop 1 2"))
    write(tmp_path / "all.h5", sorted(KEYS), spec)
    files = [write(tmp_path / "a.h5", sorted(KEYS[:12]), spec), write(tmp_path / "b.h5", sorted(KEYS[8:]), spec)]
    report = merge_features(files, tmp_path / "ab.h5")
    assert (tmp_path / "ab.h5").read_bytes() == (tmp_path / "all.h5").read_bytes()
    assert (report.samples, report.rows) == (20, 54)


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_any_parts_in_any_order_give_the_same_rows(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("merge")
    seed = data.draw(st.integers(0, 1000))
    n_parts = data.draw(st.integers(2, 4))
    rng = random.Random(seed)
    parts = [[key for key in KEYS if rng.random() < 0.5] or [KEYS[0]] for _ in range(n_parts)]
    names = [write(folder / f"{i}.h5", sorted(part)) for i, part in enumerate(parts)]
    write(folder / "all.h5", sorted({key for part in parts for key in part}))
    merge_features(names, folder / "merged.h5")
    assert (folder / "merged.h5").read_bytes() == (folder / "all.h5").read_bytes()


def test_files_that_are_not_sorted_follow_each_other(tmp_path):
    one, two = list(reversed(KEYS[:6])), list(reversed(KEYS[4:10]))
    write(tmp_path / "a.h5", one)
    write(tmp_path / "b.h5", two)
    merge_features([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "ab.h5")
    with FeatureFile.open(tmp_path / "ab.h5") as file:
        assert file.ledger().key == list(dict.fromkeys(one + two))
        file.verify()


def test_a_row_wins_over_a_failure_and_what_is_unknown_is_taken_from_the_other(tmp_path):
    keys = ["a.jpg", "b.jpg"]
    bare = {"labels": ["", "b"], "groups": ["", ""], "splits": ["", ""], "group_source": "", "meta": {}}
    failed = samples.batch(keys)
    failed = dataclasses.replace(
        failed,
        entries=[
            dataclasses.replace(failed.entries[0], status="failed", reason="missing", sha256=""),
            failed.entries[1],
        ],
        features=failed.features[1:],
        logits=failed.logits[1:],
    )
    with samples.open_run(tmp_path / "a.h5", samples.manifest(keys, **bare)) as run:
        run.append(failed)
        run.finish()
    full = {"labels": ["a", ""], "groups": ["p", "q"], "splits": ["test", ""], "meta": {"site": ["s", ""]}}
    write(tmp_path / "b.h5", samples.manifest(keys, **full))
    merge_features([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "ab.h5")
    with FeatureFile.open(tmp_path / "ab.h5") as file:
        assert file.ledger().status == ["ok", "ok"]
        assert (file.labels(), file.groups(), file.splits()) == (["a", "b"], ["p", "q"], ["test", ""])
        assert file.meta() == {"site": ["s", ""]}
        assert file.group_source == "no groups in a.h5, column patient in b.h5"
        rows = np.array([samples.row(samples.sha256(key))[0] for key in keys])
        np.testing.assert_array_equal(file.features(), rows)


@pytest.fixture
def conflicting(tmp_path):
    """Two files: of one key the label differs, of one the bytes, of one a column."""
    keys = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    columns = {"labels": ["x"] * 4, "groups": ["p"] * 4, "meta": {"site": ["s"] * 4}}
    write(tmp_path / "a.h5", samples.manifest(keys, **columns))
    other = columns | {"labels": ["y", "x", "x", "x"], "meta": {"site": ["s", "s", "t", "s"]}}
    with samples.open_run(tmp_path / "b.h5", samples.manifest(keys, **other)) as run:
        run.append(samples.batch(["a.jpg"]))
        run.append(samples.batch(["b.jpg"], version=1))
        run.append(samples.batch(["c.jpg", "d.jpg"]))
        run.finish()
    return [tmp_path / "a.h5", tmp_path / "b.h5"]


def test_conflicts_are_all_named_and_nothing_is_written(tmp_path, conflicting):
    with pytest.raises(MergeConflictError) as caught:
        merge_features(conflicting, tmp_path / "ab.h5")
    shas = samples.sha256("b.jpg"), samples.sha256("b.jpg", 1)
    assert caught.value.conflicts == {
        "a.jpg": {"label": ("x", "y")},
        "b.jpg": {"sha256": shas},
        "c.jpg": {"meta site": ("s", "t")},
    }
    assert all(key in str(caught.value) for key in ("a.jpg: label 'x' and 'y'", "b.jpg", "c.jpg"))
    assert "d.jpg" not in str(caught.value)
    assert not list(tmp_path.glob("ab.h5*"))


@pytest.mark.parametrize(("prefer", "label", "version", "site"), [("first", "x", 0, "s"), ("last", "y", 1, "t")])
def test_prefer_says_who_is_right(tmp_path, conflicting, prefer, label, version, site):
    report = merge_features(conflicting, tmp_path / "ab.h5", prefer=prefer)
    assert sorted(report.conflicts) == ["a.jpg", "b.jpg", "c.jpg"]
    with FeatureFile.open(tmp_path / "ab.h5") as file:
        assert file.labels()[0] == label
        assert file.ledger().sha256[1] == samples.sha256("b.jpg", version)
        np.testing.assert_array_equal(file.features()[1], samples.row(samples.sha256("b.jpg", version))[0])
        assert file.meta()["site"][2] == site


def test_files_of_another_spec_are_refused_with_the_fields(tmp_path):
    write(tmp_path / "a.h5", KEYS[:4])
    write(tmp_path / "b.h5", KEYS[4:8], samples.spec(pooling="max"))
    with pytest.raises(SpecMismatchError) as caught:
        merge_features([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "ab.h5")
    assert caught.value.differences == {"pooling": ("max", "avg")}


def test_versions_that_differ_are_both_named(tmp_path):
    write(tmp_path / "a.h5", KEYS[:4], made_with={"torch": "2.1", "batch_size": 32})
    write(tmp_path / "b.h5", KEYS[4:8], made_with={"torch": "2.2", "batch_size": 32})
    merge_features([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "ab.h5")
    with FeatureFile.open(tmp_path / "ab.h5") as file:
        assert file.made_with == {"torch": "2.1, 2.2", "batch_size": 32}


def test_the_weights_of_ones_own_stay_in_the_file(tmp_path):
    write(tmp_path / "a.h5", KEYS[:4], weights=b"tensors")
    write(tmp_path / "b.h5", KEYS[4:8], weights=b"tensors")
    merge_features([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "ab.h5")
    with FeatureFile.open(tmp_path / "ab.h5") as file:
        assert file.weights() == b"tensors"


def test_an_output_that_is_there_or_an_input_or_in_use_is_refused(tmp_path):
    files = [write(tmp_path / "a.h5", KEYS[:4]), write(tmp_path / "b.h5", KEYS[4:8])]
    write(tmp_path / "c.h5", KEYS[8:12])
    before = (tmp_path / "c.h5").read_bytes()
    with pytest.raises(UsageError, match="--replace"):
        merge_features(files, tmp_path / "c.h5")
    with pytest.raises(UsageError, match="one of the inputs"):
        merge_features(files, tmp_path / "a.h5", replace=True)
    with pytest.raises(UsageError, match="at least two"):
        merge_features(files[:1], tmp_path / "d.h5")
    with pytest.raises(UsageError, match="is a folder"):
        merge_features(files, tmp_path)
    held = Parts.take(tmp_path / "c.h5")
    with pytest.raises(StoreLockedError):
        merge_features(files, tmp_path / "c.h5", replace=True)
    held.release(discard=True)
    assert (tmp_path / "c.h5").read_bytes() == before
    merge_features(files, tmp_path / "c.h5", replace=True)
    with FeatureFile.open(tmp_path / "c.h5") as file:
        assert file.ledger().key == KEYS[:8] or file.ledger().key == sorted(KEYS[:8])


def test_an_unfinished_run_of_the_output_is_not_thrown_away_without_a_word(tmp_path):
    files = [write(tmp_path / "a.h5", KEYS[:4]), write(tmp_path / "b.h5", KEYS[4:8])]
    with samples.open_run(tmp_path / "c.h5", whole(KEYS[:8])) as run:
        run.append(samples.batch(KEYS[:4]))
    with pytest.raises(UsageError, match="unfinished run"):
        merge_features(files, tmp_path / "c.h5")


def test_a_disk_that_refuses_leaves_nothing_behind(tmp_path, monkeypatch):
    files = [write(tmp_path / "a.h5", KEYS[:4]), write(tmp_path / "b.h5", KEYS[4:8])]

    def refuse(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(disk, "replace", refuse)
        with pytest.raises(StoreWriteError):
            merge_features(files, tmp_path / "ab.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "b.h5"]


def test_rows_are_read_in_blocks(tmp_path, monkeypatch):
    files = [write(tmp_path / "a.h5", sorted(KEYS[:12])), write(tmp_path / "b.h5", sorted(KEYS[12:]))]
    sizes = []

    def write_batches(target, batches, *args, **options):
        def watched():
            for batch in batches:
                sizes.append(len(batch.entries))
                yield batch

        return output.write_batches(target, watched(), *args, **options)

    monkeypatch.setattr("featx.caching.merging.write_batches", write_batches)
    monkeypatch.setattr("featx.caching.merging._BLOCK_BYTES", 5 * 6 * 4)
    featx.merge_features(files, tmp_path / "ab.h5")
    assert sizes == [5, 5, 5, 5]
    write(tmp_path / "all.h5", sorted(KEYS))
    assert (tmp_path / "ab.h5").read_bytes() == (tmp_path / "all.h5").read_bytes()
