"""The views of a sample are one sample: none is ever on the other side, and copies of an image change nothing."""

import dataclasses
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from feature_files import feature_set, spec_of, write_file
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits

from featx.errors import BundleError, InputError, LabelsError, SpecMismatchError, UnknownNameError, UsageError
from featx.fit import FitOptions, fit, fit_features, save
from featx.learn import linear
from featx.learn.averaged import AveragedViews
from featx.learn.bundle import load_bundle
from featx.learn.calibrated import SigmoidCalibrated
from featx.learn.dataset import load_features
from featx.learn.heads import HEADS, STRENGTHS, Head, make_head
from featx.learn.own import search_by_fitting
from featx.learn.views import ViewUse, classify, fitting_rows, scoring_rows, sigmoid_weights
from featx.predict import predict

D = 12
VIEWS = ("plain", "hflip", "crop=0.1,0.1,0.8")
SPEC = spec_of(D, views=VIEWS)
QUICK = FitOptions(cv=3, inner_cv=2, C_grid=(1e-3, 10, 3), scalings=("standardise",), n_jobs=1)


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):  # what is tiny is slower with more
        yield


def quick(**changes):
    return replace(QUICK, **changes)


def samples(n=48, n_views=3, n_classes=3, *, noise=2.0, spread=0.7, seed=0, **columns):
    """Classes in turn with some overlap, `n_views` rows of each sample `spread` apart; X by sample."""
    rng = np.random.default_rng(seed)
    y = np.array([f"class {i % n_classes}" for i in range(n)])
    plain = rng.normal(size=(n_classes, D))[np.arange(n) % n_classes] + noise * rng.normal(size=(n, D))
    shifts = spread * rng.normal(size=(n, n_views, D))
    shifts[:, 0] = 0
    return feature_set(plain[:, None] + shifts, y, **({"sha256": [f"{i + 1:064x}" for i in range(n)]} | columns))


def plain(data):
    return replace(data, X=data.X[:, 0])


def flat(data):
    """The same as rows with their views, as a file gives them."""
    n_views = data.X.shape[1]
    rows = np.repeat(np.arange(len(data)), n_views)
    return replace(data.take(rows), X=data.X.reshape(-1, D), views=np.tile(np.arange(n_views), len(data)))


def write(path, data, *, spec=SPEC, failed=()):
    return write_file(path, replace(data, spec=spec), failed=failed, reason="truncated: ends")


# Nothing leaks


class Witness(ClassifierMixin, BaseEstimator):
    """Knows by their first feature which samples it was fitted on, and fails when it is asked about one of them."""

    def __init__(self, views=1, C=1.0):
        self.views = views
        self.C = C

    def fit(self, X, y):
        ids, counts = np.unique(X[:, 0], return_counts=True)
        assert (counts % self.views == 0).all(), "some views of a sample are missing"
        self.fitted_ = set(ids.tolist())
        self.classes_ = np.unique(y)
        self.n_features_in_ = X.shape[1]
        return self

    def decision_function(self, X):
        assert self.fitted_.isdisjoint(X[:, 0].tolist()), "a sample is in training and test at once"
        values = X[:, 1 : 1 + len(self.classes_)]
        return values[:, 0] if len(self.classes_) == 2 else values

    def predict(self, X):
        values = self.decision_function(X)
        return self.classes_[(values > 0).astype(int) if values.ndim == 1 else values.argmax(axis=1)]


