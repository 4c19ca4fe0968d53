import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from featx.errors import (
    DeviceMemoryError,
    ImageDecodeError,
    InputError,
    StoreWriteError,
    UnknownNameError,
    UsageError,
)
from featx.manifest.folder import read_folder
from featx.spec import FeatureRequest
from featx.vision.backbones import load_backbone
from featx.vision.engine import EngineOptions
from featx.vision.tuning import training as training_module
from featx.vision.tuning.blocks import find_blocks
from featx.vision.tuning.checkpoint import Checkpoint
from featx.vision.tuning.epochs import LossError, blend
from featx.vision.tuning.images import ImageReader, epoch_order, epoch_views
from featx.vision.tuning.l2sp import Anchor
from featx.vision.tuning.mixing import mix
from featx.vision.tuning.network import TunedNetwork
from featx.vision.tuning.optimisation import Optimisation
from featx.vision.tuning.recipe import HEAD_SGD, Recipe
from featx.vision.tuning.training import Training, class_weights, network_values

N, C = 12, 2
QUICK = Recipe(epochs=2, batch_size=4, lr=1e-3, patience=0)


def fresh():
    return load_backbone(FeatureRequest(backbone="featx-mini"))


def tuned_network(backbone, seed=0):
    rng = np.random.default_rng(seed)
    return TunedNetwork(backbone, 0.01 * rng.normal(size=(C, backbone.spec.n_features)), np.zeros(C))


def train(backbone, reader, part, recipe=QUICK, *, resume=False, **more):
    network = tuned_network(backbone)
    return Training(network, reader, part, recipe, n_classes=C, **more).run(resume=resume)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---- the network


@pytest.mark.parametrize("unit_length", [False, True])
def test_it_gives_the_heads_values_of_the_backbones_features(backbone, reader, part, unit_length):
    from featx.vision.places import read_features

    images = next(reader.batches(part.positions, N)).images
    with torch.inference_mode():
        features, _ = read_features(backbone.network, images, backbone.node, backbone.spec.pooling, with_scores=False)
    rows = features.flatten(1).double().numpy()
    coef = np.random.default_rng(1).normal(size=(C, rows.shape[1]))
    if unit_length:
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    network = TunedNetwork(backbone, coef, np.array([1.0, -1.0]), unit_length=unit_length).eval()
    with torch.inference_mode():
        np.testing.assert_allclose(network(images), rows @ coef.T + [1.0, -1.0], rtol=1e-4, atol=1e-4)


def test_batch_norms_keep_their_statistics(backbone, reader, part):
    norms = [module for module in backbone.network.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
    assert norms
    train(backbone, reader, part)
    for norm, (mean, variance) in zip(norms, before, strict=True):
        assert torch.equal(norm.running_mean, mean)
        assert torch.equal(norm.running_var, variance)


@pytest.mark.parametrize(
    ("name", "first", "last", "n"),
    [
        ("resnet18", ("conv1.", "bn1."), "layer4.", 5),
        ("mobilenet_v2", "features.0.", "features.18.", 19),
        (
            "vit_b_16",
            ("conv_proj.", "class_token", "encoder.pos"),
            ("encoder.layers.encoder_layer_11.", "encoder.ln."),
            13,
        ),
        ("featx-mini", "", "", None),
    ],
)
def test_blocks_lie_in_the_order_of_their_use(name, first, last, n):
    backbone = load_backbone(FeatureRequest(backbone=name, weights="random"))
    network = TunedNetwork(backbone, np.zeros((2, backbone.spec.n_features)), np.zeros(2))
    blocks = find_blocks(network)
    names = [name for block in blocks for name in block]
    assert sorted(names) == sorted(network.used())
    assert len(names) == len(set(names))
    assert all(one.startswith(first) for one in blocks[0])
    assert all(one.startswith(last) for one in blocks[-1])
    assert n is None or len(blocks) == n


# ---- L2-SP


def test_one_step_of_l2sp_is_what_a_hand_computes():
    weight = torch.tensor([1.0, -2.0])
    anchor = Anchor([weight], [torch.tensor([0.0, 1.0])], alpha=3.0)
    anchor.pull(lr=0.5)
    torch.testing.assert_close(weight, torch.tensor([1.0 / 2.5, (-2.0 + 1.5) / 2.5]))


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_huge_alpha_returns_the_start_and_alpha_0_is_plain_training(backbone, reader, part, optimiser):
    start = tuned_network(backbone).state()
    held = dataclasses.replace(
        QUICK, optimiser=optimiser, l2sp=1e12, l2sp_beta=1e12, l2sp_all=True, warmup=0.0, schedule="constant"
    )
    state = train(backbone, reader, part, held).state
    for name, tensor in start.items():
        torch.testing.assert_close(state[name].float(), tensor.float(), rtol=0, atol=1e-6)


def test_alpha_0_is_plain_training_with_torchs_own_optimiser(backbone, reader, part):
    plain = dataclasses.replace(
        QUICK, optimiser="sgd", epochs=1, batch_size=N, schedule="constant", warmup=0.0, clip=0.0,
        l2sp=0.0, l2sp_beta=0.0, layer_decay=1.0, images="none",
    )  # fmt: skip
    other = copy.deepcopy(backbone.network)
    state = train(backbone, reader, part, plain).state
    network = tuned_network(dataclasses.replace(backbone, network=other)).train()
    torch_optimiser = torch.optim.SGD(network.parameters(), lr=plain.lr, momentum=plain.momentum)
    order = epoch_order(N, 0, 1)
    batch = next(reader.batches(part.positions[order], N))
    nn.functional.cross_entropy(network(batch.images), torch.from_numpy(part.codes[order])).backward()
    torch_optimiser.step()
    for name, tensor in network.state().items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-5, atol=1e-7)


