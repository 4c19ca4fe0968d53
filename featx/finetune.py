"""The stage behind ``featx finetune``: train the network itself, and keep that only where it wins on the same folds."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import InputError, SpecMismatchError, UsageError
from featx.fit import FitOptions, FitResult, fit_classes
from featx.learn.bundle import Bundle, load_bundle, save_bundle
from featx.learn.calibrated import Calibrated
from featx.learn.calibration import Calibration, Scored, choose_calibration
from featx.learn.contest import enter
from featx.learn.dataset import Features, load_features
from featx.learn.gate import BETTER, Verdict
from featx.learn.linear_layer import LinearLayer
from featx.learn.metrics import scoring_value
from featx.learn.result import save as save_frozen
from featx.learn.scores import Evaluation, FoldPredictions, evaluate_fixed, evaluate_folds
from featx.learn.splits import Fold
from featx.learn.study import Study
from featx.learn.training import softmax
from featx.learn.tuning_parts import FINAL, TuningPart, plan_parts
from featx.manifest import source as sources
from featx.manifest.record import Manifest
from featx.manifest.source import SourceOptions
from featx.spec import FeatureRequest, FeatureSpec
from featx.store.file import FeatureFile
from featx.vision.engine import EngineOptions
from featx.vision.tuning.part import PartTask, PartTrainer, TunedPart
from featx.vision.tuning.ranks import Ranks
from featx.vision.tuning.recipe import Recipe
from featx.vision.tuning.training import Part, TrainingProgress, Tuned

if TYPE_CHECKING:
    from featx.vision.backbones import Backbone

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions:
    """What ``featx finetune`` may be told.

    Attributes
    ----------
    recipe : Recipe
        How the network is trained.
    fit : FitOptions
        How the frozen head is chosen, and how folds are dealt: for both.
    validation : float
        Share of each training part by which epochs are chosen, 0 to 0.5; at 0 the last epoch is taken.
    cv : int
        Folds of the comparison; 1: the first fold alone is tuned.
    max_hours : float, optional
        Refuse what will take longer.
    force : bool
        Keep the tuned network whatever the gate says.
    """

    recipe: Recipe = Recipe()
    fit: FitOptions = FitOptions()  # noqa: RUF009  frozen
    validation: float = 0.2
    cv: int = 5
    max_hours: float | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.validation <= 0.5:
            raise UsageError(f"--validation {self.validation:g}: expected 0 to 0.5")
        if self.cv < 1:
            raise UsageError(f"--cv {self.cv}: at least 1 is needed")
        if self.fit.repeats != 1 or self.fit.views not in (None, "none") or self.fit.score_views == "average":
            raise UsageError("a fine-tune is compared on plain images, in one repeat of the folds")


@dataclass(frozen=True)
class FinetuneProgress:
    """Where a fine-tune is.

    Attributes
    ----------
    part : str
        ``"fold 2"``, ``"final"``.
    step, n_steps : int
        Of all parts together; parts may end earlier.
    epoch, epochs : int
        Of this part.
    loss : float
        Running mean.
    validation : float or None
        Score after the last epoch.
    """

    part: str
    step: int
    n_steps: int
    epoch: int
    epochs: int
    loss: float
    validation: float | None


Progress = Callable[[FinetuneProgress], None]
Notify = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class PartHistory:
    """How one part was trained.

    Attributes
    ----------
    name : str
    n_train, n_validate : int
    start : dict
        The choice behind the head that the training began with.
    best_epoch : int
        0: the start.
    blend : float
    blends : dict of float to float
        Validation scores on the way from the start to the best epoch.
    epochs : list of dict
        See `featx.vision.tuning.training.Epoch`.
    """

    name: str
    n_train: int
    n_validate: int
    start: dict[str, Any]
    best_epoch: int
    blend: float
    blends: dict[float, float]
    epochs: list[dict[str, Any]]

    @classmethod
    def of(cls, part: TuningPart, tuned: Tuned) -> PartHistory:
        """Take what is worth keeping of a training."""
        return cls(
            part.name,
            len(part.train),
            len(part.validate),
            part.choice.to_dict(),
            tuned.best_epoch,
            tuned.blend,
            tuned.blends,
            [asdict(epoch) for epoch in tuned.history],
        )


@dataclass(frozen=True, eq=False)
class FinetuneResult:
    """What came of a fine-tune.

    Attributes
    ----------
    frozen : FitResult
        The head on frozen features, with its scores.
    tuned : Evaluation
        Of the tuned networks on the same samples.
    frozen_scores : Evaluation
        Of the frozen head on these samples.
    verdict : Verdict
    holds : str
        ``"tuned"`` or ``"frozen"``: which of them is kept.
    history : list of PartHistory
        Of each part; that of the kept network last, where it was trained.
    recipe : Recipe
    seconds : float
    layer : LinearLayer or None
        The tuned head; None where the frozen one is kept.
    spec, weights : FeatureSpec and bytes, or None
        Of the tuned network.
    notes : list of str
        What the user must hear.
    """

    frozen: FitResult
    tuned: Evaluation
    frozen_scores: Evaluation
    verdict: Verdict
    holds: str
    history: list[PartHistory]
    recipe: Recipe
    seconds: float
    layer: LinearLayer | None = None
    calibration: Calibration | None = None
    spec: FeatureSpec | None = None
    weights: bytes | None = field(default=None, repr=False)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the object that ``featx finetune --json`` prints."""
        return {
            **self.verdict.to_dict(),
            "holds": self.holds,
            "tuned": self.tuned.to_dict(),
            "frozen": self.frozen_scores.to_dict(),
            "classes": self.frozen.classes,
            "history": [asdict(part) for part in self.history],
            "recipe": self.recipe.to_dict(),
            "fit": self.frozen.to_dict(),
            "seconds": self.seconds,
            "warnings": self.notes,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the classifier that is kept as a ``.featx`` bundle; `featx predict` takes either.

        Raises
        ------
        BundleError
            If it cannot be written.
        """
        told = {"finetune": {key: value for key, value in self.to_dict().items() if key not in ("fit", "classes")}}
        if self.layer is None or self.spec is None or self.calibration is None:
            save_frozen(self.frozen, path, more=told)
            return
        facts = {name: fact for name, fact in self.frozen.facts().items() if name not in ("conformal", "novelty")}
        scores = {name: interval.to_dict() for name, interval in self.tuned.scores.items()}
        save_bundle(
            path,
            estimator=Calibrated.of(self.layer.to_head(), self.calibration),
            facts={**facts, "spec": self.spec, "scores": scores, **told},
            weights=self.weights,
        )


def finetune(
    source: str | os.PathLike[str] | Manifest | Sequence[Any],
    *,
    start: Bundle | str | os.PathLike[str] | None = None,
    features: str | os.PathLike[str] | None = None,
    request: FeatureRequest = FeatureRequest(),
    options: FinetuneOptions = FinetuneOptions(),
    source_options: SourceOptions = SourceOptions(),
    engine: EngineOptions = EngineOptions(),
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    allow_code: str | None = None,
    progress: Progress | None = None,
    notify: Notify | None = None,
) -> FinetuneResult:
    """Fine-tune a network on labelled images, and judge it beside its frozen self.

    Parameters
    ----------
    source : path, Manifest, or sequence
        As for ``featx extract``.
    start : Bundle or path, optional
        What ``featx fit`` wrote: its backbone and its kind of head are the start.
    features : path, optional
        A feature file of the same images; without it they are computed, by the bundle's spec or by `request`.
    request : FeatureRequest
        Which backbone, where neither a bundle nor a feature file says it.
    options : FinetuneOptions
    source_options : SourceOptions
    engine : EngineOptions
        Workers and device.
    folder : path, optional
        Where checkpoints are kept, and features that had to be computed; none are by default.
    resume : bool
        Go on from what is in `folder`.
    allow_code : str, optional
        The ``package.module:function`` that may be imported, where the network is the user's own code.
    progress : callable, optional
        See `FinetuneProgress`.
    notify : callable, optional
        Told in a sentence what the user should know meanwhile.

    Returns
    -------
    FinetuneResult

    Raises
    ------
    BundleError, StoreError, SpecMismatchError
        A bundle or feature file that cannot be used, or that do not go together.
    InputError
        Images that the features do not know or that cannot be read; a network that does not begin where the frozen
        head ends; a loss that is not finite.
    LabelsError
        Labels or groups with which the comparison cannot be made.
    UsageError
        Options that do not go together, or a training that would take longer than it may.
    """
    begun = time.monotonic()
    tell = notify or _be_silent
    manifest = sources.as_manifest(source, source_options)
    bundle = load_bundle(start) if isinstance(start, str | os.PathLike) else start
    if bundle is not None:
        options = replace(options, fit=_like_bundle(options.fit, bundle))
    backbone, data = _material(manifest, bundle, features, request, engine, folder, allow_code)
    frozen = fit_classes(data, options.fit)
    job = _Job.plan(manifest, backbone, data, frozen, options, engine, folder, resume, tell)
    return job.run(progress, begun)


def _be_silent(_message: str) -> None:
    pass


def _like_bundle(options: FitOptions, bundle: Bundle) -> FitOptions:
    """Take a bundle's own heads, where the options do not name others."""
    told = bundle.facts.get("options")
    heads = told.get("heads") if isinstance(told, dict) else None
    if options.heads != FitOptions().heads or not isinstance(heads, list):
        return options
    return replace(
        options, heads=tuple(name for name in heads if isinstance(name, str) and ":" not in name) or ("logreg",)
    )


def _material(
    manifest: Manifest,
    bundle: Bundle | None,
    features: str | os.PathLike[str] | None,
    request: FeatureRequest,
    engine: EngineOptions,
    folder: str | os.PathLike[str] | None,
    allow_code: str | None,
) -> tuple[Backbone, Features]:
    """Have the network, and the frozen features of the images."""
    from featx.extract import extract
    from featx.vision.backbones import restore_backbone

    if features is not None:
        with FeatureFile.open(features) as file:
            if bundle is not None and (differences := file.spec.differences(bundle.needed_spec)):
                raise SpecMismatchError(
                    differences, path=os.fspath(features), hint="give the bundle's own feature file"
                )
            spec, weights = file.spec, file.weights()
        data = load_features(features, allow_missing=True)
    elif bundle is not None:
        spec, weights = bundle.needed_spec, bundle.weights
        backbone = restore_backbone(spec, weights, allow_code=allow_code)
        return backbone, _computed(manifest, backbone, engine)
    else:
        with tempfile.TemporaryDirectory(prefix="featx-") as scratch:
            path = Path(scratch if folder is None else folder) / "features.h5"
            path.parent.mkdir(parents=True, exist_ok=True)
            with Ranks.here().in_turn():
                extract(manifest, path, request=request, engine=engine)
            with FeatureFile.open(path) as file:
                spec, weights = file.spec, file.weights()
            data = load_features(path, allow_missing=True)
    if spec.n_views > 1:
        spec = replace(spec, views=spec.views[:1])
    return restore_backbone(spec, weights, allow_code=allow_code), data


def _computed(manifest: Manifest, backbone: Backbone, engine: EngineOptions) -> Features:
    """Compute features for this run alone."""
    from featx.store.records import OK
    from featx.vision.engine import Job, iter_batches
    from featx.vision.multi_device import make_embedder

    embedder = make_embedder(backbone, device=engine.device, runtime=engine.runtime, n_images=len(manifest))
    entries, rows = [], []
    for _, batch in iter_batches(manifest, [Job(embedder, range(len(manifest)))], engine):
        entries += batch.entries
        rows.append(batch.features)
    good = np.flatnonzero([entry.status == OK for entry in entries])

    def column(values: Sequence[str]) -> NDArray[np.object_]:
        return np.array([values[int(place)] for place in good], dtype=object)

    return Features(
        X=np.concatenate(rows).astype(np.float32),
        y=column(manifest.labels).astype(str),
        groups=column(manifest.groups),
        keys=column(manifest.keys),
        splits=column(manifest.splits),
        folds=column(manifest.folds),
        sha256=column([entry.sha256 for entry in entries]),
        group_source=manifest.group_source,
        spec=backbone.spec,
        n_missing=len(entries) - len(good),
    )


@dataclass(frozen=True, eq=False)
class _Job:
    """A fine-tune that is planned: its parts, and what they share."""

    manifest: Manifest
    backbone: Backbone
    study: Study
    frozen: FitResult
    parts: list[TuningPart]
    places: IntArray
    options: FinetuneOptions
    engine: EngineOptions
    folder: Path | None
    resume: bool
    tell: Notify

    @classmethod
    def plan(
        cls,
        manifest: Manifest,
        backbone: Backbone,
        data: Features,
        frozen: FitResult,
        options: FinetuneOptions,
        engine: EngineOptions,
        folder: str | os.PathLike[str] | None,
        resume: bool,
        tell: Notify,
    ) -> _Job:
        (entry,) = enter(data, views="none" if data.views is not None else None, score_views=None, allow_missing=True)
        study, _ = Study.arrange([entry.take(entry.samples.y != "")], options.fit)
        parts = plan_parts(study, validation=options.validation)
        if len(parts) > 2 and options.cv == 1:
            parts = [parts[0], parts[-1]]
        if frozen.whole.chosen.head not in {part.choice.head for part in parts}:
            tell(
                f"the frozen head is {frozen.whole.chosen.head}, which is not one layer on features: the start is "
                f"{parts[-1].choice.head} on the same features, and the comparison is with {frozen.whole.chosen.head}"
            )
        return cls(
            manifest,
            backbone,
            study,
            frozen,
            parts,
            _places(manifest, study.data),
            options,
            engine,
            None if folder is None else Path(folder),
            resume,
            tell,
        )

    @property
    def classes(self) -> list[str]:
        return self.study.classes(self.study.plan.train)

    def run(self, progress: Progress | None, begun: float) -> FinetuneResult:
        """Train and judge every part, then train what is kept."""
        trials = self.parts if len(self.parts) == 1 else self.parts[:-1]
        trainer = PartTrainer(
            self.backbone,
            self.manifest,
            self.options.recipe,
            self.engine,
            n_classes=len(self.classes),
            score=self._score,
            folder=self.folder,
        )
        tasks = {part.name: self._task(part) for part in self.parts}
        self._check_time(trainer, [tasks[part.name] for part in trials], tasks[FINAL])
        outcomes = [self._train(trainer, tasks[part.name], progress) for part in trials]
        called = [self._call(part, outcome) for part, outcome in zip(trials, outcomes, strict=True)]
        tuned, frozen_scores, verdict = self._judge(trials, called)
        holds = "tuned" if verdict.verdict == BETTER or self.options.force else "frozen"
        history = [PartHistory.of(part, outcome.tuned) for part, outcome in zip(trials, outcomes, strict=True)]
        kept: dict[str, Any] = {}
        if holds == "tuned":
            final = self.parts[-1]
            outcome = outcomes[-1] if trials[-1] is final else self._train(trainer, tasks[FINAL], progress)
            if trials[-1] is not final:
                history.append(PartHistory.of(final, outcome.tuned))
            spec, weights, coef, intercept = trainer.pack(tasks[FINAL], outcome.tuned)
            kept = {
                "layer": replace(final.start, coef=coef, intercept=intercept),
                "calibration": self._calibration(final, outcome),
                "spec": spec,
                "weights": weights,
            }
        return FinetuneResult(
            frozen=self.frozen,
            tuned=tuned,
            frozen_scores=frozen_scores,
            verdict=verdict,
            holds=holds,
            history=history,
            recipe=self.options.recipe,
            seconds=time.monotonic() - begun,
            notes=self.frozen.notes,
            **kept,
        )

    def _task(self, part: TuningPart) -> PartTask:
        X = self.study.entries[0].plain.astype(np.float64)
        check = part.validate if len(part.validate) else part.train[:64]
        return PartTask(
            part.name,
            self._samples(part.train),
            self._samples(part.validate) if len(part.validate) else None,
            self.places[part.test],
            part.start.coef,
            part.start.intercept,
            part.start.unit_length,
            self.places[check],
            part.start.decisions(X[check]),
        )

    def _samples(self, rows: IntArray) -> Part:
        return Part(self.places[rows], np.searchsorted(self.classes, self.study.data.y[rows]))

    def _score(self, values: FloatArray, codes: IntArray) -> tuple[float, float]:
        """Score validation values as heads are scored; ties go to the smaller log loss."""
        classes = np.asarray(self.classes)
        probabilities = softmax(values)
        y, predicted = classes[codes], classes[values.argmax(axis=1)]
        scores = [
            scoring_value(name, y, predicted, probabilities, self.classes)
            for name in (self.options.fit.scoring, "neg_log_loss")
        ]
        return tuple(-np.inf if one is None else one for one in scores)  # type: ignore[return-value]

    def _check_time(self, trainer: PartTrainer, trials: Sequence[PartTask], final: PartTask) -> None:
        """Say how long the training will take at most; refuse what would take longer than it may."""
        recipe = self.options.recipe
        tasks = list(trials) if final is trials[-1] else [*trials, final]
        n_steps = recipe.epochs * sum(-(-len(task.train.positions) // recipe.batch_size) for task in tasks)
        hours = n_steps * trainer.seconds_per_step(trials[0]) / 3600
        said = f"{len(tasks)} trainings of up to {recipe.epochs} epochs, {n_steps:,} steps on {trainer.device}"
        self.tell(f"{said}: about {_describe_hours(hours)} at most")
        if self.options.max_hours is not None and hours > self.options.max_hours:
            raise UsageError(
                f"{said}, would take about {_describe_hours(hours)}, more than --max-hours "
                f"{self.options.max_hours:g}; take --cv 1 (one fold alone is tuned), fewer --epochs, or --train "
                "last-block"
            )

    def _train(self, trainer: PartTrainer, task: PartTask, progress: Progress | None) -> TunedPart:
        def advance(at: TrainingProgress) -> None:
            if progress is not None:
                name = task.name if task.name == FINAL else f"fold {task.name}"
                epochs = self.options.recipe.epochs
                progress(FinetuneProgress(name, at.step, at.n_steps, at.epoch, epochs, at.loss, at.validation))

        return trainer.train(task, resume=self.resume, progress=advance)

    def _call(self, part: TuningPart, outcome: TunedPart) -> tuple[NDArray[Any], FloatArray]:
        """Return classes and calibrated probabilities of the test part; the frozen head's, where the start is best."""
        if outcome.tuned.best_epoch == 0:
            return self._frozen_predictions(part)
        probabilities = softmax(outcome.test)
        return np.asarray(self.classes)[outcome.test.argmax(axis=1)], self._calibration(part, outcome).apply(
            probabilities
        )

    def _calibration(self, part: TuningPart, outcome: TunedPart) -> Calibration:
        """Fit a temperature on the validation part; with none, probabilities stay as they are."""
        if not len(part.validate):
            return Calibration("none")
        codes = np.searchsorted(self.classes, self.study.data.y[part.validate])
        ids = self.study.ids(part.validate)
        scored = Scored(
            softmax(outcome.validate)[:, None],
            codes,
            np.zeros(len(codes), dtype=np.int64),
            np.arange(len(codes)) if ids is None else ids,
        )
        return choose_calibration(scored, "temperature")

    def _judge(
        self, trials: Sequence[TuningPart], predictions: Sequence[tuple[NDArray[Any], FloatArray]]
    ) -> tuple[Evaluation, Evaluation, Verdict]:
        plan, study = self.study.plan, self.study
        is_fixed = plan.scheme != "nested-cv"
        rows = plan.report if is_fixed else np.sort(np.concatenate([part.test for part in trials]))
        y, groups = study.data.y[rows], study.ids(rows)
        tuned, frozen = [], []
        for number, (part, (predicted, probabilities)) in enumerate(zip(trials, predictions, strict=True)):
            test = np.searchsorted(rows, part.test)
            train = np.setdiff1d(np.arange(len(rows)), test)
            fold = Fold(0, number, train, test, part.name)
            tuned.append(FoldPredictions(fold, predicted, probabilities))
            frozen.append(FoldPredictions(fold, *self._frozen_predictions(part)))
        verdict = Verdict.of(
            y, tuned, frozen, self.classes, groups=groups, is_fixed=is_fixed, random_state=self.options.fit.random_state
        )
        scores = [self._evaluate(y, parts, groups, is_fixed=verdict.is_single) for parts in (tuned, frozen)]
        return scores[0], scores[1], verdict

    def _evaluate(
        self, y: NDArray[np.str_], parts: Sequence[FoldPredictions], groups: IntArray | None, *, is_fixed: bool
    ) -> Evaluation:
        positive = self.options.fit.positive
        if not is_fixed:
            return evaluate_folds(y, parts, self.classes, groups=groups, positive=positive)
        (part,) = parts
        return evaluate_fixed(
            y[part.fold.test],
            part.predicted,
            part.probabilities,
            self.classes,
            groups=None if groups is None else groups[part.fold.test],
            y_train=self.study.data.y[self.study.plan.train],
            positive=positive,
        )

    def _frozen_predictions(self, part: TuningPart) -> tuple[NDArray[Any], FloatArray]:
        """Return what the frozen head of the same training part says of the test part."""
        keys = self.study.data.keys[part.test]
        fold = part.name if part.name != FINAL else ("val" if self.study.plan.scheme == "val" else "test")
        said = {row.key: row for row in self.frozen.out_of_fold if row.fold == fold}
        rows = [said[key] for key in keys]
        return np.array([row.predicted for row in rows]), np.array([row.probabilities for row in rows])


def _places(manifest: Manifest, data: Features) -> IntArray:
    """Return the position in the manifest of each sample.

    Raises
    ------
    InputError
        If the source lacks a sample that has features.
    """
    position = {key: place for place, key in enumerate(manifest.keys)}
    missing = [str(key) for key in data.keys if key not in position]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(data)} samples with features are not in the source, the first {missing[0]!r}; "
            "give the images from which the features were made"
        )
    return np.array([position[key] for key in data.keys], dtype=np.int64)


def _describe_hours(hours: float) -> str:
    """Return a duration in the unit that suits it."""
    if hours >= 1:
        return f"{hours:.1f} hours"
    return f"{max(1, round(60 * hours))} minutes"
