"""Where features are read, and how they are pooled."""

import pytest
import torch
import torchvision
from torch import nn

from featx.errors import UnknownNameError, UsageError
from featx.vision import nodes
from featx.vision.places import pooled_shape, read_features
from featx.vision.registry import build

SIZE = (32, 32)


def tiny_vit():
    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=1, num_heads=2, hidden_dim=12, mlp_dim=16, num_classes=5
    )
    nn.init.normal_(network.heads.head.weight)
    return network.eval()


def tiny_swin():
    torch.manual_seed(0)
    return torchvision.models.SwinTransformer([2, 2], 12, [1, 2], [2, 2], [2, 2], num_classes=5).eval()


class Strange(nn.Module):
    """Uses one module twice, never calls another, and has one that gives a pair."""

    class Pair(nn.Module):
        def forward(self, x):
            return x, None

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.idle = nn.Conv2d(4, 4, 1)
        self.pair = self.Pair()
        self.tail = nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4, 2)
        self.tail_runs = 0

    def forward(self, x):
        x = self.relu(self.conv(x))
        x = self.relu(self.pair(-x + 1)[0])
        self.tail_runs += 1
        return self.fc(self.tail(x).mean(dim=(2, 3)))


@pytest.fixture
def images():
    return torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def read(network, images, name=None, pooling=None, *, with_scores=False, backbone="", traced=None):
    traced = traced or nodes.trace(network, images.shape[2:], meta=True)
    node = nodes.find_node(network, traced, name, backbone=backbone)
    pooling = nodes.check_pooling(node, pooling)
    with torch.inference_mode():
        features, scores = read_features(network, images, node, pooling, with_scores=with_scores)
    assert features.shape == (len(images), torch.Size(pooled_shape(node, pooling)).numel())
    return (features, scores) if with_scores else features


def test_the_default_node_is_the_input_of_the_classifier(images):
    network = build("resnet18", 224, seed=0)
    features = read(network, images)
    assert torch.equal(features, read(network, images, "fc:input", "none"))
    assert torch.equal(features, read(network, images, "layer4", "avg"))
    with torch.inference_mode():
        assert torch.allclose(network.fc(features), network(images))


def test_squeezenet_has_a_convolution_as_its_classifier_and_its_input_is_pooled(images):
    network = build("squeezenet1_1", 224, seed=0)
    with torch.inference_mode():
        expected = network.features(images).mean(dim=(2, 3))
    torch.testing.assert_close(read(network, images), expected)


@pytest.mark.parametrize("with_scores", [False, True])
@pytest.mark.parametrize(("name", "stop"), [("fc6", 3), ("fc7", 6)])
def test_fc6_and_fc7_of_alexnet_are_decafs_after_the_relu(name, stop, with_scores):
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    network = build("alexnet", 224, seed=0)
    read_ = read(network, images, name, backbone="alexnet", with_scores=with_scores)
    features = read_[0] if with_scores else read_
    with torch.inference_mode():
        expected = network.classifier[:stop](network.avgpool(network.features(images)).flatten(1))
    assert features.shape == (3, 4096)
    assert features.min() == 0
    assert torch.equal(features, expected)


@pytest.mark.parametrize("name", ["vgg11", "vgg16", "vgg19_bn"])
def test_fc6_and_fc7_of_every_vgg_are_relus_after_the_first_and_second_linear_layer(name):
    network = build(name, 224)
    traced = nodes.trace(network, (224, 224), meta=True)
    for alias, i in (("fc6", 1), ("fc7", 4)):
        node = nodes.find_node(network, traced, alias, backbone=name)
        assert node.module == f"classifier.{i}"
        assert isinstance(network.classifier[i], nn.ReLU)
        assert node.shape == (4096,)


def test_a_relu_that_works_in_place_does_not_change_what_was_read_before_it(images):
    network = build("squeezenet1_1", 224, seed=0)
    assert network.features[1].inplace
    with torch.inference_mode():
        expected = network.features[0](images)
    for pooling, want in (
        ("none", expected.flatten(1)),
        ("max", expected.amax((2, 3))),
        ("avg", expected.mean((2, 3))),
    ):
        features, scores = read(network, images, "features.0", pooling, with_scores=True)
        assert torch.equal(features, want)
    assert features.min() < 0
    with torch.inference_mode():
        assert torch.equal(scores, network(images))


def test_tokens_are_pooled_as_class_token_or_mean_without_it(images):
    network = tiny_vit()
    with torch.inference_mode():
        x = network._process_input(images)
        tokens = network.encoder(torch.cat([network.class_token.expand(3, -1, -1), x], dim=1))
    assert torch.equal(read(network, images), tokens[:, 0])
    assert torch.equal(read(network, images, "encoder"), tokens[:, 0])
    assert torch.equal(read(network, images, "encoder", "cls"), tokens[:, 0])
    assert torch.equal(read(network, images, "encoder", "mean-tokens"), tokens[:, 1:].mean(dim=1))
    assert torch.equal(read(network, images, "encoder", "none"), tokens.flatten(1))


def test_feature_maps_with_the_channels_last_are_pooled_over_height_and_width(images):
    network = tiny_swin()
    head_input = read(network, images)
    torch.testing.assert_close(read(network, images, "norm", "avg"), head_input)  # (B, H, W, C)
    torch.testing.assert_close(read(network, images, "permute", "avg"), head_input)  # (B, C, H, W)
    assert torch.equal(read(network, images, "norm", "max"), read(network, images, "permute", "max"))


