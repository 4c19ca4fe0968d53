import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from featx.errors import UsageError
from featx.vision.engine import EngineOptions
from featx.vision.tuning import part as part_module
from featx.vision.tuning.images import ImageReader
from featx.vision.tuning.lr_range import HIGHEST, LOWEST, choose_lr, find_lr, n_test_steps, run_test
from featx.vision.tuning.network import TunedNetwork
from featx.vision.tuning.part import PartTask, PartTrainer
from featx.vision.tuning.recipe import HEAD_SGD, Recipe
from featx.vision.tuning.training import Part

N, C = 12, 2
OPEN = Recipe(epochs=1, batch_size=4, patience=0)
RATES = np.geomspace(1e-5, 10.0, 49).tolist()


@pytest.fixture
def tiny_reader(manifest, tiny):
    with ImageReader(manifest, tiny.spec, EngineOptions(num_workers=0)) as opened:
        yield opened


def network(tiny, seed=0):
    rng = np.random.default_rng(seed)
    copied = dataclasses.replace(tiny, network=copy.deepcopy(tiny.network))
    return TunedNetwork(copied, 0.01 * rng.normal(size=(C, tiny.spec.n_features)), np.zeros(C))


def task(part, tiny, manifest):
    coef = 0.01 * np.random.default_rng(0).normal(size=(C, tiny.spec.n_features))
    nothing = np.empty(0, dtype=np.int64)
    with ImageReader(manifest, tiny.spec, EngineOptions(num_workers=0)) as reader, torch.inference_mode():
        expected = network(tiny).eval()(next(reader.batches([0], 1)).images).double().numpy()
    return PartTask("1", part, None, nothing, coef, np.zeros(C), False, part.positions[:1], expected)


def quadratic(curvature, momentum):
    """Gradient descent on curvature / 2 * w^2 from 1: it diverges above 2 (1 + momentum) / curvature (Polyak 1964)."""
    weight = torch.nn.Parameter(torch.ones(()))
    optimiser = torch.optim.SGD([weight], lr=1.0, momentum=momentum)

    def take_step(lr):
        optimiser.param_groups[0]["lr"] = lr
        optimiser.zero_grad()
        loss = 0.5 * curvature * weight**2
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    return take_step


@pytest.mark.parametrize("per_decade", [4, 8])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("curvature", [1.0, 10.0, 100.0, 1000.0])
def test_on_a_quadratic_it_is_below_where_descent_diverges_and_of_its_order(curvature, momentum, per_decade):
    found = run_test(quadratic(curvature, momentum), np.geomspace(1e-5, 10.0, 6 * per_decade + 1).tolist()).lr
    limit = 2.0 * (1.0 + momentum) / curvature
    assert limit / 100 < found < limit / 2


def test_it_grows_as_the_curvature_falls():
    steep, flat = (run_test(quadratic(curvature, 0.0), RATES).lr for curvature in (100.0, 1.0))
    assert flat == pytest.approx(100 * steep, rel=0.2)


def test_it_ends_where_the_loss_has_risen():
    found = run_test(quadratic(100.0, 0.9), RATES)
    assert len(found.rates) == len(found.losses) < len(RATES)
    assert found.losses[-1] > 3 * 50.0 or not np.isfinite(quadratic(100.0, 0.9)(RATES[len(found.rates)]))


def test_a_loss_that_is_not_finite_at_once_gives_the_lowest_rate():
    assert run_test(lambda lr: float("nan"), RATES).lr == RATES[0]


def test_batches_that_differ_do_not_hide_the_fall():
    """Two batches, one with a loss that is 100 larger throughout: the same is found as with either."""
    step, turn = quadratic(10.0, 0.0), iter(range(1000))
    mixed = run_test(lambda lr: step(lr) + 100.0 * (next(turn) % 2), RATES[:40], n_batches=2)
    alone = run_test(quadratic(10.0, 0.0), RATES[:40], n_batches=2)
    assert mixed.lr == alone.lr


@given(st.lists(st.floats(-10, 10), max_size=len(RATES)))
def test_whatever_the_curve_it_lies_in_the_range_that_was_tried(losses):
    found = choose_lr(RATES, losses)
    assert RATES[0] <= found <= max(RATES[0], 0.1 * RATES[max(0, len(losses) - 1)])


def test_a_network_gets_the_same_one_again_and_another_seed_may_give_another(tiny, tiny_reader, part):
    one, again = (find_lr(network(tiny), tiny_reader, part, OPEN, n_classes=C) for _ in range(2))
    assert one == again
    assert LOWEST["adamw"] < one.lr < HIGHEST["adamw"]
    other = find_lr(network(tiny), tiny_reader, part, dataclasses.replace(OPEN, random_state=1), n_classes=C)
    assert other.losses != one.losses


