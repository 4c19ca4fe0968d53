"""Backbones: from what the user asked for to a network with its weights and the spec of its features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from featx.errors import UnknownNameError, UsageError, WeightsError
from featx.spec import TIMM, FeatureRequest, FeatureSpec
from featx.vision import download, mini, networks, nodes, own, precision, tensors, timm_models, views
from featx.vision.networks import FILE, MINI, OWN
from featx.vision.nodes import Node
from featx.vision.places import pooled_shape
from featx.vision.reading import Reading

DTYPES = ("float32", "bfloat16", "float16")
STORAGES = ("float32", "float16")


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
        If node, pooling and class scores do not go together, views are asked for that cannot be, or the network does
        not take images of the size.
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
        if request.image_size is not None and request.image_size < 1:
            raise UsageError(f"an image size of {request.image_size} pixels: at least 1 is needed")
    planned = [views.plan_views(request.n_views, request.view_seed, request.view_kinds) for request in requests]
    networks_of: dict[tuple[str, str], networks.LoadedNetwork] = {}
    traces: dict[tuple[str, str, int | None], nodes.Trace] = {}
    backbones = []
    for request, plan in zip(requests, planned, strict=True):
        key = request.backbone, request.weights
        if key not in networks_of:
            networks_of[key] = networks.load_network(*key, progress)
        loaded = _at_size(networks_of[key], request)
        if (*key, request.image_size) not in traces:
            traces[*key, request.image_size] = _trace(loaded, request)
        backbones.append(_resolved(request, plan, loaded, traces[*key, request.image_size]))
    return backbones


def _at_size(loaded: networks.LoadedNetwork, request: FeatureRequest) -> networks.LoadedNetwork:
    if request.image_size is None:
        return loaded
    return replace(loaded, preprocess=loaded.preprocess.at_size(request.image_size))


def _trace(loaded: networks.LoadedNetwork, request: FeatureRequest) -> nodes.Trace:
    try:
        return networks.trace_network(request.backbone, loaded.network, loaded.preprocess)
    except UsageError as error:
        if request.image_size is None:
            raise
        side = request.image_size
        raise UsageError(
            f"{request.backbone} does not take images of {side} x {side} pixels; leave --image-size out, or take a "
            f"network without a fixed size ({error.__cause__})"
        ) from error


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
        feature_shape=pooled_shape(node, pooling),
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
    traced = networks.trace_network(spec.backbone, network, spec.preprocess)
    node = nodes.find_node(network, traced, spec.node, backbone=spec.backbone)
    if pooled_shape(node, nodes.check_pooling(node, spec.pooling)) != spec.feature_shape:
        raise WeightsError(
            f"{spec.backbone} gives features of shape {pooled_shape(node, spec.pooling)} at node {spec.node}, "
            f"the file's have {spec.feature_shape}",
            weights=spec.weights,
        )
    return Backbone(spec, network, node, traced.n_classes, weights_blob)


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
        image_size=spec.preprocess.side,
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
