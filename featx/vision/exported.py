"""A network on its way to another library: as a program that torch.export wrote."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator

import torch
from torch.export import Dim, ExportedProgram

from featx.errors import UsageError
from featx.vision.task import Task, cannot_trace

_PROBE_BATCH = 2
"""torch.export takes a batch of one for a constant."""
MAX_BATCH = 1 << 16


def export(task: Task, runtime: str) -> ExportedProgram:
    """Return the network from images to pooled features as a program for a batch of any size.

    Raises
    ------
    UsageError
        If the device is not the CPU, the dtype not float32, or the network cannot be exported.
    """
    if task.device.type != "cpu":
        raise UsageError(f"runtime {runtime} computes on the CPU; on {task.device} take --runtime torch or compile")
    if task.dtype != "float32":
        raise UsageError(f"runtime {runtime} computes in float32; for --dtype {task.dtype} take --runtime torch")
    graph = task.graph()
    if graph is None:
        raise cannot_trace(task, runtime)
    batch = Dim("batch", min=1, max=MAX_BATCH)
    try:
        with quiet():
            return torch.export.export(graph, (task.probe(_PROBE_BATCH),), dynamic_shapes=({0: batch},))
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise cannot_take(task, runtime, error) from error


def cannot_take(task: Task, runtime: str, error: Exception) -> UsageError:
    """Return the error that says that a runtime cannot take a network, why, and which can."""
    why = str(error).strip().partition("\n")[0]
    return UsageError(f"runtime {runtime} cannot take {task.backbone}: {why}; take --runtime torch")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep to itself what the converters tell their own developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
