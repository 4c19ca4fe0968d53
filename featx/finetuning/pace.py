"""How long the trainings of a fine-tune will take, and how far they are."""

from __future__ import annotations

from collections.abc import Sequence

from featx.errors import UsageError
from featx.finetuning.options import FinetuneProgress, Progress
from featx.learn.tuning_parts import FINAL
from featx.vision.tuning.epochs import TrainingProgress
from featx.vision.tuning.lr_range import n_test_steps
from featx.vision.tuning.part import PartTask, PartTrainer
from featx.vision.tuning.recipe import Recipe
from featx.vision.tuning.training import BLENDS

_FORWARD = 1 / 3
"""Of the time of a step: forward alone, where a step goes back for the inputs and for the weights as well."""


def check_time(tasks: Sequence[PartTask], recipe: Recipe, trainer: PartTrainer, max_hours: float | None) -> str:
    """Say how long trainings will take at most, by a few steps that are tried.

    Finding the learning rate and the scores after each epoch are part of it.

    Parameters
    ----------
    tasks : sequence of PartTask
    recipe : Recipe
    trainer : PartTrainer
    max_hours : float or None
        What may be taken.

    Raises
    ------
    UsageError
        If it is more than that.
    """
    n_test = sum(n_test_steps(len(task.train.positions), recipe) for task in tasks)
    n_steps = n_test + recipe.epochs * sum(-(-len(task.train.positions) // recipe.batch_size) for task in tasks)
    n_asked = sum(_n_asked(task, recipe) for task in tasks)
    hours = (n_steps + _FORWARD * n_asked / recipe.batch_size) * trainer.seconds_per_step(tasks[0]) / 3600
    tested = f", up to {n_test:,} of them to find the learning rate" if n_test else ""
    said = (
        f"{_count(len(tasks), 'training')} of up to {_count(recipe.epochs, 'epoch')} on {trainer.device} "
        f"({_count(n_steps, 'step')}{tested}): at most about {_describe(hours)}"
    )
    if max_hours is not None and hours > max_hours:
        ways = {
            "--cv 1 (one fold alone is tuned)": len(tasks) > 2,
            "a --lr of your own": 2 * n_test > n_steps,
            "fewer --epochs": recipe.epochs > 1,
            "--train head": recipe.train != "head",
        }
        helping = " or ".join(way for way, helps in ways.items() if helps) or "fewer images"
        raise UsageError(f"{said}, more than --max-hours {max_hours:g}; take {helping}")
    return said


def _n_asked(task: PartTask, recipe: Recipe) -> int:
    """Return for how many images a network is asked for its values, without being trained on them."""
    n_times = 1 + recipe.epochs + len(BLENDS[:-1]) + 1  # the start, each epoch, the way between, and what is kept
    n_validate = 0 if task.validate is None else len(task.validate.positions)
    return len(task.check) + n_times * n_validate + len(task.test)


class Pace:
    """Follows the trainings and tells how far all of them together are.

    What a checkpoint had done already, or early stopping leaves out, is not counted: the rate that follows from
    images and time is that of this run.

    Parameters
    ----------
    tasks : sequence of PartTask
        All that may be trained.
    recipe : Recipe
    progress : callable, optional
    """

    def __init__(self, tasks: Sequence[PartTask], recipe: Recipe, progress: Progress | None) -> None:
        self._recipe, self._progress = recipe, progress
        self._left = {task.name: self._n_test(task) + recipe.epochs * len(task.train.positions) for task in tasks}
        self._done = 0

    def advance(self, task: PartTask, at: TrainingProgress) -> None:
        """Take note of a step of a part; each is told of once."""
        n, size = len(task.train.positions), self._recipe.batch_size
        if at.is_test:
            now, seen = min(n, size), at.step * min(n, size)
        else:
            steps_before = (at.epoch - 1) * -(-n // size)
            seen_of_epoch = min(n, (at.step - steps_before) * size)
            now = seen_of_epoch - max(0, (at.step - steps_before - 1) * size)
            seen = self._n_test(task) + (at.epoch - 1) * n + seen_of_epoch
        self._done += now
        self._left[task.name] = self._n_test(task) + self._recipe.epochs * n - seen
        if self._progress is not None:
            name = task.name if task.name == FINAL else f"fold {task.name}"
            total = self._done + sum(self._left.values())
            self._progress(
                FinetuneProgress(name, self._done, total, at.epoch, self._recipe.epochs, at.loss, at.validation)
            )

    def end(self, task: PartTask) -> None:
        """Take note that a part is finished."""
        self._left[task.name] = 0

    def _n_test(self, task: PartTask) -> int:
        """Return how many images a test of the learning rate sees at most."""
        n = len(task.train.positions)
        return n_test_steps(n, self._recipe) * min(n, self._recipe.batch_size)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _describe(hours: float) -> str:
    """Return a duration in the unit that suits it."""
    if hours >= 1:
        return f"{hours:.1f} hours"
    return _count(max(1, round(60 * hours)), "minute")
