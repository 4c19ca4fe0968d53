"""Prediction sets, abstaining and images unlike the training set, as `featx predict` gives them."""

import csv
import io
import json

import numpy as np
import pytest
from feature_files import write_file
from threadpoolctl import threadpool_limits
from trust_samples import features, options

import featx
from featx import Caution, load_bundle, predict
from featx.errors import BundleError, UsageError
from featx.fit import save
from featx.learn.judgement import join_classes
from featx.learn.novelty import FALSE_ALARMS


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("caution")
    with threadpool_limits(1):
        write_file(folder / "train.h5", features(90, noise=1.5, shift=4.0))
        save(featx.fit(folder / "train.h5", options()), folder / "a.featx")
    return folder / "a.featx"


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    """A hundred and twenty new samples, two without features, three without a label."""
    data = features(120, noise=1.5, seed=1, start=1000, shift=4.0)
    data.y[:3] = ""
    return write_file(tmp_path_factory.mktemp("new") / "new.h5", data, failed=(10, 50))


def rows_of(predictions):
    text = io.StringIO()
    predictions.write_csv(text)
    return list(csv.DictReader(io.StringIO(text.getvalue())))


def test_without_caution_only_what_is_unlike_is_added(bundle, new):
    predictions = predict(bundle, new)
    header = list(rows_of(predictions)[0])
    assert header == ["key", "status", "predicted", "p_class 0", "p_class 1", "p_class 2", "unlike"]
    data = predictions.to_dict()
    assert (data["sets"], data["abstaining"]) == (None, None)
    assert data["unlike"]["false_alarms"] == FALSE_ALARMS
    assert set(data["predictions"][0]) == {
        "key", "status", "reason", "label", "predicted", "probabilities", "seen", "unlike", "distance",
    }  # fmt: skip


@pytest.mark.parametrize("per_class", [False, True])
def test_sets_are_what_the_bundles_p_values_say_and_their_coverage_is_counted(bundle, new, per_class):
    predictions = predict(bundle, new, caution=Caution(coverage=0.8, per_class=per_class))
    loaded, stored = load_bundle(bundle), featx.load_features(new, allow_missing=True)
    inside = loaded.conformal.p_values(stored.X, per_class=per_class) > 0.2 + 1e-9
    own = np.array([loaded.classes.index(name) for name in loaded.predict(stored.X.astype(float))])
    empty = ~inside.any(axis=1)
    inside[empty, own[empty]] = True
    rows = {row["key"]: row for row in rows_of(predictions)}
    for key, row in zip(stored.keys, inside, strict=True):
        assert rows[key]["set"] == "|".join(np.array(loaded.classes)[row])
    known = stored.y != ""
    hit = np.array([y in np.array(loaded.classes)[row] for y, row in zip(stored.y, inside, strict=True)])
    sets = predictions.judgement.sets
    assert sets.found.mean == pytest.approx(hit[known].mean())
    assert sets.found_of_class == pytest.approx({y: hit[stored.y == y].mean() for y in loaded.classes})
    assert sets.mean_size == pytest.approx(inside.sum(axis=1).mean())
    assert sets.singletons == pytest.approx(np.mean(inside.sum(axis=1) == 1))
    assert sets.floor == loaded.conformal.floor(0.8, per_class=per_class) < 0.8
    assert sets.found_by_group is None
    failed = [row for row in rows.values() if row["status"] == "failed"]
    assert [(row["set"], row["unlike"]) for row in failed] == [("", "")] * 2
    records = {record["key"]: record for record in predictions.iter_records()}
    assert records[stored.keys[5]]["set"] == [str(name) for name in np.array(loaded.classes)[inside[5]]]
    assert [records[row["key"]]["set"] for row in failed] == [None, None]


def test_groups_count_once(bundle, tmp_path):
    data = features(60, noise=1.5, seed=2, start=2000, shift=4.0, groups=[f"p{min(i, 20)}" for i in range(60)])
    path = write_file(tmp_path / "g.h5", data)
    predictions = predict(bundle, path, caution=Caution(coverage=0.8))
    hit = np.array([row["label"] in row["set"] for row in predictions.iter_records()])
    sets = predictions.judgement.sets
    assert sets.found_by_group == pytest.approx((hit[:20].sum() + hit[20:].mean()) / 21)
    assert sets.found.mean == pytest.approx(hit.mean())
    assert "21 groups" in sets.found.method


def test_a_coverage_beyond_the_training_set_gives_all_classes_and_says_why(bundle, new):
    predictions = predict(bundle, new, caution=Caution(coverage=0.99))
    good = [row for row in rows_of(predictions) if row["status"] == "ok"]
    assert {row["set"] for row in good} == {"class 0|class 1|class 2"}
    assert any("needs at least 99 samples to calibrate on, and there are 90" in note for note in predictions.notes)
    assert predictions.judgement.sets.floor == 1
    by_class = predict(bundle, new, caution=Caution(coverage=0.97, per_class=True))
    assert any("class 0 (30), class 1 (30), class 2 (30)" in note for note in by_class.notes)


