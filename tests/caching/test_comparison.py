"""Computing rows again: equal where nothing changed, named where something did."""

import dataclasses
import hashlib
import shutil

import h5py
import numpy as np
import pytest
import store_samples as samples
from PIL import Image

from featx.caching import comparison
from featx.caching.comparison import OTHER_RUNTIME, SAME_RUNTIME, SampleSize, compare_sample
from featx.caching.verification import verify_features
from featx.errors import UsageError
from featx.extract import extract
from featx.spec import FeatureRequest
from featx.store.columns import SEAL
from featx.vision.engine import EngineOptions

REQUEST = FeatureRequest(backbone="featx-mini")
ENGINE = EngineOptions(num_workers=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    for i in range(12):
        path = folder / "photos" / ("a", "b")[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    (folder / "photos" / "a" / "bad.png").write_bytes(b"no image")
    for storage in ("float32", "float16"):
        extract(folder / "photos", folder / f"{storage}.h5", request=dataclasses.replace(REQUEST, storage=storage),
                engine=ENGINE)  # fmt: skip
    return folder


@pytest.fixture
def folder(made, tmp_path):
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"


ALL = SampleSize(fraction=1.0)


def compare(folder, size=ALL, name="float32.h5", **options):
    return compare_sample(folder / name, folder / "photos", size, engine=ENGINE, **options)


@pytest.mark.parametrize("name", ["float32.h5", "float16.h5"])
def test_rows_computed_again_are_the_same(made, name):
    check = compare(made, name=name)
    assert (check.compared, check.deviating, check.changed, check.missing) == (12, [], [], [])
    assert check.tolerance == SAME_RUNTIME
    assert check.worst_deviation <= 1e-4
    assert verify_features(made / name).with_sample(check).is_good


def test_the_size_of_a_sample():
    assert [SampleSize(number=50).of(n) for n in (10, 1000)] == [10, 50]
    assert [SampleSize(fraction=0.01).of(n) for n in (10, 1000)] == [1, 10]


def test_a_draw_is_seeded(made):
    seen = []

    def note(done, total):
        seen.append((done, total))

    check = compare(made, SampleSize(number=5), progress=note)
    assert check.compared == 5
    assert seen[-1] == (5, 5)
    assert compare(made, SampleSize(number=5)) == check


def change_row(path, row, change):
    with samples.edited(path) as h5:
        features = h5["features"][...]
        features[row] = change(features[row])
        h5["features"][...] = features
        h5["features"].attrs[SEAL] = hashlib.sha256(features.tobytes()).hexdigest()


@pytest.mark.parametrize("amount", [1e-3, 1.0])
def test_a_row_that_differs_is_named(folder, amount):
    path = folder / "float32.h5"
    change_row(
        path, 3, lambda row: row + np.float32(amount) * (np.arange(len(row)) == 7).astype(np.float32) * row.std()
    )
    assert verify_features(path).is_good  # its digest was made to fit
    check = compare(folder)
    with h5py.File(path) as h5:
        key = h5["keys"].asstr()[3]
    assert check.deviating == [key]
    assert check.worst_key == key
    assert 1e-4 < check.worst_deviation < 2 * amount
    report = verify_features(path).with_sample(check)
    assert not report.is_good
    assert key in report.problems[0]
    assert "extract again with --replace" in report.problems[0]


def test_rows_of_other_images_are_named(folder):
    change_row(folder / "float32.h5", slice(None), lambda rows: rows[::-1].copy())
    assert len(compare(folder).deviating) == 12
    assert compare(folder).lowest_cosine < 0.5


def test_an_image_that_changed_or_went_is_said_and_not_compared(folder):
    Image.new("RGB", (30, 30)).save(folder / "photos" / "a" / "00.png")
    (folder / "photos" / "b" / "01.png").unlink()
    check = compare(folder)
    assert (check.compared, check.changed, check.missing) == (10, ["a/00.png"], ["b/01.png"])
    report = verify_features(folder / "float32.h5").with_sample(check)
    assert report.is_good
    assert len(report.notes) == 2


def test_a_source_of_other_images_is_an_error(folder, made):
    (folder / "other").mkdir()
    Image.new("RGB", (30, 30)).save(folder / "other" / "x.png")
    with pytest.raises(UsageError, match="12 are not in SOURCE"):
        compare_sample(folder / "float32.h5", folder / "other", SampleSize(fraction=1.0))


def test_other_versions_are_judged_as_another_runtime(made, monkeypatch):
    monkeypatch.setattr(comparison.importlib.metadata, "version", lambda name: "0.1")
    assert compare(made).tolerance == OTHER_RUNTIME


def test_one_row_alone_has_no_centre(tmp_path, made):
    (tmp_path / "photos").mkdir()
    Image.open(made / "photos" / "a" / "00.png").save(tmp_path / "photos" / "one.png")
    extract(tmp_path / "photos", tmp_path / "float32.h5", request=REQUEST, engine=ENGINE)
    check = compare(tmp_path)
    assert (check.compared, check.deviating) == (1, [])


def test_a_file_without_rows(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bad.png").write_bytes(b"no image")
    extract(tmp_path / "photos", tmp_path / "float32.h5", request=REQUEST, engine=ENGINE)
    with pytest.raises(UsageError, match="no sample has a row"):
        compare(tmp_path)