def test_of_a_module_used_several_times_the_last_time_counts(images):
    network = Strange().eval()
    with torch.inference_mode():
        first = network.relu(network.conv(images))
        last = network.relu(-first + 1)
        for with_scores in (False, True):
            features = read(network, images, "relu", "none", with_scores=with_scores)
            assert torch.equal(features[0] if with_scores else features, last.flatten(1))
    assert not torch.equal(first, last)


def test_the_forward_pass_ends_at_the_node_unless_scores_are_wanted(images):
    network = Strange().eval()
    read(network, images, "relu")
    before = network.tail_runs
    read(network, images, "relu")
    assert network.tail_runs == before + 1, "only the trace runs it to the end"
    read(network, images, "relu", with_scores=True)
    assert network.tail_runs == before + 3


def test_a_network_without_a_classifier_gives_its_output(images):
    for network in (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.BatchNorm1d(8)),
    ):
        network.eval()
        traced = nodes.trace(network, SIZE, meta=True)
        assert traced.classifier is None
        assert nodes.default_node(traced).name == "output"
        with torch.inference_mode():
            assert torch.equal(read(network, images), network(images))
    vit = tiny_vit()
    vit.heads = nn.Identity()
    assert nodes.default_node(nodes.trace(vit, SIZE, meta=True)).name == "output"


def test_a_trace_on_the_meta_device_sees_what_a_real_one_sees():
    for network in (tiny_vit(), tiny_swin(), Strange().eval()):
        assert nodes.trace(network, SIZE, meta=True) == nodes.trace(network, SIZE, meta=False)


def test_reading_leaves_no_hooks_behind(images):
    network = Strange().eval()
    read(network, images, "relu")
    read(network, images, "fc:input", with_scores=True)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_every_listed_node_can_be_read(images):
    for network in (tiny_vit(), Strange().eval()):
        traced = nodes.trace(network, SIZE, meta=True)
        listed = nodes.list_nodes(traced)
        assert nodes.default_node(traced) in listed
        assert len({node.name for node in listed}) == len(listed)
        for node in listed:
            for pooling in node.poolings:
                read(network, images, node.name, pooling, traced=traced)


def test_an_unknown_node_lists_close_matches():
    network = build("resnet18", 224)
    traced = nodes.trace(network, (224, 224), meta=True)
    with pytest.raises(UnknownNameError, match="layer4") as caught:
        nodes.find_node(network, traced, "layer5")
    assert "layer4" in caught.value.matches
    for name in ("fc:inputs", "fc:", "", ":input", "output:input", "fc6"):
        if name != "fc:":
            with pytest.raises(UnknownNameError):
                nodes.find_node(network, traced, name, backbone="resnet18")


def test_a_node_without_one_tensor_per_image_is_refused():
    network = Strange().eval()
    traced = nodes.trace(network, SIZE, meta=True)
    with pytest.raises(UsageError, match="does not call it"):
        nodes.find_node(network, traced, "idle")
    with pytest.raises(UsageError, match="does not give a single tensor"):
        nodes.find_node(network, traced, "pair")
    assert nodes.find_node(network, traced, "pair:input").shape == (4, *SIZE)


@pytest.mark.parametrize(
    ("name", "pooling", "fits"),
    [
        ("layer4", "cls", "avg, max, none"),
        ("fc:input", "avg", "what fits: none"),
        ("layer1", "mean-tokens", "avg, max"),
    ],
)
def test_a_pooling_that_does_not_fit_lists_what_does(name, pooling, fits):
    network = build("resnet18", 224)
    node = nodes.find_node(network, nodes.trace(network, (224, 224), meta=True), name)
    with pytest.raises(UsageError, match=fits):
        nodes.check_pooling(node, pooling)
    with pytest.raises(UnknownNameError, match="mean-tokens"):
        nodes.check_pooling(node, "mean-token")


def test_the_class_token_is_refused_where_there_is_none():
    node = nodes.Node("tokens", "tokens", False, (16, 8))
    assert node.poolings == ("mean-tokens", "none")
    with pytest.raises(UsageError, match="no class token"):
        nodes.check_pooling(node, "cls")


def test_three_axes_that_are_no_map_are_not_averaged():
    network = build("maxvit_t", 224)
    traced = nodes.trace(network, (224, 224), meta=True)
    inside = nodes.find_node(network, traced, "blocks.0.layers.0.layers.window_attention.attn_layer")
    assert inside.poolings == ("none",)
    assert nodes.find_node(network, traced, "blocks.0").poolings[0] == "avg"


class Sharing(nn.Module):
    """One module under two names, and one parameter in two modules."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)
        self.again = self.first
        self.tied = nn.Conv2d(3, 3, 1, bias=False)
        self.tied.weight = self.first.weight
        self.norm = nn.BatchNorm2d(3)
        self.again_norm = self.norm

    def forward(self, x):
        return self.again_norm(self.tied(self.again(self.norm(self.first(x))))).mean((2, 3))


def test_a_trace_leaves_a_network_of_shared_parts_as_it_was():
    network = Sharing().eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    traced = nodes.trace(network, (8, 8), meta=True)
    assert traced.calls[""].gives == (2, 3)
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert network.again is network.first
    assert network.tied.weight is network.first.weight
