"""bfloat16: rounded weights whose windows keep their sums, and modules that stay in float32."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from featx.spec import FeatureRequest
from featx.vision.backbones import load_backbone
from featx.vision.embed import Embedder
from featx.vision.graph import fold_batch_norms
from featx.vision.images import open_rgb, preprocess_pixels
from featx.vision.packed import PackedConvolution, can_pack, pack_graph
from featx.vision.precision import bfloat16_gain, processor_has_bfloat16, round_weights
from featx.vision.task import Task
from featx.vision.torch_runtime import Exact, keep_exact

SHARED = Path(__file__).parents[2] / "../shared"
WEIGHTS = SHARED / "weights" / "mobilenet_v2-imagenet1k.pth"


def graph_of(name="featx-mini", **request):
    return Task.of([load_backbone(FeatureRequest(backbone=name, weights="random", **request))], "cpu").graph()


def convolutions(graph):
    return [module for module in graph.modules() if isinstance(module, nn.Conv2d)]


def test_rounded_weights_are_bfloat16_numbers_near_the_exact_ones_and_each_window_keeps_its_sum():
    exact, rounded = graph_of(), round_weights(graph_of(), ())
    assert len(convolutions(rounded)) == len(convolutions(exact))
    for before, after in zip(convolutions(exact), convolutions(rounded), strict=True):
        was, now = before.weight.double(), after.weight.double()
        if before.kernel_size == (1, 1):
            assert torch.equal(was, now)
            continue
        nearest = was.bfloat16().double()
        assert torch.equal(now, now.bfloat16().double())
        size = was.abs().amax((2, 3), keepdim=True)
        assert ((now - was).abs() <= size * 2**-7).all()
        lost, lost_by_nearest = ((values - was).sum((2, 3)).abs().mean() for values in (now, nearest))
        assert lost < lost_by_nearest / 10


def test_modules_that_stay_exact_keep_weights_and_dtype():
    graph = graph_of()
    names = ("stem", "stage2.0.conv1")
    rounded = round_weights(graph, names)
    same = [torch.equal(a.weight, b.weight) for a, b in zip(convolutions(graph), convolutions(rounded), strict=True)]
    assert same.count(True) == 3 + sum(c.kernel_size == (1, 1) for c in convolutions(graph))
    packed = pack_graph(rounded, torch.bfloat16, names)
    dtypes = [module.dtype for module in packed.modules() if isinstance(module, PackedConvolution)]
    assert dtypes.count(torch.float32) == 3
    assert len(dtypes) == len(convolutions(graph))
    kept = keep_exact(rounded, names, torch.device("cpu"))
    # In the stem two convolutions and the ReLUs after them.
    assert sum(isinstance(module, Exact) for module in kept.modules()) == 5


@pytest.mark.skipif(not can_pack("bfloat16"), reason="this processor has no packed weights in bfloat16")
def test_packed_or_under_autocast_the_numbers_are_those_of_bfloat16():
    names, images = ("stem",), torch.randn(4, 3, 128, 128)
    graph = round_weights(graph_of(), names)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        one = keep_exact(pack_graph(graph, torch.bfloat16, names), names, torch.device("cpu"))(images)[0]
        other = keep_exact(graph, names, torch.device("cpu"))(images)[0]
    with torch.inference_mode():
        exact = graph_of()(images)[0]
    assert 0 < (one - other).abs().max() / exact.std() < 0.03
    assert (one - exact).abs().max() / exact.std() < 0.03


def test_the_spec_names_the_modules_that_stay_in_float32():
    def modules(backbone, **request):
        return load_backbone(FeatureRequest(backbone=backbone, weights="random", **request)).spec.float32_modules

    assert modules("mobilenet_v2", dtype="bfloat16") == ("features.0", "features.1")
    assert modules("mobilenet_v2") == modules("featx-mini", dtype="bfloat16") == ()


def test_a_gain_is_offered_where_the_processor_has_bfloat16_and_the_family_was_measured(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "avx2": True}, raising=False)
    assert processor_has_bfloat16()
    assert 1 < bfloat16_gain("resnet18", "cpu") < 3
    assert bfloat16_gain("resnet18", "cuda") is None
    assert bfloat16_gain("package.module:function", "cpu") is None
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False}, raising=False)
    assert bfloat16_gain("resnet18", "cpu") is None
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert bfloat16_gain("resnet18", "cpu") is None


def centred_cosines(features, exact):
    mine, its = (values - exact.mean(0) for values in (features, exact))
    return (mine * its).sum(1) / np.linalg.norm(mine, axis=1) / np.linalg.norm(its, axis=1)


@pytest.mark.slow
@pytest.mark.skipif(not WEIGHTS.exists(), reason="needs ../shared")
def test_real_features_of_mobilenet_v2_in_bfloat16_are_near_those_of_float32():
    paths = sorted((SHARED / "data" / "hymenoptera").glob("*/*/*"))[::8]
    exact = load_backbone(FeatureRequest(backbone="mobilenet_v2", weights=str(WEIGHTS)))
    low = load_backbone(FeatureRequest(backbone="mobilenet_v2", weights=str(WEIGHTS), dtype="bfloat16"))
    plain = replace(low, spec=replace(low.spec, float32_modules=()))
    pixels = np.stack([preprocess_pixels(open_rgb(path.read_bytes())[0], exact.spec.preprocess) for path in paths])
    features, ours, without = (Embedder(backbone, device="cpu")(pixels)[0] for backbone in (exact, low, plain))
    cosines = centred_cosines(ours, features)
    # Packed layers round less often than those that PyTorch has for processors without bfloat16.
    usual, lowest = (0.999, 0.998) if can_pack("bfloat16") else (0.998, 0.996)
    assert np.median(cosines) > usual
    assert cosines.min() > lowest
    assert np.median(cosines) > np.median(centred_cosines(without, features))


def test_weights_are_rounded_behind_folded_batch_norms():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)).eval()
    network[1].running_var.fill_(3.0)
    from torch import fx

    rounded = round_weights(fold_batch_norms(fx.symbolic_trace(network)), ())
    (convolution,) = convolutions(rounded)
    assert torch.equal(convolution.weight, convolution.weight.bfloat16().float())
