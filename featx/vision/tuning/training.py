"""Training over epochs: the best by validation is kept, the start among those it is chosen from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featx.errors import DeviceMemoryError
from featx.vision.devices import exact_arithmetic, is_out_of_memory
from featx.vision.tuning.checkpoint import Checkpoint
from featx.vision.tuning.epochs import Epoch, LossError, Progress, Record, State, TrainingProgress, Tuned, blend
from featx.vision.tuning.images import ImageReader, epoch_order, epoch_views
from featx.vision.tuning.lower import ActivationCache, available_memory
from featx.vision.tuning.network import TunedNetwork
from featx.vision.tuning.optimisation import Inputs, Optimisation
from featx.vision.tuning.ranks import Ranks
from featx.vision.tuning.recipe import IMAGE_KINDS, Recipe

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Score = Callable[[FloatArray, IntArray], tuple[float, float]]
"""Values (n, n_classes) and codes (n,) of validation samples to two scores; the second decides where the first ties."""

_KEPT_SHARE = 0.25
"""Of the memory that is free when a training begins, for what frozen layers give."""
STATES = 4
"""Times the size of the network that a checkpoint has at most: it, its best epoch, two moments of each weight."""
BLENDS = (0.25, 0.5, 0.75, 1.0)
"""Shares of the way from the start to the tuned weights that are tried (WiSE-FT, Wortsman et al. 2022,
https://arxiv.org/abs/2109.01903)."""


@dataclass(frozen=True, eq=False)
class Part:
    """Samples with their classes.

    Attributes
    ----------
    positions : int array (n,)
        In the manifest.
    codes : int array (n,)
        Places among the classes.
    """

    positions: IntArray
    codes: IntArray


class Training:
    """Trains a network by a recipe, epoch by epoch.

    Parameters
    ----------
    network : TunedNetwork
        As it starts, on its device.
    reader : ImageReader
    train : Part
    recipe : Recipe
    n_classes : int
    validate : Part, optional
        What epochs are chosen by; without it the last one is kept.
    score : callable, optional
        See `Score`; by default the share of right ones, then the mean log loss.
    checkpoint : Checkpoint, optional
    progress : callable, optional
    record : callable, optional
        Told all epochs so far after each of them, and where a resumed training goes on.
    """

    def __init__(
        self,
        network: TunedNetwork,
        reader: ImageReader,
        train: Part,
        recipe: Recipe,
        *,
        n_classes: int,
        validate: Part | None = None,
        score: Score | None = None,
        checkpoint: Checkpoint | None = None,
        progress: Progress | None = None,
        record: Record | None = None,
    ) -> None:
        self.network, self.reader, self.recipe = network, reader, recipe
        self._train, self._validate = train, validate
        self._score = score or accuracy
        self._checkpoint, self._progress, self._record = checkpoint, progress, record
        self._ranks = Ranks.here()
        self._ranks.copy_first(network.state_dict().values())
        self._start = network.state()
        steps = -(-len(train.positions) // recipe.batch_size)
        self.optimisation = Optimisation(
            network, recipe, recipe.epochs * steps, class_weights(train.codes, n_classes, recipe.class_weight)
        )
        self.kept = self._keep_lower()
        self._best: tuple[tuple[float, float], int, State] | None = None
        self._history: list[Epoch] = []

    def run(self, *, resume: bool = False) -> Tuned:
        """Train to the end.

        Parameters
        ----------
        resume : bool
            Whether to go on from the checkpoint, where there is one; the result is that of an uninterrupted run.

        Raises
        ------
        LossError
            The loss is not finite; the checkpoint is that of the last good epoch.
        InputError
            A checkpoint that is not this training's; an image that cannot be read.
        DeviceMemoryError, StoreWriteError
        """
        if self._checkpoint is not None:
            self._checkpoint.check_space(STATES * sum(tensor.nbytes for tensor in self._start.values()))
            state = self._checkpoint.load() if resume else None
            if state is not None and "done" in state:
                tuned = Tuned.restored(state["done"])
                self._tell_record(tuned.history)
                return tuned
            if state is not None:
                self._restore(state)
                self._tell_record(self._history)
            self._ranks.wait()  # before the first one writes another
        if not self._history:
            self._end_epoch(Epoch(0, None, None, 0.0, 0.0, None))
        while len(self._history) <= self.recipe.epochs and not self._is_patience_over():
            self._run_epoch(len(self._history))
        tuned = self._blended() if self._validate is not None else self._last()
        if self._checkpoint is not None:
            self._checkpoint.save({"done": tuned.kept()})
        return tuned

    def _run_epoch(self, number: int) -> None:
        recipe, train = self.recipe, self._train
        order = epoch_order(len(train.positions), recipe.random_state, number)
        torch.manual_seed(hash_seed(recipe.random_state, number) + self._ranks.rank)  # dropout
        self.network.train()
        start, losses, n_images = time.perf_counter(), [], 0
        lr = 0.0
        with exact_arithmetic:
            for positions, inputs in self._inputs(train.positions[order], recipe.view_of(number)):
                codes = train.codes[order[n_images : n_images + len(positions)]]
                record = self.optimisation.take_step(inputs, codes)
                if not np.isfinite(record.loss) or not (np.isfinite(record.gradient) or record.is_skipped):
                    raise self._not_finite(number, positions)
                n_images += len(positions)
                losses.append(record.loss)
                lr = record.lr
                self._tell(number, float(np.mean(losses)))
        seconds = time.perf_counter() - start
        self._end_epoch(
            Epoch(number, float(np.mean(losses)), None, lr, self.optimisation.distance(), n_images / seconds)
        )

    def _inputs(self, positions: IntArray, view: int) -> Iterator[tuple[IntArray, Inputs]]:
        """Yield the positions of each batch, and this process's share of its images, in one of the epochs' views.

        Or of what the frozen lower part of the network gives for them.
        """
        recipe, size, read = self.recipe, self.recipe.batch_size, self.reader.batches
        places, share = self._ranks.places(len(positions), size), self._ranks.count(size)
        own = positions[places]
        views = epoch_views(own, IMAGE_KINDS[recipe.images], recipe.random_state, view)
        batches: Iterator[Inputs]
        if self.kept is None:
            batches = (batch.images for batch in read(own, share, views))
        else:
            batches = (maps for _, maps in self.kept.batches(own, list(views), share, read))
        for start, inputs in zip(range(0, len(positions), size), batches, strict=True):
            yield positions[start : start + size], inputs

    def _keep_lower(self) -> ActivationCache | None:
        if not self.recipe.keeps_lower or not self.network.freeze_below(self.optimisation.trained()):
            return None
        device = next(self.network.parameters()).device

        def lower(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            with self.optimisation.autocast():
                return self.network.lower(images.to(device))

        return ActivationCache(lower, limit=int(_KEPT_SHARE * available_memory()))

    def _not_finite(self, number: int, positions: IntArray) -> LossError:
        is_kept = number > 1  # a file of before that may be an earlier run's
        return LossError(
            epoch=number,
            step=self.optimisation.step,
            keys=self.reader.keys(positions),
            checkpoint=str(self._checkpoint.path) if self._checkpoint is not None and is_kept else "",
        )

    def _tell(self, number: int, loss: float) -> None:
        if self._progress is not None:
            last = self._history[-1].validation
            optimisation = self.optimisation
            self._progress(TrainingProgress(optimisation.step, optimisation.n_steps, number, loss, last))

    def _tell_record(self, epochs: Sequence[Epoch]) -> None:
        if self._record is not None and self._ranks.is_first:
            self._record(epochs)

    def _end_epoch(self, epoch: Epoch) -> None:
        """Score an epoch, keep it where it is the best, and write the checkpoint."""
        with self.optimisation.averaged():
            scores = self._scores()
            if scores is not None:
                epoch = Epoch(**{**asdict(epoch), "validation": scores[0]})
                if self._best is None or scores > self._best[0]:
                    self._best = scores, epoch.number, self.network.state()
        self._history.append(epoch)
        if self._checkpoint is not None and epoch.number:
            self._checkpoint.save(self._state())
        self._tell_record(self._history)

    def _scores(self) -> tuple[float, float] | None:
        if self._validate is None:
            return None
        return self._score(self.values(self._validate.positions), self._validate.codes)

    def values(self, positions: IntArray) -> FloatArray:
        """Return the network's values (n, n_classes) for the plain images of samples."""
        optimisation = self.optimisation
        return network_values(
            self.network, self.reader, positions, optimisation.micro_batch, arithmetic=optimisation.autocast
        )

    def _is_patience_over(self) -> bool:
        patience, best = self.recipe.patience, self._best
        return bool(patience) and best is not None and len(self._history) - 1 - best[1] >= patience

    def _last(self) -> Tuned:
        with self.optimisation.averaged():
            return Tuned(self.network.state(), self._history, len(self._history) - 1)

    def _blended(self) -> Tuned:
        """Try the way from the start to the best epoch."""
        assert self._best is not None
        scores, number, state = self._best
        if number == 0:
            return Tuned(state, self._history, 0)
        found: dict[float, tuple[float, float]] = {1.0: scores}
        for share in BLENDS[:-1]:
            self.network.restore(blend(self._start, state, share))
            found[share] = self._scores() or scores
        best = max(found, key=lambda share: (*found[share], share))
        return Tuned(
            blend(self._start, state, best), self._history, number, best, {share: of[0] for share, of in found.items()}
        )

    def _state(self) -> dict[str, Any]:
        assert self._history
        best = (
            None
            if self._best is None
            else {"scores": list(self._best[0]), "epoch": self._best[1], "state": self._best[2]}
        )
        return {
            "network": self.network.state(),
            "optimisation": self.optimisation.state(),
            "best": best,
            "history": [asdict(epoch) for epoch in self._history],
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.network.restore(state["network"])
        self.optimisation.restore(state["optimisation"])
        best = state["best"]
        self._best = None if best is None else (tuple(best["scores"]), best["epoch"], best["state"])
        self._history = [Epoch(**epoch) for epoch in state["history"]]


@torch.inference_mode()
def network_values(
    network: TunedNetwork,
    reader: ImageReader,
    positions: IntArray,
    batch_size: int,
    *,
    arithmetic: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> FloatArray:
    """Return a network's values (n, n_classes) for the plain images of samples: in float32, or another arithmetic.

    Raises
    ------
    DeviceMemoryError
        Even one image is too much; a batch that is goes through the network in parts.
    """
    was_training, ranks, n = network.training, Ranks.here(), len(positions)
    network.eval()
    device = next(network.parameters()).device
    found = [torch.empty((0, network.head.out_features), device=device)]
    with exact_arithmetic:
        for batch in reader.batches(positions[ranks.own], batch_size):
            with arithmetic():
                found += _values_in_parts(network, batch.images, device)
    network.train(was_training)
    return ranks.gather(torch.cat(found), n).cpu().numpy().astype(np.float64)


def _values_in_parts(network: TunedNetwork, images: torch.Tensor, device: torch.device) -> list[torch.Tensor]:
    """Return the values of images (B, 3, h, w), in as many parts as memory asks for."""
    try:
        return [network(images.to(device)).float()]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    if len(images) == 1:
        raise DeviceMemoryError(device=str(device), batch=1)
    return [values for half in images.tensor_split(2) for values in _values_in_parts(network, half, device)]


def accuracy(values: FloatArray, codes: IntArray) -> tuple[float, float]:
    """Return the share of samples called right, and the mean log of the softmax of the true class."""
    largest = values.max(axis=1, keepdims=True)
    logs = values - largest - np.log(np.exp(values - largest).sum(axis=1, keepdims=True))
    return float(np.mean(values.argmax(axis=1) == codes)), float(logs[np.arange(len(codes)), codes].mean())


def class_weights(codes: IntArray, n_classes: int, class_weight: str | None) -> FloatArray:
    """Return the weight (n_classes,) of an image of each class: ``n / (n_classes * n_of_its_class)`` where balanced."""
    if class_weight is None:
        return np.ones(n_classes)
    counts = np.bincount(codes, minlength=n_classes)
    return np.asarray(len(codes) / (n_classes * np.maximum(counts, 1)))


def hash_seed(random_state: int, epoch: int) -> int:
    """Return a seed for torch that differs for each pair of numbers."""
    return int(np.random.SeedSequence((random_state, epoch)).generate_state(1)[0])
