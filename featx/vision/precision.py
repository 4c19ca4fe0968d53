"""Bfloat16: what of a network stays in float32, how weights are rounded, and what it gains.

Nearly all that bfloat16 changes in a network's features comes from rounding the weights (8 significant bits), not from
rounding what flows between the layers: the former is the same error for every image, and in a layer of few products it
does not average out. Measured in docs/benchmarks.md.
"""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
from torch import fx, nn

from featx.vision.graph import module_name, module_of, replace_module

BFLOAT16 = "bfloat16"
_FLOAT32_MODULES = {
    # The stem, and the first block: nine products for each output, at the highest resolution.
    "mobilenet_v2": ("features.0", "features.1"),
}
_GAINS = {
    "densenet": 1.7,
    "convnext": 1.8,
    "efficientnet": 1.5,
    "featx-mini": 1.8,
    "mobilenet_v2": 1.6,
    "resnet": 1.9,
    "resnext": 1.9,
    "swin": 1.9,
    "vgg": 2.0,
    "vit": 1.8,
    "wide_resnet": 1.9,
}
"""How many times faster bfloat16 is by family, on two cores with avx512_bf16."""
_PROCESSORS = ("avx512_bf16", "amx_bf16", "bf16")


def float32_modules(backbone: str, dtype: str) -> tuple[str, ...]:
    """Return the modules of a backbone that stay in float32 where the rest computes in a lower dtype.

    With them, and with `round_weights`, MobileNetV2's features of photographs have a centred cosine with those of
    float32 of 0.9993 (median; lowest 0.9988), without either 0.996 (0.986). On processors that have no bfloat16 it is
    0.9983 (0.9969).
    """
    return _FLOAT32_MODULES.get(backbone, ()) if dtype == BFLOAT16 else ()


def bfloat16_gain(backbone: str, device: str) -> float | None:
    """Return about how many times faster bfloat16 would be on the CPU; None: the processor has none, or not known."""
    if device != "cpu" or not processor_has_bfloat16():
        return None
    return next((gain for family, gain in _GAINS.items() if backbone.startswith(family)), None)


def processor_has_bfloat16() -> bool:
    """Tell whether the processor multiplies in bfloat16, as far as PyTorch (2.9 and later) says."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(bool(capabilities.get(name)) for name in _PROCESSORS)


def round_weights(graphed: fx.GraphModule, exact: Collection[str]) -> fx.GraphModule:
    """Return a graph whose convolutions with a window have weights that are bfloat16 numbers, each window's sum kept.

    Neighbouring pixels are much alike, so that what a rounded window gets wrong is about its wrong sum times their
    value. The weights of each window are rounded from the largest to the smallest, and each takes over what rounding
    those before it left, as in error diffusion (Floyd and Steinberg 1976).

    Parameters
    ----------
    graphed : fx.GraphModule
        Batch norms folded.
    exact : collection of str
        Modules that stay as they are.
    """
    graph, modules = copy.deepcopy(graphed.graph), dict(graphed.named_modules())
    rounded: dict[str, nn.Module] = {}
    for item in graph.nodes:
        module = modules[str(item.target)] if item.op == "call_module" else None
        if type(module) is nn.Conv2d and module.kernel_size != (1, 1) and not is_exact(module_name(item), exact):
            convolution = copy.copy(module)  # the same settings, parameters of its own
            convolution._parameters = dict(module._parameters)
            convolution.weight = nn.Parameter(_round(module.weight.detach()), requires_grad=False)
            replace_module(item, convolution, rounded, "rounded")
    return module_of(graph, graphed, rounded)


def is_exact(name: str, exact: Collection[str]) -> bool:
    """Tell whether a module is, or lies inside, one of those that compute in float32 all the same."""
    return any(name == module or name.startswith(f"{module}.") for module in exact)


def _round(weight: torch.Tensor) -> torch.Tensor:
    windows = weight.flatten(2).double()
    order = windows.abs().argsort(dim=2, descending=True, stable=True)
    ordered, left = windows.gather(2, order), torch.zeros_like(windows[:, :, 0])
    for i in range(ordered.shape[2]):
        wanted = ordered[:, :, i] + left
        ordered[:, :, i] = wanted.to(torch.bfloat16).double()
        left = wanted - ordered[:, :, i]
    rounded = torch.empty_like(windows).scatter_(2, order, ordered)
    return rounded.to(weight.dtype).view_as(weight).contiguous(memory_format=torch.channels_last)
