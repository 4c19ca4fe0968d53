"""A user's own network: ``package.module:function``."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from featx.errors import InputError, UnknownNameError, UsageError
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
    with _current_folder():
        function = _find(backbone)
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


def _find(backbone: str) -> Callable[[], Any]:
    module_name, _, function_name = backbone.partition(":")
    if not all(part.isidentifier() for part in f"{module_name}.{function_name}".split(".")):
        raise UsageError(f"backbone {backbone!r}: a network of your own is written package.module:function")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(f"backbone {backbone}: importing {module_name} failed: {error}") from error
        raise UsageError(
            f"backbone {backbone}: there is no module {error.name!r} in {Path.cwd()} or in the Python environment"
        ) from error
    except (ImportError, SyntaxError, AttributeError, NameError, TypeError, ValueError, OSError) as error:
        raise InputError(f"backbone {backbone}: importing {module_name} failed: {error}") from error
    found: Any = module
    for part in function_name.split("."):
        if not hasattr(found, part):
            raise UnknownNameError("function", backbone, (f"{module_name}:{name}" for name in vars(module)))
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(f"backbone {backbone}: this is no function but {type(found).__name__}")
    made: Callable[[], Any] = found
    return made


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


@contextlib.contextmanager
def _current_folder() -> Iterator[None]:
    """Let modules be found in the current folder, as ``python -m`` does and an installed command does not."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
