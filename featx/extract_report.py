"""The account of an extraction."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from featx.store.records import REASONS


@dataclass(frozen=True)
class ExtractReport:
    """The account of one run.

    Attributes
    ----------
    path, fingerprint, backbone, node, device, numerics : str
        The file, its spec's fingerprint, and what made it; device, and the arithmetic there (``"float32, TF32 off"``),
        are ``""`` where nothing was computed.
    samples, rows, n_features : int
        Of the finished file.
    computed, copied, unchanged, vanished : int
        Samples computed in this run, copied from identical bytes, left as they were, and dropped
        because the source no longer has them.
    failures : dict of str to str
        Key to reason, of every failed sample in the file.
    bfloat16_gain : float or None
        About how many times as fast ``dtype="bfloat16"`` would compute on this machine, with slightly other features;
        None where nothing was computed, or it would not, or that is not known.
    locked : int
        Samples of the file that `featx.lock` keeps for the last test.
    seconds : float
        Of the whole stage.
    rate : float or None
        Images per second of the computing alone; None where nothing was computed.
    """

    path: str
    fingerprint: str
    backbone: str
    node: str
    device: str
    numerics: str
    samples: int
    rows: int
    n_features: int
    computed: int
    copied: int
    unchanged: int
    vanished: int
    seconds: float
    rate: float | None
    failures: dict[str, str] = field(default_factory=dict)
    bfloat16_gain: float | None = None
    locked: int = 0

    @property
    def failures_by_reason(self) -> dict[str, int]:
        """Count the failures by the code before the colon."""
        return dict(Counter(reason.partition(":")[0] for reason in self.failures.values()))

    @staticmethod
    def meaning(reason: str) -> str:
        """Return a reason's code in words."""
        return REASONS.get(reason, "")

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready builtins."""
        counts = {"failed": len(self.failures), "failures_by_reason": self.failures_by_reason}
        return {**asdict(self), **counts}
