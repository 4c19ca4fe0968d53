"""What ``featx fit --task multilabel`` promises: honest scores, thresholds chosen inside, labels as written."""

import dataclasses
import json

import numpy as np
import pytest
from feature_files import write_file
from label_samples import NAMES, QUICK, labelled
from sklearn import metrics
from threadpoolctl import threadpool_limits

from featx.errors import BundleError, LabelsError, UnknownNameError, UsageError
from featx.fit import FitOptions, fit, fit_features, save, save_out_of_fold
from featx.learn.bundle import load_bundle
from featx.learn.multilabel.metrics import LABEL_SCORES
from featx.learn.search_ledger import SearchLedger
from featx.lock import LockOptions, lock, open_locked
from featx.predict import Caution, predict


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):  # what is tiny is slower with more
        yield


def options(**changes):
    return FitOptions(**(QUICK | changes))


def marks_of(texts):
    return np.array([[name in text.split(";") for name in NAMES] for text in texts])


def test_the_json_object_holds_what_is_documented():
    data = json.loads(json.dumps(fit_features(labelled(), options(heads=("logreg", "svm"))).to_dict(), allow_nan=False))
    assert data["task"] == "multilabel"
    assert list(data["scores"]) == list(LABEL_SCORES) == list(data["baseline"])
    assert data["classes"] == [one["name"] for one in data["per_label"]] == list(NAMES)
    assert all(0 <= one["threshold"] <= 1 for one in data["per_label"])
    assert set(data["heads"]) == {"logreg", "svm"}
    assert data["options"]["scoring"] == "average_precision_macro"
    assert data["n_without_label"] == sum(text == "none" for text in labelled().y)
    assert data["comparisons"]["guessing"]["tie"] is False


def test_scores_are_those_of_the_out_of_fold_predictions():
    result = fit_features(labelled(), options())
    folds = {}
    for row in result.out_of_fold:
        folds.setdefault(row.fold, []).append(row)
    precision, f1 = [], []
    for rows in folds.values():
        true, called = (marks_of([getattr(row, name) for row in rows]) for name in ("true", "predicted"))
        precision.append(metrics.average_precision_score(true, [row.probabilities for row in rows]))
        f1.append(metrics.f1_score(true, called, average="micro"))
    scores = result.whole.evaluation.scores
    assert scores["average_precision_macro"].folds == pytest.approx(precision)
    assert scores["f1_micro"].folds == pytest.approx(f1)
    header, *rows = result.iter_out_of_fold()
    assert header == ["key", "group", "fold", "true", "predicted", "p_fox", "p_snow", "p_tree"]
    assert sorted(row[0] for row in rows) == sorted(labelled().keys)


@pytest.mark.parametrize("head", ["logreg", "svm"])
def test_the_labels_of_a_fold_have_no_part_in_what_is_said_of_it(head):
    folds = [str(i % 3) for i in range(60)]
    data = labelled(folds=folds)
    turned = np.where(np.array(folds) == "0", np.roll(data.y, 1), data.y)
    one, other = (
        [row for row in fit_features(each, options(heads=(head,))).out_of_fold if row.fold == "0"]
        for each in (data, dataclasses.replace(data, y=turned))
    )
    assert [row.predicted for row in one] == [row.predicted for row in other]
    assert [row.probabilities for row in one] == [row.probabilities for row in other]
    assert [row.true for row in one] != [row.true for row in other]


def test_labels_that_mean_nothing_score_as_a_random_order():
    differences = []
    for seed in range(3):
        found = fit_features(labelled(90, signal=0, seed=seed), options()).whole.evaluation
        differences.append(found.scores["roc_auc_macro"].mean - 0.5)
        differences.append(found.scores["average_precision_macro"].mean - found.baseline["average_precision_macro"])
    assert abs(np.mean(differences)) < 0.06


def test_the_result_does_not_depend_on_processes_and_can_be_resumed(tmp_path):
    one = fit_features(labelled(), options(), ledger=SearchLedger(tmp_path / "s", resume=False))
    ledger = SearchLedger(tmp_path / "s", resume=True)
    again = fit_features(labelled(), options(), ledger=ledger)
    assert ledger.n_found == 4
    assert [row.probabilities for row in one.out_of_fold] == [row.probabilities for row in again.out_of_fold]


def test_groups_stay_whole_and_are_what_is_independent():
    groups = [f"g{i // 3}" for i in range(60)]
    result = fit_features(labelled(groups=groups), options())
    fold_of = {}
    for row in result.out_of_fold:
        assert fold_of.setdefault(row.group, row.fold) == row.fold
    assert "20 groups in 3 folds" in result.whole.evaluation.scores["f1_macro"].method


