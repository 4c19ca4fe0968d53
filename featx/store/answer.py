"""Whether a feature file answers a request already, found out without loading the network."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from featx.manifest.record import Manifest
from featx.spec import TIMM, FeatureRequest, FeatureSpec, is_own_code
from featx.store import parts
from featx.store.file import FeatureFile
from featx.store.outcomes import Outcomes
from featx.store.stored import FILE
from featx.store.work import plan_work
from featx.version import versions_of


def find_answer(
    path: Path, stamp: dict[str, Any], manifest: Manifest, *, rehash: bool
) -> tuple[FeatureSpec, dict[str, Any]] | None:
    """Return spec and ``made_with`` of the file if it answers the request already; None: the network is needed.

    Looked up without the lock, so that a network is loaded before the lock is taken.
    """
    if "unknown" in stamp or not path.exists() or parts.pending(path) is not None:
        return None
    with FeatureFile.open(path) as file:
        if file.request != stamp:
            return None
        outcomes = Outcomes(manifest.keys)
        outcomes.add(FILE, file.accounts(manifest.keys))
        return None if plan_work(manifest, outcomes, rehash=rehash).positions else (file.spec, file.made_with)


def known_keys(path: Path) -> set[str]:
    """Return the samples whose outcome the file holds, or a stopped run on it; looked up without the lock."""
    keys = set(parts.kept_keys(path))
    if path.exists():
        with FeatureFile.open(path) as file:
            keys.update(file.ledger().key)
    return keys


def stamp_of(request: FeatureRequest) -> dict[str, Any]:
    """Return the request with what could make the same words mean something else.

    Holds ``unknown`` where only loading the network tells: a user's own function may give another one today.
    """
    stamp: dict[str, Any] = json.loads(json.dumps(asdict(request)))  # as it is when it has been stored
    if is_own_code(request.backbone):
        return {**stamp, "unknown": "own code"}
    stamp |= versions_of(("torch", "torchvision", *own_library(request.backbone)))
    weights = Path(request.weights)
    if weights.is_file():
        found = weights.stat()
        stamp["file"] = [str(weights.resolve()), found.st_size, found.st_mtime_ns]
    return stamp


def own_library(backbone: str) -> tuple[str, ...]:
    """Return the library that a backbone comes from, beside torchvision."""
    return ("timm",) if backbone.startswith(TIMM) else ()
