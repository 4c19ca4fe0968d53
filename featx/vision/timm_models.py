"""timm's networks (``timm:NAME``): their names, how each is built and takes weights, its own preprocess.

timm is an optional dependency, imported here alone and only for such a name. Names, weights and preprocess come from
timm's own registry; nothing is retyped here. A name is a key of that registry and never a file, an address or code.
"""

from __future__ import annotations

import fnmatch
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, cast

import torch
from torch import nn

from featx.errors import MissingExtraError, UnknownNameError, UsageError, WeightsError
from featx.spec import TIMM, Preprocess
from featx.vision import nodes, tensors
from featx.vision.registry import seeded, without_values

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")

_FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)
"""What timm's builders and converters raise on what does not fit them."""


@dataclass(frozen=True)
class Model:
    """A network of timm's registry with one set of weights.

    Attributes
    ----------
    name : str
        ``"resnet50.a1_in1k"``: the architecture and the tag of the weights, or the architecture alone where timm has
        no weights.
    config : dict
        What timm knows of these weights: input size, normalisation, where they are.
    """

    name: str
    config: dict[str, Any]

    @property
    def classifiers(self) -> tuple[str, ...]:
        """The modules that give the class scores."""
        found = self.config.get("classifier")
        return (found,) if isinstance(found, str) else tuple(found or ())

    @property
    def has_weights(self) -> bool:
        """Whether timm says where the weights are."""
        return bool(self.config.get("hf_hub_id") or (self.config.get("url") and not self.config.get("custom_load")))


def library() -> Any:
    """Return timm.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import timm
        import timm.data
        import timm.models
    except ImportError as error:
        raise MissingExtraError("a backbone of timm", "timm") from error
    return timm


def names(pattern: str = "*") -> list[str]:
    """Return the names of timm's architectures that fit a pattern, or contain it where it holds no wildcards; sorted.

    Parameters
    ----------
    pattern : str
        Without ``timm:``.
    """
    glob = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    return sorted(fnmatch.filter(library().list_models(), glob))


def find(backbone: str, weights: str = "DEFAULT") -> Model:
    """Return a network of timm's registry.

    Parameters
    ----------
    backbone : str
        ``"timm:resnet50"`` or ``"timm:resnet50.a1_in1k"``.
    weights : str
        ``"DEFAULT"``: those that the name says, or timm's first ones; ``"a1_in1k"`` or ``"resnet50.a1_in1k"``.

    Raises
    ------
    UnknownNameError
        If there is no such network, or no such weights of it.
    UsageError
        If the name is an address.
    """
    timm = library()
    name = backbone.removeprefix(TIMM)
    if ":" in name or "/" in name:
        raise UsageError(
            f"backbone {backbone!r}: only networks of timm's own registry have names here; of one from a hub or a "
            "folder, give the name of its architecture, and its file with --weights FILE"
        )
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        known = [f"{TIMM}{one}" for one in timm.list_models()]
        raise UnknownNameError("backbone", f"{TIMM}{architecture}", known, hint="`featx backbones timm:` lists them")
    tags = _tags().get(architecture, [])
    for kind, given in (("backbone", tag), ("weights", weights.removeprefix(f"{architecture}."))):
        if given not in ("", "DEFAULT", *tags):
            known = tags if kind == "weights" else [f"{TIMM}{architecture}.{one}" for one in tags]
            hint = f"weights of {architecture}: {', '.join(tags) or 'none'}; or random, or a .pth or .safetensors file"
            raise UnknownNameError(kind, backbone if kind == "backbone" else weights, known, hint=hint)
        if given not in ("", "DEFAULT"):
            tag = given
    found = timm.models.get_pretrained_cfg(f"{architecture}.{tag}" if tag else architecture)
    config = found.to_dict() if found is not None else {}
    tag = tag or config.get("tag") or ""
    return Model(f"{architecture}.{tag}" if tag else architecture, config)


def preprocess_of(model: Model) -> Preprocess:
    """Return timm's own preprocess for the evaluation of a network.

    Raises
    ------
    UsageError
        If it is of a kind that featx does not have.
    """
    config = library().data.resolve_data_config({}, pretrained_cfg=model.config)
    channels, height, width = config["input_size"]
    mode, interpolation = config["crop_mode"], config["interpolation"]
    if channels != 3 or mode not in ("center", "squash") or (mode == "center" and height != width):
        raise UsageError(
            f"backbone {TIMM}{model.name}: its preprocess (crop mode {mode!r}, {channels} x {height} x {width}) is of "
            "a kind that featx does not have; give the network as a function, package.module:function"
        )
    if interpolation not in INTERPOLATIONS or config.get("crop_border_pixels"):
        raise UsageError(f"backbone {TIMM}{model.name}: its preprocess resizes in a way that featx does not have")
    scaled = [math.floor(side / config["crop_pct"]) for side in (height, width)]
    return Preprocess(
        resize=tuple(scaled) if mode == "squash" else (scaled[0],),
        crop=(height, width),
        mean=tuple(map(float, config["mean"])),
        std=tuple(map(float, config["std"])),
        interpolation=interpolation,
    )


def build(model: Model, *, seed: int | None = None, n_classes: int | None = None) -> nn.Module:
    """Build a network in eval mode; the global random state is left as it was.

    Parameters
    ----------
    model : Model
        Of `find`.
    seed : int, optional
        Draws timm's random initialisation. None: most parameters are on the meta device, without values.
    n_classes : int, optional
        Number of the classifier's outputs, 0: without a classifier; None: as many as the weights have.
    """
    arguments = {} if n_classes is None else {"num_classes": n_classes}
    make = partial(_create, model.name, pretrained=False, **arguments)
    if seed is not None:
        return seeded(make, seed)
    try:
        with without_values():
            return seeded(make, 0)
    except RuntimeError:  # a builder that computes with its parameters
        return seeded(make, 0)


def with_node(model: Model, network: nn.Module, make: Callable[[int], nn.Module]) -> tuple[nn.Module, str]:
    """Return a network and the node of timm's own features: what ``forward_head(..., pre_logits=True)`` gives.

    That is the input of the classifier. Where that is no vector (an attention pool), or there are two classifiers, one
    of several layers, or none, it is the output of the network without classifier, which then has no class scores.

    Parameters
    ----------
    model : Model
        Of `find`.
    network : nn.Module
        As built.
    make : callable
        ``make(0)`` gives the same network without classifier.
    """
    size = model.config["input_size"][1:]
    classifier = classifier_of(network)
    if classifier is not None:
        traced = nodes.trace(network, size, meta=True, classifier=classifier)
        node = traced.node(f"{classifier}:input", classifier, takes=True) if classifier in traced.calls else None
        # Where more goes with the classifier than itself, it begins before the layer that is named.
        goes = network.state_dict().keys() - build(model, n_classes=0).state_dict().keys()
        alone = all(name.startswith(f"{classifier}.") for name in goes)
        if node is not None and math.prod(node.shape) == node.shape[0] and alone:
            return network, node.name
    return make(0), nodes.OUTPUT


def classifier_of(network: nn.Module) -> str | None:
    """Return the name of the classifier, where timm's network has exactly one."""
    name = getattr(network, "pretrained_cfg", {}).get("classifier")
    if not isinstance(name, str) or not getattr(network, "num_classes", 0):
        return None
    return name if name in dict(network.named_modules()) else None


