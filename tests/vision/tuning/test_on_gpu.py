"""Training on an NVIDIA GPU: the same as on the CPU, in lower precision near it, fed ahead, resumed."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from featx.vision.engine import EngineOptions
from featx.vision.tuning.checkpoint import Checkpoint
from featx.vision.tuning.feeding import feed, lanes_of
from featx.vision.tuning.images import ImageReader, epoch_views
from featx.vision.tuning.lr_range import find_lr
from featx.vision.tuning.network import TunedNetwork
from featx.vision.tuning.optimisation import Optimisation
from featx.vision.tuning.recipe import Recipe
from featx.vision.tuning.training import Training

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

GPU, C = "cuda:0", 2
RECIPE = Recipe(epochs=3, batch_size=5, lr=1e-3, patience=0, compile="off")
CODES = np.array([0, 1, 0, 1])


@pytest.fixture
def images():
    return torch.randn(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))


def network_of(backbone, device):
    copied = dataclasses.replace(backbone, network=copy.deepcopy(backbone.network))
    coef = np.random.default_rng(0).normal(size=(C, backbone.spec.n_features))
    return TunedNetwork(copied, coef, np.zeros(C)).to(device, memory_format=torch.channels_last).train()


def reader_of(manifest, backbone, device, num_workers=0):
    return ImageReader(manifest, backbone.spec, EngineOptions(num_workers=num_workers), lanes=lanes_of(device))


def train(backbone, manifest, part, recipe, device, *, resume=False, **more):
    with reader_of(manifest, backbone, device) as reader:
        network = network_of(backbone, device)
        return Training(network, reader, part, recipe, n_classes=C, validate=part, **more).run(resume=resume)


def assert_near(one, other, *, rtol=1e-3, atol=1e-4):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(other[name].cpu(), tensor.cpu(), rtol=rtol, atol=atol)


# ---- steps


@pytest.mark.parametrize(
    "changes", [{"optimiser": "sgd"}, {}, {"mixup": 0.2}, {"cutmix": 1.0}, {"ema": 0.9, "unfreeze": 0.5}]
)
def test_steps_are_those_of_the_cpu(tiny, images, changes):
    recipe, losses, states = dataclasses.replace(RECIPE, warmup=0.0, **changes), [], []
    for device in ("cpu", GPU):
        step = Optimisation(network_of(tiny, device), recipe, 4, np.array([1.0, 3.0]))
        losses.append([step.take_step(images.to(device), CODES).loss for _ in range(4)])
        states.append(step.network.state())
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    assert_near(*states)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_lower_precision_is_near_and_keeps_its_weights_in_float32(tiny, images, dtype):
    losses = []
    for each in ("float32", dtype):
        step = Optimisation(network_of(tiny, GPU), dataclasses.replace(RECIPE, dtype=each, lr=1e-2), 8, np.ones(C))
        records = [step.take_step(images.to(GPU), CODES) for _ in range(8)]
        losses.append([record.loss for record in records if not record.is_skipped])
        assert {parameter.dtype for parameter in step.network.parameters()} == {torch.float32}
    assert losses[0][:3] != losses[1][:3]
    np.testing.assert_allclose(losses[1][0], losses[0][0], rtol=0.05, atol=0.02)
    assert losses[1][-1] < losses[1][0]


def test_a_float16_gradient_that_overflows_is_left_out_and_the_next_is_scaled_less(tiny, images):
    recipe = dataclasses.replace(RECIPE, dtype="float16", schedule="constant", warmup=0.0)
    step = Optimisation(network_of(tiny, GPU), recipe, 40, np.ones(C))
    step._scaler = torch.amp.GradScaler("cuda", init_scale=2.0**40)
    start, records = step.network.state(), []
    while not records or records[-1].is_skipped:
        records.append(step.take_step(images.to(GPU), CODES))
        changed = any(not torch.equal(start[name], tensor) for name, tensor in step.network.state().items())
        assert changed == (not records[-1].is_skipped)
        assert step.step < 40
    assert records[0].is_skipped
    assert step._scaler.get_scale() < 2.0**40


# ---- images


@pytest.mark.parametrize("num_workers", [0, 2])
def test_images_arrive_as_they_are_bit_for_bit(manifest, tiny, num_workers):
    order, found = np.random.default_rng(0).permutation(len(manifest.keys)), []
    for device in ("cpu", GPU):
        with reader_of(manifest, tiny, device, num_workers) as reader:
            views = epoch_views(order, ("crop", "flip", "colour"), 0, 1)
            found.append([batch.images.cpu() for batch in reader.batches(order, 5, views)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_a_device_that_lags_behind_computes_with_the_bytes_of_each_batch(ahead):
    rng, seen = np.random.default_rng(0), []
    batches = [(i, [rng.integers(0, 256, (1 + i % 4, 3, 64, 64), dtype=np.uint8)]) for i in range(40)]
    for _, pixels in feed(iter(batches), lanes_of(GPU), ahead=ahead):
        torch.cuda._sleep(2_000_000)
        seen.append(pixels.clone())
    for found, (_, (expected,)) in zip(seen, batches, strict=True):
        np.testing.assert_array_equal(found.cpu().numpy(), expected)


# ---- trainings


@pytest.mark.parametrize("what", ["all", "last-block", "head"])
def test_a_training_is_that_of_the_cpu(tiny, manifest, part, what):
    recipe = dataclasses.replace(RECIPE, train=what, optimiser="sgd")
    one, other = (train(tiny, manifest, part, recipe, device) for device in ("cpu", GPU))
    assert_near(one.state, other.state)
    np.testing.assert_allclose(
        [epoch.loss for epoch in other.history[1:]], [epoch.loss for epoch in one.history[1:]], rtol=1e-3
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_resumed_training_gives_the_weights_of_an_uninterrupted_one(tmp_path, tiny, manifest, part, dtype):
    recipe, checkpoint = dataclasses.replace(RECIPE, dtype=dtype, ema=0.9), Checkpoint(tmp_path / "x.pt", {})
    whole = train(tiny, manifest, part, recipe, GPU)

    def stop(progress):
        if progress.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny, manifest, part, recipe, GPU, checkpoint=checkpoint, progress=stop)
    seen = []
    resumed = train(
        tiny, manifest, part, recipe, GPU, checkpoint=checkpoint, resume=True, progress=lambda at: seen.append(at.epoch)
    )
    assert set(seen) == {3}
    assert_near(whole.state, resumed.state, rtol=1e-4, atol=1e-5)


def test_the_learning_rate_is_found_on_a_gpu(tiny, manifest, part):
    recipe, found = dataclasses.replace(RECIPE, lr=None, optimiser="sgd"), []
    for device in ("cpu", GPU):
        with reader_of(manifest, tiny, device) as reader:
            found.append(find_lr(network_of(tiny, device), reader, part, recipe, n_classes=C))
    n = min(len(one.losses) for one in found)
    np.testing.assert_allclose(found[1].losses[: n // 2], found[0].losses[: n // 2], rtol=0.05, atol=1e-3)
    assert found[1].lr == pytest.approx(found[0].lr, rel=2.0)
