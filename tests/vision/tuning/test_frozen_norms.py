"""A convolution that is one with its frozen batch norm computes, and learns, what the two do one after the other."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from featx.spec import FeatureRequest
from featx.vision.backbones import load_backbone
from featx.vision.tuning.frozen_norms import NormedConvolution
from featx.vision.tuning.network import TunedNetwork


def pair(bias, affine, groups=1):
    torch.manual_seed(0)
    convolution = nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=bias, groups=groups)
    norm = nn.BatchNorm2d(8, affine=affine)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.1, 2.0)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return nn.Sequential(convolution, norm).double().eval()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("trained", ["all", "norm", "convolution"])
def test_values_and_gradients_are_those_of_the_two(bias, affine, groups, trained):
    apart = pair(bias, affine, groups)
    apart[0].requires_grad_(trained != "norm")
    apart[1].requires_grad_(trained != "convolution")
    one = copy.deepcopy(apart)
    joined = NormedConvolution(*one)
    images = torch.randn(2, 4, 9, 9, dtype=torch.float64, requires_grad=True)
    others = images.detach().clone().requires_grad_()
    expected, found = apart(images), joined(others)
    torch.testing.assert_close(found, expected)
    (expected**3).sum().backward()
    (found**3).sum().backward()
    torch.testing.assert_close(others.grad, images.grad)
    for own, wanted in zip(one.parameters(), apart.parameters(), strict=True):
        assert (own.grad is None) == (wanted.grad is None)
        if own.grad is not None:
            torch.testing.assert_close(own.grad, wanted.grad)


def test_norms_alone_are_trained_without_a_gradient_of_weights():
    joined = NormedConvolution(*pair(False, True).requires_grad_(False))
    joined.norm.requires_grad_(True)
    found = joined(torch.randn(1, 4, 5, 5, dtype=torch.float64))
    assert found.grad_fn.name().startswith("NativeBatchNorm")


def test_a_networks_norms_are_all_joined_and_its_parameters_stay_its_own():
    backbone = load_backbone(FeatureRequest(backbone="resnet18", weights="random"))
    network = TunedNetwork(backbone, np.zeros((2, backbone.spec.n_features)), np.zeros(2))
    (graph,) = network._graph
    kinds = [type(graph.get_submodule(item.target)) for item in graph.graph.nodes if item.op == "call_module"]
    assert kinds.count(NormedConvolution) == 20
    assert nn.BatchNorm2d not in kinds
    assert not any("folded" in name for name in network.state_dict())
    own = {name for name, _ in backbone.network.named_parameters() if not name.startswith("fc.")}
    assert network.used().keys() == own
