"""The stage behind ``featx finetune``: train the network itself, and keep that only where it wins on the same folds.

Its rooms are in `featx.finetuning`: options, the material, the pace, the judgement and the result.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from featx.finetuning.judging import Judging
from featx.finetuning.labelled import LabelledImages
from featx.finetuning.material import Gathering, Material, read_start
from featx.finetuning.options import FinetuneOptions, FinetuneProgress, Keep, Notify, Progress, Start
from featx.finetuning.pace import Pace, check_time
from featx.finetuning.result import FROZEN, FinetuneResult, PartHistory, TunedClassifier, save_frozen
from featx.fit import FitOptions, FitResult, fit_classes
from featx.learn.bundle import Bundle
from featx.learn.contest import enter
from featx.learn.gate import BETTER
from featx.learn.racing import Progress as Steps
from featx.learn.racing import silent
from featx.learn.study import Study
from featx.learn.tuning_parts import TuningPart, plan_parts
from featx.manifest import source as sources
from featx.manifest.record import Manifest
from featx.manifest.source import SourceOptions
from featx.vision.engine import EngineOptions
from featx.vision.tuning.part import PartTrainer, TunedPart
from featx.vision.tuning.recipe import describe_images

__all__ = [
    "FinetuneJob",
    "FinetuneOptions",
    "FinetuneProgress",
    "FinetuneResult",
    "Keep",
    "Start",
    "finetune",
    "plan_finetune",
]


def finetune(
    source: str | os.PathLike[str] | Manifest | Sequence[Any],
    start: Start | Bundle | str | os.PathLike[str] = Start(),
    options: FinetuneOptions = FinetuneOptions(),
    *,
    source_options: SourceOptions = SourceOptions(),
    engine: EngineOptions = EngineOptions(),
    keep: Keep = Keep(),
    progress: Progress | None = None,
    notify: Notify | None = None,
) -> FinetuneResult:
    """Fine-tune a network on labelled images, and judge it beside its frozen self.

    Parameters
    ----------
    source : path, Manifest, or sequence
        As for ``featx extract``.
    start : Start, Bundle or path
        What it begins with; a bundle, or the path of one, alone.
    options : FinetuneOptions
    source_options : SourceOptions
    engine : EngineOptions
        Workers and device.
    keep : Keep
        Where checkpoints are kept, and whether to go on with them; none are by default.
    progress : callable, optional
        See `FinetuneProgress`.
    notify : callable, optional
        Told in a sentence what the user should know meanwhile.

    Returns
    -------
    FinetuneResult

    Raises
    ------
    BundleError, StoreError, SpecMismatchError, WeightsError
        A bundle, feature file or weights that cannot be used, or that do not go together.
    InputError
        Images that the features do not know or that cannot be read; a network that does not begin where the frozen
        head ends; a loss that is not finite.
    LabelsError
        Labels or groups with which the comparison cannot be made.
    UsageError
        Options that do not go together, a device that is not there, or a training that would take longer than it may.
    """
    job = plan_finetune(source, start, options, source_options=source_options, engine=engine, keep=keep, notify=notify)
    return job.run(progress)


def plan_finetune(
    source: str | os.PathLike[str] | Manifest | Sequence[Any],
    start: Start | Bundle | str | os.PathLike[str] = Start(),
    options: FinetuneOptions = FinetuneOptions(),
    *,
    source_options: SourceOptions = SourceOptions(),
    engine: EngineOptions = EngineOptions(),
    keep: Keep = Keep(),
    steps: Steps = silent,
    notify: Notify | None = None,
) -> FinetuneJob:
    """Do all of a fine-tune but the training: gather its material, judge the frozen head, say how long it will take.

    Parameters
    ----------
    source, start, options, source_options, engine, keep, notify
        As for `finetune`.
    steps : callable, optional
        ``steps(step, unit)`` is called when a step begins and gives a context that is called with (done, total).

    Raises
    ------
    BundleError, StoreError, InputError, LabelsError, UsageError
        As `finetune`.
    """
    from featx.vision.devices import choose_device

    begun, tell = time.monotonic(), notify or _be_silent
    choose_device(engine.device)  # before anything is computed
    given = start if isinstance(start, Start) else Start(bundle=start)
    bundle = read_start(given)
    if bundle is not None:
        options = replace(options, fit=_like_bundle(options.fit, bundle))
    manifest = sources.as_manifest(source, source_options)
    material = Gathering(manifest, options, engine, keep, steps).gather(given, bundle)
    with steps("fit", "searches") as advance:
        frozen = fit_classes(material.data, options.fit, progress=advance)
    study = _study(material, options.fit)
    images = LabelledImages(study, material.positions(study.data.keys))
    judging = Judging(images, replace(frozen, weights=material.weights))
    parts = plan_parts(judging.study, validation=options.validation)
    if len(parts) > 2 and options.cv == 1:
        parts = [parts[0], parts[-1]]
    trainer = PartTrainer(
        material.backbone,
        manifest,
        options.recipe,
        engine,
        n_classes=len(judging.classes),
        score=judging.images.score,
        folder=keep.folder,
        records=keep.records,
    )
    job = FinetuneJob(material, judging, parts, trainer, options, keep, begun)
    for note in (*material.notes, *job.check()):
        tell(note)
    return job


def _be_silent(_message: str) -> None:
    pass


def _like_bundle(options: FitOptions, bundle: Bundle) -> FitOptions:
    """Take a bundle's own heads, where the options do not name others."""
    told = bundle.facts.get("options")
    heads = told.get("heads") if isinstance(told, dict) else None
    if options.heads != FitOptions().heads or not isinstance(heads, list):
        return options
    known = tuple(name for name in heads if isinstance(name, str) and ":" not in name)
    return replace(options, heads=known or ("logreg",))


