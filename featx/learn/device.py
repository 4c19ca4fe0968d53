"""Features on another device than the CPU: the one place where fitting heads may load PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import UsageError


def check_device(name: str) -> None:
    """Raise UsageError for a device that heads cannot be fitted on here: they need float64."""
    if name == "cpu":
        return
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: expected cpu, cuda or cuda:N") from error
    if device.type != "cuda":
        raise UsageError(f"--device {name}: heads are fitted in float64 on the CPU or on a CUDA GPU")
    if (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: PyTorch sees {torch.cuda.device_count()} CUDA GPUs here")


def to_device(X: NDArray[np.float64], device: str) -> Any:
    """Return X as it is for ``"cpu"``, else as a float64 tensor on a device of PyTorch's."""
    if device == "cpu":
        return X
    import torch

    return torch.asarray(X, device=device)
