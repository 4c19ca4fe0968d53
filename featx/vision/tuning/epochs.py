"""The epochs of a training: what each was like, where it is, how it may end, and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from featx.errors import InputError
from featx.vision.tuning.adapters import DOWN

State = dict[str, torch.Tensor]
_MOST_NAMED = 8  # samples in a message


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training images was like.

    Attributes
    ----------
    number : int
        From 1; 0 is the start.
    loss : float or None
        Mean over the steps; None at the start.
    validation : float or None
        Score on the validation part; None without one.
    lr : float
        Of the last step.
    distance : float
        Of the backbone's weights from their start.
    images_per_second : float or None
    """

    number: int
    loss: float | None
    validation: float | None
    lr: float
    distance: float
    images_per_second: float | None


@dataclass(frozen=True)
class TrainingProgress:
    """Where a training is.

    Attributes
    ----------
    step, n_steps : int
        Taken so far, and at most: of the training, or of the test of learning rates before it.
    epoch : int
        From 1; 0: learning rates are being tested.
    loss : float
        Mean of this epoch so far; of a test the last step's.
    validation : float or None
        The last.
    """

    step: int
    n_steps: int
    epoch: int
    loss: float
    validation: float | None

    @property
    def is_test(self) -> bool:
        """Whether learning rates are still being tested."""
        return self.epoch == 0


Progress = Callable[[TrainingProgress], None]
Record = Callable[[Sequence[Epoch]], None]


class LossError(InputError):
    """A loss that is not finite.

    Attributes
    ----------
    epoch, step : int
    keys : list of str
        The samples of the batch.
    checkpoint : str
        The file that holds the training as it was after the last good epoch; ``""``: there is none.
    """

    def __init__(self, *, epoch: int, step: int, keys: Sequence[str], checkpoint: str) -> None:
        self.epoch = epoch
        self.step = step
        self.keys = list(keys)
        self.checkpoint = checkpoint
        more = f" and {len(self.keys) - _MOST_NAMED} more" if len(self.keys) > _MOST_NAMED else ""
        listed = ", ".join(map(repr, self.keys[:_MOST_NAMED])) + more
        kept = f"; the training as it was after epoch {epoch - 1} is in {checkpoint}" if checkpoint else ""
        super().__init__(
            f"the loss is not finite in step {step} (epoch {epoch}), on the images {listed}: look at these, or take a "
            f"smaller --lr{kept}"
        )


@dataclass(frozen=True, eq=False)
class Tuned:
    """What came of a training.

    Attributes
    ----------
    state : dict of str to torch.Tensor
        Of `TunedNetwork`: the weights to use.
    history : list of Epoch
    best_epoch : int
        0: no epoch was better than the start.
    blend : float
        Share of the way from the start to the best epoch's weights; 1: these themselves.
    blends : dict of float to float
        Validation scores along that way, where it was tried.
    """

    state: State
    history: list[Epoch]
    best_epoch: int
    blend: float = 1.0
    blends: dict[float, float] = field(default_factory=dict)

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Tuned:
        """Return what `kept` has made values of."""
        return cls(**{**state, "history": [Epoch(**epoch) for epoch in state["history"]]})

    def kept(self) -> dict[str, Any]:
        """Return it as what a checkpoint holds."""
        return {**vars(self), "history": [asdict(epoch) for epoch in self.history]}


def blend(start: State, end: State, share: float) -> State:
    """Return tensors a share of the way from one state to another; those that are not floats are the end's.

    Of an adapter ``B A``, of which B is 0 at the start, B alone is shared: so merged weights are on the straight way.
    """
    if share == 1.0:
        return dict(end)
    return {
        name: torch.lerp(start[name], tensor, share) if tensor.is_floating_point() and DOWN not in name else tensor
        for name, tensor in end.items()
    }
