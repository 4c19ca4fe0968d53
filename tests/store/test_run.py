import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
import store_samples as samples

from featx.errors import (
    InputError,
    SpecMismatchError,
    StoreError,
    StoreFormatError,
    StoreIncompleteError,
    StoreLockedError,
    UsageError,
)
from featx.store import merge, open_shard
from featx.store.columns import read_rows
from featx.store.file import FeatureFile
from featx.store.parts import pending
from featx.store.records import FAILED, OK


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(open_shard, "MAX_SAMPLES", 8)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "x.h5"


def rows_by_key(path):
    with FeatureFile.open(path) as file:
        return dict(zip(file.keys(), zip(file.features(), file.logits(), strict=True), strict=True))


def expected_rows(keys, version=0):
    return {key: samples.row(samples.sha256(key, version)) for key in keys if samples.entry(key).status == OK}


def assert_rows(path, expected):
    found = rows_by_key(path)
    assert list(found) == list(expected)
    for key, (features, logits) in expected.items():
        np.testing.assert_array_equal(found[key][0], features)
        np.testing.assert_array_equal(found[key][1], logits)


def test_every_sample_is_in_the_ledger_and_rows_are_in_manifest_order(path):
    manifest = samples.manifest(20)
    report = samples.extract(path, manifest)
    assert (report.n_samples, report.n_rows, report.n_failed, report.n_new, report.written) == (20, 18, 2, 20, True)
    assert_rows(path, expected_rows(manifest.keys))
    with FeatureFile.open(path) as file:
        ledger = file.ledger()
        assert list(ledger.entries()) == [samples.entry(key) for key in manifest.keys]
        assert [key for key, row in zip(ledger.key, ledger.row, strict=True) if row >= 0] == file.keys()
        assert (ledger.label, ledger.group, ledger.split) == (manifest.labels, manifest.groups, manifest.splits)
        assert file.meta() == manifest.meta
        assert file.labels() == [key.split("/")[1] for key in list(file.keys())]
        assert file.classes() == ["c0", "c1", "c2"]
        assert file.spec == samples.SPEC
        assert file.fingerprint == samples.SPEC.fingerprint
        assert file.request == {"backbone": "tiny"}
        assert file.group_source == "column patient"
        assert not file.views().any()
    assert os.listdir(path.parent) == ["x.h5"]


def test_a_second_run_with_nothing_to_do_leaves_the_file_alone(path):
    manifest = samples.manifest(20)
    samples.extract(path, manifest)
    before = path.stat()
    report = samples.extract(path, manifest, made_with={"torch": "newer"})
    assert not report.written
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert os.listdir(path.parent) == ["x.h5"]


def test_labels_groups_splits_folds_and_meta_are_refreshed_without_computing(path):
    samples.extract(path, samples.manifest(20))
    n = 20
    renamed = samples.manifest(
        20, labels=["x"] * n, groups=[""] * n, splits=["test"] * n, folds=["1"] * n, meta={"age": ["9"] * n}
    )
    with samples.open_run(path, renamed) as run:
        assert samples.work_of(run, renamed) == []
        assert run.finish().written
    with FeatureFile.open(path) as file:
        assert set(file.labels()) == {"x"}
        assert set(file.groups()) == {""}
        assert set(file.splits()) == {"test"}
        assert set(file.folds()) == {"1"}
        assert file.meta() == {"age": ["9"] * n}
        assert file.made_with == {"torch": "2"}
    assert_rows(path, expected_rows(renamed.keys))


def test_only_missing_and_changed_rows_are_computed_and_the_changed_row_wins(path):
    samples.extract(path, samples.manifest(12))
    manifest = samples.manifest(20)
    changed = manifest.keys[3]
    with samples.open_run(path, manifest) as run:
        assert samples.work_of(run, manifest) == list(range(12, 20))
        run.append(samples.batch([changed], version=1))
        for batch in samples.batches_of(run, manifest):
            run.append(batch)
        run.finish()
    expected = expected_rows(manifest.keys)
    expected[changed] = samples.row(samples.sha256(changed, 1))
    assert_rows(path, expected)


