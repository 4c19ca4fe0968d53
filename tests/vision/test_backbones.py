"""From a request to a network, its weights and its spec; and back from a spec."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision

from featx.errors import InputError, UnknownNameError, UsageError, WeightsError
from featx.spec import FeatureRequest, FeatureSpec, Preprocess
from featx.vision import mini, registry, tensors
from featx.vision.backbones import load_backbone, load_backbones, restore_backbone
from featx.vision.catalogue import list_backbones, list_nodes
from featx.vision.embed import Embedder

ONE_OF_EACH_FAMILY = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "swin_v2_t",
    "vgg16",
    "vit_b_16",
    "wide_resnet50_2",
]


def request(backbone="squeezenet1_1", weights="random", **options):
    return FeatureRequest(backbone=backbone, weights=weights, **options)


def features_of(backbone, n=2):
    height, width = backbone.spec.preprocess.crop
    pixels = np.random.default_rng(0).integers(0, 256, (n, 3, height, width), np.uint8)
    return Embedder(backbone, device="cpu")(pixels)


def save_state(path, network):
    torch.save(network.state_dict(), path)
    return str(path)


# What torchvision's registry gives.


def classifier_inputs(name):
    """The number of inputs of the classifier, read from the parameters of torchvision's own network."""
    with torch.device("meta"):
        arguments = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        network = registry.get_model_builder(name)(weights=None, **arguments)
    return [p for p in network.parameters() if p.ndim > 1 and p.shape[0] == 1000][-1].shape[1]


@pytest.mark.parametrize("name", [n for n in ONE_OF_EACH_FAMILY if not n.startswith(("regnet", "swin"))])
def test_of_each_family_the_default_node_is_the_classifiers_input(name):
    (info,) = [info for info in list_backbones(name) if info.name == name]
    (default,) = [node for node in list_nodes(name) if node.default]
    assert default.name.endswith(":input")
    assert default.shape[0] == info.n_features == classifier_inputs(name)
    assert default.poolings == (("avg", "max", "none") if name.startswith("squeezenet") else ("none",))


@pytest.mark.parametrize(
    ("name", "n_features"), [("regnet_x_400mf", 400), ("regnet_y_400mf", 440), ("swin_t", 768), ("swin_v2_t", 768)]
)
def test_the_default_node_of_networks_whose_builders_compute(name, n_features):
    (default,) = [node for node in list_nodes(name) if node.default]
    assert default.shape == (n_features,)


@pytest.mark.slow
def test_every_backbone_of_torchvision_can_be_listed_with_its_nodes():
    infos = list_backbones()
    assert [info.name for info in infos] == ["featx-mini", *registry.names()]
    for info in infos:
        (default,) = [node for node in list_nodes(info.name) if node.default]
        assert default.shape[0] == info.n_features, info.name


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_OF_EACH_FAMILY)
def test_of_each_family_features_and_scores_come_from_a_real_forward_pass(name):
    backbone = load_backbone(request(name, with_logits=True))
    features, logits = features_of(backbone)
    assert features.shape == (2, backbone.spec.n_features)
    assert logits.shape == (2, backbone.n_classes)
    classifier = backbone.network.get_submodule(backbone.node.module)
    if isinstance(classifier, torch.nn.Linear):
        with torch.inference_mode():
            again = classifier(torch.from_numpy(features)).numpy()
        np.testing.assert_allclose(again, logits, atol=1e-4 * logits.std())


def test_each_weights_member_has_its_own_preprocess_and_transformers_their_size():
    for name in registry.names():
        for member in registry.members(name):
            preprocess, transform = registry.member_preprocess(member), member.transforms()
            assert preprocess.resize == tuple(transform.resize_size)
            assert preprocess.crop == (transform.crop_size[0],) * 2
            assert preprocess.interpolation == transform.interpolation.value
            assert (preprocess.mean, preprocess.std) == (tuple(transform.mean), tuple(transform.std))
            assert preprocess.antialias
            if name.startswith("vit_"):
                assert preprocess.crop == tuple(member.meta["min_size"])


def test_random_weights_take_the_preprocess_of_the_first_member():
    assert registry.classic_preprocess("resnet50").resize == (256,)
    assert registry.member_preprocess(registry.default_member("resnet50")).resize == (232,)
    assert load_backbone(request("mobilenet_v2")).spec.preprocess == registry.classic_preprocess("mobilenet_v2")