@settings(max_examples=25, deadline=None)
@given(
    n_views=st.integers(2, 5),
    seed=st.integers(0, 10**6),
    scheme=st.sampled_from(["none", "groups", "identical", "folds", "test", "val", "val-test"]),
    n_classes=st.integers(2, 3),
    cv=st.integers(2, 4),
    inner_cv=st.integers(2, 3),
    use=st.sampled_from([("train", "plain"), ("train", "average"), ("none", "average"), ("none", "plain")]),
    refit=st.sampled_from(["default", "all"]),
)
def test_the_views_of_a_sample_never_straddle_a_fold_at_any_level(
    n_views, seed, scheme, n_classes, cv, inner_cv, use, refit
):
    rng = np.random.default_rng(seed)
    n = 60
    columns = {
        "groups": {"groups": [f"p{g}" for g in rng.integers(0, 30, n)]},
        "identical": {"sha256": [f"{i:064x}" for i in rng.integers(0, 40, n)]},
        "folds": {"folds": [f"site {f}" for f in rng.integers(0, cv, n)]},
        "test": {"splits": rng.permutation(["train"] * 40 + ["test"] * 20)},
        "val": {"splits": rng.permutation(["train"] * 40 + ["val"] * 20)},
        "val-test": {"splits": rng.permutation(["train"] * 30 + ["val"] * 15 + ["test"] * 15)},
    }.get(scheme, {})
    data = samples(n, n_views, n_classes, seed=seed, **columns)
    # What may never be on both sides: a sample, and where there are groups a whole one.
    unit = {"groups": data.groups, "identical": data.sha256}.get(scheme, data.keys)
    data.X[:, :, 0] = np.unique(unit, return_inverse=True)[1][:, None]

    def make(C, class_weight, random_state):
        return Witness(n_views if use[0] == "train" else 1, C)

    options = quick(
        heads=("svm",), scalings=("raw",), C_grid=(1, 1, 1), cv=cv, inner_cv=inner_cv, refit=refit,
        views=use[0], score_views=use[1], leak_gap=False,  # which tears groups apart on purpose
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            HEADS, "svm", Head("svm", "", STRENGTHS, make, partial(search_by_fitting, make=make), False, False)
        )
        try:
            result = fit_features(flat(data), options)
        except LabelsError:  # so few patients, or such folds, that some part would lack a class
            return
    reported = {"test": 20, "val": 20, "val-test": 15}.get(scheme, n)
    assert result.to_dict()["n_reported"] == reported
    assert sum(one["support"] for one in result.to_dict()["per_class"]) == reported


def test_the_witness_would_see_a_leak():
    X = np.repeat(np.arange(6.0), 2)[:, None] * np.ones(4)
    witness = Witness(2).fit(X, ["a", "b"] * 6)
    with pytest.raises(AssertionError, match="training and test at once"):
        witness.predict(X[:1])
    with pytest.raises(AssertionError, match="some views of a sample are missing"):
        Witness(2).fit(X[:-1], ["a", "b"] * 5 + ["a"])


@settings(max_examples=25, deadline=None)
@given(n_views=st.integers(2, 5), n=st.integers(8, 30), n_splits=st.integers(2, 4), seed=st.integers(0, 10**6))
def test_rows_with_views_are_split_by_scikit_learn_with_all_views_of_a_sample_on_one_side(n_views, n, n_splits, seed):
    rng = np.random.default_rng(seed)
    groups = [f"p{g}" if g < 6 else "" for g in rng.integers(0, 9, n)]
    X, y, groups, keys = flat(samples(n, n_views, groups=groups))
    assert len(X) == len(y) == n * n_views
    if len(set(groups)) < n_splits:
        return
    for train, test in GroupKFold(n_splits).split(X, y, groups):
        assert set(keys[train]).isdisjoint(keys[test])


# What V rows of a sample count


def exactly(head, **params):
    """The head with a solver that goes on for longer."""

    def make(*of):
        return head.make(*of).set_params(**params)

    return replace(head, make=make, search=partial(search_by_fitting, make=make))