def test_it_lowers_the_loss_and_ten_times_the_last_rate_does_not(tiny, tiny_reader, part):
    """On one batch of all images, with torch's own optimiser."""
    recipe = dataclasses.replace(OPEN, batch_size=N, images="none", optimiser="sgd", momentum=0.0, l2sp=0.0, clip=0.0)
    found = find_lr(network(tiny), tiny_reader, part, recipe, n_classes=C)
    images = next(tiny_reader.batches(part.positions, N)).images

    def losses(lr):
        one = network(tiny).train()
        optimiser = torch.optim.SGD(one.parameters(), lr=lr)
        for _ in range(6):
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(one(images), torch.from_numpy(part.codes))
            yield float(loss.detach())
            loss.backward()
            optimiser.step()

    assert list(losses(found.lr))[-1] < next(losses(found.lr))
    assert not list(losses(10 * found.rates[-1]))[-1] < next(losses(found.lr))


def test_the_frozen_lower_part_and_the_whole_network_find_the_same(tiny, tiny_reader, part, monkeypatch):
    recipe = dataclasses.replace(OPEN, train="last-block")
    kept = find_lr(network(tiny), tiny_reader, part, recipe, n_classes=C)
    monkeypatch.setattr(Recipe, "keeps_lower", False)
    whole = find_lr(network(tiny), tiny_reader, part, recipe, n_classes=C)
    np.testing.assert_allclose(kept.losses, whole.losses, rtol=1e-2, atol=1e-3)


def test_images_outside_the_training_part_do_not_count(tiny, tiny_reader, part, manifest):
    half = Part(part.positions[:8], part.codes[:8])
    seen = []
    batches = tiny_reader.batches
    tiny_reader.batches = lambda positions, *more: (seen.extend(positions), batches(positions, *more))[1]
    find_lr(network(tiny), tiny_reader, half, OPEN, n_classes=C)
    assert set(seen) <= set(half.positions)


def test_a_part_is_trained_with_what_is_found_and_resumed_with_the_same(tmp_path, tiny, manifest, part, monkeypatch):
    def trainer(recipe=OPEN):
        return PartTrainer(tiny, manifest, recipe, EngineOptions(num_workers=0), n_classes=C, folder=tmp_path)

    job = task(part, tiny, manifest)
    first = trainer().train(job)
    assert first.lr > LOWEST["adamw"]
    assert max(epoch.lr for epoch in first.tuned.history) <= first.lr
    fixed = trainer(dataclasses.replace(OPEN, lr=first.lr)).train(job)
    assert all(torch.equal(fixed.tuned.state[name], tensor) for name, tensor in first.tuned.state.items())
    trainer().train(job)
    monkeypatch.setattr(part_module, "find_lr", None)
    resumed = trainer().train(job, resume=True)
    assert resumed.lr == first.lr
    assert all(torch.equal(resumed.tuned.state[name], tensor) for name, tensor in first.tuned.state.items())


def test_a_recipe_with_a_learning_rate_is_not_tested(tmp_path, tiny, manifest, part):
    recipe = dataclasses.replace(HEAD_SGD, epochs=1, batch_size=4)
    trainer = PartTrainer(tiny, manifest, recipe, EngineOptions(num_workers=0), n_classes=C, folder=tmp_path)
    job = task(part, tiny, manifest)
    assert trainer.train(job).lr == HEAD_SGD.lr
    assert n_test_steps(N, recipe) == 0
    assert not list(tmp_path.glob("*.lr.pt"))


def test_the_number_of_steps_is_bounded(tiny, tiny_reader, part):
    told = []
    found = find_lr(network(tiny), tiny_reader, part, OPEN, n_classes=C, progress=told.append)
    assert 3 + len(found.rates) <= len(told) <= n_test_steps(N, OPEN) == 3 + 21
    assert [(at.step, at.n_steps, at.is_test) for at in told] == [(i, 24, True) for i in range(1, len(told) + 1)]
    assert n_test_steps(5, dataclasses.replace(OPEN, batch_size=32, optimiser="sgd")) == 1 + 25
    assert n_test_steps(320, dataclasses.replace(OPEN, batch_size=32, epochs=16)) == 4 + 41
    assert n_test_steps(320, dataclasses.replace(OPEN, batch_size=32, epochs=15)) == 4 + 21


def test_a_recipe_without_a_learning_rate_cannot_be_trained_as_it_is():
    with pytest.raises(UsageError, match="find_lr"):
        _ = OPEN.largest_lr
