"""timm's networks: features, scores and preprocess are timm's own; weights come from files or its hub."""

import hashlib
import http.server
import io
import sys
import threading
import time

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from featx.errors import MissingExtraError, UnknownNameError, UsageError, WeightsError
from featx.spec import FeatureRequest, FeatureSpec, Preprocess
from featx.vision import tensors, timm_models, timm_weights
from featx.vision.backbones import load_backbone, restore_backbone
from featx.vision.catalogue import list_backbones, list_nodes
from featx.vision.embed import Embedder
from featx.vision.images import preprocess_pixels

timm = pytest.importorskip("timm")
pytest.importorskip("timm.data")

FAMILIES = [
    ("resnet10t", "fc:input"),
    ("vit_tiny_patch16_224", "head:input"),
    pytest.param("convnext_atto", "head.fc:input", marks=pytest.mark.slow),
    pytest.param("efficientnet_lite0", "classifier:input", marks=pytest.mark.slow),
    pytest.param("mobilenetv3_small_050", "classifier:input", marks=pytest.mark.slow),
    pytest.param("mobilevit_xxs", "head.fc:input", marks=pytest.mark.slow),
    ("deit_tiny_distilled_patch16_224", "output"),  # two classifiers: no module takes their mean
    pytest.param("levit_128s", "output", marks=pytest.mark.slow),  # a norm goes with each of two classifiers
    pytest.param("levit_conv_128s", "output", marks=pytest.mark.slow),
    pytest.param("convformer_s18", "output", marks=pytest.mark.slow),  # a classifier of two layers
    pytest.param("resnet50_clip", "output", marks=pytest.mark.slow),  # an attention pool
    pytest.param("swin_tiny_patch4_window7_224", "head.fc:input", marks=pytest.mark.slow),
    pytest.param("regnetx_002", "head.fc:input", marks=pytest.mark.slow),
    pytest.param("crossvit_tiny_240", "output", marks=pytest.mark.slow),
]


def request(name, weights="random", **options):
    return FeatureRequest(backbone=f"timm:{name}", weights=weights, **options)


def pixels_for(preprocess, n=2):
    return np.random.default_rng(0).integers(0, 256, (n, 3, *preprocess.crop), np.uint8)


def normalised(pixels, preprocess):
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    return (torch.from_numpy(pixels).float() / 255 - mean) / std


def features_of(backbone, n=2):
    return Embedder(backbone, device="cpu")(pixels_for(backbone.spec.preprocess, n))


# ---- timm's own numbers


@pytest.mark.parametrize(("name", "node"), FAMILIES)
def test_the_default_features_are_those_of_timm_without_classifier(name, node):
    backbone = load_backbone(request(name))
    spec = backbone.spec
    assert spec.node == node
    plain = timm.create_model(name, pretrained=False, num_classes=0).eval()
    state = {key: value for key, value in backbone.network.state_dict().items() if key in plain.state_dict()}
    plain.load_state_dict(state)
    for module in {*plain.modules(), *backbone.network.modules()}:  # a norm in front of a classifier must be seen
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_var.fill_(3.0)
    images = normalised(pixels_for(spec.preprocess), spec.preprocess)
    with torch.inference_mode():
        expected = plain(images)
        before = backbone.network.forward_head(backbone.network.forward_features(images), pre_logits=True)
    features, _ = features_of(backbone)
    assert features.shape == tuple(expected.shape) == (2, spec.n_features)
    for other in (expected, before):
        assert np.abs(features - other.numpy()).max() <= 1e-5 * other.std()


def test_class_scores_are_timms_and_a_network_of_two_classifiers_has_none():
    backbone = load_backbone(request("mobilenetv3_small_050", with_logits=True))
    assert backbone.n_classes == 1000
    _, scores = features_of(backbone)
    images = normalised(pixels_for(backbone.spec.preprocess), backbone.spec.preprocess)
    with torch.inference_mode():
        expected = backbone.network(images).numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-5 * expected.std())
    with pytest.raises(UsageError, match="gives no class scores"):
        load_backbone(request("deit_tiny_distilled_patch16_224", with_logits=True))


def test_random_weights_are_timms_under_a_seed_of_their_own():
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    first = load_backbone(request("resnet10t", "random:3"))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(3)
    plain = timm.create_model("resnet10t", pretrained=False)
    assert tensors.tensors_sha256(plain) == first.spec.weights_sha256
    assert (first.spec.backbone, first.spec.weights) == ("timm:resnet10t", "random:3")
    assert restore_backbone(first.spec).spec == first.spec


PREPROCESSES = [
    "resnet10t",
    "resnet18.tv_in1k",
    "vit_tiny_patch16_224",
    "efficientnet_lite0",
    "convnext_atto",
    "inception_v3",
    "vit_base_patch16_siglip_224",  # squash
    "mobilenetv3_small_050",
]


