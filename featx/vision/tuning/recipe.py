"""How a network is tuned: everything that decides the result, as one record."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from featx.errors import UnknownNameError, UsageError

OPTIMISERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "step", "constant")
DTYPES = ("float32", "bfloat16", "float16")
HEAD_ORIGINS = ("start", "zero")
COMPILE = ("auto", "on", "off")

IMAGE_KINDS: dict[str, tuple[str, ...]] = {
    "photographs": ("crop", "flip", "colour"),
    "microscopy": ("crop", "flip", "turn", "spin", "colour"),
    "satellite": ("crop", "flip", "turn", "spin", "colour"),
    "scans": ("crop", "rotate"),
    "text": ("crop",),
    "none": (),
}
"""What is done to images in training, as `featx.vision.views.draw_view` takes it: text and scans are not mirrored (a
heart is on the left), what has no up and down is turned by any angle."""
_IN_WORDS = {
    "crop": "windows of 70 to 100 % of the width and height",
    "flip": "mirrored half of the time",
    "turn": "turned by quarters",
    "rotate": "turned by up to 10 degrees",
    "spin": "turned by any angle",
    "colour": "brightness, contrast and colour changed by up to 20 %",
}
_LEFT_OUT = {"flip": "mirrored", "turn": "turned", "colour": "changed in colour"}

_KEPT_VIEWS = 4


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is tuned. The same recipe, images and start give the same weights.

    Attributes
    ----------
    train : str
        One of `featx.vision.tuning.blocks.TRAIN`.
    epochs : int
        Passes over the training images, at most.
    optimiser : {"adamw", "sgd"}
    lr : float, optional
        Largest learning rate, of the head and the last block. None: found by a short test
        (`featx.vision.tuning.lr_range`).
    head_lr : float, optional
        Of the head; None: `lr`.
    lora_rank : int
        Of the adapters of ``train="lora"``, at least 1.
    lora_alpha : float
        What they give is multiplied by ``lora_alpha / lora_rank``.
    momentum : float
        Of SGD.
    weight_decay : float
        Decoupled, on weights; on top of L2-SP.
    batch_size : int
        Images in one step.
    schedule : {"cosine", "step", "constant"}
        To 0 along half a cosine; by a tenth after each third of the steps; not at all.
    warmup : float
        Share of the steps in which the learning rate rises from 0, 0 to 1.
    layer_decay : float
        By what the learning rate of each block is multiplied from the last block down to the first, above 0 to 1.
    unfreeze : float
        Share of the steps after which all blocks are trained, from the last to the first one after the other; 0: all at
        once.
    l2sp : float
        Alpha of L2-SP for the backbone.
    l2sp_beta : float
        Beta, for the head.
    l2sp_head : {"start", "zero"}
        Where the head is drawn to.
    l2sp_all : bool
        Whether biases and norms are drawn back as well as weights.
    label_smoothing : float
        0 to below 1.
    mixup, cutmix : float
        Parameter of the beta distribution from which shares are drawn; 0: off. With both, a step takes one by chance.
    class_weight : str, optional
        ``"balanced"``, or all images count the same.
    clip : float
        Largest norm of a step's gradient; 0: any.
    ema : float
        Decay of a running mean of the weights that takes their place in the end; 0: none.
    dtype : str
        ``"bfloat16"`` or ``"float16"`` autocast, or ``"float32"``.
    compile : {"auto", "on", "off"}
        Whether steps go through torch.compile, see `featx.vision.tuning.compiled.is_compiled`.
    images : str
        One of `IMAGE_KINDS`.
    views : int, optional
        How many views of each image take turns; 0: another one in every epoch. None: 4 where the lower part of the
        network is frozen, so that what it gives for them can be kept; else 0.
    patience : int
        Epochs without a better validation score after which training ends; 0: never.
    random_state : int
    """

    train: str = "all"
    epochs: int = 20
    optimiser: str = "adamw"
    lr: float | None = None
    head_lr: float | None = None
    lora_rank: int = 8
    lora_alpha: float = 16.0
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = 32
    schedule: str = "cosine"
    warmup: float = 0.1
    layer_decay: float = 0.9
    unfreeze: float = 0.0
    l2sp: float = 0.01
    l2sp_beta: float = 0.01
    l2sp_head: str = "start"
    l2sp_all: bool = False
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    class_weight: str | None = None
    clip: float = 1.0
    ema: float = 0.0
    dtype: str = "float32"
    compile: str = "auto"
    images: str = "photographs"
    views: int | None = None
    patience: int = 5
    random_state: int = 0

    def __post_init__(self) -> None:
        for what, value, known in (
            ("optimiser", self.optimiser, OPTIMISERS),
            ("schedule", self.schedule, SCHEDULES),
            ("dtype", self.dtype, DTYPES),
            ("kind of images", self.images, IMAGE_KINDS),
            ("choice for --compile", self.compile, COMPILE),
            ("origin of the head", self.l2sp_head, HEAD_ORIGINS),
        ):
            if value not in known:
                raise UnknownNameError(what, value, known)
        if self.class_weight not in (None, "balanced"):
            raise UsageError(f"--class-weight {self.class_weight}: expected balanced, or nothing")
        for option, number, low, high in (
            ("--epochs", self.epochs, 0, math.inf),
            ("--lr", self.lr or 0, 0, math.inf),
            ("--head-lr", self.head_lr or 0, 0, math.inf),
            ("--lora-rank", self.lora_rank, 1, math.inf),
            ("--lora-alpha", self.lora_alpha, 0, math.inf),
            ("--momentum", self.momentum, 0, 1),
            ("--weight-decay", self.weight_decay, 0, math.inf),
            ("--batch-size", self.batch_size, 1, math.inf),
            ("--warmup", self.warmup, 0, 1),
            ("--layer-decay", self.layer_decay, 0, 1),
            ("--unfreeze", self.unfreeze, 0, 1),
            ("--l2sp", self.l2sp, 0, math.inf),
            ("--l2sp-beta", self.l2sp_beta, 0, math.inf),
            ("--label-smoothing", self.label_smoothing, 0, 1),
            ("--mixup", self.mixup, 0, math.inf),
            ("--cutmix", self.cutmix, 0, math.inf),
            ("--clip", self.clip, 0, math.inf),
            ("--ema", self.ema, 0, 1),
            ("--views", self.views or 0, 0, math.inf),
            ("--patience", self.patience, 0, math.inf),
            ("--random-state", self.random_state, 0, math.inf),
        ):
            if not low <= number <= high or not math.isfinite(number):
                raise UsageError(
                    f"{option} {number:g}: expected at least {low}"
                    + (" and finite" if number == math.inf else "" if high == math.inf else f" and at most {high}")
                )
        if self.layer_decay == 0:
            raise UsageError("--layer-decay 0: only the last block would learn; that is --train last-block")
        if self.label_smoothing == 1:
            raise UsageError("--label-smoothing 1: nothing would be left of the labels; take less")

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON-ready builtins."""
        return asdict(self)

    @property
    def largest_lr(self) -> float:
        """The learning rate at the top of the schedule.

        Raises
        ------
        UsageError
            It was left to be found, and was not.
        """
        if self.lr is None:
            raise UsageError("this recipe leaves the learning rate to a test: give one, or find it with find_lr")
        return self.lr

    @property
    def finds_lr(self) -> bool:
        """Whether a test finds the learning rate: not where there is one, nor where nothing is trained."""
        return self.lr is None and self.epochs > 0

    @property
    def keeps_lower(self) -> bool:
        """Whether what a frozen lower part gives for an image may be kept: images are not mixed."""
        return self.train in ("head", "last-block") and not self.mixup and not self.cutmix

    def view_of(self, epoch: int) -> int:
        """Return which of the views an epoch, counted from 1, takes."""
        n_views = self.views if self.views is not None else _KEPT_VIEWS if self.keeps_lower else 0
        return epoch if not n_views else 1 + (epoch - 1) % n_views

    def factor(self, step: int, n_steps: int) -> float:
        """Return the share of its largest value that the learning rate has in a step, counted from 0."""
        n_warm = round(self.warmup * n_steps)
        if step < n_warm:
            return (step + 1) / n_warm
        if self.schedule == "constant":
            return 1.0
        done = (step - n_warm) / max(1, n_steps - n_warm)
        return 0.5 * (1.0 + math.cos(math.pi * done)) if self.schedule == "cosine" else 0.1 ** math.floor(3 * done)

    def n_open(self, step: int, n_steps: int, n_blocks: int) -> int:
        """Return how many blocks, counted from the last, are trained in a step."""
        n_closed = self.unfreeze * n_steps
        if n_blocks == 0 or step >= n_closed:
            return n_blocks
        return min(n_blocks, 1 + math.floor(step / n_closed * n_blocks))


def describe_images(images: str) -> str:
    """Say in one sentence how training images of a kind are varied, and how they are not.

    Parameters
    ----------
    images : str
        One of `IMAGE_KINDS`.
    """
    kinds = IMAGE_KINDS[images]
    if not kinds:
        return "training images are taken as they are"
    done = [_IN_WORDS[kind] for kind in kinds if not (kind == "turn" and "spin" in kinds)]
    turned = ("turn",) if "rotate" in kinds else ()
    left_out = [words for kind, words in _LEFT_OUT.items() if kind not in (*kinds, *turned)]
    listed = " or ".join(part for part in (", ".join(left_out[:-1]), *left_out[-1:]) if part)
    never = f"; never {listed}" if listed else ""
    return f"training images are varied as {images}: {', '.join(done)}{never}"


HEAD_SGD = Recipe(
    train="head",
    epochs=20,
    optimiser="sgd",
    lr=0.001,
    momentum=0.9,
    batch_size=32,
    schedule="constant",
    warmup=0.0,
    l2sp=0.0,
    l2sp_beta=0.0,
    clip=0.0,
    patience=0,
)
"""The classic tutorial's: frozen convolutions and a new layer."""

RECIPES: dict[str, Recipe] = {"default": Recipe(), "head-sgd": HEAD_SGD}


def find_recipe(name: str, **changes: Any) -> Recipe:
    """Return a recipe by name with some values changed.

    Raises
    ------
    UnknownNameError, UsageError
        No such recipe, no value of this name, or one that it does not take.
    """
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    known = [field.name for field in fields(Recipe)]
    for unknown in changes.keys() - known:
        raise UnknownNameError("value of a recipe", unknown, known)
    return replace(RECIPES[name], **changes)
