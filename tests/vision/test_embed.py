"""The forward loop: equal to a plain torchvision loop, on any device, in any batch."""

import functools
import random
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from deferred_lanes import DeferredLanes
from PIL import Image
from torch import nn

from featx.errors import DeviceError, DeviceMemoryError, InputError, UsageError
from featx.spec import FeatureRequest, FeatureSpec, Preprocess
from featx.vision import nodes
from featx.vision.backbones import Backbone, load_backbone
from featx.vision.devices import choose_device
from featx.vision.embed import Embedder
from featx.vision.images import open_rgb, preprocess_pixels
from featx.vision.registry import members

SHARED = Path(__file__).parents[2] / "../shared"
WEIGHTS = SHARED / "weights" / "mobilenet_v2-imagenet1k.pth"
HYMENOPTERA = SHARED / "data" / "hymenoptera"


def random_pixels(n, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, size, size), np.uint8)


def write_images(folder, n):
    rng = np.random.default_rng(5)
    paths = []
    for i in range(n):
        height, width = rng.integers(40, 400, 2)
        noise = rng.integers(0, 256, (6, 6, 3), np.uint8)
        paths.append(folder / f"{i}.png")
        Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def plain_loop(network, transform, paths, batch_size):
    rows = []
    with torch.inference_mode():
        for i in range(0, len(paths), batch_size):
            images = [transform(Image.open(path).convert("RGB")) for path in paths[i : i + batch_size]]
            rows.append(network(torch.stack(images)))
    return torch.cat(rows).numpy()


def embed(embedder, paths, batch_size):
    pixels = pixels_of(embedder, tuple(paths))
    return np.concatenate([embedder(pixels[i : i + batch_size])[0] for i in range(0, len(paths), batch_size)])


@functools.cache
def pixels_of(embedder, paths):
    preprocess = embedder.backbone.spec.preprocess
    return np.stack([preprocess_pixels(open_rgb(path.read_bytes())[0], preprocess) for path in paths])


def assert_equal_features(features, expected):
    """To 1e-4 of the features' standard deviation: promise 1 of the design for another batch size."""
    assert features.shape == expected.shape
    assert features.dtype == np.float32
    assert np.abs(features - expected).max() <= 1e-4 * expected.std()


def test_features_equal_a_plain_torchvision_loop_for_batches_of_1_7_and_64(tmp_path):
    paths = write_images(tmp_path, 10)
    embedder = Embedder(
        load_backbone(FeatureRequest(backbone="squeezenet1_1", weights="random:7", node="features")), device="cpu"
    )
    torch.manual_seed(7)
    network = torchvision.models.squeezenet1_1().eval()
    network.classifier = nn.AdaptiveAvgPool2d(1)
    expected = plain_loop(network, members("squeezenet1_1")[0].transforms(), paths, batch_size=5)
    for batch_size in (1, 7, 64):
        assert_equal_features(embed(embedder, paths, batch_size), expected)


@pytest.mark.skipif(not WEIGHTS.exists(), reason="needs ../shared")
def test_features_of_real_photographs_equal_a_plain_torchvision_loop():
    paths = sorted(HYMENOPTERA.glob("*/*/*"))[::16]
    assert len(paths) == 25
    embedder = Embedder(load_backbone(FeatureRequest(backbone="mobilenet_v2", weights=str(WEIGHTS))), device="cpu")
    network = torchvision.models.mobilenet_v2()
    network.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    network.classifier = nn.Identity()
    transform = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    expected = plain_loop(network.eval(), transform, paths, batch_size=8)
    for batch_size in (1, 7, 64):
        assert_equal_features(embed(embedder, paths, batch_size), expected)


def test_one_image_alone_equals_the_same_image_in_any_batch():
    embedder = Embedder(load_backbone(FeatureRequest(backbone="featx-mini", weights="random")), device="cpu")
    pixels = random_pixels(9, 128)
    together = embedder(pixels)[0]
    for i in range(9):
        assert_equal_features(embedder(pixels[i : i + 1])[0], together[i : i + 1])
    assert_equal_features(embedder(pixels[::-1].copy())[0], together[::-1])


