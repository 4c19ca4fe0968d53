"""All that a search compared, in the columns of scikit-learn's ``cv_results_``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from featx.learn.choice import Choice

_ALWAYS = ("head", "scaling")


@dataclass(frozen=True)
class Searched:
    """The candidates of one choice on one file.

    Attributes
    ----------
    file : str
        ``""`` where there is only one.
    fold : str
        The outer fold by name; ``"final"``: the choice of the saved classifier.
    candidates : list of Choice
    """

    file: str
    fold: str
    candidates: list[Choice]


def cv_results(searches: Sequence[Searched]) -> dict[str, list[Any]]:
    """Return the candidates of all searches as columns, one row each: what ``pandas.DataFrame`` takes.

    Parameters
    ----------
    searches : sequence of Searched

    Returns
    -------
    dict of str to list
        ``file`` (``""`` where there is only one), ``outer_fold``, ``chosen`` (whether it won in its outer fold),
        ``param_head``, ``param_scaling``, and ``param_C``, ``param_alpha`` ... of the heads that took part; ``params``,
        the same as JSON; ``split0_test_score`` ... by inner fold, ``mean_test_score``, ``std_test_score`` and
        ``rank_test_score``, as `sklearn.model_selection.GridSearchCV` has them. Ranks are among all candidates of an
        outer fold, of every file. None where there is nothing: a parameter of another head, a score that is undefined;
        mean and deviation are then of the other folds.
    """
    rows = [(one.file, one.fold, choice) for one in searches for choice in one.candidates]
    ranks, chosen = _ranks(rows)
    params = [_params(choice) for _, _, choice in rows]
    values = [name for name in dict.fromkeys(name for one in params for name in one) if name not in _ALWAYS]
    n_splits = max((len(choice.by_fold) for _, _, choice in rows), default=0)
    known = [[score for score in choice.by_fold if score is not None] for _, _, choice in rows]
    return {
        "file": [file for file, _, _ in rows],
        "outer_fold": [fold for _, fold, _ in rows],
        "chosen": chosen,
        **{f"param_{name}": [one.get(name) for one in params] for name in (*_ALWAYS, *values)},
        "params": [json.dumps(one) for one in params],
        **{f"split{k}_test_score": [_at(choice.by_fold, k) for _, _, choice in rows] for k in range(n_splits)},
        "mean_test_score": [choice.score for _, _, choice in rows],
        "std_test_score": [float(np.std(scores)) if scores else None for scores in known],
        "rank_test_score": ranks,
    }


def _params(choice: Choice) -> dict[str, str | float]:
    own = {choice.parameter: choice.value} if choice.parameter else {}
    return {"head": choice.head, "scaling": choice.scaling} | own


def _at(scores: Sequence[float | None], place: int) -> float | None:
    return scores[place] if place < len(scores) else None


def _ranks(rows: Sequence[tuple[str, str, Choice]]) -> tuple[list[int], list[bool]]:
    """Rank the candidates of each outer fold, equal scores alike, and say which one was chosen."""
    ranks, chosen = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=bool)
    for fold in dict.fromkeys(fold for _, fold, _ in rows):
        places = [place for place, row in enumerate(rows) if row[1] == fold]
        scores = [round(rows[place][2].score, 12) for place in places]  # equal but for the order of a sum is equal
        ranks[places] = rankdata(np.negative(scores), method="min")
        chosen[min(places, key=lambda place: rows[place][2].rank)] = True
    return ranks.tolist(), chosen.tolist()
