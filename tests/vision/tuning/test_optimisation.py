"""Arithmetic of a step: dtypes, memory formats, torch.compile."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from featx.errors import UnknownNameError, UsageError
from featx.vision.engine import EngineOptions
from featx.vision.tuning import compiled as compiled_module
from featx.vision.tuning.compiled import LONG, compiled, is_compiled, missing_compiler
from featx.vision.tuning.images import ImageReader
from featx.vision.tuning.mixing import mix
from featx.vision.tuning.network import TunedNetwork
from featx.vision.tuning.optimisation import Optimisation, check_dtype
from featx.vision.tuning.part import PartTask, PartTrainer
from featx.vision.tuning.recipe import Recipe
from featx.vision.tuning.training import Training

C = 2
RECIPE = Recipe(epochs=2, batch_size=5, lr=1e-2, patience=0)
CODES = np.array([0, 1, 0, 1])


def network_of(backbone):
    copied = dataclasses.replace(backbone, network=copy.deepcopy(backbone.network))
    coef = np.random.default_rng(0).normal(size=(C, backbone.spec.n_features))
    network = TunedNetwork(copied, coef, np.zeros(C))
    return network.to(memory_format=torch.channels_last).train()


@pytest.fixture
def images():
    return torch.randn(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))


# ---- dtypes


def test_float16_is_refused_where_it_does_not_train(tiny, manifest):
    recipe = dataclasses.replace(RECIPE, dtype="float16")
    with pytest.raises(UsageError, match="take --dtype bfloat16"):
        Optimisation(network_of(tiny), recipe, 1, np.ones(C))
    with pytest.raises(UsageError, match="CUDA only, and this is cpu"):
        PartTrainer(tiny, manifest, recipe, EngineOptions(num_workers=0, device="cpu"), n_classes=C)
    check_dtype("float16", "cuda:1")


def test_images_that_cannot_be_varied_are_refused(tiny, manifest):
    preprocess = dataclasses.replace(tiny.spec.preprocess, decoder="nvjpeg")
    by_gpu = dataclasses.replace(tiny, spec=dataclasses.replace(tiny.spec, preprocess=preprocess))
    with pytest.raises(UsageError, match=r"'nvjpeg', which does not vary images; extract them again"):
        PartTrainer(by_gpu, manifest, RECIPE, EngineOptions(num_workers=0, device="cpu"), n_classes=C)


def test_bfloat16_is_near_float32_and_keeps_its_weights_in_float32(tiny, images):
    losses = []
    for dtype in ("float32", "bfloat16"):
        network = network_of(tiny)
        step = Optimisation(network, dataclasses.replace(RECIPE, dtype=dtype), 4, np.ones(C))
        losses.append([step.take_step(images, CODES).loss for _ in range(4)])
        assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.05, atol=0.02)


def test_what_is_reported_of_a_network_trained_in_bfloat16_is_what_predict_finds_in_float32(tiny, manifest, part):
    coef = np.random.default_rng(0).normal(size=(C, tiny.spec.n_features))
    with ImageReader(manifest, tiny.spec, EngineOptions(num_workers=0)) as reader, torch.inference_mode():
        batch = next(reader.batches(part.positions, 12)).images
        start = network_of(tiny).eval()
        task = PartTask("1", part, part, part.positions, coef, np.zeros(C), False, part.positions, start(batch).numpy())
        recipe = dataclasses.replace(RECIPE, dtype="bfloat16")
        trainer = PartTrainer(tiny, manifest, recipe, EngineOptions(num_workers=0, device="cpu"), n_classes=C)
        with torch.inference_mode(False):
            outcome = trainer.train(task)
        start.load_state_dict(outcome.tuned.state)
        for said in (outcome.test, outcome.validate):
            np.testing.assert_allclose(said, start(batch), rtol=1e-5, atol=1e-5)


def with_scaler(backbone, scale):
    """Scale losses as float16 does, on the CPU, where float32 overflows as well if the scale is large enough."""
    step = Optimisation(network_of(backbone), dataclasses.replace(RECIPE, ema=0.9, l2sp=10.0), 4, np.ones(C))
    step._scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return step


def test_a_gradient_that_overflows_is_left_out_and_the_next_is_scaled_less(tiny, images):
    step = with_scaler(tiny, 2.0**127)
    start = step.network.state()
    record = step.take_step(images * 100, CODES)
    assert record.is_skipped
    assert not np.isfinite(record.gradient)
    assert all(torch.equal(start[name], tensor) for name, tensor in step.network.state().items())
    assert step._scaler.get_scale() == 2.0**126


def test_a_scaled_step_is_the_step(tiny, images):
    plain, scaled = with_scaler(tiny, 1.0), with_scaler(tiny, 2.0**10)
    for step in (plain, scaled):
        assert not step.take_step(images, CODES).is_skipped
    for name, tensor in plain.network.state().items():
        torch.testing.assert_close(scaled.network.state()[name], tensor)


def test_a_gradient_that_is_never_finite_is_not_skipped_for_ever(tiny):
    step = with_scaler(tiny, 4.0)
    (weight, *_) = step.network.head.parameters()
    weight.register_hook(lambda gradient: gradient * float("inf"))
    skipped = [step.take_step(torch.ones(4, 3, 24, 24), CODES).is_skipped for _ in range(4)]
    assert skipped == [True, True, False, False]


# ---- channels last


def is_channels_last(values):
    return values.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("changes", [{}, {"mixup": 1.0}, {"cutmix": 1.0}, {"train": "last-block"}])
def test_images_and_maps_reach_the_network_with_their_channels_last(tiny, manifest, part, changes):
    network, seen = network_of(tiny), []
    convolutions = [module for module in network.network if isinstance(module, torch.nn.Conv2d)]
    assert all(is_channels_last(module.weight) for module in convolutions)
    convolutions[1].register_forward_pre_hook(lambda module, values: seen.append(is_channels_last(values[0])))
    recipe = dataclasses.replace(RECIPE, **changes)
    with ImageReader(manifest, tiny.spec, EngineOptions(num_workers=0)) as reader:
        Training(network, reader, part, recipe, n_classes=C).run()
    assert seen
    assert all(seen)


def test_a_batch_keeps_its_format_where_it_is_mixed(images):
    last = images.contiguous(memory_format=torch.channels_last)
    for kind in ("mixup", "cutmix"):
        mixed, _ = mix(last, torch.eye(4), dataclasses.replace(RECIPE, **{kind: 1.0}), step=0)
        assert is_channels_last(mixed)


# ---- torch.compile


def test_who_compiles(monkeypatch):
    monkeypatch.setattr(compiled_module, "missing_compiler", lambda device: None)
    assert is_compiled(RECIPE, "cuda", LONG)
    assert not is_compiled(RECIPE, "cuda", LONG - 1)
    assert not is_compiled(RECIPE, "cpu", 10**9)
    assert not is_compiled(dataclasses.replace(RECIPE, unfreeze=0.5), "cuda", LONG)
    assert is_compiled(dataclasses.replace(RECIPE, compile="on"), "cpu", 1)
    assert not is_compiled(dataclasses.replace(RECIPE, compile="off"), "cuda", 10**9)


def test_without_a_compiler_it_is_an_error_only_where_it_was_asked_for(tiny, manifest, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    asked = dataclasses.replace(RECIPE, compile="on")
    with pytest.raises(UsageError, match=r"C\+\+ compiler, and g\+\+ is not on this machine; install it, or take"):
        PartTrainer(tiny, manifest, asked, EngineOptions(num_workers=0, device="cpu"), n_classes=C)
    assert not is_compiled(RECIPE, "cpu", LONG)
    assert not is_compiled(RECIPE, "cuda", LONG)


def test_a_choice_that_does_not_exist_is_refused():
    with pytest.raises(UnknownNameError):
        dataclasses.replace(RECIPE, compile="maybe")


needs_compiler = pytest.mark.skipif(missing_compiler("cpu") is not None, reason="no C++ compiler")


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("default")  # of torch's own compiler
@pytest.mark.parametrize("what", ["all", "last-block"])
def test_compiled_steps_are_the_steps(tiny, manifest, part, what):
    """Batches of 5, 5 and 2."""
    states = []
    for choice in ("off", "on"):
        recipe = dataclasses.replace(RECIPE, train=what, compile=choice, optimiser="sgd")
        with ImageReader(manifest, tiny.spec, EngineOptions(num_workers=0)) as reader:
            states.append(Training(network_of(tiny), reader, part, recipe, n_classes=C).run().state)
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("default")
def test_what_cannot_be_compiled_says_so():
    import torch._inductor.config as settings

    torch._dynamo.reset()
    with settings.patch({"cpp.cxx": ("false",)}), pytest.raises(UsageError, match="take --compile off"):
        compiled(lambda values: (values * 3.25).sin().sum())(torch.ones(77))
