"""The learning rate, found by a short test: it rises step by step, until the loss does.

The range test of Smith (2017, "Cyclical learning rates for training neural networks", section 3.3,
https://arxiv.org/abs/1506.01186), on a few batches of the training part. A training that begins with a solved head has
little loss to lose, less than batches differ among each other; so each batch's loss is counted from what it was before
the first step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featx.vision.devices import exact_arithmetic
from featx.vision.tuning.epochs import Progress, TrainingProgress
from featx.vision.tuning.images import ImageReader, epoch_order, epoch_views
from featx.vision.tuning.network import TunedNetwork
from featx.vision.tuning.optimisation import Optimisation
from featx.vision.tuning.recipe import IMAGE_KINDS, Recipe
from featx.vision.tuning.training import Part, class_weights, hash_seed

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Step = Callable[[float], float]
"""Takes a step with a learning rate; returns the loss before it."""

LOWEST, HIGHEST = {"adamw": 1e-6, "sgd": 1e-5}, {"adamw": 1e-1, "sgd": 10.0}
"""Where the test begins and ends at the latest, by optimiser."""
SHARE, MOST = 0.5, 0.1
"""Of the learning rate at which the loss falls steepest, and at most of the last one that was tried."""
_FINE, _COARSE = 8, 4
"""Steps for each factor of ten; the latter where a test would be more than a quarter of its training."""
_HALF_WINDOW = 0.25
"""Decades on either side over which the fall is measured."""
_IMAGES = 128
_MOST_BATCHES = 8
_SMOOTHING = 0.17
"""What is left, after a factor of ten, of the weight of a loss in the running mean."""
_RISEN = 3.0
"""The test ends where the loss has risen by so many times what it was at the start (and by `_FLOOR`)."""
_FLOOR = 0.01


@dataclass(frozen=True)
class LrRange:
    """What the test saw.

    Attributes
    ----------
    lr : float
        What was found.
    rates : list of float
        Learning rates, rising.
    losses : list of float
        At each of them: the change of the loss since the start, smoothed.
    """

    lr: float
    rates: list[float]
    losses: list[float]


def n_test_steps(n_train: int, recipe: Recipe) -> int:
    """Return how many steps a test takes at most; 0 where the recipe has a learning rate, or no epochs to need one."""
    if not recipe.finds_lr:
        return 0
    return _n_batches(n_train, recipe.batch_size) + len(_rising(recipe, n_train))


def find_lr(
    network: TunedNetwork,
    reader: ImageReader,
    train: Part,
    recipe: Recipe,
    *,
    n_classes: int,
    progress: Progress | None = None,
) -> LrRange:
    """Find the learning rate of a training by a test on its training part.

    The optimiser, its momentum, layer-wise rates, L2-SP and views are the recipe's; nothing is mixed, all blocks are
    open and the head has the rate of the last block. Eight batches or 128 images, whichever is less, take turns.

    Parameters
    ----------
    network : TunedNetwork
        Is spoilt: give a copy.
    reader : ImageReader
    train : Part
    recipe : Recipe
        Its own learning rate does not count.
    n_classes : int
    progress : callable, optional
        Told of each step, as of epoch 0.

    Returns
    -------
    LrRange
        The same for the same arguments, bit for bit on one machine's CPU.

    Raises
    ------
    ImageDecodeError, DeviceMemoryError
    """
    rates = _rising(recipe, len(train.positions))
    plain: dict[str, Any] = {
        "head_lr": None,
        "mixup": 0.0,
        "cutmix": 0.0,
        "ema": 0.0,
        "unfreeze": 0.0,
        "compile": "off",
    }
    recipe = replace(recipe, lr=rates[-1], **plain)
    weights = class_weights(train.codes, n_classes, recipe.class_weight)
    optimisation = Optimisation(network, recipe, len(rates), weights)
    torch.manual_seed(hash_seed(recipe.random_state, 0))  # dropout
    network.train()
    with exact_arithmetic:
        batches = list(_batches(network, reader, train, optimisation))
        n_steps = len(batches) + len(rates)

        def take_step(lr: float) -> float:
            inputs, codes = batches[optimisation.step % len(batches)]
            loss = optimisation.take_step(inputs, codes, lr=lr).loss
            if progress is not None:
                progress(TrainingProgress(optimisation.step, n_steps, 0, loss, None))
            return loss

        return run_test(take_step, rates, n_batches=len(batches))


def _batches(
    network: TunedNetwork, reader: ImageReader, train: Part, optimisation: Optimisation
) -> Iterator[tuple[torch.Tensor | tuple[torch.Tensor, ...], IntArray]]:
    """Yield a few batches, or what the frozen lower part of the network gives for them."""
    recipe, n = optimisation.recipe, len(train.positions)
    order = epoch_order(n, recipe.random_state, 0)[: _n_batches(n, recipe.batch_size) * recipe.batch_size]
    views = epoch_views(train.positions[order], IMAGE_KINDS[recipe.images], recipe.random_state, 0)
    is_kept = recipe.keeps_lower and network.freeze_below(optimisation.trained())
    device = next(network.parameters()).device
    for start, batch in zip(
        range(0, len(order), recipe.batch_size),
        reader.batches(train.positions[order], recipe.batch_size, views),
        strict=True,
    ):
        codes = train.codes[order[start : start + recipe.batch_size]]
        if not is_kept:
            yield batch.images, codes
            continue
        with torch.no_grad(), optimisation.autocast():
            yield tuple(each.cpu() for each in network.lower(batch.images.to(device))), codes


def _n_batches(n: int, batch_size: int) -> int:
    """Return how many batches take turns; the last, smaller one of an epoch is among them only if there is no other."""
    return max(1, min(n // batch_size, _IMAGES // batch_size, _MOST_BATCHES))


def _rising(recipe: Recipe, n_train: int) -> list[float]:
    """Return the learning rates of a test that is short beside its training."""
    low, high = LOWEST[recipe.optimiser], HIGHEST[recipe.optimiser]
    decades = round(math.log10(high / low))
    n_steps = recipe.epochs * -(-n_train // recipe.batch_size)
    n = decades * (_FINE if 4 * _FINE * decades <= n_steps else _COARSE) + 1
    return [float(lr) for lr in np.geomspace(low, high, n)]


def run_test(take_step: Step, rates: list[float], *, n_batches: int = 1) -> LrRange:
    """Take steps with rising learning rates until the loss has risen, and choose one.

    Parameters
    ----------
    take_step : callable
        See `Step`; batches take turns.
    rates : list of float
        Rising.
    n_batches : int
        How many take turns. Each is first seen with a learning rate of 0: this is what its loss is counted from.
    """
    kept = float(_SMOOTHING ** math.log10(rates[1] / rates[0]))
    starts = [take_step(0.0) for _ in range(n_batches)]
    risen = _RISEN * float(np.mean(starts)) + _FLOOR
    smooth, losses = 0.0, []
    for number, lr in enumerate(rates):
        change = take_step(lr) - starts[number % n_batches]
        smooth = kept * smooth + (1.0 - kept) * change
        if not math.isfinite(smooth):
            break
        losses.append(smooth / (1.0 - kept ** (number + 1)))
        if losses[-1] > risen:
            break
    seen = rates[: len(losses)]
    return LrRange(choose_lr(rates, losses), seen, losses)


def choose_lr(rates: list[float], losses: list[float]) -> float:
    """Return half of the learning rate at which the smoothed loss falls steepest.

    Steepest over the logarithm of the rate, by differences over half a decade, and before the lowest loss. The result
    is at most a tenth of the last rate that was tried, where the loss had risen or the test ended, and at least the
    first: with a loss that does not fall, training hardly moves.

    Parameters
    ----------
    rates : list of float
        Rising, evenly on a logarithmic scale.
    losses : list of float
        Of the first of them.
    """
    if not losses:
        return rates[0]
    falling = np.array(losses[: int(np.argmin(losses)) + 1])
    places, window = np.arange(len(falling)), max(1, round(_HALF_WINDOW / math.log10(rates[1] / rates[0])))
    after, before = np.minimum(places + window, places[-1]), np.maximum(places - window, 0)
    steepest = int(np.argmin(falling[after] - falling[before]))
    return float(max(rates[0], min(SHARE * rates[steepest], MOST * rates[len(losses) - 1])))