def test_a_sample_that_fails_now_loses_its_old_row_and_one_that_is_mended_gains_one(path):
    manifest = samples.manifest(20)
    samples.extract(path, manifest)
    fails, mended = manifest.keys[2], manifest.keys[7]
    good = samples.entry(fails, 1)
    with samples.open_run(path, manifest) as run:
        assert run.known[mended].status == FAILED
        batch = samples.batch([fails])
        run.append(
            dataclasses.replace(
                batch,
                entries=[
                    dataclasses.replace(good, status=FAILED, reason="empty"),
                    dataclasses.replace(good, key=mended),
                ],
            )
        )
        run.finish()
    found = rows_by_key(path)
    assert fails not in found
    np.testing.assert_array_equal(found[mended][0], batch.features[0])


def test_keep_refreshes_the_entry_and_keeps_the_row(path):
    manifest = samples.manifest(20)
    samples.extract(path, manifest)
    with samples.open_run(path, manifest) as run:
        for key in (manifest.keys[4], manifest.keys[7]):
            run.keep(dataclasses.replace(run.known[key], mtime_ns=99))
        assert run.finish().written
    assert_rows(path, expected_rows(manifest.keys))
    with FeatureFile.open(path) as file:
        assert file.ledger().mtime_ns[[4, 7]].tolist() == [99, 99]
        assert file.n_samples == 20


def test_keep_refuses_other_bytes_and_unknown_keys(path):
    manifest = samples.manifest(20)
    samples.extract(path, samples.manifest(12))
    with samples.open_run(path, manifest) as run:
        with pytest.raises(UsageError, match="keep"):
            run.keep(samples.entry(manifest.keys[4], version=1))
        with pytest.raises(UsageError, match="keep"):
            run.keep(samples.entry(manifest.keys[15]))


def test_bytes_under_another_key_are_found_in_the_file_the_shards_and_the_open_shard(path):
    manifest = samples.manifest(20)
    samples.extract(path, samples.manifest(4))
    with samples.open_run(path, manifest) as run:
        run.append(samples.batch(manifest.keys[4:8]))
        run.flush()
        run.append(samples.batch(manifest.keys[8:12]))
        for i in (1, 4, 9):
            sha = samples.sha256(manifest.keys[i])
            features, logits = run.features_of_sha256(sha)
            np.testing.assert_array_equal(features, [samples.row(sha)[0]])
            np.testing.assert_array_equal(logits, [samples.row(sha)[1]])
        assert run.features_of_sha256(samples.sha256(manifest.keys[15])) is None
        assert run.features_of_sha256(samples.sha256(manifest.keys[7])) is None  # that one failed


def test_a_renamed_image_takes_its_row_along(path):
    samples.extract(path, samples.manifest(6))
    renamed = samples.manifest([*samples.manifest(6).keys[:5], "train/c2/new.jpg"])
    with samples.open_run(path, renamed) as run:
        sha = samples.sha256("train/c2/0005.jpg")
        features, logits = run.features_of_sha256(sha)
        batch = samples.batch(["train/c2/new.jpg"])
        entry = dataclasses.replace(batch.entries[0], sha256=sha)
        run.append(dataclasses.replace(batch, entries=[entry], features=features, logits=logits))
        assert run.finish().n_vanished == 1
    np.testing.assert_array_equal(rows_by_key(path)["train/c2/new.jpg"][0], samples.row(sha)[0])


def test_vanished_rows_are_counted(path):
    samples.extract(path, samples.manifest(20))
    report = samples.extract(path, samples.manifest(15))
    assert (report.n_vanished, report.n_samples, report.n_new) == (5, 15, 0)
    assert_rows(path, expected_rows(samples.manifest(15).keys))


def test_more_than_half_of_the_keys_vanishing_is_refused_without_replace(path):
    samples.extract(path, samples.manifest(20))
    before = path.read_bytes()
    samples.open_run(path, samples.manifest(10)).close()  # exactly half
    with pytest.raises(StoreError, match=r"11 of the 20 .*--replace"):
        samples.open_run(path, samples.manifest(9))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["x.h5"]
    assert samples.extract(path, samples.manifest(9), replace=True).n_vanished == 11
    assert_rows(path, expected_rows(samples.manifest(9).keys))


