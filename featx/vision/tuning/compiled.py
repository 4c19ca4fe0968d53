"""Training steps through torch.compile, where a run is long enough to repay the compiler's minutes."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch

from featx.errors import UsageError
from featx.vision.tuning.recipe import Recipe

LONG = 2_000
"""Steps from which ``compile="auto"`` compiles, on CUDA. On the CPU a compiled step is hardly faster, or slower."""


def is_compiled(recipe: Recipe, device: str, n_steps: int) -> bool:
    """Tell whether steps are compiled.

    Parameters
    ----------
    recipe : Recipe
        ``compile="auto"``: on CUDA, from `LONG` steps on, with all blocks open from the beginning (each that opens
        would be compiled anew), and where there is a compiler.
    device : str
        As torch calls it.
    n_steps : int
        Of the whole training.

    Raises
    ------
    UsageError
        It is asked for, and there is no compiler.
    """
    if recipe.compile == "off":
        return False
    kind, missing = torch.device(device).type, missing_compiler(device)
    if recipe.compile == "auto":
        return kind == "cuda" and n_steps >= LONG and not recipe.unfreeze and missing is None
    if missing is not None:
        raise UsageError(f"--compile on: {missing}; install it, or take --compile off")
    return True


def missing_compiler(device: str) -> str | None:
    """Say what torch.compile lacks on a device; None: nothing."""
    if torch.device(device).type == "cuda" and importlib.util.find_spec("triton") is None:
        return "torch.compile on CUDA needs the triton package, which is not installed"
    compiler = os.environ.get("CXX") or "g++"
    if shutil.which(compiler) is None and shutil.which("clang++") is None:
        return f"torch.compile needs a C++ compiler, and {compiler} is not on this machine"
    return None


def compiled(call: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return a function, or a module, that is compiled when it is first called.

    The call raises UsageError if it cannot be compiled.
    """
    made: Any = torch.compile(call)

    def run(*values: Any) -> torch.Tensor:
        from torch._dynamo.exc import TorchDynamoException

        try:
            result: torch.Tensor = made(*values)
        except TorchDynamoException as error:
            first = str(error).strip().partition("\n")[0]
            raise UsageError(f"this network cannot be compiled ({first}); take --compile off") from error
        return result

    return run
