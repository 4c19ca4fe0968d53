"""The engines by name: where the work of `featx.vision.engine.iter_batches` is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from featx.errors import UnknownNameError

if TYPE_CHECKING:
    from featx.manifest.record import Manifest
    from featx.store.records import FeatureBatch
    from featx.vision.engine import EngineOptions, Job, Notify

    Engine = Callable[[Manifest, Sequence[Job], EngineOptions, Notify], Iterator[tuple[int, FeatureBatch]]]
    """As `featx.vision.engine.iter_batches`, its arguments checked."""


def find_engine(name: str) -> Engine:
    """Return an engine; nothing else takes its place where it is missing.

    Raises
    ------
    UnknownNameError
        If there is none of this name.
    MissingExtraError
        If it needs an optional dependency that is not installed.
    """
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    return ENGINES[name]()


def _local() -> Engine:
    from featx.vision.local_engine import iter_local

    return iter_local


def _ray() -> Engine:
    from featx.vision.ray_engine import iter_ray

    return iter_ray


ENGINES: dict[str, Callable[[], Engine]] = {"local": _local, "ray": _ray}
"""Name to a function that imports the engine."""
