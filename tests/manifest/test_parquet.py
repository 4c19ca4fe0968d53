"""Parquet files: which column holds the images, what the others are, and reading one value of many."""

import base64
import json
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_samples import read_elsewhere

from featx.errors import ImageDecodeError, ManifestError, MissingExtraError, UsageError
from featx.manifest import parquet_values
from featx.manifest.locator import PARQUET, place_in, read_place, stat_place
from featx.manifest.source import SourceOptions, read_bytes, read_source, stat

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

IMAGES = [b"one", b"two", b"three", b"four"]


def write(path, columns, *, row_group_size=2, metadata=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if metadata is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def read(path, **options):
    return read_source(path, SourceOptions(**options))


def contents(manifest):
    return [read_bytes(manifest, position) for position in range(len(manifest))]


# ---- which column is what


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.struct([("bytes", pa.binary()), ("path", pa.string())])]
)
@pytest.mark.parametrize("name", ["image", "jpg", "something"])
def test_bytes_or_a_struct_of_them_are_the_images(tmp_path, kind, name):
    values = [{"bytes": data, "path": None} for data in IMAGES] if pa.types.is_struct(kind) else IMAGES
    path = write(tmp_path / "x.parquet", {"label": [3, 1, None, 2], name: pa.array(values, kind)})
    manifest = read(path)
    assert manifest.keys == [f"x.parquet/{i:06d}" for i in range(4)]
    assert manifest.labels == ["3", "1", "", "2"]
    assert contents(manifest) == IMAGES
    assert stat(manifest, 0) == (path.stat().st_size, path.stat().st_mtime_ns)
    assert list(manifest.paths) == manifest.paths[:]


def test_class_labels_of_hugging_face_have_their_names(tmp_path):
    about = {"info": {"features": {"label": {"names": ["ants", "bees"], "_type": "ClassLabel"}}}}
    images = [{"bytes": data, "path": f"{i}.jpg"} for i, data in enumerate(IMAGES)]
    path = write(tmp_path / "x.parquet", {"image": images, "label": [1, 0, -1, 7]}, metadata=about)
    manifest = read(path)
    assert manifest.labels == ["bees", "ants", "", "7"]
    assert manifest.keys == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert contents(manifest) == IMAGES


@pytest.mark.parametrize("about", [[], {"info": None}, {"info": {"features": {"label": []}}}, "x"])
def test_other_metadata_say_nothing(tmp_path, about):
    assert (
        read(write(tmp_path / "x.parquet", {"image": IMAGES, "label": [1, 0, 2, 7]}, metadata=about)).labels[0] == "1"
    )


def test_columns_have_the_roles_of_a_tables_and_the_rest_is_meta(tmp_path):
    columns = {
        "Image": IMAGES,
        "diagnosis": pa.array(["a", "b", None, " a "]).dictionary_encode(),
        "Group": [1, 2, None, 4],
        "split": ["train", "VALID", None, "test"],
        "fold": [0, 1, 2, 3],
        "age": [1.5, float("nan"), None, 2.0],
        "ok": [True, False, None, True],
        "box": [[1], [2], [3], [4]],
        "id": ["p", "q", "r", "s"],
    }
    manifest = read(write(tmp_path / "x.parquet", columns), label_column="diagnosis")
    assert manifest.keys == ["p", "q", "r", "s"]
    assert manifest.labels == ["a", "b", "", "a"]
    assert (manifest.groups, manifest.group_source) == (["1", "2", "", "4"], "column Group")
    assert (manifest.splits, manifest.folds) == (["train", "val", "", "test"], ["0", "1", "2", "3"])
    assert manifest.meta == {"age": ["1.5", "", "", "2.0"], "ok": ["true", "false", "", "true"]}


@pytest.mark.parametrize("ids", [["a", "a", "b", "c"], ["a", None, "b", "c"]])
def test_keys_that_are_not_unique_or_not_there_are_not_taken(tmp_path, ids):
    manifest = read(write(tmp_path / "x.parquet", {"image": IMAGES, "id": ids}))
    assert manifest.keys[0] == "x.parquet/000000"
    assert manifest.meta["id"][0] == "a"


def test_of_several_columns_of_bytes_one_is_named(tmp_path):
    path = write(tmp_path / "x.parquet", {"left": IMAGES, "right": IMAGES[::-1]})
    with pytest.raises(ManifestError, match=r"columns 'left', 'right' hold bytes; name it with --path-column"):
        read(path)
    assert contents(read(path, path_column="right")) == IMAGES[::-1]
    with pytest.raises(ManifestError, match="no column 'middle'"):
        read(path, path_column="middle")
    with pytest.raises(ManifestError, match="no column 'site'"):
        read(path, path_column="left", group_column="site")


