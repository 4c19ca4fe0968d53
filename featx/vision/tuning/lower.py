"""The frozen lower part of a network: what it gives for an image is computed once, and kept where it fits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from featx.vision.graph import module_of
from featx.vision.tuning.images import Batch

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Halves:
    """A graph cut in two: what no trained weight touches, and the rest.

    Attributes
    ----------
    lower : fx.GraphModule
        Normalised images (B, 3, h, w) to a tuple of tensors, each (B, ...).
    upper : fx.GraphModule
        These tensors to the graph's own output.
    """

    lower: fx.GraphModule
    upper: fx.GraphModule


def cut_below(graphed: fx.GraphModule, trained: Sequence[nn.Parameter]) -> Halves | None:
    """Cut a graph before the first item that uses one of some parameters.

    Parameters
    ----------
    graphed : fx.GraphModule
        With one input; its modules are shared by the halves.
    trained : sequence of nn.Parameter
        None of them: the whole graph is the lower half, and the upper one gives its output as it is.

    Returns
    -------
    Halves or None
        None where there is nothing below, or something crosses the cut that has no images in its first dimension.
    """
    items = list(graphed.graph.nodes)
    place = _first_use(graphed, items, {id(parameter) for parameter in trained})
    below = [item for item in items[:place] if item.op != "output"]
    if not any(item.op == "call_module" for item in below):
        return None
    crossing = [item for item in below if any(user in items[place:] for user in item.users)]
    if any(item.op in ("placeholder", "get_attr") or _is_a_number(item) for item in crossing):
        return None
    lower, upper = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for item in below:
        copies[item] = lower.node_copy(item, lambda part: copies[part])
    lower.output(tuple(copies[item] for item in crossing))
    copies = {item: upper.placeholder(f"kept_{i}") for i, item in enumerate(crossing)}
    for item in items[place:]:
        copies[item] = upper.node_copy(item, lambda part: copies[part])
    return Halves(module_of(lower, graphed, {}), module_of(upper, graphed, {}))


def _first_use(graphed: fx.GraphModule, items: Sequence[fx.Node], trained: set[int]) -> int:
    for place, item in enumerate(items):
        if item.op == "output":
            return place
        if item.op == "call_module":
            used = graphed.get_submodule(str(item.target)).parameters()
        elif item.op == "get_attr":
            owner, _, name = str(item.target).rpartition(".")
            used = iter([getattr(graphed.get_submodule(owner), name)])
        else:
            continue
        if any(id(parameter) in trained for parameter in used):
            return place
    return len(items)


def _is_a_number(item: fx.Node) -> bool:
    """Tell whether an item gives something else than a tensor: a shape or a size."""
    return (item.op == "call_method" and item.target in ("size", "dim", "numel")) or (
        item.op == "call_function" and item.target is getattr
    )


@dataclass
class ActivationCache:
    """Keeps what the lower half gives for images in their views.

    Attributes
    ----------
    compute : callable
        Normalised images (B, 3, h, w) to a tuple of tensors.
    limit : int
        Bytes that may be kept; what comes after is computed every time.
    size : int
        Bytes that are kept.
    hits, misses : int
        Images that were there already, and images that were computed.
    """

    compute: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
    limit: int
    size: int = 0
    hits: int = 0
    misses: int = 0
    _kept: dict[tuple[int, str], tuple[torch.Tensor, ...]] = field(default_factory=dict)

    def batches(
        self,
        positions: IntArray,
        views: Sequence[str],
        batch_size: int,
        read: Callable[[IntArray, int, Sequence[str]], Iterator[Batch]],
    ) -> Iterator[tuple[IntArray, tuple[torch.Tensor, ...]]]:
        """Yield samples in batches, in their order, as what the lower half gives for them.

        Parameters
        ----------
        positions : int array (n,)
        views : sequence of str
            A view's text for each of them.
        batch_size : int
        read : callable
            ``read(positions, batch_size, views)`` yields batches of images.
        """
        keys = list(zip(positions.tolist(), views, strict=True))
        missing = [place for place, key in enumerate(keys) if key not in self._kept]
        self.hits += len(keys) - len(missing)
        self.misses += len(missing)
        computed = self._compute_each(read(positions[missing], batch_size, [views[place] for place in missing]))
        for start in range(0, len(keys), batch_size):
            rows = []
            for key in keys[start : start + batch_size]:
                row = self._kept.get(key)
                rows.append(self._keep(key, next(computed)) if row is None else row)
            yield positions[start : start + batch_size], tuple(torch.stack(each) for each in zip(*rows, strict=True))

    def _compute_each(self, batches: Iterator[Batch]) -> Iterator[tuple[torch.Tensor, ...]]:
        for batch in batches:
            with torch.no_grad():
                outputs = self.compute(batch.images)
            yield from zip(*(output.cpu().unbind() for output in outputs), strict=True)

    def _keep(self, key: tuple[int, str], row: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in row)
        if self.size + n_bytes <= self.limit:
            self._kept[key] = tuple(tensor.clone() for tensor in row)  # unbound rows would keep their whole batch alive
            self.size += n_bytes
        return row


def available_memory() -> int:
    """Return how many bytes this machine could give, as far as it says."""
    try:
        with Path("/proc/meminfo").open() as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
