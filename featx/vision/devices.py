"""Devices: which one is meant, which arithmetic runs on it, and what it says when it fails."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch

from featx.errors import UsageError

AUTO = "auto"
_ONE = "one of auto, cpu, cuda, cuda:1, mps"
_SEVERAL = "auto, cpu, cuda, cuda:1, cuda:all, mps, or several with commas between them"

_TF32_SWITCHES: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
"""Modules of torch with a switch ``allow_tf32``."""
_PRECISIONS: list[Any] = [
    getattr(backend, part)
    for backend, parts in (
        (torch.backends.cuda, ("matmul",)),
        (torch.backends.cudnn, ("conv", "rnn")),
        (getattr(torch.backends, "mkldnn", None), ("matmul", "conv", "rnn")),
    )
    for part in parts
    if hasattr(getattr(backend, part, None), "fp32_precision")
]
"""Modules of torch (2.9 and later) with a setting ``fp32_precision``."""
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
"""What RuntimeErrors of torch, cuDNN and cuBLAS say when memory is the reason."""
_DEVICE_FAILURE = ("CUDA error", "CUDA driver error", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS", "MPS backend")
"""What they say when the device itself failed."""


def choose_device(device: str = AUTO) -> str:
    """Return the device to use: a CUDA GPU, Apple's, or the CPU for ``"auto"``, else the one asked for.

    Raises
    ------
    UsageError
        If the device does not exist on this machine.
    """
    return _choose(device, _ONE)


def _choose(device: str, kinds: str) -> str:
    """Return one device; `kinds` says what the user may write."""
    if device == AUTO:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"device {device!r} does not exist; take {kinds}") from error
    n_devices = {
        "cpu": 1,
        "cuda": _count_gpus(),
        "mps": int(torch.backends.mps.is_available()),
    }.get(wanted.type)
    if n_devices is None:
        raise UsageError(f"device {device!r} is none that featx runs on; take {kinds}")
    if (wanted.index or 0) >= n_devices:
        found = f"torch sees {n_devices} of this kind" if n_devices else f"torch {torch.__version__} sees none"
        raise UsageError(f"device {device!r} is not on this machine ({found}); --device auto takes what there is")
    return device


def choose_devices(devices: str = AUTO) -> tuple[str, ...]:
    """Return the devices to use for what the user wrote.

    Parameters
    ----------
    devices : str
        One as for `choose_device`, several with commas between them (``"cuda:0,cuda:1"``), or ``"cuda:all"``.

    Raises
    ------
    UsageError
        If one of them does not exist on this machine, or a GPU is named twice.
    """
    chosen = []
    for device in (part.strip() for part in devices.split(",")):
        if device == "cuda:all":
            _choose("cuda", _SEVERAL)
            chosen += [f"cuda:{i}" for i in range(_count_gpus())]
        else:
            chosen.append(_choose(device, _SEVERAL))
    if len(chosen) > 1:
        # A GPU named twice gains nothing and costs its memory twice; a second CPU has its use in tests.
        indexed = [f"cuda:{torch.cuda.current_device()}" if device == "cuda" else device for device in chosen]
        twice = sorted({device for device in indexed if device != "cpu" and indexed.count(device) > 1})
        if twice:
            raise UsageError(f"device {devices!r} names {', '.join(twice)} more than once")
        return tuple(indexed)
    return tuple(chosen)


def describe_numerics(device: str, dtype: str) -> str:
    """Return in words which arithmetic a spec's dtype means on a device: ``"float32, TF32 off"``."""
    if dtype != "float32":
        return f"{dtype} autocast"
    return "float32, TF32 off" if torch.device(device).type == "cuda" else "float32"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of torch says that there is not enough memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)


def is_device_failure(error: BaseException) -> bool:
    """Return whether an error of torch says that a device failed, and not the code that runs on it."""
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _DEVICE_FAILURE)


class ExactArithmetic:
    """Float32 computed as float32, and every time alike, while at least one thread is inside.

    PyTorch lets convolutions run in TF32 on CUDA unless told otherwise, and a program around featx may have allowed it
    (or bfloat16 on the CPU) for matrix products. The switches are the process's, not the thread's: with one thread for
    each device the first that enters sets them and the last that leaves puts them back; each by itself would put them
    back under another's forward pass.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._undo.enter_context(_exact_switches())
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._undo.close()


exact_arithmetic = ExactArithmetic()
"""The only one: ``with exact_arithmetic: ...``."""


@contextlib.contextmanager
def _exact_switches() -> Iterator[None]:
    cudnn = torch.backends.cudnn
    choice = cudnn.benchmark, cudnn.deterministic
    # PyTorch refuses to read the old switch where a program has used the new setting; then the new one rules.
    switches = [(module, value) for module in _TF32_SWITCHES if (value := _allow_tf32(module)) is not None]
    precisions = [(module, module.fp32_precision) for module in _PRECISIONS]
    cudnn.benchmark, cudnn.deterministic = False, True
    for module, _ in switches:
        module.allow_tf32 = False
    for module, _ in precisions:
        module.fp32_precision = "ieee"
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = choice
        for module, value in switches:
            module.allow_tf32 = value
        for module, precision in precisions:
            module.fp32_precision = precision


def _allow_tf32(module: Any) -> bool | None:
    try:
        return bool(module.allow_tf32)
    except RuntimeError:
        return None


def _count_gpus() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
