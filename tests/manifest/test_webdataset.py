"""WebDataset's tar shards: what a sample is, where its label comes from, and what is refused."""

import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_samples import read_elsewhere, shard

from featx.errors import ImageDecodeError, ManifestError, UsageError
from featx.manifest.locator import read_place, stat_place
from featx.manifest.source import SourceOptions, read_bytes, read_source, stat


def rows(manifest):
    return list(zip(manifest.keys, manifest.splits, manifest.labels, strict=True))


def read(path, **options):
    return read_source(path, SourceOptions(**options))


# ---- samples


def test_members_that_share_a_name_up_to_the_first_dot_are_a_sample(tmp_path):
    path = shard(
        tmp_path / "s-000.tar", [("a/1.jpg", b"one"), ("a/1.cls", "3\n"), ("a/2.cls", "4"), ("a/2.PNG", b"two")]
    )
    manifest = read(path)
    assert rows(manifest) == [("s-000/a/1.jpg", "", "3"), ("s-000/a/2.PNG", "", "4")]
    assert [read_bytes(manifest, i) for i in range(2)] == [b"one", b"two"]
    found = path.stat()
    assert stat(manifest, 0) == (3, found.st_mtime_ns)
    assert len(manifest.paths) == 2
    assert list(manifest.paths)[1] == manifest.paths[1] == manifest.paths[0:2][1]


def test_json_fields_are_label_group_split_fold_and_the_rest_is_meta(tmp_path):
    first = {
        "label": "ants",
        "group": 7,
        "split": "Valid",
        "fold": 2,
        "age": 41.5,
        "ok": True,
        "none": None,
        "box": [1],
    }
    path = shard(
        tmp_path / "s.tar", [("1.json", first), ("1.jpg", b"1"), ("2.jpg", b"2"), ("2.json", {"label": "bees"})]
    )
    manifest = read(path)
    assert rows(manifest) == [("s/1.jpg", "val", "ants"), ("s/2.jpg", "", "bees")]
    assert (manifest.groups, manifest.folds, manifest.group_source) == (["7", ""], ["2", ""], "column group")
    assert manifest.meta == {"age": ["41.5", ""], "ok": ["true", ""], "none": ["", ""]}


@pytest.mark.parametrize("order", [1, -1])
def test_the_class_goes_before_a_label_in_json_wherever_it_stands(tmp_path, order):
    members = [("1.cls", "3"), ("1.jpg", b"1"), ("1.json", {"label": "ants", "x": 1})][::order]
    manifest = read(shard(tmp_path / "s.tar", members))
    assert (manifest.labels, manifest.meta) == (["3"], {"x": ["1"]})
    manifest = read(shard(tmp_path / "t.tar", [*members, ("1.kind", "moth")]), label_column="kind")
    assert (manifest.labels, manifest.meta["cls"], manifest.meta["label"]) == (["moth"], ["3"], ["ants"])


def test_fields_of_other_names_are_taken_on_request_and_must_be_there(tmp_path):
    path = shard(tmp_path / "s.tar", [("1.jpg", b"1"), ("1.json", {"diagnosis": "x", "patient": "p1"})])
    manifest = read(path, label_column="diagnosis", group_column="Patient")
    assert (manifest.labels, manifest.groups, manifest.group_source) == (["x"], ["p1"], "column patient")
    with pytest.raises(ManifestError, match=r"no column 'site'; there are: 'diagnosis', 'patient'.*--group-column"):
        read(path, group_column="site")


def test_without_a_label_the_folders_in_the_tar_are_read_like_those_of_a_folder(tmp_path):
    path = shard(tmp_path / "s.tar", [("./ants/1.jpg", b"1"), ("./bees/2.jpg", b"2")])
    assert rows(read(path)) == [("s/ants/1.jpg", "", "ants"), ("s/bees/2.jpg", "", "bees")]
    assert read(path, layout="flat").labels == ["", ""]
    splits = shard(tmp_path / "t.tar", [("train/ants/1.jpg", b"1"), ("val/bees/2.jpg", b"2")])
    assert rows(read(splits)) == [("t/train/ants/1.jpg", "train", "ants"), ("t/val/bees/2.jpg", "val", "bees")]


