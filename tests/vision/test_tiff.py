"""TIFFs of many bands and bits, written by tifffile: what tifffile reads is what becomes RGB, by the rules."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from featx.errors import ImageDecodeError, UsageError
from featx.vision import tiff
from featx.vision.images import open_rgb
from featx.vision.reading import Reading

tifffile = pytest.importorskip("tifffile")


def written(array, **options):
    buffer = io.BytesIO()
    options.setdefault("photometric", "minisblack")
    if array.ndim == 3 and array.shape[2] > 1:
        options.setdefault("planarconfig", "contig")
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def rgb(data, frame=0, **options):
    return np.asarray(open_rgb(data, Reading(**options), frame=frame)[0])


def numbers(dtype, *shape, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.uniform(-2, 3, shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


def failure(data, frame=0, **options):
    with pytest.raises(ImageDecodeError) as caught:
        open_rgb(data, Reading(**options), frame=frame)
    return caught.value


def by_window(values, low, high):
    return np.rint(np.clip((values.astype(np.float64) - low) * 255 / (high - low), 0, 255))


# ---- layouts: all give the numbers that were written


def repacked(array, compression):
    """A TIFF of one strip, packed by Pillow's libtiff: tifffile packs LZW only with another library."""
    height, width, bands = array.shape
    flat = Image.fromarray(np.ascontiguousarray(array).view(np.uint8).reshape(height, -1))
    buffer = io.BytesIO()
    flat.save(buffer, "TIFF", compression=compression, strip_size=1 << 30)
    with Image.open(io.BytesIO(buffer.getvalue())) as image:
        tags = image.tag_v2
        start, count, kind = tags[273][0], tags[279][0], tags[259]
    packed = buffer.getvalue()[start : start + count]
    entries = [(256, width), (257, height), (258, 8 * array.itemsize), (259, kind), (262, 1), (273, 8)]
    entries += [(277, bands), (278, height), (279, count), (339, {"u": 1, "f": 3}[array.dtype.kind])]
    end = 8 + count + count % 2
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    head = b"II*\0" + struct.pack("<I", end) + packed.ljust(count + count % 2, b"\0")
    return head + struct.pack("<H", len(entries)) + body + b"\0\0\0\0"


@settings(max_examples=80, deadline=None)
@given(
    dtype=st.sampled_from(["uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64"]),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    n_bands=st.integers(2, 7),
    planes=st.booleans(),
    tile=st.sampled_from([None, (16, 16), (16, 32)]),
    rows=st.integers(1, 50),
    packing=st.sampled_from(["none", "zlib", "lzma", "zlib predicted"]),
    order=st.sampled_from("<>"),
    big=st.booleans(),
    chosen=st.data(),
)
def test_every_layout_gives_the_chosen_bands_of_what_was_written(
    dtype, height, width, n_bands, planes, tile, rows, packing, order, big, chosen
):
    values = numbers(dtype, height, width, n_bands)
    predictor = packing.endswith("predicted") and np.dtype(dtype).kind != "f"  # for floats tifffile needs imagecodecs
    options = {
        "planarconfig": "separate" if planes else "contig",
        "byteorder": order,
        "bigtiff": big,
        "compression": None if packing == "none" else packing.split()[0],
        "predictor": 2 if predictor else None,
        **({"tile": tile} if tile else {"rowsperstrip": rows}),
    }
    data = written(values.transpose(2, 0, 1) if planes else values, **options)
    bands = chosen.draw(st.lists(st.integers(0, n_bands - 1), min_size=3, max_size=3))
    page = tiff.read_page(data)
    np.testing.assert_array_equal(tiff.read_bands(data, page, tuple(bands)), values[..., bands])
    window = (-5.0, 5.0) if np.dtype(dtype).kind == "f" else (0.0, 100.0)
    shown = rgb(data, bands=tuple(band + 1 for band in bands), window=window)
    expected = values[..., bands] if dtype == "uint8" else by_window(values[..., bands], *window)
    assert np.abs(shown - expected.astype(int)).max() <= (0 if dtype == "uint8" else 1)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "zstd", "tiff_adobe_deflate", "lzma"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_what_libtiff_packs_without_loss_is_unpacked(compression, dtype):
    values = numbers(dtype, 20, 30, 6)
    data = repacked(values, compression)
    np.testing.assert_array_equal(tiff.read_bands(data, tiff.read_page(data), (5, 0)), values[..., [5, 0]])