def test_another_source_is_refused_on_a_stopped_run_too(path):
    with samples.open_run(path, samples.manifest(20)) as run:
        run.append(samples.batch(samples.manifest(20).keys))
    with pytest.raises(StoreError, match="--replace"):
        samples.open_run(path, samples.manifest(["other/1.jpg"]))


def test_another_spec_is_refused_and_only_the_differing_fields_are_named(path):
    other = samples.spec(
        pooling="max", preprocess=dataclasses.replace(samples.SPEC.preprocess, resize=(9,)), feature_shape=(4,)
    )
    manifest = samples.manifest(20)
    samples.extract(path, manifest)
    with pytest.raises(SpecMismatchError) as caught:
        samples.open_run(path, manifest, other)
    differences = {"pooling": ("avg", "max"), "preprocess.resize": ((8,), (9,)), "feature_shape": ((6,), (4,))}
    assert caught.value.differences == differences
    assert "backbone" not in str(caught.value)
    assert "weights" not in str(caught.value)
    assert "--replace" in str(caught.value)
    assert os.listdir(path.parent) == ["x.h5"]
    samples.extract(path, manifest, of=other, replace=True)
    with FeatureFile.open(path) as file:
        assert file.spec == other


def test_a_stopped_run_of_another_spec_is_refused_and_replace_discards_it(path):
    other, manifest = samples.spec(pooling="max"), samples.manifest(20)
    with samples.open_run(path, manifest) as run:
        run.append(samples.batch(manifest.keys[:8]))
    with pytest.raises(SpecMismatchError) as caught:
        samples.open_run(path, manifest, other)
    assert caught.value.differences == {"pooling": ("avg", "max")}
    with samples.open_run(path, manifest, other, replace=True) as run:
        assert not run.known
        run.append(samples.batch(manifest.keys[:4]))
    with samples.open_run(path, manifest, other, replace=True) as run:  # the same command again resumes
        assert list(run.known) == manifest.keys[:4]


def test_a_killed_replace_goes_on_and_the_old_file_stays_until_it_is_done(path):
    other, manifest = samples.spec(pooling="max"), samples.manifest(20)
    samples.extract(path, manifest)
    with samples.open_run(path, manifest, other, replace=True) as run:
        run.append(samples.batch(manifest.keys[:8]))
    with FeatureFile.open(path) as file:
        assert file.spec == samples.SPEC
    report = samples.extract(path, manifest, of=other, replace=True)
    assert (report.n_new, report.n_samples) == (20, 20)
    with FeatureFile.open(path) as file:
        assert file.spec == other


def test_a_damaged_file_is_refused_and_replace_makes_it_anew(path):
    path.parent.mkdir()
    path.write_bytes(b"not HDF5 at all")
    with pytest.raises(StoreFormatError):
        samples.open_run(path, samples.manifest(8))
    samples.extract(path, samples.manifest(8), replace=True)
    assert_rows(path, expected_rows(samples.manifest(8).keys))


@pytest.mark.parametrize("dataset", ["features", "ledger/mtime_ns"])
def test_damage_inside_a_file_is_refused_at_the_latest_when_it_is_read_and_replace_makes_it_anew(path, dataset):
    manifest = samples.manifest(20)
    samples.extract(path, manifest)
    with samples.edited(path) as file:
        file[dataset][1] += 1
    with pytest.raises(StoreFormatError, match="--replace"):
        FeatureFile.open(path).verify()
    assert samples.extract(path, manifest, replace=True).n_new == 20
    assert_rows(path, expected_rows(manifest.keys))


def test_a_stopped_run_keeps_its_batch_size_and_says_what_is_left(path):
    manifest = samples.manifest(20)
    assert pending(path) is None
    with samples.open_run(path, manifest) as run:
        run.append(samples.batch(manifest.keys[:4]))
        run.append(samples.batch(manifest.keys[4:8]))
        run.append(samples.batch(manifest.keys[8:12]))
        assert "8 of 20" in run.kept
    assert "12 of 20" in run.kept
    assert "same command again" in run.kept
    left = pending(path)
    assert (left.n_done, left.n_left, left.header.n_samples, left.batch_size) == (12, 8, 20, 4)
    assert (left.header.spec, left.header.request) == (samples.SPEC, {"backbone": "tiny"})
    with samples.open_run(path, manifest, batch_size=16) as run:
        assert run.batch_size == 4
        assert list(run.known) == manifest.keys[:12]