def test_the_same_batch_gives_the_same_bits():
    backbone = load_backbone(FeatureRequest(backbone="squeezenet1_1", weights="random"))
    again = load_backbone(FeatureRequest(backbone="squeezenet1_1", weights="random"))
    pixels = random_pixels(3, 224)
    assert np.array_equal(Embedder(backbone, device="cpu")(pixels)[0], Embedder(again, device="cpu")(pixels)[0])


def test_with_logits_the_same_pass_gives_the_networks_own_class_scores():
    pixels = random_pixels(2, 224)
    request = FeatureRequest(backbone="squeezenet1_1", weights="random")
    features, nothing = Embedder(load_backbone(request), device="cpu")(pixels)
    assert nothing is None
    with_logits = FeatureRequest(backbone="squeezenet1_1", weights="random", with_logits=True)
    same, logits = Embedder(load_backbone(with_logits), device="cpu")(pixels)
    assert np.array_equal(features, same)
    torch.manual_seed(0)
    network = torchvision.models.squeezenet1_1().eval()
    mean, std = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1), torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
    with torch.inference_mode():
        expected = network((torch.from_numpy(pixels) / 255 - mean) / std).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4 * expected.std())


def test_lower_precision_is_near_and_not_equal():
    pixels = random_pixels(4, 128)
    exact = Embedder(load_backbone(FeatureRequest(backbone="featx-mini", weights="random")), device="cpu")(pixels)[0]
    request = FeatureRequest(backbone="featx-mini", weights="random", dtype="bfloat16")
    features = Embedder(load_backbone(request), device="cpu")(pixels)[0]
    assert features.dtype == np.float32
    assert 1e-4 < np.abs(features - exact).max() / exact.std() < 0.3


def test_threads_and_random_state_are_left_as_they_were():
    before = torch.get_num_threads(), torch.random.get_rng_state(), torch.is_inference_mode_enabled()
    Embedder(load_backbone(FeatureRequest(backbone="featx-mini", weights="random")))(random_pixels(1, 128))
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])
    assert torch.is_inference_mode_enabled() == before[2]


