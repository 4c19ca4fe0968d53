"""Members of a bundle beside its head: fold heads for prediction sets, and rows that say what is unlike the others.

``fold-1.skops`` ... and ``conformal.safetensors``; ``novelty.safetensors``. Arrays are safetensors, which hold numbers
and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import BundleError
from featx.learn.conformal import Conformal
from featx.learn.head_file import check_head, dump_head, load_head
from featx.learn.novelty import Novelty

CONFORMAL, NOVELTY = "conformal.safetensors", "novelty.safetensors"
"""Names of the members."""
AGAIN = "run `featx fit` again"
MOST_FOLDS = 1000


def fold_name(number: int) -> str:
    """Name of the member that holds a fold's head, from 0."""
    return f"fold-{number + 1}.skops"


def dump_conformal(sets: Conformal, *, path: str) -> dict[str, bytes]:
    """Return the members for prediction sets."""
    from safetensors.numpy import save

    heads = {fold_name(k): dump_head(head, path=path) for k, head in enumerate(sets.heads)}
    arrays = {name: np.ascontiguousarray(getattr(sets, name)) for name in ("conformity", "true", "folds", "groups")}
    return {**heads, CONFORMAL: save(arrays)}


def dump_novelty(novelty: Novelty) -> dict[str, bytes]:
    """Return the member that says what is unlike the training set."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(getattr(novelty, name)) for name in ("rows", "distances", "weights")}
    return {NOVELTY: save(arrays)}


def load_conformal(members: Mapping[str, bytes], facts: Mapping[str, Any], n_features: int, *, path: str) -> Conformal:
    """Load what prediction sets are made of.

    Raises
    ------
    BundleError
        If it is not in the bundle, and why, where that is known; or if it is damaged.
    """
    said = facts.get("conformal")
    if CONFORMAL not in members:
        why = said.get("why_not") if isinstance(said, dict) else None
        raise BundleError(
            "holds no fold heads, and so gives no prediction sets"
            + (f": {why}" if why else f": it was fitted by a featx that kept none; {AGAIN}"),
            path=path,
        )
    arrays = load_arrays(members[CONFORMAL], CONFORMAL, path=path)
    try:
        classes = [str(name) for name in said["classes"]]  # type: ignore[index]  # TypeError is caught
        sets = Conformal(
            heads=[],
            classes=classes,
            conformity=arrays["conformity"].astype(np.float64),
            true=arrays["true"].astype(np.int64),
            folds=arrays["folds"].astype(np.int64),
            groups=arrays["groups"].astype(np.int64),
            unit=str(said["unit"]),  # type: ignore[index]
        )
        n_folds = int(sets.folds.max()) + 1
        lengths = {array.shape for array in arrays.values()}
        whole = len(lengths) == 1 and sets.conformity.ndim == 1 and np.isfinite(sets.conformity).all()
        known = len(set(classes)) == len(classes) and set(classes) <= set(facts["classes"])
        placed = sets.folds.min() >= 0 and sets.true.min() >= 0 and sets.true.max() < len(classes)
        if not (whole and placed and known and n_folds <= MOST_FOLDS):
            raise ValueError("its columns do not fit together")
        heads = [members[fold_name(number)] for number in range(n_folds)]
    except (LookupError, TypeError, ValueError) as error:
        raise BundleError(f"{CONFORMAL} is damaged ({type(error).__name__}: {error})", path=path) from error
    loaded = [load_head(head, path=path) for head in heads]
    for head in loaded:
        check_head(head, classes, n_features, path=path)
    return Conformal(loaded, classes, sets.conformity, sets.true, sets.folds, sets.groups, sets.unit)


def load_novelty(members: Mapping[str, bytes], facts: Mapping[str, Any], n_features: int, *, path: str) -> Novelty:
    """Load what says what is unlike the training set; raises BundleError as `load_conformal` does."""
    said = facts.get("novelty")
    if NOVELTY not in members:
        why = "without it (--no-novelty)" if isinstance(said, dict) else "by a featx that kept nothing for it"
        raise BundleError(
            f"cannot say which images are unlike its training set: it was fitted {why}; {AGAIN}", path=path
        )
    arrays = load_arrays(members[NOVELTY], NOVELTY, path=path)
    try:
        novelty = Novelty(
            arrays["rows"].astype(np.float32),
            arrays["distances"].astype(np.float64),
            arrays["weights"].astype(np.float64),
            int(said["neighbours"]),  # type: ignore[index]
            str(said["unit"]),  # type: ignore[index]
        )
        fits = novelty.rows.ndim == 2 and novelty.rows.shape[1] == n_features and len(novelty.rows) > 0
        fits = fits and novelty.distances.ndim == 1 and novelty.distances.shape == novelty.weights.shape
        if not (fits and all(np.isfinite(array).all() for array in arrays.values()) and novelty.neighbours > 0):
            raise ValueError("its arrays do not fit together")
    except (LookupError, TypeError, ValueError) as error:
        raise BundleError(f"{NOVELTY} is damaged ({type(error).__name__}: {error})", path=path) from error
    return novelty


def load_arrays(data: bytes, name: str, *, path: str) -> dict[str, NDArray[Any]]:
    """Load the arrays of a member; raises BundleError where it is no safetensors file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays: dict[str, NDArray[Any]] = load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise BundleError(f"{name} is damaged ({error})", path=path) from error
    return arrays
