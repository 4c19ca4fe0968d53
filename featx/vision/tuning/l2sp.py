"""L2-SP: a penalty that draws weights back to where they came from (Li et al. 2018, https://arxiv.org/abs/1802.01483).

``min L(w) + alpha / 2 ||w - w0||^2``, applied as a proximal step after the optimiser's own:

    w <- (w + lr alpha w0) / (1 + lr alpha)

It is decoupled from the gradient, as AdamW's weight decay is, so that alpha means the same with momentum and with
adaptive steps; and no alpha is too large for it: a huge one gives w0 back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class Anchor:
    """Parameters, where they are drawn to, and how strongly.

    Attributes
    ----------
    parameters : list of torch.Tensor
    origin : list of torch.Tensor
        Of the same shapes.
    alpha : float
        At least 0.
    """

    parameters: list[torch.Tensor]
    origin: list[torch.Tensor]
    alpha: float

    @classmethod
    def here(cls, parameters: Iterable[torch.Tensor], alpha: float) -> Anchor:
        """Draw parameters to where they are now."""
        own = list(parameters)
        return cls(own, [parameter.detach().clone() for parameter in own], alpha)

    @classmethod
    def zero(cls, parameters: Iterable[torch.Tensor], alpha: float) -> Anchor:
        """Draw parameters to 0: weight decay."""
        own = list(parameters)
        return cls(own, [torch.zeros_like(parameter) for parameter in own], alpha)

    @torch.no_grad()
    def pull(self, lr: float) -> None:
        """Take the proximal step that belongs to an optimiser's step with this learning rate."""
        strength = lr * self.alpha
        if strength > 0 and self.parameters:
            torch._foreach_lerp_(self.parameters, self.origin, strength / (1.0 + strength))

    @torch.no_grad()
    def distance(self) -> float:
        """Return the Euclidean distance of all parameters together from their origin."""
        if not self.parameters:
            return 0.0
        differences = torch._foreach_sub(self.parameters, self.origin)
        return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(differences))))
