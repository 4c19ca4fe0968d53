"""Several devices: the features of one, in order, however uneven they are; a failing one is named."""

import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from featx.errors import DeviceError, UsageError
from featx.spec import FeatureRequest, FeatureSpec, Preprocess
from featx.vision import nodes
from featx.vision.backbones import Backbone, load_backbone
from featx.vision.embed import Embedder
from featx.vision.multi_device import MultiDeviceEmbedder, make_embedder

PREPROCESS = Preprocess(resize=(8,), crop=(8, 8), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


class Means(nn.Module):
    """Each copy has its own delay, and says which threads used it."""

    def __init__(self):
        super().__init__()
        self.delay, self.threads, self.sizes, self.error = 0.0, set(), [], None

    def forward(self, x):
        self.threads.add(threading.get_ident())
        self.sizes.append(len(x))
        time.sleep(self.delay)
        if self.error is not None:
            raise self.error
        return x.mean(dim=(2, 3))


def backbone_of(network):
    traced = nodes.trace(network, (8, 8), meta=False)
    node = nodes.default_node(traced)
    spec = FeatureSpec("tiny", "own", "", node.name, "none", node.shape, PREPROCESS)
    return Backbone(spec, network, node, traced.n_classes)


def team_of(*delays):
    team = MultiDeviceEmbedder(backbone_of(Means()), devices=["cpu"] * len(delays))
    networks = [embedder.backbone.network for embedder in team._embedders]
    for network, delay in zip(networks, delays, strict=True):
        network.delay = delay
        network.sizes.clear()
        network.threads.clear()
    return team, networks


def batch_of(value, n=2):
    return np.full((n, 3, 8, 8), value, np.uint8)


def test_uneven_devices_take_turns_and_results_are_in_order():
    team, networks = team_of(0.03, 0.0, 0.01)
    pending = [team.submit(batch_of(i, n=1 + i % 4)) for i in range(12)]
    for i, each in enumerate(pending):
        features, logits = each.result()
        assert features == pytest.approx(np.full((1 + i % 4, 3), i / 255))
        assert logits is None
    for turn, network in enumerate(networks):
        assert network.sizes == [1 + i % 4 for i in range(turn, 12, 3)]
    used = [network.threads for network in networks]
    assert all(len(threads) == 1 for threads in used)
    assert len(set.union(*used)) == 3, "a thread for each device"


def test_results_may_be_asked_for_in_any_order():
    team, _ = team_of(0.0, 0.01)
    pending = [team.submit(batch_of(i)) for i in range(6)]
    for i in (5, 0, 3, 1, 4, 2, 5):
        assert pending[i].result()[0] == pytest.approx(np.full((2, 3), i / 255))


def test_buffers_are_not_given_out_again_before_their_batch_has_left_them():
    team, _ = team_of(0.005, 0.0)
    pending = []
    for i in range(8):
        buffer = team.buffer(3)
        assert buffer.shape == (3, 3, 8, 8)
        buffer[:] = i
        pending.append(team.submit(buffer))
    for i, each in enumerate(pending):
        assert each.result()[0] == pytest.approx(np.full((3, 3), i / 255))


def test_devices_work_at_the_same_time():
    team, networks = team_of(0.0, 0.0)
    together = threading.Barrier(2, timeout=10)

    def meet(module, inputs):
        together.wait()

    for network in networks:
        network.register_forward_pre_hook(meet)
    pending = [team.submit(batch_of(i)) for i in range(2)]
    assert [each.result()[0][0, 0] for each in pending] == pytest.approx([0, 1 / 255])


def test_a_failing_device_fails_its_batch_with_its_name_and_no_other():
    team, networks = team_of(0.0, 0.0)
    networks[1].error = RuntimeError("CUDA error: an illegal memory access was encountered\nmore lines")
    pending = [team.submit(batch_of(i)) for i in range(3)]
    assert pending[0].result()[0][0, 0] == 0
    with pytest.raises(DeviceError, match="device cpu failed: CUDA error: an illegal memory access") as caught:
        pending[1].result()
    assert caught.value.device == "cpu"
    assert pending[2].result()[0] == pytest.approx(np.full((2, 3), 2 / 255))


def test_features_are_those_of_one_device():
    request = FeatureRequest(backbone="featx-mini", weights="random")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 128, 128), np.uint8)
    alone = Embedder(load_backbone(request), device="cpu")
    team = make_embedder(load_backbone(request), device="cpu,cpu")
    assert (team.device, team.ahead, team.numerics) == ("cpu,cpu", 2 * alone.ahead + 1, "float32")
    pending = [team.submit(pixels[i : i + 2]) for i in (0, 2, 4)]
    expected = [alone(pixels[i : i + 2])[0] for i in (0, 2, 4)]
    for each, rows in zip(pending, expected, strict=True):
        assert np.array_equal(each.result()[0], rows)
    assert np.array_equal(team(pixels[:2])[0], expected[0])


def test_whole_images_are_dealt_out_too():
    team, networks = team_of(0.0, 0.01)
    pending = [team.submit_images([np.full((20, 30, 3), i, np.uint8)] * (i + 1)) for i in range(4)]
    for i, each in enumerate(pending):
        assert each.result()[0] == pytest.approx(np.full((i + 1, 3), i / 255))
    assert [network.sizes for network in networks] == [[1, 3], [2, 4]]


def test_one_device_needs_no_team():
    assert isinstance(make_embedder(backbone_of(Means()), device="cpu"), Embedder)


def test_a_network_that_cannot_be_copied_is_a_usage_error():
    network = Means()
    network.lock = threading.Lock()
    with pytest.raises(UsageError, match="tiny cannot be copied to several devices"):
        make_embedder(backbone_of(network), device="cpu,cpu")


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_several_gpus_give_the_features_of_one():
    request = FeatureRequest(backbone="resnet18", weights="random")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 3, 224, 224), np.uint8)
    alone = make_embedder(load_backbone(request), device="cuda:0")
    team = make_embedder(load_backbone(request), device="cuda:all")
    pending = [team.submit(pixels[i : i + 4]) for i in range(0, 64, 4)]
    for i, each in zip(range(0, 64, 4), pending, strict=True):
        assert np.array_equal(each.result()[0], alone(pixels[i : i + 4])[0])
