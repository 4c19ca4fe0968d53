"""Groups, limit, counts, single files, and what Python holds."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from featx.errors import ImageDecodeError, ManifestError, UsageError
from featx.manifest.source import (
    SourceOptions,
    _limited,
    count_by,
    manifest_of,
    read_bytes,
    read_source,
    sample_sha256,
    stat,
)

SHARED = Path(__file__).parents[2] / "../shared"


@pytest.fixture
def folder(tmp_path):
    for key in ("ants/p1_a.jpg", "ants/p1_b.jpg", "ants/p2_a.jpg", "bees/p3_a.jpg", "bees/other.jpg"):
        path = tmp_path / key
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(key.encode())
    return tmp_path


# ---- groups


def test_group_regex_takes_its_first_capture_group_and_others_are_empty(folder):
    manifest = read_source(folder, SourceOptions(group_regex=r"/(p\d)_(a|b)"))
    assert dict(zip(manifest.keys, manifest.groups, strict=True)) == {
        "ants/p1_a.jpg": "p1",
        "ants/p1_b.jpg": "p1",
        "ants/p2_a.jpg": "p2",
        "bees/other.jpg": "",
        "bees/p3_a.jpg": "p3",
    }
    assert manifest.group_source == r"regex /(p\d)_(a|b)"


def test_a_group_that_takes_no_part_in_the_match_is_empty(folder):
    assert read_source(folder, SourceOptions(group_regex=r"ants|(bees)")).groups == ["", "", "", "bees", "bees"]


@pytest.mark.parametrize("pattern", ["nothing(x)", "ants()"])
def test_a_group_pattern_that_matches_nothing_is_an_error_with_an_example(folder, pattern):
    with pytest.raises(ManifestError, match=r"finds no group in any key.*ants/p1_a\.jpg"):
        read_source(folder, SourceOptions(group_regex=pattern))


@pytest.mark.parametrize(("pattern", "message"), [("p1", "brackets"), ("(p1", "not a regular expression")])
def test_a_group_pattern_without_group_or_not_a_pattern_is_a_usage_error(folder, pattern, message):
    with pytest.raises(UsageError, match=message):
        read_source(folder, SourceOptions(group_regex=pattern))


def test_a_group_pattern_takes_the_place_of_a_column_which_stays_as_meta(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("path,group\np1_1.jpg,x\np2_2.jpg,y\n")
    manifest = read_source(table, SourceOptions(group_regex=r"^(p\d)"))
    assert manifest.groups == ["p1", "p2"]
    assert manifest.meta == {"group": ["x", "y"]}


# ---- limit and counts


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    limit=st.integers(1, 200),
)
def test_limit_keeps_that_many_spread_over_all_classes_in_order(sizes, limit):
    labels = [f"c{i}" for i, n in enumerate(sizes) for _ in range(n)]
    whole = manifest_of([f"{i:04d}.jpg" for i in range(len(labels))], labels=labels)
    kept = _limited(whole, limit)
    assert len(kept) == min(limit, len(whole))
    assert kept.keys == sorted(set(kept.keys))
    assert [whole.labels[whole.keys.index(key)] for key in kept.keys] == kept.labels
    if limit >= len(sizes):
        assert set(kept.labels) == set(labels)
    for label, n in count_by(kept)["labels"].items():  # in proportion, but for the one that everybody gets first
        assert abs(n - len(kept) * labels.count(label) / len(labels)) <= len(sizes)


def test_limit_spreads_evenly_within_a_class(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("path,label,age\n" + "".join(f"{i}.jpg,x,{i}\n" for i in range(100)))
    manifest = read_source(table, SourceOptions(limit=4))
    assert manifest.keys == ["0.jpg", "25.jpg", "50.jpg", "75.jpg"]
    assert manifest.meta == {"age": ["0", "25", "50", "75"]}


def test_limit_below_one_is_a_usage_error(folder):
    with pytest.raises(UsageError, match="at least 1"):
        read_source(folder, SourceOptions(limit=0))


def test_take_keeps_every_column_and_what_is_refused(folder):
    (folder / "ants/p9.jpg").symlink_to("p9.jpg")
    manifest = read_source(folder, SourceOptions(group_regex=r"/(p\d)"))
    picked = manifest.take([4, 3])
    assert picked.keys == ["bees/other.jpg", "ants/p9.jpg"]
    assert (picked.labels, picked.groups) == (["bees", "ants"], ["", "p9"])
    assert picked.refused == {1: "symlink-loop"}
    assert read_bytes(picked, 0) == b"bees/other.jpg"


def test_count_by_counts_labels_groups_splits_and_folds(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("path,label,split\n1.jpg,x,train\n2.jpg,,test\n3.jpg,x,train\n")
    assert count_by(read_source(table)) == {
        "labels": {"": 1, "x": 2},
        "groups": {"": 3},
        "splits": {"test": 1, "train": 2},
        "folds": {"": 3},
    }


# ---- single files and options that do not fit


@pytest.mark.parametrize("name", ["one.JPG", "photograph"])
def test_a_single_file_is_one_sample_named_like_it(tmp_path, name):
    (tmp_path / name).write_bytes(b"bytes")
    manifest = read_source(tmp_path / name)
    assert (manifest.keys, manifest.labels, manifest.root) == ([name], [""], str(tmp_path))
    assert read_bytes(manifest, 0) == b"bytes"


def test_a_single_file_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("one.jpg").write_bytes(b"bytes")
    assert read_bytes(read_source("one.jpg"), 0) == b"bytes"


def test_a_file_of_another_kind_is_an_error(tmp_path):
    (tmp_path / "notes.docx").write_bytes(b"x")
    with pytest.raises(ManifestError, match="neither a folder nor a table"):
        read_source(tmp_path / "notes.docx")


@pytest.mark.parametrize(("options", "name"), [({"label_column": "x"}, "--label-column"), ({"root": "x"}, "--root")])
def test_options_for_tables_are_refused_for_folders(folder, options, name):
    with pytest.raises(UsageError, match=f"{name} has no meaning for a folder"):
        read_source(folder, SourceOptions(**options))


# ---- what Python holds


def pixels(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)


def test_paths_arrays_and_pil_images_make_a_manifest(folder):
    array, image = pixels(), Image.fromarray(pixels(1))
    manifest = manifest_of(
        [folder / "ants/p1_a.jpg", array, image], labels=["a", None, 3], groups=[1, float("nan"), "g"]
    )
    assert manifest.keys == [f"{folder}/ants/p1_a.jpg", "000001", "000002"]
    assert manifest.labels == ["a", "", "3"]
    assert manifest.groups == ["1", "", "g"]
    assert read_bytes(manifest, 0) == b"ants/p1_a.jpg"
    assert manifest.arrays[1] is array
    assert manifest.arrays[2] is image
    assert stat(manifest, 1) == (0, 0)


def test_relative_paths_are_below_root(folder):
    manifest = manifest_of(["ants/p1_a.jpg", "bees/other.jpg"], root=folder, splits=["Train", "dev"])
    assert manifest.keys == ["ants/p1_a.jpg", "bees/other.jpg"]
    assert manifest.splits == ["train", "val"]
    assert manifest.arrays is None
    assert read_bytes(manifest, 1) == b"bees/other.jpg"


def test_one_array_of_many_images_is_a_sequence():
    batch = np.stack([pixels(i) for i in range(3)])
    manifest = manifest_of(batch, keys=["a", "b", "c"])
    assert manifest.keys == ["a", "b", "c"]
    assert (manifest.arrays[2] == batch[2]).all()


@pytest.mark.parametrize(
    ("items", "options", "message"),
    [
        ([], {}, "no images"),
        (["a.jpg", "a.jpg"], {}, "'a.jpg' is there twice"),
        (["a.jpg"], {"labels": ["x", "y"]}, "2 labels for 1 items"),
        (["a.jpg"], {"keys": ["x", "y"]}, "2 keys for 1 items"),
        (["a.jpg"], {"splits": ["holdout"]}, "'holdout' is not a split"),
        ([3], {}, "item 0: expected a path.*got int"),
        ([np.zeros((3, 4, 4), np.float32)], {}, "got float32"),
        ([np.zeros((4, 4, 7), np.uint8)], {}, r"got uint8 \(4, 4, 7\)"),
        ([np.zeros((0, 4), np.uint8)], {}, r"got uint8 \(0, 4\)"),
    ],
)
def test_what_python_holds_is_checked(items, options, message):
    with pytest.raises(ManifestError, match=message):
        manifest_of(items, **options)


def test_one_path_is_not_a_sequence_of_images():
    with pytest.raises(UsageError, match="read_source"):
        manifest_of("folder")


# ---- hashes


def test_the_sha256_of_a_file_is_that_of_its_bytes(folder):
    manifest = read_source(folder)
    expected = hashlib.sha256(b"ants/p1_a.jpg").hexdigest()
    assert sample_sha256(manifest, 0) == sample_sha256(manifest, 0, b"ants/p1_a.jpg") == expected
    (folder / "ants/p1_a.jpg").unlink()
    with pytest.raises(ImageDecodeError):
        sample_sha256(manifest, 0)


def test_the_sha256_of_an_array_tells_pixels_and_shape_apart_but_not_strides():
    array = pixels()
    items = [array, array.copy(order="F"), array.reshape(5, 4, 3), array + 1, array.reshape(4, 15)]
    hashes = [sample_sha256(manifest_of([item]), 0) for item in items]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4


def test_the_sha256_of_a_pil_image_tells_apart_all_that_changes_its_colours():
    image = Image.fromarray(pixels()).quantize(4)
    recoloured, transparent, turned = image.copy(), image.copy(), image.copy()
    recoloured.putpalette([255, 0, 0] * 4)
    transparent.info["transparency"] = 1
    turned.getexif()[0x0112] = 6
    hashes = [sample_sha256(manifest_of([item]), 0) for item in (image, image.copy(), recoloured, transparent, turned)]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4


def test_a_pil_image_of_a_damaged_file_is_a_failed_row_and_not_a_crash():
    buffer = io.BytesIO()
    Image.fromarray(pixels()).save(buffer, "PNG")
    with Image.open(io.BytesIO(buffer.getvalue()[:60])) as image, pytest.raises(ImageDecodeError) as caught:
        sample_sha256(manifest_of([image]), 0)
    assert (caught.value.reason, caught.value.key) == ("corrupt", "000000")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data")
def test_hymenoptera_is_read_as_its_readme_says():
    manifest = read_source(SHARED / "data/hymenoptera")
    assert count_by(manifest)["splits"] == {"train": 243, "val": 153}
    assert set(manifest.labels) == {"ants", "bees"}