def test_one_of_several_images_is_chosen_by_its_extension(tmp_path):
    path = shard(tmp_path / "s.tar", [("1.input.png", b"in"), ("1.target.png", b"out")])
    with pytest.raises(
        ManifestError, match=r"one sample has 2 images \('1.input.png', '1.target.png'\).*--path-column"
    ):
        read(path)
    manifest = read(path, path_column="input.png")
    assert manifest.keys == ["s/1.input.png"]
    assert read_bytes(manifest, 0) == b"in"
    plain = shard(tmp_path / "t.tar", [("1.mask.png", b"mask"), ("1.jpg", b"image")])
    assert read(plain).keys == ["t/1.jpg"]


def test_what_is_no_image_is_counted_and_links_are_never_followed(tmp_path):
    path = shard(
        tmp_path / "s.tar", [("1.jpg", b"1"), ("1.txt", "a caption"), ("._1.jpg", b"x"), ("__MACOSX/1.jpg", b"x")]
    )
    with tarfile.open(path, "a") as tar:
        for name, kind in (("2.jpg", tarfile.SYMTYPE), ("3.jpg", tarfile.LNKTYPE), ("4.jpg", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        folder = tarfile.TarInfo("5.jpg")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    manifest = read(path)
    assert manifest.keys == ["s/1.jpg"]
    assert manifest.skipped == {".txt": 1, "links": 2, "specials": 1}


# ---- several shards


def test_a_folder_of_split_folders_of_shards_gives_the_splits(tmp_path):
    for name in ("train/000", "train/001", "test/000"):
        shard(tmp_path / f"{name}.tar", [("1.jpg", b"1"), ("1.cls", "x")])
    (tmp_path / "README.md").write_text("about")
    assert rows(read(tmp_path)) == [
        ("test/000/1.jpg", "test", "x"),
        ("train/000/1.jpg", "train", "x"),
        ("train/001/1.jpg", "train", "x"),
    ]
    assert read(tmp_path, layout="flat").splits == [""] * 3
    kept = read(tmp_path, group_regex=r"/(\d+)/", limit=2)
    assert (kept.keys, kept.groups) == (["test/000/1.jpg", "train/000/1.jpg"], ["000", "000"])
    assert read_bytes(kept, 1) == b"1"


@pytest.mark.parametrize(
    "pattern", ["train-{000..002}.tar", "train-*.tar", "train-00[0-2].tar", "train-{000,001,002}.tar"]
)
def test_braces_and_wildcards_name_shards_and_their_names_the_split(tmp_path, monkeypatch, pattern):
    for i in range(3):
        shard(tmp_path / f"shards/train-{i:03d}.tar", [("1.jpg", bytes([i]))])
    for source in (f"{tmp_path}/shards/{pattern}", f"shards/{pattern}", f"../{tmp_path.name}/shards/{pattern}"):
        monkeypatch.chdir(tmp_path)
        manifest = read(source)
        assert manifest.keys == [f"train-{i:03d}/1.jpg" for i in range(3)]
        assert manifest.splits == ["train"] * 3
        assert [read_bytes(manifest, i) for i in range(3)] == [bytes([i]) for i in range(3)]
    monkeypatch.chdir(tmp_path / "shards")
    assert read(pattern).keys == manifest.keys


def test_shards_of_any_name_have_no_split(tmp_path):
    shard(tmp_path / "train-0.tar", [("1.jpg", b"1")])
    shard(tmp_path / "more-0.tar", [("1.jpg", b"1")])
    assert read(tmp_path).splits == ["", ""]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("s-{0..3}.tar", "no such file: .*s-1.tar"),
        ("t-*.tar", "no file fits this pattern"),
        ("{s-0.tar,notes.txt}", r"must fit \.tar files or \.parquet files"),
        ("s-{0..99999999}.tar", "too many files"),
        ("s-{1}.tar", "no such file or folder"),
    ],
)
def test_a_pattern_that_names_no_shards_says_why(tmp_path, pattern, message):
    shard(tmp_path / "s-0.tar", [("1.jpg", b"1")])
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ManifestError, match=message):
        read(f"{tmp_path}/{pattern}")


def test_two_shards_whose_keys_would_be_the_same_are_refused(tmp_path):
    shard(tmp_path / "a.tar", [("b/1.jpg", b"1")])
    shard(tmp_path / "a/b.tar", [("1.jpg", b"1")])
    with pytest.raises(ManifestError, match=r"'a/b/1\.jpg' is there twice"):
        read(tmp_path)


