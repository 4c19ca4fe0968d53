"""What `featx fit` promises: honest scores, nothing leaks, nothing is dropped without a word."""

import csv
import dataclasses
import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from feature_files import feature_set, spec_of, write_file
from threadpoolctl import threadpool_limits

from featx.errors import InputError, LabelsError, StoreWriteError, UnknownNameError, UsageError
from featx.fit import FitOptions, fit, fit_features, save, save_out_of_fold
from featx.learn import linear
from featx.learn.bundle import load_bundle
from featx.learn.choice import Choice
from featx.learn.heads import make_head
from featx.learn.scores import score_predictions
from featx.store import disk

SPEC = spec_of(12)
QUICK = FitOptions(cv=3, inner_cv=2, C_grid=(1e-3, 10, 3), scalings=("raw", "standardise"), n_jobs=1)
BARE = {"calibration": "none", "conformal": "off", "novelty": False, "leak_gap": False}


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):  # what is tiny is slower with more
        yield


def quick(**changes):
    return dataclasses.replace(QUICK, **changes)


def features(n=60, d=12, n_classes=3, *, noise=2.0, seed=0, y=None, **columns):
    """Classes in turn, some overlap; columns may be given."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % n_classes
    X = rng.normal(size=(n_classes, d))[codes] + noise * rng.normal(size=(n, d))
    return feature_set(X, [f"class {k}" for k in codes] if y is None else y, spec=SPEC, **columns)


def splits_of(n, *parts):
    return [parts[i // 6 % len(parts)] for i in range(n)]


def write(path, data):
    return write_file(path, data, weights=b"network")


# What comes out


def test_the_json_object_holds_what_is_documented():
    result = fit_features(features(), quick(heads=("logreg", "svm-rbf")))
    data = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    for scores in (data["scores"], data["cv_scores"], *(head["scores"] for head in data["heads"].values())):
        assert list(scores) == ["balanced_accuracy", "accuracy", "f1_macro", "roc_auc_ovr", "neg_log_loss"]
        for score in scores.values():
            assert set(score) == {"mean", "low", "high", "folds", "method"}
            assert len(score["folds"]) == 3
            assert score["mean"] == pytest.approx(np.mean(score["folds"]))
            assert "60 samples in 3 folds" in score["method"]
            assert score["low"] < score["mean"] < score["high"]
    assert data["scores"] == data["cv_scores"]
    assert (
        "the whole procedure, choices included, when it learns from as many samples as in a fold (40)"
        in data["estimand"]
    )
    assert set(data["heads"]) == {"logreg", "svm-rbf"}
    assert data["head"] == data["chosen"]["head"] in data["heads"]
    assert [fold["fold"] for fold in data["chosen"]["folds"]] == ["1", "2", "3"]
    assert data["classes"] == data["confusion_classes"] == ["class 0", "class 1", "class 2"]
    assert np.sum(data["confusion"]) == data["n_samples"] == data["n_fitted"] == data["n_reported"] == 60
    assert data["baseline"]["majority"]
    assert [row["support"] for row in data["per_class"]] == [20, 20, 20]
    assert (data["groups"], data["binary"], data["by_group"]) == (None, None, None)
    assert data["seconds"] > 0
    assert data["not_converged"]["count"] == len(data["not_converged"]["fits"]) == 0
    # 3 outer folds and the final choice: 2 inner folds, 2 heads x 2 scalings x 3 C; and a refit of each head, with
    # one more for each inner fold behind the sigmoid of the SVM, or the map of the logistic regression
    assert data["not_converged"]["n_fits"] == 4 * (2 * 12 + 1 + 2 + 3)
    assert any("No groups were given" in line for line in data["warnings"])


def test_two_classes_have_roc_auc_and_the_four_proportions_of_the_positive_class():
    data = features(n_classes=2)
    result = fit_features(data, quick(positive="class 0")).to_dict()
    assert list(result["scores"])[3] == "roc_auc"
    confusion = np.array(result["confusion"])
    assert result["binary"]["positive"] == "class 0"
    assert result["binary"]["sensitivity"]["mean"] == pytest.approx(confusion[0, 0] / confusion[0].sum())
    assert result["binary"]["ppv"]["mean"] == pytest.approx(confusion[0, 0] / confusion[:, 0].sum())
    assert fit_features(data, quick()).to_dict()["binary"]["positive"] == "class 1"


def test_the_scores_are_those_of_the_out_of_fold_rows(tmp_path):
    data = features(groups=[f"p{i // 6}" for i in range(60)])
    result = fit_features(data, quick())
    save_out_of_fold(result, tmp_path / "oof.csv")
    with open(tmp_path / "oof.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["key", "group", "fold", "true", "predicted", "p_class 0", "p_class 1", "p_class 2"]
    assert sorted(row["key"] for row in rows) == data.keys.tolist()
    group_of, label_of = dict(zip(data.keys, data.groups, strict=True)), dict(zip(data.keys, data.y, strict=True))
    assert all(row["group"] == group_of[row["key"]] and row["true"] == label_of[row["key"]] for row in rows)
    for number, fold in enumerate(("1", "2", "3")):
        own = [row for row in rows if row["fold"] == fold]
        probabilities = np.array([[float(row[f"p_{name}"]) for name in result.classes] for row in own])
        values = score_predictions(
            [row["true"] for row in own], [row["predicted"] for row in own], probabilities, result.classes
        )
        for name, value in values.items():
            assert result.whole.evaluation.scores[name].folds[number] == pytest.approx(value, abs=1e-12)


def test_out_of_fold_rows_that_cannot_be_written_are_a_store_error_and_leave_the_old_file(tmp_path, monkeypatch):
    result = fit_features(features(), quick())
    (tmp_path / "oof.csv").write_text("old")

    def refuse(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(disk, "write", refuse)
        with pytest.raises(StoreWriteError, match="cannot be written"):
            save_out_of_fold(result, tmp_path / "oof.csv")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("oof.csv", "old")]
    with pytest.raises(StoreWriteError, match="cannot be written"):
        save_out_of_fold(result, tmp_path / "no folder" / "oof.csv")


@pytest.mark.parametrize("head", ["logreg", "svm", "svm-rbf"])
def test_a_file_becomes_a_bundle_with_its_facts_and_the_networks_weights(tmp_path, head):
    data = features()
    write(tmp_path / "f.h5", data)
    result = fit(tmp_path / "f.h5", quick(heads=(head,)))
    save(result, tmp_path / "f.featx")
    bundle = load_bundle(tmp_path / "f.featx")
    np.testing.assert_array_equal(bundle.predict_proba(data.X), result.estimator.predict_proba(data.X))
    assert bundle.classes == result.classes
    assert bundle.spec == SPEC
    assert bundle.weights == b"network"
    assert bundle.scores == result.to_dict()["scores"]
    assert bundle.facts["manifest_digest"] == result.digest
    again = fit_features(data, quick(heads=(head,)))
    assert again.whole.to_dict() == result.whole.to_dict()


def test_features_from_nowhere_cannot_be_saved(tmp_path):
    result = fit_features(dataclasses.replace(features(), spec=None), quick())
    with pytest.raises(UsageError, match="only a head fitted on a feature file can be saved"):
        save(result, tmp_path / "f.featx")


def test_progress_ends_at_the_total():
    seen = []
    fit_features(features(), quick(), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, 16) for i in range(16)]  # 4 choices x (2 scalings + 1 refit + 1 map)


# Which rows do what


@pytest.mark.parametrize(
    ("parts", "scheme", "fitted", "method", "has_cv"),
    [
        (("train", "test"), "test", ["train"], "Wilson", True),
        (("train", "train", "val"), "val", ["train"], "Wilson", True),
        (("train", "val", "test"), "val-test", ["train", "val"], "Wilson", False),
        (("train",), "nested-cv", ["train"], "samples in 3 folds", True),
    ],
)
def test_reported_rows_never_enter_the_saved_head_unless_refit_all(parts, scheme, fitted, method, has_cv):
    splits = splits_of(90, *parts)
    data = features(90, splits=splits)
    result = fit_features(data, quick())
    assert result.plan.scheme == scheme == result.to_dict()["scheme"]
    assert method in result.whole.evaluation.scores["accuracy"].method
    assert (result.whole.cv is not None) == has_cv
    assert (result.to_dict()["cv_scores"] is not None) == has_cv
    inside = np.isin(splits, fitted)
    assert len(result.plan.fit) == inside.sum()
    if scheme == "nested-cv":
        return
    # Whatever the reported rows are, the head is the same ...
    other = data.X.copy()
    other[~inside] = 100
    again = fit_features(dataclasses.replace(data, X=other), quick())
    np.testing.assert_array_equal(
        again.estimator.predict_proba(data.X[inside]), result.estimator.predict_proba(data.X[inside])
    )
    # ... and their scores are that head's.
    right = result.estimator.predict(data.X[~inside].astype(float)) == data.y[~inside]
    assert result.whole.evaluation.scores["accuracy"].mean == pytest.approx(right.mean())
    # With refit all it is another head with the same choice, and the same scores are reported.
    everything = fit_features(data, quick(refit="all"))
    assert len(everything.plan.fit) == 90
    assert everything.to_dict()["options"]["refit"] == "all"
    assert everything.to_dict()["scores"] == result.to_dict()["scores"]
    assert everything.whole.chosen == result.whole.chosen
    assert np.abs(everything.estimator.predict_proba(data.X) - result.estimator.predict_proba(data.X)).max() > 1e-6


def test_with_train_val_and_test_the_choice_is_the_best_on_val():
    data = features(90, splits=splits_of(90, "train", "val", "test"), noise=3.0)
    options = quick(heads=("logreg", "svm"), scoring="accuracy", C_grid=(1e-4, 1e-2, 3))
    result = fit_features(data, options)
    train, val = (np.flatnonzero(data.splits == name) for name in ("train", "val"))

    def on_val(head, scaling, C):
        pipeline = make_head(head, C, scaling).fit(data.X[train].astype(float), data.y[train])
        return pipeline.score(data.X[val].astype(float), data.y[val])

    choices = [
        Choice(head, scaling, C, on_val(head, scaling, C), place=place)
        for head in options.space.heads
        for scaling in options.space.scalings
        for place, C in enumerate(options.space.C_grid)
    ]
    best = min(choices, key=lambda choice: choice.rank)
    chosen = result.whole.chosen
    assert (chosen.head, chosen.scaling, chosen.value) == (best.head, best.scaling, best.value)
    assert chosen.score == pytest.approx(best.score)


def test_split_ignore_cross_validates_every_row():
    result = fit_features(features(splits=splits_of(60, "train", "test")), quick(split="ignore"))
    assert result.plan.scheme == "nested-cv"
    assert len(result.out_of_fold) == 60


def test_a_group_on_both_sides_of_a_split_is_an_error_that_names_it():
    data = features(splits=splits_of(60, "train", "test"), groups=["p7"] * 12 + [f"q{i}" for i in range(48)])
    with pytest.raises(LabelsError, match="'p7'"):
        fit_features(data, quick())


def test_the_same_picture_on_both_sides_of_a_split_is_an_error_that_names_both():
    sha256 = [f"{i:064x}" for i in range(60)]
    sha256[9] = sha256[3]
    with pytest.raises(LabelsError, match=r"'003.png = 009.png' into 'test' and 'train'; identical files make one"):
        fit_features(features(splits=splits_of(60, "train", "test"), sha256=sha256), quick())


def test_a_class_that_only_the_test_part_has_is_counted_as_wrong_and_named():
    splits = splits_of(60, "train", "test")
    y = [f"class {i % 3}" for i in range(60)]
    y[6] = "class 9"
    result = fit_features(features(splits=splits, y=y), quick())
    assert result.classes == ["class 0", "class 1", "class 2"]
    assert result.whole.evaluation.unseen == ["class 9"]
    assert any("never seen" in note and "class 9" in note for note in result.notes)


@pytest.mark.parametrize("head", ["logreg", "svm"])
def test_groups_stay_whole_in_every_fold_and_so_do_identical_bytes(head):
    groups = [f"p{i // 4}" if i < 40 else "" for i in range(60)]
    sha256 = [f"{i:064x}" for i in range(60)]
    sha256[59] = sha256[0]  # the same picture again, without a group
    result = fit_features(features(groups=groups, sha256=sha256), quick(heads=(head,)))
    fold_of = {row.key: row.fold for row in result.out_of_fold}
    assert len({fold_of["000.png"], fold_of["001.png"], fold_of["059.png"]}) == 1
    for group in set(groups) - {""}:
        assert len({row.fold for row in result.out_of_fold if row.group == group}) == 1
    data = result.to_dict()
    # Ten groups, and each of the twenty without one is its own, but for the one that is the same picture.
    assert data["groups"] == {"n": 29, "source": "column patient, joined by identical bytes"}
    assert not any("No groups were given" in note for note in data["warnings"])


def test_identical_pictures_without_groups_are_kept_together_and_the_loud_line_stays():
    sha256 = [f"{i // 2:064x}" for i in range(60)]
    result = fit_features(features(sha256=sha256), quick())
    fold_of = {row.key: row.fold for row in result.out_of_fold}
    assert all(fold_of[f"{i:03d}.png"] == fold_of[f"{i + 1:03d}.png"] for i in range(0, 60, 2))
    assert result.to_dict()["groups"] == {"n": 30, "source": "identical bytes"}
    assert "No groups were given" in result.notes[0]
    assert "30 different ones" in result.notes[1]


def test_a_fold_column_prescribes_the_folds():
    folds = [("north", "south", "west")[i // 6 % 3] for i in range(60)]
    result = fit_features(features(folds=folds), quick(cv=5))
    assert {row.key: row.fold for row in result.out_of_fold} == {f"{i:03d}.png": fold for i, fold in enumerate(folds)}
    assert [name for name, _ in result.whole.folds] == ["north", "south", "west"]
    assert "The outer folds are those of the fold column (north, south, west)" in result.description
    never = [fold if fold != "west" else "-1" for fold in folds]
    assert fit_features(features(folds=never), quick()).to_dict()["n_reported"] == sum(fold != "west" for fold in folds)
    with pytest.raises(UsageError, match="--repeats 2 with a fold column"):
        fit_features(features(folds=folds), quick(repeats=2))


def test_repeats_are_named_and_counted_in_the_interval():
    result = fit_features(features(), quick(repeats=2))
    assert [name for name, _ in result.whole.folds] == ["1.1", "1.2", "1.3", "2.1", "2.2", "2.3"]
    assert len(result.out_of_fold) == 120
    assert "2 repeats" in result.whole.evaluation.scores["accuracy"].method
    assert result.to_dict()["n_samples"] == 60


def test_by_group_scores_patients_by_their_mean_probability():
    groups = [f"p{i % 3}-{i // 12}" for i in range(60)]  # one label each
    result = fit_features(features(groups=groups), quick(by_group=True))
    assert result.by_group.n_groups == 15
    right = 0
    for group in set(groups):
        own = [row for row in result.out_of_fold if row.group == group]
        mean = np.mean([row.probabilities for row in own], axis=0)
        right += result.classes[int(mean.argmax())] == own[0].true
    assert sum(np.diag(result.by_group.evaluation.confusion)) == right
    groups[0] = groups[1]  # of another class
    mixed = fit_features(features(groups=groups), quick(by_group=True))
    assert mixed.by_group.n_groups == 14
    assert any("several classes, left out of the scores by group: 1." in note for note in mixed.notes)
    with pytest.raises(UsageError, match="--by-group needs groups"):
        fit_features(features(), quick(by_group=True))


def test_by_group_scores_the_patients_of_a_test_part():
    splits = splits_of(60, "train", "test")
    groups = [f"{splits[i]}-{i % 3}-{i // 12}" for i in range(60)]
    result = fit_features(features(groups=groups, splits=splits), quick(by_group=True))
    assert result.by_group.n_groups == 15
    assert result.to_dict()["by_group"]["n_groups"] == 15
    scores = result.by_group.evaluation.scores
    assert scores["accuracy"].method == "Wilson (15 groups)"
    assert scores["f1_macro"].method == "Wilson at the effective sample size (15 groups)"


# What is left out, and what is refused


def test_unlabelled_rows_are_left_out_and_counted():
    y = [f"class {i % 3}" if i % 10 else "" for i in range(60)]
    result = fit_features(features(y=y), quick())
    assert result.to_dict()["left_out"]["unlabelled"] == 6
    assert len(result.out_of_fold) == 54
    assert any("without a label, left out: 6" in note for note in result.notes)


def test_samples_that_failed_in_extraction_are_counted():
    result = fit_features(dataclasses.replace(features(), n_missing=4), quick())
    assert result.to_dict()["left_out"]["missing"] == 4
    assert any("failed in extraction and have no row: 4" in note for note in result.notes)


def test_one_class_only_is_an_error():
    with pytest.raises(LabelsError, match="only one class, 'a'"):
        fit_features(features(y=["a"] * 60), quick())
    with pytest.raises(LabelsError):
        fit_features(features(y=[""] * 60), quick())


def test_a_class_with_too_few_samples_is_an_error_that_offers_ways_out_and_min_per_class_is_one():
    y = [f"class {i % 3}" for i in range(58)] + ["rare"] * 2
    with pytest.raises(LabelsError, match=r"'rare' has 2.*--min-per-class (\d+)") as caught:
        fit_features(features(y=y), quick())
    assert caught.value.exit_code == 4
    result = fit_features(features(y=y), quick(min_per_class=4))
    assert result.classes == ["class 0", "class 1", "class 2"]
    assert result.small_classes == {"rare": 2} == result.to_dict()["left_out"]["small_classes"]
    assert len(result.out_of_fold) == 58
    assert any("rare (2)" in note for note in result.notes)


def test_min_per_class_counts_train_and_val_and_leaves_out_a_class_of_val_alone():
    y = [f"class {i % 3}" for i in range(90)]
    splits = splits_of(90, "train", "val", "test")
    y[6] = y[12] = "rare"  # one is in val, one in test
    with pytest.raises(LabelsError, match=r"'rare' has 1.*try --min-per-class 2 \(leaves out 1 of 4"):
        fit_features(features(90, y=y, splits=splits), quick(heads=("svm",)))
    result = fit_features(features(90, y=y, splits=splits), quick(heads=("svm",), min_per_class=2))
    assert result.small_classes == {"rare": 2}
    assert result.whole.evaluation.unseen == []


def test_a_class_with_too_few_groups_is_an_error():
    groups = [f"p{i}" for i in range(60)]
    y = np.array([f"class {i % 3}" for i in range(60)])
    groups = np.where(y == "class 1", "one patient", groups).tolist()
    with pytest.raises(LabelsError, match=r"too few groups.*'class 1' has 1"):
        fit_features(features(groups=groups), quick())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinite_features_are_refused(bad):
    data = features()
    data.X[7, 3] = bad
    with pytest.raises(InputError, match="007"):
        fit_features(data, quick())


def test_a_positive_class_must_be_one_of_two():
    with pytest.raises(UnknownNameError, match="unknown class 'clas 1'; did you mean class 1"):
        fit_features(features(n_classes=2), quick(positive="clas 1"))
    with pytest.raises(UsageError, match="needs exactly two classes"):
        fit_features(features(), quick(positive="class 1"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": ("logregg",)}, "unknown head 'logregg'; did you mean logreg"),
        ({"heads": ()}, "--head: at least 1"),
        ({"scalings": ("standardize",)}, "unknown scaling 'standardize'; did you mean standardise"),
        ({"scalings": ()}, "--scaling: at least 1"),
        ({"scoring": "acuracy"}, "unknown scoring 'acuracy'; did you mean accuracy"),
        ({"heads": ("svm",), "scoring": "neg_log_loss"}, "svm has none"),
        ({"cv": 1}, "--cv: at least 2"),
        ({"inner_cv": 1}, "--inner-cv: at least 2"),
        ({"repeats": 0}, "--repeats: at least 1"),
        ({"min_per_class": 0}, "--min-per-class: at least 1"),
        ({"random_state": -1}, "--random-state: at least 0"),
        ({"n_jobs": 0}, "--n-jobs 0"),
        ({"device": "tpu"}, "--device tpu: expected cpu, cuda or cuda:N"),
        ({"device": "mps"}, "--device mps: heads are fitted in float64"),
        ({"device": "cuda:99"}, "--device cuda:99: PyTorch sees"),
        ({"class_weight": "heavy"}, "--class-weight heavy: expected balanced"),
        ({"C_grid": (0, 1, 3)}, "--C-grid 0:1:3"),
        ({"C_grid": (1, 10, 1)}, "--C-grid 1:10:1"),
        ({"C_grid": (10, 1, 5)}, "--C-grid 10:1:5"),
        ({"split": "test"}, "--split test"),
        ({"refit": "test"}, "--refit test"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(changes, message):
    with pytest.raises(UsageError, match=message) as caught:
        FitOptions(**changes)
    assert caught.value.exit_code == 2


def test_the_default_grid_is_the_documented_one_in_plain_numbers():
    assert FitOptions().space.C_grid == (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)
    assert FitOptions(C_grid=(0.1, 0.1, 1)).space.C_grid == (0.1,)


def test_heads_and_scalings_are_tried_once_each_in_a_fixed_order():
    space = FitOptions(heads=["svm", "logreg", "svm"], scalings=["l2", "raw"]).space
    assert (space.heads, space.scalings) == (("logreg", "svm"), ("raw", "l2"))


# Honesty


def test_a_fit_that_did_not_converge_and_a_C_at_the_edge_are_reported(monkeypatch):
    monkeypatch.setattr(linear, "MAX_ITER", 0)
    result = fit_features(features(), quick(C_grid=(1e-9, 1e-8, 2)))
    data = result.to_dict()
    assert data["not_converged"]["count"] == len(data["not_converged"]["fits"]) > 0
    assert {"stage", "fold", "inner_fold", "head", "scaling", "value"} == set(data["not_converged"]["fits"][0])
    assert any("did not converge: logreg" in note for note in result.notes)
    assert {row["fold"] for row in data["edge"]} == {"final", "1", "2", "3"}
    assert any("edge of what was tried" in note for note in result.notes)


@pytest.mark.parametrize(
    ("names", "C_grid"),
    [
        pytest.param(("svm-rbf",), (1e-3, 1e3, 6), marks=pytest.mark.slow),
        pytest.param(("logreg", "svm", "svm-rbf"), (1e-4, 10, 4), marks=pytest.mark.slow),
    ],
)
def test_on_pure_noise_the_nested_score_is_chance_however_much_is_tried(names, C_grid):
    options = quick(heads=names, C_grid=C_grid, inner_cv=3, **BARE)
    nested, inner = [], []
    for seed in range(12):
        data = features(30, n_classes=2)
        X = np.random.default_rng(seed).normal(size=(30, 60)).astype(np.float32)
        result = fit_features(dataclasses.replace(data, X=X), options)
        nested.append(result.whole.evaluation.scores["balanced_accuracy"].mean)
        inner.append(result.whole.chosen.score)
    # One score has a standard deviation of about 0.1, the mean of twelve of 0.03. (Below one half is usual: what the
    # training part has more of, the test part has less of.) The score by which one chooses is better than the truth.
    assert abs(np.mean(nested) - 0.5) < 0.08
    assert np.mean(inner) > np.mean(nested) + 0.02


def test_patients_that_look_like_themselves_score_by_chance_with_groups_and_far_above_without():
    accuracy = {True: [], False: []}
    for seed in range(6):
        rng = np.random.default_rng(seed)
        patients = np.repeat(np.arange(20), 4)
        y = np.array(["ill" if patient % 2 else "well" for patient in patients])
        X = rng.normal(size=(20, 15))[patients] + 0.1 * rng.normal(
            size=(80, 15)
        )  # who it is, nothing about the illness
        for with_groups in accuracy:
            groups = [f"p{patient}" for patient in patients] if with_groups else [""] * 80
            data = dataclasses.replace(features(80, groups=groups, y=y), X=X.astype(np.float32))
            result = fit_features(data, quick(**BARE))
            accuracy[with_groups].append(result.whole.evaluation.scores["accuracy"].mean)
    assert abs(np.mean(accuracy[True]) - 0.5) < 0.13
    assert np.mean(accuracy[False]) > 0.85


def test_the_same_options_give_the_same_result():
    options = quick(heads=("logreg", "svm"))
    one, two = (fit_features(features(), options) for _ in range(2))
    assert one.out_of_fold == two.out_of_fold
    first, second = one.to_dict(), two.to_dict()
    del first["seconds"], second["seconds"]
    assert first == second
    other = fit_features(features(), dataclasses.replace(options, random_state=1))
    assert other.out_of_fold != one.out_of_fold


def test_fit_loads_no_torch():
    code = "import featx.fit, sys; sys.exit(sorted({'torch', 'torchvision'} & set(sys.modules)) or None)"
    subprocess.run([sys.executable, "-c", code], check=True)
