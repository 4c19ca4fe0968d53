"""The nodes of a network, where features can be read: found in a trace of it, each with the poolings that fit.

A node is named after a module: ``layer4`` is what the module gives, ``fc:input`` what it takes; ``output`` is what
the whole network gives.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from featx.errors import UnknownNameError, UsageError
from featx.vision.registry import classifier_of

OUTPUT = "output"
POOLINGS = ("avg", "max", "cls", "mean-tokens", "none")
CLASS_TOKENS = ("class_token", "cls_token")
"""What networks call the parameter that is the class token's embedding; it is the first token then."""
DECAF = {
    "alexnet": {"fc6": "classifier.2", "fc7": "classifier.5"},
    "vgg": {"fc6": "classifier.1", "fc7": "classifier.4"},
}
"""DeCAF's names of the fully connected layers, after the ReLU (Donahue et al. 2014, https://arxiv.org/abs/1310.1531)."""

_PROBE_BATCH = 2


@dataclass(frozen=True)
class Node:
    """A place in a network where features are read.

    Attributes
    ----------
    name : str
        As in the spec.
    module : str
        The module's name in the network; ``""`` is the network itself.
    takes : bool
        Whether the module's input is read and not its output.
    shape : tuple of int
        Of one sample.
    calls : int
        How often one forward pass uses the module; the last time counts.
    class_token : bool
        Whether the first token is a class token.
    channel_axis : int or None
        Of a feature map of one sample: 0 for (C, H, W), 2 for (H, W, C); None when it is not known.
    """

    name: str
    module: str
    takes: bool
    shape: tuple[int, ...]
    calls: int = 1
    class_token: bool = False
    channel_axis: int | None = None

    @property
    def poolings(self) -> tuple[str, ...]:
        """The poolings that fit, the default first."""
        if len(self.shape) == 3 and self.channel_axis is not None:
            return ("avg", "max", "none")
        if len(self.shape) == 2:
            return ("cls", "mean-tokens", "none") if self.class_token else ("mean-tokens", "none")
        return ("none",)


@dataclass
class _Call:
    takes: tuple[int, ...] | None = None
    gives: tuple[int, ...] | None = None
    count: int = 0


@dataclass(frozen=True)
class Trace:
    """What one forward pass of a network shows.

    Attributes
    ----------
    calls : dict of str to _Call
        By module name, in order of registration: the shapes (with the batch) of the last call's first input and of
        its output, None where they are no tensors; modules that did not run are missing.
    last : str or None
        The module with weights of its own that ran last.
    class_token : bool
        Whether the network has a class token.
    square : bool
        Whether the input was square.
    """

    calls: dict[str, _Call]
    last: str | None
    class_token: bool
    square: bool

    def node(self, name: str, module: str, *, takes: bool) -> Node | None:
        """Return the node at a module that ran, or None if what is there is not one tensor per image."""
        call = self.calls[module]
        shape = call.takes if takes else call.gives
        if shape is None or len(shape) < 2 or shape[0] != _PROBE_BATCH:
            return None
        axis = _channel_axis(shape[1:], self.square) if len(shape) == 4 else None
        return Node(name, module, takes, shape[1:], call.count, self.class_token, axis)

    @property
    def classifier(self) -> str | None:
        """The module that gives the class scores, or None in a network that has none."""
        output = self.calls[""].gives
        if self.last is None or output is None or len(output) != 2:
            return None
        gives = self.calls[self.last].gives
        return self.last if gives is not None and len(gives) in (2, 4) and gives[:2] == output else None

    @property
    def n_classes(self) -> int | None:
        """How many classes the network tells apart, or None if it has no classifier."""
        output = self.calls[""].gives
        return None if self.classifier is None or output is None else output[1]