def test_default_weights_are_a_concrete_member_and_members_have_two_spellings():
    default = registry.find_member("resnet50", "DEFAULT")
    assert str(default) == "ResNet50_Weights.IMAGENET1K_V2"
    assert registry.find_member("resnet50", "IMAGENET1K_V2") is default
    assert registry.find_member("resnet50", "ResNet50_Weights.IMAGENET1K_V2") is default


def test_the_list_tells_features_image_size_parameters_and_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    infos = {info.name: info for info in list_backbones("resnet*")}
    assert list(infos) == sorted(infos)
    assert "resnet50" in infos
    assert "wide_resnet50_2" not in infos
    resnet = infos["resnet50"]
    assert (resnet.n_features, resnet.image_size, resnet.weights) == (2048, 224, "IMAGENET1K_V2")
    assert resnet.n_parameters == registry.default_member("resnet50").meta["num_params"]
    assert not resnet.weights_here
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "resnet50-11ad3fa6.pth").touch()
    assert {i.name for i in list_backbones("resnet") if i.weights_here} == {"resnet50"}
    assert "wide_resnet50_2" in {i.name for i in list_backbones("resnet")}


def test_the_list_knows_featx_mini():
    (info,) = list_backbones("featx-mini")
    assert (info.n_features, info.image_size) == (928, 128)
    assert info.n_features == load_backbone(request("featx-mini")).spec.n_features


@pytest.mark.parametrize("name", ["resnet5O", "ResNet50", "resnet", "vgg-16"])
def test_an_unknown_backbone_lists_close_matches(name):
    for call in (lambda: load_backbone(request(name)), lambda: list_nodes(name)):
        with pytest.raises(UnknownNameError, match="did you mean") as caught:
            call()
        assert caught.value.matches
    with pytest.raises(UnknownNameError):
        list_backbones("no such thing")


@pytest.mark.parametrize("weights", ["IMAGENET1K_V3", "ResNet18_Weights.IMAGENET1K_V1", "default", "imagenet"])
def test_unknown_weights_list_what_there_is(weights):
    with pytest.raises(UnknownNameError, match=r"IMAGENET1K_V2.*random:SEED") as caught:
        load_backbone(request("resnet50", weights))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("options", [{"dtype": "float64"}, {"storage": "bfloat16"}])
def test_an_unknown_dtype_is_named(options):
    with pytest.raises(UnknownNameError, match=r"unknown (dtype|storage)"):
        load_backbone(request(**options))


# Weights.


def test_random_weights_are_seeded_on_their_own_and_leave_the_global_state(tmp_path):
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    first = load_backbone(request())
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    assert load_backbone(request("squeezenet1_1", "random:0")).spec == first.spec
    other = load_backbone(request(weights="random:1")).spec
    assert other.differences(first.spec).keys() == {"weights", "weights_sha256"}
    torch.manual_seed(0)
    plain = torchvision.models.squeezenet1_1()
    assert tensors.tensors_sha256(plain) == first.spec.weights_sha256


@pytest.mark.parametrize("weights", ["random:", "random:x", "random:-1", "random:1.5"])
def test_a_seed_that_is_no_number_is_a_usage_error(weights):
    with pytest.raises(UsageError, match="random:1"):
        load_backbone(request(weights=weights))


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_of_weights_gives_the_features_of_the_network_that_was_saved(tmp_path, suffix):
    source = load_backbone(request(weights="random:5"))
    path = tmp_path / f"w.{suffix}"
    if suffix == "pth":
        save_state(path, source.network)
    else:
        safetensors.torch.save_file(source.network.state_dict(), path)
    loaded = load_backbone(request(weights=str(path)))
    assert loaded.spec.weights == "file"
    assert loaded.spec.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.spec.preprocess == registry.classic_preprocess("squeezenet1_1")
    assert np.array_equal(features_of(loaded)[0], features_of(source)[0])


def test_a_file_in_the_current_folder_needs_no_suffix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_state(tmp_path / "mine", registry.build("squeezenet1_1", 224, seed=1))
    assert load_backbone(request(weights="mine")).spec.weights == "file"


def test_a_fine_tuned_network_with_another_number_of_classes_is_taken(tmp_path):
    source = registry.build("resnet18", 224, seed=0, n_classes=5)
    loaded = load_backbone(request("resnet18", save_state(tmp_path / "w.pth", source), with_logits=True))
    assert loaded.n_classes == 5
    assert features_of(loaded)[1].shape == (2, 5)


