"""A threshold is chosen inside every training part, and goes together with everything else that `featx fit` does."""

import dataclasses
import json

import numpy as np
import pytest
from feature_files import write_file
from sklearn.base import clone
from sklearn.metrics import balanced_accuracy_score
from threadpoolctl import threadpool_limits
from trust_samples import features, options

from featx.errors import UsageError
from featx.fit import fit, fit_features, save
from featx.learn.bundle import load_bundle
from featx.learn.heads import make_head
from featx.learn.judgement import Caution
from featx.learn.splits import make_folds
from featx.learn.threshold import Rule, choose_threshold
from featx.learn.thresholded import Thresholded
from featx.predict import predict

RARE, USUAL = "class 0", "class 1"
LEAN = {"novelty": False, "conformal": "off", "leak_gap": False}


@pytest.fixture(autouse=True)
def _quick(no_waiting_for_the_disk):
    with threadpool_limits(1):
        yield


def rare(n=120, **changes):
    """Every fourth sample is of the rare class."""
    data = features(n, 4, noise=3.0, **changes)
    return dataclasses.replace(data, y=np.where(data.y == RARE, RARE, USUAL))


def asked(threshold, **changes):
    return options(**(LEAN | {"threshold": threshold, "positive": RARE} | changes))


def by_key(result, what="probabilities"):
    return {row.key: getattr(row, what) for row in result.out_of_fold}


def test_each_fold_is_called_by_a_threshold_of_its_own_training_part():
    """A nested cross-validation by hand, with one C and no map."""
    data = rare()
    found = fit_features(data, asked("balanced_accuracy", C_grid=(1.0, 1.0, 1), calibration="none"))
    X, y, called = data.X.astype(float), data.y, by_key(found, "predicted")
    for (_, threshold), fold in zip(found.thresholds.folds, make_folds(y, None, n_splits=3), strict=True):
        inner = np.full(len(fold.train), -1)
        for part in make_folds(y[fold.train], None, n_splits=2):
            inner[part.test] = part.number
        model = Thresholded(make_head("logreg", 1.0, "raw"), "balanced_accuracy", RARE, inner)
        model.fit(X[fold.train], y[fold.train])
        assert threshold.value == pytest.approx(model.threshold_, abs=1e-6)
        assert [called[key] for key in data.keys[fold.test]] == model.predict(X[fold.test]).tolist()
    # The saved one can be fitted again by itself.
    again = clone(found.estimator).fit(X, y)
    assert again.threshold_ == pytest.approx(found.thresholds.chosen.value, abs=1e-6)


def test_probabilities_choices_and_leaks_are_those_without_a_threshold():
    data = rare(groups=[f"p{i // 2}" for i in range(120)])
    with_one, without = (
        fit_features(data, asked(rule, leak_gap=True, conformal="on")) for rule in ("sensitivity=0.8", "none")
    )
    assert by_key(with_one) == by_key(without)
    assert by_key(with_one, "predicted") != by_key(without, "predicted")
    assert with_one.whole.folds == without.whole.folds
    assert with_one.leaks.to_dict() == without.leaks.to_dict()
    np.testing.assert_array_equal(with_one.trust.conformal.conformity, without.trust.conformal.conformity)
    assert with_one.n_fits == without.n_fits  # the same out-of-fold probabilities as for the calibration
    assert without.thresholds is None
    assert without.to_dict()["threshold"] is None
    # By the account, the class of each fold's rows is that of the fold's threshold.
    of_fold = dict(with_one.thresholds.folds)
    for row in with_one.out_of_fold:
        assert (row.predicted == RARE) == (row.probabilities[0] >= of_fold[row.fold].value)
    called = [row.predicted for row in with_one.out_of_fold]
    true = [row.true for row in with_one.out_of_fold]
    sensitivity = np.mean([p == RARE for p, y in zip(called, true, strict=True) if y == RARE])
    assert with_one.whole.evaluation.binary.sensitivity.mean == pytest.approx(sensitivity)