def _study(material: Material, options: FitOptions) -> Study:
    """Arrange the study that `featx.fit` has arranged for the frozen head."""
    data = material.data
    (entry,) = enter(data, views="none" if data.views is not None else None, score_views=None, allow_missing=True)
    study, _ = Study.arrange([entry.take(entry.samples.y != "")], options)
    return study


@dataclass(frozen=True, eq=False)
class FinetuneJob:
    """A fine-tune that is ready to be run.

    Attributes
    ----------
    material : Material
    judging : Judging
        With the study, and the classifier on frozen features, which is there before anything is trained.
    parts : list of TuningPart
        That of the saved network last.
    trainer : PartTrainer
    options : FinetuneOptions
    keep : Keep
    begun : float
        When, by the monotonic clock.
    """

    material: Material
    judging: Judging
    parts: list[TuningPart]
    trainer: PartTrainer
    options: FinetuneOptions
    keep: Keep
    begun: float

    @property
    def frozen(self) -> FitResult:
        """The classifier on frozen features."""
        return self.judging.frozen

    @property
    def trials(self) -> list[TuningPart]:
        """The parts on which tuned and frozen are compared."""
        return self.parts if len(self.parts) == 1 else self.parts[:-1]

    def check(self) -> list[str]:
        """Return what the user should know before the training: where it begins, how images vary, how long it takes.

        Raises
        ------
        LabelsError
            All that would be compared is of one class.
        UsageError
            It would take longer than it may.
        StoreWriteError
            There is not enough room for its checkpoints.
        """
        self.judging.check(self.trials)
        tasks = [self.judging.images.task(part) for part in self.parts]
        if self.keep.folder is not None:
            self.keep.folder.mkdir(parents=True, exist_ok=True)
            self.trainer.check_space(tasks[-1], len(tasks))
        recipe = self.options.recipe
        return [
            *self._note_earlier(),
            *self._note_start(),
            f"{describe_images(recipe.images)} (--images says otherwise)",
            check_time(tasks, recipe, self.trainer, self.options.max_hours),
        ]

    def _note_earlier(self) -> list[str]:
        """Say so where an earlier run's checkpoints, perhaps of many hours, will be replaced."""
        folder = self.keep.folder
        if folder is None or self.keep.resume or not any(folder.glob("*.pt")):
            return []
        return [f"checkpoints of an earlier run in {folder} are replaced; to go on with them, stop and give --resume"]

    def _note_start(self) -> list[str]:
        """Say so where training cannot begin with the frozen head."""
        head, starts = self.frozen.whole.chosen.head, [part.choice.head for part in self.parts]
        if head in starts:
            return []
        return [
            f"the frozen head is {head}, which is not one layer on features: training begins with {starts[-1]} on the "
            f"same features, and the comparison is with {head}"
        ]

    def run(self, progress: Progress | None = None) -> FinetuneResult:
        """Train and judge every part, then train what is kept; what is raised is said at `finetune`."""
        pace = Pace([self.judging.images.task(part) for part in self.parts], self.options.recipe, progress)
        outcomes = [self._train(part, pace) for part in self.trials]
        history = [PartHistory.of(part, outcome) for part, outcome in zip(self.trials, outcomes, strict=True)]
        tuned_scores, frozen_scores, verdict = self.judging.judge(self.trials, outcomes)
        kept, notes = None, list(self.frozen.notes)
        if verdict.verdict == BETTER or self.options.force:
            final, is_trained = self.parts[-1], len(self.parts) == 1
            outcome = outcomes[0] if is_trained else self._train(final, pace)
            history += [] if is_trained else [PartHistory.of(final, outcome)]
            kept = self._pack(final, outcome)
            notes += [] if kept is not None else [_NOTHING_TUNED]
        return FinetuneResult(
            frozen=self.frozen,
            tuned_scores=tuned_scores,
            frozen_scores=frozen_scores,
            verdict=verdict,
            history=history,
            recipe=self.options.recipe,
            seconds=time.monotonic() - self.begun,
            tuned=kept,
            notes=notes,
        )

    def save_frozen(self, path: str | os.PathLike[str]) -> None:
        """Save the frozen classifier, where a training was stopped: nothing is known yet of the tuned one.

        Raises
        ------
        BundleError
            If it cannot be written.
        """
        save_frozen(self.frozen, path, {"verdict": None, "holds": FROZEN}, "was stopped before it was finished")

    def _train(self, part: TuningPart, pace: Pace) -> TunedPart:
        task = self.judging.images.task(part)
        outcome = self.trainer.train(task, resume=self.keep.resume, progress=lambda at: pace.advance(task, at))
        pace.end(task)
        return outcome

    def _pack(self, part: TuningPart, outcome: TunedPart) -> TunedClassifier | None:
        """Return the tuned network as it is saved; None: no epoch was better than the start."""
        if outcome.tuned.best_epoch == 0:
            return None
        spec, weights, coef, intercept = self.trainer.pack(self.judging.images.task(part), outcome.tuned)
        layer = replace(part.start, coef=coef, intercept=intercept)
        return TunedClassifier(layer, self.judging.images.calibration(part, outcome), spec, weights)


_NOTHING_TUNED = (
    "On all training samples, no epoch was better than the start on the images kept for the choice of the epoch: the "
    "frozen classifier is kept (with --validation 0 the last epoch would be taken, whatever it is worth)."
)