@pytest.mark.parametrize("name", PREPROCESSES)
@pytest.mark.parametrize("size", [(300, 451), (97, 64)])
def test_the_pixels_are_those_of_timms_own_transform(name, size):
    model = timm_models.find(f"timm:{name}")
    preprocess = timm_models.preprocess_of(model)
    config = timm.data.resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    transform = timm.data.create_transform(**config, is_training=False)
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8))
    ours = normalised(preprocess_pixels(image, preprocess), preprocess)
    torch.testing.assert_close(ours, transform(image), rtol=0, atol=1e-6)


def test_every_preprocess_of_timm_is_taken_or_refused_with_the_reason():
    refused = []
    for name in timm_models.names():
        model = timm_models.find(f"timm:{name}")
        try:
            preprocess = timm_models.preprocess_of(model)
        except UsageError as error:
            refused.append(str(error))
        else:
            assert len(FeatureSpec("a", "b", "c", "d", "e", (1,), preprocess).fingerprint) == 64
    assert 0 < len(refused) < 20
    assert all("featx does not have" in text for text in refused)


# ---- names


@pytest.mark.parametrize("name", ["hf_hub:someone/net", "hf-hub:someone/net", "local-dir:/tmp", "../x", "a/b"])
def test_addresses_are_no_names(name):
    with pytest.raises(UsageError, match="own registry"):
        load_backbone(request(name))
    with pytest.raises(UsageError, match="own registry"):
        restore_backbone(FeatureSpec(f"timm:{name}", "random:0", "", "x", "none", (1,), Preprocess((), (), (), ())))


@pytest.mark.parametrize(("name", "match"), [("resnet1O", "timm:resnet18"), ("resnet18.a9_in1k", r"resnet18\.a1_in1k")])
def test_an_unknown_name_lists_close_matches(name, match):
    with pytest.raises(UnknownNameError, match=match):
        load_backbone(request(name))


def test_weights_are_named_by_their_tag_and_the_preprocess_is_theirs():
    assert timm_models.find("timm:resnet18").name == "resnet18.a1_in1k"
    assert timm_models.find("timm:resnet18", "tv_in1k") == timm_models.find("timm:resnet18", "resnet18.tv_in1k")
    model = timm_models.find("timm:resnet18.tv_in1k")
    assert model == timm_models.find("timm:resnet18", "tv_in1k")
    assert timm_models.preprocess_of(model).resize == (256,)
    assert timm_models.preprocess_of(timm_models.find("timm:resnet18")).resize == (235,)
    with pytest.raises(UnknownNameError, match=r"weights of resnet18: .*tv_in1k.*or random"):
        load_backbone(request("resnet18", "IMAGENET1K_V1"))


def test_timms_networks_are_listed_on_request_only():
    infos = {info.name: info for info in list_backbones("timm:resnet18*")}
    assert "timm:resnet18" in infos
    info = infos["timm:resnet18"]
    assert (info.n_features, info.image_size, info.weights) == (512, 224, "a1_in1k")
    assert info.n_parameters == sum(p.numel() for p in timm.create_model("resnet18").parameters())
    assert {info.n_features for info in list_backbones("timm:vit")} == {None}, "too many to be built"
    assert not any(info.name.startswith("timm:") for info in list_backbones("resnet"))
    with pytest.raises(UnknownNameError, match="timm:resnet18"):
        list_backbones("timm:resnet18x")


@pytest.mark.parametrize(("name", "node"), [("resnet10t", "fc:input"), ("deit_tiny_distilled_patch16_224", "output")])
def test_the_nodes_are_listed_with_the_default_one(name, node):
    listed = list_nodes(f"timm:{name}")
    (default,) = [one for one in listed if one.default]
    assert (default.name, default.poolings) == (node, ("none",))
    assert len(listed) > 20


def test_another_node_may_be_read():
    spec = load_backbone(request("resnet10t", node="layer4", pooling="max")).spec
    assert (spec.node, spec.pooling, spec.feature_shape) == ("layer4", "max", (512,))


# ---- weights