@pytest.mark.parametrize(("kind", "predictor"), [(np.float32, 3), (np.uint16, 2), (np.uint8, 2)])
def test_predictors_are_undone_as_libtiff_applies_them(kind, predictor):
    values = numbers(kind, 33, 27)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "TIFF", compression="tiff_lzw", tiffinfo={317: predictor})
    page = tiff.read_page(buffer.getvalue())
    assert page.tags[317] == (predictor,)
    np.testing.assert_array_equal(tiff.read_bands(buffer.getvalue(), page, (0,))[..., 0], values)


def test_the_predictor_for_floats_goes_from_pixel_to_pixel_of_all_bands():
    values = numbers(np.float32, 5, 7, 3)
    planes = values.astype(">f4").view(np.uint8).reshape(5, 21, 4).transpose(0, 2, 1).reshape(5, -1, 3).astype(int)
    differences = np.diff(planes, axis=1, prepend=0).astype(np.uint8).reshape(5, -1)
    data = bytearray(written(values, rowsperstrip=5))
    page = tiff.read_page(bytes(data))
    at = page.tags[273][0]
    data[at : at + differences.size] = differences.tobytes()
    predicted = tiff.Page("<", 7, 5, 3, {**page.tags, 317: (3,)})
    np.testing.assert_array_equal(tiff.read_bands(bytes(data), predicted, (0, 1, 2)), values)


def test_strips_that_a_sparse_file_leaves_out_are_zero():
    data = written(np.full((4, 4, 5), 7, np.uint16), rowsperstrip=2)
    page = tiff.read_page(data)
    sparse = tiff.Page("<", 4, 4, 5, {**page.tags, 279: (80, 0)})
    values = tiff.read_bands(data, sparse, (0,))[..., 0]
    assert values.tolist() == [[7] * 4] * 2 + [[0] * 4] * 2


# ---- rules


def test_three_chosen_bands_become_red_green_and_blue_and_one_becomes_grey():
    values = numbers(np.uint16, 6, 5, 8)
    shown = rgb(written(values), bands=(4, 3, 2), window=(0, 65535))
    assert (shown == by_window(values[..., [3, 2, 1]], 0, 65535)).all()
    grey = rgb(written(values), bands=(8,))
    assert (grey == np.rint(values[..., 7:] / 257)).all()


def test_more_than_four_bands_need_a_choice():
    error = failure(written(np.zeros((3, 3, 8), np.uint16)))
    assert (error.reason, error.detail) == ("unsupported", "8 bands; say which with --bands")


@pytest.mark.parametrize("n_bands", [1, 3, 8])
def test_a_band_that_is_not_there_is_a_failure_that_says_how_many_there_are(n_bands):
    error = failure(written(np.zeros((3, 3, n_bands), np.uint16)), bands=(1, 2, 9))
    assert (error.reason, error.detail) == ("unsupported", f"{n_bands} bands, and --bands 1,2,9 asks for others")


def test_three_and_four_bands_without_a_meaning_are_taken_as_red_green_blue():
    values = numbers(np.uint8, 6, 5, 4)
    assert (rgb(written(values, extrasamples=["unspecified"] * 3)) == values[..., :3]).all()
    assert (rgb(written(values[..., :3], extrasamples=["unspecified"] * 2)) == values[..., :3]).all()


