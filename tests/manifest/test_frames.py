"""Files of several images: how many there are, and what becomes of them as samples."""

import io

import numpy as np
import pytest
from PIL import Image, features

from featx.errors import ManifestError, UnknownNameError, UsageError
from featx.manifest.frames import count_frames
from featx.manifest.record import Manifest
from featx.manifest.source import SourceOptions, as_manifest, read_source, sample_sha256
from featx.vision.images import open_rgb

ALL = SourceOptions(frames="all")


def pages(path, n, format=None, **options):
    images = [Image.new("RGB", (8, 6), (i * 40, 0, 0)) for i in range(n)]
    several = {"save_all": True, "append_images": images[1:]} if n > 1 else {}
    images[0].save(path, format, **several, **options)


@pytest.fixture
def folder(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
    pages(tmp_path / "a/scan.tif", 3)
    pages(tmp_path / "a/single.tif", 1)
    pages(tmp_path / "b/moving.gif", 2)
    pages(tmp_path / "b/photo.jpg", 1)
    (tmp_path / "b/broken.tif").write_bytes(b"II*\0nothing")
    return tmp_path


def test_only_the_first_image_of_each_file_is_a_sample_if_nothing_is_said(folder):
    manifest = read_source(folder)
    assert manifest.keys == ["a/scan.tif", "a/single.tif", "b/broken.tif", "b/moving.gif", "b/photo.jpg"]
    assert manifest.frames is None


def test_with_all_each_image_is_a_sample_and_its_file_the_group(folder):
    manifest = read_source(folder, ALL)
    assert manifest.keys == [
        "a/scan.tif#0001",
        "a/scan.tif#0002",
        "a/scan.tif#0003",
        "a/single.tif",
        "b/broken.tif",
        "b/moving.gif#0001",
        "b/moving.gif#0002",
        "b/photo.jpg",
    ]
    assert manifest.frames == [0, 1, 2, 0, 0, 0, 1, 0]
    assert manifest.labels == ["a"] * 4 + ["b"] * 4
    assert manifest.groups == ["a/scan.tif"] * 3 + ["", ""] + ["b/moving.gif"] * 2 + [""]
    assert manifest.group_source == "file of several images"
    assert len({sample_sha256(manifest, position) for position in range(len(manifest))}) == len(manifest)


def test_groups_that_are_given_hold_and_the_file_is_the_group_where_there_is_none(folder):
    manifest = read_source(folder, SourceOptions(frames="all", group_regex="(scan)"))
    assert manifest.groups == ["scan"] * 3 + ["", ""] + ["b/moving.gif"] * 2 + [""]
    assert manifest.group_source == "regex (scan), else the file"
    table = folder / "table.csv"
    table.write_text("path,label,group\na/scan.tif,x,p1\nb/photo.jpg,y,p2\n")
    manifest = read_source(table, ALL)
    assert manifest.groups == ["p1"] * 3 + ["p2"]
    assert manifest.group_source == "column group"


def test_a_regex_sees_files_so_that_images_of_a_file_never_part(folder):
    manifest = read_source(folder, SourceOptions(frames="all", group_regex="(.*)"))
    assert manifest.groups[:3] == ["a/scan.tif"] * 3


def test_a_limit_counts_images(folder):
    assert len(read_source(folder, SourceOptions(frames="all", limit=5))) == 5


def test_without_files_of_several_images_nothing_changes(folder):
    (folder / "a/scan.tif").unlink()
    (folder / "b/moving.gif").unlink()
    assert read_source(folder, ALL) == read_source(folder)


def test_python_lists_are_expanded_too(folder):
    manifest = as_manifest([folder / "a/scan.tif", np.zeros((4, 4), np.uint8)], ALL)
    assert [key.rpartition("/")[2] for key in manifest.keys] == [
        "scan.tif#0001",
        "scan.tif#0002",
        "scan.tif#0003",
        "000001",
    ]
    assert isinstance(as_manifest(manifest, SourceOptions()), Manifest)


def test_a_key_that_is_there_already_is_an_error(folder):
    pages(folder / "a/scan.tif#0002", 1, "PNG")
    table = folder / "table.csv"
    table.write_text("path\na/scan.tif\na/scan.tif#0002\n")
    with pytest.raises(ManifestError, match=r"scan\.tif#0002' is the key"):
        read_source(table, ALL)


def test_an_unknown_value_and_a_source_without_files_are_usage_errors(folder):
    with pytest.raises(UnknownNameError, match="first"):
        read_source(folder, SourceOptions(frames="some"))
    for i in range(1, 6):
        (folder / f"data_batch_{i}").write_bytes(b"")
    with pytest.raises(UsageError, match="--frames has no meaning for CIFAR"):
        read_source(folder, ALL)


@pytest.mark.parametrize("format", ["TIFF", "GIF", "WEBP", "PNG", "AVIF"])
def test_counted_without_decoding_is_what_can_be_read(tmp_path, format):
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    path = tmp_path / "file"
    pages(path, 4, format)
    assert count_frames(str(path)) == 4
    seen = [np.asarray(open_rgb(path.read_bytes(), frame=frame)[0])[3, 3, 0] for frame in range(4)]
    assert np.abs(np.array(seen).astype(int) - [0, 40, 80, 120]).max() <= 9


def test_big_tiffs_of_measurements_are_counted_which_pillow_cannot_open(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    for big in (False, True):
        with tifffile.TiffWriter(tmp_path / "many.tif", bigtiff=big, byteorder=">") as file:
            for _ in range(12):
                file.write(np.zeros((4, 5, 7), np.float64), photometric="minisblack", planarconfig="contig")
        assert count_frames(str(tmp_path / "many.tif")) == 12


def test_a_tiff_whose_directories_go_in_a_circle_ends(tmp_path):
    buffer = io.BytesIO()
    Image.new("L", (2, 2)).save(buffer, "TIFF")
    data = bytearray(buffer.getvalue())
    start = int.from_bytes(data[4:8], "little")
    n = int.from_bytes(data[start : start + 2], "little")
    end = start + 2 + 12 * n
    data[end : end + 4] = start.to_bytes(4, "little")
    (tmp_path / "circle.tif").write_bytes(data)
    assert count_frames(str(tmp_path / "circle.tif")) == 1


def test_dicom_and_heic_are_counted(tmp_path):
    pytest.importorskip("pydicom")
    from dicom_files import dicom

    (tmp_path / "a.dcm").write_bytes(dicom(np.zeros((3, 4, 5), np.uint8), NumberOfFrames=3))
    (tmp_path / "b.dcm").write_bytes(dicom(np.zeros((4, 5), np.uint8)))
    claims = dicom(np.zeros((2, 4, 5), np.uint8), NumberOfFrames=2).replace(b"IS\x02\x002 ", b"IS\x08\x0099999999")
    (tmp_path / "c.dcm").write_bytes(claims)
    assert [count_frames(str(tmp_path / f"{name}.dcm")) for name in "abc"] == [3, 1, 1]
    pillow_heif = pytest.importorskip("pillow_heif")
    file = pillow_heif.from_pillow(Image.new("RGB", (64, 64)))
    file.add_from_pillow(Image.new("RGB", (64, 64), "red"))
    file.save(tmp_path / "d.heic")
    assert count_frames(str(tmp_path / "d.heic")) == 2


def test_what_cannot_be_read_counts_as_one(tmp_path):
    assert count_frames(str(tmp_path / "nowhere.tif")) == 1
    (tmp_path / "x.gif").write_bytes(b"GIF89a")
    assert count_frames(str(tmp_path / "x.gif")) == 1