def trace(network: nn.Module, image_size: tuple[int, int], *, meta: bool, classifier: str | None = None) -> Trace:
    """Run a network once on two blank images and note what every module takes and gives.

    Parameters
    ----------
    network : nn.Module
        In eval mode; not changed.
    image_size : tuple of int
        Height and width.
    meta : bool
        Whether to run on the meta device, where only shapes are computed.
    classifier : str, optional
        The module that is the classifier, where that is known; None: the one that looks like it.

    Raises
    ------
    UsageError
        If the network cannot take such images.
    """
    calls: dict[str, _Call] = {}
    ran: list[str] = []
    candidate = classifier_of(network) if classifier is None else classifier

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            call = calls.setdefault(name, _Call())
            call.takes, call.gives = _shape(inputs[0] if inputs else None), _shape(output)
            call.count += 1
            if next(module.parameters(recurse=False), None) is not None and next(module.children(), None) is None:
                ran.append(name)

        return hook

    named = dict(network.named_modules())
    handles = [module.register_forward_hook(note(name)) for name, module in named.items()]
    device = "meta" if meta else "cpu"
    images = torch.zeros((_PROBE_BATCH, 3, *image_size), device=device)
    try:
        with torch.inference_mode():
            if meta:
                functional_call(network, _on_meta(network), (images,), tie_weights=False)
            else:
                network(images)
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError, AttributeError) as error:
        size = f"{image_size[0]} x {image_size[1]}"
        raise UsageError(
            f"the network does not run on float32 images of shape (B, 3, {image_size[0]}, {image_size[1]}); "
            f"a function may give (network, featx.spec.Preprocess) if it wants another size than {size}: "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    # A classifier is registered last as well: the last layer of a transformer without a head is not one.
    last = ran[-1] if ran and ran[-1] == candidate else None
    token = any(name.rsplit(".", 1)[-1] in CLASS_TOKENS for name, _ in network.named_parameters())
    return Trace({name: calls[name] for name in named if name in calls}, last, token, image_size[0] == image_size[1])


def default_node(traced: Trace) -> Node:
    """Return the input of the classifier, or the network's output when it has no classifier.

    Raises
    ------
    UsageError
        If the network gives no tensor.
    """
    classifier = traced.classifier
    if classifier is not None:
        node = traced.node(f"{classifier}:input", classifier, takes=True)
        if node is not None:
            return node
    node = traced.node(OUTPUT, "", takes=False)
    if node is None:
        raise UsageError("the network gives no tensor with one row per image; name a node with --node")
    return node


def list_nodes(traced: Trace) -> list[Node]:
    """Return the nodes that can be read: the modules' outputs in order of registration, and the default one."""
    modules = [name for name in traced.calls if name]
    outputs = [traced.node(name, name, takes=False) for name in modules]
    if OUTPUT not in modules:
        outputs.append(traced.node(OUTPUT, "", takes=False))
    found = [node for node in outputs if node is not None]
    default = default_node(traced)
    return found if default in found else [*found, default]


def decaf_names(backbone: str) -> dict[str, str]:
    """Return DeCAF's names of a backbone's nodes: of AlexNet's and VGG's, else none."""
    return next((names for family, names in DECAF.items() if backbone.startswith(family)), {})


def find_node(network: nn.Module, traced: Trace, name: str | None, *, backbone: str = "") -> Node:
    """Return the node with a name.

    Parameters
    ----------
    network : nn.Module
        What was traced.
    traced : Trace
        Of the network.
    name : str or None
        ``"MODULE"``, ``"MODULE:input"``, ``"output"``; ``"fc6"`` or ``"fc7"`` on AlexNet and VGG; None: the default.
    backbone : str
        The network's name.

    Raises
    ------
    UnknownNameError
        If there is no such module.
    UsageError
        If the module does not run, or gives no tensor.
    """
    if name is None:
        return default_node(traced)
    aliases = decaf_names(backbone)
    module, _, side = aliases.get(name, name).partition(":")
    modules = {path for path, _ in network.named_modules() if path}
    if side not in ("", "input", "output") or (module not in modules and (module, side) != (OUTPUT, "")):
        hint = f"`featx backbones {backbone or 'NAME'} --nodes` lists them; MODULE:input reads what a module takes"
        raise UnknownNameError("node", name, {*modules, *aliases, OUTPUT}, hint=hint)
    path = module if module in modules else ""
    if path not in traced.calls:
        raise UsageError(f"node {name!r}: the network has this module but does not call it when it classifies")
    takes = side == "input"
    node = traced.node(f"{module}:input" if takes else module, path, takes=takes)
    if node is None:
        raise UsageError(
            f"node {name!r} does not {'take' if takes else 'give'} a single tensor with one entry per image; "
            "choose a module around it"
        )
    return node


def check_pooling(node: Node, pooling: str | None) -> str:
    """Return the pooling to use: the one asked for, or the node's default.

    Raises
    ------
    UnknownNameError
        If there is no such pooling.
    UsageError
        If it does not fit the node's shape.
    """
    if pooling is None:
        return node.poolings[0]
    if pooling not in POOLINGS:
        raise UnknownNameError("pooling", pooling, POOLINGS)
    if pooling not in node.poolings:
        why = " and the network has no class token" if pooling == "cls" and len(node.shape) == 2 else ""
        raise UsageError(
            f"pooling {pooling!r} does not fit node {node.name!r}, whose features of one image have the shape "
            f"{node.shape}{why}; what fits: {', '.join(node.poolings)}"
        )
    return pooling


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _on_meta(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return a tensor on the meta device for each of the network's, by name: one for a module that is used twice.

    A name for each of its uses would make `functional_call` put back the wrong tensors afterwards.
    """
    replaced: dict[str, torch.Tensor] = {}
    for prefix, module in network.named_modules():
        own = itertools.chain(
            module.named_parameters(prefix, recurse=False), module.named_buffers(prefix, recurse=False)
        )
        replaced |= {name: torch.empty_like(tensor, device="meta") for name, tensor in own}
    return replaced


def _channel_axis(shape: tuple[int, ...], square: bool) -> int | None:
    # A square image gives a square map, and that shows which axis is the channels': Swin's blocks give (H, W, C).
    # Three axes that show neither are no map (MaxViT's windows of tokens).
    if not square or shape[1] == shape[2]:
        return 0
    return 2 if shape[0] == shape[1] else None
