"""One step of training: loss, gradient, optimiser, and what draws the weights back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from featx.errors import DeviceMemoryError, UsageError
from featx.vision.devices import is_out_of_memory
from featx.vision.tuning.blocks import choose_parameters
from featx.vision.tuning.compiled import compiled, is_compiled
from featx.vision.tuning.l2sp import Anchor
from featx.vision.tuning.mixing import mix
from featx.vision.tuning.network import TunedNetwork
from featx.vision.tuning.ranks import Ranks
from featx.vision.tuning.recipe import Recipe

IntArray = NDArray[np.int64]
Inputs = torch.Tensor | tuple[torch.Tensor, ...]
"""Images, or what the frozen lower part of a network gives for them."""


@dataclass(eq=False)
class _Block:
    """Parameters with a learning rate of their own: as a share of the recipe's, before the schedule."""

    parameters: list[nn.Parameter]
    share: float
    anchors: list[Anchor]
    is_head: bool = False


@dataclass(frozen=True)
class StepRecord:
    """What one step was like.

    Attributes
    ----------
    loss : float
        Weighted mean over the batch, of the targets as they were mixed and smoothed.
    gradient : float
        Norm, before it was clipped.
    lr : float
        Of the last block.
    is_skipped : bool
        Whether float16's range was too small for the gradient: nothing was changed, and the next one is scaled less.
    """

    loss: float
    gradient: float
    lr: float
    is_skipped: bool = False


