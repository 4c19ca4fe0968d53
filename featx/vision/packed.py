"""A graph's convolutions and linear layers run by oneDNN on weights in its own layout, activations and sums included.

These are the operators that torch.compile's own CPU code calls, used without a compiler. PyTorch's plain operators
lay the weights out anew in every call, and pass the memory once more for each activation and each sum.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional

from featx.vision.graph import SUMS, module_name, module_of, replace_module
from featx.vision.precision import is_exact


class Activation(NamedTuple):
    """An activation as oneDNN's operators take it."""

    name: str = "none"
    scalars: tuple[float, ...] = ()
    algorithm: str = ""


_RELU = Activation("relu")
_FUNCTIONS: Mapping[Any, Activation] = {functional.relu: _RELU, torch.relu: _RELU}


def _activation(item: fx.Node, modules: Mapping[str, nn.Module]) -> Activation | None:
    """Return what an item of a graph does if it is an activation that oneDNN has."""
    if item.op == "call_function":
        return _FUNCTIONS.get(item.target)
    if item.op != "call_module":
        return None
    module = modules[str(item.target)]
    if isinstance(module, nn.GELU):
        return Activation("gelu", (), module.approximate)
    # By type: ReLU6 is a Hardtanh and says so.
    return {
        nn.ReLU: _RELU,
        nn.ReLU6: Activation("hardtanh", (0.0, 6.0)),
        nn.SiLU: Activation("swish"),
        nn.Hardswish: Activation("hardswish"),
    }.get(type(module))


def can_pack(dtype: str) -> bool:
    """Tell whether this PyTorch has the operators for a dtype on this processor."""
    names = ("_convolution_pointwise", "_linear_pointwise", "_reorder_convolution_weight", "_reorder_linear_weight")
    if not torch._C._has_mkldnn or not all(hasattr(torch.ops.mkldnn, name) for name in names):
        return False
    return dtype == "float32" or (dtype == "bfloat16" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))


class PackedConvolution(nn.Module):
    """A convolution, its activation, and a sum between the two; lays its weights out for the first input it sees."""

    def __init__(self, convolution: nn.Conv2d, activation: Activation, dtype: torch.dtype) -> None:
        super().__init__()
        self.activation, self.dtype = activation, dtype
        self._settings: list[Any] = [
            list(map(int, convolution.padding)),
            list(convolution.stride),
            list(convolution.dilation),
            convolution.groups,
        ]
        self._weight = convolution.weight.detach().to(dtype)
        self._bias = None if convolution.bias is None else convolution.bias.detach()
        self._packed: torch.Tensor | None = None

    def forward(self, images: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """Return activation(convolution(images) + other) in the layer's dtype."""
        images = images.to(self.dtype, memory_format=torch.channels_last)
        if self._packed is None:
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(
                self._weight, *self._settings, list(images.shape)
            )
            del self._weight
        name, scalars, algorithm = self.activation
        operator_ = torch.ops.mkldnn._convolution_pointwise
        result: torch.Tensor
        if other is None:
            result = operator_(images, self._packed, self._bias, *self._settings, name, scalars, algorithm)
        else:
            other = other.to(self.dtype, memory_format=torch.channels_last)
            unary = None if name == "none" else name
            bias = None if self._bias is None else self._bias.to(self.dtype)  # this operator wants one dtype
            result = operator_.binary(
                images, other, self._packed, bias, *self._settings, "add", 1.0, unary, scalars, algorithm
            )
        return result


class PackedLinear(nn.Module):
    """A linear layer and its activation; lays its weights out for the first input it sees."""

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, activation: Activation, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.activation, self.dtype = activation, dtype
        self._weight = weight.detach().to(dtype)
        self._bias = None if bias is None else bias.detach()
        self._packed: torch.Tensor | None = None

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return activation(linear(values)) in the layer's dtype."""
        values = values.to(self.dtype)
        if self._packed is None:
            rows = values.numel() // values.shape[-1]
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self._weight, rows)
            del self._weight
        name, scalars, algorithm = self.activation
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            values, self._packed, self._bias, name, scalars, algorithm
        )
        return result


