"""The versions of featx, for those that must not import the package's root, and of what it stands on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

__version__ = "0.1.0"


def versions_of(libraries: Iterable[str]) -> dict[str, str]:
    """Return the versions of those that are installed; one that is missing is an error once it is needed."""
    import importlib.metadata  # not for those that want `__version__` alone

    versions = {}
    for library in libraries:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[library] = importlib.metadata.version(library)
    return versions