def test_an_interrupted_run_equals_an_uninterrupted_one_bit_for_bit(path, tmp_path):
    manifest = samples.manifest(30)
    samples.extract(tmp_path / "whole.h5", manifest)

    def interrupt(run):
        if len(run.known) == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        samples.extract(path, manifest, after_batch=interrupt)
    assert pending(path).n_done == 16
    samples.extract(path, manifest, batch_size=7)
    assert path.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_the_size_of_shards_does_not_change_the_file(path, tmp_path, monkeypatch):
    manifest = samples.manifest(30)
    samples.extract(path, manifest)
    monkeypatch.setattr(open_shard, "MAX_SAMPLES", 1)
    samples.extract(tmp_path / "other.h5", manifest)
    assert path.read_bytes() == (tmp_path / "other.h5").read_bytes()


@pytest.mark.parametrize("limit", ["MAX_SECONDS", "MAX_BYTES"])
def test_a_shard_is_closed_when_it_is_old_or_large(path, monkeypatch, limit):
    monkeypatch.setattr(open_shard, limit, 0)
    manifest = samples.manifest(20)
    with samples.open_run(path, manifest) as run:
        run.append(samples.batch(manifest.keys[:2]))
        assert pending(path).n_done == 2


def test_finish_refuses_while_samples_are_missing(path):
    manifest = samples.manifest(20)
    with samples.open_run(path, manifest) as run:
        run.append(samples.batch(manifest.keys[:12]))
        with pytest.raises(StoreIncompleteError, match="8 samples") as caught:
            run.finish()
    assert caught.value.missing == 8
    assert not path.exists()
    assert pending(path).n_done == 12


def test_a_second_writer_is_refused_by_name_and_readers_are_not(path):
    manifest = samples.manifest(20)
    samples.extract(path, manifest)
    with samples.open_run(path, manifest):
        with pytest.raises(StoreLockedError, match=f"pid {os.getpid()} on"):
            samples.open_run(path, manifest)
        script = (
            "import sys; from featx.errors import StoreLockedError\n"
            f"sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
            "import store_samples as samples\n"
            "from featx.store.file import FeatureFile\n"
            "assert FeatureFile.open(sys.argv[1]).features().shape == (18, 6)\n"
            "try: samples.open_run(sys.argv[1], samples.manifest(20))\n"
            "except StoreLockedError as error: print(error.owner)\n"
        )
        done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
        assert done.stdout.startswith(f"pid {os.getpid()} on")
    samples.open_run(path, manifest).close()


def test_readers_of_the_old_file_go_on_while_it_is_replaced(path):
    samples.extract(path, samples.manifest(12))
    with FeatureFile.open(path) as file:
        samples.extract(path, samples.manifest(20))
        assert len(file.features()) == file.n_rows == 11
    assert len(rows_by_key(path)) == 18


def test_the_users_own_weights_stay_in_the_file(path):
    manifest = samples.manifest(20)
    with samples.open_run(path, manifest, weights=b"\1\2\3") as run:
        run.append(samples.batch(manifest.keys[:12]))
    samples.extract(path, manifest)  # resumed without them
    with FeatureFile.open(path) as file:
        assert file.weights() == b"\1\2\3"
    samples.extract(path, samples.manifest(22))
    with FeatureFile.open(path) as file:
        assert file.weights() == b"\1\2\3"
    samples.extract(path, samples.manifest(22), weights=b"\4")
    with FeatureFile.open(path) as file:
        assert file.weights() == b"\4"


