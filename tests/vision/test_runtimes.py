"""Runtimes: the same features from PyTorch, its compiler, OpenVINO and ONNX Runtime; refusals that name another one."""

import builtins
import os
import shutil
import subprocess
import sys

import pytest
import torch
import torchvision
from torch import nn

from featx.errors import MissingExtraError, UnknownNameError, UsageError
from featx.spec import FeatureRequest
from featx.vision import runtimes, torch_runtime
from featx.vision.backbones import load_backbone
from featx.vision.embed import Embedder
from featx.vision.packed import can_pack
from featx.vision.runtimes import RUNTIMES, make_runtime
from featx.vision.task import Task

FAMILIES = [
    "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2",
    "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t",
    "vgg11_bn", "vit_b_32", "convnext_tiny",
]  # fmt: skip


def backbone_of(name, **request):
    return load_backbone(FeatureRequest(backbone=name, weights="random", **request))


def need(runtime):
    module = {"openvino": "openvino", "onnxruntime": "onnxruntime"}.get(runtime)
    if module is not None:
        pytest.importorskip(module)
    if runtime == "compile" and shutil.which("g++") is None:
        pytest.skip("needs a C++ compiler")


def plain_features(backbone, images):
    """Of the network as torchvision built it, without any of featx's runtimes."""
    with torch.inference_mode():
        return Task.of([backbone], "cpu").plain(images)[0][0]


def assert_agree(features, expected):
    """To promise 1 of the design for another runtime."""
    assert features.shape == expected.shape
    assert features.dtype == torch.float32
    difference = (features - expected).double()
    assert difference.abs().max() <= 1e-3 * expected.std()
    centre = expected.double().mean(0)
    cosines = nn.functional.cosine_similarity(features.double() - centre, expected.double() - centre, eps=0)
    assert cosines.min() >= 0.99999


def assert_runtime_agrees(name, backbone, n=5):
    runtime = make_runtime(name, [backbone], "cpu")
    assert runtime.name == name
    images = runtime.task.probe(n)
    with torch.inference_mode():
        (features,), scores = runtime(images)
        alone = torch.cat([runtime(image)[0][0] for image in images.split(1)])
        again = runtime(images)[0][0]
    assert scores is None
    assert_agree(features, plain_features(backbone, images))
    assert (alone - features).abs().max() <= 1e-4 * features.std()
    assert torch.equal(again, features)


@pytest.mark.parametrize(
    "name", ["torch", *(pytest.param(name, marks=pytest.mark.slow) for name in ("openvino", "onnxruntime"))]
)
def test_a_runtime_agrees_with_the_plain_network_in_any_batch(name):
    need(name)
    assert_runtime_agrees(name, backbone_of("featx-mini"))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["torch", "openvino", "onnxruntime"])
def test_every_family_agrees_with_the_plain_network(name, family):
    need(name)
    assert_runtime_agrees(name, backbone_of(family), n=3)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["featx-mini", "resnet18"])
def test_the_compiler_agrees_with_the_plain_network(family):
    need("compile")
    assert_runtime_agrees("compile", backbone_of(family), n=3)


@pytest.mark.parametrize("family", ["squeezenet1_1", "mobilenet_v3_small"])
def test_torch_runs_other_networks_as_graphs_with_class_scores_and_several_readings(family):
    backbone = backbone_of(family, with_logits=True)
    other = load_backbone(FeatureRequest(backbone=family, weights="random", node="features.1"))
    runtime = make_runtime("torch", [backbone, other], "cpu")
    images = runtime.task.probe(3)
    with torch.inference_mode():
        features, scores = runtime(images)
        expected, expected_scores = runtime.task.plain(images)
    assert_agree(features[0], expected[0])
    assert_agree(features[1], expected[1])
    assert_agree(scores, expected_scores)


def test_the_weights_given_are_the_weights_used():
    images = Task.of([backbone_of("featx-mini")], "cpu").probe(2)
    network = backbone_of("featx-mini")
    with torch.no_grad():
        network.network.stage4.conv2[0].weight.mul_(2.0)
    with torch.inference_mode():
        changed = make_runtime("torch", [network], "cpu")(images)[0][0]
        plain = make_runtime("torch", [backbone_of("featx-mini")], "cpu")(images)[0][0]
    assert not torch.allclose(changed, plain, rtol=0.01)
    assert_agree(changed, plain_features(network, images))


def test_auto_is_one_of_the_others_and_says_which():
    for n_images in (None, 1, 10**9):
        assert make_runtime("auto", [backbone_of("featx-mini")], "cpu", n_images=n_images).name in RUNTIMES


def test_auto_takes_openvino_for_long_runs_of_the_networks_that_it_runs_faster(monkeypatch):
    made = []

    class Named(torch_runtime.TorchRuntime):
        name = "openvino"

    def record(task):
        made.append(task.backbone)
        if len(made) > 2:
            raise UsageError("cannot take it")
        return Named(task)

    monkeypatch.setattr(runtimes, "_openvino", record)
    monkeypatch.setattr(runtimes, "find_spec", lambda name: object())
    monkeypatch.setitem(runtimes._OPENVINO_FROM, "featx-mini", 100)
    backbone = backbone_of("featx-mini")
    assert [make_runtime("auto", [backbone], "cpu", n_images=n).name for n in (None, 99, 100)] == [
        "torch", "torch", "openvino",
    ]  # fmt: skip
    assert make_runtime("auto", [backbone_of("squeezenet1_1")], "cpu", n_images=10**9).name == "torch"
    assert make_runtime("auto", [backbone_of("featx-mini", dtype="bfloat16")], "cpu", n_images=100).name == "torch"
    monkeypatch.setattr(Named, "__call__", lambda self, images: ([self.task.plain(images)[0][0] * 1.1], None))
    assert make_runtime("auto", [backbone], "cpu", n_images=100).name == "torch"  # it does not agree
    assert make_runtime("auto", [backbone], "cpu", n_images=100).name == "torch"  # it cannot take it
    assert made == ["featx-mini"] * 3
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    assert make_runtime("auto", [backbone], "cpu", n_images=100).name == "torch"
    assert len(made) == 3


