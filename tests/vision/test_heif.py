"""HEIC files, made with pillow-heif."""

import io

import numpy as np
import pytest
from PIL import Image

from featx.errors import ImageDecodeError
from featx.vision.images import extension_note, open_rgb

pillow_heif = pytest.importorskip("pillow_heif")
if not pillow_heif.libheif_info()["HEIF"]:
    pytest.skip("this pillow-heif cannot write", allow_module_level=True)


def heic(*images, **options):
    file = pillow_heif.HeifFile()
    for image in images:
        file.add_from_pillow(image)
    buffer = io.BytesIO()
    file.save(buffer, quality=-1, **options)
    return buffer.getvalue()


def rgb(data, frame=0):
    return np.asarray(open_rgb(data, frame=frame)[0]).astype(int)


def with_corner():
    image = Image.new("RGB", (64, 32), "white")
    image.paste("red", (0, 0, 16, 16))
    return image


def test_a_heic_file_gives_the_picture_without_a_trace_in_pillow():
    image, facts = open_rgb(heic(with_corner()))
    assert np.abs(np.asarray(image).astype(int) - np.asarray(with_corner())).max() < 40
    assert (facts.format, facts.mode, facts.width, facts.height) == ("HEIF", "RGB", 64, 32)
    assert extension_note("a.heic", "HEIF") == ""
    assert extension_note("a.jpg", "HEIF") == "heif named .jpg"


CORNERS = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_once_though_its_exif_says_it_again(orientation):
    image = Image.new("RGB", (128, 64), "white")
    image.paste("red", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=-1, exif=exif.tobytes())
    data = bytearray(buffer.getvalue())
    at = data.index(b"\1\x12\0\3\0\0\0\1") + 8  # telephones leave it as it was; this writer sets it to 1
    data[at : at + 2] = bytes([0, orientation])
    assert (b"irot" in data or b"imir" in data) == (orientation > 1)
    pixels = rgb(bytes(data))
    assert pixels.shape == ((64, 128, 3) if orientation <= 4 else (128, 64, 3))
    for corner in [(0, 0), (0, -1), (-1, 0), (-1, -1)]:
        assert (np.abs(pixels[corner] - (255, 0, 0)).max() < 60) == (corner == CORNERS[orientation])


def test_alpha_is_composited_on_white():
    image = Image.new("RGBA", (64, 64), (200, 0, 0, 0))
    image.paste((0, 0, 200, 255), (32, 0, 64, 64))
    pixels = rgb(heic(image))
    assert pixels[32, 8].min() > 245
    assert np.abs(pixels[32, 56] - (0, 0, 200)).max() < 12


def test_the_primary_image_is_the_first_and_the_others_follow():
    colours = ["red", "lime", "blue"]
    data = heic(*(Image.new("RGB", (64, 64), colour) for colour in colours), primary_index=1)
    seen = [tuple(np.rint(rgb(data, frame)[32, 32] / 255).astype(int)) for frame in range(3)]
    assert seen == [(0, 1, 0), (1, 0, 0), (0, 0, 1)]
    with pytest.raises(ImageDecodeError):
        open_rgb(data, frame=3)


def test_pixels_beyond_the_limit_are_a_bomb(monkeypatch):
    data = heic(with_corner())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 32 - 1)
    with pytest.raises(ImageDecodeError) as caught:
        open_rgb(data)
    assert caught.value.reason == "bomb"


def test_a_damaged_file_is_corrupt_or_truncated():
    data = heic(with_corner())
    for cut in (20, len(data) // 2, len(data) - 5):
        with pytest.raises(ImageDecodeError) as caught:
            open_rgb(data[:cut])
        assert caught.value.reason in ("corrupt", "truncated")
