"""The resize on a device: Pillow's, to the bit, for any sizes, filters and crops."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from featx.errors import DeviceError, ImageDecodeError, UnknownNameError
from featx.spec import Preprocess
from featx.vision import resize
from featx.vision.images import open_rgb, preprocess_pixels
from featx.vision.resize import ResizePlan, check_resize

HYMENOPTERA = Path(__file__).parents[2] / "../shared/data/hymenoptera"
IMAGENET = Preprocess(resize=(256,), crop=(224, 224), mean=(), std=())


def on_device(images, preprocess, device="cpu"):
    plan = ResizePlan(preprocess, [image.shape[:2] for image in images])
    data = np.concatenate([plan.tables, *(image.reshape(-1) for image in images)])
    return plan(torch.from_numpy(data).to(device)).cpu().numpy()


def by_pillow(images, preprocess):
    return np.stack([preprocess_pixels(Image.fromarray(image), preprocess) for image in images])


def noise(*sizes, seed=0):
    """White noise with full black and white in it: the hardest of all images to resize, and its rounding to hit."""
    rng = np.random.default_rng(seed)
    images = [rng.integers(0, 256, (height, width, 3), np.uint8) for height, width in sizes]
    return [np.where(rng.random(image.shape) < 0.3, image // 128 * 255, image).astype(np.uint8) for image in images]


SIZES = st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=5)
RESIZES = st.one_of(st.tuples(st.integers(1, 70)), st.tuples(st.integers(1, 70), st.integers(1, 70)), st.just(()))


@settings(max_examples=300, deadline=None)
@given(
    sizes=SIZES,
    resize=RESIZES,
    crop=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    interpolation=st.sampled_from(["bilinear", "bicubic", "nearest"]),
    seed=st.integers(0, 1000),
)
def test_any_batch_is_resized_and_cropped_as_by_pillow(sizes, resize, crop, interpolation, seed):
    preprocess = Preprocess(resize, crop, (), (), interpolation)
    images = noise(*sizes, seed=seed)
    assert np.array_equal(on_device(images, preprocess), by_pillow(images, preprocess))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(375, 500), (500, 333), (1200, 1600), (40, 4000), (230, 230), (31, 57)])
def test_sizes_of_cameras_and_of_thumbnails(size, interpolation):
    preprocess = Preprocess((256,), (224, 224), (), (), interpolation)
    images = noise(size)
    assert np.array_equal(on_device(images, preprocess), by_pillow(images, preprocess))


def test_without_a_crop_the_resize_gives_the_size():
    preprocess = Preprocess((33, 21), (), (), ())
    images = noise((50, 20), (10, 90))
    assert on_device(images, preprocess).shape == (2, 3, 33, 21)
    assert np.array_equal(on_device(images, preprocess), by_pillow(images, preprocess))


@pytest.mark.parametrize("values_at_once", [1, 40_000])
def test_groups_that_are_computed_together_do_not_show(monkeypatch, values_at_once):
    monkeypatch.setattr(resize, "_VALUES_AT_ONCE", values_at_once)
    preprocess = Preprocess((20,), (16, 16), (), ())
    images = noise(*[(5 + 13 * i % 70, 5 + 29 * i % 80) for i in range(12)])
    assert np.array_equal(on_device(images, preprocess), by_pillow(images, preprocess))


@pytest.mark.slow
def test_hundreds_of_random_sizes_at_imagenets_preprocess():
    rng = np.random.default_rng(1)
    for interpolation in ("bilinear", "bicubic"):
        preprocess = Preprocess((232,), (224, 224), (), (), interpolation)
        for _ in range(40):
            images = noise(*[tuple(rng.integers(16, 900, 2)) for _ in range(5)], seed=int(rng.integers(1 << 30)))
            assert np.array_equal(on_device(images, preprocess), by_pillow(images, preprocess))


@pytest.mark.skipif(not HYMENOPTERA.exists(), reason="needs ../shared")
def test_real_photographs():
    paths = sorted(HYMENOPTERA.glob("*/*/*"))[::12]
    images = [np.asarray(open_rgb(path.read_bytes())[0]) for path in paths]
    assert np.array_equal(on_device(images, IMAGENET), by_pillow(images, IMAGENET))


def test_an_image_that_pillows_way_refuses_is_refused():
    with pytest.raises(ImageDecodeError, match="bomb"):
        ResizePlan(IMAGENET, [(1, 10**7)])


def test_an_unknown_filter_is_a_name_error():
    with pytest.raises(UnknownNameError, match="lanczos"):
        ResizePlan(Preprocess((4,), (4, 4), (), (), "lanczos"), [(9, 9)])


def test_a_device_that_adds_up_otherwise_is_found_out(monkeypatch):
    check_resize(IMAGENET, torch.device("cpu"))
    monkeypatch.setattr(resize, "_BITS", 8)
    resize._axis.cache_clear()
    with pytest.raises(DeviceError, match="device cpu failed: it does not resize images as Pillow does"):
        check_resize(IMAGENET, torch.device("cpu"))
    resize._axis.cache_clear()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_resizes_to_the_bit():
    images = noise(*[(40 + 37 * i % 900, 30 + 71 * i % 800) for i in range(40)])
    for interpolation in ("bilinear", "bicubic", "nearest"):
        preprocess = Preprocess((232,), (224, 224), (), (), interpolation)
        assert np.array_equal(on_device(images, preprocess, "cuda"), by_pillow(images, preprocess))
