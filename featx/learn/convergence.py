"""Fits whose solver stopped before it had converged: how they are noticed, and what is kept of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from sklearn.exceptions import ConvergenceWarning


@dataclass(frozen=True)
class Unconverged:
    """A fit whose solver stopped before it had converged.

    Attributes
    ----------
    stage : str
        ``"search"``, or ``"refit"`` (with the fits behind its sigmoid).
    fold : str
        Name of the job.
    inner_fold : int or None
        From 1; None in a refit.
    head, scaling : str
    value : float
    """

    stage: str
    fold: str
    inner_fold: int | None
    head: str
    scaling: str
    value: float


@contextmanager
def counting() -> Iterator[list[warnings.WarningMessage]]:
    """Collect ConvergenceWarnings; other warnings go their way."""
    failures: list[warnings.WarningMessage] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)  # labels are words
        yield failures
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning):
            failures.append(warning)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def describe_unconverged(fits: Sequence[Unconverged], n_fits: int) -> dict[str, Any]:
    """Return ``{count, n_fits, fits}`` for JSON."""
    return {"count": len(fits), "n_fits": n_fits, "fits": [asdict(fit) for fit in fits]}