def test_bands_are_swapped_in_8_bit_colour_too_which_no_window_touches():
    values = numbers(np.uint8, 6, 5, 3)
    data = written(values, photometric="rgb")
    assert (rgb(data) == values).all()
    assert (rgb(data, window=(0, 10)) == values).all()
    assert (rgb(data, bands=(3, 2, 1), percentiles=(10, 90)) == values[..., ::-1]).all()


@pytest.mark.parametrize("planes", [False, True])
def test_colour_of_16_bits_keeps_its_upper_8_bits_however_it_lies(planes):
    values = numbers(np.uint16, 6, 5, 3)
    layout = {"planarconfig": "separate"} if planes else {}
    data = written(values.transpose(2, 0, 1) if planes else values, photometric="rgb", **layout)
    assert (rgb(data) == values >> 8).all()
    assert (rgb(data, bands=(1, 2, 3)) == values >> 8).all()


def test_a_window_and_percentiles_use_all_16_bits_of_colour():
    values = 1000 + numbers(np.uint16, 16, 15, 3) % 200
    data = written(values, photometric="rgb")
    assert (rgb(data, window=(1000, 1199)) == by_window(values, 1000, 1199)).all()
    low, high = np.percentile(values, (2, 98))
    assert np.abs(rgb(data, percentiles=(2, 98)) - by_window(values, low, high)).max() <= 1


def test_percentiles_are_of_the_chosen_bands_together_so_that_colours_keep_their_proportions():
    values = np.zeros((10, 10, 5), np.uint16)
    values[..., 0], values[..., 2] = 200, np.arange(100).reshape(10, 10) * 4
    values[..., 4] = 60_000
    shown = rgb(written(values), bands=(1, 2, 3), percentiles=(0, 100))
    assert (shown[..., 0] == round(200 / 396 * 255)).all()
    assert shown[..., 2].max() == 255
    assert not shown[..., 1].any()


def test_an_image_of_one_value_is_black_and_what_is_above_two_equal_percentiles_is_white():
    assert not rgb(written(np.full((4, 4), 777, np.uint16)), percentiles=(1, 99)).any()
    values = np.zeros((10, 10), np.uint16)
    values[0, 0] = 9
    assert rgb(written(values), percentiles=(1, 99))[..., 0].astype(int).sum() == 255


@pytest.mark.parametrize("kind", [np.int32, np.float64, np.float32])
def test_numbers_without_a_range_of_their_own_name_both_options(kind):
    error = failure(written(np.full((3, 3, 3), 7, kind), photometric="rgb"), bands=(1, 2, 3))
    assert error.reason == "out-of-window"
    assert error.detail.endswith("--window LO,HI or --percentiles LO,HI")


def test_nan_and_infinite_pixels():
    values = np.array([[0.1, np.nan, 0.5]], np.float32)
    assert failure(written(values), percentiles=(0, 100)).reason == "unsupported"
    values[0, 1] = np.inf
    assert failure(written(values), percentiles=(0, 100)).reason == "out-of-window"
    assert rgb(written(values), window=(0, 1))[0, 1, 0] == 255


def test_white_is_zero_is_inverted():
    values = np.array([[[0, 65535]] * 2], np.uint16).reshape(1, 2, 2)
    shown = rgb(written(values, photometric="miniswhite", extrasamples=["unspecified"]), bands=(1,))
    assert shown[0, :, 0].tolist() == [255, 255]


def test_alpha_of_a_measured_image_is_composited_on_white_and_ignored_where_bands_are_chosen():
    values = np.array([[[0, 0, 0, 0], [65535, 0, 0, 65535], [0, 0, 0, 32896]]], np.uint16)
    data = written(values, photometric="rgb", extrasamples=["unassalpha"])
    assert rgb(data, window=(0, 65535))[0].tolist() == [[255] * 3, [255, 0, 0], [127] * 3]
    assert rgb(data, bands=(1, 2, 3), window=(0, 65535))[0].tolist() == [[0] * 3, [255, 0, 0], [0] * 3]


