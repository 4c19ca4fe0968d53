"""Staging: whatever order a device does its work in, every batch gets its own results."""

import random
import threading

import numpy as np
import pytest
import torch
from deferred_lanes import DeferredLanes
from hypothesis import given, settings
from hypothesis import strategies as st

from featx.vision.staging import CudaLanes, Stager


def batch_of(value, n):
    return np.random.default_rng(value).integers(0, 256, (n, 3, 2, 2), np.uint8)


def compute(flat):
    """Two outputs of different sizes that show every byte's value and place."""
    values = flat.float()
    return [values.view(-1, 12) * torch.arange(12) + 0.5, values.sum().reshape(1)]


def expected(pixels):
    return [output.numpy() for output in compute(torch.from_numpy(pixels.reshape(-1)))]


def assert_landed(arrays, pixels):
    for array, wanted in zip(arrays, expected(pixels), strict=True):
        assert array.dtype == np.float32
        assert np.array_equal(array, wanted)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["launch", "launch parts", "launch buffer"]), st.integers(1, 5)),
        st.tuples(st.just("land"), st.integers(0, 20)),
        st.tuples(st.just("step"), st.integers(1, 9)),
    ),
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(actions=ACTIONS, choose=st.randoms(use_true_random=False), ahead=st.integers(1, 3), at_once=st.booleans())
def test_any_order_of_work_and_of_asking_gives_every_batch_its_own_results(actions, choose, ahead, at_once):
    lanes = DeferredLanes(choose, at_once=at_once)
    stager = Stager(lanes, ahead=ahead)
    flights = []
    for i, (action, n) in enumerate(actions):
        if action == "land":
            for flight, pixels in flights[n : n + 1]:
                assert_landed(stager.land(flight), pixels)
        elif action == "step":
            for _ in range(n if lanes.ready else 0):
                if lanes.ready:
                    lanes.step()
        else:
            pixels = batch_of(i, n)
            parts = [pixels]
            if action == "launch parts":
                parts = list(pixels)
            elif action == "launch buffer":
                parts = [stager.buffer(pixels.shape)]
                parts[0][:] = pixels
            flights.append((stager.launch(parts, compute), pixels))
            if action != "launch buffer":
                parts[0][...] = 0  # the caller's own array is the caller's again
                pixels = batch_of(i, n)
                flights[-1] = (flights[-1][0], pixels)
    for flight, pixels in reversed(flights):
        assert_landed(stager.land(flight), pixels)
        assert_landed(stager.land(flight), pixels)


def test_batches_are_handed_in_without_waiting_until_the_ring_is_full():
    lanes = DeferredLanes()
    stager = Stager(lanes, ahead=2)
    for i in range(3):
        stager.launch([batch_of(i, 2)], compute)
    assert (lanes.log, lanes.waits) == ([], 0)
    stager.launch([batch_of(3, 2)], compute)
    assert lanes.waits == 1
    assert "outward 0" in lanes.log, "the slot of the first batch is used again only when all of it is done"


def test_pixels_of_the_next_batches_arrive_while_the_first_is_still_computed():
    class ComputeLast(random.Random):
        def choice(self, ready):
            return min(ready, key=lambda lane: ("inward", "outward", "compute").index(lane.name))

    lanes = DeferredLanes(ComputeLast())
    stager = Stager(lanes, ahead=2)
    flights = [stager.launch([batch_of(i, 2)], compute) for i in range(3)]
    stager.land(flights[0])
    assert lanes.log == ["inward 0", "inward 1", "inward 2", "compute 0", "outward 0"]
    stager.land(flights[2])
    assert lanes.log[5:] == ["compute 1", "outward 1", "compute 2", "outward 2"]


def test_features_go_back_while_the_next_batch_is_computed():
    class OutwardLast(random.Random):
        def choice(self, ready):
            return min(ready, key=lambda lane: ("inward", "compute", "outward").index(lane.name))

    lanes = DeferredLanes(OutwardLast())
    stager = Stager(lanes, ahead=2)
    flights = [stager.launch([batch_of(i, 2)], compute) for i in range(3)]
    assert_landed(stager.land(flights[0]), batch_of(0, 2))
    assert lanes.log == ["inward 0", "inward 1", "inward 2", "compute 0", "compute 1", "compute 2", "outward 0"]


