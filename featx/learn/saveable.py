"""Whether what a user's own head becomes can be saved; better known before a long search than after it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from featx.errors import BundleError
from featx.learn.head_file import dump_head
from featx.learn.heads import HEADS, find_head
from featx.learn.own import own_failures
from featx.learn.search import Choice, refit
from featx.learn.study import Study


def check_saveable(study: Study, path: str) -> None:
    """Fit each of the user's own heads once, on all samples, and see whether a bundle would take it.

    Parameters
    ----------
    study : Study
    path : str
        Where the bundle is to be.

    Raises
    ------
    BundleError
        Names the head, and what it holds.
    """
    entry = study.entries[0]
    space = replace(study.options.space, views=entry.use)
    for head in space.heads:
        if head in HEADS:
            continue
        choice = Choice(head, space.scalings[0], find_head(head).parameter.values[0], np.nan)
        job = study.refit_job(study.plan.fit, "trial")
        with own_failures(head):
            fitted, _ = refit(entry.samples.X.astype(np.float64), study.data.y, job, choice, space)
        try:
            dump_head(fitted.estimator, path=path)
        except BundleError as error:
            reason = str(error).removeprefix(f"{path}: ")
            raise BundleError(
                f"--head {head} could not be saved, so nothing was searched: {reason}. Without -o it is scored all the "
                "same; to save one, take a classifier of scikit-learn's",
                path=path,
            ) from error
