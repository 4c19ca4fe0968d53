"""From a backbone's name and weights, as the user types them, to a network that holds the weights, and its trace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from featx.errors import UnknownNameError, UsageError
from featx.spec import TIMM, Preprocess
from featx.vision import download, mini, nodes, own, registry, tensors, timm_models, timm_weights

MINI = "featx-mini"
FILE, OWN = "file", "own"

MINI_PREPROCESS = Preprocess(
    resize=(mini.IMAGE_SIZE,), crop=(mini.IMAGE_SIZE, mini.IMAGE_SIZE), mean=mini.MEAN, std=mini.STD
)


@dataclass(frozen=True)
class LoadedNetwork:
    """A network with its weights.

    Attributes
    ----------
    network : nn.Module
        In eval mode, float32, on the CPU.
    preprocess : Preprocess
        With which the weights were evaluated, as far as that is known.
    weights, sha256 : str
        As in `featx.spec.FeatureSpec`.
    node : str or None
        The default node, where the general rule does not hold.
    scores : bool
        Whether a classifier in the network holds usable weights.
    own : bool
        Whether the weights are the user's own, so that their name is not enough to have them again.
    """

    network: nn.Module
    preprocess: Preprocess
    weights: str
    sha256: str
    node: str | None = None
    scores: bool = True
    own: bool = False


def load_network(backbone: str, weights: str, progress: download.Progress | None) -> LoadedNetwork:
    """Build a network and give it the weights that were asked for; see `featx.vision.backbones.load_backbone`.

    Raises
    ------
    UnknownNameError, UsageError, InputError
        If the names cannot be understood, or a user's own function cannot be used.
    WeightsError
        If the weights are missing, damaged, of another architecture, or cannot be downloaded.
    """
    seed = _seed(weights)
    if backbone.startswith(TIMM):
        return _load_timm(backbone, weights, seed, progress)
    if own.is_own(backbone):
        return _load_own(backbone, weights, seed)
    if backbone == MINI:
        return _load_mini(weights, seed)
    name = check_name(backbone)
    if seed is not None:
        preprocess = registry.classic_preprocess(name)
        network = registry.build(name, preprocess.crop[0], seed=seed)
        return LoadedNetwork(network, preprocess, f"random:{seed}", tensors.tensors_sha256(network))
    if not _is_file(weights):
        member = registry.find_member(name, weights)
        preprocess = registry.member_preprocess(member)
        path, sha256 = download.fetch(member.url, progress=progress)
        network = fit_torchvision(name, preprocess, tensors.read_state_dict(path), str(member))
        # Of VGG-16 there are weights for detectors, whose classifier holds NaN.
        whole = member.meta["categories"] is not None
        return LoadedNetwork(network, preprocess, str(member), sha256, None if whole else "features", scores=whole)
    state = tensors.read_state_dict(weights)
    sha256 = tensors.file_sha256(weights)
    preprocess = _file_preprocess(name, sha256)
    network = fit_torchvision(name, preprocess, state, repr(weights))
    return LoadedNetwork(network, preprocess, FILE, sha256, own=True)


def _load_mini(weights: str, seed: int | None) -> LoadedNetwork:
    if seed is not None:
        network: nn.Module = registry.seeded(mini.featx_mini, seed)
        return LoadedNetwork(network, MINI_PREPROCESS, f"random:{seed}", tensors.tensors_sha256(network))
    shipped = weights in ("DEFAULT", MINI)
    if not shipped and not _is_file(weights):
        raise UnknownNameError("weights", weights, ["DEFAULT", MINI, "random"], hint="or a .pth or .safetensors file")
    path = str(mini.WEIGHTS_FILE) if shipped else weights
    network = mini.featx_mini()
    tensors.load_into(network, tensors.read_state_dict(path), weights=repr(path))
    name = MINI if shipped else FILE
    return LoadedNetwork(network, MINI_PREPROCESS, name, tensors.file_sha256(path), own=not shipped)


def _load_own(backbone: str, weights: str, seed: int | None) -> LoadedNetwork:
    network, preprocess = own.call_function(backbone, seed=seed or 0)
    if _is_file(weights):
        tensors.load_into(network, tensors.read_state_dict(weights), weights=repr(weights))
        return LoadedNetwork(network, preprocess, FILE, tensors.file_sha256(weights), own=True)
    if seed is None and weights != "DEFAULT":
        raise UnknownNameError("weights", weights, ["DEFAULT", "random"], hint="or a .pth or .safetensors file")
    name = OWN if seed is None else f"random:{seed}"
    return LoadedNetwork(network, preprocess, name, tensors.tensors_sha256(network), own=True)


def _load_timm(backbone: str, weights: str, seed: int | None, progress: download.Progress | None) -> LoadedNetwork:
    if seed is not None:
        model = timm_models.find(backbone)
        preprocess = timm_models.preprocess_of(model)
        network, node = timm_models.with_node(
            model, timm_models.build(model, seed=seed), lambda n: timm_models.build(model, seed=seed, n_classes=n)
        )
        name, sha256 = f"random:{seed}", tensors.tensors_sha256(network)
        return LoadedNetwork(network, preprocess, name, sha256, node, scores=node != nodes.OUTPUT)
    is_file = _is_file(weights)
    model = timm_models.find(backbone, "DEFAULT" if is_file else weights)
    preprocess = timm_models.preprocess_of(model)
    path = Path(weights) if is_file else timm_weights.fetch(model, progress=progress)
    state = tensors.read_state_dict(path)
    network, node = timm_models.fit(model, state, weights=repr(weights) if is_file else model.name)
    name = FILE if is_file else model.name
    return LoadedNetwork(
        network, preprocess, name, tensors.file_sha256(path), node, scores=node != nodes.OUTPUT, own=is_file
    )


def check_name(name: str) -> str:
    """Return a name of torchvision's registry as it is.

    Raises
    ------
    UnknownNameError
        If there is no such name.
    """
    known = registry.names()
    if name not in known:
        hint = (
            "`featx backbones` lists them, `featx backbones timm:` timm's; your own is written package.module:function"
        )
        raise UnknownNameError("backbone", name, [MINI, *known], hint=hint)
    return name


def fit_torchvision(name: str, preprocess: Preprocess, state: tensors.StateDict, weights: str) -> nn.Module:
    """Build a torchvision network for a state dict, with as many classes as that has, and load it.

    Raises
    ------
    WeightsError
        If the state dict is of another architecture; the message calls it what `weights` says.
    """
    network = registry.build(name, preprocess.crop[0])
    n_classes = registry.classes_in(network, {key: tuple(tensor.shape) for key, tensor in state.items()})
    if n_classes is not None:
        network = registry.build(name, preprocess.crop[0], n_classes=n_classes)
    tensors.load_into(network, state, weights=f"{weights} for {name}", ignore=registry.AUXILIARY)
    return network


def trace_network(name: str, network: nn.Module, preprocess: Preprocess) -> nodes.Trace:
    """Run a backbone's network once on blank images as its preprocess gives them; see `featx.vision.nodes.trace`.

    Raises
    ------
    UsageError
        If the preprocess gives images of different sizes, or the network cannot take them.
    """
    size = preprocess.crop or preprocess.resize
    if len(size) != 2:
        raise UsageError(
            f"backbone {name}: its preprocess gives images of different sizes; "
            "it needs a crop (height, width), or a resize to (height, width)"
        )
    classifier = timm_models.classifier_of(network) if name.startswith(TIMM) else None
    return nodes.trace(network, size, meta=not own.is_own(name), classifier=classifier)


def _file_preprocess(name: str, sha256: str) -> Preprocess:
    for member in registry.members(name):
        digits = download.expected_sha256(member.url)
        if digits and sha256.startswith(digits):
            return registry.member_preprocess(member)
    return registry.classic_preprocess(name)


def _seed(weights: str) -> int | None:
    """Return the seed of ``random`` or ``random:SEED``; None for other weights."""
    kind, _, seed = weights.partition(":")
    if kind != "random":
        return None
    if weights == "random":
        return 0
    if not seed.isdecimal() or int(seed) >= 2**63:
        raise UsageError(f"weights {weights!r}: the seed must be a whole number from 0 on, as in random:1")
    return int(seed)


def _is_file(weights: str) -> bool:
    return weights.endswith(tensors.SUFFIXES) or "/" in weights or "\\" in weights or Path(weights).is_file()
