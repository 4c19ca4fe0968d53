"""Batches that a thread has ready, and that go round in a ring: a device that works late gets them all the same."""

import copy
import dataclasses
import random
import threading

import numpy as np
import pytest
import torch
from deferred_lanes import DeferredLanes
from hypothesis import given
from hypothesis import strategies as st

from featx.errors import ImageDecodeError
from featx.manifest.folder import read_folder
from featx.vision.engine import EngineOptions
from featx.vision.tuning.feeding import feed, lanes_of, run_ahead
from featx.vision.tuning.images import ImageReader, epoch_views
from featx.vision.tuning.network import TunedNetwork
from featx.vision.tuning.recipe import Recipe
from featx.vision.tuning.training import Training

RECIPE = Recipe(epochs=2, batch_size=5, lr=1e-2, patience=0, mixup=0.2)
KINDS = ("crop", "flip", "colour")


# ---- a thread that is ahead


@given(n=st.integers(0, 12), ahead=st.integers(1, 4))
def test_every_item_comes_once_in_order_and_not_too_many_are_made_ahead(n, ahead):
    made = []

    def items():
        for i in range(n):
            made.append(threading.current_thread().name)
            yield i

    for place, item in enumerate(run_ahead(items(), ahead)):
        assert item == place
        assert len(made) <= place + 1 + ahead
    assert len(made) == n
    assert all(name.startswith("featx-feed") for name in made)


def test_an_error_comes_where_its_item_would_and_early_leave_ends_the_thread():
    def items():
        yield 1
        raise ZeroDivisionError

    seen = []
    with pytest.raises(ZeroDivisionError):
        seen.extend(run_ahead(items(), 2))
    running = run_ahead(iter(range(1, 100)), 2)
    assert next(running) == 1
    running.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("featx-feed")]


# ---- a ring of slots


def pixels_of(seed, n, side=3):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, side, side), dtype=np.uint8)


@given(
    seed=st.integers(0, 2**16),
    sizes=st.lists(st.integers(1, 4), max_size=9),
    ahead=st.integers(1, 3),
    at_once=st.booleans(),
)
def test_the_device_computes_with_the_bytes_of_each_batch_however_late_it_is(seed, sizes, ahead, at_once):
    lanes, seen = DeferredLanes(random.Random(seed), at_once=at_once), []
    batches = [(i, [pixels_of((seed, i, j), 1) for j in range(n)]) for i, n in enumerate(sizes)]
    for i, pixels in feed(iter(batches), lanes, ahead=ahead):
        lanes.compute.run(lambda i=i, pixels=pixels: seen.append((i, pixels.clone())))
    assert [i for i, _ in seen] == list(range(len(sizes)))
    for (_, found), (_, parts) in zip(seen, batches, strict=True):
        np.testing.assert_array_equal(found.numpy(), np.concatenate(parts))


def test_a_caller_that_stops_early_leaves_nothing_under_way():
    lanes, seen = DeferredLanes(), []
    for _, pixels in feed(((i, [pixels_of(i, 2)]) for i in range(9)), lanes):
        lanes.compute.run(lambda pixels=pixels: seen.append(pixels.clone()))
        break
    lanes.compute.mark().wait()
    np.testing.assert_array_equal(seen[0].numpy(), pixels_of(0, 2))


def test_only_a_gpu_is_fed():
    assert lanes_of("cpu") is None


# ---- images


def reader_of(manifest, spec, lanes, num_workers=0):
    return ImageReader(manifest, spec, EngineOptions(num_workers=num_workers), lanes=lanes)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_fed_reader_gives_the_same_batches_bit_for_bit(manifest, tiny, num_workers):
    order = np.random.default_rng(0).permutation(len(manifest.keys))
    found = []
    for lanes in (None, DeferredLanes(at_once=True)):
        with reader_of(manifest, tiny.spec, lanes, num_workers) as reader:
            found.append(list(reader.batches(order, 5, epoch_views(order, KINDS, 0, 1))))
    assert len(found[0]) == len(found[1]) == 3
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one.positions, other.positions)
        assert torch.equal(one.images, other.images)
        assert one.images.stride() == other.images.stride()


def test_an_image_that_cannot_be_read_is_named_from_the_thread_too(tmp_path, tiny):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with (
        reader_of(read_folder(tmp_path), tiny.spec, DeferredLanes(at_once=True)) as reader,
        pytest.raises(ImageDecodeError, match=r"a/broken\.png"),
    ):
        next(reader.batches([0], 1))


def trained(tiny, manifest, part, recipe, lanes=None):
    copied = dataclasses.replace(tiny, network=copy.deepcopy(tiny.network))
    coef = 0.01 * np.random.default_rng(0).normal(size=(2, tiny.spec.n_features))
    network = TunedNetwork(copied, coef, np.zeros(2)).to(memory_format=torch.channels_last)
    with reader_of(manifest, tiny.spec, lanes) as reader:
        return Training(network, reader, part, recipe, n_classes=2, validate=part).run()


@pytest.mark.parametrize("what", ["all", "last-block"])
def test_a_fed_training_gives_the_same_weights_bit_for_bit(tiny, manifest, part, what):
    recipe = dataclasses.replace(RECIPE, train=what, mixup=0.0 if what == "last-block" else 0.2)
    one, other = (trained(tiny, manifest, part, recipe, lanes) for lanes in (None, DeferredLanes(at_once=True)))
    assert one.history[-1].loss == other.history[-1].loss
    assert all(torch.equal(other.state[name], tensor) for name, tensor in one.state.items())
