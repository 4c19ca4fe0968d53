"""NumPy or PyTorch: the module of an array, and the ways between the two."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = Any
"""NumPy's, or a tensor."""


def namespace(X: Array) -> Any:
    """Return the module whose functions take the array."""
    return np if isinstance(X, np.ndarray) else sys.modules["torch"]  # whoever has a tensor has imported it


def like(X: Array, values: NDArray[Any]) -> Array:
    """Return the values beside X: as they are, or as a tensor on its device."""
    return values if isinstance(X, np.ndarray) else namespace(X).asarray(values, device=X.device)


def to_numpy(values: Array) -> NDArray[Any]:
    """Return the values as NumPy's."""
    found: NDArray[Any] = values if isinstance(values, np.ndarray) else values.cpu().numpy()
    return found