def test_nothing_of_a_tested_row_is_in_its_threshold():
    """Other labels in a prescribed fold's test part leave that fold's threshold as it is."""
    data = rare(folds=[str(i // 40) for i in range(120)])
    tested = np.flatnonzero(data.folds == "1")
    other = data.y.copy()
    other[tested] = data.y[tested][::-1]
    one, two = (
        fit_features(dataclasses.replace(data, y=y), asked("f1", C_grid=(1.0, 1.0, 1))) for y in (data.y, other)
    )
    before, after = dict(one.thresholds.folds), dict(two.thresholds.folds)
    assert before["1"] == after["1"]
    assert before["0"] != after["0"]
    assert one.thresholds.chosen != two.thresholds.chosen


def test_labels_that_mean_nothing_score_as_chance():
    rng = np.random.default_rng(1)
    scores = []
    for seed in range(5):
        data = rare(80, seed=seed)
        data = dataclasses.replace(data, y=rng.permutation(data.y))
        found = fit_features(data, asked("balanced_accuracy", C_grid=(1.0, 1.0, 1), calibration="none"))
        scores.append(found.whole.evaluation.scores["balanced_accuracy"].mean)
        assert found.thresholds.chosen.sensitivity + found.thresholds.chosen.specificity > 1  # which looks better
    assert np.mean(scores) == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize("head", ["svm", "ridge", "prototype", "lda"])
def test_every_head_is_called_by_the_probabilities_that_are_reported(head):
    data = rare()
    found = fit_features(data, asked("sensitivity=0.7", heads=(head,), calibration="none"))
    of_fold = dict(found.thresholds.folds)
    for row in found.out_of_fold:
        assert (row.predicted == RARE) == (row.probabilities[0] >= of_fold[row.fold].value)
    X, y = data.X.astype(float), data.y
    # The saved head's threshold, from heads on the inner folds through its own sigmoid.
    probabilities = np.empty(len(y))
    choice = found.whole.chosen
    for part in make_folds(y, None, n_splits=2):
        model = make_head(head, choice.value, choice.scaling).fit(X[part.train], y[part.train])
        own = found.estimator.estimator_
        rows = X[part.test]
        if head != "lda":
            sigmoid = own.calibrated_.calibrators[0]
            probabilities[part.test] = 1 - sigmoid.predict(model.decision_function(rows))
        else:
            probabilities[part.test] = model.predict_proba(rows)[:, 0]
    expected = choose_threshold(Rule.read("sensitivity=0.7"), probabilities, y == RARE, RARE)
    assert found.thresholds.chosen.value == pytest.approx(expected.value, abs=1e-6)
    assert found.thresholds.chosen.sensitivity == expected.sensitivity
    np.testing.assert_array_equal(
        found.estimator.predict(X) == RARE, found.estimator.predict_proba(X)[:, 0] >= found.thresholds.chosen.value
    )


def test_a_given_threshold_is_used_as_it_is():
    data = rare()
    found = fit_features(data, asked("0.3", calibration="none"))
    without = fit_features(data, asked("none", calibration="none"))
    assert found.thresholds.chosen.value == 0.3
    assert found.thresholds.chosen.sensitivity is None
    assert found.n_fits == without.n_fits
    for row in found.out_of_fold:
        assert (row.predicted == RARE) == (row.probabilities[0] >= 0.3)


def test_a_half_is_the_own_decision_of_heads_that_call_the_more_probable_class():
    data = rare()
    half, own = (fit_features(data, asked(rule, calibration="none")) for rule in ("0.5", "none"))
    assert by_key(half, "predicted") == by_key(own, "predicted")
    assert half.whole.to_dict() == own.whole.to_dict()


@pytest.mark.parametrize("names", [("train", "test"), ("train", "val"), ("train", "val", "test")])
def test_fixed_parts_are_called_by_the_final_threshold(names):
    splits = [names[i // 4 % len(names)] for i in range(120)]
    data = rare(splits=splits)
    found = fit_features(data, asked("sensitivity=0.8"))
    fixed = [row for row in found.out_of_fold if row.fold == names[-1]]
    assert len(fixed) == splits.count(names[-1])
    for row in fixed:
        assert (row.predicted == RARE) == (row.probabilities[0] >= found.thresholds.chosen.value)
    if len(names) == 3:  # chosen on val alone
        assert found.thresholds.chosen.n_positive + found.thresholds.chosen.n_negative == splits.count("val")
    everything = fit_features(data, asked("sensitivity=0.8", refit="all"))
    assert everything.estimator.threshold_ == found.estimator.threshold_


def test_groups_are_called_by_the_threshold_of_their_fold():
    data = features(96, 2, noise=4.0, groups=[f"p{i % 2}-{i // 8}" for i in range(96)])
    found = fit_features(data, asked("0.2", by_group=True))
    own = fit_features(data, asked("none", by_group=True))
    sensitivities = [one.by_group.evaluation.binary.sensitivity.mean for one in (found, own)]
    assert sensitivities[0] > sensitivities[1]
    mean = {}
    for row in found.out_of_fold:
        mean.setdefault((row.group, row.true), []).append(row.probabilities[0])
    called = {who: RARE if np.mean(p) >= 0.2 else USUAL for who, p in mean.items()}
    expected = balanced_accuracy_score([true for _, true in called], list(called.values()))
    confusion = np.array(found.by_group.evaluation.confusion)
    assert np.mean(np.diag(confusion) / confusion.sum(axis=1)) == pytest.approx(expected)


def test_over_several_views_the_mean_probability_decides():
    rng = np.random.default_rng(2)
    plain = rare()
    X = plain.X[:, None] + rng.normal(size=(120, 3, plain.X.shape[1])).astype(np.float32)
    rows = np.repeat(np.arange(120), 3)
    spec = dataclasses.replace(plain.spec, views=("plain", "flip", "crop"))
    data = dataclasses.replace(
        plain.take(rows), X=X.reshape(-1, X.shape[-1]), views=np.tile(np.arange(3), 120), spec=spec
    )
    for head in ("logreg", "svm"):
        found = fit_features(data, asked("sensitivity=0.8", score_views="average", heads=(head,)))
        of_fold = dict(found.thresholds.folds)
        for row in found.out_of_fold:
            assert (row.predicted == RARE) == (row.probabilities[0] >= of_fold[row.fold].value)
        assert found.thresholds.chosen.n_positive == 30  # samples, not rows


def test_files_and_heads_compete_each_with_a_threshold_of_its_own():
    good, bad = rare(), rare(seed=5)
    bad = dataclasses.replace(good, X=bad.X)
    found = fit_features({"good.h5": good, "bad.h5": bad}, asked("sensitivity=0.8", heads=("logreg", "lda")))
    assert set(found.files) == {"good.h5", "bad.h5"}
    alone = fit_features(good, asked("sensitivity=0.8", heads=("logreg", "lda")))
    assert found.files["good.h5"].to_dict() == alone.whole.to_dict()
    assert [name for name, _ in found.thresholds.folds] == ["1", "2", "3"]


def test_the_bundle_predicts_by_the_threshold(tmp_path):
    data = rare()
    path = write_file(tmp_path / "a.h5", data)
    found = fit(path, asked("sensitivity=0.9", conformal="on"))
    save(found, tmp_path / "a.featx")
    bundle = load_bundle(tmp_path / "a.featx")
    assert bundle.threshold.value == found.thresholds.chosen.value
    assert bundle.facts["threshold"]["asked"] == "sensitivity=0.9"
    assert bundle.facts["threshold"]["folds"][0]["fold"] == "1"
    new = write_file(tmp_path / "new.h5", rare(60, seed=3, start=1000))
    caution = Caution(coverage=0.5, abstain_below=0.6)
    told = predict(bundle, new)
    careful = predict(bundle, new, caution=caution)
    p = told.probabilities[:, 0]
    assert told.predicted == np.where(p >= bundle.threshold.value, RARE, USUAL).tolist()
    assert told.to_dict()["threshold"] == {"positive": RARE, "value": bundle.threshold.value}
    json.dumps(found.to_dict())
    # Abstaining goes by the probability of what is called; a set that would be empty holds what is called.
    confidence = np.where(p >= bundle.threshold.value, p, 1 - p)
    assert [name == "" for name in careful.predicted] == (confidence < 0.6).tolist()
    assert careful.judgement.inside.any(axis=1).all()
    without = fit(path, asked("none", conformal="on"))
    save(without, tmp_path / "b.featx")
    assert load_bundle(tmp_path / "b.featx").threshold is None
    np.testing.assert_array_equal(predict(tmp_path / "b.featx", new).probabilities, told.probabilities)


def test_more_than_two_classes_are_refused_before_any_work():
    with pytest.raises(UsageError, match=r"needs exactly two classes, .* there are 3"):
        fit_features(features(90, 3), options(threshold="f1"))


def test_a_sensitivity_that_too_few_samples_promise_is_said():
    found = fit_features(rare(48), asked("sensitivity=0.95"))
    assert any("No threshold can promise a sensitivity of 0.95: that takes 19 positive" in one for one in found.notes)
    assert any("3 of 3 folds" in note for note in found.notes)