def test_weights_of_another_architecture_say_which_keys_differ(tmp_path):
    path = save_state(tmp_path / "w.pth", registry.build("squeezenet1_1", 224, seed=0))
    with pytest.raises(WeightsError, match=r"(?s)w.pth' for resnet18.*missing: conv1.weight.*unexpected: features\.0"):
        load_backbone(request("resnet18", path))
    with pytest.raises(WeightsError, match="does not exist"):
        load_backbone(request("resnet18", str(tmp_path / "none.pth")))


def member_file(folder, monkeypatch, name, network):
    """Put weights where a download would put them, with a name that says their SHA-256."""
    monkeypatch.setenv("TORCH_HOME", str(folder))
    member = registry.default_member(name)
    cache = folder / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    path = cache / "w.pth"
    torch.save(network.state_dict(), path)
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    url = f"https://download.pytorch.org/models/{name}-{digits}.pth"
    monkeypatch.setattr(member.value, "url", url)
    path.rename(cache / f"{name}-{digits}.pth")
    return cache / f"{name}-{digits}.pth"


def test_the_weights_of_a_member_come_from_torch_hubs_folder(tmp_path, monkeypatch):
    source = registry.build("mobilenet_v2", 224, seed=4)
    path = member_file(tmp_path, monkeypatch, "mobilenet_v2", source)
    loaded = load_backbone(request("mobilenet_v2", "DEFAULT"))
    assert loaded.spec.weights == "MobileNet_V2_Weights.IMAGENET1K_V2"
    assert loaded.spec.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.spec.preprocess.resize == (232,)
    assert loaded.weights_blob is None
    assert tensors.tensors_sha256(loaded.network) == tensors.tensors_sha256(source)
    assert restore_backbone(loaded.spec).spec == loaded.spec

    by_hand = load_backbone(request("mobilenet_v2", str(path)))
    assert by_hand.spec.weights == "file"
    assert by_hand.spec.preprocess.resize == (232,), "one of torchvision's by its SHA-256"

    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(WeightsError, match="SHA-256"):
        load_backbone(request("mobilenet_v2", "DEFAULT"))


def test_weights_that_cannot_be_downloaded_are_an_error_and_never_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(WeightsError, match="--weights FILE") as caught:
        load_backbone(request("resnet50", "DEFAULT"))
    assert caught.value.weights == "resnet50-11ad3fa6.pth"


@pytest.mark.parametrize("name", ["googlenet", pytest.param("inception_v3", marks=pytest.mark.slow)])
def test_weights_with_and_without_auxiliary_heads_give_the_features_of_torchvisions_pretrained_network(tmp_path, name):
    builder = registry.get_model_builder(name)
    torch.manual_seed(0)
    # As torchvision builds it for its own weights: heads in the file, and the input re-scaled.
    network = builder(weights=None, init_weights=False, aux_logits=True, transform_input=True).eval()
    state = network.state_dict()
    assert any(key.startswith(registry.AUXILIARY) for key in state)
    torch.save(state, tmp_path / "with.pth")
    torch.save({k: v for k, v in state.items() if not k.startswith(registry.AUXILIARY)}, tmp_path / "without.pth")
    loaded = load_backbone(request(name, str(tmp_path / "with.pth")))
    size = loaded.spec.preprocess.crop[0]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, size, size), np.uint8)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (loaded.spec.preprocess.mean, loaded.spec.preprocess.std))
    network.fc = torch.nn.Identity()
    with torch.inference_mode():
        expected = network((torch.from_numpy(pixels) / 255 - mean) / std).numpy()
    features = Embedder(loaded, device="cpu")(pixels)[0]
    assert np.abs(features - expected).max() <= 1e-4 * expected.std()
    without = load_backbone(request(name, str(tmp_path / "without.pth")))
    assert tensors.tensors_sha256(without.network) == tensors.tensors_sha256(loaded.network)


