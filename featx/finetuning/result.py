"""What comes of a fine-tune, and how it is saved."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any

from featx.fit import FitResult
from featx.learn.bundle import save_bundle
from featx.learn.calibrated import Calibrated
from featx.learn.calibration import Calibration
from featx.learn.gate import Verdict
from featx.learn.linear_layer import LinearLayer
from featx.learn.result import save
from featx.learn.scores import Evaluation
from featx.learn.tuning_parts import TuningPart
from featx.spec import FeatureSpec
from featx.vision.tuning.part import TunedPart
from featx.vision.tuning.recipe import Recipe, describe_images

TUNED, FROZEN = "tuned", "frozen"
"""What is held."""
_SHARED = (
    "task", "scheme", "classes", "n_samples", "n_fitted", "left_out", "locked", "groups", "options", "manifest_digest",
    "fitted_on", "locked_away",
)  # fmt: skip
"""Facts of the frozen classifier that are facts of the tuned one as well: of samples and folds, not of the head."""


@dataclass(frozen=True, eq=False)
class PartHistory:
    """How one part was trained.

    Attributes
    ----------
    name : str
    n_train, n_validate : int
    start : dict
        The choice behind the head that the training began with.
    start_difference : float
        Largest difference of values from those of that head, before the first step.
    lr : float
        Largest learning rate: the recipe's, or what a test found.
    best_epoch : int
        0: the start.
    blend : float
    blends : dict of float to float
        Validation scores on the way from the start to the best epoch.
    epochs : list of dict
        See `featx.vision.tuning.epochs.Epoch`.
    """

    name: str
    n_train: int
    n_validate: int
    start: dict[str, Any]
    start_difference: float
    lr: float
    best_epoch: int
    blend: float
    blends: dict[float, float]
    epochs: list[dict[str, Any]]

    @classmethod
    def of(cls, part: TuningPart, outcome: TunedPart) -> PartHistory:
        """Take what is worth keeping of a training."""
        tuned = outcome.tuned
        return cls(
            part.name,
            len(part.train),
            len(part.validate),
            part.choice.to_dict(),
            outcome.start_difference,
            outcome.lr,
            tuned.best_epoch,
            tuned.blend,
            tuned.blends,
            [asdict(epoch) for epoch in tuned.history],
        )


@dataclass(frozen=True, eq=False)
class TunedClassifier:
    """A tuned network as it is saved.

    Attributes
    ----------
    layer : LinearLayer
        Its head.
    calibration : Calibration
    spec : FeatureSpec
        What makes its features.
    weights : bytes
        Of its backbone, as a safetensors file.
    """

    layer: LinearLayer
    calibration: Calibration
    spec: FeatureSpec
    weights: bytes = field(repr=False)


@dataclass(frozen=True, eq=False)
class FinetuneResult:
    """What came of a fine-tune.

    Attributes
    ----------
    frozen : FitResult
        The head on frozen features, with its scores.
    tuned_scores, frozen_scores : Evaluation
        Of the tuned networks, and of the frozen head, on the same samples.
    verdict : Verdict
    history : list of PartHistory
        Of each part; that of the kept network last, where it was trained.
    recipe : Recipe
    seconds : float
    tuned : TunedClassifier or None
        The tuned network; None where the frozen classifier is kept.
    notes : list of str
        What the user must hear.
    """

    frozen: FitResult
    tuned_scores: Evaluation
    frozen_scores: Evaluation
    verdict: Verdict
    history: list[PartHistory]
    recipe: Recipe
    seconds: float
    tuned: TunedClassifier | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def holds(self) -> str:
        """``"tuned"`` or ``"frozen"``: which of them is kept."""
        return FROZEN if self.tuned is None else TUNED

    def to_dict(self) -> dict[str, Any]:
        """Return the object that ``featx finetune --json`` prints."""
        return {
            **self.verdict.to_dict(),
            "frozen": {"head": self.frozen.whole.chosen.head, **_scores(self.frozen_scores)},
            "tuned": _scores(self.tuned_scores),
            "holds": self.holds,
            "history": [asdict(part) for part in self.history],
            "recipe": {**self.recipe.to_dict(), "in_words": describe_images(self.recipe.images)},
            "warnings": self.notes,
            "seconds": self.seconds,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the classifier that is kept as a ``.featx`` bundle; `featx predict` takes either.

        Raises
        ------
        BundleError
            If it cannot be written.
        """
        told = self.to_dict()
        if self.tuned is None:
            save_frozen(self.frozen, path, told, f"found {self.verdict.describe()}")
            return
        save_bundle(
            path,
            estimator=Calibrated.of(self.tuned.layer.to_head(), self.tuned.calibration),
            facts={**self._facts(), "finetune": told},
            weights=self.tuned.weights,
        )

    def _facts(self) -> dict[str, Any]:
        """Return what a tuned network's bundle says."""
        assert self.tuned is not None
        frozen, found = self.frozen.facts(), self.tuned_scores.to_dict()
        return {
            **{name: frozen[name] for name in _SHARED},
            **{name: found[name] for name in ("scores", "baseline", "per_class", "confusion", "binary", "estimand")},
            "spec": self.tuned.spec,
            "head": TUNED,
            "chosen": {"head": "tuned network", "scaling": f"--train {self.recipe.train}", "parameter": None},
            "description": self.description,
            "n_reported": self.tuned_scores.n_samples,
            "warnings": self.notes,
        }

    @property
    def description(self) -> str:
        """How the kept classifier was made and judged, in a few sentences."""
        best = self.history[-1]
        made = (
            f"The network was trained on {best.n_train} samples, beginning with the head that was solved on its frozen "
            f"features; epoch {best.best_epoch} was kept"
        )
        chosen = f", by {best.n_validate} samples for that choice." if best.n_validate else ", the last."
        return f"{made}{chosen} Beside the frozen classifier: {self.verdict.describe()}"


def save_frozen(frozen: FitResult, path: str | os.PathLike[str], told: dict[str, Any], came: str) -> None:
    """Save the frozen classifier, with what came of the fine-tune as an object and in words.

    Raises
    ------
    BundleError
        If it cannot be written.
    """
    description = f"{frozen.description} A fine-tune of the network {came}"
    save(frozen, path, more={"finetune": told, "description": description.rstrip(".") + "."})


def _scores(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "scores": {name: interval.to_dict() for name, interval in evaluation.scores.items()},
        "n_samples": evaluation.n_samples,
        "estimand": evaluation.estimand,
    }
