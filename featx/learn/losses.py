"""Losses of linear heads, of many fits at once, as functions of the rows' scores.

Scores are arrays (n_samples, n_functions, n_fits), float64, of NumPy or PyTorch; `xp` is the one or the other. States,
and what is multiplied by second derivatives, may be float32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

from featx.learn.namespaces import Array

_SAFE = 300.0
"""Scores whose exponentials, and sums of them, neither overflow nor vanish."""


class Loss(Protocol):
    """A loss, with the targets of all fits.

    `state` is what the derivatives at some scores are made of; it has their shape.
    """

    def only(self, kept: Array) -> Loss:
        """Return the loss of some of the fits."""

    def at(self, T: Array) -> tuple[Array, Array]:
        """Return the loss of each row (n_samples, n_fits) and the state at these scores."""

    def slopes(self, S: Array) -> Array:
        """Return the derivative of each row's loss by each of its scores."""

    def curvatures(self, S: Array) -> Array:
        """Return the second derivative of each row's loss by each of its scores alone."""

    def curvature_times(self, S: Array, T: Array) -> Array:
        """Return the matrix of second derivatives of each row's loss, times T, which may be overwritten."""


@dataclass(frozen=True, eq=False)
class Multinomial:
    """Cross-entropy of softmax probabilities.

    Attributes
    ----------
    xp : module
    targets : float64 array (n_samples, n_classes, 1)
        Ones and zeros.
    """

    xp: Any
    targets: Array

    def only(self, kept: Array) -> Multinomial:  # noqa: ARG002
        """Return itself: all fits have the same targets."""
        return self

    def at(self, T: Array) -> tuple[Array, Array]:
        """Return ``log sum exp(T) - T_true``, and probabilities."""
        true = self._sum(self.targets * T)
        if abs(T).max() > _SAFE:
            top = self.xp.amax(T, axis=1)
            T, true = T - top[:, None], true - top
        P = self.xp.exp(T)
        total = self._sum(P)
        P /= total[:, None]
        return self.xp.log(total) - true, P

    def slopes(self, S: Array) -> Array:
        """Return what the probabilities are above the targets."""
        return S - self.targets

    def curvatures(self, S: Array) -> Array:
        """Return ``p (1 - p)``."""
        return S * (1.0 - S)

    def curvature_times(self, S: Array, T: Array) -> Array:
        """Return ``(diag(p) - p p') T``."""
        T *= S
        T -= S * self._sum(T)[:, None]
        return T

    def _sum(self, T: Array) -> Array:
        """Return sums over functions (n_samples, n_fits): as products with ones, much faster than NumPy's own sum."""
        return (self.xp.ones_like(T[:1, :, 0]) @ T)[:, 0]


@dataclass(frozen=True, eq=False)
class Logistic:
    """Cross-entropy of one class against the rest.

    Attributes
    ----------
    xp : module
    targets : float64 array (n_samples, 1, n_fits or 1)
        Ones and zeros.
    """

    xp: Any
    targets: Array

    def only(self, kept: Array) -> Logistic:
        """Return the loss of some of the fits."""
        return replace(self, targets=_only(self.targets, kept))

    def at(self, T: Array) -> tuple[Array, Array]:
        """Return ``log(1 + exp(T)) - target * T``, without overflow, and the probability of the class."""
        size = abs(T)
        small = self.xp.exp(-size)
        losses = self.xp.log1p(small) + 0.5 * (T + size) - self.targets * T
        return losses[:, 0], self.xp.where(T < 0, small, 1.0) / (1.0 + small)

    def slopes(self, S: Array) -> Array:
        """Return what the probability is above the target."""
        return S - self.targets

    def curvatures(self, S: Array) -> Array:
        """Return ``p (1 - p)``."""
        return S * (1.0 - S)

    def curvature_times(self, S: Array, T: Array) -> Array:
        """Return ``p (1 - p) T``."""
        T *= self.curvatures(S)
        return T


@dataclass(frozen=True, eq=False)
class SquaredHinge:
    """``max(0, 1 - sign * T)^2`` of one class against the rest.

    Attributes
    ----------
    xp : module
    signs : float64 array (n_samples, 1, n_fits or 1)
        1 for the class, -1 for the rest.
    """

    xp: Any
    signs: Array

    def only(self, kept: Array) -> SquaredHinge:
        """Return the loss of some of the fits."""
        return replace(self, signs=_only(self.signs, kept))

    def at(self, T: Array) -> tuple[Array, Array]:
        """Return the squares of what is missing to the margin, and that, 0 beyond it."""
        missing = 1.0 - self.signs * T
        missing = 0.5 * (missing + abs(missing))
        return (missing**2)[:, 0], missing

    def slopes(self, S: Array) -> Array:
        """Return ``-2 sign * missing``."""
        return -2.0 * self.signs * S

    def curvatures(self, S: Array) -> Array:
        """Return 2 within the margin, 0 beyond it."""
        return self.xp.asarray(2.0 * (S > 0), dtype=S.dtype)

    def curvature_times(self, S: Array, T: Array) -> Array:
        """Return 2 T within the margin, 0 beyond it."""
        T *= self.curvatures(S)
        return T


def _only(targets: Array, kept: Array) -> Array:
    return targets if targets.shape[2] == 1 else targets[..., kept]
