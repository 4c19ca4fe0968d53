"""A user's own head: ``package.module:factory``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier, is_regressor

from featx.errors import InputError, UsageError
from featx.learn.training import Scored, TrainingParts
from featx.own_code import current_folder, find_function

Make = Callable[[float, str | None, int], Any]


def search_by_fitting(parts: TrainingParts, values: Sequence[float], *, make: Make) -> Iterator[Scored]:
    """Score each part's rows by classifiers fitted one by one; see `featx.learn.heads.Head.search`."""
    for fitted, scored in zip(parts.fitted, parts.scored, strict=True):
        X, codes = parts.X[fitted], parts.codes[fitted]
        models = [make(value, parts.class_weight, parts.random_state).fit(X, codes) for value in values]
        say = "predict_proba" if hasattr(models[0], "predict_proba") else "decision_function"
        yield Scored(
            np.stack([model.predict(parts.X[scored]) for model in models]),
            np.stack([getattr(model, say)(parts.X[scored]) for model in models]),
            np.ones(len(values), dtype=bool),
        )


@lru_cache
def own_head(name: str, *, kind: str = "classifier") -> Any:
    """Return the unfitted estimator that a user's function gives.

    Parameters
    ----------
    name : str
        ``package.module:factory``.
    kind : {"classifier", "regressor"}
        What it is to be.

    Raises
    ------
    UsageError
        If the function cannot be found, or gives no such scikit-learn estimator; a classifier also needs
        ``predict_proba`` or ``decision_function``.
    InputError
        If its module or the function itself fails.
    """
    with current_folder():
        factory = find_function(name, what="head", thing="a head")
        try:
            made = factory()
        except (ImportError, AttributeError, LookupError, TypeError, ValueError, RuntimeError, OSError) as error:
            raise InputError(f"head {name}: the function failed: {type(error).__name__}: {error}") from error
    is_kind = {"classifier": is_classifier, "regressor": is_regressor}[kind]
    if not (hasattr(made, "fit") and hasattr(made, "get_params") and is_kind(made)):
        raise UsageError(f"head {name}: the function must give a scikit-learn {kind}; it gave {type(made).__name__}")
    if kind == "classifier" and not (hasattr(made, "predict_proba") or hasattr(made, "decision_function")):
        raise UsageError(f"head {name}: {type(made).__name__} has neither predict_proba nor decision_function")
    return made


def make_own(_value: float, class_weight: str | None, random_state: int, *, name: str, kind: str = "classifier") -> Any:
    """Return a new estimator of a user's own kind, with the seed and the class weights that it has options for."""
    made = clone(own_head(name, kind=kind))
    known = made.get_params(deep=False)
    if "random_state" in known and known["random_state"] is None:
        made.set_params(random_state=random_state)
    if class_weight is not None:
        if "class_weight" not in known:
            raise UsageError(f"--class-weight {class_weight}: {type(made).__name__} ({name}) has no class_weight")
        made.set_params(class_weight=class_weight)
    return made


def maker(name: str) -> Make:
    """Return the function that makes a user's classifier, as `featx.learn.heads.Head.make`."""
    return partial(make_own, name=name)
