"""One training part: a copy of the network is trained, and asked about the test part."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featx.errors import InputError, UsageError
from featx.manifest.record import Manifest
from featx.spec import FeatureSpec
from featx.vision import tensors
from featx.vision.backbones import Backbone
from featx.vision.devices import choose_device, exact_arithmetic
from featx.vision.engine import EngineOptions
from featx.vision.reading import NVJPEG
from featx.vision.tuning.adapters import add_adapters, check_adapters, merge_adapters
from featx.vision.tuning.checkpoint import Checkpoint
from featx.vision.tuning.compiled import is_compiled
from featx.vision.tuning.epochs import Epoch, Progress, Tuned
from featx.vision.tuning.feeding import lanes_of
from featx.vision.tuning.history import HistoryFiles, Recorder
from featx.vision.tuning.images import ImageReader
from featx.vision.tuning.lr_range import LrRange, find_lr
from featx.vision.tuning.network import TunedNetwork
from featx.vision.tuning.optimisation import Optimisation, check_dtype
from featx.vision.tuning.ranks import Ranks
from featx.vision.tuning.recipe import Recipe
from featx.vision.tuning.training import STATES, Part, Score, Training, network_values

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

TUNED = "tuned"
"""`FeatureSpec.weights` of a network that was tuned."""
START_TOLERANCE = 1e-4
"""By how much values may differ before the first step, as a share of the largest of them (or of 1)."""
_TRIAL_STEPS = 3


@dataclass(frozen=True, eq=False)
class PartTask:
    """What is to be trained.

    Attributes
    ----------
    name : str
    train : Part
    validate : Part or None
    test : int array
        Positions in the manifest; may be empty.
    coef, intercept : float arrays (n_classes, n_features) and (n_classes,)
        Of the head that the training begins with.
    unit_length : bool
        Whether features are divided by their length before the head.
    check : int array
        Positions of samples whose values are known.
    expected : float array (n_check, n_classes)
        The frozen head's values for them.
    """

    name: str
    train: Part
    validate: Part | None
    test: IntArray
    coef: FloatArray
    intercept: FloatArray
    unit_length: bool
    check: IntArray
    expected: FloatArray


@dataclass(frozen=True, eq=False)
class TunedPart:
    """What came of a task.

    Attributes
    ----------
    tuned : Tuned
    test, validate : float arrays (n_test, n_classes) and (n_validate, n_classes)
        The tuned network's values for these samples.
    start_difference : float
        Largest difference of values before the first step.
    lr : float
        Largest learning rate: the recipe's, or what a test found.
    """

    tuned: Tuned
    test: FloatArray
    validate: FloatArray
    start_difference: float
    lr: float


class PartTrainer:
    """Trains parts of the same study.

    Parameters
    ----------
    backbone : Backbone
        Is copied for each part.
    manifest : Manifest
    recipe : Recipe
    engine : EngineOptions
        Workers and device.
    n_classes : int
    score : callable
        See `featx.vision.tuning.training.Score`.
    folder : Path, optional
        For checkpoints, and `featx.vision.tuning.history.HistoryFiles`.
    records : sequence of callable
        Others who want to know of each epoch, see `featx.vision.tuning.history.Recorder`.

    Raises
    ------
    UsageError, MissingExtraError
        The device, this machine or the network does not do what the recipe asks for.
    """

    def __init__(
        self,
        backbone: Backbone,
        manifest: Manifest,
        recipe: Recipe,
        engine: EngineOptions,
        *,
        n_classes: int,
        score: Score | None = None,
        folder: Path | None = None,
        records: Sequence[Recorder] = (),
    ) -> None:
        self._records, self._has_history = list(records), False
        check_recipe(recipe, backbone, choose_device(engine.device))
        self._backbone, self._manifest, self._recipe, self._engine = backbone, manifest, recipe, engine
        self._n_classes, self._score, self._folder = n_classes, score, folder
        self.device = choose_device(engine.device)

    def check_space(self, task: PartTask, n_parts: int) -> None:
        """Raise StoreWriteError where the folder has too little room for the checkpoints of so many parts."""
        checkpoint = self._checkpoint(task)
        if checkpoint is not None:
            state = sum(tensor.nbytes for tensor in self._network(task).state_dict().values())
            checkpoint.check_space(STATES * state, besides=n_parts * state)

    def seconds_per_step(self, task: PartTask) -> float:
        """Measure a few steps on a copy: decoding, forward and backward pass; of several processes the slowest."""
        network = self._network(task)
        recipe = replace(self._recipe, warmup=0.0, lr=self._recipe.lr or 0.0, compile="off")
        size = min(recipe.batch_size, len(task.train.positions))
        n = min(len(task.train.positions), size * (_TRIAL_STEPS + 1))
        step = Optimisation(network.train(), recipe, _TRIAL_STEPS + 1, np.ones(self._n_classes))
        times = []
        with self._reader() as reader, exact_arithmetic:
            begun = time.perf_counter()
            for start, batch in zip(range(0, n, size), reader.batches(task.train.positions[:n], size), strict=False):
                step.take_step(batch.images, task.train.codes[start : start + size])
                times.append(time.perf_counter() - begun)
                begun = time.perf_counter()
        return Ranks.here().largest(float(np.median(times[1:] or times)))

    def train(self, task: PartTask, *, resume: bool = False, progress: Progress | None = None) -> TunedPart:
        """Train a part, and ask the tuned network about its validation and test parts.

        Raises
        ------
        InputError
            The network does not begin where the frozen head ends; as `featx.vision.tuning.training.Training.run`.
        """
        network = self._network(task)
        self._begin_history(keep=resume)
        with self._reader() as reader:
            difference = check_start(task, network_values(network, reader, task.check, self._recipe.batch_size))
            recipe = self._with_lr(task, reader, resume=resume, progress=progress)
            training = Training(
                network,
                reader,
                task.train,
                recipe,
                n_classes=self._n_classes,
                validate=task.validate,
                score=self._score,
                checkpoint=self._checkpoint(task),
                progress=progress,
                record=partial(self._tell_records, task.name),
            )
            tuned = training.run(resume=resume)
            network.restore(tuned.state)
            # In float32, whatever the training was in: so the saved network will be asked.
            batch_size, none = training.optimisation.micro_batch, np.empty(0, dtype=np.int64)
            validate, test = (
                network_values(network, reader, positions, batch_size)
                for positions in (none if task.validate is None else task.validate.positions, task.test)
            )
        return TunedPart(tuned, test, validate, difference, recipe.largest_lr)

    def _begin_history(self, *, keep: bool) -> None:
        """Open the history with the first part: the files are those of the whole run."""
        if self._folder is not None and not self._has_history and Ranks.here().is_first:
            self._records.insert(0, HistoryFiles(self._folder, keep=keep))
            self._has_history = True

    def _tell_records(self, part: str, epochs: Sequence[Epoch]) -> None:
        for record in self._records:
            record(part, epochs)

    def _with_lr(self, task: PartTask, reader: ImageReader, *, resume: bool, progress: Progress | None) -> Recipe:
        """Find the learning rate on the part's own training samples, where the recipe leaves it open.

        It is kept in the folder, so that a resumed training takes the same.
        """
        if not self._recipe.finds_lr:
            return replace(self._recipe, lr=self._recipe.lr or 0.0)
        kept = None if self._folder is None else Checkpoint(self._folder / f"{task.name}.lr.pt", self._identity(task))
        state = kept.load() if kept is not None and resume else None
        if state is None:
            network, n_classes = self._network(task), self._n_classes
            found = find_lr(network, reader, task.train, self._recipe, n_classes=n_classes, progress=progress)
            state = asdict(found)
            if kept is not None:
                kept.save(state)
        return replace(self._recipe, lr=LrRange(**state).lr)

    def pack(self, task: PartTask, tuned: Tuned) -> tuple[FeatureSpec, bytes, FloatArray, FloatArray]:
        """Return spec and weights of a tuned backbone, and coefficients and intercepts of its head."""
        network = self._network(task)
        network.restore(tuned.state)
        own = network.network.cpu().eval()
        merge_adapters(own)
        spec = replace(self._backbone.spec, weights=TUNED, weights_sha256=tensors.tensors_sha256(own), logits=False)
        head = network.head.cpu()
        coef, intercept = (value.detach().numpy().astype(np.float64) for value in (head.weight, head.bias))
        return spec, tensors.pack(own), coef, intercept

    def _network(self, task: PartTask) -> TunedNetwork:
        copied = replace(self._backbone, network=copy.deepcopy(self._backbone.network))
        if self._recipe.train == "lora":
            add_adapters(copied, self._recipe)
        network = TunedNetwork(copied, task.coef, task.intercept, unit_length=task.unit_length)
        return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def _reader(self) -> ImageReader:
        return ImageReader(self._manifest, self._backbone.spec, self._engine, lanes=lanes_of(self.device))

    def _checkpoint(self, task: PartTask) -> Checkpoint | None:
        if self._folder is None:
            return None
        return Checkpoint(self._folder / f"{task.name}.pt", self._identity(task))

    def _identity(self, task: PartTask) -> dict[str, Any]:
        validate = [] if task.validate is None else task.validate.positions.tolist()
        return {
            "spec": self._backbone.spec.fingerprint,
            "recipe": self._recipe.to_dict(),
            "train": [self._manifest.keys[place] for place in task.train.positions],
            "codes": task.train.codes.tolist(),
            "validate": [self._manifest.keys[place] for place in validate],
            "start": [
                task.unit_length,
                *np.round(task.coef, 9).ravel().tolist(),
                *np.round(task.intercept, 9).tolist(),
            ],
        }


def check_recipe(recipe: Recipe, backbone: Backbone, device: str) -> None:
    """Raise before anything is computed what a recipe lacks on this machine or of a network.

    Raises
    ------
    UsageError
        float16 elsewhere than on CUDA; steps that are to be compiled without a compiler; no layers for adapters; images
        of which the decoder gives no views.
    MissingExtraError
        peft is not installed.
    """
    if backbone.spec.preprocess.decoder == NVJPEG:
        raise UsageError(
            f"the features were made with decoder {NVJPEG!r}, which does not vary images; extract them again with "
            "another --decoder"
        )
    check_dtype(recipe.dtype, device)
    is_compiled(recipe, device, 0)
    if recipe.train == "lora":
        check_adapters(backbone)


def check_start(task: PartTask, values: FloatArray) -> float:
    """Return the largest difference between a network's values and the frozen head's.

    Raises
    ------
    InputError
        If it is above `START_TOLERANCE`.
    """
    if not len(values):
        return 0.0
    difference = float(np.abs(values - task.expected).max())
    allowed = START_TOLERANCE * max(1.0, float(np.abs(task.expected).max()))
    if not difference <= allowed:
        raise InputError(
            f"the network does not begin where the frozen head ends: their values differ by up to {difference:.2g}, "
            f"{allowed:.2g} is allowed. The features may be of other images, or made with lower precision; extract "
            "them again"
        )
    return difference
