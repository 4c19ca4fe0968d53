"""Calibration and sets inside a fit: nothing that is reported has a part in them, and the bundle keeps them."""

import dataclasses
import json

import numpy as np
import pytest
from feature_files import write_file
from sklearn.metrics import brier_score_loss, log_loss
from threadpoolctl import threadpool_limits
from trust_samples import features, options

from featx.errors import BundleError, UnknownNameError, UsageError
from featx.fit import fit, fit_features, save
from featx.learn import trust
from featx.learn.archive import write_archive
from featx.learn.bundle import load_bundle
from featx.learn.calibrated import Calibrated
from featx.learn.heads import make_head
from featx.learn.splits import make_folds
from featx.learn.trust_file import CONFORMAL, NOVELTY, fold_name


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):
        yield


def parts(*names, n=90):
    """Splits of n samples, three of each class at a time."""
    return [names[i // 9 % len(names)] for i in range(n)]


def probabilities_of(result):
    return {row.key: np.array(row.probabilities) for row in result.out_of_fold}


# Calibration


def test_out_of_fold_probabilities_are_those_of_a_map_fitted_inside_each_training_part():
    """A nested cross-validation by hand, with scikit-learn's pipelines and one C."""
    data = features(noise=2.0)
    asked = options(C_grid=(100.0, 100.0, 1), calibration="temperature")
    found = probabilities_of(fit_features(data, asked))
    X, y = data.X.astype(float), data.y
    for fold in make_folds(y, None, n_splits=3):
        head = make_head("logreg", 100.0, "raw")
        inner = np.full(len(fold.train), -1)
        for part in make_folds(y[fold.train], None, n_splits=2):
            inner[part.test] = part.number
        model = Calibrated(head, "temperature", inner).fit(X[fold.train], y[fold.train])
        for row, expected in zip(fold.test, model.predict_proba(X[fold.test]), strict=True):
            np.testing.assert_allclose(found[data.keys[row]], expected, atol=2e-4)


def test_nothing_of_a_tested_row_is_in_its_fold_map():
    """Other features and labels of the fixed test part change no probability of the training part, and no map."""
    data = features(splits=parts("train", "train", "test"))
    test = data.splits == "test"
    other = dataclasses.replace(data, X=data.X.copy(), y=data.y.copy())
    other.X[test] *= -3
    other.y[test] = np.roll(other.y[test], 1)
    one, two = (fit_features(some, options(calibration="temperature")) for some in (data, other))
    assert one.trust.calibration.parameters == two.trust.calibration.parameters
    assert one.trust.reliability.brier.mean != two.trust.reliability.brier.mean
    np.testing.assert_array_equal(one.trust.conformal.conformity, two.trust.conformal.conformity)
    refitted = fit_features(data, options(calibration="temperature", refit="all"))
    assert refitted.trust.calibration.parameters == one.trust.calibration.parameters
    assert isinstance(refitted.estimator, Calibrated)
    assert refitted.estimator.parameters_ == one.trust.calibration.parameters


@pytest.mark.parametrize("method", ["temperature", "sigmoid", "isotonic"])
def test_the_decision_stays_the_heads_own(method):
    data = features(noise=2.0)
    plain = fit_features(data, options(calibration="none"))
    found = fit_features(data, options(calibration=method))
    assert [row.predicted for row in found.out_of_fold] == [row.predicted for row in plain.out_of_fold]
    assert found.whole.evaluation.confusion == plain.whole.evaluation.confusion
    np.testing.assert_array_equal(found.estimator.predict(data.X), plain.estimator.predict(data.X))
    np.testing.assert_array_equal(
        found.estimator.estimator_.predict_proba(data.X), plain.estimator.predict_proba(data.X)
    )


def test_the_account_is_of_the_reported_rows_before_and_after():
    data = features(180, splits=parts("train", "test", "test", n=180))
    one_c = {"C_grid": (10, 10, 1), "inner_cv": 5}
    plain = fit_features(data, options(calibration="none", **one_c))
    found = fit_features(data, options(calibration="auto", **one_c))
    assert found.trust.method == "temperature"
    assert found.trust.calibration.temperature > 1
    test = data.splits == "test"
    for result, account in (
        (plain, plain.trust.reliability),
        (plain, found.trust.plain),
        (found, found.trust.reliability),
    ):
        p = result.estimator.predict_proba(data.X[test].astype(float))
        assert account.brier.mean == pytest.approx(brier_score_loss(data.y[test], p, labels=result.classes))
    assert plain.trust.plain is None
    assert found.trust.reliability.ece.mean < found.trust.plain.ece.mean
    loss = log_loss(data.y[test], found.estimator.predict_proba(data.X[test].astype(float)))
    assert found.whole.evaluation.scores["neg_log_loss"].mean == pytest.approx(-loss)


def test_an_svm_keeps_its_sigmoid_and_says_so_where_something_else_was_asked_for():
    data = features()
    plain = fit_features(data, options(heads=("svm",), calibration="none"))
    for method in ("auto", "sigmoid", "temperature", "isotonic"):
        found = fit_features(data, options(heads=("svm",), calibration=method))
        assert probabilities_of(found).keys() == probabilities_of(plain).keys()
        for key, p in probabilities_of(found).items():
            np.testing.assert_array_equal(p, probabilities_of(plain)[key])
        assert found.trust.method == "sigmoid of decision values"
        said = any("keeps the sigmoid" in note for note in found.notes)
        assert said == (method in ("temperature", "isotonic"))


def test_isotonic_regression_on_few_samples_is_done_when_asked_for_and_warned_of():
    found = fit_features(features(), options(calibration="isotonic"))
    assert found.trust.method == "isotonic"
    assert any("overfits" in note for note in found.notes)


@pytest.mark.slow
def test_the_result_does_not_depend_on_the_number_of_processes(monkeypatch):
    data = features(groups=[f"p{i // 3}" for i in range(90)])
    one = fit_features(data, options(calibration="temperature"))
    monkeypatch.setattr("featx.learn.out_of_fold.SMALL_WORK", 0)
    two = fit_features(data, options(calibration="temperature", n_jobs=2))
    assert one.trust.to_dict() == two.trust.to_dict()
    assert one.out_of_fold == two.out_of_fold


def test_a_choice_made_on_val_is_calibrated_on_val():
    data = features(splits=parts("train", "val", "test"))
    found = fit_features(data, options(calibration="temperature"))
    assert found.trust.calibration.n_samples == parts("train", "val", "test").count("val")
    assert found.trust.conformal is None
    assert "--conformal on" in found.trust.why_no_sets


def test_views_are_calibrated_as_they_are_called():
    """Copies of the plain image change nothing, whether samples are called by it or by the mean."""
    data = features(noise=2.0)
    copies = dataclasses.replace(data.take(np.repeat(np.arange(90), 3)), views=np.tile(np.arange(3), 90))
    one = fit_features(data, options(calibration="temperature"))
    for score_views in ("plain", "average"):
        many = fit_features(copies, options(calibration="temperature", score_views=score_views))
        assert many.trust.calibration.temperature == pytest.approx(one.trust.calibration.temperature, rel=1e-3)
        for key, p in probabilities_of(many).items():
            np.testing.assert_allclose(p, probabilities_of(one)[key], atol=1e-3)
        np.testing.assert_allclose(many.trust.conformal.conformity, one.trust.conformal.conformity, atol=1e-3)
        np.testing.assert_array_equal(many.trust.novelty.distances, one.trust.novelty.distances)


def test_options_that_do_not_exist_are_refused():
    with pytest.raises(UnknownNameError, match="temperature"):
        options(calibration="temp")
    with pytest.raises(UsageError, match="auto, on or off"):
        options(conformal="maybe")


# Prediction sets


def test_the_fold_heads_are_those_whose_predictions_are_out_of_fold():
    data = features(groups=[f"p{i // 3}" for i in range(90)])
    found = fit_features(data, options(repeats=2, calibration="temperature"))
    sets = found.trust.conformal
    assert (len(sets.heads), sets.n_groups, sets.unit, len(sets.true)) == (3, 30, "groups", 90)
    first = {row.key: row for row in found.out_of_fold if row.fold.startswith("1.")}
    for k, head in enumerate(sets.heads):
        in_fold = [key for key, row in first.items() if row.fold == f"1.{k + 1}"]
        rows = np.flatnonzero(np.isin(data.keys, in_fold))
        expected = np.array([first[key].probabilities for key in data.keys[rows]])
        np.testing.assert_array_equal(head.predict_proba(data.X[rows].astype(float)), expected)
        true = np.searchsorted(sets.classes, data.y[rows])
        np.testing.assert_array_equal(
            np.sort(sets.conformity[sets.folds == k]), np.sort(expected[np.arange(len(rows)), true])
        )


def test_where_the_choice_was_made_on_val_folds_are_made_when_asked_for():
    data = features(splits=parts("train", "val", "test"))
    plain, found = (fit_features(data, options(conformal=value)) for value in ("auto", "on"))
    assert len(found.trust.conformal.heads) == 3
    assert len(found.trust.conformal.true) == np.sum(data.splits != "test")  # train and val, never test
    assert found.whole.to_dict() == plain.whole.to_dict()
    assert found.out_of_fold == plain.out_of_fold
    assert found.n_fits > plain.n_fits


def test_large_fold_heads_are_kept_only_when_asked_for(monkeypatch):
    monkeypatch.setattr(trust, "CHEAP", 100)
    found = fit_features(features(), options())
    assert found.trust.conformal is None
    assert "--conformal on" in found.trust.why_no_sets
    assert fit_features(features(), options(conformal="on")).trust.conformal is not None
    off = fit_features(features(), options(conformal="off", novelty=False))
    assert (off.trust.conformal, off.trust.novelty) == (None, None)
    assert off.to_dict()["conformal"] == {"kept": False, "why_not": "it was fitted with --conformal off"}


# The bundle


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trust")
    with threadpool_limits(1):
        write_file(folder / "f.h5", features(groups=[f"p{i // 3}" for i in range(90)]))
        result = fit(folder / "f.h5", options(heads=("logreg", "svm"), calibration="temperature"))
    save(result, folder / "f.featx")
    return folder / "f.featx", result


def test_sets_and_distances_come_back_bit_for_bit(saved):
    path, result = saved
    bundle, new = load_bundle(path), features(20, seed=5).X
    for per_class in (False, True):
        np.testing.assert_array_equal(
            bundle.conformal.p_values(new, per_class=per_class),
            result.trust.conformal.p_values(new, per_class=per_class),
        )
    np.testing.assert_array_equal(bundle.novelty.distance(new), result.trust.novelty.distance(new))
    np.testing.assert_array_equal(
        bundle.novelty.p_values(np.array([0.5, 1.0])), result.trust.novelty.p_values(np.array([0.5, 1.0]))
    )
    assert (bundle.conformal.unit, bundle.novelty.unit) == ("groups", "groups")
    assert bundle.facts["calibration"] == json.loads(json.dumps(result.trust.to_dict()["calibration"]))


def test_the_same_fit_gives_the_same_bytes(saved, tmp_path):
    path, result = saved
    save(result, tmp_path / "again.featx")
    assert (tmp_path / "again.featx").read_bytes() == path.read_bytes()


def members(path):
    return dict(load_bundle(path).members)


def rewritten(path, tmp_path, change):
    parts = members(path)
    change(parts)
    with (tmp_path / "changed.featx").open("wb") as file:
        write_archive(file, parts)
    return load_bundle(tmp_path / "changed.featx")


def test_a_bundle_from_before_there_were_sets_says_so_and_still_predicts(saved, tmp_path):
    path, _ = saved

    def age(parts):
        facts = json.loads(parts["bundle.json"])
        for name in ("calibration", "conformal", "novelty"):
            del facts[name]
        facts["featx_format"] = 1
        parts["bundle.json"] = json.dumps(facts).encode()
        for name in [*(fold_name(k) for k in range(3)), CONFORMAL, NOVELTY]:
            del parts[name]

    bundle = rewritten(path, tmp_path, age)
    assert len(bundle.predict(features(3).X)) == 3
    assert not bundle.has_novelty
    with pytest.raises(BundleError, match="fitted by a featx that kept none; run `featx fit` again"):
        _ = bundle.conformal
    with pytest.raises(BundleError, match="fitted by a featx that kept nothing for it"):
        _ = bundle.novelty


def test_a_bundle_that_was_told_not_to_keep_them_says_why(tmp_path):
    write_file(tmp_path / "f.h5", features())
    save(fit(tmp_path / "f.h5", options(conformal="off", novelty=False)), tmp_path / "f.featx")
    bundle = load_bundle(tmp_path / "f.featx")
    with pytest.raises(BundleError, match="--conformal off"):
        _ = bundle.conformal
    with pytest.raises(BundleError, match="--no-novelty"):
        _ = bundle.novelty


def cut(name):
    return lambda parts: parts.update({name: parts[name][:-9]})


def swap_arrays(name, **changes):
    def change(parts):
        from safetensors.numpy import load, save

        arrays = load(parts[name])
        parts[name] = save({key: changes[key](value) if key in changes else value for key, value in arrays.items()})

    return change


@pytest.mark.parametrize(
    ("change", "part"),
    [
        pytest.param(cut(CONFORMAL), "conformal", id="cut"),
        pytest.param(swap_arrays(CONFORMAL, folds=lambda a: a + 1), "conformal", id="a fold too many"),
        pytest.param(swap_arrays(CONFORMAL, true=lambda a: a + 9), "conformal", id="a class too many"),
        pytest.param(swap_arrays(CONFORMAL, groups=lambda a: a[1:]), "conformal", id="lengths"),
        pytest.param(swap_arrays(CONFORMAL, conformity=lambda a: a * np.nan), "conformal", id="nan"),
        pytest.param(swap_arrays(CONFORMAL, folds=lambda a: a - 1), "conformal", id="a negative fold"),
        pytest.param(lambda parts: parts.pop(fold_name(1)), "conformal", id="a head too few"),
        pytest.param(cut(fold_name(0)), "conformal", id="a cut head"),
        pytest.param(cut(NOVELTY), "novelty", id="cut rows"),
        pytest.param(swap_arrays(NOVELTY, rows=lambda a: a[:, 1:].copy()), "novelty", id="width"),
        pytest.param(swap_arrays(NOVELTY, weights=lambda a: a[1:].copy()), "novelty", id="weights"),
        pytest.param(swap_arrays(NOVELTY, distances=lambda a: a * np.inf), "novelty", id="infinite"),
    ],
)  # fmt: skip
def test_damaged_parts_are_bundle_errors_when_they_are_asked_for(saved, tmp_path, change, part):
    bundle = rewritten(saved[0], tmp_path, change)
    with pytest.raises(BundleError, match=r"damaged|zip bomb"):
        getattr(bundle, part)


def test_the_map_survives_the_bundle(saved):
    path, result = saved
    bundle, X = load_bundle(path), features(20, seed=5).X.astype(float)
    assert bundle.pipeline.method_ == bundle.facts["calibration"]["method"] == result.trust.method
    np.testing.assert_array_equal(bundle.predict_proba(X), result.estimator.predict_proba(X))
    np.testing.assert_array_equal(bundle.predict(X), result.estimator.predict(X))


@pytest.mark.slow
@pytest.mark.parametrize("per_group", [1, 3])
def test_a_whole_fit_covers_within_two_points_and_keeps_its_false_alarms(per_group):
    """Twenty fits with their choice and calibration, each judged on two hundred new groups."""
    covered, alarms, floors = [], [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        centres = rng.normal(size=(3, 8))

        def draw(n_groups, rng=rng, centres=centres):
            groups = np.repeat(np.arange(n_groups), per_group)
            y = groups % 3
            X = centres[y] + 3 + 0.8 * rng.normal(size=(n_groups, 8))[groups] + 0.6 * rng.normal(size=(len(y), 8))
            names = [f"p{g}" for g in groups] if per_group > 1 else [""] * len(y)
            data = features(len(y), groups=names)
            return dataclasses.replace(data, X=X.astype(np.float32), y=np.array([f"class {k}" for k in y]))

        train, new = draw(240), draw(200)
        result = fit_features(train, options(cv=5, inner_cv=3, C_grid=(1e-2, 1, 2)))
        p = result.trust.conformal.p_values(new.X)
        covered.append(np.mean(p[np.arange(len(new)), np.searchsorted(result.classes, new.y)] > 0.1 + 1e-9))
        alarms.append(np.mean(result.trust.novelty.is_unlike(result.trust.novelty.distance(new.X))))
        floors.append(result.trust.conformal.floor(0.9))
    assert 0.88 <= np.mean(covered) <= 0.92
    assert np.mean(covered) >= floors[0] == pytest.approx(1 - 0.2 - 1.8 * 4 / 245)
    assert 0.03 <= np.mean(alarms) <= 0.055