def test_results_are_arrays_of_their_own():
    stager = Stager(DeferredLanes(), ahead=1)
    first = stager.land(stager.launch([batch_of(0, 4)], compute))
    kept = [array.copy() for array in first]
    for i in range(5):
        stager.land(stager.launch([batch_of(i, 4)], compute))
    assert all(np.array_equal(a, b) for a, b in zip(first, kept, strict=True))


def test_host_memory_is_asked_for_once_for_each_slot_and_size_then_used_again():
    lanes = DeferredLanes()
    asked = []
    host_memory = lanes.host_memory
    lanes.host_memory = lambda n_bytes: asked.append(n_bytes) or host_memory(n_bytes)
    stager = Stager(lanes, ahead=2)
    for i in range(30):
        stager.land(stager.launch([batch_of(i, 4)], compute))
    assert len(asked) == 2 * 3


def test_a_buffer_is_handed_in_without_a_copy_and_outlives_a_launch_that_fails():
    lanes = DeferredLanes(at_once=True)
    stager = Stager(lanes, ahead=1)
    buffer = stager.buffer((4, 3, 2, 2))
    buffer[:] = batch_of(1, 4)

    def fail(flat):
        raise torch.OutOfMemoryError("tried to allocate")

    with pytest.raises(torch.OutOfMemoryError):
        stager.launch([buffer], fail)
    stager.recover()
    halves = [stager.launch([half], compute) for half in (buffer[:2], buffer[2:])]
    assert np.array_equal(buffer, batch_of(1, 4))
    assert_landed(stager.land(halves[0]), batch_of(1, 4)[:2])
    assert_landed(stager.land(halves[1]), batch_of(1, 4)[2:])
    assert stager.buffer((4, 3, 2, 2)).base is not None
    assert np.shares_memory(stager.buffer((4, 3, 2, 2)), buffer)


def test_recovering_lands_what_is_on_its_way_before_memory_is_given_back():
    lanes = DeferredLanes()
    stager = Stager(lanes, ahead=2)
    flights = [stager.launch([batch_of(i, 2)], compute) for i in range(3)]
    lanes.before_release = lambda: [assert_landed(flight.arrays, batch_of(i, 2)) for i, flight in enumerate(flights)]
    stager.recover()
    assert lanes.released == 1
    assert all(flight.pixels is None and not flight.outputs for flight in flights), "nothing is held on the device"
    for i, flight in enumerate(flights):
        assert_landed(stager.land(flight), batch_of(i, 2))


def test_threads_that_share_a_stager_get_their_own_results():
    stager = Stager(DeferredLanes(at_once=True), ahead=1)
    wrong = []

    def use(seed):
        for i in range(40):
            pixels = batch_of(1000 * seed + i, 1 + i % 3)
            arrays = stager.land(stager.launch([pixels], compute))
            if not all(np.array_equal(a, b) for a, b in zip(arrays, expected(pixels), strict=True)):
                wrong.append(seed)

    threads = [threading.Thread(target=use, args=[seed]) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_a_gpus_lanes_give_every_batch_its_own_results(ahead):
    stager = Stager(CudaLanes(torch.device("cuda:0")), ahead=ahead)

    def slow(flat):
        values = flat.float()
        for _ in range(30):
            torch.cuda._sleep(100_000)
        return [values.view(-1, 12) * torch.arange(12, device="cuda") + 0.5, values.sum().reshape(1)]

    flights = []
    for i in range(60):
        pixels = batch_of(i, 1 + i % 7)
        flights.append((stager.launch([pixels], slow), pixels))
        if i % 3 == 2:
            assert_landed(stager.land(flights[-2][0]), flights[-2][1])
    for flight, pixels in flights:
        assert_landed(stager.land(flight), pixels)
