"""What a runtime has to do: read features at places of a network, in a dtype, on a device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import fx, nn

from featx.errors import UsageError
from featx.vision.backbones import Backbone
from featx.vision.devices import exact_arithmetic
from featx.vision.graph import cut_graph, fold_batch_norms
from featx.vision.own import is_own
from featx.vision.parts import Parts
from featx.vision.places import Place, read_places

Read = tuple[list[torch.Tensor], torch.Tensor | None]
"""For each place the features (B, n_features), and the class scores or None; all float32."""

_AGREES = {"float32": 1e-3, "bfloat16": 0.5, "float16": 0.5}
"""By how much of their standard deviation a runtime's features may differ from those of the plain network.

Of the 1,280 of MobileNetV2 the worst one differs by 0.33 in bfloat16 where the processor has no instructions for it.
"""
_SEED = 0


class Runtime(Protocol):
    """Executes a network.

    Attributes
    ----------
    name : str
        What really runs.
    task : Task
        What it does.
    parts : Parts or None
        What computes the task's outputs on the cores of the CPU, where it is that.
    """

    name: str
    task: Task

    @property
    def parts(self) -> Parts | None:
        """See above."""

    def __call__(self, images: torch.Tensor) -> Read:
        """Read the features of normalised float32 images (B, 3, h, w) on the device."""


@dataclass(frozen=True)
class Task:
    """What is to be computed.

    Attributes
    ----------
    network : nn.Module
        In eval mode, on the device, in `layout`.
    places : tuple of Place
        Where the features are read.
    with_scores : bool
        Whether the class scores are wanted.
    backbone : str
        The network's name.
    image_size : tuple of int
        Height and width in pixels.
    dtype : str
        Of the arithmetic.
    exact : tuple of str
        Modules that compute in float32 all the same.
    device : torch.device
        Where.
    layout : torch.memory_format
        Of the network's convolutions and of the images.
    """

    network: nn.Module
    places: tuple[Place, ...]
    with_scores: bool
    backbone: str
    image_size: tuple[int, int]
    dtype: str
    exact: tuple[str, ...]
    device: torch.device
    layout: torch.memory_format

    @classmethod
    def of(cls, backbones: Sequence[Backbone], device: str) -> Task:
        """Return the task of reading several backbones' features, all of the first one's network, on a device.

        The network is moved there.
        """
        spec, network = backbones[0].spec, backbones[0].network
        # Faster for convolutions; a user's own network may hold a view() that cannot do with it.
        layout = torch.contiguous_format if is_own(spec.backbone) else torch.channels_last
        height, width = spec.preprocess.crop or spec.preprocess.resize
        return cls(
            network=network.to(device, memory_format=layout),  # type: ignore[call-overload]
            places=tuple(Place(backbone.node, backbone.spec.pooling) for backbone in backbones),
            with_scores=any(backbone.spec.logits for backbone in backbones),
            backbone=spec.backbone,
            image_size=(height, width),
            dtype=spec.dtype,
            exact=spec.float32_modules,
            device=torch.device(device),
            layout=layout,
        )

    def plain(self, images: torch.Tensor) -> Read:
        """Read the features with hooks, the network as it is."""
        with self.autocast():
            return read_places(self.network, images, self.places, with_scores=self.with_scores)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which the network computes in the dtype; per thread."""
        if self.dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.dtype))

    def graph(self) -> fx.GraphModule | None:
        """Return the network as a graph with its batch norms folded; None: it cannot be traced."""
        graph = cut_graph(self.network, self.places, with_scores=self.with_scores)
        return None if graph is None else fold_batch_norms(graph)

    def read(self, outputs: Sequence[torch.Tensor]) -> Read:
        """Return a graph's outputs as features and scores."""
        n = len(self.places)
        return list(outputs[:n]), outputs[n] if self.with_scores else None

    def probe(self, n: int = 1) -> torch.Tensor:
        """Return images of noise to try a runtime with, always the same ones."""
        generator = torch.Generator().manual_seed(_SEED)
        images = torch.randn((n, 3, *self.image_size), generator=generator)
        return images.to(self.device).contiguous(memory_format=self.layout)

    def agrees(self, compute: Callable[[torch.Tensor], Read], *, n: int = 1) -> bool:
        """Tell whether a runtime gives the plain network's features on an image of noise, the first of n."""
        images = self.probe(n)
        with torch.inference_mode(), exact_arithmetic:
            expected, scores = read_places(self.network, images[:1], self.places, with_scores=self.with_scores)
            features, its_scores = compute(images)
        got = [rows[:1] for rows in features]
        got_scores = None if its_scores is None else its_scores[:1]
        pairs = list(zip(got, expected, strict=True))
        if scores is not None and got_scores is not None:
            pairs.append((got_scores, scores))
        return all(_near(mine, reference, _AGREES[self.dtype]) for mine, reference in pairs)


def cannot_trace(task: Task, runtime: str) -> UsageError:
    """Return the error that says that a runtime needs a graph, and which does not."""
    return UsageError(
        f"runtime {runtime} cannot take {task.backbone}: its forward pass cannot be traced; take --runtime torch"
    )


def _near(values: torch.Tensor, expected: torch.Tensor, share: float) -> bool:
    if values.shape != expected.shape:
        return False
    same = torch.equal(values.isfinite(), expected.isfinite())
    difference = (values - expected).nan_to_num_(0.0, 0.0, 0.0)
    spread = expected.nan_to_num(0.0, 0.0, 0.0)
    scale = spread.std(correction=0)
    # A single feature, or features that are all alike, have no spread: their size is the measure then.
    return same and bool(difference.abs().max() <= share * torch.maximum(scale, spread.abs().max() * 1e-3))
