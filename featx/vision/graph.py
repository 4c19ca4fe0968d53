"""A network as a graph of its own: cut off after the nodes, batch norms folded into the convolutions before them.

The graph does what `featx.vision.places.read_places` does with hooks, for networks that torch.fx can trace: those whose
forward pass goes the same way for every image. Networks and their weights are left as they are.
"""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from featx.vision.nodes import Node
from featx.vision.places import Place, pool

SUMS = (operator.add, operator.iadd, torch.add)
"""How a graph writes the sum of two tensors."""
_POOL, _NAME = "featx_pool_", "featx_name"


class Pool(nn.Module):
    """Pools a node's values to rows of features."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return (B, n_features) float32."""
        return pool(values, self.place.node, self.place.pooling).flatten(1)


def cut_graph(network: nn.Module, places: Sequence[Place], *, with_scores: bool) -> fx.GraphModule | None:
    """Trace a network, read nodes in it, and leave out what the features do not need.

    Parameters
    ----------
    network : nn.Module
        In eval mode. The graph uses its modules.
    places : sequence of Place
        Where the features are read.
    with_scores : bool
        Whether the class scores are wanted too; without them nothing that runs after the last node is in the graph.

    Returns
    -------
    fx.GraphModule or None
        Takes (B, 3, h, w); gives a tuple: for each place (B, n_features), and last the class scores if wanted, all
        float32. None: the network cannot be traced.
    """
    tracer = _NodeTracer({place.node.module for place in places})
    try:
        graph = tracer.trace(network)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError):
        return None  # it looks at the values that pass through it, or at something else that a trace does not know
    end = next(item for item in graph.nodes if item.op == "output")
    scores, pools = end.args[0], {f"{_POOL}{i}": Pool(place) for i, place in enumerate(places)}
    values = [value for place in places if (value := tracer.read(place.node)) is not None]
    if len(values) < len(places):
        return None
    if not with_scores:
        for item in reversed(graph.nodes):
            if item in values:
                break
            graph.erase_node(item)
    outputs = [_pool(graph, value, target, network) for value, target in zip(values, pools, strict=True)]
    if with_scores:
        if not isinstance(scores, fx.Node):
            return None
        with graph.inserting_before(end):
            outputs.append(graph.call_method("float", (scores,)))
        end.args = (tuple(outputs),)
    else:
        graph.output(tuple(outputs))
    return module_of(graph, network, pools)


def _pool(graph: fx.Graph, value: fx.Node, target: str, network: nn.Module) -> fx.Node:
    """Pool a value right where it arises: what comes after may work in place on the very tensor that is read."""
    if value.users and _is_fused(value, network):
        # Computed once more for the reader alone, so that the features are to the bit those of a graph that ends here,
        # and what goes on is to the bit what it is where nobody reads.
        with graph.inserting_before(value):
            value = _again(graph, value, network)
    with graph.inserting_after(value):
        return graph.call_module(target, (value,))


def _again(graph: fx.Graph, value: fx.Node, network: nn.Module) -> fx.Node:
    """Copy an item, and those before it that would be fused with it."""
    inner = type(_module(value, network)) not in (nn.Conv2d, nn.Linear)
    parts = [part for part in value.all_input_nodes if inner and len(part.users) == 1 and _is_fused(part, network)]
    copies = {part: _again(graph, part, network) for part in parts}
    copied = graph.node_copy(value, lambda part: copies.get(part, part))
    if copied.target is operator.iadd:
        copied.target = operator.add
    return copied


def _is_fused(item: fx.Node, network: nn.Module) -> bool:
    """Tell whether what an item computes may be merged with what reads it."""
    return item.target in SUMS or type(_module(item, network)) in (nn.Conv2d, nn.BatchNorm2d, nn.Linear)


def _module(item: fx.Node, network: nn.Module) -> nn.Module | None:
    if item.op != "call_module" or str(item.target).startswith(_POOL):
        return None
    return network.get_submodule(str(item.target))