def test_the_distance_from_the_start_is_smaller_with_l2sp(backbone, reader, part):
    def distance(alpha):
        again = dataclasses.replace(backbone, network=copy.deepcopy(backbone.network))
        return train(again, reader, part, dataclasses.replace(QUICK, l2sp=alpha)).history[-1].distance

    assert 0 < distance(100.0) < 0.9 * distance(0.0)


# ---- what is trained


def test_the_head_alone(backbone, reader, part):
    before = copy.deepcopy(backbone.network.state_dict())
    tuned = train(backbone, reader, part, dataclasses.replace(HEAD_SGD, epochs=2, batch_size=4))
    start = tuned_network(backbone).state()
    assert same(before, backbone.network.state_dict())
    assert not torch.equal(tuned.state["head.weight"], start["head.weight"])


def test_the_last_block_alone(backbone, reader, part):
    network = tuned_network(backbone)
    last = {f"network.{name}" for name in find_blocks(network)[-1]}
    start = network.state()
    state = train(backbone, reader, part, dataclasses.replace(QUICK, train="last-block")).state
    changed = {name for name in start if not torch.equal(start[name], state[name])}
    assert changed == last | {"head.weight", "head.bias"}


def test_gradual_unfreezing_opens_blocks_from_the_last_to_the_first():
    recipe = dataclasses.replace(QUICK, unfreeze=0.5)
    assert [recipe.n_open(step, 20, 5) for step in range(20)] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5] + [5] * 10
    assert [QUICK.n_open(step, 20, 5) for step in range(20)] == [5] * 20


def test_closed_blocks_stay_where_they_are(backbone, reader, part):
    network = tuned_network(backbone)
    first = f"network.{find_blocks(network)[0][0]}"
    start = network.state()[first]
    step = Optimisation(network, dataclasses.replace(QUICK, unfreeze=1.0, weight_decay=1.0), 100, np.ones(C))
    batch = next(reader.batches(part.positions, 4))
    step.take_step(batch.images, part.codes[:4])
    assert torch.equal(network.state()[first], start)
    assert not torch.equal(network.state()["head.weight"], tuned_network(backbone).state()["head.weight"])


def test_what_cannot_be_trained_is_refused(backbone, reader, part):
    with pytest.raises(UnknownNameError):
        train(backbone, reader, part, dataclasses.replace(QUICK, train="everything"))