def fit(model: Model, state: tensors.StateDict, *, weights: str) -> tuple[nn.Module, str]:
    """Build a network for a state dict, with as many classes as that has, and load it; return it with its node.

    Weights as timm has them on its hub, or as their authors wrote them, are converted by timm's own rules.

    Raises
    ------
    WeightsError
        If the state dict is of another architecture; the message calls it what `weights` says.
    """
    network = build(model)
    n_classes = _classes_in(network, state)
    if n_classes is not None:
        network = build(model, n_classes=n_classes)
    network, node = with_node(model, network, lambda n: build(model, n_classes=n))
    headless = node == nodes.OUTPUT
    ignore = tuple(f"{name}." for name in model.classifiers) if headless else ()
    label = f"{weights} for {TIMM}{model.name}"
    wanted = {name: value for name, value in state.items() if not name.startswith(ignore)}
    n_classes = 0 if headless else n_classes
    try:
        tensors.load_into(network, wanted, weights=label)
    except WeightsError:
        converted = _converted(model, state, n_classes)
        if converted is None:
            raise
        return converted, node
    if any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers())):
        network = build(model, seed=0, n_classes=n_classes)
        tensors.load_into(network, wanted, weights=label)
    return network, node


@cache
def _tags() -> dict[str, list[str]]:
    """Return the tags of the weights that timm has, by architecture."""
    tags: dict[str, list[str]] = {}
    for name in library().list_pretrained():
        architecture, _, tag = name.partition(".")
        tags.setdefault(architecture, []).append(tag)
    return tags


def _create(name: str, **arguments: Any) -> nn.Module:
    with warnings.catch_warnings(action="ignore"):  # of old names, which go on working
        return cast(nn.Module, library().create_model(name, **arguments)).eval()


def _classes_in(network: nn.Module, state: Mapping[str, torch.Tensor]) -> int | None:
    """Return how many classes a state dict's classifier tells apart, if they are other than the network's."""
    classifier = classifier_of(network)
    own, given = (found.get(f"{classifier}.weight") for found in (network.state_dict(), state))
    if own is None or given is None or given.ndim != own.ndim or given.shape[1:] != own.shape[1:]:
        return None
    return int(given.shape[0]) if given.shape[0] != own.shape[0] else None


def _converted(model: Model, state: tensors.StateDict, n_classes: int | None) -> nn.Module | None:
    """Return a network into which timm put a state dict by its own rules; None if that does not give a whole one."""
    arguments: dict[str, Any] = {} if n_classes is None else {"num_classes": n_classes}

    def make(seed: int) -> nn.Module:
        overlay = {"state_dict": dict(state), "source": ""}
        return seeded(partial(_create, model.name, pretrained=True, pretrained_cfg_overlay=overlay, **arguments), seed)

    try:
        # What timm left as it was drawn differs from one seed to the next.
        network, other = make(0), make(1)
    except _FAILURES:
        return None
    return network if tensors.tensors_sha256(network) == tensors.tensors_sha256(other) else None
