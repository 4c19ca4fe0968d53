import numpy as np
import pytest

from featx.errors import InputError, StoreError, StoreFormatError, StoreIncompleteError
from featx.learn.dataset import check_finite, load_features
from featx.manifest.record import Manifest
from featx.spec import FeatureSpec, Preprocess
from featx.store.records import FAILED, OK, FeatureBatch, LedgerEntry
from featx.store.run import ExtractionRun

PREPROCESS = Preprocess(resize=(8,), crop=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)
KEYS = [f"{name}/{i}.png" for name in ("ants", "bees") for i in range(3)]
SHA256 = [f"{i + 1:064x}" for i in range(6)]  # all zeros is the store's word for "not read"
X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def write_file(path, *, failed=(), storage="float32"):
    spec = FeatureSpec("tiny", "random:0", "0" * 64, "head", "avg", (4,), PREPROCESS, storage=storage)
    manifest = Manifest(
        root="",
        keys=KEYS,
        paths=KEYS,
        labels=["ants"] * 3 + ["bees", "bees", ""],
        groups=["p0", "p0", "p1", "p2", "", ""],
        splits=["train", "train", "test", "train", "test", ""],
        folds=["a", "a", "b", "b", "", ""],
        group_source="column patient",
    )
    entries = [
        LedgerEntry(key, FAILED, "truncated: ends", sha) if i in failed else LedgerEntry(key, OK, "", sha)
        for i, (key, sha) in enumerate(zip(KEYS, SHA256, strict=True))
    ]
    good = [i for i in range(6) if i not in failed]
    with ExtractionRun.open(path, manifest=manifest, spec=spec, request={}, made_with={}, batch_size=6) as run:
        run.append(FeatureBatch(entries, X[good].astype(storage)))
        run.finish()
    return spec


def test_a_feature_file_comes_back_as_rows_with_all_that_is_known_of_them(tmp_path):
    spec = write_file(tmp_path / "f.h5")
    features = load_features(tmp_path / "f.h5")
    np.testing.assert_array_equal(features.X, X)
    assert features.X.dtype == np.float32
    assert features.y.tolist() == ["ants"] * 3 + ["bees", "bees", ""]
    assert features.y.dtype.kind == "U"
    assert features.keys.tolist() == KEYS
    assert features.groups.tolist() == ["p0", "p0", "p1", "p2", "", ""]
    assert features.splits.tolist() == ["train", "train", "test", "train", "test", ""]
    assert features.folds.tolist() == ["a", "a", "b", "b", "", ""]
    assert features.sha256.tolist() == SHA256
    assert (features.group_source, features.spec, features.n_missing) == ("column patient", spec, 0)
    assert len(features.digest) == 64
    assert len(features) == 6


def test_float16_features_come_back_as_float32(tmp_path):
    write_file(tmp_path / "f.h5", storage="float16")
    features = load_features(tmp_path / "f.h5")
    assert features.X.dtype == np.float32
    np.testing.assert_array_equal(features.X, X.astype(np.float16))


def test_failed_samples_are_an_error_unless_they_are_allowed(tmp_path):
    write_file(tmp_path / "f.h5", failed=(1, 4))
    with pytest.raises(StoreIncompleteError, match=r"2 of 6 .* 'ants/1.png' \(truncated: ends\).*--allow-missing") as e:
        load_features(tmp_path / "f.h5")
    assert (e.value.missing, e.value.exit_code) == (2, 5)
    features = load_features(tmp_path / "f.h5", allow_missing=True)
    np.testing.assert_array_equal(features.X, X[[0, 2, 3, 5]])
    assert features.sha256.tolist() == [SHA256[i] for i in (0, 2, 3, 5)]
    assert features.n_missing == 2


def test_a_missing_file_and_one_that_is_not_hdf5_are_errors_of_the_store(tmp_path):
    with pytest.raises(StoreError):
        load_features(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(StoreFormatError):
        load_features(tmp_path / "text.h5")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_features_are_an_error_that_names_the_sample(tmp_path, bad):
    write_file(tmp_path / "f.h5")
    features = load_features(tmp_path / "f.h5")
    features.X[3, 1] = bad
    with pytest.raises(InputError, match=r"1 of 6 samples have NaN or infinite features, the first 'bees/0.png'") as e:
        check_finite(features)
    assert e.value.exit_code == 4


def test_some_rows_can_be_taken(tmp_path):
    write_file(tmp_path / "f.h5")
    features = load_features(tmp_path / "f.h5")
    some = features.take(features.y == "bees")
    np.testing.assert_array_equal(some.X, X[3:5])
    assert some.keys.tolist() == KEYS[3:5]
    assert some.digest == features.digest