def test_featx_mini_is_inside_the_package_and_needs_no_download():
    backbone = load_backbone(request("featx-mini", "DEFAULT"))
    spec = backbone.spec
    assert (spec.weights, spec.feature_shape, spec.preprocess.crop) == ("featx-mini", (928,), (128, 128))
    assert spec.weights_sha256 == hashlib.sha256(mini.WEIGHTS_FILE.read_bytes()).hexdigest()
    assert backbone.weights_blob is None
    expected = mini.load_featx_mini_weights(mini.featx_mini())
    assert tensors.tensors_sha256(backbone.network) == tensors.tensors_sha256(expected)
    assert restore_backbone(spec).spec == spec
    with pytest.raises(UnknownNameError, match="DEFAULT"):
        load_backbone(request("featx-mini", "IMAGENET1K_V1"))


# Node, pooling, scores in the spec.


def test_the_spec_holds_node_pooling_and_shape():
    spec = load_backbone(request()).spec
    assert (spec.node, spec.pooling, spec.feature_shape) == ("classifier.1:input", "avg", (512,))
    spec = load_backbone(request(node="features.12", pooling="none", window=(0, 9), storage="float16")).spec
    assert (spec.node, spec.pooling, spec.feature_shape) == ("features.12", "none", (512, 13, 13))
    assert spec.n_features == 512 * 13 * 13
    assert spec.preprocess.window == (0, 9)
    assert (spec.dtype, spec.storage, spec.logits) == ("float32", "float16", False)
    assert FeatureSpec.from_dict(json.loads(json.dumps(spec.to_dict()))).fingerprint == spec.fingerprint


def test_with_logits_is_refused_where_the_network_has_no_classes():
    with pytest.raises(UsageError, match=r"featx-mini.*no class scores"):
        load_backbone(request("featx-mini", with_logits=True))


def test_an_empty_classifier_is_told_by_its_missing_categories_and_its_maps_can_be_pooled():
    members = [member for name in registry.names() for member in registry.members(name)]
    empty = [str(member) for member in members if member.meta["categories"] is None]
    assert empty == ["VGG16_Weights.IMAGENET1K_FEATURES"]
    (maps,) = [node for node in list_nodes("vgg16") if node.name == "features"]
    assert (maps.shape, maps.poolings[0]) == ((512, 7, 7), "avg")


# A user's own network.