@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("block", [1, 8 * 1024 * 1024])
def test_a_sample_has_a_row_for_each_view_one_after_the_other(path, tmp_path, monkeypatch, logits, block):
    monkeypatch.setattr(merge, "BLOCK_BYTES", block)
    monkeypatch.setattr(merge, "CHUNK_BYTES", 100)
    spec, manifest = samples.spec(views=("plain", "flip", "crop 1 2"), logits=logits), samples.manifest(20)
    samples.extract(path, samples.manifest(9), of=spec)
    with samples.open_run(path, manifest, spec) as run:  # stopped in the middle
        run.append(samples.batch(manifest.keys[9:13], of=spec))
    report = samples.extract(path, manifest, of=spec)
    assert (report.n_samples, report.n_rows, report.n_failed) == (20, 54, 2)
    good = [key for key in manifest.keys if samples.entry(key).status == OK]
    expected = [samples.row(samples.sha256(key), view=view) for key in good for view in range(3)]
    with FeatureFile.open(path) as file:
        ledger = file.ledger()
        assert (file.n_rows, file.n_samples) == (54, 20)
        np.testing.assert_array_equal(file.features(), [features for features, _ in expected])
        if logits:
            np.testing.assert_array_equal(file.logits(), [row for _, row in expected])
        assert file.views().tolist() == [0, 1, 2] * 18
        assert file.keys() == [key for key in good for _ in range(3)]
        assert file.labels() == [key.split("/")[1] for key in list(file.keys())]
        first = [row for row in ledger.row.tolist() if row >= 0]
        assert first == list(range(0, 54, 3))
        assert [file.keys()[row] for row in first] == good
    samples.extract(tmp_path / "whole.h5", manifest, of=spec)
    assert path.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_all_views_of_known_bytes_are_found_together(path):
    spec, manifest = samples.spec(views=("plain", "flip")), samples.manifest(12)
    samples.extract(path, samples.manifest(4), of=spec)
    with samples.open_run(path, manifest, spec) as run:
        run.append(samples.batch(manifest.keys[4:7], of=spec))
        run.flush()
        run.append(samples.batch(manifest.keys[8:12], of=spec))
        for key in (manifest.keys[2], manifest.keys[5], manifest.keys[9]):
            sha = samples.sha256(key)
            features, logits = run.features_of_sha256(sha)
            np.testing.assert_array_equal(features, [samples.row(sha, view=view)[0] for view in (0, 1)])
            np.testing.assert_array_equal(logits, [samples.row(sha, view=view)[1] for view in (0, 1)])


def test_float16_storage_rounds_once(path):
    half = samples.spec(storage="float16", logits=False)
    manifest = samples.manifest(12)
    samples.extract(path, manifest, of=half)
    samples.extract(path, samples.manifest(16), of=half)
    with FeatureFile.open(path) as file:
        assert file.features().dtype == np.float16
        assert file.logits() is None
        expected = [samples.row(samples.sha256(key))[0].astype(np.float16) for key in list(file.keys())]
        np.testing.assert_array_equal(file.features(), expected)


@pytest.mark.parametrize("logits", [True, False])
def test_a_source_where_every_image_fails_gives_a_file_without_rows(path, logits):
    keys = ["c/07.jpg", "c/17.jpg"]
    report = samples.extract(path, samples.manifest(keys), of=samples.spec(logits=logits))
    assert (report.n_rows, report.n_failed) == (0, 2)
    with FeatureFile.open(path) as file:
        assert file.features().shape == (0, 6)
        assert file.keys() == []
        assert file.ledger().key == keys


TWO_VIEWS = samples.spec(views=("plain", "flip"))


