"""What executes a network: eager PyTorch, its compiler, OpenVINO or ONNX Runtime.

They differ in speed. Their features agree to 1e-3 of the features' standard deviation, and each is tried on an image
before it is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from featx.errors import UnknownNameError, UsageError
from featx.vision.backbones import Backbone
from featx.vision.task import Runtime, Task
from featx.vision.torch_runtime import CompiledRuntime, TorchRuntime

AUTO = "auto"
_OPENVINO_FROM = {
    "efficientnet": 2_000,
    "mnasnet": 10_000,
    "mobilenet_v2": 10_000,
    "mobilenet_v3": 2_000,
    "resnet": 10_000,
    "resnext": 10_000,
    "vgg": 2_000,
    "wide_resnet": 10_000,
}
"""From how many images on OpenVINO is quicker, its preparation included, by family; the others are as fast on PyTorch.

It takes 3 to 10 seconds, and then 5 (ResNet) to 50 (EfficientNet) percent more images a second: docs/benchmarks.md.
"""


def make_runtime(name: str, backbones: Sequence[Backbone], device: str, *, n_images: int | None = None) -> Runtime:
    """Return what executes a network on a device.

    Parameters
    ----------
    name : str
        ``"torch"``, ``"compile"``, ``"openvino"``, ``"onnxruntime"``; or ``"auto"``: the fastest that is installed and
        whose preparation is worth it.
    backbones : sequence of Backbone
        Readings of one network, that of the first, which is moved to the device.
    device : str
        As `featx.vision.devices.choose_device` gives it.
    n_images : int, optional
        How many images are in the source, as far as that is known: preparing some runtimes takes longer than a short
        run. Of the whole source, not of what is left to do, so that a run that is resumed chooses the same.

    Raises
    ------
    UnknownNameError
        If there is no such runtime.
    MissingExtraError
        If it needs an optional dependency that is not installed.
    UsageError
        If it cannot take the network, its dtype or the device; the message names one that can.
    """
    if name != AUTO and name not in RUNTIMES:
        raise UnknownNameError("runtime", name, (AUTO, *RUNTIMES))
    task = Task.of(backbones, device)
    if name == AUTO:
        return _fastest(task, n_images)
    runtime = RUNTIMES[name](task)
    if name != TorchRuntime.name and not task.agrees(runtime):
        raise UsageError(f"runtime {name} gives other features of {task.backbone} than PyTorch; take --runtime torch")
    return runtime


def _fastest(task: Task, n_images: int | None) -> Runtime:
    """Return OpenVINO where it is installed and saves more time than its preparation takes, else PyTorch."""
    worth_it = n_images is not None and n_images >= _openvino_from(task.backbone)
    if worth_it and task.device.type == "cpu" and task.dtype == "float32" and find_spec("openvino") is not None:
        try:
            runtime = _openvino(task)
        except UsageError:  # it cannot take this network
            return TorchRuntime(task)
        if task.agrees(runtime):
            return runtime
    return TorchRuntime(task)


def _openvino_from(backbone: str) -> float:
    return next((n for family, n in _OPENVINO_FROM.items() if backbone.startswith(family)), math.inf)


def _openvino(task: Task) -> Runtime:
    from featx.vision.openvino_runtime import OpenVinoRuntime

    return OpenVinoRuntime(task)


def _onnxruntime(task: Task) -> Runtime:
    from featx.vision.onnx_runtime import OnnxRuntime

    return OnnxRuntime(task)


RUNTIMES: dict[str, Callable[[Task], Runtime]] = {
    "torch": TorchRuntime,
    "compile": CompiledRuntime,
    "openvino": _openvino,
    "onnxruntime": _onnxruntime,
}
"""Name to a function that makes it."""
