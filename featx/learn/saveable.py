"""Whether what a user's own head becomes can be saved; better known before a long search than after it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import BundleError
from featx.learn.head_file import dump_head
from featx.learn.own import own_failures
from featx.learn.search import Space
from featx.learn.study import Study


def check_saveable(study: Study, y: NDArray[Any], space: Space, path: str) -> None:
    """Fit each of the user's own heads once, on all samples, and see whether a bundle would take it.

    Parameters
    ----------
    study : Study
    y : array (n_samples,)
        Labels as the heads take them.
    space : Space
        With the heads.
    path : str
        Where the bundle is to be.

    Raises
    ------
    BundleError
        Names the head, and what it holds.
    """
    entry = study.entries[0]
    space = replace(space, views=entry.use)
    for head in space.heads:
        if ":" not in head:
            continue
        value = space.parameter(head).values[0]
        choice = space.choice(head=head, scaling=space.scalings[0], value=value, score=np.nan)
        job = study.refit_job(study.plan.fit, "trial")
        with own_failures(head):
            fitted, _ = space.refit(entry.samples.X.astype(np.float64), y, job, choice)
        try:
            dump_head(fitted.estimator, path=path)
        except BundleError as error:
            reason = str(error).removeprefix(f"{path}: ")
            raise BundleError(
                f"--head {head} could not be saved, so nothing was searched: {reason}. Without -o it is scored all the "
                "same; to save one, take an estimator of scikit-learn's",
                path=path,
            ) from error