# ---- the frozen lower part


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", pytest.param("vit_b_16", marks=pytest.mark.slow), "featx-mini"]
)
@pytest.mark.parametrize("what", ["head", "last-block"])
def test_both_halves_together_are_the_network(name, what):
    backbone = load_backbone(FeatureRequest(backbone=name, weights="random"))
    network = TunedNetwork(backbone, np.ones((2, backbone.spec.n_features)), np.zeros(2)).eval()
    step = Optimisation(network, dataclasses.replace(QUICK, train=what), 10, np.ones(2))
    images = torch.randn(2, 3, *backbone.spec.preprocess.crop, generator=torch.Generator().manual_seed(0))
    assert network.freeze_below(step.trained())
    with torch.inference_mode():
        kept = network.lower(images)
        torch.testing.assert_close(network.from_lower(kept), network(images))
        assert all(len(tensor) == 2 for tensor in kept)


def test_keeping_what_frozen_layers_give_changes_nothing(backbone, reader, part, monkeypatch):
    recipe = dataclasses.replace(QUICK, train="last-block", epochs=3, views=2)
    training = Training(tuned_network(backbone), reader, part, recipe, n_classes=C)
    kept = training.run()
    assert (training.kept.hits, training.kept.misses) == (N, 2 * N)
    assert training.kept.size > 0
    monkeypatch.setattr(training_module, "_KEPT_SHARE", 0.0)
    again = Training(tuned_network(fresh()), reader, part, recipe, n_classes=C)
    computed = again.run()
    assert (again.kept.hits, again.kept.misses, again.kept.size) == (0, 3 * N, 0)
    for name, tensor in kept.state.items():
        torch.testing.assert_close(computed.state[name], tensor, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(Recipe, "keeps_lower", False)
    whole = train(fresh(), reader, part, recipe)
    for name, tensor in kept.state.items():
        torch.testing.assert_close(whole.state[name], tensor, rtol=1e-4, atol=1e-6)


# ---- schedules and steps


def test_learning_rates_of_the_schedules():
    cosine = dataclasses.replace(QUICK, schedule="cosine", warmup=0.2)
    assert [round(cosine.factor(step, 10), 3) for step in range(3)] == [0.5, 1.0, 1.0]
    assert cosine.factor(6, 10) == pytest.approx(0.5)
    step = dataclasses.replace(QUICK, schedule="step", warmup=0.0)
    assert [step.factor(i, 9) for i in (0, 3, 6)] == pytest.approx([1.0, 0.1, 0.01])


@pytest.mark.parametrize("n", [1, 3])
def test_a_step_in_parts_is_the_whole_step(backbone, reader, part, n):
    batch = next(reader.batches(part.positions, N))
    states = []
    for size in (N, n):
        network = tuned_network(dataclasses.replace(backbone, network=copy.deepcopy(backbone.network)))
        step = Optimisation(network, dataclasses.replace(QUICK, warmup=0.0, optimiser="sgd"), 10, np.array([1.0, 3.0]))
        step.micro_batch = size
        step.take_step(batch.images, part.codes)
        states.append(network.state())
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-4, atol=1e-6)


def test_too_little_memory_halves_the_micro_batch(backbone, reader, part, monkeypatch):
    network = tuned_network(backbone)
    step = Optimisation(network, QUICK, 10, np.ones(C))
    forward = type(network).forward

    def greedy(self, images):
        if len(images) > 3:
            raise torch.OutOfMemoryError("too much")
        return forward(self, images)

    monkeypatch.setattr(type(network), "forward", greedy)
    batch = next(reader.batches(part.positions, N))
    record = step.take_step(batch.images, part.codes)
    assert np.isfinite(record.loss)
    assert step.micro_batch <= 3


def test_too_little_memory_for_a_batch_of_plain_images_asks_for_parts_of_it(backbone, reader, part, monkeypatch):
    network = tuned_network(backbone)
    whole = network_values(network, reader, part.positions, N)
    forward, most = type(network).forward, 3

    def greedy(self, images):
        if len(images) > most:
            raise torch.OutOfMemoryError("too much")
        return forward(self, images)

    monkeypatch.setattr(type(network), "forward", greedy)
    np.testing.assert_allclose(network_values(network, reader, part.positions, N), whole, atol=1e-5)
    most = 0
    with pytest.raises(DeviceMemoryError, match="even one image"):
        network_values(network, reader, part.positions, N)


