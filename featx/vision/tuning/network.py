"""A backbone that ends in a linear head: what is tuned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from featx.vision.backbones import Backbone
from featx.vision.graph import cut_graph
from featx.vision.places import Place, read_features
from featx.vision.tuning.frozen_norms import join_norms
from featx.vision.tuning.lower import Halves, cut_below

HEAD = "head"
"""Begins the names of the head's parameters; all others are the backbone's."""


class TunedNetwork(nn.Module):
    """Normalised images in, one value for each class out.

    The features are those of the backbone's spec, computed by its own modules. Batch norms keep their statistics, in
    training as well: few images would not give better ones, and networks whose batch norms are folded have none.

    Parameters
    ----------
    backbone : Backbone
        Its network is trained in place.
    coef : float array (n_classes, n_features)
    intercept : float array (n_classes,)
    unit_length : bool
        Whether features are divided by their Euclidean length before the head.

    Attributes
    ----------
    network : nn.Module
        The backbone's.
    head : nn.Linear
    """

    def __init__(
        self,
        backbone: Backbone,
        coef: NDArray[np.floating],
        intercept: NDArray[np.floating],
        *,
        unit_length: bool = False,
    ) -> None:
        super().__init__()
        self.network = backbone.network.requires_grad_(True)
        self.unit_length = unit_length
        self.head = nn.Linear(coef.shape[1], len(coef))
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(np.array(coef, dtype=np.float32)))
            self.head.bias.copy_(torch.from_numpy(np.array(intercept, dtype=np.float32)))
        self._place = Place(backbone.node, backbone.spec.pooling)
        graph = cut_graph(self.network, [self._place], with_scores=False)
        joined = None if graph is None else join_norms(graph)
        self._graph = (joined,)  # in a tuple: its modules are the network's, and are not to be counted twice
        self._halves: tuple[Halves, ...] = ()

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the pooled features (B, n_features) of normalised images (B, 3, h, w)."""
        (graph,) = self._graph
        if graph is None:
            place = self._place
            return read_features(self.network, images, place.node, place.pooling, with_scores=False)[0].flatten(1)
        features: torch.Tensor = graph(images)[0]
        return features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the values (B, n_classes) of normalised images (B, 3, h, w)."""
        return self._values(self.features(images))

    def freeze_below(self, trained: Sequence[nn.Parameter]) -> bool:
        """Cut the network below the first use of some parameters, for `lower` and `from_lower`; tell whether it can."""
        (graph,) = self._graph
        halves = None if graph is None else cut_below(graph, trained)
        self._halves = () if halves is None else (halves,)
        return bool(self._halves)

    def lower(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return what the frozen part gives for normalised images (B, 3, h, w): tensors (B, ...)."""
        outputs: tuple[torch.Tensor, ...] = self._halves[0].lower(images)
        return outputs

    def from_lower(self, kept: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the values (B, n_classes) of images from what `lower` gave for them."""
        return self._values(self._halves[0].upper(*kept)[0])

    def _values(self, features: torch.Tensor) -> torch.Tensor:
        if self.unit_length:
            features = functional.normalize(features, eps=torch.finfo(features.dtype).tiny)
        values: torch.Tensor = self.head(features)
        return values

    def train(self, mode: bool = True) -> TunedNetwork:
        """Switch dropout on or off; batch norms keep their statistics."""
        super().train(mode)
        for module in self.network.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        for halves in self._halves:
            halves.lower.eval()  # what is frozen has no dropout
        return self

    def used(self) -> dict[str, nn.Parameter]:
        """Return the backbone's parameters on which the features depend, by name, in the order of their use."""
        (graph,) = self._graph
        own = dict(self.network.named_parameters())
        if graph is None:
            return own
        names = {id(parameter): name for name, parameter in own.items()}
        return {names[id(parameter)]: parameter for parameter in _in_order(graph) if id(parameter) in names}

    def state(self) -> dict[str, torch.Tensor]:
        """Return copies of all tensors of network and head, on the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.state_dict().items()}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put back what `state` gave."""
        self.load_state_dict(dict(state))


def _in_order(graph: torch.fx.GraphModule) -> Iterator[nn.Parameter]:
    """Yield a graph's parameters as it uses them, each once."""
    seen: set[int] = set()
    modules = dict(graph.named_modules())
    for item in graph.graph.nodes:
        if item.op == "call_module":
            found = list(modules[str(item.target)].parameters())
        elif item.op == "get_attr":
            owner, _, name = str(item.target).rpartition(".")
            found = [getattr(graph.get_submodule(owner), name)]
        else:
            continue
        for parameter in found:
            if isinstance(parameter, nn.Parameter) and id(parameter) not in seen:
                seen.add(id(parameter))
                yield parameter
