"""What a search chooses: a head with its scaling and the value of its parameter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from featx.learn.heads import SCALINGS, find_head, order_of


@dataclass(frozen=True)
class Choice:
    """A head with its scaling and the value of its parameter, and the score for which it was chosen.

    Attributes
    ----------
    head, scaling : str
    value : float
        Of the head's parameter (`featx.learn.heads.Head.parameter`).
    score : float
        Mean over the inner folds of the scoring.
    edge : str
        ``"lower"`` or ``"upper"`` where the value is at that end of those tried, so that the best may lie beyond;
        else ``""``.
    place : int
        Of the value among those tried, the simplest head first.
    by_fold : tuple of float or None
        The scoring on each inner fold; None where it is undefined.
    """

    head: str
    scaling: str
    value: float
    score: float
    edge: str = ""
    place: int = 0
    by_fold: tuple[float | None, ...] = field(default=(), compare=False, repr=False)

    _find_head = staticmethod(find_head)
    _order_of = staticmethod(order_of)

    @property
    def parameter(self) -> str:
        """What was chosen of the head: ``"C"``; ``""`` where there is nothing to choose."""
        return self._find_head(self.head).parameter.name

    @property
    def order(self) -> int:
        """The head's place in the order in which ties are broken."""
        return self._order_of(self.head)

    @property
    def rank(self) -> tuple[float, int, int, int]:
        """Sorts the better choice first; ties go to the simpler of a kind, then to the earlier scaling and head."""
        # Means of the same values in another order differ in the last digits: that is a tie.
        return (-round(self.score, 12), self.place, list(SCALINGS).index(self.scaling), self.order)

    @property
    def setting(self) -> str:
        """The parameter in words: ``"C = 0.1"``; empty where there is nothing to choose."""
        return f"{self.parameter} = {self.value:g}" if self.parameter else ""

    def to_dict(self) -> dict[str, Any]:
        """Return ``{head, scaling, parameter, value, score, edge}`` for JSON."""
        return {
            "head": self.head,
            "scaling": self.scaling,
            "parameter": self.parameter or None,
            "value": self.value if self.parameter else None,
            "score": self.score,
            "edge": self.edge,
        }


def setting(head: str, value: float) -> str:
    """Return a head's parameter and value in words: ``"C = 0.1"``; empty where there is nothing to choose."""
    name = find_head(head).parameter.name
    return f"{name} = {value:g}" if name else ""
