"""What of a network is trained: its blocks, from the image to the head."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from featx.errors import UnknownNameError, UsageError
from featx.vision.tuning.adapters import DOWN, UP
from featx.vision.tuning.network import TunedNetwork

TRAIN = ("head", "last-block", "all", "norm", "lora")
"""What may be trained; the head always is."""
_MOST = 0.8
"""A module with at least this share of the parameters is taken apart: its children are blocks."""


def find_blocks(network: TunedNetwork) -> list[list[str]]:
    """Group the parameters on which the features depend into blocks, in the order of their use.

    A block is a child of the network, or of the one child in which most of the network is, and so on inwards: a stage
    of a ResNet, a block of a MobileNet, a layer of a transformer. What has no matrix of weights (a norm, a class token)
    belongs to the block before it.

    Returns
    -------
    list of list of str
        Names of parameters of `TunedNetwork.network`; each in one block.
    """
    used = network.used()
    prefix = _innermost(used)
    blocks: dict[str, list[str]] = {}
    for name in used:
        inner = name.removeprefix(prefix) if name.startswith(prefix) else ""
        block = prefix + inner.partition(".")[0] if inner else name.rpartition(".")[0] or name
        blocks.setdefault(block, []).append(name)
    joined: list[list[str]] = []
    for names in blocks.values():
        if joined and not any(name.endswith("weight") and used[name].ndim > 1 for name in names):
            joined[-1] += names
        else:
            joined.append(names)
    return joined


def _innermost(used: Mapping[str, nn.Parameter]) -> str:
    """Return the longest prefix (with its dot) under which most parameters are, and more than one child."""
    prefix, total = "", sum(parameter.numel() for parameter in used.values())
    while True:
        sizes: dict[str, int] = {}
        for name, parameter in used.items():
            if name.startswith(prefix):
                child, dot, _ = name.removeprefix(prefix).partition(".")
                sizes[child + dot] = sizes.get(child + dot, 0) + parameter.numel()
        largest = max(sizes, key=lambda child: sizes[child], default="")
        inside = {
            name.removeprefix(prefix + largest).partition(".")[0]
            for name in used
            if name.startswith(prefix + largest) and largest
        }
        if not largest.endswith(".") or sizes[largest] < _MOST * total or _is_layer(inside):
            return prefix
        prefix += largest


def _is_layer(children: set[str]) -> bool:
    return children <= {"weight", "bias"}


def choose_parameters(network: TunedNetwork, train: str) -> list[list[str]]:
    """Name the backbone's parameters that are trained, block by block; frozen ones need no gradients afterwards.

    Parameters
    ----------
    network : TunedNetwork
    train : str
        ``"head"``: none; ``"last-block"``; ``"all"`` on which the features depend; ``"norm"``: those of norms;
        ``"lora"``: those of adapters, which `featx.vision.tuning.adapters.add_adapters` put there.

    Raises
    ------
    UnknownNameError
        Not one of `TRAIN`.
    UsageError
        The network has no norms with parameters, or no adapters.
    """
    if train not in TRAIN:
        raise UnknownNameError("part to train", train, TRAIN)
    blocks = find_blocks(network)
    if train == "head":
        blocks = []
    elif train == "last-block":
        blocks = blocks[-1:]
    elif train == "norm":
        blocks = _only(blocks, _names_of_norms(network.network))
        if not blocks:
            raise UsageError("--train norm: this network has no norms with parameters (its batch norms may be folded)")
    elif train == "lora":
        blocks = _only(blocks, {name for block in blocks for name in block if DOWN in name or UP in name})
        if not blocks:
            raise UsageError("--train lora: this network has no adapters")
    chosen = {name for block in blocks for name in block}
    for name, parameter in network.network.named_parameters():
        parameter.requires_grad_(name in chosen)
    return blocks


def _only(blocks: list[list[str]], names: set[str]) -> list[list[str]]:
    return [kept for block in blocks if (kept := [name for name in block if name in names])]


def _names_of_norms(network: nn.Module) -> set[str]:
    return {
        f"{name}.{own}"
        for name, module in network.named_modules()
        if "norm" in type(module).__name__.lower()
        for own, _ in module.named_parameters(recurse=False)
    }
