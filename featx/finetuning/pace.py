"""How long the trainings of a fine-tune will take, and how far they are."""

from __future__ import annotations

from collections.abc import Sequence

from featx.errors import UsageError
from featx.finetuning.options import FinetuneProgress, Progress
from featx.learn.tuning_parts import FINAL
from featx.vision.tuning.epochs import TrainingProgress
from featx.vision.tuning.part import PartTask, PartTrainer
from featx.vision.tuning.recipe import Recipe


def check_time(tasks: Sequence[PartTask], recipe: Recipe, trainer: PartTrainer, max_hours: float | None) -> str:
    """Say how long trainings will take at most, by a few steps that are tried.

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
    n_steps = recipe.epochs * sum(-(-len(task.train.positions) // recipe.batch_size) for task in tasks)
    n_steps += sum(trainer.n_test_steps(task) for task in tasks)
    hours = n_steps * trainer.seconds_per_step(tasks[0]) / 3600
    said = (
        f"{_count(len(tasks), 'training')} of up to {_count(recipe.epochs, 'epoch')} on {trainer.device} "
        f"({_count(n_steps, 'step')}): at most about {_describe(hours)}"
    )
    if max_hours is not None and hours > max_hours:
        fewer = "--cv 1 (one fold alone is tuned), " if len(tasks) > 2 else ""
        raise UsageError(f"{said}, more than --max-hours {max_hours:g}; take {fewer}fewer --epochs, or --train head")
    return said


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
        self._left = {task.name: recipe.epochs * len(task.train.positions) for task in tasks}
        self._done = 0
        self._seen = 0

    def begin(self, _task: PartTask) -> None:
        """Take note that a part begins."""
        self._seen = -1

    def advance(self, task: PartTask, at: TrainingProgress) -> None:
        """Take note of a step of a part."""
        n, size = len(task.train.positions), self._recipe.batch_size
        steps_before = (at.epoch - 1) * -(-n // size)
        seen = (at.epoch - 1) * n + min(n, (at.step - steps_before) * size)
        if self._seen < 0:
            self._seen = max(0, seen - size) if at.step > 1 else 0
        self._done += seen - self._seen
        self._seen = seen
        self._left[task.name] = self._recipe.epochs * n - seen
        if self._progress is not None:
            name = task.name if task.name == FINAL else f"fold {task.name}"
            total = self._done + sum(self._left.values())
            self._progress(
                FinetuneProgress(name, self._done, total, at.epoch, self._recipe.epochs, at.loss, at.validation)
            )

    def end(self, task: PartTask) -> None:
        """Take note that a part is finished."""
        self._left[task.name] = 0


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _describe(hours: float) -> str:
    """Return a duration in the unit that suits it."""
    if hours >= 1:
        return f"{hours:.1f} hours"
    return _count(max(1, round(60 * hours)), "minute")
