"""Features on another device than the CPU: the one place where fitting heads may load PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_device(X: NDArray[np.float64], device: str) -> Any:
    """Return X as it is for ``"cpu"``, else as a float64 tensor on a device of PyTorch's."""
    if device == "cpu":
        return X
    import torch

    return torch.asarray(X, device=device)