@pytest.mark.parametrize("parts", [("train", "test"), ("train", "val", "test"), ("train", "val")])
def test_fixed_parts_are_scored_once_and_never_trained_on(parts):
    data = labelled(90, splits=[parts[i // 6 % len(parts)] for i in range(90)])
    result = fit_features(data, options())
    reported = parts[-1]
    assert result.whole.evaluation.n_samples == np.sum(data.splits == reported)
    assert not set(result.fitted_on) & set(data.sha256[data.splits == reported])
    everything = fit_features(data, options(refit="all"))
    assert len(everything.fitted_on) == 90
    assert everything.maps.thresholds.tolist() == result.maps.thresholds.tolist()


def test_files_compete_and_the_better_one_is_taken():
    good = labelled()
    noise = dataclasses.replace(good, X=np.random.default_rng(5).normal(size=good.X.shape).astype(np.float32))
    result = fit_features({"noise.h5": noise, "good.h5": good}, options())
    assert result.file == "good.h5"
    assert set(result.files) == {"noise.h5", "good.h5"}
    assert result.comparisons.next_file is not None


def test_labels_that_only_the_test_part_has_are_left_out_and_named():
    data = labelled(splits=["train"] * 40 + ["test"] * 20)
    y = data.y.astype(object)
    y[50] = "wolf"
    result = fit_features(dataclasses.replace(data, y=y.astype(str)), options())
    assert result.labels == list(NAMES)
    assert result.unseen == {"wolf": 1}
    assert any("wolf (1)" in note for note in result.notes)


def test_rare_labels_are_refused_or_left_out():
    y = labelled().y.astype(object)
    y[0] = "wolf"
    data = dataclasses.replace(labelled(), y=y.astype(str))
    with pytest.raises(LabelsError, match=r"'wolf' is in 1; .*--min-per-class 3 \(leaves out 1 of 4 labels\)"):
        fit_features(data, options())
    assert fit_features(data, options(min_per_class=3)).left_out == {"wolf": 1}


def test_one_label_for_each_sample_is_another_task_and_that_is_said():
    data = dataclasses.replace(labelled(), y=np.array(["fox", "snow", "none"] * 20))
    assert any("--task classification" in note for note in fit_features(data, options()).notes)


def test_thresholds_of_a_half_call_less_and_f1_finds_more():
    f1, half = (fit_features(labelled(signal=0.7), options(thresholds=name)) for name in ("f1", "half"))
    assert half.maps.thresholds.tolist() == [0.5] * 3
    found, called_less = (sum(one.recall for one in each.whole.evaluation.per_label) for each in (f1, half))
    assert found > called_less
    ranked = [each.whole.evaluation.scores["average_precision_macro"].mean for each in (f1, half)]
    assert ranked[0] == ranked[1]


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"heads": ("lda",)}, UnknownNameError, "head of --task multilabel 'lda'; known: logreg, svm"),
        ({"scoring": "accuracy"}, UnknownNameError, "did you mean label_accuracy"),
        ({"calibration": "isotonic"}, UsageError, "takes auto, none, temperature, sigmoid"),
        ({"positive": "fox"}, UsageError, "--positive has no meaning for --task multilabel"),
        ({"conformal": "on"}, UsageError, "--conformal has no meaning for --task multilabel"),
        ({"thresholds": "best"}, UsageError, "expected f1 or half"),
        ({"task": "classification", "label_separator": "|"}, UsageError, "no meaning for --task classification"),
    ],
)
def test_options_without_meaning_are_refused(changes, error, match):
    with pytest.raises(error, match=match):
        options(**changes)


# The bundle


@pytest.fixture
def fitted(tmp_path):
    path = write_file(tmp_path / "labels.h5", labelled(separator="|"))
    result = fit(path, options(label_separator="|"))
    save(result, tmp_path / "labels.featx")
    save_out_of_fold(result, tmp_path / "oof.csv")
    return result, tmp_path


def test_a_saved_head_says_what_it_said(fitted):
    result, folder = fitted
    bundle = load_bundle(folder / "labels.featx")
    X = labelled().X
    np.testing.assert_allclose(bundle.pipeline.predict_proba(X), result.estimator.predict_proba(X))
    np.testing.assert_array_equal(bundle.pipeline.predict(X), result.estimator.predict(X))
    assert (bundle.task, bundle.classes) == ("multilabel", list(NAMES))
    assert (folder / "oof.csv").read_text().startswith("key,group,fold,true,predicted,p_fox,p_snow,p_tree\n")
    assert "|" in (folder / "oof.csv").read_text()


def test_predictions_are_written_as_the_training_labels_were_and_scored(fitted):
    result, folder = fitted
    new = labelled(80, seed=1, start=500, separator="|")
    y = new.y.astype(object)
    y[:3] = ["", "fox|wolf", "none"]
    write_file(folder / "new.h5", dataclasses.replace(new, y=y.astype(str)), failed=(7,))
    found = predict(folder / "labels.featx", folder / "new.h5")
    header, *rows = found.iter_csv_rows()
    assert header == ["key", "status", "predicted", "p_fox", "p_snow", "p_tree", "unlike"]
    assert rows[7][1:] == ["failed", "", "", "", "", ""]
    called = result.estimator.predict(new.X[:1])[0]
    assert rows[0][2] == ("|".join(np.array(NAMES)[called == 1]) or "none")
    assert found.evaluation.n_samples == 78
    assert any("does not know, left out of the scores: wolf" in note for note in found.notes)
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert isinstance(data["predictions"][0]["predicted"], list)
    assert data["predictions"][7]["predicted"] is None
    with pytest.raises(UsageError, match="--coverage has no meaning for --task multilabel"):
        predict(folder / "labels.featx", folder / "new.h5", caution=Caution(coverage=0.9))


def test_locked_samples_take_no_part_and_are_scored_when_opened(tmp_path):
    path = write_file(tmp_path / "labels.h5", labelled(80))
    lock(path, LockOptions(fraction=0.25))
    result = fit(path, options())
    save(result, tmp_path / "labels.featx")
    look = open_locked(path, tmp_path / "labels.featx")
    assert look.look.n_samples + len(result.fitted_on) == 80
    assert list(look.evaluation.scores) == list(LABEL_SCORES)
    assert look.evaluation.baseline is not None


def test_a_bundle_whose_head_is_not_of_its_task_is_refused(tmp_path):
    path = write_file(tmp_path / "labels.h5", labelled())
    result = fit(path, options())
    save(dataclasses.replace(result, estimator=result.estimator.estimator_), tmp_path / "wrong.featx")
    with pytest.raises(BundleError, match=r"head.skops is damaged"):
        load_bundle(tmp_path / "wrong.featx")