def with_value(batch, value):
    features = batch.features.copy()
    features[1, 2] = value
    return dataclasses.replace(batch, features=features)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: with_value(b, np.nan), "NaN"),
        (lambda b: with_value(b, np.inf), "NaN"),
        (lambda b: dataclasses.replace(b, features=b.features[:2]), "3 rows of features"),
        (lambda b: dataclasses.replace(b, features=b.features[:, :5]), "5 features"),
        (lambda b: dataclasses.replace(b, features=b.features[0]), "3 rows of features"),
        (lambda b: dataclasses.replace(b, logits=None), "3 rows of logits"),
        (lambda b: samples.batch([entry.key for entry in b.entries], of=TWO_VIEWS), "needs 3 rows of features"),
        (lambda b: samples.batch(["stranger.jpg"]), "stranger.jpg"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_and_changes_nothing(path, change, message):
    manifest = samples.manifest(12)
    with samples.open_run(path, manifest) as run:
        with pytest.raises(UsageError, match=message):
            run.append(change(samples.batch(manifest.keys[:3])))
        for batch in samples.batches_of(run, manifest):
            run.append(batch)
        run.finish()
    assert_rows(path, expected_rows(manifest.keys))


def test_values_too_large_for_float16_are_refused(path):
    manifest = samples.manifest(3)
    half = samples.spec(storage="float16", logits=False)
    with samples.open_run(path, manifest, half) as run, pytest.raises(UsageError, match="float16"):
        run.append(with_value(samples.batch(manifest.keys, of=half), 1e6))


@pytest.mark.parametrize("bad", ["a\0b", "lone \ud800"])
@pytest.mark.parametrize("column", ["labels", "groups", "splits", "folds"])
def test_strings_that_hdf5_cannot_hold_are_refused_before_anything_is_computed(path, column, bad):
    with pytest.raises(InputError, match=column.removesuffix("s")):
        samples.open_run(path, samples.manifest(3, **{column: ["a", bad, "c"]}))
    assert not path.parent.exists()


def test_what_a_decoder_quotes_from_a_damaged_file_is_escaped(path):
    manifest = samples.manifest(["a/07.jpg"])
    with samples.open_run(path, manifest) as run:
        batch = samples.batch(manifest.keys)
        entries = [dataclasses.replace(batch.entries[0], reason="corrupt: tag \0\ud800é")]
        run.append(dataclasses.replace(batch, entries=entries))
        run.finish()
    with FeatureFile.open(path) as file:
        assert file.ledger().reason == ["corrupt: tag \\0\\ud800é"]


def test_a_forked_child_can_neither_write_nor_break_the_lock(path):
    manifest = samples.manifest(20)
    with samples.open_run(path, manifest) as run:
        run.append(samples.batch(manifest.keys[:4]))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                run.close()  # nothing happens: the open shard is the parent's
                run.append(samples.batch(manifest.keys[4:8]))
            except UsageError:
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert pending(path) is None
        with pytest.raises(StoreLockedError):
            samples.open_run(path, manifest)
    assert pending(path).n_done == 4


def test_a_living_child_of_a_dead_writer_does_not_hold_the_lock(path):
    script = (
        f"import os, sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "import store_samples as samples\n"
        "run = samples.open_run(sys.argv[1], samples.manifest(20))\n"
        "if os.fork() == 0:\n"
        "    print('forked', flush=True); sys.stdin.read(); os._exit(0)\n"
        "os._exit(0)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, path], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout.readline() == "forked\n"
        process.wait()
        samples.open_run(path, samples.manifest(20)).close()
        process.stdin.close()


def test_rows_are_read_in_any_order(path):
    samples.extract(path, samples.manifest(20))
    with FeatureFile.open(path) as file:
        every = file.features()
        orders = [3, 2, 1], [0, 1, 2, 9, 8, 8, 17], [-1], np.array([], int), slice(2, 9, 3), np.arange(18) % 3 == 0
        for rows in orders:
            np.testing.assert_array_equal(file.features(rows), every[rows])
        with pytest.raises(IndexError):
            file.features([18])


def test_read_rows_matches_numpy_on_random_orders():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 3))
    for _ in range(20):
        rows = rng.integers(0, 50, size=rng.integers(0, 60))
        np.testing.assert_array_equal(read_rows(values, rows), values[rows])


def test_append_after_finish_is_refused(path):
    manifest = samples.manifest(4)
    with samples.open_run(path, manifest) as run:
        run.append(samples.batch(manifest.keys))
        run.finish()
        with pytest.raises(UsageError, match="over"):
            run.append(samples.batch(manifest.keys))


GROW = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import store_samples as samples
from featx.store.records import OK, FeatureBatch, LedgerEntry
spec, manifest = samples.spec(feature_shape=(2048,), logits=False), samples.manifest(int(sys.argv[3]))
features = np.ones((64, 2048), np.float32)
with samples.open_run(sys.argv[2], manifest, spec) as run:
    for start in range(0, len(manifest), 64):
        entries = [LedgerEntry(key, OK, sha256=samples.sha256(key)) for key in manifest.keys[start : start + 64]]
        run.append(FeatureBatch(entries, features[: len(entries)]))
    run.finish()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_peak_memory_does_not_grow_with_the_number_of_rows(path, tmp_path):
    def peak(n):
        command = [sys.executable, "-c", GROW, os.path.dirname(__file__), tmp_path / f"{n}.h5", str(n)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) * 1024

    grown = peak(8192) - peak(2048)
    assert grown < 6144 * 2048 * 4 / 2  # half of the added rows; strings take about 1 KB each