def test_a_table_of_paths_is_read_like_one_in_csv(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.jpg").write_bytes(b"one")
    path = write(tmp_path / "x.parquet", {"path": ["a/1.jpg", "2.jpg"], "label": ["x", None], "age": [3, 4]})
    manifest = read(path)
    assert (manifest.keys, manifest.labels, manifest.meta) == (["a/1.jpg", "2.jpg"], ["x", ""], {"age": ["3", "4"]})
    assert read_bytes(manifest, 0) == b"one"
    below = read(write(tmp_path / "y.parquet", {"file": ["1.jpg"]}), path_column="file", root=str(tmp_path / "a"))
    assert read_bytes(below, 0) == b"one"
    with pytest.raises(ManifestError, match=r"z\.parquet, line 2: '\.\./1\.jpg' is not below"):
        read(write(tmp_path / "z.parquet", {"path": ["1.jpg", "../1.jpg"]}))


# ---- several files


def test_a_folder_of_files_named_after_splits(tmp_path):
    write(tmp_path / "data/train-00000-of-00002.parquet", {"image": IMAGES[:2], "label": ["a", "b"]})
    write(tmp_path / "data/train-00001-of-00002.parquet", {"image": IMAGES[2:3], "more": [5]})
    write(tmp_path / "data/validation-0.parquet", {"image": IMAGES[3:], "label": ["c"]})
    (tmp_path / "README.md").write_text("about")
    manifest = read(tmp_path)
    assert contents(manifest) == IMAGES
    assert manifest.splits == ["train", "train", "train", "val"]
    assert manifest.labels == ["a", "b", "", "c"]
    assert manifest.meta == {"more": ["", "", "5", ""]}
    assert manifest.keys[2] == "data/train-00001-of-00002.parquet/000000"
    assert read(f"{tmp_path}/data/train-*.parquet").keys[2] == "train-00001-of-00002.parquet/000000"
    assert read(tmp_path, layout="flat").splits == [""] * 4
    kept = read(tmp_path, limit=2, group_regex="(train|valid)")
    assert (kept.groups, contents(kept)) == (["train", "train"], [IMAGES[0], IMAGES[2]])


def test_files_of_images_and_of_paths_do_not_mix(tmp_path):
    write(tmp_path / "a.parquet", {"image": IMAGES})
    write(tmp_path / "b.parquet", {"path": ["1.jpg"]})
    with pytest.raises(ManifestError, match="some files hold images and some hold paths"):
        read(tmp_path)


# ---- what is refused


@pytest.mark.parametrize("content", [b"", b"PAR1", b"hello" * 100, b"PAR1" + b"\0" * 100 + b"\xff\xff\xff\x7fPAR1"])
def test_what_is_no_parquet_file_is_refused(tmp_path, content):
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(ManifestError, match=r"x\.parquet: cannot read this Parquet file"):
        read(tmp_path / "x.parquet")


def test_other_things_that_make_no_sense_say_why(tmp_path):
    with pytest.raises(ManifestError, match="no rows"):
        read(write(tmp_path / "a.parquet", {"image": pa.array([], pa.binary())}))
    with pytest.raises(ManifestError, match="no column holds bytes, none is 'path'; there are: 'x'"):
        read(write(tmp_path / "b.parquet", {"x": [1]}))
    path = write(tmp_path / "c.parquet", {"image": IMAGES, "split": ["x"] * 4})
    with pytest.raises(ManifestError, match="'x' is not a split"):
        read(path)
    with pytest.raises(UsageError, match="--root has no meaning"):
        read(write(tmp_path / "d.parquet", {"image": IMAGES}), root=str(tmp_path))


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "x.parquet", {"image": IMAGES})
    place = read(path).paths[0]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for call in (lambda: read(path), lambda: read_place(place)):
        with pytest.raises(MissingExtraError, match=r"featx\[parquet\]"):
            call()


# ---- values


def test_a_place_is_all_that_another_process_needs(tmp_path):
    manifest = read(write(tmp_path / "x.parquet", {"image": IMAGES}))
    assert read_elsewhere(manifest.paths[3]) == b"four"


def test_null_vanished_and_changed_values_are_failed_rows(tmp_path):
    path = write(tmp_path / "x.parquet", {"image": pa.array([b"one", None], pa.binary())})
    manifest = read(path)

    def reason(position):
        with pytest.raises(ImageDecodeError) as caught:
            read_bytes(manifest, position)
        return caught.value.reason

    assert reason(1) == "empty"
    write(path, {"image": [b"other, longer"]})
    assert read_bytes(manifest, 0) == b"other, longer"
    assert reason(1) == "unreadable"
    path.unlink()
    assert reason(0) == "missing"
    assert stat_place(manifest.paths[0]) is None


