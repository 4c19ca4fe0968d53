"""The stage behind ``featx extract``, called from Python."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import featx
from featx.errors import UsageError
from featx.extract import extract
from featx.spec import FeatureRequest
from featx.store.file import FeatureFile

MINI = FeatureRequest(backbone="featx-mini", weights="random")


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 40, 50, 3), dtype=np.uint8)


def test_an_array_a_list_of_arrays_and_files_of_the_same_pixels_give_the_same_rows(pixels, tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(len(pixels))]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    sources = {
        "array": pixels,
        "list": list(pixels),
        "PIL": [Image.fromarray(image) for image in pixels],
        "paths": paths,
        "generator": (str(path) for path in paths),
    }
    rows = {}
    for name, source in sources.items():
        report = extract(source, tmp_path / f"{name}.h5", request=MINI)
        assert (report.rows, report.computed, report.failures) == (5, 5, {})
        with FeatureFile.open(tmp_path / f"{name}.h5") as file:
            rows[name] = file.features()
    assert all(np.array_equal(features, rows["array"]) for features in rows.values())


def test_arrays_that_did_not_change_are_recognised(pixels, tmp_path):
    target = tmp_path / "x.h5"
    extract(pixels, target, request=MINI)
    assert extract(pixels, target, request=MINI).unchanged == 5
    pixels[2] = 0
    report = extract(pixels, target, request=MINI)
    assert (report.computed, report.unchanged) == (1, 4)


def test_labels_and_groups_of_images_in_memory_are_stored(pixels, tmp_path):
    source = featx.manifest_of(pixels, labels=[1, 1, 2, 2, None], groups=["a", "a", "b", "b", ""])
    featx.extract(source, tmp_path / "x.h5", request=MINI)
    with FeatureFile.open(tmp_path / "x.h5") as file:
        assert file.labels() == ["1", "1", "2", "2", ""]
        assert file.groups() == ["a", "a", "b", "b", ""]


def test_one_image_given_as_if_it_were_many_is_refused(pixels, tmp_path):
    with pytest.raises(UsageError, match="into a list"):
        extract(pixels[0], tmp_path / "x.h5", request=MINI)


@pytest.fixture
def photos(pixels, tmp_path):
    """A complete file's folder: good images, and one of no bytes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i}.png")
    (folder / "empty.png").write_bytes(b"")
    return folder


def test_a_complete_file_is_recognised_without_the_network_and_without_opening_an_image(photos, tmp_path, monkeypatch):
    target = tmp_path / "x.h5"
    assert extract(photos, target, request=MINI).failures == {"empty.png": "empty"}
    before = target.read_bytes()
    opened = []
    monkeypatch.setattr("featx.manifest.source.read_bytes", lambda manifest, position: opened.append(position))
    monkeypatch.setitem(sys.modules, "featx.vision.backbones", None)  # importing it now fails
    report = extract(photos, target, request=MINI)
    assert (report.computed, report.unchanged, report.rows, opened) == (0, 6, 5, [])
    assert report.failures == {"empty.png": "empty"}
    assert target.read_bytes() == before


def test_an_empty_file_that_was_filled_is_computed(photos, pixels, tmp_path):
    target = tmp_path / "x.h5"
    extract(photos, target, request=MINI)
    Image.fromarray(pixels[0] // 2).save(photos / "empty.png")
    report = extract(photos, target, request=MINI)
    assert (report.computed, report.unchanged, report.failures) == (1, 5, {})


def test_other_weights_of_the_same_backbone_are_another_spec(photos, tmp_path):
    first = extract(photos, tmp_path / "a.h5", request=MINI)
    second = extract(photos, tmp_path / "b.h5", request=replace(MINI, weights="random:1"))
    assert first.fingerprint != second.fingerprint
