"""A folder of images as a manifest: layouts, names, links."""

import inspect
import os
import string
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featx.errors import ImageDecodeError, ManifestError, UnknownNameError
from featx.manifest.folder import EXTENSIONS, read_folder
from featx.manifest.record import SPLITS
from featx.manifest.source import SourceOptions, read_bytes, read_source, stat


def make(root, *names, content=b"x"):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def rows(manifest):
    return list(zip(manifest.keys, manifest.splits, manifest.labels, strict=True))


# ---- layouts


def test_class_folders_give_the_label_and_keys_are_sorted_paths_below_the_root(tmp_path):
    make(tmp_path, "bees/2.jpg", "ants/b.jpg", "ants/a.jpg", "bees/10.jpg")
    manifest = read_source(tmp_path)
    assert rows(manifest) == [
        ("ants/a.jpg", "", "ants"),
        ("ants/b.jpg", "", "ants"),
        ("bees/10.jpg", "", "bees"),
        ("bees/2.jpg", "", "bees"),
    ]
    assert manifest.paths[0] == str(tmp_path / "ants/a.jpg")
    assert manifest.root == str(tmp_path)
    assert not manifest.group_source


@pytest.mark.parametrize(
    ("name", "stored"),
    [("train", "train"), ("val", "val"), ("valid", "val"), ("validation", "val"), ("dev", "val"), ("test", "test")],
)
@pytest.mark.parametrize("case", [str.lower, str.upper, str.title])
def test_top_folders_that_are_all_named_like_splits_are_splits(tmp_path, name, stored, case):
    make(tmp_path, f"{case(name)}/ants/1.jpg", "Train/bees/2.jpg")
    assert (f"{case(name)}/ants/1.jpg", stored, "ants") in rows(read_source(tmp_path))


def test_mixed_top_folders_are_class_folders(tmp_path):
    make(tmp_path, "train/ants/1.jpg", "other/2.jpg")
    assert rows(read_source(tmp_path)) == [("other/2.jpg", "", "other"), ("train/ants/1.jpg", "", "train")]


def test_a_top_folder_without_images_does_not_turn_splits_into_classes(tmp_path):
    make(tmp_path, "train/ants/1.jpg", "val/ants/2.jpg", "notes/readme.txt")
    assert read_source(tmp_path).splits == ["train", "val"]


def test_a_flat_folder_has_no_labels(tmp_path):
    make(tmp_path, "b.jpg", "a.png")
    assert rows(read_source(tmp_path)) == [("a.png", "", ""), ("b.jpg", "", "")]


def test_deeper_folders_stay_in_the_key_only(tmp_path):
    make(tmp_path, "ants/patient1/left/1.jpg", "bees/1.jpg")
    assert rows(read_source(tmp_path))[0] == ("ants/patient1/left/1.jpg", "", "ants")
    splits = make(tmp_path / "more", "train/ants/patient1/1.jpg")
    assert rows(read_source(splits)) == [("train/ants/patient1/1.jpg", "train", "ants")]


def test_images_beside_the_class_folders_are_unlabelled(tmp_path):
    make(tmp_path, "0.jpg", "ants/1.jpg")
    assert rows(read_source(tmp_path)) == [("0.jpg", "", ""), ("ants/1.jpg", "", "ants")]
    splits = make(tmp_path / "more", "train/1.jpg", "val/ants/2.jpg")
    assert rows(read_source(splits)) == [("train/1.jpg", "train", ""), ("val/ants/2.jpg", "val", "ants")]


@pytest.mark.parametrize(
    ("layout", "expected"),
    [("classes", [("", "train"), ("", "val")]), ("splits", [("train", "a"), ("val", "b")]), ("flat", [("", "")] * 2)],
)
def test_layout_overrides_what_the_folders_look_like(tmp_path, layout, expected):
    make(tmp_path, "train/a/1.jpg", "val/b/2.jpg")
    manifest = read_source(tmp_path, SourceOptions(layout=layout))
    assert [(split, label) for _, split, label in rows(manifest)] == expected
    assert manifest.keys == ["train/a/1.jpg", "val/b/2.jpg"]


