"""A whole regression: nested cross-validation by hand, guesses, groups, splits, files, bad labels, bundles."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from featx.errors import LabelsError, UsageError
from featx.fit import FitOptions, fit_features, save, save_out_of_fold
from featx.learn.bundle import load_bundle
from featx.learn.dataset import Features
from featx.learn.regression.folds import FoldPlan, make_folds
from featx.learn.search_ledger import SearchLedger
from featx.spec import FeatureSpec, Preprocess

QUICK = FitOptions(task="regression", cv=4, inner_cv=3, scalings=("raw",), C_grid=(0.1, 10, 3), n_jobs=1)

SPEC = FeatureSpec("tiny", "random:0", "0" * 64, "head", "avg", (6,), Preprocess((8,), (8, 8), (0.0,) * 3, (1.0,) * 3))


def features(n=48, seed=0, groups=None, noise=0.5, **columns):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 6)).astype(np.float32)
    y = 100 + 10 * (X[:, 0] + noise * rng.normal(size=n))
    empty = np.array([""] * n, dtype=object)
    given = {
        "y": np.array([repr(float(value)) for value in y]),
        "groups": empty if groups is None else np.asarray(groups, dtype=object),
        "keys": np.array([f"{i}.png" for i in range(n)], dtype=object),
        "splits": empty,
        "folds": empty,
        "sha256": np.array([f"{i:064x}" for i in range(n)], dtype=object),
    }
    return Features(X=X, **(given | columns))


@pytest.fixture(scope="module")
def result():
    return fit_features(features(), replace(QUICK, heads=("knn", "ridge", "svr")))


def test_nested_cross_validation_is_what_one_would_write_by_hand():
    data = features()
    X, y = data.X.astype(np.float64), data.y.astype(np.float64)
    result = fit_features(data, QUICK)
    alphas = [10.0**power for power in range(8, -5, -1)]

    def choose(rows):
        cuts = [(rows[fold.train], rows[fold.test]) for fold in make_folds(y[rows], None, FoldPlan(3))]

        def error(alpha):
            models = [(Ridge(alpha).fit(X[train], y[train]), test) for train, test in cuts]
            return np.mean([np.mean(np.abs(model.predict(X[test]) - y[test])) for model, test in models])

        return min(alphas, key=error)

    predicted = np.empty(len(y))
    for fold, (_, choice) in zip(make_folds(y, None, FoldPlan(4, inner_splits=3)), result.whole.folds, strict=True):
        alpha = choose(fold.train)
        assert choice.value == alpha
        predicted[fold.test] = Ridge(alpha).fit(X[fold.train], y[fold.train]).predict(X[fold.test])
    said = {row.key: row.predicted for row in result.out_of_fold}
    assert [said[key] for key in data.keys] == pytest.approx(predicted, rel=1e-9)
    scores = result.whole.evaluation.scores
    assert scores["mae"].mean == pytest.approx(np.mean(np.abs(y - predicted)))
    assert scores["rmse"].mean == pytest.approx(np.mean((y - predicted) ** 2) ** 0.5)
    assert scores["r2"].mean == pytest.approx(1 - np.sum((y - predicted) ** 2) / np.sum((y - y.mean()) ** 2))
    final = choose(np.arange(len(y)))
    assert result.whole.chosen.value == final
    assert result.estimator.predict(X) == pytest.approx(Ridge(final).fit(X, y).predict(X))


def test_scores_have_intervals_beside_what_guessing_gets(result):
    evaluation = result.whole.evaluation
    for name, interval in evaluation.scores.items():
        assert interval.low < interval.mean < interval.high, name
        assert len(interval.folds) == 4
    assert evaluation.guessing["r2"] <= 0
    assert evaluation.guessing["spearman"] is None
    assert evaluation.guessing["mae"] > evaluation.scores["mae"].high
    assert "when it learns from as many samples as in a fold (36)" in evaluation.estimand
    assert not result.comparisons.guessing.is_tie
    assert result.comparisons.runner_up is not None
    assert list(result.heads) == ["ridge", "svr", "knn"]


def test_on_noise_it_is_not_to_be_told_from_guessing():
    found = fit_features(features(noise=1e4), QUICK)
    assert found.comparisons.guessing.is_tie
    assert "not to be told from guessing the median" in " ".join(found.comparisons.describe())
    assert found.whole.evaluation.scores["r2"].low < 0


def test_everything_said_is_json_and_options_name_the_task(result):
    told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert told["task"] == "regression"
    assert told["options"]["scoring"] == "neg_mean_absolute_error"
    assert told["intervals"]["n_groups"] == 48
    assert set(told["scores"]) == {"r2", "rmse", "mae", "spearman"}


def test_samples_of_a_group_are_never_on_both_sides_and_count_once():
    groups = [f"p{i // 4}" for i in range(48)]
    result = fit_features(features(groups=groups, group_source="column patient"), QUICK)
    folds = {}
    for row in result.out_of_fold:
        folds.setdefault(row.group, set()).add(row.fold)
    assert all(len(own) == 1 for own in folds.values())
    assert result.whole.evaluation.n_units == result.intervals.n_groups == 12
    assert "12 groups" in result.whole.evaluation.scores["mae"].method


def test_identical_files_are_kept_together_without_groups():
    shas = np.array([f"{i // 2:064x}" for i in range(48)], dtype=object)
    result = fit_features(features(sha256=shas), QUICK)
    folds = {row.key: row.fold for row in result.out_of_fold}
    assert all(folds[f"{2 * i}.png"] == folds[f"{2 * i + 1}.png"] for i in range(24))


@pytest.mark.parametrize(
    ("parts", "scheme", "n_reported"),
    [(("train", "test"), "test", 16), (("train", "val"), "val", 16), (("train", "val", "test"), "val-test", 16)],
)
def test_splits_of_the_file_decide_what_is_reported(parts, scheme, n_reported):
    splits = np.array(["train"] * (64 - 16 * len(parts)) + [p for p in parts[1:] for _ in range(16)], dtype=object)
    data = features(len(splits), splits=splits)
    result = fit_features(data, QUICK)
    assert result.plan.scheme == scheme
    assert result.whole.evaluation.n_samples == n_reported
    assert result.whole.evaluation.estimand == "the score of this one regression on new samples like these"
    reported = [row for row in result.out_of_fold if row.fold == parts[-1]]
    assert {row.key for row in reported} == {f"{i}.png" for i in np.flatnonzero(splits == parts[-1])}
    assert (result.intervals is None) == (scheme == "val-test")
    if scheme == "val-test":
        assert "--conformal on" in result.why_no_intervals
        assert fit_features(data, replace(QUICK, conformal="on")).intervals.n_groups == 32
    everything = fit_features(data, replace(QUICK, refit="all"))
    assert len(everything.plan.fit) == len(splits)
    assert everything.whole.evaluation.scores == result.whole.evaluation.scores


def test_files_compete_inside_each_training_part():
    good, bad = features(), features()
    noise = np.random.default_rng(5).normal(size=bad.X.shape).astype(np.float32)
    result = fit_features({"noise.h5": replace(bad, X=noise), "good.h5": good}, QUICK)
    assert result.file == "good.h5"
    assert set(result.file_of_fold) == {"good.h5"}
    assert result.files["good.h5"].evaluation.scores["r2"].mean > result.files["noise.h5"].evaluation.scores["r2"].mean
    assert result.comparisons.next_file.first == "good.h5"


def test_views_of_a_sample_change_nothing_when_they_are_copies():
    data = features()
    views = replace(data.take(np.repeat(np.arange(48), 2)), views=np.tile(np.arange(2), 48))
    once = fit_features(data, replace(QUICK, heads=("ridge", "knn")))
    for changes in ({}, {"score_views": "average"}, {"views": "none"}):
        twice = fit_features(views, replace(QUICK, heads=("ridge", "knn"), **changes))
        assert [row.predicted for row in twice.out_of_fold] == pytest.approx(
            [row.predicted for row in once.out_of_fold]
        )


def test_an_interrupted_search_is_taken_up_again(result, tmp_path):
    options = replace(QUICK, heads=("knn", "ridge", "svr"))
    first = fit_features(features(), options, ledger=SearchLedger(tmp_path / "a.search", resume=False))
    ledger = SearchLedger(tmp_path / "a.search", resume=True)
    again = fit_features(features(), options, ledger=ledger)
    assert ledger.n_found == 5  # four outer folds and the final choice
    assert again.whole == first.whole == result.whole


@pytest.mark.slow
def test_the_same_whatever_the_number_of_processes(result, monkeypatch):
    import featx.learn.search

    monkeypatch.setattr(featx.learn.search, "SMALL_WORK", 0)
    again = fit_features(features(), replace(QUICK, heads=("knn", "ridge", "svr"), n_jobs=2))
    assert again.out_of_fold == result.out_of_fold


def test_the_unit_of_the_labels_decides_nothing():
    data = features()
    tiny = replace(data, y=np.array([repr(1e-15 * float(label)) for label in data.y]))
    one, two = (fit_features(each, replace(QUICK, heads=("ridge", "knn"))) for each in (data, tiny))
    assert [choice.setting for _, choice in one.whole.folds] == [choice.setting for _, choice in two.whole.folds]
    scores = one.whole.evaluation.scores, two.whole.evaluation.scores
    assert scores[0]["r2"].low == pytest.approx(scores[1]["r2"].low)
    assert 1e-15 * scores[0]["mae"].high == pytest.approx(scores[1]["mae"].high, rel=1e-6, abs=0)


def test_unlabelled_samples_are_left_out_and_counted():
    data = features()
    y = data.y.copy()
    y[:5] = ""
    result = fit_features(replace(data, y=y), QUICK)
    assert result.unlabelled == 5
    assert len(result.out_of_fold) == 43
    assert any("Samples without a label, left out: 5." in note for note in result.notes)


@pytest.mark.parametrize("label", ["nan", "inf", "old", "12,5"])
def test_a_label_that_is_no_number_is_refused_by_its_key(label):
    data = features()
    y = data.y.astype(object)
    y[7] = label
    with pytest.raises(LabelsError, match=f"1 of 48 labels are not finite numbers, the first '{label}' of '7.png'"):
        fit_features(replace(data, y=y.astype(str)), QUICK)


def test_labels_that_are_all_the_same_or_too_few_are_refused():
    with pytest.raises(LabelsError, match="all 48 labels are 3 in cross-validation: there is nothing to predict"):
        fit_features(replace(features(), y=np.array(["3.0"] * 48)), QUICK)
    with pytest.raises(LabelsError, match="too few samples for 4 folds with 3 inner folds in cross-validation: 3"):
        fit_features(features(3), QUICK)
    groups = [f"p{i % 3}" for i in range(48)]
    with pytest.raises(LabelsError, match="too few groups for 4 folds with 3 inner folds in cross-validation: 3"):
        fit_features(features(groups=groups), QUICK)
    with pytest.raises(LabelsError, match="no labelled samples"):
        fit_features(replace(features(), y=np.array([""] * 48)), QUICK)


def test_numbers_in_a_classification_point_to_the_other_task():
    with pytest.raises(LabelsError, match="48 different ones: if they are to be predicted as numbers, use --task regr"):
        fit_features(features(), FitOptions(n_jobs=1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positive": "a"}, "--positive has no meaning for --task regression"),
        ({"class_weight": "balanced"}, "--class-weight has no meaning for --task regression"),
        ({"calibration": "sigmoid"}, "--calibration has no meaning for --task regression"),
        ({"min_per_class": 2}, "--min-per-class has no meaning for --task regression"),
        ({"by_group": True}, "--by-group has no meaning for --task regression"),
        ({"device": "cuda"}, "--device has no meaning for --task regression"),
        ({"heads": ("logreg",)}, "unknown head for --task regression 'logreg'"),
        ({"scoring": "accuracy"}, "unknown scoring for --task regression 'accuracy'"),
        ({"task": "regresion"}, "unknown task 'regresion'; did you mean regression"),
    ],
)
def test_options_without_a_meaning_are_refused_by_name(changes, message):
    with pytest.raises(UsageError, match=message):
        FitOptions(**{"task": "regression", **changes})


@pytest.mark.parametrize("head", ["ridge", "svr", "knn"])
def test_a_bundle_brings_back_the_head_and_its_intervals(head, tmp_path):
    data = replace(features(), spec=SPEC)
    result = fit_features(data, replace(QUICK, heads=(head,), scalings=("standardise",)))
    save(result, tmp_path / "a.featx")
    bundle = load_bundle(tmp_path / "a.featx")
    assert (bundle.task, bundle.classes) == ("regression", [])
    X = data.X.astype(np.float64)
    assert np.array_equal(bundle.pipeline.predict(X), result.estimator.predict(X))
    assert np.array_equal(bundle.intervals.ends(X, 0.9), result.intervals.ends(X, 0.9))
    assert bundle.scores["mae"]["mean"] == result.whole.evaluation.scores["mae"].mean
    save_out_of_fold(result, tmp_path / "oof.csv")
    lines = (tmp_path / "oof.csv").read_text().splitlines()
    assert lines[0] == "key,group,fold,true,predicted"
    assert len(lines) == 49
