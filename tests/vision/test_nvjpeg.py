"""JPEGs on the device: which files go there, how they are turned, and what becomes of broken ones.

Without a GPU the same code runs on the CPU, with torchvision's libjpeg in nvJPEG's place.
"""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.io  # noqa: F401  registers the decoders
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from featx.errors import DeviceError, DeviceMemoryError, ImageDecodeError, UsageError
from featx.spec import Preprocess
from featx.vision.images import open_rgb, preprocess_pixels
from featx.vision.jpeg import read_jpeg
from featx.vision.nvjpeg import JpegDecoder, check_nvjpeg, decode_outcomes, turn_upright
from featx.vision.pixels import PixelPlan, read_file

PREPROCESS = Preprocess(resize=(20,), crop=(16, 16), mean=(), std=())


def jpeg(mode="RGB", size=(40, 30), orientation=None, seed=0, **options):
    channels = len(mode) if mode != "YCbCr" else 3
    noise = np.random.default_rng(seed).integers(0, 256, (5, 6, channels), np.uint8)
    image = Image.fromarray(noise[..., 0] if channels == 1 else noise, mode if channels == 4 else None)
    image = image.resize(size, Image.Resampling.BICUBIC)
    if orientation is not None:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def by_libjpeg(files, device):
    return [torch.ops.image.decode_jpeg(file, 3, False) for file in files]


def decoder(decode=by_libjpeg):
    return JpegDecoder(PREPROCESS, device="cpu", decode=decode)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"mode": "L"}, {"restart_marker_blocks": 1}])
def test_complete_jpegs_of_8_bits_go_to_the_gpu(options):
    found = read_jpeg(jpeg(orientation=6, **options))
    assert (found.width, found.height, found.orientation) == (40, 30, 6)
    assert found.upright_size == (30, 40)


def png():
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "PNG")
    return out.getvalue()


OTHERS = {
    "png": png(),
    "cmyk": jpeg("CMYK"),
    "rgb components": jpeg(keep_rgb=True),
    "truncated": jpeg()[:-40],
    "cut in the header": jpeg()[:30],
    "no image": b"\xff\xd8 and nothing else",
    "empty": b"",
    "12 bits": jpeg().replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
    "lossless": jpeg().replace(b"\xff\xc0\x00\x11", b"\xff\xc3\x00\x11"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_everything_else_is_left_to_pillow(kind):
    assert read_jpeg(OTHERS[kind]) is None


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 400), value=st.integers(0, 255), cut=st.integers(0, 900))
def test_reading_a_damaged_header_never_fails(at, value, cut):
    data = bytearray(jpeg())
    data[min(at, len(data) - 1)] = value
    found = read_jpeg(bytes(data[: len(data) - cut]))
    assert found is None or found.width * found.height > 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_applied_as_by_pillow(orientation):
    data = jpeg(orientation=orientation)
    found = read_jpeg(data)
    upright = turn_upright(by_libjpeg([torch.frombuffer(bytearray(data), dtype=torch.uint8)], None)[0], orientation)
    plain = np.asarray(open_rgb(data)[0]).transpose(2, 0, 1)
    assert upright.shape == plain.shape
    assert found.upright_size == (plain.shape[2], plain.shape[1])
    assert np.abs(upright.numpy().astype(int) - plain).max() <= 2


def test_pixels_are_those_of_the_decoded_images_resized_as_by_pillow():
    files = [jpeg(size=(40 + 9 * i, 60 - 4 * i), orientation=1 + i, seed=i) for i in range(8)]
    found = decoder()([read_jpeg(file) for file in files])
    for pixels, file in zip(found, files, strict=True):
        image = by_libjpeg([torch.frombuffer(bytearray(file), dtype=torch.uint8)], None)[0]
        upright = turn_upright(image, read_jpeg(file).orientation).permute(1, 2, 0).numpy()
        assert np.array_equal(pixels, preprocess_pixels(Image.fromarray(upright), PREPROCESS))
    assert decoder()([]) == []


def test_a_file_that_the_decoder_refuses_fails_alone():
    files = [read_jpeg(jpeg(seed=i)) for i in range(7)]
    expected = decoder()(files)
    bad = {files[2].data, files[6].data}

    def refuses(data, device):
        if any(file.numpy().tobytes() in bad for file in data):
            raise RuntimeError("nvjpegDecode failed: 8\nsecond line")
        return by_libjpeg(data, device)

    found = decoder(refuses)(files)
    assert [isinstance(each, ImageDecodeError) for each in found] == [i in (2, 6) for i in range(7)]
    assert str(found[2]) == "corrupt: nvjpegDecode failed: 8"
    assert all(np.array_equal(found[i], expected[i]) for i in (0, 1, 3, 4, 5))


