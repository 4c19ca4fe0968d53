"""Backbones: from what the user asked for to a network with its weights and the spec of its features."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from featx.errors import UnknownNameError, UsageError, WeightsError
from featx.spec import TIMM, FeatureRequest, FeatureSpec, Preprocess
from featx.vision import download, mini, networks, nodes, own, precision, registry, tensors, timm_models, views
from featx.vision.networks import FILE, MINI, OWN
from featx.vision.nodes import Node
from featx.vision.reading import Reading

DTYPES = ("float32", "bfloat16", "float16")
STORAGES = ("float32", "float16")

_MEASURED = 30
"""Of so many of timm's networks at most the sizes are listed: each must be built for that."""


@dataclass(frozen=True)
class Backbone:
    """A frozen network and what it takes to read features from it.

    Attributes
    ----------
    spec : FeatureSpec
        Everything that decides the features.
    network : nn.Module
        In eval mode, float32, on the CPU.
    node : Node
        Where the features are read.
    n_classes : int or None
        How many class scores the network gives; None: it has no classifier.
    weights_blob : callable, or None
        Gives the weights in the safetensors format, where they are the user's own (a file, or
        ``package.module:function``); None where the spec's names are enough to have them again.
    """

    spec: FeatureSpec
    network: nn.Module
    node: Node
    n_classes: int | None = None
    weights_blob: Callable[[], bytes] | None = None


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


def load_backbone(request: FeatureRequest, *, progress: download.Progress | None = None) -> Backbone:
    """Build a network, load its weights (downloading them if need be), and resolve node, pooling and preprocess.

    The preprocess is the one with which the weights were evaluated; for random weights and a user's own file that of
    the backbone's first weights in torchvision's list, unless the file is one of torchvision's by its SHA-256.

    Parameters
    ----------
    request : FeatureRequest
        What the user asks for.
    progress : callable, optional
        Told of a download, see `featx.vision.download.Progress`.

    Raises
    ------
    UnknownNameError
        If the backbone, weights, node, pooling, dtype or storage does not exist.
    UsageError
        If node, pooling and class scores do not go together, or views are asked for that cannot be.
    WeightsError
        If the weights are missing, damaged, of another architecture, or cannot be downloaded.
    InputError
        If a user's own function fails.
    """
    (backbone,) = load_backbones([request], progress=progress)
    return backbone


def load_backbones(requests: Sequence[FeatureRequest], *, progress: download.Progress | None = None) -> list[Backbone]:
    """Do what `load_backbone` does for several requests; those of the same backbone and weights share one network."""
    for request in requests:
        for kind, value, known in (("dtype", request.dtype, DTYPES), ("storage", request.storage, STORAGES)):
            if value not in known:
                raise UnknownNameError(kind, value, known)
        Reading.check(request)
    planned = [views.plan_views(request.n_views, request.view_seed, request.view_kinds) for request in requests]
    networks_of: dict[tuple[str, str], tuple[networks.LoadedNetwork, nodes.Trace]] = {}
    backbones = []
    for request, plan in zip(requests, planned, strict=True):
        key = request.backbone, request.weights
        if key not in networks_of:
            loaded = networks.load_network(*key, progress)
            networks_of[key] = loaded, _trace(request.backbone, loaded.network, loaded.preprocess)
        backbones.append(_resolved(request, plan, *networks_of[key]))
    return backbones


def _resolved(
    request: FeatureRequest, views_planned: tuple[str, ...], loaded: networks.LoadedNetwork, traced: nodes.Trace
) -> Backbone:
    node = nodes.find_node(
        loaded.network, traced, request.node if request.node is not None else loaded.node, backbone=request.backbone
    )
    pooling = nodes.check_pooling(node, request.pooling)
    if request.with_logits and (traced.classifier is None or not loaded.scores):
        raise UsageError(f"--with-logits: {request.backbone} with weights {loaded.weights} gives no class scores")
    spec = FeatureSpec(
        backbone=request.backbone,
        weights=loaded.weights,
        weights_sha256=loaded.sha256,
        node=node.name,
        pooling=pooling,
        feature_shape=nodes.pooled_shape(node, pooling),
        preprocess=replace(
            loaded.preprocess,
            window=request.window,
            percentiles=request.percentiles,
            bands=request.bands,
            decoder=request.decoder,
        ),
        views=views_planned,
        dtype=request.dtype,
        float32_modules=precision.float32_modules(request.backbone, request.dtype),
        storage=request.storage,
        logits=request.with_logits,
    )
    network = loaded.network
    return Backbone(spec, network, node, traced.n_classes, (lambda: tensors.pack(network)) if loaded.own else None)


