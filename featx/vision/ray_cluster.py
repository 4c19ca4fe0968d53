"""The connection to a Ray cluster; Ray is imported here and nowhere else."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from featx.errors import MissingExtraError, UsageError

_CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class RayOptions:
    """How the work is spread over a Ray cluster.

    Attributes
    ----------
    address : str or None
        Of a running cluster (``"auto"``, ``"10.0.0.1:6379"``, ``"ray://..."``); None: one of this machine alone, which
        ends with the run.
    n_actors : int or None
        None: as many as the shares below leave room for now.
    cpus_per_actor : float or None
        Cores of each actor. None: with GPUs their share of the node's, else all cores of the smallest node.
    gpus_per_actor : float or None
        None: 1 where the cluster has GPUs and the device is not ``"cpu"``, else 0.
    start_seconds : float
        How long to wait for an actor, while none is at work, before the run is given up.
    """

    address: str | None = None
    n_actors: int | None = None
    cpus_per_actor: float | None = None
    gpus_per_actor: float | None = None
    start_seconds: float = 300.0


@dataclass(frozen=True)
class Connected:
    """Ray, connected to a cluster."""

    ray: Any
    options: RayOptions


@contextlib.contextmanager
def cluster(options: RayOptions) -> Iterator[Connected]:
    """Connect to a cluster, or start one of this machine for as long as the block lasts.

    Raises
    ------
    MissingExtraError
        If Ray is not installed.
    UsageError
        If the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read while Ray is imported
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingExtraError("--engine ray", "ray") from error
    if ray.is_initialized():
        yield Connected(ray, options)
        return
    _check_reachable(options.address)
    own: dict[str, Any] = {"include_dashboard": False, "num_cpus": _n_cores(), "_node_ip_address": "127.0.0.1"}
    try:
        ray.init(
            address=options.address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if options.address else own),
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        where = options.address or "on this machine"
        raise UsageError(f"no Ray cluster {where}: {' '.join(str(error).split())}") from error
    try:
        with _results_only_on_stdout(ray):
            yield Connected(ray, options)
    finally:
        ray.shutdown()


def _check_reachable(address: str | None) -> None:
    """Find out in seconds what takes Ray minutes: that nobody answers at HOST:PORT."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"no Ray cluster answers at {address}: {error}; does `ray status` there show one?") from error


@contextlib.contextmanager
def _results_only_on_stdout(ray: Any) -> Iterator[None]:
    """Keep to itself what Ray prints to stdout of a worker that died, unasked: the crew learns it as an error.

    Stdout belongs to the results, and Ray has no switch for this, not even ``log_to_driver=False``.
    """
    printer = getattr(ray._private, "worker", None)
    before = getattr(printer, "print_to_stdstream", None)
    if before is None:  # another version of Ray, with another way
        yield
        return
    printer.print_to_stdstream = lambda *_args, **_kwargs: None  # type: ignore[union-attr]
    try:
        yield
    finally:
        printer.print_to_stdstream = before  # type: ignore[union-attr]


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
