"""LoRA on transformers; most of it needs peft."""

import copy
import dataclasses
import sys

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from featx.errors import MissingExtraError, UsageError
from featx.vision import tensors
from featx.vision.engine import EngineOptions
from featx.vision.tuning.adapters import add_adapters, check_adapters, find_layers, merge_adapters
from featx.vision.tuning.blocks import choose_parameters
from featx.vision.tuning.epochs import blend
from featx.vision.tuning.images import ImageReader
from featx.vision.tuning.network import TunedNetwork
from featx.vision.tuning.optimisation import Optimisation
from featx.vision.tuning.part import PartTask, PartTrainer
from featx.vision.tuning.recipe import Recipe

C, SIZE = 2, (32, 32)
LORA = Recipe(train="lora", epochs=2, batch_size=4, lr=1e-2, warmup=0.0, patience=0, lora_rank=2)

pytestmark = pytest.mark.filterwarnings("default:::peft", "default:::transformers", "default:::accelerate")


def vit():
    return torchvision.models.VisionTransformer(
        image_size=32, patch_size=16, num_layers=2, num_heads=2, hidden_dim=12, mlp_dim=16, num_classes=5
    )


def swin():
    return torchvision.models.SwinTransformer([2, 2], 12, [1, 2], [2, 2], [2, 2], num_classes=5)


def timm_vit():
    timm = pytest.importorskip("timm")
    return timm.models.VisionTransformer(img_size=32, patch_size=16, embed_dim=12, depth=2, num_heads=2, num_classes=5)


def timm_swin():
    timm = pytest.importorskip("timm")
    return timm.models.SwinTransformer(
        img_size=32, patch_size=2, embed_dim=12, depths=(1, 1), num_heads=(2, 2), window_size=4, num_classes=5
    )