def test_abstaining_leaves_the_class_open_and_counts_what_is_left(bundle, new):
    plain, careful = predict(bundle, new), predict(bundle, new, caution=Caution(abstain_below=0.7))
    confidence = np.nanmax(np.nan_to_num(plain.probabilities), axis=1)
    good = np.array(plain.status) == "ok"
    for row, before, sure, ok in zip(rows_of(careful), plain.predicted, confidence, good, strict=True):
        abstained = ok and sure < 0.7
        assert row["predicted"] == ("" if abstained else before)
        assert row["abstained"] == ({True: "yes", False: "no"}[bool(abstained)] if ok else "")
        if ok:
            assert float(row["p_class 0"]) >= 0
    account = careful.judgement.abstaining
    called = good & (confidence >= 0.7)
    assert (account.n_called, account.n_abstained) == (called.sum(), good.sum() - called.sum())
    known = called & (np.array(plain.labels) != "")
    right = np.array(plain.predicted) == np.array(plain.labels)
    assert account.accuracy.mean == pytest.approx(right[known].mean())
    assert account.curve[0].share == 1
    assert account.curve[0].accuracy.mean == pytest.approx(plain.evaluation.scores["accuracy"].mean)
    assert careful.evaluation == plain.evaluation  # of all decisions
    records = [record for record in careful.iter_records() if record["abstained"]]
    assert len(records) == account.n_abstained
    assert {record["predicted"] for record in records} == {None}


def test_images_from_elsewhere_are_flagged_and_the_user_hears_of_it(bundle, tmp_path):
    data = features(40, seed=3, start=3000, shift=-4.0)
    predictions = predict(bundle, write_file(tmp_path / "far.h5", data))
    assert predictions.judgement.strangers.unlike.all()
    assert {row["unlike"] for row in rows_of(predictions)} == {"yes"}
    assert any(note.startswith("40 of 40 new images are unlike the training set") for note in predictions.notes)
    json.dumps(predictions.to_dict(), allow_nan=False)


def test_a_smaller_rate_flags_fewer_and_too_small_a_rate_none(bundle, new):
    flags = [predict(bundle, new, caution=Caution(false_alarms=rate)).judgement for rate in (0.5, 0.2, 0.02)]
    counts = [one.strangers.n_unlike for one in flags]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[2]
    assert not flags[0].strangers.note
    impossible = predict(bundle, new, caution=Caution(false_alarms=0.001))
    assert impossible.judgement.strangers.n_unlike == 0
    assert any("needs at least 999 samples, and there are 90" in note for note in impossible.notes)


def test_the_training_set_itself_is_no_evidence(bundle):
    predictions = predict(bundle, bundle.with_name("train.h5"), caution=Caution(coverage=0.9, abstain_below=0.5))
    judgement = predictions.judgement
    assert all(predictions.seen)
    assert (judgement.sets.found, judgement.sets.mean_size, judgement.abstaining.accuracy) == (None, None, None)
    assert (judgement.strangers.n_images, judgement.strangers.n_unlike) == (0, 0)


def test_a_small_training_set_is_silent_about_strangers_unless_asked(tmp_path):
    write_file(tmp_path / "f.h5", features(18))
    save(featx.fit(tmp_path / "f.h5", options()), tmp_path / "f.featx")
    path = write_file(tmp_path / "new.h5", features(9, seed=1, start=100))
    assert "unlike" not in rows_of(predict(tmp_path / "f.featx", path))[0]
    asked = predict(tmp_path / "f.featx", path, caution=Caution(false_alarms=0.05))
    assert any("needs at least 19 samples, and there are 18" in note for note in asked.notes)


def test_a_bundle_without_what_is_asked_for_is_refused_before_anything_is_read(tmp_path, new):
    write_file(tmp_path / "f.h5", features(60))
    save(featx.fit(tmp_path / "f.h5", options(conformal="off", novelty=False)), tmp_path / "f.featx")
    assert predict(tmp_path / "f.featx", new).judgement.strangers is None
    for caution, words in ((Caution(coverage=0.9), "no fold heads"), (Caution(false_alarms=0.1), "--no-novelty")):
        with pytest.raises(BundleError, match=words):
            predict(tmp_path / "f.featx", new, caution=caution)


def test_classes_that_came_only_with_refit_all_are_in_every_set(tmp_path):
    data = features(90, splits=["train", "train", "test"] * 30)
    data.y[:] = np.where(data.splits == "test", np.where(np.arange(90) % 9 == 2, "another", data.y), data.y)
    data.y[data.y == "class 2"] = "class 1"
    write_file(tmp_path / "f.h5", data)
    save(featx.fit(tmp_path / "f.h5", options(refit="all")), tmp_path / "f.featx")
    path = write_file(tmp_path / "new.h5", features(9, seed=1, start=100))
    found = predict(tmp_path / "f.featx", path, caution=Caution(coverage=0.8))
    sets = [record["set"] for record in found.iter_records()]
    assert all("another" in one for one in sets)
    assert any(len(one) < 3 for one in sets)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"coverage": 90}, r"--coverage 90: a share"),
        ({"coverage": 0.0}, "--coverage 0"),
        ({"per_class": True}, "--coverage-per-class needs"),
        ({"abstain_below": 0.0}, "--abstain-below 0"),
        ({"abstain_below": 80}, "--abstain-below 80"),
        ({"false_alarms": 1.0}, "--false-alarms 1"),
    ],
)
def test_values_that_are_no_shares_are_refused(values, words):
    with pytest.raises(UsageError, match=words):
        Caution(**values)


def test_a_set_can_be_taken_apart_whatever_the_classes_are_called():
    r"""Split at every | that has no backslash before it, then drop the backslashes."""
    classes = ["a|b", "a", "b", "back\\slash", "\\", "|"]
    inside = np.ones(6, dtype=bool)
    parts, escaped = [""], False
    for letter in join_classes(classes, inside):
        if escaped or letter not in "\\|":
            parts[-1] += letter
            escaped = False
        elif letter == "\\":
            escaped = True
        else:
            parts.append("")
    assert parts == classes
    assert join_classes(["moss", "rust"], np.array([True, True])) == "moss|rust"