def test_too_little_memory_halves_the_files_decoded_at_once_down_to_one():
    files = [read_jpeg(jpeg(seed=i)) for i in range(5)]
    sizes = []

    def limited(limit):
        def decode(data, device):
            sizes.append(len(data))
            if len(data) > limit:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return by_libjpeg(data, device)

        return decode

    assert np.array_equal(np.stack(decoder(limited(2))(files)), np.stack(decoder()(files)))
    assert sizes == [5, 2, 3, 1, 2]
    with pytest.raises(DeviceMemoryError, match="even one image"):
        decoder(limited(0))(files)


def test_a_gpu_that_fails_is_not_taken_for_a_broken_file():
    def broken(data, device):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(DeviceError, match="illegal memory access"):
        decoder(broken)([read_jpeg(jpeg())])


def test_an_image_that_pillows_way_refuses_is_refused(monkeypatch):
    good, long = read_jpeg(jpeg(size=(40, 30))), read_jpeg(jpeg(size=(2000, 1)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2500)
    pixels, error = decoder()([good, long])
    assert np.array_equal(pixels, decoder()([good])[0])
    assert (error.reason, error.detail) == ("bomb", "40000 x 20 pixels, the limit is 2500")
    assert read_jpeg(jpeg(size=(60, 60))) is None, "a bomb is left to Pillow, which says so"


def test_files_reach_the_device_as_they_are_and_the_ledger_tells_what_they_were(tmp_path):
    contents = {"a.jpg": jpeg(orientation=8), "b.png": png(), "c.jpg": jpeg()[:-40], "d.png": jpeg("L")}
    plan = PixelPlan(replace(PREPROCESS, decoder="nvjpeg"))
    other = PixelPlan(PREPROCESS)
    outcomes = []
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
        by_gpu, by_pillow = read_file(str(tmp_path / name), name, 0, [plan, other])
        assert (by_gpu.pixels is None) == (by_pillow.pixels is None)
        outcomes.append((by_gpu, by_pillow))
    assert [None if a.pixels is None else a.pixels.ndim for a, _ in outcomes] == [1, 4, None, 1]
    finished = decode_outcomes([a for a, _ in outcomes], decoder())
    assert [a.entry for a in finished] == [b.entry for _, b in outcomes]
    assert finished[3].entry.reason == "jpeg named .png"
    for i in (0, 1, 3):
        assert np.abs(finished[i].pixels.astype(int) - outcomes[i][1].pixels).max() <= 2


def test_a_file_that_the_device_refuses_is_a_failed_row(tmp_path):
    def refuses(data, device):
        raise RuntimeError("nvjpegDecode failed: 8")

    (tmp_path / "a.jpg").write_bytes(jpeg())
    outcomes = read_file(str(tmp_path / "a.jpg"), "a.jpg", 0, [PixelPlan(replace(PREPROCESS, decoder="nvjpeg"))])
    (failed,) = decode_outcomes(outcomes, decoder(refuses))
    assert (failed.entry.status, failed.entry.reason) == ("failed", "corrupt: nvjpegDecode failed: 8")
    assert failed.pixels is None
    assert failed.entry.sha256 == outcomes[0].entry.sha256


def test_views_are_refused():
    with pytest.raises(UsageError, match="plain images only"):
        check_nvjpeg("cpu", ("plain", "hflip"))


def test_without_a_gpu_it_is_refused_and_no_other_decoder_taken():
    with pytest.raises(UsageError, match="'nvjpeg' needs an NVIDIA GPU, and the device is cpu"):
        check_nvjpeg("cpu")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="'cuda' is not on this machine"):
            check_nvjpeg("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_decodes_nearly_as_pillow_does():
    check_nvjpeg("cuda")
    files = [jpeg(size=(80 + 9 * i, 90 - 4 * i), orientation=1 + i, seed=i, subsampling=i % 3) for i in range(8)]
    found = JpegDecoder(PREPROCESS, device="cuda")([read_jpeg(file) for file in files])
    for pixels, file in zip(found, files, strict=True):
        pillow = preprocess_pixels(open_rgb(file)[0], PREPROCESS)
        assert np.abs(pixels.astype(int) - pillow).max() <= 12
