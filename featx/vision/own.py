"""A user's own network: ``package.module:function``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from featx.errors import InputError, UsageError
from featx.own_code import current_folder, find_function
from featx.spec import Preprocess, is_own_code
from featx.vision.registry import IMAGENET_MEAN, IMAGENET_STD, preprocess_of, seeded

PREPROCESS = Preprocess(resize=(256,), crop=(224, 224), mean=IMAGENET_MEAN, std=IMAGENET_STD)
"""For functions that give a network only."""


def is_own(backbone: str) -> bool:
    """Tell whether a backbone's name is that of a function."""
    return is_own_code(backbone)


def call_function(backbone: str, *, seed: int) -> tuple[nn.Module, Preprocess]:
    """Import a function, also from the current folder, and call it.

    Parameters
    ----------
    backbone : str
        ``"package.module:function"``; the function takes no arguments and gives a network, or a pair of the network
        and its preprocess: a `featx.spec.Preprocess` or a torchvision ``ImageClassification`` transform.
    seed : int
        Seeds torch's CPU random generator while the function runs.

    Returns
    -------
    network : nn.Module
        In eval mode, on the CPU.
    preprocess : Preprocess
        The function's, or `PREPROCESS`: resize 256, centre crop 224, ImageNet's mean and standard deviation.

    Raises
    ------
    UsageError
        If the module or the function cannot be found, or gives something else.
    InputError
        If the module cannot be imported or the function fails.
    """
    with current_folder():
        function = find_function(backbone, what="backbone", thing="a network")
        try:
            made: Any = seeded(function, seed)
        except (ImportError, AttributeError, LookupError, TypeError, ValueError, RuntimeError, OSError) as error:
            raise InputError(f"backbone {backbone}: the function failed: {type(error).__name__}: {error}") from error
    network, preprocess = made if isinstance(made, tuple) and len(made) == 2 else (made, PREPROCESS)
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"backbone {backbone}: the function must give a torch.nn.Module, or a pair of one and its preprocess; "
            f"it gave {type(made).__name__}"
        )
    return network.cpu().float().eval(), _preprocess(preprocess, backbone)


def _preprocess(given: Any, backbone: str) -> Preprocess:
    if isinstance(given, Preprocess):
        return replace(given, mean=tuple(map(float, given.mean)), std=tuple(map(float, given.std)))
    try:
        return preprocess_of(given)
    except AttributeError as error:
        raise UsageError(
            f"backbone {backbone}: the preprocess must be a featx.spec.Preprocess or a torchvision ImageClassification "
            f"transform; it is {type(given).__name__}"
        ) from error