def restore_backbone(
    spec: FeatureSpec,
    weights: bytes | None = None,
    *,
    allow_code: str | None = None,
    progress: download.Progress | None = None,
) -> Backbone:
    """Have the backbone of a spec again.

    Parameters
    ----------
    spec : FeatureSpec
        From a feature file or a bundle.
    weights : bytes, optional
        What `Backbone.weights_blob` gave, for weights of the user's own.
    allow_code : str, optional
        The ``package.module:function`` that may be imported. A name in a file is not reason enough to run code.
    progress : callable, optional
        Told of a download.

    Raises
    ------
    UsageError
        If the spec names a function and `allow_code` does not; if the features were made elsewhere, or its views
        are not texts that this version knows.
    WeightsError
        If the weights cannot be had, or are others than the spec's.
    """
    if spec.is_foreign:
        raise UsageError(
            f"these features were made elsewhere and imported ({spec.backbone}), so no image can be turned into "
            "them here; make the features of the new images where those were made, and import them in the same words: "
            "featx cache import FILE -o NEW.h5 --made-by WORDS"
        )
    views.check_views(spec.views)
    if own.is_own(spec.backbone) and allow_code != spec.backbone:
        raise UsageError(
            f"these features come from code of the user's own, {spec.backbone}; to run it, say so: "
            f"--backbone {spec.backbone}, or --trust"
        )
    if weights is None:
        return _load_again(spec, progress)
    state = tensors.unpack(weights, weights=spec.weights)
    if own.is_own(spec.backbone):
        network = own.call_function(spec.backbone, seed=0)[0]
        tensors.load_into(network, state, weights=spec.weights)
        if spec.weights != FILE and tensors.tensors_sha256(network) != spec.weights_sha256:
            raise WeightsError(f"the stored weights of {spec.backbone} are not those of the spec", weights=spec.weights)
    elif spec.backbone == MINI:
        network = mini.featx_mini()
        tensors.load_into(network, state, weights=spec.weights)
    elif spec.backbone.startswith(TIMM):
        network, _ = timm_models.fit(timm_models.find(spec.backbone), state, weights=spec.weights)
    else:
        network = networks.fit_torchvision(networks.check_name(spec.backbone), spec.preprocess, state, spec.weights)
    return _of_spec(spec, network, lambda: weights)


def another_reading(backbone: Backbone, spec: FeatureSpec) -> Backbone:
    """Return what another spec reads from a network that is here already.

    Raises
    ------
    WeightsError
        If the network has no such node.
    """
    return _of_spec(spec, backbone.network, backbone.weights_blob)


def _of_spec(spec: FeatureSpec, network: nn.Module, weights_blob: Callable[[], bytes] | None) -> Backbone:
    traced = _trace(spec.backbone, network, spec.preprocess)
    node = nodes.find_node(network, traced, spec.node, backbone=spec.backbone)
    if nodes.pooled_shape(node, nodes.check_pooling(node, spec.pooling)) != spec.feature_shape:
        raise WeightsError(
            f"{spec.backbone} gives features of shape {nodes.pooled_shape(node, spec.pooling)} at node {spec.node}, "
            f"the file's have {spec.feature_shape}",
            weights=spec.weights,
        )
    return Backbone(spec, network, node, traced.n_classes, weights_blob)


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
    traced = _trace(name, network, preprocess)
    return _node_infos(name, traced, nodes.default_node(traced))


def _timm_nodes(name: str) -> list[NodeInfo]:
    model = timm_models.find(name)
    network, node = timm_models.with_node(
        model, timm_models.build(model), lambda n: timm_models.build(model, n_classes=n)
    )
    traced = _trace(name, network, timm_models.preprocess_of(model))
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
    return BackboneInfo(f"{TIMM}{name}", n_features, int(size[1]), n_parameters, tag, timm_models.is_here(model))


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


def _trace(name: str, network: nn.Module, preprocess: Preprocess) -> nodes.Trace:
    size = preprocess.crop or preprocess.resize
    if len(size) != 2:
        raise UsageError(
            f"backbone {name}: its preprocess gives images of different sizes; "
            "it needs a crop (height, width), or a resize to (height, width)"
        )
    classifier = timm_models.classifier_of(network) if name.startswith(TIMM) else None
    return nodes.trace(network, size, meta=not own.is_own(name), classifier=classifier)


def _load_again(spec: FeatureSpec, progress: download.Progress | None) -> Backbone:
    if spec.weights in (FILE, OWN):
        raise WeightsError(
            f"the weights of {spec.backbone} were the user's own, and they are not stored beside the features",
            weights=spec.weights,
        )
    request = FeatureRequest(
        backbone=spec.backbone,
        weights=spec.weights,
        node=spec.node,
        pooling=spec.pooling,
        dtype=spec.dtype,
        storage=spec.storage,
        window=spec.preprocess.window,
        percentiles=spec.preprocess.percentiles,
        bands=spec.preprocess.bands,
        decoder=spec.preprocess.decoder,
        with_logits=spec.logits,
    )
    backbone = load_backbone(request, progress=progress)
    # The plan's texts are all there is to views: no seed is needed to have them again.
    backbone = replace(backbone, spec=replace(backbone.spec, views=spec.views))
    differences = backbone.spec.differences(spec)
    if differences:
        lines = [f"  {name}: here {here}, the file has {there}" for name, (here, there) in differences.items()]
        raise WeightsError(
            "\n".join([f"{spec.backbone} is not the same here as when the features were made:", *lines]),
            weights=spec.weights,
        )
    return backbone
