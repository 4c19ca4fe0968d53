"""The search against scikit-learn's GridSearchCV over the plain pipelines, and its promises."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from threadpoolctl import threadpool_limits

from featx.errors import LabelsError, UsageError
from featx.learn import heads, linear, search
from featx.learn.choice import Choice
from featx.learn.heads import make_head
from featx.learn.search import Job, Space, run_jobs
from featx.learn.search_ledger import SearchLedger
from featx.learn.splits import make_folds

GRID = (1e-4, 1e-2, 1.0)
SCALINGS = ("raw", "standardise", "l2")
NOTHING = np.array([], dtype=int)


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):  # what is tiny is slower with more
        yield


def samples(n=72, d=40, n_classes=3, seed=0, noise=2.0):
    rng = np.random.default_rng(seed)
    y = np.array([f"class {i % n_classes}" for i in range(n)])
    X = rng.normal(size=(n_classes, d))[np.arange(n) % n_classes] + noise * rng.normal(size=(n, d))
    return X * rng.uniform(0.2, 3, size=d) + 1, y, np.arange(n) // (2 * n_classes)


def make_job(y, groups, train, test=NOTHING, name="1", n_splits=3, keep=True):
    folds = make_folds(y[train], groups[train], n_splits=n_splits)
    calibration = np.zeros(len(train), dtype=int)
    for fold in folds:
        calibration[fold.test] = fold.number
    return Job(name, [(train[f.train], train[f.test]) for f in folds], train, calibration, test, keep)


def make_jobs(y, groups, n_splits=4):
    cv = StratifiedGroupKFold(n_splits, shuffle=True, random_state=1)
    return [make_job(y, groups, *fold, name=str(i)) for i, fold in enumerate(cv.split(y, y, groups))]


def hasty(name):
    """A head that stops after one step."""
    head = heads.HEADS[name]
    return replace(head, make=lambda *of: head.make(*of).set_params(max_iter=1))


@pytest.mark.parametrize(
    ("head", "scoring", "n_classes"),
    [
        ("logreg", "balanced_accuracy", 3),
        pytest.param("logreg", "neg_log_loss", 3, marks=pytest.mark.slow),
        ("logreg", "roc_auc", 2),
        pytest.param("svm", "roc_auc", 2, marks=pytest.mark.slow),
        ("svm", "f1_macro", 3),
        pytest.param("logreg-ovr", "neg_log_loss", 3, marks=pytest.mark.slow),
        ("svm-rbf", "accuracy", 3),
        pytest.param("svm-rbf", "roc_auc", 2, marks=pytest.mark.slow),
    ],
)
def test_nested_search_chooses_and_predicts_as_GridSearchCV_over_the_plain_pipelines(
    head, scoring, n_classes, monkeypatch
):
    monkeypatch.setattr(linear, "SEARCH_TOL", 1e-8)
    X, y, groups = samples(n_classes=n_classes)
    jobs = make_jobs(y, groups)
    outcomes = run_jobs(X, y, jobs, Space((head,), SCALINGS, GRID, scoring))
    for job, outcome in zip(jobs, outcomes, strict=True):
        train = {int(row): place for place, row in enumerate(job.rows)}
        cv = [([train[r] for r in fit], [train[r] for r in score]) for fit, score in job.inner]
        means = {}
        for scaling in SCALINGS:
            plain = GridSearchCV(make_head(head, 1.0, scaling), {"head__C": GRID}, scoring=scoring, cv=cv, refit=False)
            plain.fit(X[job.rows], y[job.rows])
            means |= {(scaling, C): m for C, m in zip(GRID, plain.cv_results_["mean_test_score"].tolist(), strict=True)}
        best = max(means.values())
        tied = [key for key, mean in means.items() if mean > best - 1e-9]
        scaling, C = min(tied, key=lambda key: (key[1], SCALINGS.index(key[0])))
        choice = outcome.best.choice
        assert (choice.scaling, choice.value) == (scaling, C)
        assert choice.score == pytest.approx(best, abs=1e-5)
        plain = make_head(head, C, scaling).fit(X[job.rows], y[job.rows])
        np.testing.assert_array_equal(outcome.best.predicted, plain.predict(X[job.test]))
        if head == "logreg":
            np.testing.assert_allclose(outcome.best.probabilities, plain.predict_proba(X[job.test]), atol=1e-4)


def test_each_head_alone_comes_from_the_same_search():
    X, y, groups = samples()
    jobs = make_jobs(y, groups)[:2]
    both = run_jobs(X, y, jobs, Space(("logreg", "svm"), SCALINGS, GRID, "balanced_accuracy"))
    for head in ("logreg", "svm"):
        alone = run_jobs(X, y, jobs, Space((head,), SCALINGS, GRID, "balanced_accuracy"))
        for one, other in zip(both, alone, strict=True):
            assert one.heads[head].choice == other.best.choice
            np.testing.assert_array_equal(one.heads[head].probabilities, other.best.probabilities)
    for outcome in both:
        assert outcome.best.choice.score == max(fitted.choice.score for fitted in outcome.heads.values())


def test_ties_go_to_the_smaller_C_then_the_earlier_scaling_then_the_earlier_head():
    X, y, groups = samples(noise=0.01)  # everything is right everywhere
    space = Space(("logreg", "svm"), ("standardise", "l2"), (0.1, 1.0, 10.0), "accuracy")
    [outcome] = run_jobs(X, y, [make_job(y, groups, np.arange(len(y)))], space)
    assert outcome.best.choice == Choice("logreg", "standardise", 0.1, 1.0, "lower")
    assert outcome.heads["svm"].choice == Choice("svm", "standardise", 0.1, 1.0, "lower")
    assert Choice("svm", "l2", 0.1, 0.5, place=0).rank < Choice("logreg", "raw", 1.0, 0.5, place=1).rank
    assert Choice("svm", "l2", 1.0, 0.1 + 0.2).rank > Choice("svm", "raw", 1.0, 0.3).rank  # 0.30000000000000004


def test_a_C_at_the_edge_of_the_grid_is_named():
    X, y, groups = samples(noise=4.0)
    job = make_job(y, groups, np.arange(len(y)))

    def edge(*grid):
        return run_jobs(X, y, [job], Space(("logreg",), ("standardise",), grid, "neg_log_loss"))[0].best.choice.edge

    assert edge(1e-6, 1e-5) == "upper"
    assert edge(1e2, 1e3) == "lower"
    assert edge(1e-6, 1e-2, 1e3) == ""
    assert edge(1e-2) == ""  # one value is no edge


def test_every_fit_that_did_not_converge_is_counted_and_named_and_no_warning_leaks(monkeypatch):
    monkeypatch.setattr(linear, "MAX_ITER", 1)
    monkeypatch.setitem(heads.HEADS, "logreg", hasty("logreg"))
    X, y, groups = samples()
    job = make_job(y, groups, np.arange(len(y)), name="2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [outcome] = run_jobs(X, y, [job], Space(("logreg",), ("raw",), (0.1, 10.0), "accuracy"))
    found = {(one.stage, one.fold, one.inner_fold, one.head, one.scaling, one.value) for one in outcome.unconverged}
    assert found == {("search", "2", fold, "logreg", "raw", C) for fold in (1, 2, 3) for C in (0.1, 10.0)} | {
        ("refit", "2", None, "logreg", "raw", outcome.best.choice.value)
    }
    assert len(outcome.unconverged) == 7


def test_fits_behind_a_sigmoid_that_did_not_converge_are_counted_too(monkeypatch):
    monkeypatch.setitem(heads.HEADS, "svm", hasty("svm"))
    X, y, groups = samples()
    [outcome] = run_jobs(X, y, [make_job(y, groups, np.arange(len(y)))], Space(("svm",), ("raw",), (10.0,), "accuracy"))
    assert [one.stage for one in outcome.unconverged] == ["refit"] * 4  # three folds and the head itself


@pytest.mark.slow
def test_one_process_and_two_give_the_same_bits(monkeypatch):
    monkeypatch.setattr(search, "SMALL_WORK", 0)
    X, y, groups = samples(n=60, d=3000)  # larger than what joblib hands over as it is
    jobs = make_jobs(y, groups)[:1]
    space = Space(("logreg", "svm", "svm-rbf"), ("raw", "standardise"), (0.01, 1.0), "balanced_accuracy")
    ones, twos = (run_jobs(X, y, jobs, space, n_jobs=n_jobs) for n_jobs in (1, 2))
    for one, two in zip(ones, twos, strict=True):
        for head in space.heads:
            assert one.heads[head].choice == two.heads[head].choice
            np.testing.assert_array_equal(one.heads[head].probabilities, two.heads[head].probabilities)
            np.testing.assert_array_equal(
                one.heads[head].estimator.decision_function(X), two.heads[head].estimator.decision_function(X)
            )


def test_progress_counts_every_task():
    X, y, groups = samples()
    seen = []
    run_jobs(
        X,
        y,
        make_jobs(y, groups)[:2],
        Space(("logreg", "svm"), ("raw", "l2"), (1.0,), "accuracy"),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(done, 8) for done in range(1, 9)]  # 2 jobs x (2 scalings + 2 refits)


def test_the_fitted_heads_come_back_only_where_they_are_wanted():
    X, y, groups = samples()
    job = make_job(y, groups, np.arange(len(y)), keep=False)
    [outcome] = run_jobs(X, y, [job], Space(("logreg",), ("raw",), (1.0,), "accuracy"))
    assert outcome.best.estimator is None
    assert outcome.best.predicted.shape == (0,)
    assert outcome.best.probabilities.shape == (0, 3)


def test_a_scoring_that_no_inner_fold_can_have_is_an_error():
    X, y, _ = samples(n_classes=2)
    ordered = np.argsort(y, kind="stable")
    job = Job("3", [(np.arange(72), ordered[:5]), (np.arange(72), ordered[-5:])], np.arange(72), NOTHING, NOTHING)
    with pytest.raises(LabelsError, match="roc_auc is undefined on every inner fold of fold 3"):
        run_jobs(X, y, [job], Space(("logreg",), ("raw",), (1.0,), "roc_auc"))


def test_log_loss_cannot_choose_a_head_without_probabilities_of_its_own():
    with pytest.raises(UsageError, match="neg_log_loss needs a head with probabilities of its own; svm-rbf has none"):
        Space(("logreg", "svm-rbf"), SCALINGS, GRID, "neg_log_loss")


# What an interrupted fit leaves


class StoppedError(Exception):
    """The user's Ctrl-C."""


