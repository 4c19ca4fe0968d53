"""Reading features at places of a network: nodes, each with the pooling that makes one vector of what is there.

Reading goes through forward hooks, so that any network works, and stops the forward pass at the node unless the class
scores are wanted too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from featx.errors import UsageError
from featx.vision.nodes import Node


@dataclass(frozen=True)
class Place:
    """Where and how features are read: a node with one of its poolings."""

    node: Node
    pooling: str


def pool(values: torch.Tensor, node: Node, pooling: str) -> torch.Tensor:
    """Reduce a batch of a node's values to (B, n), or keep their shape with ``"none"``; a new float32 tensor."""
    values = values.float()
    if pooling == "cls":
        return values[:, 0].clone()
    if pooling == "mean-tokens":
        return values[:, 1 if node.class_token else 0 :].mean(dim=1)
    if pooling == "none":
        # What comes after the node may work in place on the very tensor that was read.
        return values.clone()
    over = (2, 3) if node.channel_axis == 0 else (1, 2)
    return values.amax(dim=over) if pooling == "max" else values.mean(dim=over)


def pooled_shape(node: Node, pooling: str) -> tuple[int, ...]:
    """Return the shape of one sample's features after `pool`."""
    if pooling == "none":
        return node.shape
    return (node.shape[node.channel_axis] if node.channel_axis is not None else node.shape[-1],)


def read_features(
    network: nn.Module, pixels: torch.Tensor, node: Node, pooling: str, *, with_scores: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Run one forward pass and read the pooled features at one node; see `read_places`."""
    (features,), scores = read_places(network, pixels, [Place(node, pooling)], with_scores=with_scores)
    return features, scores


def read_places(
    network: nn.Module, pixels: torch.Tensor, places: Sequence[Place], *, with_scores: bool
) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    """Run one forward pass and read the pooled features at several places.

    Parameters
    ----------
    network : nn.Module
        In eval mode.
    pixels : torch.Tensor
        (B, 3, h, w).
    places : sequence of Place
        Where to read; the same place may come twice.
    with_scores : bool
        Whether the forward pass goes on to the class scores; else it ends as soon as all places are read.

    Returns
    -------
    features : list of torch.Tensor
        For each place (B, n_features) float32.
    scores : torch.Tensor or None
        (B, n_source_classes) float32.
    """
    reading = _Reading(places, stop=not with_scores)
    handles = [reader.attach(network) for reader in reading.readers]
    scores = None
    try:
        scores = network(pixels)
    except _ReachedError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    features = [reader.features() for reader in reading.readers]
    return features, scores.float() if with_scores and scores is not None else None


class _ReachedError(Exception):
    """Ends a forward pass when everything is read."""


class _Reading:
    """The readers of one forward pass, which ends when the last of them has what it wants."""

    def __init__(self, places: Sequence[Place], *, stop: bool) -> None:
        self.readers = [_Reader(place, self) for place in places]
        self.stop = stop

    def note(self) -> None:
        if self.stop and all(reader.calls >= reader.place.node.calls for reader in self.readers):
            raise _ReachedError


class _Reader:
    def __init__(self, place: Place, reading: _Reading) -> None:
        self.place, self.reading = place, reading
        self.pooled: torch.Tensor | None = None
        self.calls = 0

    def attach(self, network: nn.Module) -> RemovableHandle:
        module = network.get_submodule(self.place.node.module)
        if self.place.node.takes:
            return module.register_forward_pre_hook(self.before)
        return module.register_forward_hook(self.after)

    def before(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._read(inputs[0])

    def after(self, _module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        self._read(output)

    def features(self) -> torch.Tensor:
        if self.pooled is None:
            raise UsageError(f"the network did not come by node {self.place.node.name!r} for these images")
        return self.pooled.flatten(1)

    def _read(self, values: torch.Tensor) -> None:
        self.calls += 1
        self.pooled = pool(values, self.place.node, self.place.pooling)
        self.reading.note()