def test_weights_of_classes():
    np.testing.assert_allclose(class_weights(np.array([0, 0, 0, 1]), 2, "balanced"), [4 / 6, 2.0])
    np.testing.assert_allclose(class_weights(np.array([0, 0, 0, 1]), 2, None), [1.0, 1.0])


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixtures_hold_their_labels_by_their_shares(kind):
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 32, 32).contiguous()
    targets = torch.eye(6)
    mixed, labels = mix(images, targets, dataclasses.replace(QUICK, **{kind: 1.0}), step=3)
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(6))
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), labels @ torch.arange(6.0), rtol=1e-4, atol=1e-4)
    again, _ = mix(images, targets, dataclasses.replace(QUICK, **{kind: 1.0}), step=3)
    assert torch.equal(mixed, again)


# ---- images


def test_views_depend_on_sample_and_epoch_alone():
    kinds = ("crop", "flip", "turn", "rotate", "colour")
    one = list(epoch_views(np.array([3, 5]), kinds, 0, 1))
    assert list(epoch_views(np.array([5, 3]), kinds, 0, 1)) == one[::-1]
    assert list(epoch_views(np.array([3, 5]), kinds, 0, 2)) != one
    assert list(epoch_views(np.array([3]), (), 0, 1)) == ["plain"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_apply_the_views_that_are_asked_for(manifest, backbone, num_workers):
    with ImageReader(manifest, backbone.spec, EngineOptions(num_workers=num_workers)) as reader:
        plain, mirrored = (
            next(reader.batches(np.arange(4), 4, views)).images for views in (None, ["hflip", "plain"] * 2)
        )
    torch.testing.assert_close(mirrored[0], plain[0].flip(2))
    assert torch.equal(mirrored[1], plain[1])


def test_an_image_that_cannot_be_read_is_named(tmp_path, backbone):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    broken = ImageReader(read_folder(tmp_path), backbone.spec, EngineOptions(num_workers=0))
    with broken as reader, pytest.raises(ImageDecodeError) as caught:
        next(reader.batches([0], 1))
    assert caught.value.key == "a/broken.png"


# ---- over epochs


def test_the_same_recipe_gives_the_same_weights_and_another_seed_others(backbone, reader, part):
    def run(**changes):
        again = dataclasses.replace(backbone, network=copy.deepcopy(backbone.network))
        return train(again, reader, part, dataclasses.replace(QUICK, **changes)).state

    one = run()
    assert same(one, run())
    assert not same(one, run(random_state=1))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"optimiser": "sgd", "mixup": 0.2},
        pytest.param({"ema": 0.9, "unfreeze": 0.5}, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_training_gives_the_same_weights_bit_for_bit(tmp_path, backbone, reader, part, changes):
    recipe = dataclasses.replace(QUICK, epochs=3, **changes)
    checkpoint = Checkpoint(tmp_path / "x.pt", {"a": 1})

    def again():
        return dataclasses.replace(backbone, network=copy.deepcopy(backbone.network))

    whole = train(again(), reader, part, recipe, validate=part)

    def stop(progress):
        if progress.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(again(), reader, part, recipe, validate=part, checkpoint=checkpoint, progress=stop)
    seen = []
    resumed = train(
        again(), reader, part, recipe, validate=part, checkpoint=checkpoint, resume=True,
        progress=lambda progress: seen.append(progress.epoch),
    )  # fmt: skip
    assert set(seen) == {3}
    assert same(resumed.state, whole.state)
    assert [dataclasses.replace(epoch, images_per_second=None) for epoch in resumed.history] == [
        dataclasses.replace(epoch, images_per_second=None) for epoch in whole.history
    ]


def test_another_trainings_checkpoint_and_a_damaged_one_are_refused(tmp_path):
    path = tmp_path / "x.pt"
    assert Checkpoint(path, {}).load() is None
    Checkpoint(path, {"a": 1}).save({"x": torch.ones(2)})
    assert torch.equal(Checkpoint(path, {"a": 1}).load()["x"], torch.ones(2))
    with pytest.raises(InputError, match="another training"):
        Checkpoint(path, {"a": 2}).load()
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match="damaged"):
        Checkpoint(path, {"a": 1}).load()


