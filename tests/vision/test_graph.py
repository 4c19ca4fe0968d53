"""Networks as graphs: the features of hooks, batch norms folded, other readers undisturbed."""

import pytest
import torch
from torch import nn

from featx.vision import nodes
from featx.vision.graph import cut_graph, fold_batch_norms
from featx.vision.packed import pack_graph
from featx.vision.places import Place, read_places


class Branches(nn.Module):
    """Every shape of what can be fused: a sum in place, a shortcut with a norm, activations in place, a linear end."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(8, 8, 3, 1, 1)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.short = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.linear = nn.Linear(8, 6)
        self.gelu = nn.GELU()
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = self.relu(self.stem_norm(self.stem(x)))
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        y += self.short(x)
        y = self.relu(y)
        return self.head(self.gelu(self.linear(y.mean((2, 3)))))


def branches(seed=0):
    torch.manual_seed(seed)
    network = Branches().eval()
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return network


NETWORK = branches()
IMAGES = torch.randn((3, 3, 16, 16), generator=torch.Generator().manual_seed(1))
TRACED = nodes.trace(NETWORK, (16, 16), meta=False)
NAMES = [node.name for node in nodes.list_nodes(TRACED)]
WAYS = {"cut": lambda graph: graph, "folded": fold_batch_norms, "packed": lambda g: pack_graph(fold_batch_norms(g))}


def places_of(*names):
    found = [nodes.find_node(NETWORK, TRACED, name) for name in names]
    return [Place(node, node.poolings[0]) for node in found]


def outputs(way, places, *, with_scores=False):
    graph = WAYS[way](cut_graph(NETWORK, places, with_scores=with_scores))
    with torch.inference_mode():
        return graph(IMAGES.contiguous(memory_format=torch.channels_last))


def near(values, expected):
    return (values - expected).abs().max() <= 1e-5 * expected.std()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [*NAMES, "relu:input", "head:input", "gelu:input"])
def test_a_graph_reads_what_hooks_read_and_leaves_the_network_alone(way, name):
    before = {key: tensor.clone() for key, tensor in NETWORK.state_dict().items()}
    places = places_of(name)
    with torch.inference_mode():
        (expected,), scores = read_places(NETWORK, IMAGES, places, with_scores=True)
    (features,) = outputs(way, places)
    both = outputs(way, places, with_scores=True)
    assert near(features, expected)
    assert torch.equal(both[0], features)
    assert near(both[1], scores)
    assert all(torch.equal(tensor, before[key]) for key, tensor in NETWORK.state_dict().items())


@pytest.mark.parametrize("way", ["folded", "packed"])
def test_several_places_read_at_once_are_to_the_bit_those_read_alone(way):
    together = outputs(way, places_of(*NAMES))
    for name, features in zip(NAMES, together, strict=True):
        assert torch.equal(features, outputs(way, places_of(name))[0]), name


def test_nothing_after_the_node_is_in_the_graph():
    graph = cut_graph(NETWORK, places_of("conv1"), with_scores=False)
    assert {item.target for item in graph.graph.nodes if item.op == "call_module"} == {
        "stem", "stem_norm", "relu", "conv1", "featx_pool_0",
    }  # fmt: skip
    assert not hasattr(graph, "head")


def test_all_batch_norms_behind_convolutions_are_folded_but_one_that_a_node_is_read_before():
    def n_norms(*names):
        graph = fold_batch_norms(cut_graph(NETWORK, places_of(*names), with_scores=False))
        return sum(isinstance(module, nn.BatchNorm2d) for module in graph.modules())

    assert n_norms("head:input") == 0
    assert n_norms("conv1", "head:input") == 0


def test_a_module_that_is_called_twice_is_read_the_last_time():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

        def forward(self, x):
            return self.norm(self.conv(self.norm(self.conv(x))))

    network = Twice().eval()
    traced = nodes.trace(network, (8, 8), meta=False)
    node = nodes.find_node(network, traced, "conv")
    place, images = Place(node, "avg"), torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        (expected,), _ = read_places(network, images, [place], with_scores=False)
        graph = cut_graph(network, [place], with_scores=False)
        assert torch.equal(graph(images)[0], expected)
        assert near(pack_graph(fold_batch_norms(graph))(images)[0], expected)


def test_a_network_that_looks_at_its_values_has_no_graph():
    class Looks(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))

    network = Looks().eval()
    traced = nodes.trace(network, (8, 8), meta=False)
    place = Place(nodes.default_node(traced), "none")
    assert cut_graph(network, [place], with_scores=False) is None
