"""State dicts: read from files without running code, put into a network, hashed and packed."""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from featx.errors import WeightsError

StateDict = Mapping[str, torch.Tensor]

SUFFIXES = (".pth", ".pt", ".safetensors")
WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the state dict in a checkpoint."""

_SHOWN = 5
_PICKLE_ERRORS = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    TypeError,
    struct.error,
)
"""What torch's unpickler raises on bytes that are no pickle of tensors."""
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state_dict(path: str | Path) -> StateDict:
    """Read a file of tensors; no code in it is ever run.

    Parameters
    ----------
    path : str or Path
        A ``.safetensors`` file, or what ``torch.save`` wrote: a state dict, or a checkpoint that holds one under
        ``state_dict``, ``model_state_dict`` or ``model``. A ``module.`` before every name is taken off.

    Raises
    ------
    WeightsError
        If the file is missing or damaged, holds anything but tensors, or would run code.
    """
    text = str(path)
    try:
        if text.endswith(".safetensors"):
            content: Any = safetensors.torch.load_file(path)
        else:
            with warnings.catch_warnings(action="ignore"):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"weights file {text!r} does not exist", weights=text) from error
    except _PICKLE_ERRORS as error:
        raise WeightsError(
            f"weights file {text!r} is damaged, or holds Python objects that could run code; featx reads tensors only: "
            "save the network's state_dict() with torch.save or safetensors",
            weights=text,
        ) from error
    except (SafetensorError, RuntimeError, OSError, ValueError) as error:
        raise WeightsError(f"weights file {text!r} cannot be read: {error}", weights=text) from error
    return _tensors_of(content, text)


def unpack(blob: bytes, *, weights: str) -> StateDict:
    """Read what `pack` wrote.

    Raises
    ------
    WeightsError
        If the bytes are not of the safetensors format.
    """
    try:
        return safetensors.torch.load(blob)
    except SafetensorError as error:
        raise WeightsError(f"the stored weights are damaged: {error}", weights=weights) from error


def pack(network: nn.Module) -> bytes:
    """Return a network's state dict in the safetensors format."""
    # Tensors that share memory are refused by safetensors: each gets its own.
    return safetensors.torch.save({name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()})


def tensors_sha256(network: nn.Module) -> str:
    """Return the SHA-256 over name, dtype, shape and bytes of each tensor, in order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()


def load_into(network: nn.Module, state: StateDict, *, weights: str, ignore: Iterable[str] = ()) -> None:
    """Put a state dict into a network, which may be on the meta device until then.

    Floating point tensors become what the network's are (float32). Batch norm's counters of training batches may be
    missing; the names with which torchvision's old DenseNet files were written are understood.

    Parameters
    ----------
    network : nn.Module
        Changed in place.
    state : mapping of str to torch.Tensor
        By name.
    weights : str
        What the messages call it.
    ignore : iterable of str
        Names that begin so are left out.

    Raises
    ------
    WeightsError
        If names are missing, unexpected, or of another shape.
    """
    wanted = network.state_dict()
    ignored = tuple(ignore)
    given = {
        _OLD_DENSENET.sub(r"\1\2.", name): tensor for name, tensor in state.items() if not name.startswith(ignored)
    }
    for name, tensor in wanted.items():
        if name.endswith("num_batches_tracked"):
            given.setdefault(name, torch.zeros_like(tensor, device="cpu"))
    _check_names(wanted, given, weights=weights)
    ready = {name: given[name].to(wanted[name].dtype) for name in wanted}
    # Modules with a history (MNASNet) look up there in which version of their code a file was written.
    ready_state: Any = _StateDict(ready)
    ready_state._metadata = getattr(state, "_metadata", None) or wanted._metadata  # type: ignore[attr-defined]
    try:
        network.load_state_dict(ready_state, assign=True)
    except RuntimeError as error:
        raise WeightsError(f"weights {weights} do not fit the network: {error}", weights=weights) from error


class _StateDict(dict[str, torch.Tensor]):
    """A dictionary that takes the attribute ``_metadata``."""


def _tensors_of(content: Any, path: str) -> StateDict:
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(v, torch.Tensor) for v in content.values())
    ):
        held = f"keys {', '.join(map(str, list(content)[:_SHOWN]))}" if isinstance(content, Mapping) else type(content)
        raise WeightsError(
            f"weights file {path!r} holds no state dict (names to tensors), but {held}; "
            "save the network's state_dict() with torch.save or safetensors",
            weights=path,
        )
    if all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): tensor for name, tensor in content.items()}
    return cast(StateDict, content)


def _check_names(wanted: StateDict, given: StateDict, *, weights: str) -> None:
    problems = {
        "missing": [name for name in wanted if name not in given],
        "unexpected": [name for name in given if name not in wanted],
        "of another shape": [
            f"{name} (the file has {tuple(given[name].shape)}, the network {tuple(wanted[name].shape)})"
            for name in wanted
            if name in given and given[name].shape != wanted[name].shape
        ],
    }
    lines = [
        f"  {len(found)} {what}: {', '.join(found[:_SHOWN])}{', ...' if len(found) > _SHOWN else ''}"
        for what, found in problems.items()
        if found
    ]
    if lines:
        raise WeightsError("\n".join([f"weights {weights} are of another architecture:", *lines]), weights=weights)