def test_the_embedder_says_what_runs():
    need("openvino")
    assert Embedder(backbone_of("featx-mini"), device="cpu").runtime in RUNTIMES
    assert Embedder(backbone_of("featx-mini"), device="cpu", runtime="openvino").runtime == "openvino"


def test_an_unknown_runtime_is_a_usage_error_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="openvino"):
        make_runtime("openvinno", [backbone_of("featx-mini")], "cpu")


@pytest.mark.parametrize(("name", "extra"), [("openvino", "fast"), ("onnxruntime", "onnx")])
def test_a_runtime_that_is_not_installed_names_its_extra(monkeypatch, name, extra):
    real = builtins.__import__

    def missing(module, *arguments, **keywords):
        if module == name:
            raise ImportError(module)
        return real(module, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtraError, match=rf"featx\[{extra}\]"):
        make_runtime(name, [backbone_of("featx-mini")], "cpu")


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_a_runtime_that_cannot_take_a_dtype_names_one_that_can(name):
    need(name)
    with pytest.raises(UsageError, match="--runtime torch"):
        make_runtime(name, [backbone_of("featx-mini", dtype="bfloat16")], "cpu")


def test_compile_without_a_compiler_says_so(monkeypatch):
    monkeypatch.setattr(torch_runtime.shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match=r"C\+\+ compiler.*--runtime torch"):
        make_runtime("compile", [backbone_of("featx-mini")], "cpu")


LOOKS = """
from torch import nn


class Looks(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3)))


def network():
    return Looks()
"""


def test_a_network_that_cannot_be_traced_runs_on_torch_alone(tmp_path, monkeypatch):
    (tmp_path / "looks_at_values.py").write_text(LOOKS)
    monkeypatch.chdir(tmp_path)
    backbone = load_backbone(FeatureRequest(backbone="looks_at_values:network"))
    runtime = make_runtime("auto", [backbone], "cpu")
    assert runtime.name == "torch"
    images = runtime.task.probe(3)
    with torch.inference_mode():
        assert torch.equal(runtime(images)[0][0], plain_features(backbone, images))
    for name in ("openvino", "onnxruntime", "compile"):
        need(name)
        with pytest.raises(UsageError, match="traced; take --runtime torch"):
            make_runtime(name, [backbone], "cpu")


def test_features_that_a_runtime_gets_wrong_are_refused(monkeypatch):
    class Wrong(torch_runtime.TorchRuntime):
        def __call__(self, images):
            (features,), scores = super().__call__(images)
            return [features + 0.01 * features.std()], scores

    monkeypatch.setitem(runtimes.RUNTIMES, "openvino", Wrong)
    with pytest.raises(UsageError, match="other features"):
        make_runtime("openvino", [backbone_of("featx-mini")], "cpu")


@pytest.mark.parametrize("works", ["packed", "folded", "plain"])
def test_torch_falls_back_to_what_gives_the_right_features(monkeypatch, works):
    def breaks(graph, *arguments):
        raise RuntimeError("not on this processor")

    def wrong(images):
        raise RuntimeError("no such operator")

    if works != "packed":
        monkeypatch.setattr(torch_runtime, "can_pack", lambda dtype: False)
    if works == "plain":
        monkeypatch.setattr(torch_runtime, "_folded", lambda task, graph: wrong)
    backbone = backbone_of("featx-mini")
    runtime = make_runtime("torch", [backbone], "cpu")
    images = runtime.task.probe(3)
    with torch.inference_mode():
        assert_agree(runtime(images)[0][0], plain_features(backbone, images))


def test_the_families_are_all_of_torchvisions():
    """A family that is new in torchvision is to be tried here."""
    known = {"".join(c for c in name.partition("_")[0] if c.isalpha()) for name in FAMILIES}
    known |= {"alexnet", "resnext", "wide"}  # a plain chain, and ResNets
    names = torchvision.models.list_models(module=torchvision.models)
    assert {"".join(c for c in name.partition("_")[0] if c.isalpha()) for name in names} <= known


RUN_TWICE = """
import torch
from featx.spec import FeatureRequest
from featx.vision.backbones import load_backbone
from featx.vision.runtimes import make_runtime

torch.set_num_threads(2)
run = make_runtime("torch", [load_backbone(FeatureRequest(backbone="resnet50", weights="random"))], "cpu")
with torch.inference_mode():
    print("== packed", flush=True)
    run(torch.randn(8, 3, 224, 224).contiguous(memory_format=torch.channels_last))
"""


@pytest.mark.slow
@pytest.mark.skipif(not can_pack("float32"), reason="needs oneDNN's operators")
def test_weights_are_laid_out_once_and_not_in_every_call():
    told = subprocess.run(
        [sys.executable, "-c", RUN_TWICE],
        env=os.environ | {"ONEDNN_VERBOSE": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    before, _, after = told.partition("== packed")
    assert "reorder" in before, "oneDNN tells what it does"
    assert "convolution" in after
    assert "reorder" not in after
