"""LoRA: small matrices beside frozen layers are trained, and added to the layers' weights in the end (by peft).

``W + (alpha / r) B A`` with A (r, in) drawn at random and B (out, r) zero, so that training begins where the network is
(Hu et al. 2021, section 4.1, https://arxiv.org/abs/2106.09685).

Linear layers that the forward pass calls get adapters: attention and MLPs of timm's transformers, and MLPs of
torchvision's. torchvision's attention does not call its linear layers, it hands their weights to a function, and an
adapter beside them would do nothing. For ``nn.MultiheadAttention`` peft has an adapter that puts its weights in and
takes them out again in each pass; in peft 0.21 it counts the output projection's twice, and rounding moves the frozen
weights, so it is not used.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from featx.errors import MissingExtraError, UsageError
from featx.vision.backbones import Backbone
from featx.vision.places import read_features
from featx.vision.tuning.recipe import Recipe

DOWN, UP = "lora_A", "lora_B"
"""Parts of the names of the adapters' parameters."""
_NAME = "default"


def check_adapters(backbone: Backbone) -> None:
    """Raise before a long run what `add_adapters` would raise.

    Raises
    ------
    MissingExtraError
        peft is not installed.
    UsageError
        The network has no layer that fits.
    """
    _library()
    find_layers(backbone)


def find_layers(backbone: Backbone) -> list[str]:
    """Name the linear layers that are called before the features are read.

    Raises
    ------
    UsageError
        There is none.
    """
    called: dict[str, None] = {}
    handles = [
        module.register_forward_hook(lambda *_, name=name: called.setdefault(name))
        for name, module in backbone.network.named_modules()
        if isinstance(module, nn.Linear)
    ]
    images = torch.zeros(1, 3, *backbone.spec.preprocess.crop)
    try:
        with torch.inference_mode():
            read_features(backbone.network, images, backbone.node, backbone.spec.pooling, with_scores=False)
    finally:
        for handle in handles:
            handle.remove()
    if not called:
        raise UsageError(
            f"--train lora: {backbone.spec.backbone} has no linear layers below its features (it is for transformers); "
            "take --train last-block or --train all"
        )
    return list(called)


def add_adapters(backbone: Backbone, recipe: Recipe) -> None:
    """Put adapters beside a network's linear layers, in place; only they need gradients then.

    Parameters
    ----------
    backbone : Backbone
        Its network, on the CPU, gives afterwards what it gave before.
    recipe : Recipe
        Its rank, alpha and random state count.

    Raises
    ------
    MissingExtraError, UsageError
        As `check_adapters`.
    """
    peft = _library()
    pattern = "|".join(re.escape(name) for name in find_layers(backbone))  # names in a list would fit as endings too
    config = peft.LoraConfig(r=recipe.lora_rank, lora_alpha=recipe.lora_alpha, lora_dropout=0.0, target_modules=pattern)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.random_state)
        peft.inject_adapter_in_model(config, backbone.network, _NAME)


def merge_adapters(network: nn.Module) -> None:
    """Add what adapters have learned to the weights they stand beside, and take them away, in place.

    The network has its own modules and names again, and all its parameters may be trained.
    """
    layers = [(name, module) for name, module in network.named_modules() if hasattr(module, DOWN)]
    for name, layer in layers:
        layer.merge()
        network.set_submodule(name, layer.get_base_layer())
    network.requires_grad_(True)


def _library() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError("--train lora", "lora") from error
    return peft