class Optimisation:
    """Trains a network step by step.

    Parameters
    ----------
    network : TunedNetwork
        As it starts: this is where L2-SP draws it back to.
    recipe : Recipe
    n_steps : int
        Of the whole training, for the schedule.
    weights : float array (n_classes,)
        How much an image of each class counts.

    Raises
    ------
    UsageError
        Steps are to be compiled and cannot be, or the device does not compute in the recipe's dtype.

    Attributes
    ----------
    step : int
        How many have been taken.
    micro_batch : int
        Images that go through the network at once; a step adds up as many parts as it takes. Halved where memory does
        not suffice.
    """

    def __init__(self, network: TunedNetwork, recipe: Recipe, n_steps: int, weights: NDArray[np.floating]) -> None:
        check_dtype(recipe.dtype, str(next(network.parameters()).device))
        self.network = network
        self.recipe = recipe
        self.n_steps = n_steps
        self.step = 0
        self.micro_batch = recipe.batch_size
        self._device = next(network.parameters()).device
        self._ranks = Ranks.here()
        self._class_weights = torch.tensor(weights, dtype=torch.float32, device=self._device)
        self._blocks = [*self._backbone_blocks(), self._head_block()]
        groups = [{"params": block.parameters, "lr": recipe.largest_lr * block.share} for block in self._blocks]
        self._optimiser = _make_optimiser(groups, recipe)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=recipe.dtype == "float16")
        self._mean = [parameter.detach().clone() for parameter in self._trained()] if recipe.ema else []
        self._whole: Callable[..., torch.Tensor] = network
        self._upper: Callable[..., torch.Tensor] = network.from_lower
        if is_compiled(recipe, str(self._device), n_steps):
            self._whole, self._upper = compiled(self._whole), compiled(self._upper)

    def _backbone_blocks(self) -> list[_Block]:
        recipe, own = self.recipe, dict(self.network.network.named_parameters())
        chosen = choose_parameters(self.network, recipe.train)
        found = []
        for place, names in enumerate(chosen):
            parameters = [own[name] for name in names]
            share = recipe.layer_decay ** (len(chosen) - 1 - place)
            found.append(_Block(parameters, share, self._anchors(parameters, recipe.l2sp)))
        return found

    def _head_block(self) -> _Block:
        recipe, parameters = self.recipe, list(self.network.head.parameters())
        lr = recipe.largest_lr
        share = 1.0 if recipe.head_lr is None else recipe.head_lr / lr if lr else 0.0
        origin = Anchor.here if recipe.l2sp_head == "start" else Anchor.zero
        drawn = _drawn(parameters, recipe.l2sp_all)
        anchors = [origin(drawn, recipe.l2sp_beta), Anchor.zero(_drawn(parameters, False), recipe.weight_decay)]
        return _Block(parameters, share, anchors, is_head=True)

    def _anchors(self, parameters: list[nn.Parameter], alpha: float) -> list[Anchor]:
        drawn = _drawn(parameters, self.recipe.l2sp_all)
        return [Anchor.here(drawn, alpha), Anchor.zero(_drawn(parameters, False), self.recipe.weight_decay)]

    def _trained(self) -> list[torch.Tensor]:
        return [parameter for block in self._blocks for parameter in block.parameters]

    def trained(self) -> list[nn.Parameter]:
        """List the backbone's parameters that are trained."""
        return [parameter for block in self._blocks if not block.is_head for parameter in block.parameters]

    def take_step(self, inputs: Inputs, codes: IntArray, *, lr: float | None = None) -> StepRecord:
        """Train on one batch.

        Parameters
        ----------
        inputs : torch.Tensor, or tuple of them
            Normalised float32 images (B, 3, h, w); or what `TunedNetwork.lower` gave for them. Where several processes
            train, those of the batch, or of this process's share of it.
        codes : int array (B,)
            The class of each image of the batch.
        lr : float, optional
            In place of what the schedule says.

        Returns
        -------
        StepRecord
            With a loss that is not finite, nothing was changed.

        Raises
        ------
        DeviceMemoryError
            Even one image is too much.
        """
        recipe = self.recipe
        if lr is None:
            lr = recipe.largest_lr * recipe.factor(self.step, self.n_steps)
        self._open_blocks()
        for group, block in zip(self._optimiser.param_groups, self._blocks, strict=True):
            group["lr"] = lr * block.share
        own, targets = self._mixed(inputs, self._one_hot(codes))
        loss = self._ranks.add_numbers(self._accumulate(own, targets))
        record = StepRecord(loss, float("nan"), lr)
        if np.isfinite(loss):
            gradient = self._update()
            is_skipped = self._scaler.is_enabled() and not np.isfinite(gradient) and self._scaler.get_scale() >= 1.0
            record = StepRecord(loss, gradient, lr, is_skipped)
        self._optimiser.zero_grad(set_to_none=True)
        self.step += 1
        return record

    def _mixed(self, inputs: Inputs, targets: torch.Tensor) -> tuple[Inputs, torch.Tensor]:
        """Return this process's share of a batch, and the targets of all of it; they are mixed across processes."""
        ranks, recipe, n = self._ranks, self.recipe, len(targets)
        if isinstance(inputs, tuple):
            return tuple(ranks.take(each, n) for each in inputs), targets
        inputs = ranks.take(inputs, n)
        if recipe.mixup or recipe.cutmix:
            inputs, targets = mix(ranks.gather(inputs, n), targets, recipe, self.step)
            inputs = inputs[ranks.own]
        return inputs, targets

    def _open_blocks(self) -> None:
        n_open = self.recipe.n_open(self.step, self.n_steps, len(self._blocks) - 1)
        for place, block in enumerate(self._blocks):
            is_open = block.is_head or place >= len(self._blocks) - 1 - n_open
            for parameter in block.parameters:
                parameter.requires_grad_(is_open)

    def _one_hot(self, codes: IntArray) -> torch.Tensor:
        n_classes = len(self._class_weights)
        return functional.one_hot(torch.from_numpy(codes), n_classes).to(torch.float32)

    def _accumulate(self, inputs: Inputs, targets: torch.Tensor) -> float:
        """Add up this process's part of the gradient of the mean loss over a batch, in parts that fit into memory.

        Returns
        -------
        float
            Its part of that loss.
        """
        while True:
            try:
                return self._accumulate_parts(inputs, targets)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            self._optimiser.zero_grad(set_to_none=True)
            if self.micro_batch == 1:
                raise DeviceMemoryError(device=str(self._device), batch=1)
            self.micro_batch = max(1, min(self.micro_batch, self._ranks.count(len(targets))) // 2)

    def _accumulate_parts(self, inputs: Inputs, targets: torch.Tensor) -> float:
        smoothing, n_classes = self.recipe.label_smoothing, targets.shape[1]
        targets = (targets * (1.0 - smoothing) + smoothing / n_classes).to(self._device)
        weights = targets @ self._class_weights
        all_weights, total = weights.sum(), 0.0
        targets, weights = targets[self._ranks.own], weights[self._ranks.own]
        for start in range(0, len(targets), self.micro_batch):
            part = slice(start, start + self.micro_batch)
            with self.autocast():
                values = self._values(inputs, part)
            each = -(targets[part] * functional.log_softmax(values.float(), dim=1)).sum(dim=1)
            loss = (weights[part] * each).sum() / all_weights
            torch.autograd.backward(self._scaler.scale(loss))
            total += float(loss.detach())
        return total

    def _values(self, inputs: Inputs, part: slice) -> torch.Tensor:
        if isinstance(inputs, tuple):
            return self._upper([self._on_device(each[part]) for each in inputs])
        return self._whole(self._on_device(inputs[part]))

    def _on_device(self, values: torch.Tensor) -> torch.Tensor:
        """Bring images or maps there with their channels last, as the network's weights are."""
        form = torch.channels_last if values.ndim == 4 else torch.preserve_format
        return values.to(self._device, non_blocking=True, memory_format=form)

    def _update(self) -> float:
        recipe = self.recipe
        self._ranks.add_up(parameter for parameter in self._trained() if parameter.requires_grad)
        trained = [parameter for parameter in self._trained() if parameter.grad is not None]
        self._scaler.unscale_(self._optimiser)
        norm = _clip(trained, recipe.clip)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        if self._scaler.is_enabled() and not np.isfinite(norm):
            return norm  # the scaler has left the step out: nothing is drawn back either
        for group, block in zip(self._optimiser.param_groups, self._blocks, strict=True):
            if block.parameters[0].requires_grad:
                for anchor in block.anchors:
                    anchor.pull(group["lr"])
        if self._mean:
            # In the beginning the mean is that of few steps: it must not cling to the start.
            decay = min(recipe.ema, (1.0 + self.step) / (10.0 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(self._mean, self._trained(), 1.0 - decay)
        return norm

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which the network computes in the recipe's dtype."""
        if self.recipe.dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=getattr(torch, self.recipe.dtype))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the running mean of the weights into the network while inside; as it is where there is none."""
        trained = self._trained() if self._mean else []
        own = [parameter.detach().clone() for parameter in trained]
        with torch.no_grad():
            for parameter, mean in zip(trained, self._mean, strict=True):
                parameter.copy_(mean)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(trained, own, strict=True):
                    parameter.copy_(value)

    def distance(self) -> float:
        """Return how far the backbone's weights are from where they started: the Euclidean norm."""
        return float(np.sqrt(sum(block.anchors[0].distance() ** 2 for block in self._blocks if not block.is_head)))

    def state(self) -> dict[str, Any]:
        """Return what it takes to go on: tensors, numbers and plain containers."""
        return {
            "step": self.step,
            "micro_batch": self.micro_batch,
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
            "mean": self._mean,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave; the network's own weights are put back by whoever has them."""
        self.step, self.micro_batch = state["step"], state["micro_batch"]
        self._optimiser.load_state_dict(state["optimiser"])
        self._scaler.load_state_dict(state["scaler"])
        with torch.no_grad():
            for mean, value in zip(self._mean, state["mean"], strict=True):
                mean.copy_(value)


def check_dtype(dtype: str, device: str) -> None:
    """Raise where a device does not train in a dtype.

    Raises
    ------
    UsageError
        float16 elsewhere than on CUDA: its range is too small without a scaler, and the CPU has no use of it.
    """
    if dtype == "float16" and torch.device(device).type != "cuda":
        raise UsageError(f"--dtype float16 trains on CUDA only, and this is {device}; take --dtype bfloat16")


def _drawn(parameters: list[nn.Parameter], everything: bool) -> list[nn.Parameter]:
    """Return the weights among parameters; biases and norms are vectors."""
    return [parameter for parameter in parameters if everything or parameter.ndim > 1]


def _clip(parameters: list[torch.Tensor], largest: float) -> float:
    """Shorten a gradient to a norm, 0: any; return what its norm was. One that is short enough is not touched."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if largest and not norm <= largest:
        nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return float(norm)


def _make_optimiser(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=recipe.largest_lr, momentum=recipe.momentum)
    return torch.optim.AdamW(groups, lr=recipe.largest_lr, weight_decay=0.0)  # decay is a proximal step, as L2-SP's
