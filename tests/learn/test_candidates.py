"""All that a search compared, against scikit-learn's own ``cv_results_``."""

import ast
import csv
from dataclasses import replace

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from threadpoolctl import threadpool_limits
from trust_samples import features

from featx.fit import FitOptions, fit_features, save_cv_results
from featx.learn import linear
from featx.learn.candidates import Searched, cv_results
from featx.learn.choice import Choice
from featx.learn.heads import find_head, make_head
from featx.learn.search_ledger import SearchLedger
from featx.learn.splits import make_folds

OPTIONS = FitOptions(
    heads=("logreg", "lda", "prototype"),
    scalings=("raw", "standardise"),
    C_grid=(1e-3, 10, 3),
    cv=3,
    inner_cv=2,
    n_jobs=1,
    calibration="none",
    conformal="off",
    novelty=False,
)


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):  # what is tiny is slower with more
        yield


def rows_of(columns):
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_the_columns_are_those_of_GridSearchCV_on_the_same_folds(monkeypatch):
    monkeypatch.setattr(linear, "SEARCH_TOL", 1e-8)
    data = features(60, noise=2.0)
    rows = rows_of(cv_results(fit_features(data, OPTIONS).searches))
    X, y = data.X.astype(np.float64), data.y
    outer = make_folds(y, None, n_splits=3, inner_splits=2)
    parts = {fold.name: fold.train for fold in outer} | {"final": np.arange(len(y))}
    assert list(dict.fromkeys(row["outer_fold"] for row in rows)) == list(parts)
    for name, train in parts.items():
        inner = [(fold.train, fold.test) for fold in make_folds(y[train], None, n_splits=2)]
        for head in OPTIONS.heads:
            parameter = find_head(head).parameter.name
            for scaling in OPTIONS.scalings:
                mine = [
                    row
                    for row in rows
                    if (row["outer_fold"], row["param_head"], row["param_scaling"]) == (name, head, scaling)
                ]
                grid = {f"head__{parameter}": [row[f"param_{parameter}"] for row in mine]} if parameter else {}
                plain = GridSearchCV(
                    make_head(head, 1.0, scaling), grid, scoring="balanced_accuracy", cv=inner, refit=False
                )
                theirs = plain.fit(X[train], y[train]).cv_results_
                for column in ("split0_test_score", "split1_test_score", "mean_test_score", "std_test_score"):
                    np.testing.assert_allclose([row[column] for row in mine], theirs[column], atol=1e-12)
                order = np.argsort([row["rank_test_score"] for row in mine], kind="stable")
                np.testing.assert_array_equal(order, np.argsort(theirs["rank_test_score"], kind="stable"))


def test_one_candidate_is_chosen_in_each_outer_fold_and_it_is_the_one_that_is_reported():
    result = fit_features(features(60, noise=2.0), OPTIONS)
    chosen = {row["outer_fold"]: row for row in rows_of(cv_results(result.searches)) if row["chosen"]}
    for fold, choice in [*result.whole.folds, ("final", result.whole.chosen)]:
        params = ast.literal_eval(chosen[fold]["params"])
        assert (params["head"], params["scaling"]) == (choice.head, choice.scaling)
        assert chosen[fold]["mean_test_score"] == choice.score
        assert chosen[fold]["rank_test_score"] == 1


def test_an_undefined_score_is_none_and_ranks_are_among_all_files_of_an_outer_fold():
    good = Choice("logreg", "raw", 1.0, 0.75, by_fold=(0.5, 1.0))
    half = Choice("logreg", "raw", 2.0, 0.5, place=1, by_fold=(None, 0.5))
    table = cv_results(
        [Searched("a.h5", "1", [half, good]), Searched("b.h5", "1", [good]), Searched("a.h5", "final", [half])]
    )
    assert table["split0_test_score"] == [None, 0.5, 0.5, None]
    assert table["std_test_score"] == [0.0, 0.25, 0.25, 0.0]
    assert table["rank_test_score"] == [3, 1, 1, 1]
    assert table["chosen"] == [False, True, False, True]
    assert table["param_C"] == [2.0, 1.0, 1.0, 2.0]


def test_the_file_is_the_table(tmp_path):
    result = fit_features(
        {"a.h5": features(60), "b.h5": features(60, noise=3.0)}, replace(OPTIONS, heads=("lda", "knn"))
    )
    save_cv_results(result, tmp_path / "cv.csv")
    with (tmp_path / "cv.csv").open() as file:
        read = list(csv.DictReader(file))
    table = cv_results(result.searches)
    assert list(read[0]) == list(table)
    assert {row["file"] for row in read} == {"a.h5", "b.h5"}
    for row, mine in zip(read, rows_of(table), strict=True):
        assert row == {name: "" if value is None else str(value) for name, value in mine.items()}


def test_a_resumed_search_has_the_same_table_and_an_older_ledger_is_as_good_as_none(tmp_path, monkeypatch):
    data, path = features(60), tmp_path / "x.search"
    options = replace(OPTIONS, heads=("lda",))
    whole = cv_results(fit_features(data, options, ledger=SearchLedger(path, resume=False)).searches)
    ledger = SearchLedger(path, resume=True)
    assert cv_results(fit_features(data, options, ledger=ledger).searches) == whole
    assert ledger.n_found == 8
    monkeypatch.setattr("featx.learn.search_ledger.RECORD", 3)
    newer = SearchLedger(path, resume=True)
    fit_features(data, options, ledger=newer)
    assert newer.n_found == 0