@pytest.mark.parametrize(
    ("columns", "score"),
    [({}, "average"), ({"splits": [*["train"] * 4, *["val"] * 2, *["test"] * 2] * 6}, "plain")],
    ids=["cv", "val-test"],
)
@pytest.mark.parametrize("head", HEADS)
def test_copies_of_the_plain_image_change_nothing(head, columns, score, monkeypatch):
    monkeypatch.setattr(linear, "SEARCH_TOL", 1e-9)
    monkeypatch.setitem(HEADS, "svm-rbf", exactly(HEADS["svm-rbf"], tol=1e-7))
    # Of three classes SVC gives ties of votes to the first, their mean over views to the larger decision value.
    data = samples(spread=0.0, n_classes=2 if head == "svm-rbf" else 3, **columns)
    grid = (1, 10, 2) if head == "svm-rbf" else (1e-3, 1e-1, 3)
    options = quick(heads=(head,), scalings=("raw", "standardise", "l2"), C_grid=grid)
    without = fit_features(plain(data), options)
    copies = fit_features(flat(data), replace(options, views="train", score_views=score))
    assert [row.predicted for row in copies.out_of_fold] == [row.predicted for row in without.out_of_fold]
    for one, other in zip(copies.out_of_fold, without.out_of_fold, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=2e-4)
    for (_, one), (_, other) in zip(
        [*copies.whole.folds, ("", copies.whole.chosen)],
        [*without.whole.folds, ("", without.whole.chosen)],
        strict=True,
    ):
        assert (one.head, one.scaling, one.value, one.edge) == (other.head, other.scaling, other.value, other.edge)
        assert one.score == pytest.approx(other.score, abs=1e-9)
    rows = data.X[:, 0].astype(float)
    np.testing.assert_allclose(copies.estimator.predict_proba(rows), without.estimator.predict_proba(rows), atol=2e-4)
    one, other = copies.to_dict(), without.to_dict()
    for name in ("n_samples", "n_fitted", "n_reported", "confusion", "groups", "left_out", "classes"):
        assert one[name] == other[name]
    for name, interval in without.whole.evaluation.scores.items():
        assert copies.whole.evaluation.scores[name].method == interval.method
        assert copies.whole.evaluation.scores[name].low == pytest.approx(interval.low, abs=2e-3)


def test_samples_groups_and_intervals_are_counted_without_views():
    splits = ["train"] * 24 + ["test"] * 24
    data = samples(splits=splits, groups=[f"{splits[i]} {i // 3 % 4} {i % 3}" for i in range(48)])
    result = fit_features(flat(data), quick(score_views="average", by_group=True))
    facts = result.to_dict()
    assert (facts["n_samples"], facts["n_fitted"], facts["n_reported"]) == (48, 24, 24)
    assert [row["support"] for row in facts["per_class"]] == [8, 8, 8]
    assert facts["by_group"]["n_groups"] == len(set(data.groups[24:]))
    assert f"({len(set(data.groups[24:]))} groups)" in facts["scores"]["accuracy"]["method"]
    assert [row.key for row in result.out_of_fold if row.fold == "test"] == data.keys[24:].tolist()
    assert len(result.fitted_on) == 24


