"""A network as a graph of its own: cut off at the node, batch norms folded into the convolutions before them.

The graph does what `featx.vision.nodes.read_features` does with hooks, for networks that torch.fx can trace: those
whose forward pass goes the same way for every image.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from torch import fx, nn

from featx.vision.nodes import Node, pool

POOL = "featx_pool"
"""The module that pools, in the graph."""


class Pool(nn.Module):
    """Pools a node's values to rows of features."""

    def __init__(self, node: Node, pooling: str) -> None:
        super().__init__()
        self.node, self.pooling = node, pooling

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return (B, n_features) float32."""
        return pool(values, self.node, self.pooling).flatten(1)


def cut_graph(network: nn.Module, node: Node, pooling: str, *, with_scores: bool) -> fx.GraphModule | None:
    """Trace a network, read a node in it, and leave out what the features do not need.

    Parameters
    ----------
    network : nn.Module
        In eval mode; not changed. The graph uses its modules.
    node : Node
        Where the features are read.
    pooling : str
        One of ``node.poolings``.
    with_scores : bool
        Whether the class scores are wanted too; without them nothing that runs after the node is in the graph.

    Returns
    -------
    fx.GraphModule or None
        Takes (B, 3, h, w); gives the features (B, n_features), or the pair of them and the class scores. None: the
        network cannot be traced.
    """
    tracer = _NodeTracer(node)
    try:
        graph = tracer.trace(network)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError):
        return None
    read, output = tracer.read, next(item for item in graph.nodes if item.op == "output")
    scores = output.args[0]
    if read is None or tracer.calls != node.calls or (with_scores and not isinstance(scores, fx.Node)):
        return None
    # Pooled right where the node ran: what comes after may work in place on the very tensor that was read.
    with graph.inserting_after(read):
        pooled = graph.call_module(POOL, (read,))
    if with_scores:
        with graph.inserting_before(output):
            output.args = ((pooled, graph.call_method("float", (scores,))),)
    else:
        for item in reversed(graph.nodes):
            if item is pooled:
                break
            graph.erase_node(item)
        graph.output(pooled)
    return _module_of(graph, network, {POOL: Pool(node, pooling)})


def fold_batch_norms(graphed: fx.GraphModule) -> fx.GraphModule:
    """Return the graph with each batch norm folded into the convolution before it, where nothing else reads between.

    ``w' = w * gamma / sqrt(var + eps)`` and ``b' = (b - mean) * gamma / sqrt(var + eps) + beta``, computed in float64.
    """
    graph = copy.deepcopy(graphed.graph)
    modules = dict(graphed.named_modules())
    uses = Counter(item.target for item in graph.nodes if item.op == "call_module")
    folded: dict[str, Any] = {}
    for item in list(graph.nodes):
        before = item.args[0] if item.op == "call_module" and item.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        convolution, norm = modules[str(before.target)], modules[str(item.target)]
        if type(convolution) is not nn.Conv2d or type(norm) is not nn.BatchNorm2d or norm.running_var is None:
            continue
        if uses[before.target] != 1 or convolution.training or norm.training:
            continue
        folded[str(before.target)] = _fold(convolution, norm)
        item.replace_all_uses_with(before)
        graph.erase_node(item)
    return _module_of(graph, graphed, folded)


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() if convolution.bias is None else convolution.bias.double() - norm.running_mean
    bias = shift * scale + (0.0 if norm.bias is None else norm.bias.double())
    folded = copy.copy(convolution)  # its own parameters, the same settings
    folded._parameters = dict(convolution._parameters)
    weight = convolution.weight.detach().double() * scale.view(-1, 1, 1, 1)
    folded.weight = nn.Parameter(weight.to(convolution.weight.dtype), requires_grad=False)
    folded.bias = nn.Parameter(bias.detach().to(convolution.weight.dtype), requires_grad=False)
    return folded


def _module_of(graph: fx.Graph, network: nn.Module, others: dict[str, Any]) -> fx.GraphModule:
    """Return the graph as a module that holds what the graph uses and nothing else."""
    targets = {str(item.target) for item in graph.nodes if item.op in ("call_module", "get_attr")}
    found = {target: others[target] if target in others else _attribute(network, target) for target in targets}
    return fx.GraphModule(found, graph).eval()


def _attribute(network: nn.Module, target: str) -> Any:
    module, _, name = target.rpartition(".")
    return getattr(network.get_submodule(module), name)


class _NodeTracer(fx.Tracer):
    """Traces a network and remembers the value at a node; of several calls the last, as with hooks."""

    def __init__(self, node: Node) -> None:
        super().__init__(autowrap_modules=(), param_shapes_constant=False)
        self.node = node
        self.read: fx.Node | None = None
        self.calls = 0

    def trace(self, root: nn.Module | Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        graph = super().trace(root, concrete_args)
        if self.node.module == "":
            items = list(graph.nodes)
            given = items[-1].args[0]
            self._note(fx.Proxy(items[0], self) if self.node.takes else given)
        return graph

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        output = super().call_module(m, forward, args, kwargs)
        if self.path_of_module(m) == self.node.module:
            self._note(args[0] if self.node.takes else output)
        return output

    def _note(self, value: Any) -> None:
        self.calls += 1
        item = value.node if isinstance(value, fx.Proxy) else value
        self.read = item if isinstance(item, fx.Node) else None
