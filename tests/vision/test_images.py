"""What open_rgb makes of every kind of image, and that preprocess_pixels is torchvision's transform."""

import io
import random
import struct
import sys
import threading
import warnings
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, features

from featx.errors import ImageDecodeError, UnknownNameError, UsageError
from featx.manifest.folder import EXTENSIONS
from featx.spec import Preprocess
from featx.store.records import REASONS
from featx.vision import images
from featx.vision.images import array_to_rgb, extension_note, open_rgb, preprocess_pixels
from featx.vision.reading import Reading

SHARED = Path(__file__).parents[2] / "../shared"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def saved(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def rgb(data, *, frame=0, **options):
    return np.asarray(open_rgb(data, Reading(**options), frame=frame)[0])


def photo(width=64, height=48, seed=0):
    """A smooth colourful picture: compressible, and different in every corner."""
    y, x = np.mgrid[0:height, 0:width]
    rng = np.random.default_rng(seed)
    a, b, c = rng.uniform(0.05, 0.3, 3)
    channels = [127 + 120 * np.sin(a * x + c), 127 + 120 * np.sin(b * y + a * x), 255 * x / width]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def reason_of(data, **options):
    with pytest.raises(ImageDecodeError) as caught:
        open_rgb(data, Reading(**options))
    assert caught.value.reason in REASONS
    return caught.value.reason


def png(width, height, depth, colour, rows, *chunks):
    """A PNG written by hand: Pillow writes no 16-bit colour."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = b"".join(b"\0" + row for row in rows)
    parts = [
        chunk(b"IHDR", header),
        *(chunk(*c) for c in chunks),
        chunk(b"IDAT", zlib.compress(body)),
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(array, *, photometric=1, sample_format=1, order="<"):
    """An uncompressed one-strip grey TIFF written by hand, for what Pillow does not write."""
    array = np.ascontiguousarray(array).astype(array.dtype.newbyteorder(order))
    height, width = array.shape
    bits = array.dtype.itemsize * 8
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 0), (277, 1), (278, height)]
    tags += [(279, array.nbytes), (339, sample_format)]
    start = 8 + 2 + 12 * len(tags) + 4
    tags = [(tag, start if tag == 273 else value) for tag, value in tags]
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    return mark + struct.pack(f"{order}IH", 8, len(tags)) + entries + b"\0\0\0\0" + array.tobytes()


# ---- colours


def test_cmyk_jpeg_red_is_red_and_cyan_is_cyan():
    image = Image.new("CMYK", (32, 16), (0, 255, 255, 0))
    image.paste((255, 0, 0, 0), (16, 0, 32, 16))
    pixels = rgb(saved(image, "JPEG", quality=95))  # Pillow writes Adobe's inverted CMYK
    assert np.abs(pixels[8, 4].astype(int) - (255, 0, 0)).max() <= 3
    assert np.abs(pixels[8, 28].astype(int) - (0, 255, 255)).max() <= 3


def test_cmyk_tiff_red_is_red():
    data = saved(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF")
    assert (rgb(data) == (255, 0, 0)).all()
    assert open_rgb(data)[1].mode == "CMYK"


def test_lab_tiff_has_the_colours_that_littlecms_gives():
    pixels = rgb(saved(Image.new("LAB", (2, 2), (255, 128, 128)), "TIFF"))  # L = 100, a = b = 0
    assert (pixels >= 253).all()
    reddish = rgb(saved(Image.new("LAB", (2, 2), (136, 208, 195)), "TIFF"))[0, 0]  # sRGB red: L 53.2, a 80.1, b 67.2
    assert np.abs(reddish.astype(int) - (255, 0, 0)).max() <= 12


def test_ycbcr_tiff_red_is_red():
    data = saved(Image.new("RGB", (16, 16), "red").convert("YCbCr"), "TIFF")
    assert np.abs(rgb(data).astype(int) - (255, 0, 0)).max() <= 3


def test_grey_is_the_same_in_all_channels():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = rgb(saved(Image.fromarray(values), "PNG"))
    assert (pixels == values[..., None]).all()


def test_one_bit_is_black_and_white():
    data = saved(Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("1"), "PNG")
    assert rgb(data)[..., 0].tolist() == [[0, 255], [255, 0]]


def test_palette_gives_the_palette_colours():
    image = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    for format in ("PNG", "GIF", "BMP", "TIFF"):
        pixels = rgb(saved(image, format))
        assert pixels.tolist() == [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 0, 0]]], format


# ---- transparency


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_composited_on_white_and_not_just_dropped(format):
    alpha = np.array([0, 64, 128, 255], np.uint8)
    rgba = np.zeros((1, 4, 4), np.uint8)
    rgba[0, :, 0], rgba[0, :, 3] = 200, alpha
    data = saved(Image.fromarray(rgba), format, **({"lossless": True, "exact": True} if format == "WEBP" else {}))
    colour = np.array([200, 0, 0])
    expected = (colour * alpha[:, None] + 255.0 * (255 - alpha[:, None])) / 255
    assert np.abs(rgb(data)[0] - expected).max() <= 1


def test_grey_with_alpha_is_composited_on_white():
    image = Image.fromarray(np.array([[[0, 0], [0, 255]], [[100, 128], [255, 0]]], np.uint8))
    assert rgb(saved(image, "PNG"))[..., 0].tolist() == [[255, 0], [177, 255]]


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"])
def test_palette_transparency_is_white(transparency):
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0])
    pixels = rgb(saved(image, "PNG", transparency=transparency))
    assert pixels.tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_gif_transparency_is_white():
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0])
    assert rgb(saved(image, "GIF", transparency=1)).tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_a_transparent_colour_of_grey_rgb_and_16_bit_png_is_white():
    grey = Image.fromarray(np.array([[10, 20]], np.uint8))
    assert rgb(saved(grey, "PNG", transparency=10))[..., 0].tolist() == [[255, 20]]
    colour = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert rgb(saved(colour, "PNG", transparency=(1, 2, 3))).tolist() == [[[255, 255, 255], [4, 5, 6]]]
    deep = png(2, 1, 16, 0, [struct.pack(">2H", 257 * 10, 257 * 20)], (b"tRNS", struct.pack(">H", 257 * 10)))
    assert rgb(deep)[..., 0].tolist() == [[255, 20]]


# ---- more than 8 bits


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_maps_its_full_range_and_does_not_saturate(format):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pixels = rgb(saved(Image.fromarray(values), format))
    assert (pixels[..., 0] == np.rint(values / 257)).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_big_endian_16_bit_tiff_equals_the_little_endian_one():
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    assert (rgb(tiff(values, order=">")) == rgb(tiff(values))).all()
    assert rgb(tiff(values)).std() > 50


def test_white_is_zero_is_inverted_in_16_bit_tiff_as_pillow_does_in_8_bit():
    values = np.array([[0, 65535]], np.uint16)
    assert rgb(tiff(values, photometric=0))[..., 0].tolist() == [[255, 0]]
    assert rgb(tiff(values.astype(np.uint8), photometric=0))[..., 0].tolist() == [[255, 0]]


def test_signed_16_bit_tiff_maps_its_full_range():
    values = np.array([[-32768, 0, 32767]], np.int16)
    assert rgb(tiff(values, sample_format=2))[..., 0].tolist() == [[0, 128, 255]]


def test_16_bit_pgm_maps_its_full_range():
    data = b"P5 3 1 65535\n" + struct.pack(">3H", 0, 32896, 65535)
    assert rgb(data)[..., 0].tolist() == [[0, 128, 255]]
    assert rgb(b"P5 3 1 1023\n" + struct.pack(">3H", 0, 512, 1023))[..., 0].tolist() == [[0, 128, 255]]


def test_12_bit_tiff_maps_its_full_range():
    start = 8 + 2 + 12 * 9 + 4
    tags = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, start), (277, 1), (278, 1), (279, 3)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0" + bytes([0xFF, 0xF0, 0x00])
    assert rgb(data)[..., 0].tolist() == [[255, 0]]


def test_16_bit_rgb_png_keeps_the_upper_8_bits():
    values = np.array([[0, 257 * 100, 65535], [32768, 1000, 64000]], np.uint16)
    data = png(2, 1, 16, 2, [values.astype(">u2").tobytes()])
    assert rgb(data).tolist() == [[[0, 100, 255], [128, 3, 250]]]


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.int32, np.uint32])
def test_a_window_maps_low_to_0_and_high_to_255_and_clips(kind):
    values = np.array([[0, 1000, 1500, 2000, 60000]], kind)
    data = tiff(values, sample_format={"u": 1, "i": 2, "f": 3}[np.dtype(kind).kind])
    assert rgb(data, window=(1000, 2000))[..., 0].tolist() == [[0, 0, 128, 255, 255]]


def test_unsigned_32_bit_above_the_signed_range_is_not_negative():
    values = np.array([[0, 3_000_000_000]], np.uint32)
    assert rgb(tiff(values), window=(0, 4e9))[..., 0].tolist() == [[0, 191]]


@pytest.mark.parametrize("order", ["<", ">"])
def test_float_tiff_in_0_to_1_maps_to_0_to_255(order):
    values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    data = tiff(values, sample_format=3, order=order)
    assert (rgb(data)[..., 1] == np.arange(256).reshape(16, 16)).all()


@pytest.mark.parametrize("value", [1.5, -0.1, 255.0, np.inf])
def test_float_tiff_outside_0_to_1_is_a_failure_that_names_the_option(value):
    data = tiff(np.array([[0.5, value]], np.float32), sample_format=3)
    with pytest.raises(ImageDecodeError, match="--window LO,HI") as caught:
        open_rgb(data)
    assert caught.value.reason == "out-of-window"
    assert rgb(data, window=(0, 2)).shape == (1, 2, 3)


def test_nan_pixels_are_a_failure_with_and_without_window():
    data = tiff(np.array([[0.5, np.nan]], np.float32), sample_format=3)
    assert reason_of(data) == reason_of(data, window=(0, 1)) == "unsupported"


def test_32_bit_integers_need_a_window():
    assert reason_of(tiff(np.array([[0, 70000]], np.int32), sample_format=2)) == "out-of-window"


def test_a_window_does_not_touch_8_bit_images():
    data = saved(photo(), "PNG")
    assert (rgb(data, window=(0, 10)) == rgb(data)).all()


@pytest.mark.parametrize("window", [(1, 1), (2, 1), (float("nan"), 1)])
def test_a_window_that_is_not_low_below_high_is_a_usage_error(window):
    with pytest.raises(UsageError, match="LO < HI"):
        Reading(window=window)


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.float32, np.int32])
def test_percentiles_are_a_window_that_each_image_brings_itself(kind):
    values = (np.random.default_rng(1).permutation(1000).reshape(20, 50) * 7 + 100).astype(kind)
    data = tiff(values, sample_format={"u": 1, "i": 2, "f": 3}[np.dtype(kind).kind])
    low, high = np.percentile(values, (5, 90))
    shown = rgb(data, percentiles=(5, 90))[..., 0]
    assert (shown == rgb(data, window=(low, high))[..., 0]).all()
    assert (shown == 0).mean() == pytest.approx(0.05, abs=0.01)
    assert (shown == 255).mean() == pytest.approx(0.10, abs=0.01)


def test_a_window_uses_all_16_bits_of_colour_in_png():
    values = (20_000 + np.arange(2 * 3 * 3) * 10).astype(np.uint16).reshape(2, 3, 3)
    data = png(3, 2, 16, 2, [row.astype(">u2").tobytes() for row in values])
    assert (rgb(data) == 78).all()
    assert (rgb(data, window=(20_000, 20_170)) == np.rint((values - 20_000.0) * 255 / 170)).all()
    assert (rgb(data, percentiles=(0, 100)) == rgb(data, window=(20_000, 20_170))).all()


def test_the_alpha_of_16_bit_png_is_composited_after_the_window():
    colour = np.array([[1000, 1100, 1200, 65535], [1000, 1000, 1000, 0], [1200, 1200, 1200, 32896]], np.uint16)
    data = png(3, 1, 16, 6, [colour.astype(">u2").tobytes()])
    assert rgb(data, window=(1000, 1200))[0].tolist() == [[0, 128, 255], [255] * 3, [255] * 3]
    grey = np.array([[1000, 65535], [1200, 65535], [1000, 0]], np.uint16)
    data = png(3, 1, 16, 4, [grey.astype(">u2").tobytes()])
    assert rgb(data, window=(1000, 1200))[0, :, 0].tolist() == [0, 255, 255]


def test_the_transparent_colour_of_16_bit_png_is_compared_in_16_bits():
    colour = np.array([[1000, 1000, 1000], [1000, 1000, 1001]], np.uint16)
    marked = (b"tRNS", struct.pack(">3H", 1000, 1000, 1001))
    data = png(2, 1, 16, 2, [colour.astype(">u2").tobytes()], marked)
    assert rgb(data, window=(1000, 2000))[0].tolist() == [[0, 0, 0], [255, 255, 255]]


def test_orientation_and_limits_hold_for_16_bit_png(monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.zeros((2, 4, 3), np.uint16)
    values[0, 0] = 65535
    data = png(4, 2, 16, 2, [row.astype(">u2").tobytes() for row in values], (b"eXIf", exif.tobytes()[6:]))
    assert rgb(data, window=(0, 65535))[0, 1].tolist() == [255] * 3
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)
    assert reason_of(data, window=(0, 65535)) == "bomb"


# ---- orientation and frames


def with_corner():
    """White with a red block at the top left, wider than high."""
    image = Image.new("RGB", (64, 32), "white")
    image.paste("red", (0, 0, 16, 16))
    return image


# Where the stored top-left corner is seen: Exif 2.32, tag 0x0112
CORNERS = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_orientation_puts_the_corner_where_it_belongs(format, orientation):
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif} if format != "TIFF" else {"tiffinfo": {274: orientation}}
    pixels = rgb(saved(with_corner(), format, **options)).astype(int)
    assert pixels.shape == ((32, 64, 3) if orientation <= 4 else (64, 32, 3))
    for corner in [(0, 0), (0, -1), (-1, 0), (-1, -1)]:
        is_red = np.abs(pixels[corner] - (255, 0, 0)).max() < 60
        assert is_red == (corner == CORNERS[orientation]), corner


def test_orientation_of_a_16_bit_image_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.zeros((2, 4), np.uint16)
    values[0, 0] = 65535
    pixels = rgb(saved(Image.fromarray(values), "PNG", exif=exif))
    assert pixels.shape == (4, 2, 3)
    assert pixels[0, 1].tolist() == [255] * 3


def test_damaged_exif_leaves_the_image_as_it_is():
    data = saved(photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\xff")
    assert rgb(data).shape == (48, 64, 3)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_animated_and_multi_page_files_give_their_first_frame(format):
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    first, second = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
    data = saved(first, format, save_all=True, append_images=[second])
    pixels = rgb(data).astype(int)
    assert pixels.shape == (16, 16, 3)
    assert np.abs(pixels - (255, 0, 0)).max() <= 8


@pytest.mark.parametrize(
    "format", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "JPEG2000", "PPM", "PCX", "SGI", "AVIF"]
)
def test_every_format_gives_about_the_picture_that_was_saved(format):
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    image = photo()
    shown, facts = open_rgb(saved(image, format))
    assert (shown.mode, facts.format, facts.width, facts.height) == ("RGB", format, 64, 48)
    difference = np.abs(np.asarray(shown).astype(int) - np.asarray(image)).mean()
    assert difference < (16 if format == "GIF" else 4)  # GIF: 256 colours


# ---- reduced scale


def read_for(resize, decoder):
    return Reading.of(Preprocess(resize=resize, crop=(), mean=MEAN, std=STD, decoder=decoder))


@pytest.mark.parametrize(
    ("size", "resize", "scale"),
    [
        ((800, 600), (100,), 2),
        ((799, 600), (100,), 2),
        ((800, 399), (100,), 1),
        ((800, 800), (100,), 4),
        ((3200, 1600), (100,), 8),
        ((800, 600), (100, 100), 2),
        ((800, 400), (50, 200), 2),
        ((800, 600), (), 1),
        ((100, 80), (224,), 1),
    ],
)
def test_a_draft_is_the_smallest_scale_of_at_least_twice_what_the_resize_needs(size, resize, scale):
    data = saved(photo(*size), "JPEG")
    whole, facts = open_rgb(data, read_for(resize, "pillow"))
    draft, facts_of_draft = open_rgb(data, read_for(resize, "pillow-draft"))
    assert whole.size == size
    assert draft.size == (-(-size[0] // scale), -(-size[1] // scale))
    assert facts == facts_of_draft  # what the file holds
    assert (np.asarray(draft) == np.asarray(open_rgb(data, read_for(resize, "pillow-draft"))[0])).all()


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_draft_knows_which_side_is_up(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(photo(800, 400), "JPEG", exif=exif)
    draft, _ = open_rgb(data, read_for((200, 50), "pillow-draft"))  # height 200, width 50
    assert draft.size == ((800, 400) if orientation == 1 else (200, 400))


def test_a_draft_gives_about_the_same_pixels_and_concerns_jpeg_alone():
    plan = Preprocess(resize=(60,), crop=(48, 48), mean=MEAN, std=STD, decoder="pillow-draft")
    for format in ("JPEG", "PNG", "WEBP"):
        data = saved(photo(900, 700), format)
        draft = preprocess_pixels(open_rgb(data, Reading.of(plan))[0], plan).astype(int)
        whole = preprocess_pixels(open_rgb(data)[0], plan)
        assert np.abs(draft - whole).mean() < 2
        assert (draft == whole).all() == (format != "JPEG")


def test_an_unknown_decoder_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="did you mean pillow-draft"):
        read_for((224,), "pillow-drafts")


# ---- failures


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000", "AVIF"])
def test_a_truncated_file_is_truncated_wherever_it_is_cut(format):
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    data = saved(photo(), format)
    reasons = {reason_of(data[: len(data) * cut // 10]) for cut in range(2, 9)}
    assert reasons <= {"truncated"} | ({"corrupt"} if format in ("JPEG2000", "AVIF") else set())


def test_a_tiff_whose_directory_is_cut_off_is_truncated():
    data = saved(photo(), "TIFF", compression="tiff_deflate")
    assert reason_of(data[: len(data) // 2]) == "truncated"


@pytest.mark.parametrize("data", [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"II*\0abc", b"BM1234", b"GIF89a"])
def test_a_file_that_only_begins_is_truncated(data):
    assert reason_of(data) == "truncated"


def test_no_bytes_are_empty():
    assert reason_of(b"") == "empty"


@pytest.mark.parametrize(
    "data", [b"hello", b"\0" * 100, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg/>"]
)
def test_text_and_programs_are_not_an_image(data):
    assert reason_of(data) == "not-an-image"


@pytest.mark.parametrize(
    ("module", "data"),
    [("pillow_heif", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"), ("pydicom", b"\0" * 128 + b"DICM" + b"\0" * 64)],
)
def test_heic_and_dicom_are_unsupported_without_the_extra_which_is_named(monkeypatch, module, data):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImageDecodeError, match=r"pip install 'featx\[formats\]'") as caught:
        open_rgb(data)
    assert (caught.value.reason, caught.value.missing) == ("unsupported", "formats")


def test_a_tiff_of_many_bands_is_unsupported():
    start = 8 + 2 + 12 * 9 + 4
    tags = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, start), (277, 7), (278, 1), (279, 7)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    assert reason_of(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0" + b"\0" * 7) == "unsupported"


@pytest.mark.parametrize("side", [9_500, 40_000])
def test_a_bomb_is_refused_before_it_is_decoded(side):
    limit = Image.MAX_IMAGE_PIXELS
    assert (side * side > 2 * limit) == (side == 40_000)  # Pillow only warns of the smaller one
    assert reason_of(png(side, side, 8, 0, [])) == "bomb"
    assert limit == Image.MAX_IMAGE_PIXELS


def test_pillow_own_switch_decides_what_a_bomb_is(monkeypatch):
    data = saved(photo(), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48 - 1)
    assert reason_of(data) == "bomb"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48)
    open_rgb(data)


def test_truncated_images_stay_refused_when_somebody_switched_pillow_to_accept_them(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(UsageError, match="LOAD_TRUNCATED_IMAGES"):
        open_rgb(saved(photo(), "JPEG"))


def mutants(data, rng, n):
    for _ in range(n):
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 5, 30))):
            at = rng.randrange(min(len(damaged), rng.choice((60, 400, len(damaged)))))
            match rng.randrange(4):
                case 0:
                    damaged[at] = rng.randrange(256)
                case 1:
                    damaged[at] ^= 1 << rng.randrange(8)
                case 2:
                    del damaged[at : at + rng.randrange(1, 20)]
                case 3:
                    damaged[at:at] = rng.randbytes(rng.randrange(1, 20))
            if not damaged:
                break
        yield bytes(damaged)


def samples_to_damage():
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    image = photo(40, 30)
    palette = image.quantize(16)
    yield saved(image, "JPEG", exif=exif)
    yield saved(image, "JPEG", progressive=True)
    yield saved(image.convert("CMYK"), "JPEG")
    yield saved(image, "PNG", exif=exif)
    yield saved(palette, "PNG", transparency=bytes(range(16)))
    yield saved(image, "PNG", save_all=True, append_images=[photo(40, 30, 1)])
    yield saved(image, "TIFF")
    yield saved(image, "TIFF", compression="tiff_lzw")
    yield saved(image, "TIFF", compression="jpeg")
    yield tiff(np.arange(1200, dtype=np.uint16).reshape(30, 40))
    yield tiff(np.linspace(0, 1, 1200, dtype=np.float32).reshape(30, 40), sample_format=3)
    yield saved(image, "WEBP", exif=exif)
    yield saved(image.convert("RGBA"), "WEBP", lossless=True)
    yield saved(palette, "GIF", save_all=True, append_images=[photo(40, 30, 1).quantize(16)])
    yield saved(image, "BMP")
    yield saved(image, "JPEG2000")
    yield saved(image, "PPM")
    yield saved(image.resize((32, 32)), "ICO")
    yield saved(image, "PCX")
    yield saved(image, "SGI")
    if features.check("avif"):
        yield saved(image, "AVIF")


def test_damaged_files_give_an_image_or_an_image_decode_error_and_nothing_else():
    rng = random.Random(0)
    outcomes, details = Counter(), []
    for data in samples_to_damage():
        for damaged in mutants(data, rng, 60):
            try:
                image, facts = open_rgb(damaged)
            except ImageDecodeError as error:
                outcomes[error.reason] += 1
                details.append(error.detail)
            else:
                assert image.mode == "RGB"
                assert facts.format
                outcomes["image"] += 1
    assert set(outcomes) <= {"image", *REASONS}
    assert not [detail for detail in details if " at 0x" in detail]
    assert outcomes.total() > 1000
    assert outcomes["image"] > 100
    assert outcomes["corrupt"] + outcomes["truncated"] > 100


# ---- warnings and threads


def file_with_warning():
    """A PNG that announces its animation twice, of which Pillow warns."""
    animation = (b"acTL", struct.pack(">II", 1, 0))
    return png(2, 1, 8, 0, [b"\x01\x02"], animation, animation)


def test_pillow_warnings_neither_appear_nor_fail_an_image_and_the_filters_stay_as_they_were():
    data = file_with_warning()
    with pytest.warns(UserWarning, match="Invalid APNG"), Image.open(io.BytesIO(data)):
        pass
    before = list(warnings.filters)
    assert rgb(data)[0, :, 0].tolist() == [1, 2]  # the suite makes warnings errors
    assert list(warnings.filters) == before


def test_threads_that_change_warning_filters_meanwhile_find_theirs_again():
    data, before, stop = file_with_warning(), list(warnings.filters), threading.Event()

    def decode():
        while not stop.is_set():
            open_rgb(data)

    threads = [threading.Thread(target=decode) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
    stop.set()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_threads_decode_the_same_pixels_as_one_thread():
    files = [saved(photo(50 + i, 60, i), ("JPEG", "PNG", "TIFF", "WEBP")[i % 4]) for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for many, one in zip(pool.map(rgb, files), map(rgb, files), strict=True):
            assert (many == one).all()


# ---- arrays


def test_arrays_follow_the_rules_for_files():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert (np.asarray(array_to_rgb(grey)) == grey[..., None]).all()
    assert (np.asarray(array_to_rgb(grey[..., None])) == grey[..., None]).all()
    colour = np.asarray(photo())
    assert (np.asarray(array_to_rgb(colour)) == colour).all()
    assert (np.asarray(array_to_rgb(colour[::-1, ::2])) == colour[::-1, ::2]).all()
    rgba = np.dstack([colour, np.full(colour.shape[:2], 100, np.uint8)])
    assert (np.asarray(array_to_rgb(rgba)) == rgb(saved(Image.fromarray(rgba), "PNG"))).all()
    assert np.asarray(array_to_rgb(np.array([[[7, 255], [7, 0]]], np.uint8)))[0, :, 0].tolist() == [7, 255]


def test_a_pil_image_gives_what_its_file_gives():
    exif = Image.Exif()
    exif[0x0112] = 8
    for data in (saved(with_corner(), "PNG", exif=exif), saved(photo().quantize(8), "PNG", transparency=3)):
        with Image.open(io.BytesIO(data)) as image:
            assert (np.asarray(array_to_rgb(image)) == rgb(data)).all()


@pytest.mark.parametrize("array", [np.zeros((2, 2), np.float32), np.zeros((2, 2, 5), np.uint8), np.zeros(3, np.uint8)])
def test_arrays_of_another_shape_or_dtype_are_unsupported(array):
    with pytest.raises(ImageDecodeError, match="expected a uint8 array") as caught:
        array_to_rgb(array)
    assert caught.value.reason == "unsupported"


# ---- names


@pytest.mark.parametrize(
    ("path", "format", "note"),
    [
        ("a/b.jpg", "PNG", "png named .jpg"),
        ("b.PNG", "JPEG", "jpeg named .png"),
        ("b.jpeg", "JPEG", ""),
        ("b.jpg", "MPO", ""),
        ("b.mpo", "MPO", ""),
        ("b.tif", "TIFF", ""),
        ("b", "PNG", ""),
        ("b.image", "PNG", ""),
    ],
)
def test_content_decides_over_the_extension_and_the_difference_is_noted(path, format, note):
    assert extension_note(path, format) == note


def test_a_folder_takes_every_extension_of_the_formats_that_are_read():
    Image.init()
    extensions = {extension for extension, format in Image.registered_extensions().items() if format in images.FORMATS}
    assert extensions <= EXTENSIONS
    promised = {Image.registered_extensions().get(extension, "PPM") for extension in EXTENSIONS - {*images.PROMISED}}
    assert promised <= {*images.FORMATS, "MPO"}
    assert {*images.PROMISED} <= EXTENSIONS


# ---- preprocess


def torchvision_pixels(image, resize, crop, interpolation):
    from torchvision.transforms import InterpolationMode, functional

    image = functional.resize(image, list(resize), interpolation=InterpolationMode(interpolation), antialias=True)
    return np.asarray(functional.center_crop(image, list(crop))).transpose(2, 0, 1)


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    resize=st.one_of(st.tuples(st.integers(1, 60)), st.tuples(st.integers(1, 60), st.integers(1, 60))),
    crop=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic"]),
)
def test_preprocess_equals_torchvision_bit_for_bit(width, height, resize, crop, interpolation):
    image = photo(width, height)
    preprocess = Preprocess(resize=resize, crop=crop, mean=MEAN, std=STD, interpolation=interpolation)
    pixels = preprocess_pixels(image, preprocess)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, torchvision_pixels(image, resize, crop, interpolation))


@pytest.mark.parametrize(
    "size", [(500, 375), (375, 500), (333, 517), (224, 224), (100, 80), (300, 40), (1, 700), (257, 256)]
)
def test_preprocess_equals_torchvision_image_classification_after_scaling(size):
    import torch
    from torchvision.transforms._presets import ImageClassification

    image = photo(*size)
    pixels = preprocess_pixels(image, Preprocess(resize=(256,), crop=(224, 224), mean=MEAN, std=STD))
    ours = (torch.from_numpy(pixels).float() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[
        :, None, None
    ]
    assert torch.equal(ours, ImageClassification(crop_size=224)(image))


def test_preprocess_without_resize_or_crop():
    image = photo(20, 10)
    whole = preprocess_pixels(image, Preprocess(resize=(), crop=(), mean=MEAN, std=STD))
    assert (whole == np.asarray(image).transpose(2, 0, 1)).all()
    assert preprocess_pixels(image, Preprocess(resize=(5,), crop=(), mean=MEAN, std=STD)).shape == (3, 5, 10)
    assert preprocess_pixels(image, Preprocess(resize=(), crop=(4, 6), mean=MEAN, std=STD)).shape == (3, 4, 6)


def test_a_long_thin_image_is_refused_before_it_is_resized_to_a_bomb():
    image = Image.new("RGB", (20_000, 1))
    with pytest.raises(ImageDecodeError) as caught:
        preprocess_pixels(image, Preprocess(resize=(256,), crop=(224, 224), mean=MEAN, std=STD))
    assert caught.value.reason == "bomb"


def test_an_unknown_interpolation_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="bicubic"):
        preprocess_pixels(photo(), Preprocess((5,), (5, 5), MEAN, STD, interpolation="bicubics"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data")
def test_real_photographs_decode_as_pillow_and_torchvision_do():
    from torchvision.transforms._presets import ImageClassification

    for path in sorted((SHARED / "data/hymenoptera/val/bees").iterdir())[:10]:
        with Image.open(path) as image:
            expected = ImageClassification(crop_size=224, mean=(0.0,) * 3, std=(1.0,) * 3)(image.convert("RGB"))
        pixels = preprocess_pixels(
            open_rgb(path.read_bytes())[0], Preprocess(resize=(256,), crop=(224, 224), mean=MEAN, std=STD)
        )
        np.testing.assert_array_equal(pixels, np.rint(expected.numpy() * 255).astype(np.uint8))
