"""torchvision's classification networks: their names, how each is built, and the preprocess of its weights.

Names, weights and preprocess come from torchvision's own registry and enums; nothing is retyped here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision.models import WeightsEnum, get_model_builder, get_model_weights, list_models

from featx.errors import UnknownNameError
from featx.spec import Preprocess

Made = TypeVar("Made")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
"""Where GoogLeNet and Inception v3 keep the heads that serve their training only; featx builds both without."""


def names() -> list[str]:
    """Return the names of torchvision's classification models, sorted."""
    return cast("list[str]", list_models(module=torchvision.models))


def members(name: str) -> list[WeightsEnum]:
    """Return the weights that torchvision has for a model, in its order; aliases such as ``DEFAULT`` are not listed."""
    return list(get_model_weights(name))


def default_member(name: str) -> WeightsEnum:
    """Return the concrete member that ``DEFAULT`` stands for today."""
    return cast(WeightsEnum, get_model_weights(name)["DEFAULT"])


def find_member(name: str, weights: str) -> WeightsEnum:
    """Return the weights member that a text names.

    Parameters
    ----------
    name : str
        A name in `names`.
    weights : str
        ``"DEFAULT"``, ``"IMAGENET1K_V2"`` or ``"ResNet50_Weights.IMAGENET1K_V2"``.

    Raises
    ------
    UnknownNameError
        If the model has no such weights.
    """
    enum = get_model_weights(name)
    member = weights.removeprefix(f"{enum.__name__}.")
    if member not in enum.__members__:
        hint = f"weights of {name}: {', '.join(enum.__members__)}, random, random:SEED, or a .pth or .safetensors file"
        raise UnknownNameError("weights", weights, enum.__members__, hint=hint)
    return cast(WeightsEnum, enum[member])


def preprocess_of(transform: Any) -> Preprocess:
    """Convert torchvision's `ImageClassification` transform, or anything with its attributes.

    Raises
    ------
    AttributeError
        If the transform has no ``resize_size``, ``crop_size``, ``mean``, ``std`` and ``interpolation``.
    """
    crop = tuple(transform.crop_size)
    return Preprocess(
        resize=tuple(transform.resize_size),
        crop=crop * 2 if len(crop) == 1 else crop,
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        interpolation=transform.interpolation.value,
        antialias=bool(transform.antialias),
    )


def member_preprocess(member: WeightsEnum) -> Preprocess:
    """Return the preprocess with which torchvision evaluated these weights."""
    return preprocess_of(member.transforms())


def classic_preprocess(name: str) -> Preprocess:
    """Return the preprocess for random weights and a user's own file: that of the model's first weights.

    Mostly the classic resize to 256 and centre crop of 224, with which such networks are usually trained; the later
    members' sizes were tuned to those members alone.
    """
    return member_preprocess(members(name)[0])


def build(name: str, image_size: int, *, seed: int | None = None, n_classes: int | None = None) -> nn.Module:
    """Build a network in eval mode, as torchvision builds it for its own weights.

    GoogLeNet and Inception v3 re-scale their input (``transform_input``) as their weights want it, and come without
    auxiliary heads. The global random state is left as it was.

    Parameters
    ----------
    name : str
        A name in `names`.
    image_size : int
        Side of the input in pixels; only vision transformers look at it.
    seed : int, optional
        Draws torchvision's random initialisation. None: the parameters are on the meta device, without values.
    n_classes : int, optional
        Number of the classifier's outputs; None: 1000.
    """
    arguments: dict[str, Any] = {} if n_classes is None else {"num_classes": n_classes}
    if name in ("googlenet", "inception_v3"):
        arguments |= {"transform_input": True, "aux_logits": False, "init_weights": True}
    elif name.startswith("vit_"):
        arguments["image_size"] = image_size

    def make() -> nn.Module:
        network: nn.Module = get_model_builder(name)(weights=None, **arguments)
        return network.eval()

    if seed is not None:
        return seeded(make, seed)
    with without_values():
        return seeded(make, 0)


def seeded(make: Callable[[], Made], seed: int) -> Made:
    """Call a function under torch's CPU random generator seeded for it alone; the global state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make()


def classifier_of(network: nn.Module) -> str | None:
    """Return the name of the module that looks like the classifier.

    The last linear layer in order of registration; in a network without any, the last convolution if it is one of
    1 x 1 (SqueezeNet).
    """
    layers = [(name, module) for name, module in network.named_modules() if type(module) in (nn.Linear, nn.Conv2d)]
    linear: list[str] = [name for name, module in layers if type(module) is nn.Linear]
    if linear or not layers:
        return linear[-1] if linear else None
    name, last = layers[-1]
    return name if last.kernel_size == (1, 1) else None


def classes_in(network: nn.Module, shapes: Mapping[str, Sequence[int]]) -> int | None:
    """Return how many classes a state dict's classifier tells apart, if it otherwise has the network's shape.

    Parameters
    ----------
    network : nn.Module
        A network with any number of classes.
    shapes : mapping of str to sequence of int
        The tensors' shapes in the state dict.
    """
    key = f"{classifier_of(network)}.weight"
    own, given = network.state_dict().get(key), shapes.get(key)
    if own is None or given is None or len(given) != own.ndim or tuple(given[1:]) != tuple(own.shape[1:]):
        return None
    return int(given[0])


def without_values() -> TorchFunctionMode:
    """Return a context in which networks are built on the meta device: in milliseconds, without values."""
    return _WithoutValues()


class _WithoutValues(TorchFunctionMode):
    """Puts on the meta device what is to be initialised: a large network is then built in milliseconds.

    ``torch.device("meta")`` would do the same to the numbers that RegNet's and Swin's builders compute with.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)