def test_auto_takes_what_there_is():
    assert choose_device("cpu") == "cpu"
    if torch.cuda.is_available():
        assert choose_device() == "cuda"
    else:
        assert choose_device() in ("cpu", "mps")


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "", "cuda:x", "meta", "cpu:1", "xla"])
def test_a_device_that_is_not_there_is_a_usage_error(device):
    with pytest.raises(UsageError, match="device"):
        choose_device(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has one")
def test_a_gpu_asked_for_and_missing_is_never_replaced_by_the_cpu():
    with pytest.raises(UsageError, match="'cuda' is not on this machine"):
        Embedder(load_backbone(FeatureRequest(backbone="featx-mini", weights="random")), device="cuda")


def test_a_spec_whose_jpegs_a_gpu_decodes_is_never_computed_without_one():
    with pytest.raises(UsageError, match="'nvjpeg' needs an NVIDIA GPU, and the device is cpu"):
        Embedder(load_backbone(FeatureRequest(backbone="featx-mini", decoder="nvjpeg")), device="cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_gives_the_features_of_the_cpu_without_tf32():
    request = FeatureRequest(backbone="resnet18", weights="random")
    pixels = random_pixels(8, 224)
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    on_gpu = Embedder(load_backbone(request), device="cuda")(pixels)[0]
    assert_equal_features(on_gpu, Embedder(load_backbone(request), device="cpu")(pixels)[0])
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before


FAILS_LATER = """
import torch
from torch import nn


class Later(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.head, self.error, self.calls = nn.Linear(3, 2), error, 0

    def forward(self, x):
        self.calls += 1
        if self.calls > 1:
            raise self.error
        return self.head(x.mean((2, 3)))


def broken():
    return Later(RuntimeError("boom"))


def too_large():
    return Later(torch.OutOfMemoryError("tried to allocate"))
"""


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [("broken", InputError, "fails_later:broken.*RuntimeError: boom"), ("too_large", UsageError, "--batch-size")],
)
def test_a_network_that_fails_on_a_batch_says_what_to_do(tmp_path, monkeypatch, name, error, words):
    (tmp_path / "fails_later.py").write_text(FAILS_LATER)
    monkeypatch.chdir(tmp_path)
    embedder = Embedder(load_backbone(FeatureRequest(backbone=f"fails_later:{name}")), device="cpu")
    with pytest.raises(error, match=words):
        embedder(random_pixels(2, 224))


READINGS = [
    {"node": "features.4.expand3x3_activation"},
    {"node": "features"},
    {"node": "features", "pooling": "max", "storage": "float16"},
    {"node": "features.12.squeeze", "pooling": "none"},
]


@pytest.mark.parametrize("lanes", [None, DeferredLanes()])
def test_several_readings_of_one_network_are_those_of_single_runs_in_one_forward_pass(lanes):
    backbones = [load_backbone(FeatureRequest(backbone="squeezenet1_1", weights="random", **r)) for r in READINGS]
    pixels = random_pixels(3, 224)
    expected = [Embedder(backbone, device="cpu")(pixels)[0] for backbone in backbones]
    passes = []
    backbones[0].network.features[0].register_forward_hook(lambda *_: passes.append(1))
    embedder = Embedder(backbones[0], also=backbones[1:], device="cpu", lanes=lanes)
    pending = embedder.submit(pixels)
    assert [rows.shape for rows, _ in pending.results()] == [rows.shape for rows in expected]
    assert all(np.array_equal(a, b) for (a, _), b in zip(pending.results(), expected, strict=True))
    assert np.array_equal(pending.result()[0], expected[0])
    assert len(passes) == 1


def test_class_scores_go_to_the_readings_that_want_them():
    requests = [
        FeatureRequest(backbone="squeezenet1_1", weights="random", node="features"),
        FeatureRequest(backbone="squeezenet1_1", weights="random", with_logits=True),
    ]
    pixels = random_pixels(2, 224)
    plain, scored = (load_backbone(request) for request in requests)
    expected = [Embedder(each, device="cpu")(pixels) for each in (plain, scored)]
    (rows, nothing), (other, scores) = Embedder(plain, also=[scored], device="cpu").submit(pixels).results()
    assert nothing is None
    assert np.array_equal(rows, expected[0][0])
    assert np.array_equal(other, expected[1][0])
    assert np.array_equal(scores, expected[1][1])


def test_another_network_is_no_other_reading():
    one, two = (load_backbone(FeatureRequest(backbone="featx-mini", weights=f"random:{seed}")) for seed in (0, 1))
    with pytest.raises(UsageError, match="two networks: weights is random:0 and random:1"):
        Embedder(one, also=[two], device="cpu")


def mini(**values):
    return load_backbone(FeatureRequest(backbone="featx-mini", weights="random", **values))


@pytest.mark.parametrize("seed", range(3))
def test_batches_computed_beside_the_caller_have_the_bits_of_batches_computed_at_once(seed):
    pixels = random_pixels(20, 128)
    plain = Embedder(mini(), device="cpu")
    expected = [plain(pixels[i : i + 4])[0] for i in range(0, 20, 4)]
    embedder = Embedder(mini(), device="cpu", lanes=DeferredLanes(random.Random(seed)))
    assert embedder.ahead == 2
    waiting, rows = deque(), []
    for i in range(0, 20, 4):
        buffer = embedder.buffer(4)
        assert buffer.shape == (4, 3, 128, 128)
        buffer[:] = pixels[i : i + 4]
        waiting.append(embedder.submit(buffer))
        if len(waiting) > embedder.ahead:
            rows.append(waiting.popleft().result()[0])
    rows += [each.result()[0] for each in waiting]
    assert all(np.array_equal(a, b) for a, b in zip(rows, expected, strict=True))


class Limited(nn.Module):
    """A network for which a device has memory for two images at once; it knows whether its tensors are freed."""

    def __init__(self):
        super().__init__()
        self.head, self.held, self.limit = nn.Linear(3, 2), [], 2

    def forward(self, x):
        values = x.mean((2, 3))
        self.held.append(weakref.ref(values))
        if len(x) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return self.head(values)


def limited():
    network = Limited()
    traced = nodes.trace(network, (8, 8), meta=False)
    node = nodes.default_node(traced)
    preprocess = Preprocess(resize=(8, 8), crop=(), mean=(0.0,) * 3, std=(1.0,) * 3)
    return Backbone(FeatureSpec("tiny", "own", "", node.name, "none", node.shape, preprocess), network, node, 2)


@pytest.mark.parametrize("lanes", [None, DeferredLanes(at_once=True), DeferredLanes()])
def test_a_batch_too_large_for_the_device_is_an_error_that_knows_it_and_smaller_ones_go_on(lanes):
    embedder = Embedder(limited(), device="cpu", lanes=lanes)
    network = embedder.backbone.network
    pixels = random_pixels(4, 8)
    before = embedder.submit(pixels[:2])
    buffer = embedder.buffer(4)
    buffer[:] = pixels
    if lanes is not None:
        lanes.before_release = lambda: network.held.append("released")
    with pytest.raises(DeviceMemoryError) as caught:
        embedder.submit(buffer).result()
    assert (caught.value.device, caught.value.batch) == ("cpu", 4)
    if lanes is not None:
        assert network.held.pop() == "released"
    assert network.held[-1]() is None, "the error must not hold the tensors for which there is no room"
    halves = [embedder.submit(half) for half in (buffer[:2], buffer[2:])]
    rows = np.concatenate([half.result()[0] for half in halves])
    assert np.array_equal(before.result()[0], rows[:2])
    network.limit = 4
    assert_equal_features(embedder(pixels)[0], rows)


def test_memory_is_free_again_before_it_is_given_back():
    lanes, alive = DeferredLanes(at_once=True), []
    embedder = Embedder(limited(), device="cpu", lanes=lanes)
    lanes.before_release = lambda: alive.append(embedder.backbone.network.held[-1]() is not None)
    with pytest.raises(DeviceMemoryError):
        embedder(random_pixels(3, 8))
    assert alive == [False]


def test_a_device_that_fails_later_is_named_when_the_result_is_asked_for():
    embedder = Embedder(limited(), device="cpu", lanes=DeferredLanes())
    embedder.backbone.network.forward = fail_on_device
    pending = embedder.submit(random_pixels(2, 8))
    with pytest.raises(DeviceError, match=r"^device cpu failed: CUDA error: unspecified launch failure$") as caught:
        pending.result()
    assert caught.value.device == "cpu"


def fail_on_device(x):
    raise RuntimeError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA")


@pytest.mark.parametrize("lanes", [None, DeferredLanes()])
def test_whole_images_resized_on_the_device_give_the_bits_of_images_resized_by_pillow(lanes):
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 256, (int(h), int(w), 3), np.uint8) for h, w in rng.integers(50, 300, (7, 2))]
    embedder = Embedder(mini(), device="cpu", lanes=lanes)
    pixels = np.stack([preprocess_pixels(Image.fromarray(i), embedder.backbone.spec.preprocess) for i in images])
    assert np.array_equal(embedder.submit_images(images).result()[0], embedder(pixels)[0])


