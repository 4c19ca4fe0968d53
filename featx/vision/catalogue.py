"""The catalogue of backbones: which there are and what is known of each, and the nodes of one."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from torch import nn

from featx.errors import UnknownNameError
from featx.spec import TIMM
from featx.vision import download, mini, networks, nodes, own, registry, timm_models, timm_weights
from featx.vision.networks import MINI
from featx.vision.nodes import Node

_MEASURED = 30
"""Of so many of timm's networks at most the sizes are listed: each must be built for that."""


@dataclass(frozen=True)
class BackboneInfo:
    """One line of ``featx backbones``.

    Attributes
    ----------
    name : str
        As for ``--backbone``.
    n_features : int or None
        Length of one row with default node and pooling; None: of too many of timm's networks at once.
    image_size : int
        Side in pixels of what the network sees with its default weights.
    n_parameters : int or None
        Of the network that featx runs (without GoogLeNet's and Inception's auxiliary heads); None as above.
    weights : str
        What ``DEFAULT`` stands for; ``""`` where there are none.
    weights_here : bool
        Whether they are on this machine.
    """

    name: str
    n_features: int | None
    image_size: int
    n_parameters: int | None
    weights: str
    weights_here: bool


@dataclass(frozen=True)
class NodeInfo:
    """One line of ``featx backbones NAME --nodes``.

    Attributes
    ----------
    name : str
        As for ``--node``.
    shape : tuple of int
        Of one image's features before pooling.
    poolings : tuple of str
        What fits, the default first.
    default : bool
        Whether the features are read here unless another node is asked for.
    alias : str
        Another name for it: ``"fc6"`` or ``"fc7"`` on AlexNet and VGG.
    """

    name: str
    shape: tuple[int, ...]
    poolings: tuple[str, ...]
    default: bool
    alias: str = ""


def list_backbones(pattern: str | None = None) -> list[BackboneInfo]:
    """Return what is known of the backbones, in order of their names.

    Parameters
    ----------
    pattern : str, optional
        Only names that contain it, or that match it where it holds ``*`` or ``?``. ``"timm:..."`` looks among timm's
        names, which are not listed otherwise.

    Raises
    ------
    UnknownNameError
        If no backbone matches.
    MissingExtraError
        If it begins with ``timm:`` and timm is not installed.
    """
    if pattern is not None and pattern.startswith(TIMM):
        return _list_timm(pattern)
    names = [MINI, *registry.names()]
    glob = pattern if pattern is not None and any(sign in pattern for sign in "*?[") else f"*{pattern or ''}*"
    found = fnmatch.filter(names, glob)
    if not found:
        raise UnknownNameError("backbone", pattern or "", names, hint="`featx backbones` lists them all")
    return [_info(name) for name in found]


def list_nodes(name: str) -> list[NodeInfo]:
    """Return the nodes of a backbone at which features can be read.

    Parameters
    ----------
    name : str
        As for ``--backbone``; a user's own function is imported and called.
    """
    if own.is_own(name):
        network, preprocess = own.call_function(name, seed=0)
    elif name.startswith(TIMM):
        return _timm_nodes(name)
    elif name == MINI:
        network, preprocess = mini.featx_mini(), networks.MINI_PREPROCESS
    else:
        preprocess = registry.member_preprocess(registry.default_member(networks.check_name(name)))
        network = registry.build(name, preprocess.crop[0])
    traced = networks.trace_network(name, network, preprocess)
    return _node_infos(name, traced, nodes.default_node(traced))


def _timm_nodes(name: str) -> list[NodeInfo]:
    model = timm_models.find(name)
    network, node = timm_models.with_node(
        model, timm_models.build(model), lambda n: timm_models.build(model, n_classes=n)
    )
    traced = networks.trace_network(name, network, timm_models.preprocess_of(model))
    return _node_infos(name, traced, nodes.find_node(network, traced, node, backbone=name))


def _node_infos(name: str, traced: nodes.Trace, default: Node) -> list[NodeInfo]:
    decaf = {node: alias for alias, node in nodes.decaf_names(name).items()}
    listed = nodes.list_nodes(traced)
    return [
        NodeInfo(node.name, node.shape, node.poolings, node == default, decaf.get(node.name, ""))
        for node in (listed if default in listed else [*listed, default])
    ]


def _list_timm(pattern: str) -> list[BackboneInfo]:
    names = timm_models.names(pattern.removeprefix(TIMM))
    if not names:
        raise UnknownNameError("backbone", pattern, [f"{TIMM}{name}" for name in timm_models.names()])
    return [_timm_info(name, measured=len(names) <= _MEASURED) for name in names]


def _timm_info(name: str, *, measured: bool) -> BackboneInfo:
    model = timm_models.find(name)
    n_features = n_parameters = None
    if measured:
        network = timm_models.build(model)
        width = getattr(network, "head_hidden_size", None) or getattr(network, "num_features", None)
        n_features = width if isinstance(width, int) else None
        n_parameters = sum(parameter.numel() for parameter in network.parameters())
    size = model.config.get("input_size") or (3, 0, 0)
    tag = model.name.partition(".")[2] if model.has_weights else ""
    return BackboneInfo(f"{TIMM}{name}", n_features, int(size[1]), n_parameters, tag, timm_weights.is_here(model))


def _info(name: str) -> BackboneInfo:
    if name == MINI:
        n_parameters = sum(parameter.numel() for parameter in mini.featx_mini().parameters())
        return BackboneInfo(name, mini.N_FEATURES, mini.IMAGE_SIZE, n_parameters, MINI, mini.WEIGHTS_FILE.exists())
    member = registry.default_member(name)
    image_size = registry.member_preprocess(member).crop[0]
    network = registry.build(name, image_size)
    classifier = network.get_submodule(registry.classifier_of(network) or "")
    n_features = classifier.in_features if isinstance(classifier, nn.Linear) else classifier.in_channels
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    here = download.cached_file(member.url).exists()
    return BackboneInfo(name, int(n_features), image_size, n_parameters, member.name, here)  # type: ignore[arg-type]