def folded_convolution(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Return a convolution with a batch norm folded into it, without gradients.

    ``w' = w * gamma / sqrt(var + eps)`` and ``b' = (b - mean) * gamma / sqrt(var + eps) + beta``, computed in float64.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    dtype = convolution.weight.dtype
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    if convolution.bias is not None:
        shift = shift + convolution.bias.detach().double()
    bias = shift * scale
    if norm.bias is not None:
        bias = bias + norm.bias.detach().double()
    weight = convolution.weight.detach().double() * scale.view(-1, 1, 1, 1)
    folded = copy.copy(convolution)  # the same settings, parameters of its own
    folded._parameters = {}
    folded.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    folded.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    return folded


def fold_batch_norms(
    graphed: fx.GraphModule, fold: Callable[[nn.Conv2d, nn.BatchNorm2d], nn.Module] = folded_convolution
) -> fx.GraphModule:
    """Return the graph with each batch norm folded into the convolution before it, where nothing else reads between.

    Parameters
    ----------
    graphed : fx.GraphModule
        In eval mode; left as it is.
    fold : callable
        Makes one module of the two.
    """
    graph, modules = copy.deepcopy(graphed.graph), dict(graphed.named_modules())
    folded: dict[str, nn.Module] = {}
    for item in list(graph.nodes):
        before = item.args[0] if item.op == "call_module" and item.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        convolution, norm = (modules.get(str(part.target)) for part in (before, item))
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and _can_fold(convolution, norm):
            replace_module(before, fold(convolution, norm), folded, "folded")
            item.replace_all_uses_with(before)
            graph.erase_node(item)
    return module_of(graph, graphed, folded)


def replace_module(item: fx.Node, module: nn.Module, others: dict[str, nn.Module], kind: str) -> None:
    """Let an item of a graph call another module, noted in `others` for `module_of`; `module_name` stays the same."""
    item.meta[_NAME] = module_name(item)
    item.target = f"{kind}_{len(others)}"
    others[item.target] = module


def module_name(item: fx.Node) -> str:
    """Return the name in the network of the module that an item of a graph calls."""
    return str(item.meta.get(_NAME, item.target))


def _can_fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    if type(convolution) is not nn.Conv2d or type(norm) is not nn.BatchNorm2d:
        return False
    return not convolution.training and not norm.training and norm.running_var is not None


def module_of(graph: fx.Graph, network: nn.Module, others: Mapping[str, nn.Module]) -> fx.GraphModule:
    """Return a graph as a module that holds what the graph uses: from `others` by name, else from a network."""
    targets = {str(item.target) for item in graph.nodes if item.op in ("call_module", "get_attr")}
    found = {target: others[target] if target in others else _attribute(network, target) for target in targets}
    return fx.GraphModule(found, graph).eval()


def _attribute(network: nn.Module, target: str) -> Any:
    module, _, name = target.rpartition(".")
    return getattr(network.get_submodule(module), name)


class _NodeTracer(fx.Tracer):
    """Traces a network and remembers what some of its modules take and give; of several calls the last, as hooks do."""

    def __init__(self, modules: set[str]) -> None:
        super().__init__()
        self._wanted = modules
        self._seen: dict[tuple[str, bool], Any] = {}
        self._calls: Counter[str] = Counter()

    def read(self, node: Node) -> fx.Node | None:
        """Return the graph's item that gives a node's value; None: the trace took another way than the network did."""
        item = self._seen.get((node.module, node.takes))
        return item if isinstance(item, fx.Node) and self._calls[node.module] == node.calls else None

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        graph = super().trace(root, concrete_args)
        items = list(graph.nodes)
        self._note("", items[0], items[-1].args[0])
        return graph

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        output = super().call_module(m, forward, args, kwargs)
        name = self.path_of_module(m)
        if name in self._wanted and args:
            self._note(name, *(value.node if isinstance(value, fx.Proxy) else None for value in (args[0], output)))
        return output

    def _note(self, name: str, takes: Any, gives: Any) -> None:
        self._calls[name] += 1
        self._seen[name, True], self._seen[name, False] = takes, gives