def test_threads_that_share_an_embedder_get_their_own_features():
    embedder = Embedder(mini(), device="cpu")
    batches = [random_pixels(2, 128, seed) for seed in range(8)]
    expected = [embedder(pixels)[0] for pixels in batches]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda pixels: embedder(pixels)[0], batches * 2))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected * 2, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_submitted_ahead_to_a_gpu_have_the_bits_of_batches_one_by_one():
    embedder = Embedder(load_backbone(FeatureRequest(backbone="resnet18", weights="random")), device="cuda")
    pixels = random_pixels(64, 224)
    expected = [embedder(pixels[i : i + 8])[0] for i in range(0, 64, 8)]
    pending = []
    for i in range(0, 64, 8):
        buffer = embedder.buffer(8)
        buffer[:] = pixels[i : i + 8]
        pending.append(embedder.submit(buffer))
    assert all(np.array_equal(each.result()[0], rows) for each, rows in zip(pending, expected, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_batch_too_large_for_a_gpu_leaves_it_usable():
    embedder = Embedder(load_backbone(FeatureRequest(backbone="resnet18", weights="random")), device="cuda")
    few = random_pixels(4, 224)
    expected = embedder(few)[0]
    torch.cuda.set_per_process_memory_fraction(min(1.0, 2e9 / torch.cuda.get_device_properties(0).total_memory))
    try:
        with pytest.raises(DeviceMemoryError):
            embedder(random_pixels(2000, 224))
        assert np.array_equal(embedder(few)[0], expected)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