def test_a_sigmoid_is_fitted_on_what_is_scored_and_counts_samples():
    assert sigmoid_weights(2, 1, ViewUse()) is None
    assert sigmoid_weights(2, 3, ViewUse("all", "plain")).tolist() == [1, 0, 0, 1, 0, 0]
    assert sigmoid_weights(2, 2, ViewUse("all", "average")).tolist() == [0.5] * 4
    data = samples(n_classes=2)
    X, y, _ = fitting_rows(data.X.astype(float), data.y, np.arange(48), ViewUse("all"))
    folds = np.repeat(np.arange(48) // 2 % 3, 3)
    weights = sigmoid_weights(48, 3, ViewUse("all", "plain"))
    model = SigmoidCalibrated(make_head("svm", 0.01, "raw"), folds, weights).fit(X, y)
    values = np.empty(48)
    for fold in range(3):
        fitted = make_head("svm", 0.01, "raw").fit(X[folds != fold], y[folds != fold])
        values[folds[::3] == fold] = fitted.decision_function(data.X[folds[::3] == fold, 0].astype(float))
    # Platt's targets, from the number of samples of each class
    n = np.sum(data.y == "class 1")
    target = np.where(data.y == "class 1", (n + 1) / (n + 2), 1 / (48 - n + 2))
    sigmoid = model.calibrated_.calibrators[0]

    def loss(a, b):
        p = 1 / (1 + np.exp(a * values + b))
        return -np.sum(target * np.log(p) + (1 - target) * np.log1p(-p))

    best = loss(sigmoid.a_, sigmoid.b_)
    assert all(best <= loss(sigmoid.a_ + da, sigmoid.b_ + db) for da in (-0.05, 0, 0.05) for db in (-0.05, 0, 0.05))


# What a sample is called


@pytest.mark.slow
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("head", HEADS)
def test_out_of_fold_probabilities_are_means_over_views_of_a_head_that_never_saw_the_sample(head, n_classes):
    data = samples(n_classes=n_classes, splits=["train", "train", "train", "test"] * 12)
    result = fit_features(flat(data), quick(heads=(head,), score_views="average"))
    test = data.X[data.splits == "test"].astype(float)
    by_view = [result.estimator.predict_proba(test[:, view]) for view in range(3)]
    rows = [row for row in result.out_of_fold if row.fold == "test"]
    np.testing.assert_allclose([row.probabilities for row in rows], np.mean(by_view, axis=0), atol=1e-12)
    values = (
        by_view
        if HEADS[head].has_probabilities
        else [result.estimator.decision_function(test[:, view]) for view in range(3)]
    )
    mean = np.mean(values, axis=0)
    places = (mean > 0).astype(int) if mean.ndim == 1 else mean.argmax(axis=1)
    assert [row.predicted for row in rows] == [result.classes[place] for place in places]
    assert result.views == ViewUse("all", "average")


def test_scored_by_plain_images_the_other_views_of_the_test_part_do_not_matter():
    data = samples(splits=["train", "train", "train", "test"] * 12)
    other = data.X.copy()
    other[data.splits == "test", 1:] = 100
    results = [fit_features(flat(replace(data, X=X)), quick(views="train")).to_dict() for X in (data.X, other)]
    for facts in results:
        del facts["seconds"]
    assert results[0] == results[1]
    averaged = fit_features(flat(replace(data, X=other)), quick(score_views="average")).to_dict()
    assert averaged["scores"] != results[0]["scores"]


def test_fitted_on_plain_images_the_other_views_of_the_training_part_do_not_matter():
    data = samples(splits=["train", "train", "train", "test"] * 12)
    other = data.X.copy()
    other[data.splits == "train", 1:] = 100
    options = quick(views="none", score_views="plain", C_grid=(0.1, 0.1, 1))
    results = [fit_features(flat(replace(data, X=X)), options).out_of_fold for X in (data.X, other)]
    assert results[0] == results[1] == fit_features(plain(data), options).out_of_fold
    with_views = fit_features(flat(replace(data, X=other)), replace(options, views="train")).out_of_fold
    assert with_views != results[0]
    # averaged over views, heads fitted on plain images are still those
    averaged = fit_features(flat(data), replace(options, score_views="average"))
    np.testing.assert_array_equal(
        averaged.estimator.predict_proba(data.X[:, 0].astype(float)),
        fit_features(flat(data), options).estimator.predict_proba(data.X[:, 0].astype(float)),
    )


def test_rows_are_laid_out_sample_by_sample():
    X, y = np.arange(24.0).reshape(4, 3, 2), np.array(list("abab"))
    rows, labels, n_views = fitting_rows(X, y, np.array([2, 0]), ViewUse("all"))
    assert (rows.tolist(), labels.tolist(), n_views) == ([*X[2].tolist(), *X[0].tolist()], list("aaaaaa"), 3)
    rows, labels, n_views = fitting_rows(X, y, np.array([1]), ViewUse())
    assert (rows.tolist(), labels.tolist(), n_views) == ([X[1, 0].tolist()], ["b"], 1)
    assert scoring_rows(X, np.array([1]), ViewUse("all", "average"))[0].tolist() == X[1].tolist()
    assert scoring_rows(X, np.array([1]), ViewUse("all", "plain"))[0].tolist() == [X[1, 0].tolist()]
    assert fitting_rows(X[:, 0], y, np.array([3]), ViewUse("all", "average"))[2] == 1


# Files, options, bundles


def test_a_file_gives_plain_rows_or_all_rows_with_their_views(tmp_path):
    data = samples(6, groups=["p"] * 3 + [""] * 3)
    path = write(tmp_path / "f.h5", data, failed=(1,))
    good = [0, 2, 3, 4, 5]
    rows = load_features(path, allow_missing=True)
    np.testing.assert_array_equal(rows.X, data.X[good, 0])
    assert (rows.views, rows.n_missing, rows.spec) == (None, 1, SPEC)
    every = load_features(path, allow_missing=True, views=True)
    np.testing.assert_array_equal(every.X, data.X[good].reshape(-1, D))
    assert every.views.tolist() == [0, 1, 2] * 5
    assert every.keys.tolist() == np.repeat(data.keys[good], 3).tolist()
    assert every.sha256.tolist() == np.repeat(data.sha256[good], 3).tolist()
    by_sample = every.by_sample()
    np.testing.assert_array_equal(by_sample.X, data.X[good])
    assert by_sample.views is None
    for name in ("y", "groups", "keys", "splits", "folds", "sha256"):
        np.testing.assert_array_equal(getattr(by_sample, name), getattr(rows, name))


def test_a_file_without_views_is_the_same_either_way(tmp_path):
    data = samples(n_views=1)
    path = write(tmp_path / "f.h5", data, spec=replace(SPEC, views=("plain",)))
    rows, every = load_features(path), load_features(path, views=True)
    assert every.views.tolist() == [0] * 48
    assert every.by_sample().X.shape == rows.X.shape == (48, D)
    one, other = (json.loads(json.dumps(fit_features(features, quick()).to_dict())) for features in (rows, every))
    del one["seconds"], other["seconds"]
    assert one == other
    assert one["views"] == {"train": "plain", "score": "plain"}


def test_rows_that_are_not_whole_samples_are_refused():
    data = flat(samples(6))
    for rows in (np.arange(17), np.r_[1, 0, 2:18], np.r_[0:5, 8, 6, 7, 5, 9:18]):
        with pytest.raises(InputError, match="must be together and in order"):
            fit_features(data.take(rows), quick())
    data.X[7, 3] = np.nan
    with pytest.raises(InputError, match=r"1 of 18 rows have NaN .* '002.png'"):
        fit_features(data, quick())


@pytest.mark.parametrize(
    ("options", "use"),
    [
        ({}, ("all", "plain")),
        ({"views": "train"}, ("all", "plain")),
        ({"views": "none"}, ("plain", "plain")),
        ({"score_views": "average"}, ("all", "average")),
        ({"views": "none", "score_views": "average"}, ("plain", "average")),
    ],
)
def test_a_bundle_records_how_views_are_used_and_predict_does_the_same(tmp_path, options, use):
    data = samples()
    path = write(tmp_path / "f.h5", data)
    result = fit(path, quick(**options))
    save(result, tmp_path / "f.featx")
    bundle = load_bundle(tmp_path / "f.featx")
    expected = {"train": use[0], "score": use[1]}
    assert bundle.facts["views"] == result.to_dict()["views"] == expected
    assert bundle.views == ViewUse(*use)
    assert bundle.spec == SPEC
    assert bundle.needed_spec.views == (VIEWS if use[1] == "average" else ("plain",))
    predicted, probabilities = classify(
        result.estimator, *scoring_rows(data.X.astype(float), np.arange(48), bundle.views)
    )
    # the file with views, and for plain images one without
    files = [path]
    longer = samples(n_views=5)
    longer.X[:, :3] = data.X
    more = replace(SPEC, views=(*VIEWS, "turn=90", "turn=180"))
    files.append(write(tmp_path / "longer.h5", longer, spec=more))
    if use[1] == "plain":
        files.append(write(tmp_path / "plain.h5", samples_of(data, 1), spec=replace(SPEC, views=("plain",))))
    for file in files:
        said = predict(bundle, file)
        assert said.keys == data.keys.tolist()
        assert said.predicted == predicted.tolist()
        np.testing.assert_allclose(said.probabilities, probabilities, atol=1e-12)
        assert said.evaluation.n_samples == 48
        assert all(said.seen)


def samples_of(data, n_views):
    return replace(data, X=data.X[:, :n_views])


def test_predict_keeps_failed_samples_of_a_file_with_views_in_their_places(tmp_path):
    data = samples()
    save(fit(write(tmp_path / "f.h5", data), quick(score_views="average")), tmp_path / "f.featx")
    whole = predict(tmp_path / "f.featx", tmp_path / "f.h5")
    some = predict(tmp_path / "f.featx", write(tmp_path / "g.h5", data, failed=(0, 5)))
    good = [i for i in range(48) if i not in (0, 5)]
    assert list(some.failures) == ["000.png", "005.png"]
    np.testing.assert_allclose(some.probabilities[good], whole.probabilities[good], atol=1e-12)


def test_features_of_other_views_are_refused_where_views_count(tmp_path):
    data = samples()
    save(fit(write(tmp_path / "f.h5", data), quick(score_views="average")), tmp_path / "f.featx")
    for views in (("plain", "hflip", "turn=90"), ("plain", "hflip")):
        other = write(tmp_path / f"{len(views)}.h5", samples_of(data, len(views)), spec=replace(SPEC, views=views))
        with pytest.raises(SpecMismatchError) as caught:
            predict(tmp_path / "f.featx", other)
        assert set(caught.value.differences) == {"views"}


def test_the_description_says_how_views_are_used():
    text = fit_features(flat(samples()), quick()).description
    assert "Heads are fitted on all views of each sample; a sample is called by its plain image." in text
    assert "views" not in fit_features(plain(samples()), quick()).description
    text = fit_features(flat(samples()), quick(views="none", score_views="average")).description
    assert "fitted on the plain image of each sample; a sample is called by the mean over its views." in text


@pytest.mark.parametrize("options", [{"views": "train"}, {"score_views": "average"}])
def test_views_that_a_file_does_not_have_are_refused(options):
    with pytest.raises(UsageError, match="the file has one row for each image; `featx extract --views N` makes more"):
        fit_features(plain(samples()), quick(**options))
    assert fit_features(plain(samples()), quick(views="none", score_views="plain")).views == ViewUse()


def test_values_that_the_options_do_not_take_are_refused():
    with pytest.raises(UnknownNameError, match="unknown value of --views 'trian'; did you mean train"):
        quick(views="trian")
    with pytest.raises(UnknownNameError, match="unknown value of --score-views 'mean'"):
        quick(score_views="mean")


@pytest.mark.parametrize(
    "views",
    [{"score": "median"}, {"train": 3}, {"rows": "all"}, "average", None, {"train": "all", "score": ["average"]}],
)
def test_a_bundle_whose_use_of_views_makes_no_sense_is_refused(tmp_path, views):
    result = fit(write(tmp_path / "f.h5", samples()), quick())
    facts = {**result.facts(), "views": views}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(result), "facts", lambda self: facts)
        save(result, tmp_path / "f.featx")
    with pytest.raises(BundleError, match="views"):
        load_bundle(tmp_path / "f.featx")