@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_is_applied(orientation):
    values = np.zeros((2, 4, 5), np.uint16)
    values[0, 0] = 65535
    data = written(values, extratags=[(274, 3, 1, orientation, True)])
    shown = rgb(data, bands=(1,))
    assert shown.shape[:2] == ((2, 4) if orientation == 3 else (4, 2))
    assert shown[(-1, -1) if orientation == 3 else (0, -1)].tolist() == [255] * 3


def test_each_page_is_read_by_its_own_kind():
    buffer = io.BytesIO()
    many, grey, colour = numbers(np.uint16, 6, 5, 7), numbers(np.uint8, 4, 3), numbers(np.uint8, 9, 8, 3)
    with tifffile.TiffWriter(buffer) as file:
        file.write(many, photometric="minisblack", planarconfig="contig")
        file.write(grey, photometric="minisblack")
        file.write(colour, photometric="rgb")
    data = buffer.getvalue()
    assert (rgb(data, bands=(1,)) == np.rint(many[..., :1] / 257)).all()
    assert (rgb(data, frame=1) == grey[..., None]).all()
    assert (rgb(data, frame=2) == colour).all()
    assert failure(data).detail == "7 bands; say which with --bands"
    assert (failure(data, frame=3).reason, failure(data, frame=3).detail) == ("corrupt", "no image 4")


def test_the_ledger_is_told_numbers_and_bands():
    _, facts = open_rgb(written(numbers(np.int16, 6, 5, 7)), Reading(bands=(7, 1, 2)))
    assert (facts.format, facts.mode, facts.width, facts.height) == ("TIFF", "int16 x 7", 5, 6)


def test_bands_do_not_concern_files_that_have_none():
    picture = numbers(np.uint8, 6, 5, 3)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    assert (rgb(buffer.getvalue(), bands=(4, 3, 2)) == picture).all()


@pytest.mark.parametrize("bands", [(0, 1, 2), (1, 2), (1, 2, 3, 4), (-1,)])
def test_bands_that_are_not_one_or_three_numbers_from_1_on_are_a_usage_error(bands):
    with pytest.raises(UsageError, match="the bands need one number, or three"):
        Reading(bands=bands)


@pytest.mark.parametrize("percentiles", [(-1, 50), (50, 50), (2, 101), (float("nan"), 4)])
def test_percentiles_out_of_range_are_a_usage_error(percentiles):
    with pytest.raises(UsageError, match="0 <= LO < HI <= 100"):
        Reading(percentiles=percentiles)


def test_window_and_percentiles_exclude_each_other():
    with pytest.raises(UsageError, match="not by both"):
        Reading(window=(0, 1), percentiles=(0, 1))


# ---- damage


def test_a_file_that_is_cut_off_is_truncated():
    data = written(numbers(np.uint16, 60, 50, 7), rowsperstrip=10)
    assert failure(data[:-100], bands=(1,)).reason == "truncated"


def test_pixels_and_tiles_beyond_the_limit_are_refused_before_memory_is_taken():
    def claims(**changed):
        tags = {"256": 4, "257": 4, "258": 16, "262": 1, "273": 8, "277": 6, "278": 4, "279": 4, **changed}
        body = b"".join(struct.pack("<HHII", int(tag), 4, 1, value) for tag, value in sorted(tags.items()))
        return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + b"\0\0\0\0"

    huge = 1_000_000
    assert failure(claims(**{"256": huge, "257": huge}), bands=(1,)).reason == "bomb"
    assert failure(claims(**{"322": huge, "323": huge, "324": 8, "325": 9}), bands=(1,)).reason == "bomb"
    assert failure(claims(**{"277": 60_000, "256": 9000, "257": 9000, "278": 9000}), bands=(1,)).reason == "bomb"


def test_a_compression_with_loss_of_many_bands_is_named():
    data = written(np.zeros((16, 16, 5), np.uint8))
    page = tiff.read_page(data)
    with pytest.raises(ImageDecodeError, match="compression 7"):
        tiff.read_bands(data, tiff.Page("<", 16, 16, 5, {**page.tags, 259: (7,)}), (0,))