OWN = """
import torch
from torch import nn
from featx.spec import Preprocess
import helper_of_mine

open("imported", "w").close()

def make():
    layers = nn.Conv2d(3, 6, 3, 2), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    return nn.Sequential(*layers)

def small():
    return make(), Preprocess(resize=(8,), crop=(8, 8), mean=(0, 0, 0), std=(1, 1, 1))

def transformed():
    from torchvision.transforms._presets import ImageClassification
    return make(), ImageClassification(crop_size=16, resize_size=20)

def viewing():
    class View(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
        def forward(self, x):
            x = self.conv(x)
            return x.view(len(x), -1)
    return View(), Preprocess(resize=(8,), crop=(8, 8), mean=(0.,) * 3, std=(1.,) * 3)

def uneven():
    return make(), Preprocess(resize=(8,), crop=(), mean=(0,) * 3, std=(1,) * 3)

def picky():
    return nn.Sequential(nn.Flatten(), nn.Linear(5, 2))

def broken():
    return torch.nosuchthing

def wants(size):
    return make()

def text():
    return "resnet"

def odd():
    return make(), "resize"

number = 3
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "networks_of_mine.py").write_text(OWN)
    (tmp_path / "helper_of_mine.py").write_text("")
    (tmp_path / "spoilt_of_mine.py").write_text("import no_such_module_at_all\n")
    (tmp_path / "wrong_of_mine.py").write_text("def make(:\n")
    yield "networks_of_mine"
    for name in [name for name in sys.modules if name.endswith("_of_mine")]:
        del sys.modules[name]


def test_a_function_in_the_current_folder_gives_a_backbone(own_module):
    path = list(sys.path)
    backbone = load_backbone(request(f"{own_module}:make", "DEFAULT", with_logits=True))
    assert sys.path == path
    spec = backbone.spec
    assert (spec.backbone, spec.weights, spec.node, spec.feature_shape) == (
        f"{own_module}:make",
        "own",
        "4:input",
        (6,),
    )
    assert (spec.preprocess.resize, spec.preprocess.crop) == ((256,), (224, 224))
    assert spec.weights_sha256 == tensors.tensors_sha256(backbone.network)
    features, logits = features_of(backbone)
    assert logits.shape == (2, 4)
    again = load_backbone(request(f"{own_module}:make", "DEFAULT", with_logits=True))
    assert again.spec == spec, "the function runs under a seed of its own"
    assert np.array_equal(features_of(again)[0], features)
    seeded = load_backbone(request(f"{own_module}:make", "random:1")).spec
    assert seeded.weights == "random:1"
    assert seeded.weights_sha256 != spec.weights_sha256


def test_a_function_may_give_its_preprocess(own_module):
    spec = load_backbone(request(f"{own_module}:small", "DEFAULT")).spec
    assert spec.preprocess == Preprocess(resize=(8,), crop=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)
    FeatureSpec.from_dict(spec.to_dict())
    spec = load_backbone(request(f"{own_module}:transformed", "DEFAULT")).spec
    assert (spec.preprocess.resize, spec.preprocess.crop) == ((20,), (16, 16))


def test_a_network_of_ones_own_may_use_view(own_module):
    backbone = load_backbone(request(f"{own_module}:viewing", "DEFAULT"))
    assert features_of(backbone)[0].shape == (2, 4 * 6 * 6)


def test_a_file_of_weights_for_ones_own_network(own_module, tmp_path):
    source = load_backbone(request(f"{own_module}:small", "random:9"))
    path = save_state(tmp_path / "w.pth", source.network)
    loaded = load_backbone(request(f"{own_module}:small", path))
    assert loaded.spec.weights == "file"
    assert np.array_equal(features_of(loaded)[0], features_of(source)[0])


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("no_such_module_here:make", UsageError, "there is no module 'no_such_module_here'"),
        ("networks_of_mine.deeper:make", UsageError, "there is no module 'networks_of_mine.deeper'"),
        ("networks_of_mine:mak", UnknownNameError, "networks_of_mine:make"),
        ("networks_of_mine:number", UsageError, "no function but int"),
        ("networks_of_mine:text", UsageError, "must give a torch.nn.Module.*gave str"),
        ("networks_of_mine:odd", UsageError, "preprocess must be"),
        ("networks_of_mine:broken", InputError, "the function failed: AttributeError"),
        ("networks_of_mine:wants", InputError, "the function failed: TypeError"),
        ("networks_of_mine:picky", UsageError, "does not run on float32 images"),
        ("networks_of_mine:uneven", UsageError, "images of different sizes"),
        ("spoilt_of_mine:make", InputError, "no_such_module_at_all"),
        ("wrong_of_mine:make", InputError, "importing wrong_of_mine failed"),
        (":make", UsageError, "package.module:function"),
        ("networks_of_mine:", UsageError, "package.module:function"),
        ("..:make", UsageError, "package.module:function"),
    ],
)
def test_a_function_that_cannot_be_used_says_why(own_module, name, error, message):
    with pytest.raises(error, match=message):
        load_backbone(request(name, "DEFAULT"))


def test_weights_of_ones_own_network_are_its_own_random_or_a_file(own_module):
    with pytest.raises(UnknownNameError, match="IMAGENET"):
        load_backbone(request(f"{own_module}:small", "IMAGENET1K_V1"))


# From a spec back to its backbone.


@pytest.mark.parametrize("weights", ["random:2", "file"])
@pytest.mark.parametrize("name", ["squeezenet1_1", "featx-mini", "networks_of_mine:small"])
def test_a_restored_backbone_gives_the_same_bits(own_module, tmp_path, name, weights):
    source = load_backbone(request(name, "random:2", storage="float16"))
    if weights == "file":
        path = save_state(tmp_path / "w.pth", source.network)
        source = load_backbone(request(name, path, storage="float16"))
    blob = source.weights_blob() if source.weights_blob is not None else None
    assert (blob is None) == (weights != "file" and ":" not in name)
    restored = restore_backbone(source.spec, blob, allow_code=name if ":" in name else None)
    assert restored.spec == source.spec
    assert np.array_equal(features_of(restored)[0], features_of(source)[0])
    if blob is not None:
        assert restored.weights_blob() == blob


def test_code_named_in_a_file_is_not_imported_unless_allowed(own_module, tmp_path):
    source = load_backbone(request(f"{own_module}:small", "DEFAULT"))
    blob = source.weights_blob()
    del sys.modules[own_module]
    (tmp_path / "imported").unlink()
    for allowed in (None, f"{own_module}:make", own_module):
        with pytest.raises(UsageError, match="--trust"):
            restore_backbone(source.spec, blob, allow_code=allowed)
    assert own_module not in sys.modules
    assert not (tmp_path / "imported").exists()
    assert restore_backbone(source.spec, blob, allow_code=source.spec.backbone).spec == source.spec


def test_a_backbone_that_is_not_what_it_was_is_refused(own_module):
    source = load_backbone(request("squeezenet1_1"))
    other = FeatureSpec.from_dict(source.spec.to_dict() | {"weights_sha256": "0" * 64})
    with pytest.raises(WeightsError, match="weights_sha256"):
        restore_backbone(other)
    with pytest.raises(WeightsError, match="not stored beside"):
        restore_backbone(FeatureSpec.from_dict(source.spec.to_dict() | {"weights": "file"}))
    blob = tensors.pack(source.network)
    with pytest.raises(WeightsError, match="of another architecture"):
        restore_backbone(FeatureSpec.from_dict(source.spec.to_dict() | {"backbone": "resnet18"}), blob)
    wrong = FeatureSpec.from_dict(source.spec.to_dict() | {"weights": "file", "feature_shape": [3]})
    with pytest.raises(WeightsError, match="shape"):
        restore_backbone(wrong, blob)
    mine = load_backbone(request(f"{own_module}:small", "DEFAULT"))
    other_blob = load_backbone(request(f"{own_module}:small", "random:7")).weights_blob()
    with pytest.raises(WeightsError, match="not those of the spec"):
        restore_backbone(mine.spec, other_blob, allow_code=mine.spec.backbone)


def test_a_vision_transformer_is_built_for_its_image_size():
    member = registry.find_member("vit_b_16", "IMAGENET1K_SWAG_E2E_V1")
    preprocess = registry.member_preprocess(member)
    network = registry.build("vit_b_16", preprocess.crop[0])
    assert preprocess.crop == (384, 384)
    assert network.encoder.pos_embedding.shape[1] == (384 // 16) ** 2 + 1


@pytest.mark.parametrize(
    ("given", "side", "resize", "crop"),
    [
        (((256,), (224, 224)), 96, (110,), (96, 96)),
        (((256,), (224, 224)), 224, (256,), (224, 224)),
        (((232,), (224, 224)), 448, (464,), (448, 448)),
        (((256, 320), (224, 224)), 112, (128, 160), (112, 112)),
        (((224, 224), ()), 96, (96, 96), ()),
        (((256,), ()), 96, (256,), ()),  # images of different sizes: there is no crop to change
        (((225,), (224, 224)), 3, (3,), (3, 3)),
    ],
)
def test_another_image_size_shows_the_same_part_of_each_image(given, side, resize, crop):
    preprocess = Preprocess(*given, mean=(0.5,) * 3, std=(0.5,) * 3).at_size(side)
    assert (preprocess.resize, preprocess.crop) == (resize, crop)
    assert preprocess.side == (None if resize == (256,) and not crop else side)


def test_an_image_size_of_ones_own_is_in_the_spec_and_comes_back_with_it():
    small, usual = load_backbones([request("mobilenet_v2", image_size=96), request("mobilenet_v2")])
    assert (small.spec.preprocess.resize, small.spec.preprocess.crop) == ((110,), (96, 96))
    assert small.network is usual.network
    assert set(small.spec.differences(usual.spec)) == {"preprocess.resize", "preprocess.crop"}
    restored = restore_backbone(small.spec)
    assert restored.spec == small.spec
    np.testing.assert_array_equal(features_of(restored)[0], features_of(small)[0])


def test_a_map_of_features_has_the_image_sizes_shape():
    backbone = load_backbone(request("resnet18", node="layer4", pooling="none", image_size=96))
    assert backbone.spec.feature_shape == (512, 3, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "vit_b_16", "image_size": 96}, "vit_b_16 does not take images of 96 x 96 pixels; leave"),
        ({"backbone": "resnet18", "image_size": 0}, "an image size of 0 pixels: at least 1"),
        ({"backbone": "alexnet", "image_size": 16}, "alexnet does not take images of 16 x 16"),
    ],
)
def test_an_image_size_that_cannot_be_is_named(options, message):
    with pytest.raises(UsageError, match=message):
        load_backbone(request(**options))


@pytest.mark.slow
def test_the_wing_of_pixels_does_not_load_scikit_learn():
    code = (
        "import sys; import featx.vision.backbones, featx.vision.embed, featx.vision.engine; "
        "print([name for name in ('sklearn', 'skops', 'joblib', 'h5py', 'pandas', 'timm') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
