import copy
import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from featx.manifest.folder import read_folder
from featx.spec import FeatureRequest, FeatureSpec, Preprocess
from featx.vision import nodes
from featx.vision.backbones import Backbone, load_backbone
from featx.vision.engine import EngineOptions
from featx.vision.tuning.images import ImageReader
from featx.vision.tuning.training import Part

N, C = 12, 2


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Stripes that lie or stand, in two folders."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(N):
        pixels = rng.integers(0, 80, (40, 40, 3), dtype=np.uint8)
        pixels[::4] += 120
        pixels = pixels if i % C else pixels.transpose(1, 0, 2)
        (root / str(i % C)).mkdir(exist_ok=True)
        Image.fromarray(np.ascontiguousarray(pixels)).save(root / str(i % C) / f"{i:02d}.png")
    return read_folder(root)


@pytest.fixture(scope="module")
def _mini():
    return load_backbone(FeatureRequest(backbone="featx-mini"))


@pytest.fixture
def backbone(_mini):
    return dataclasses.replace(_mini, network=copy.deepcopy(_mini.network))


@pytest.fixture
def reader(manifest, backbone):
    with ImageReader(manifest, backbone.spec, EngineOptions(num_workers=0)) as opened:
        yield opened


@pytest.fixture
def part(manifest):
    return Part(np.arange(N), np.array([int(label) for label in manifest.labels]))


def backbone_of(network, size=(24, 24)):
    """Take features from a network of one's own, as its classifier does."""
    node = nodes.default_node(nodes.trace(network, size, meta=False))
    preprocess = Preprocess(resize=size, crop=size, mean=(0.5,) * 3, std=(0.25,) * 3)
    return Backbone(FeatureSpec("tiny", "own", "", node.name, "none", node.shape, preprocess), network.eval(), node, 5)


@pytest.fixture
def make_backbone():
    return backbone_of


@pytest.fixture
def tiny():
    """Two convolutions that see lying and standing stripes."""
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU()]
    return backbone_of(nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)))
