"""Members of a bundle for prediction intervals: ``fold-1.skops`` ... and ``intervals.safetensors``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from featx.errors import BundleError
from featx.learn.head_file import check_head, dump_head, load_head
from featx.learn.regression.intervals import NumberIntervals
from featx.learn.trust_file import AGAIN, MOST_FOLDS, fold_name, load_arrays

INTERVALS = "intervals.safetensors"
"""Name of the member."""


def dump_intervals(intervals: NumberIntervals, *, path: str) -> dict[str, bytes]:
    """Return the members for prediction intervals."""
    from safetensors.numpy import save

    heads = {fold_name(k): dump_head(head, path=path) for k, head in enumerate(intervals.heads)}
    arrays = {name: np.ascontiguousarray(getattr(intervals, name)) for name in ("residuals", "folds", "groups")}
    return {**heads, INTERVALS: save(arrays)}


def load_intervals(
    members: Mapping[str, bytes], facts: Mapping[str, Any], n_features: int, *, path: str
) -> NumberIntervals:
    """Load what prediction intervals are made of.

    Raises
    ------
    BundleError
        If it is not in the bundle, and why, where that is known; or if it is damaged.
    """
    said = facts.get("intervals")
    if INTERVALS not in members:
        why = said.get("why_not") if isinstance(said, dict) else None
        raise BundleError(f"holds no fold heads, and so gives no prediction intervals: {why or AGAIN}", path=path)
    arrays = load_arrays(members[INTERVALS], INTERVALS, path=path)
    try:
        intervals = NumberIntervals(
            heads=[],
            residuals=arrays["residuals"].astype(np.float64),
            folds=arrays["folds"].astype(np.int64),
            groups=arrays["groups"].astype(np.int64),
            unit=str(said["unit"]),  # type: ignore[index]  # TypeError is caught
        )
        n_folds = int(intervals.folds.max()) + 1
        whole = len({array.shape for array in arrays.values()}) == 1 and intervals.residuals.ndim == 1
        usable = np.isfinite(intervals.residuals).all() and intervals.residuals.min() >= 0
        if not (whole and usable and intervals.folds.min() >= 0 and n_folds <= MOST_FOLDS):
            raise ValueError("its columns do not fit together")
        heads = [members[fold_name(number)] for number in range(n_folds)]
    except (LookupError, TypeError, ValueError) as error:
        raise BundleError(f"{INTERVALS} is damaged ({type(error).__name__}: {error})", path=path) from error
    loaded = [load_head(head, path=path) for head in heads]
    for head in loaded:
        check_head(head, [], n_features, path=path)
    return NumberIntervals(loaded, intervals.residuals, intervals.folds, intervals.groups, intervals.unit)