class PackedAttention(nn.Module):
    """`nn.MultiheadAttention` of a sequence with itself, of which only the output is wanted."""

    def __init__(self, attention: nn.MultiheadAttention, dtype: torch.dtype) -> None:
        super().__init__()
        assert attention.in_proj_weight is not None
        self.n_heads = attention.num_heads
        out = attention.out_proj
        self.inward = PackedLinear(attention.in_proj_weight, attention.in_proj_bias, Activation(), dtype)
        self.outward = PackedLinear(out.weight, out.bias, Activation(), dtype)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the attended tokens (B, n, width), and None in place of the weights."""
        parts = self.inward(tokens).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        values = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        return self.outward(values.transpose(1, 2).flatten(2)), None


PACKED = (PackedConvolution, PackedLinear, PackedAttention)
"""What a graph may hold after `pack_graph`."""


def pack_graph(
    graphed: fx.GraphModule, dtype: torch.dtype = torch.float32, exact: Collection[str] = ()
) -> fx.GraphModule:
    """Return a graph whose convolutions, linear layers and attention run on packed weights.

    Parameters
    ----------
    graphed : fx.GraphModule
        From `featx.vision.graph.cut_graph`.
    dtype : torch.dtype
        Of those layers' arithmetic; what lies between them is computed in the dtype that it gets.
    exact : collection of str
        Modules of the network whose layers compute in float32 all the same.
    """
    graph, modules = copy.deepcopy(graphed.graph), dict(graphed.named_modules())
    places = {item: i for i, item in enumerate(graph.nodes)}
    packed: dict[str, nn.Module] = {}
    for item in list(graph.nodes):
        if item.op != "call_module" or item.kwargs.keys() - {"need_weights"}:
            continue
        module = modules[str(item.target)]
        its_dtype = torch.float32 if is_exact(module_name(item), exact) else dtype
        if type(module) is nn.Conv2d and _plain(module):
            _take_sum(graph, item, places)
            made: nn.Module = PackedConvolution(module, _take_activation(graph, item, modules), its_dtype)
        elif type(module) is nn.Linear:
            made = PackedLinear(module.weight, module.bias, _take_activation(graph, item, modules), its_dtype)
        elif type(module) is nn.MultiheadAttention and _is_self_attention(module, item):
            made = PackedAttention(module, its_dtype)
            item.args, item.kwargs = item.args[:1], {}
        else:
            continue
        replace_module(item, made, packed, "packed")
    return module_of(graph, graphed, packed)


def _plain(convolution: nn.Conv2d) -> bool:
    return convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)


def _is_self_attention(attention: nn.MultiheadAttention, item: fx.Node) -> bool:
    if len(item.args) != 3 or len(set(item.args)) != 1 or item.kwargs.get("need_weights") is not False:
        return False
    plain = attention.bias_k is None and not attention.add_zero_attn and attention.in_proj_weight is not None
    return plain and attention.batch_first


def _take_activation(graph: fx.Graph, item: fx.Node, modules: Mapping[str, nn.Module]) -> Activation:
    """Take the activation that alone reads an item out of the graph, and return it."""
    reader = next(iter(item.users), None)
    activation = None if reader is None or len(item.users) > 1 else _activation(reader, modules)
    if reader is None or activation is None:
        return Activation()
    reader.replace_all_uses_with(item)
    graph.erase_node(reader)
    return activation


def _take_sum(graph: fx.Graph, item: fx.Node, places: Mapping[fx.Node, int]) -> None:
    """Take the sum of a convolution and what was there before it out of the graph: the convolution does it."""
    reader = next(iter(item.users), None)
    if reader is None or len(item.users) > 1 or reader.op != "call_function" or reader.target not in SUMS:
        return
    parts = reader.all_input_nodes
    if len(parts) != 2 or len(reader.args) != 2 or reader.kwargs:
        return
    other = parts[0] if parts[1] is item else parts[1]
    if places[other] > places[item]:
        return
    # The sum in place would change what others read.
    if reader.target is operator.iadd and parts[0] is other and len(other.users) > 1:
        return
    item.args = (*item.args, other)
    reader.replace_all_uses_with(item)
    graph.erase_node(reader)