@pytest.fixture
def no_network(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_gives_the_features_of_the_network_that_was_saved_and_a_bundle_has_them_again(tmp_path, suffix):
    source = load_backbone(request("resnet10t", "random:5"))
    path = tmp_path / f"w.{suffix}"
    (torch.save if suffix == "pth" else safetensors.torch.save_file)(source.network.state_dict(), path)
    loaded = load_backbone(request("resnet10t", str(path)))
    assert (loaded.spec.weights, loaded.spec.weights_sha256) == ("file", hashlib.sha256(path.read_bytes()).hexdigest())
    expected = features_of(source)[0]
    assert np.array_equal(features_of(loaded)[0], expected)
    restored = restore_backbone(loaded.spec, loaded.weights_blob())
    assert restored.spec == loaded.spec
    assert np.array_equal(features_of(restored)[0], expected)
    with pytest.raises(WeightsError, match="not stored beside"):
        restore_backbone(loaded.spec)


@pytest.mark.parametrize("name", ["resnet10t", "deit_tiny_distilled_patch16_224", "mobilenetv3_small_050"])
def test_a_fine_tuned_network_with_another_number_of_classes_is_taken(tmp_path, name):
    torch.manual_seed(0)
    source = timm.create_model(name, pretrained=False, num_classes=7)
    torch.save({"state_dict": source.state_dict()}, tmp_path / "w.pth")
    loaded = load_backbone(request(name, str(tmp_path / "w.pth")))
    assert loaded.n_classes == (None if "distilled" in name else 7)
    kept = {k: v for k, v in source.state_dict().items() if k in loaded.network.state_dict()}
    assert tensors.tensors_sha256(loaded.network) == tensors.tensors_sha256(_With(kept))


class _With:
    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state


def test_weights_as_their_authors_wrote_them_are_converted_by_timms_rules(tmp_path):
    source = load_backbone(request("mobilevit_xxs", "random:2"))
    plain = timm.create_model("convnext_atto", pretrained=False).eval()
    original = {}
    for name, value in plain.state_dict().items():  # ConvNeXt's own names, as in its authors' repository
        if name.startswith("stem."):
            name = name.replace("stem.", "downsample_layers.0.")
        elif ".downsample." in name:
            stage, _, rest = name.removeprefix("stages.").partition(".downsample.")
            name = f"downsample_layers.{stage}.{rest}"
        else:
            name = name.replace(".blocks.", ".").replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
            name = name.replace("head.fc.", "head.").replace("head.norm.", "norm.")
        original[name] = value
    torch.save({"model": original}, tmp_path / "w.pth")
    loaded = load_backbone(request("convnext_atto", str(tmp_path / "w.pth")))
    assert tensors.tensors_sha256(loaded.network) == tensors.tensors_sha256(plain)
    torch.save(source.network.state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other\.pth' for timm:convnext_atto.* are of another architecture"):
        load_backbone(request("convnext_atto", str(tmp_path / "other.pth")))


def test_a_file_that_leaves_a_part_of_the_network_without_values_is_refused(tmp_path):
    state = dict(load_backbone(request("vit_tiny_patch16_224", "random:2")).network.state_dict())
    del state["blocks.3.attn.qkv.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"1 missing: blocks\.3\.attn\.qkv\.weight"):
        load_backbone(request("vit_tiny_patch16_224", str(tmp_path / "w.pth")))


def test_the_hub_out_of_reach_is_an_error_in_two_seconds_with_the_way_out(tmp_path, monkeypatch, no_network):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    timm_models.library()
    start = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        timm_weights.fetch(timm_models.find("timm:resnet18"))
    assert time.monotonic() - start < 2
    for words in ("resnet18.a1_in1k are not on this machine", "--weights FILE", "timm/resnet18.a1_in1k", "featx-mini"):
        assert words in str(caught.value)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        load_backbone(request("resnet18", "DEFAULT"))


def test_a_network_without_weights_says_so():
    name = next(n for n in timm_models.names("resnet*") if not timm_models.find(f"timm:{n}").has_weights)
    with pytest.raises(WeightsError, match=f"timm has no weights of {name}"):
        load_backbone(request(name, "DEFAULT"))


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as a download needs."""

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()
        self.wfile.write(self.server.files.get(self.path.rsplit("/", 1)[-1], b"{}"))

    def answer(self):
        self.server.asked.append((self.command, self.path))
        content = self.server.files.get(self.path.rsplit("/", 1)[-1])
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(content or b"{}")))
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_come_from_the_hub_once_and_are_named_in_the_spec(tmp_path, monkeypatch, name):
    from huggingface_hub import constants

    state = load_backbone(request("resnet10t", "random:9")).network.state_dict()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue() if name.endswith(".bin") else safetensors.torch.save(state)
    monkeypatch.setenv("no_proxy", "*")
    seen = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.files, server.asked = {name: content}, []
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        template = "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", constants.ENDPOINT + template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            loaded = load_backbone(request("resnet10t", "DEFAULT"), progress=lambda *args: seen.append(args))
            n_asked = len(server.asked)
            again = load_backbone(request("resnet10t", "DEFAULT"))
            assert len(server.asked) == n_asked
        finally:
            server.shutdown()
            thread.join()
    assert loaded.spec == again.spec
    assert (loaded.spec.weights, loaded.weights_blob) == ("resnet10t.c3_in1k", None)
    assert loaded.spec.weights_sha256 == hashlib.sha256(content).hexdigest()
    assert {key: value.tolist() for key, value in loaded.network.state_dict().items() if value.ndim < 2} == {
        key: value.tolist() for key, value in state.items() if value.ndim < 2
    }
    assert restore_backbone(loaded.spec).spec == loaded.spec
    assert timm_weights.is_here(timm_models.find("timm:resnet10t"))
    assert seen[-1] == (f"resnet10t.c3_in1k: {name}", len(content), len(content))


# ---- timm itself


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    for call in (
        lambda: load_backbone(request("resnet18")),
        lambda: list_backbones("timm:"),
        lambda: list_nodes("timm:a"),
    ):
        with pytest.raises(MissingExtraError, match=r"featx\[timm\]"):
            call()
