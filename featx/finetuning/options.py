"""What a fine-tune may be told, what it begins with, and what it tells meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from featx.errors import UsageError
from featx.fit import FitOptions
from featx.learn.bundle import Bundle
from featx.spec import FeatureRequest
from featx.vision.tuning.history import Recorder
from featx.vision.tuning.recipe import Recipe


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


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a fine-tune begins with: a classifier, features, both, or neither.

    Attributes
    ----------
    bundle : Bundle or path, optional
        What ``featx fit`` wrote: its backbone, and its kind of head.
    features : path, optional
        A feature file of the same images; without it they are computed, by the bundle's spec or by `request`.
    request : FeatureRequest
        Which backbone, where neither of them says it. Where they name a ``package.module:function`` of the user's own,
        it is imported only if the request names it, too.
    """

    bundle: Bundle | str | os.PathLike[str] | None = None
    features: str | os.PathLike[str] | None = None
    request: FeatureRequest = FeatureRequest()


@dataclass(frozen=True)
class Keep:
    """What is kept of a run, so that another can go on with it.

    Attributes
    ----------
    folder : Path, optional
        For checkpoints, and for features that had to be extracted; made when there is something to keep.
    resume : bool
        Whether to go on with what is in there.
    records : tuple of callable
        Others who are told of each epoch, see `featx.vision.tuning.history.Recorder`.
    """

    folder: Path | None = None
    resume: bool = False
    records: tuple[Recorder, ...] = ()


@dataclass(frozen=True)
class FinetuneProgress:
    """Where the trainings are.

    Attributes
    ----------
    part : str
        ``"fold 2"``, or ``"final"``.
    images, n_images : int
        That have gone through the network in this run, and will at most; of all parts together.
    epoch, epochs : int
        Of this part; epoch 0: its learning rate is being found.
    loss : float
        Mean of this epoch so far; of a test of learning rates the last step's.
    validation : float or None
        Score after the last epoch, 0 being the start.
    """

    part: str
    images: int
    n_images: int
    epoch: int
    epochs: int
    loss: float
    validation: float | None


Progress = Callable[[FinetuneProgress], None]
Notify = Callable[[str], None]