NETWORKS = {"vit": vit, "swin": swin, "timm vit": timm_vit, "timm swin": timm_swin}
LAYERS = {
    "vit": {f"encoder.layers.encoder_layer_{i}.mlp.{j}" for i in range(2) for j in (0, 3)},
    "swin": {f"features.{place}.mlp.{j}" for place in ("1.0", "3.0", "3.1") for j in (0, 3)} | {"features.2.reduction"},
    "timm vit": {f"blocks.{i}.{name}" for i in range(2) for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")},
    "timm swin": {
        f"layers.{i}.blocks.0.{name}" for i in range(2) for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    }
    | {"layers.1.downsample.reduction"},
}


@pytest.fixture(params=NETWORKS)
def kind(request):
    return request.param


@pytest.fixture
def transformer(kind, make_backbone):
    torch.manual_seed(0)
    return make_backbone(NETWORKS[kind](), SIZE)


@pytest.fixture
def images():
    return torch.randn(4, 3, *SIZE, generator=torch.Generator().manual_seed(0))


def adapted(backbone, *, spread=0.0, recipe=LORA):
    """Put adapters on a copy; with a spread they are not zero any more."""
    pytest.importorskip("peft")
    copied = dataclasses.replace(backbone, network=copy.deepcopy(backbone.network))
    add_adapters(copied, recipe)
    for name, parameter in copied.network.named_parameters():
        if spread and "lora_B" in name:
            nn.init.normal_(parameter, std=spread)
    return TunedNetwork(copied, np.ones((C, backbone.spec.n_features)) * [[1.0], [-1.0]], np.zeros(C)).eval()


def test_the_linear_layers_that_are_called_are_found(transformer, kind):
    assert set(find_layers(transformer)) == LAYERS[kind]


def test_the_start_is_the_networks_own(transformer, images):
    plain = TunedNetwork(transformer, np.ones((C, transformer.spec.n_features)), np.zeros(C)).eval()
    with torch.inference_mode():
        torch.testing.assert_close(adapted(transformer).features(images), plain.features(images), rtol=1e-5, atol=1e-6)


def test_merged_it_gives_what_it_gave_and_is_an_ordinary_network(transformer, images):
    network = adapted(transformer, spread=0.3)
    own, again = network.network, copy.deepcopy(transformer.network)
    with torch.inference_mode():
        plain, expected = (
            TunedNetwork(
                dataclasses.replace(transformer, network=again), np.ones((C, transformer.spec.n_features)), np.zeros(C)
            ).features(images),
            network.features(images),
        )
    assert (expected - plain).abs().max() > 1e-2
    merge_adapters(own)
    assert list(own.state_dict()) == list(transformer.network.state_dict())
    again.load_state_dict(own.state_dict())
    merged = TunedNetwork(
        dataclasses.replace(transformer, network=again), np.ones((C, transformer.spec.n_features)), np.zeros(C)
    ).eval()
    with torch.inference_mode():
        torch.testing.assert_close(merged.features(images), expected, rtol=1e-5, atol=1e-5)


def test_adapters_and_head_alone_get_gradients_and_all_of_them_do(transformer, images):
    network = adapted(transformer, spread=0.1).train()
    step = Optimisation(network, LORA, 10, np.ones(C))
    network(images).square().sum().backward()
    trained = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    expected = {name for name, _ in network.named_parameters() if "lora_" in name or name.startswith("head.")}
    assert trained == expected
    assert all(parameter.grad.abs().max() > 0 for parameter in step.trained())


def test_frozen_weights_stay_where_they_are(transformer, images):
    network = adapted(transformer).train()
    start = network.state()
    Optimisation(network, LORA, 10, np.ones(C)).take_step(images, np.array([0, 1, 0, 1]))
    state = network.state()
    changed = {name for name in start if not torch.equal(start[name], state[name])}
    assert changed
    assert all("lora_" in name or name.startswith("head.") for name in changed)


def test_half_of_the_way_is_half_of_the_way_of_the_merged_weights(transformer):
    start, end = adapted(transformer), adapted(transformer, spread=0.3)
    for name, parameter in end.network.named_parameters():
        if "lora_A" in name:
            nn.init.normal_(parameter)
    states = []
    for share in (0.0, 0.5, 1.0):
        network = adapted(transformer)
        network.restore(blend(start.state(), end.state(), share))
        merge_adapters(network.network)
        states.append(network.network.state_dict())
    for name in [name for name, tensor in states[1].items() if tensor.is_floating_point()]:
        torch.testing.assert_close(states[1][name], (states[0][name] + states[2][name]) / 2, rtol=1e-5, atol=1e-5)


def test_the_same_seed_gives_the_same_adapters(transformer):
    def drawn(seed):
        torch.manual_seed(seed + 100)  # what was drawn before does not count
        network = adapted(transformer, recipe=dataclasses.replace(LORA, random_state=seed))
        return torch.cat([p.flatten() for name, p in network.named_parameters() if "lora_A" in name])

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


@pytest.mark.parametrize("kind", ["vit", "timm vit"])
def test_a_part_is_trained_and_packed_as_an_ordinary_network(transformer, manifest, part):
    pytest.importorskip("peft")
    coef = np.random.default_rng(0).normal(size=(C, transformer.spec.n_features))
    plain = TunedNetwork(
        dataclasses.replace(transformer, network=copy.deepcopy(transformer.network)), coef, np.zeros(C)
    ).eval()
    with ImageReader(manifest, transformer.spec, EngineOptions(num_workers=0)) as reader, torch.inference_mode():
        batch = next(reader.batches(part.positions, 12)).images
        expected = plain(batch).double().numpy()
    task = PartTask("1", part, part, part.positions, coef, np.zeros(C), False, part.positions, expected)
    trainer = PartTrainer(transformer, manifest, LORA, EngineOptions(num_workers=0), n_classes=C, score=rising())
    outcome = trainer.train(task)
    assert outcome.start_difference < 1e-4
    assert (outcome.tuned.best_epoch, outcome.tuned.blend) == (2, 1.0)
    assert np.abs(outcome.test - expected).max() > 1e-3
    _, blob, coef, intercept = trainer.pack(task, outcome.tuned)
    network = copy.deepcopy(transformer.network)
    network.load_state_dict(tensors.unpack(blob, weights="tuned"))
    packed = TunedNetwork(dataclasses.replace(transformer, network=network), coef, intercept).eval()
    with torch.inference_mode():
        np.testing.assert_allclose(packed(batch), outcome.test, rtol=1e-4, atol=1e-5)


def rising():
    """Score every later epoch higher, and the ways between lower."""
    scores = iter([0.0, 1.0, 2.0, 0.0, 0.0, 0.0])
    return lambda values, codes: (next(scores), 0.0)


# ---- what cannot be


def test_a_network_without_linear_layers_is_refused(tiny):
    with pytest.raises(UsageError, match="for transformers"):
        find_layers(tiny)


def test_a_network_without_adapters_is_refused(tiny):
    with pytest.raises(UsageError, match="no adapters"):
        choose_parameters(TunedNetwork(tiny, np.zeros((C, 8)), np.zeros(C)), "lora")


def test_without_peft_the_extra_is_named(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"featx\[lora\]"):
        check_adapters(tiny)


def test_a_network_without_adapters_is_merged_as_it_is(tiny):
    before = tiny.network.state_dict()
    merge_adapters(tiny.network)
    assert list(tiny.network.state_dict()) == list(before)