def test_layout_splits_refuses_a_folder_of_another_name(tmp_path):
    make(tmp_path, "train/a/1.jpg", "holdout/b/2.jpg")
    with pytest.raises(ManifestError, match="'holdout' is not a split; expected train"):
        read_folder(tmp_path, layout="splits")


def test_an_unknown_layout_lists_the_known_ones(tmp_path):
    with pytest.raises(UnknownNameError, match="classes"):
        read_folder(tmp_path, layout="class")


# ---- which files


def test_hidden_files_and_files_that_are_no_images_are_not_samples(tmp_path):
    make(
        tmp_path, "ants/1.jpg", "ants/.DS_Store", "ants/Thumbs.db", "ants/._1.jpg", "__MACOSX/ants/1.jpg", ".git/2.png"
    )
    make(tmp_path, "README.txt", "ants/notes.TXT", "LICENSE", "ants/jpg")
    manifest = read_source(tmp_path)
    assert manifest.keys == ["ants/1.jpg"]
    assert manifest.skipped == {"": 2, ".db": 1, ".txt": 2}


def test_text_named_jpg_is_a_sample_that_fails_later(tmp_path):
    assert read_source(make(tmp_path, "a.jpg", content=b"hello")).keys == ["a.jpg"]


def test_extensions_count_in_any_case(tmp_path):
    names = [
        f"{i}{case(extension)}" for i, extension in enumerate(sorted(EXTENSIONS)) for case in (str.lower, str.upper)
    ]
    assert read_source(make(tmp_path, *names)).keys == sorted(names)


@pytest.mark.parametrize("names", [(), ("notes.txt",), (".hidden.jpg",)])
def test_a_folder_without_images_is_an_error(tmp_path, names):
    with pytest.raises(ManifestError, match="no images in this folder") as caught:
        read_source(make(tmp_path, *names))
    assert caught.value.exit_code == 4
    assert str(tmp_path) in str(caught.value)


def test_a_source_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(ManifestError, match="no such file or folder"):
        read_source(tmp_path / "nowhere")


# ---- links


def test_links_to_folders_and_files_are_followed(tmp_path):
    outside = make(tmp_path / "outside", "1.jpg", "deep/2.jpg", content=b"far")
    root = make(tmp_path / "root", "bees/3.jpg")
    (root / "ants").symlink_to(outside)
    (root / "bees/4.jpg").symlink_to(outside / "1.jpg")
    manifest = read_source(root)
    assert manifest.keys == ["ants/1.jpg", "ants/deep/2.jpg", "bees/3.jpg", "bees/4.jpg"]
    assert not manifest.refused
    assert read_bytes(manifest, 1) == read_bytes(manifest, 3) == b"far"


def test_two_links_to_one_folder_are_no_loop(tmp_path):
    outside = make(tmp_path / "outside", "1.jpg")
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").symlink_to(outside)
    (root / "b").symlink_to(outside)
    assert read_source(root).keys == ["a/1.jpg", "b/1.jpg"]


@pytest.mark.parametrize("target", [".", "..", "../..", "../bees/back"])
def test_a_symlink_loop_is_one_failed_row_and_does_not_hang(tmp_path, target):
    root = make(tmp_path / "root", "ants/1.jpg", "bees/2.jpg")
    (root / "bees/back").symlink_to("../ants")
    (root / "ants/loop").symlink_to(target)
    manifest = read_source(root)
    loops = [manifest.keys[position] for position, reason in manifest.refused.items() if reason == "symlink-loop"]
    assert loops
    assert {"ants/1.jpg", "bees/2.jpg"} <= set(manifest.keys)
    with pytest.raises(ImageDecodeError) as caught:
        read_bytes(manifest, manifest.keys.index(loops[0]))
    assert (caught.value.reason, caught.value.key) == ("symlink-loop", loops[0])


def test_a_link_to_itself_is_a_failed_row(tmp_path):
    make(tmp_path, "1.jpg")
    (tmp_path / "2.jpg").symlink_to("2.jpg")
    manifest = read_source(tmp_path)
    assert manifest.keys == ["1.jpg", "2.jpg"]
    assert manifest.refused == {1: "symlink-loop"}