def test_a_bundle_that_averages_needs_a_spec_with_views(tmp_path):
    result = fit_features(plain(samples()), quick())
    result = dataclasses.replace(result, spec=replace(SPEC, views=("plain",)), views=ViewUse("plain", "average"))
    save(result, tmp_path / "f.featx")
    with pytest.raises(BundleError, match="cannot be used with the spec's 1"):
        load_bundle(tmp_path / "f.featx")


def test_a_bundle_of_before_views_is_read_as_one_of_plain_images(tmp_path):
    result = fit_features(plain(samples()), quick(heads=("svm",)))
    result = dataclasses.replace(result, spec=replace(SPEC, views=("plain",)))
    facts = result.facts()
    del facts["views"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(result), "facts", lambda self: facts)
        save(result, tmp_path / "f.featx")
    bundle = load_bundle(tmp_path / "f.featx")
    assert bundle.views == ViewUse()
    del bundle.pipeline.weights  # as head.skops had it then
    assert "SigmoidCalibrated" in repr(bundle.pipeline)
    rows = samples().X[:, 0]
    np.testing.assert_array_equal(bundle.classify(rows)[1], bundle.predict_proba(rows.astype(float)))


def test_samples_side_by_side_are_averaged_by_a_classifier_that_cannot_be_fitted():
    data = samples()
    result = fit_features(flat(data), quick(score_views="average"))
    model = AveragedViews(result.estimator, 3)
    side_by_side = data.X.reshape(48, -1)
    predicted, probabilities = classify(result.estimator, data.X.reshape(-1, D).astype(float), 3)
    np.testing.assert_array_equal(model.predict(side_by_side), predicted)
    np.testing.assert_array_equal(model.predict_proba(side_by_side), probabilities)
    assert (model.n_features_in_, model.classes_.tolist()) == (3 * D, result.classes)
    assert model.score(side_by_side, data.y) == np.mean(predicted == data.y)
    with pytest.raises(UsageError, match="cannot be fitted again"):
        model.fit(side_by_side, data.y)