@settings(deadline=None, max_examples=30)
@given(
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=40),
    group=st.integers(1, 20),
    piece=st.sampled_from([1, 4000, 1 << 20]),
    order=st.randoms(use_true_random=False),
)
def test_every_value_comes_back_in_any_order_and_whatever_the_pieces(tmp_path_factory, sizes, group, piece, order):
    rng = np.random.default_rng(0)
    images = [b"x" + rng.bytes(size) for size in sizes]
    path = write(tmp_path_factory.mktemp("parquet") / "x.parquet", {"image": images}, row_group_size=group)
    manifest = read(path)
    positions = list(range(len(images))) * 2
    order.shuffle(positions)
    before, parquet_values._PIECE_BYTES = parquet_values._PIECE_BYTES, piece
    try:
        assert [read_bytes(manifest, i) for i in positions] == [images[i] for i in positions]
    finally:
        parquet_values._PIECE_BYTES = before


def test_many_threads_may_read_at_once(tmp_path):
    images = [bytes([i]) * 5000 for i in range(120)]
    manifest = read(write(tmp_path / "x.parquet", {"image": images}, row_group_size=17))
    wrong = []

    def check(start):
        wrong.extend(i for i in range(start, 120, 6) if read_bytes(manifest, i) != images[i])

    threads = [threading.Thread(target=check, args=(start,)) for start in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_memory_stays_flat_in_the_size_of_a_row_group(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.bytes(100_000) for _ in range(600)]  # 60 MB in one row group
    manifest = read(write(tmp_path / "x.parquet", {"image": images}, row_group_size=600))
    assert read_bytes(manifest, 0) == images[0]
    before, highest = pa.total_allocated_bytes(), 0
    for position in range(0, 600, 7):
        assert read_bytes(manifest, position) == images[position]
        highest = max(highest, pa.total_allocated_bytes() - before)
    assert highest < 40e6


WRONG_STATISTICS = (
    "c-pm;O>YuG7{_P!g<wM(AkJhq;ef_Yn%Gw(#2A`5l*M8(wj>5IUY6|&BouI=g2toq<jELg8e{wrp8NnF`~)71Cl7uGPd+mXg~~=f=!DEX^Su"
    "1#`LnaTCn}r7ASseA!-A3sEne0ULfwuhm%*@05J?ic0?{~$kVq<vmUVD59a0hr$T^eNU^X<YYml@+7Ry9aBr}d7FbV<S5yPX?#Rh_evxH6BS"
    "hygI9XZv*2z7>?Spp7@KTr6Ckho?_1x?@c3^49@kNgmjsS=nW!~b25E2o1n!U4nXyd3LZ2C+!rZF+|eF;GThX6w*tcwm#*(m7_<9}T>|v^8e"
    "*oI!I5l~Yiz9A?|8d+o7@My(Yq$5D#JtPG08t>u6e5Qs(%`W(}jm=}2T*GFv0RuRz<OmSFpG-gGtEOZIrd8BGY5q<iYf5iL^p8b>NX+|h*+`"
    "j@np-(aYr14kU?6VIiaRs73ppHlB3myGI_G?VvVg5zu$9l+pm_H-=_u9W1{DbjNw0}4Gdvo@p{8sxj9kd_o^eu=_v6!e-ZdI=aw}^e#*41bT"
    "82cg^yFv^_z9EW2G{m+FiF{s&o6^`8qNE(tRgBHy$-Yzo<`ppPqOF_?VvCb;TRQu->Wy|?Zg*t<#jfl`1_~9G-#E?BtNx19`d+<S?A(>!U0J"
    "_go7CqkDycTD7boYt*NYpD+7?PO-&U}OY;k8SVSid=+d==su>M=#ol4uCmdwPrwhAoWbNmNK-eA@3^;R9<?+()sJ-^@TcG8!!Ya45uRu109;"
    "D^4#_jM1xzCQtU$L*W"
)
"""A file that says more of one column's levels than there are, compressed."""


def test_wrong_statistics_of_a_column_do_not_end_the_process(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(zlib.decompress(base64.b85decode(WRONG_STATISTICS)))
    with pytest.raises(subprocess.CalledProcessError) as stop:
        read_elsewhere(place_in(PARQUET, str(path), 0, 0, "image.bytes"))
    assert stop.value.returncode == 1
    assert b"ImageDecodeError" in stop.value.stderr


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_damaged_file_gives_our_own_errors_only(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("parquet") / "x.parquet"
    images = [{"bytes": image, "path": "x"} for image in IMAGES]
    mutated = bytearray(write(path, {"image": images, "label": ["a", "b", "c", "d"]}).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(mutated)
    try:
        manifest = read(path)
        for position in range(min(len(manifest), 8)):
            try:
                read_bytes(manifest, position)
            except ImageDecodeError:
                continue
    except ManifestError:
        return