def test_a_dangling_link_is_a_missing_file(tmp_path):
    make(tmp_path, "1.jpg")
    (tmp_path / "2.jpg").symlink_to("nowhere.jpg")
    manifest = read_source(tmp_path)
    with pytest.raises(ImageDecodeError) as caught:
        read_bytes(manifest, 1)
    assert caught.value.reason == "missing"
    assert stat(manifest, 1) is None


def test_folders_nested_deeper_than_python_recurses_are_listed(tmp_path):
    key = "a/" * 200 + "1.jpg"
    make(tmp_path, key)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        manifest = read_source(tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    assert manifest.keys == [key]


# ---- names


def test_a_name_that_is_not_utf8_is_a_failed_row_with_an_escaped_key(tmp_path):
    make(tmp_path, "ants/1.jpg")
    with open(os.fsencode(tmp_path) + b"/ants/caf\xe9.jpg", "wb") as file:
        file.write(b"x")
    os.mkdir(os.fsencode(tmp_path) + b"/b\xff")
    with open(os.fsencode(tmp_path) + b"/b\xff/2.jpg", "wb") as file:
        file.write(b"x")
    manifest = read_source(tmp_path)
    assert rows(manifest) == [
        ("ants/1.jpg", "", "ants"),
        ("ants/caf\\xe9.jpg", "", "ants"),
        ("b\\xff/2.jpg", "", "b\\xff"),
    ]
    assert manifest.refused == {1: "name-not-utf8", 2: "name-not-utf8"}
    "".join(manifest.keys + manifest.labels).encode()
    with pytest.raises(ImageDecodeError) as caught:
        read_bytes(manifest, 1)
    assert caught.value.reason == "name-not-utf8"
    assert stat(manifest, 1)[0] == 1


def test_two_names_that_read_the_same_once_escaped_are_an_error(tmp_path):
    make(tmp_path, "\\xe9.jpg")
    with open(os.fsencode(tmp_path) + b"/\xe9.jpg", "wb"):
        pass
    with pytest.raises(ManifestError, match="two files"):
        read_source(tmp_path)


def test_names_in_other_scripts_are_kept(tmp_path):
    assert read_source(make(tmp_path, "蟻/画像 1.jpg")).labels == ["蟻"]


NAMES = st.text(string.ascii_letters + " ._-äß蟻'\"", min_size=1, max_size=8).filter(
    lambda name: not name.startswith(".") and name != "__MACOSX" and name.lower() not in SPLITS
)


@settings(deadline=None)
@given(st.dictionaries(NAMES, st.sets(NAMES, min_size=1, max_size=3), min_size=1, max_size=3))
def test_what_is_written_as_class_folders_is_read_back(tmp_path_factory, classes):
    root = tmp_path_factory.mktemp("classes")
    expected = sorted((f"{label}/{name}.png", label) for label, names in classes.items() for name in names)
    make(root, *(key for key, _ in expected))
    manifest = read_source(root)
    assert list(zip(manifest.keys, manifest.labels, strict=True)) == expected


# ---- reading


def test_reading_gives_the_bytes_or_the_reason(tmp_path):
    make(tmp_path, "1.jpg", content=b"bytes")
    make(tmp_path, "2.jpg", content=b"")
    make(tmp_path, "3.jpg")
    os.mkfifo(tmp_path / "4.jpg")
    manifest = read_source(tmp_path)
    (tmp_path / "3.jpg").unlink()
    assert read_bytes(manifest, 0) == b"bytes"
    assert stat(manifest, 0) == (5, (tmp_path / "1.jpg").stat().st_mtime_ns)
    for position, reason in [(1, "empty"), (2, "missing"), (3, "unreadable")]:  # a pipe must not block
        with pytest.raises(ImageDecodeError) as caught:
            read_bytes(manifest, position)
        assert (caught.value.reason, caught.value.key) == (reason, manifest.keys[position])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_and_a_folder_without_permission(tmp_path):
    make(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a/1.jpg").chmod(0)
    with pytest.raises(ImageDecodeError) as caught:
        read_bytes(read_source(tmp_path), 0)
    assert caught.value.reason == "unreadable"
    (tmp_path / "b").chmod(0)
    with pytest.raises(ManifestError, match="cannot list"):
        read_source(tmp_path)
    (tmp_path / "b").chmod(0o755)