def test_a_disk_that_is_too_small_is_noticed_before(tmp_path):
    with pytest.raises(StoreWriteError, match="MiB left"):
        Checkpoint(tmp_path / "x.pt", {}).check_space(2**60)


def test_a_loss_that_is_not_finite_ends_with_the_names_of_the_samples(manifest, backbone, reader, part):
    with torch.no_grad():
        next(iter(backbone.network.parameters())).fill_(float("nan"))
    with pytest.raises(LossError) as caught:
        train(backbone, reader, part)
    assert (caught.value.epoch, caught.value.step, caught.value.checkpoint) == (1, 1, "")
    expected = [manifest.keys[i] for i in epoch_order(N, 0, 1)[:4]]
    assert caught.value.keys == expected
    assert all(repr(key) in str(caught.value) for key in expected)


def test_a_loss_that_is_not_finite_leaves_the_last_good_epoch_behind(tmp_path, backbone, reader, part):
    network = tuned_network(backbone)
    checkpoint = Checkpoint(tmp_path / "x.pt", {})

    def spoil(progress):
        if progress.epoch == 2:
            with torch.no_grad():
                network.head.weight.fill_(float("inf"))

    with pytest.raises(LossError, match="after epoch 1") as caught:
        Training(network, reader, part, QUICK, n_classes=C, checkpoint=checkpoint, progress=spoil).run()
    assert caught.value.checkpoint == str(checkpoint.path)
    assert caught.value.epoch == 2
    kept = checkpoint.load()
    assert len(kept["history"]) == 2
    assert all(tensor.isfinite().all() for tensor in kept["network"].values() if tensor.is_floating_point())


def test_the_start_is_kept_where_nothing_is_better(backbone, reader, part):
    scores = iter([(1.0, 0.0), (0.5, 0.0), (0.5, 0.0)])
    tuned = train(backbone, reader, part, validate=part, score=lambda values, codes: next(scores))
    assert tuned.best_epoch == 0
    assert same(tuned.state, tuned_network(load_backbone(FeatureRequest(backbone="featx-mini"))).state())


def test_patience_ends_training(backbone, reader, part):
    recipe = dataclasses.replace(QUICK, epochs=10, patience=2)
    tuned = train(backbone, reader, part, recipe, validate=part, score=lambda values, codes: (0.5, 0.0))
    assert len(tuned.history) == 3


def test_the_best_of_the_way_from_start_to_tuned_is_taken(backbone, reader, part):
    start = tuned_network(backbone).state()
    scores = iter([(0.1, 0.0), (0.2, 0.0), (0.3, 0.0), (0.4, 0.0), (0.9, 0.0), (0.4, 0.0)])
    tuned = train(backbone, reader, part, validate=part, score=lambda values, codes: next(scores))
    assert (tuned.best_epoch, tuned.blend) == (2, 0.5)
    end = train(
        dataclasses.replace(backbone, network=load_backbone(FeatureRequest(backbone="featx-mini")).network),
        reader,
        part,
    )
    expected = blend(start, end.state, 0.5)
    for name, tensor in tuned.state.items():
        torch.testing.assert_close(tensor, expected[name])


def test_training_learns(backbone, reader, part):
    tuned = train(backbone, reader, part, dataclasses.replace(QUICK, epochs=6, images="none"), validate=part)
    assert tuned.history[-1].validation > tuned.history[0].validation or tuned.history[0].validation == 1.0
    losses = [epoch.loss for epoch in tuned.history[1:]]
    assert losses[-1] < losses[0]


def test_recipes_refuse_what_they_do_not_take():
    for wrong in ({"lr": -1.0}, {"epochs": -1}, {"warmup": 2.0}, {"class_weight": "x"}, {"lr": float("nan")},
                  {"lr": float("inf")}, {"layer_decay": 0.0}, {"label_smoothing": 1.0}):  # fmt: skip
        with pytest.raises(UsageError):
            dataclasses.replace(QUICK, **wrong)
    for wrong in ({"optimiser": "adam"}, {"schedule": "x"}, {"images": "holiday"}, {"dtype": "int8"}):
        with pytest.raises(UnknownNameError):
            dataclasses.replace(QUICK, **wrong)