# ---- what is refused


@pytest.mark.parametrize("name", ["s.tar.gz", "s.tgz", "s.tar.zst"])
def test_a_compressed_tar_is_refused_with_what_to_do(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    for source in (tmp_path, tmp_path / name, f"{tmp_path}/s*"):
        with pytest.raises(ManifestError, match=r"compressed tar.*unpack it to a plain \.tar"):
            read(source)


def test_a_shard_that_is_cut_off_names_the_member(tmp_path):
    path = shard(tmp_path / "s.tar", [("1.jpg", b"1" * 600), ("2.jpg", b"2" * 600)])
    path.write_bytes(path.read_bytes()[: 512 + 1024 + 512 + 100])
    with pytest.raises(ManifestError, match=r"s\.tar: this tar file is damaged: it ends within the member '2.jpg'"):
        read(path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("1.txt", "x")], r"no images in these shards \(1 other members\)"),
        ([], "no images in these shards"),
        ([("1.jpg", b"1"), ("1.jpg", b"1")], "'1.jpg' is there twice"),
        ([("../1.jpg", b"1")], "'../1.jpg' climbs out"),
        ([("1.jpg", b"1"), ("1.json", "{")], "1.json: not JSON"),
        ([("1.jpg", b"1"), ("1.json", "[" * 100000)], "1.json: not JSON"),
        ([("1.jpg", b"1"), ("1.cls", b"\xff")], "'1.cls' is not UTF-8"),
        ([("1.jpg", b"1"), ("1.json", {"split": "holdout"})], "'holdout' is not a split"),
    ],
)
def test_shards_that_make_no_sense_say_why(tmp_path, members, message):
    with pytest.raises(ManifestError, match=message):
        read(shard(tmp_path / "s.tar", members))


def test_json_that_is_no_object_says_nothing(tmp_path):
    assert read(shard(tmp_path / "s.tar", [("1.jpg", b"1"), ("1.json", "[1, 2]")])).meta == {}


def test_a_folder_with_images_is_a_folder_of_images_and_root_has_no_meaning(tmp_path):
    shard(tmp_path / "s.tar", [("1.jpg", b"1")])
    with pytest.raises(UsageError, match="--root has no meaning for tar shards"):
        read(tmp_path, root=str(tmp_path))
    (tmp_path / "2.jpg").write_bytes(b"2")
    manifest = read(tmp_path)
    assert (manifest.keys, manifest.skipped) == (["2.jpg"], {".tar": 1})


# ---- places


def test_a_place_is_all_that_another_process_needs(tmp_path):
    manifest = read(shard(tmp_path / "s.tar", [("1.jpg", b"one"), ("2.jpg", b"two")]))
    assert read_elsewhere(manifest.paths[1]) == b"two"


def test_a_shard_that_vanished_shrank_or_is_empty_at_a_member_is_a_failed_row(tmp_path):
    path = shard(tmp_path / "s.tar", [("1.jpg", b"one"), ("2.jpg", b"")])
    manifest = read(path)

    def reason(position):
        with pytest.raises(ImageDecodeError) as caught:
            read_bytes(manifest, position)
        return caught.value.reason, caught.value.detail

    assert reason(1) == ("empty", "")
    path.write_bytes(path.read_bytes()[:514])
    assert reason(0) == ("unreadable", "2 bytes instead of 3 from 512 on: was the file changed?")
    path.unlink()
    assert reason(0) == ("missing", "")
    assert stat(manifest, 0) is None


@settings(deadline=None, max_examples=25)
@given(contents=st.lists(st.binary(min_size=1, max_size=2000), min_size=1, max_size=8), long=st.booleans())
def test_every_image_comes_back_byte_for_byte(tmp_path_factory, contents, long):
    names = [f"{'folder/' * 30 * long}{i}.png" for i in range(len(contents))]
    manifest = read(shard(tmp_path_factory.mktemp("shards") / "s.tar", zip(names, contents, strict=True)))
    assert [read_place(place) for place in manifest.paths] == contents
    assert [stat_place(place)[0] for place in manifest.paths] == [len(content) for content in contents]
