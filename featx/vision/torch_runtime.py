"""PyTorch as a runtime: eager, with the network as a graph on packed weights, or compiled."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Collection

import torch
from torch import fx, nn

from featx.errors import UsageError
from featx.vision.devices import is_out_of_memory
from featx.vision.graph import module_name, module_of, replace_module
from featx.vision.own import is_own
from featx.vision.packed import PACKED, can_pack, pack_graph
from featx.vision.parts import Compute, Parts
from featx.vision.precision import BFLOAT16, is_exact, round_weights
from featx.vision.task import Read, Task, cannot_trace

_COMPILERS = ("g++", "clang++", "c++")


class TorchRuntime:
    """Eager PyTorch.

    On the CPU batch norms are folded, convolutions and linear layers run on packed weights, and a batch goes through
    in parts; on other devices batch norms are folded. A user's own network, one that cannot be traced, and one whose
    graph would give other features run as they are.

    Raises
    ------
    UsageError
        If modules are to stay in float32 in a network that cannot be traced.
    """

    name = "torch"

    def __init__(self, task: Task) -> None:
        self.task = task
        self._compute: Compute | None = None
        graph = None if is_own(task.backbone) else _rounded(task)
        if graph is not None:
            for make in (_packed, _folded):
                self._compute = make(task, graph)
                if self._compute is not None and _works(self):
                    return
        self._compute = None
        if task.exact:
            raise UsageError(
                f"backbone {task.backbone} does not run as a graph here, so that not all of it can be in {task.dtype}: "
                f"{', '.join(task.exact)} must stay in float32; take --dtype float32"
            )

    @property
    def parts(self) -> Parts | None:
        """See `featx.vision.task.Runtime`."""
        return self._compute if isinstance(self._compute, Parts) else None

    def __call__(self, images: torch.Tensor) -> Read:
        """See `featx.vision.task.Runtime`."""
        return self.task.plain(images) if self._compute is None else self.task.read(self._compute(images))


class CompiledRuntime:
    """PyTorch's compiler: the first batch of each size takes long, and then it is fast.

    Raises
    ------
    UsageError
        If there is no C++ compiler, or the network cannot be compiled.
    """

    name = "compile"
    parts = None

    def __init__(self, task: Task) -> None:
        compiler = os.environ.get("CXX")
        if not any(shutil.which(name) for name in ([compiler] if compiler else _COMPILERS)):
            raise UsageError(
                f"runtime compile needs a C++ compiler ({', '.join(_COMPILERS)}) on the PATH; take --runtime torch"
            )
        graph = _rounded(task)
        if graph is None:
            raise cannot_trace(task, self.name)
        self.task = task
        self._module = torch.compile(keep_exact(graph, task.exact, task.device))

    def __call__(self, images: torch.Tensor) -> Read:
        """See `featx.vision.task.Runtime`."""
        with self.task.autocast():
            return self.task.read(self._module(images))


class Exact(nn.Module):
    """A module that computes in float32 where those around it do not."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.module, self.kind = module, device.type

    def forward(self, values: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        """Return what the module gives for the values in float32."""
        with torch.autocast(self.kind, enabled=False):
            result: torch.Tensor = self.module(values.float(), *(other.float() for other in others))
        return result


def keep_exact(graphed: fx.GraphModule, names: Collection[str], device: torch.device) -> fx.GraphModule:
    """Return a graph in which the modules with these names, and all inside them, compute in float32 under autocast."""
    if not names:
        return graphed
    graph, modules = copy.deepcopy(graphed.graph), dict(graphed.named_modules())
    exact: dict[str, nn.Module] = {}
    for item in graph.nodes:
        module = modules[str(item.target)] if item.op == "call_module" else None
        if module is not None and is_exact(module_name(item), names) and not isinstance(module, PACKED):
            replace_module(item, Exact(module, device), exact, "exact")
    return module_of(graph, graphed, exact)


def _rounded(task: Task) -> fx.GraphModule | None:
    graph = task.graph()
    return graph if graph is None or task.dtype != BFLOAT16 else round_weights(graph, task.exact)


def _packed(task: Task, graph: fx.GraphModule) -> Compute | None:
    if task.device.type != "cpu" or not can_pack(task.dtype):
        return None
    return _in_parts(task, pack_graph(graph, getattr(torch, task.dtype), task.exact))


def _folded(task: Task, graph: fx.GraphModule) -> Compute:
    return _in_parts(task, graph)


def _in_parts(task: Task, graph: fx.GraphModule) -> Compute:
    module = keep_exact(graph, task.exact, task.device)

    def compute(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with task.autocast():
            outputs: tuple[torch.Tensor, ...] = module(images)
        return outputs

    return Parts(compute, torch.get_num_threads()) if task.device.type == "cpu" else compute


def _works(runtime: TorchRuntime) -> bool:
    """Tell whether the runtime gives the plain network's features; also lays out packed weights.

    How oneDNN wants them depends on how many images and how many cores: they are laid out for a part of a batch, or it
    would do it over in every call, which costs a sixth of ResNet-50's time.
    """
    task, parts = runtime.task, runtime.parts
    try:
        if parts is None:
            return task.agrees(runtime)
        return task.agrees(lambda images: task.read(parts.one(images)), n=parts.usual_size(task.image_size))
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        if is_out_of_memory(error):
            raise
        return False  # an operator that this build of PyTorch or this processor does not have