def stop_after(n):
    def progress(done, _total):
        if done == n:
            raise StoppedError

    return progress


def test_an_interrupted_search_goes_on_where_it_was_and_ends_with_the_same_bits(tmp_path, monkeypatch):
    X, y, groups = samples()
    jobs, path = make_jobs(y, groups)[:2], tmp_path / "fit.search"
    space = Space(("logreg", "lda", "svm"), SCALINGS, GRID, "balanced_accuracy")
    whole = run_jobs(X, y, jobs, space)
    with pytest.raises(StoppedError):
        run_jobs(X, y, jobs, space, progress=stop_after(4), ledger=SearchLedger(path, resume=False))
    with path.open("a") as file:
        file.write('00000000 ["torn", [[\n')
    computed = []
    compute = search._search
    monkeypatch.setattr(search, "_search", lambda *of: computed.append(of) or compute(*of))
    ledger = SearchLedger(path, resume=True)
    resumed = run_jobs(X, y, jobs, space, ledger=ledger)
    assert (ledger.n_found, len(computed)) == (4, 2)
    for one, other in zip(whole, resumed, strict=True):
        for head in space.heads:
            assert one.heads[head].choice == other.heads[head].choice
            np.testing.assert_array_equal(one.heads[head].probabilities, other.heads[head].probabilities)
    assert SearchLedger(path, resume=True).find("torn") is None
    ledger.remove()
    assert not path.exists()


@pytest.mark.parametrize("change", ["features", "labels", "folds", "grid", "scoring", "nothing"])
def test_only_searches_of_the_same_fit_are_taken_up(tmp_path, change):
    X, y, groups = samples()
    jobs, path = make_jobs(y, groups)[:1], tmp_path / "fit.search"
    run_jobs(X, y, jobs, Space(("lda",), ("raw", "l2"), GRID, "accuracy"), ledger=SearchLedger(path, resume=False))
    if change == "features":
        X = X + 1e-12
    if change == "labels":
        y = np.char.add(y, "!")
    if change == "folds":
        jobs = make_jobs(y, groups, n_splits=3)[:1]
    space = Space(
        ("lda",),
        ("raw", "l2"),
        GRID[:2] if change == "grid" else GRID,
        "f1_macro" if change == "scoring" else "accuracy",
    )
    ledger = SearchLedger(path, resume=True)
    run_jobs(X, y, jobs, space, ledger=ledger)
    assert ledger.n_found == (2 if change == "nothing" else 0)
