"""``featx lock``: nothing is chosen or fitted by what is locked, and no score is shown that is not counted."""

import csv
import dataclasses
import hashlib
import json
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from feature_files import feature_set, spec_of, write_file
from sklearn.metrics import balanced_accuracy_score
from threadpoolctl import threadpool_limits

from featx.caching.exporting import export_features
from featx.caching.merging import merge_features
from featx.errors import BundleError, LabelsError, SpecMismatchError, StoreWriteError, UsageError
from featx.fewshot import FewShotOptions, fewshot
from featx.fit import FitOptions, fit, fit_features, save
from featx.info import describe
from featx.learn.bundle import load_bundle
from featx.learn.dataset import load_features, load_locked
from featx.lock import LockOptions, lock, open_locked
from featx.predict import predict
from featx.rank import RankOptions, rank
from featx.store.file import FeatureFile

SPEC = spec_of(24)
QUICK = FitOptions(cv=3, inner_cv=2, C_grid=(1e-2, 1, 2), scalings=("raw",), n_jobs=1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):
        yield


def write(path, n=120, *, labels=None, n_classes=3, per_group=2, of=SPEC, failed=(), **columns):
    """A feature file of overlapping classes; samples of one patient follow each other."""
    rng = np.random.default_rng(0)
    if labels is None:
        labels = [f"class {i // per_group % n_classes}" for i in range(n)]
    X = 2.0 * rng.normal(size=(n_classes, 24))[np.arange(n) // per_group % n_classes] + 2.0 * rng.normal(size=(n, 24))
    X = (X[:, None] + 0.1 * rng.normal(size=(n, of.n_views, 24))).astype(np.float32)
    keys = [f"{i:03d}.png" for i in range(n)]
    known = {
        "groups": [f"p{i // per_group}" for i in range(n)],
        "keys": keys,
        "sha256": [hashlib.sha256(key.encode()).hexdigest() for key in keys],
    }
    data = feature_set(X, labels, spec=of, **(known | columns))
    return write_file(path, data, failed=failed)


def fitted(path, target, **changes):
    save(fit(path, dataclasses.replace(QUICK, **changes)), target)
    return target


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "x.h5")


def locked_keys(path):
    with FeatureFile.open(path) as opened:
        return set(opened.locked().keys)


# What is locked


def test_a_fifth_of_each_class_in_whole_groups_is_locked(file):
    report = lock(file, now=NOON)
    assert (report.n_locked, report.n_samples, report.n_groups, report.date) == (24, 120, 12, "2026-03-01T12:00:00Z")
    assert report.classes == {f"class {i}": (8, 32) for i in range(3)}
    groups = {int(key[:3]) // 2 for key in locked_keys(file)}
    assert len(groups) == 12
    assert "0.2 of whole groups (column patient)" in report.how
    assert report.accuracy.low < 0.9 < report.accuracy.high
    json.dumps(report.to_dict(), allow_nan=False)


def test_without_groups_samples_are_drawn_and_a_warning_says_so(tmp_path):
    report = lock(write(tmp_path / "x.h5", groups=[""] * 120), LockOptions(fraction=0.25))
    assert report.n_locked == 30
    assert any("No groups were given" in note for note in report.notes)


def test_two_files_of_the_same_samples_are_locked_alike_by_the_same_random_state(tmp_path, file):
    other = write(tmp_path / "y.h5", of=dataclasses.replace(SPEC, weights_sha256="1" * 64))
    lock(file, LockOptions(random_state=5))
    lock(other, LockOptions(random_state=5))
    assert locked_keys(file) == locked_keys(other)


def test_a_test_split_is_what_is_locked_where_there_is_one(tmp_path):
    splits = ["test" if i >= 90 else "val" if i >= 60 else "train" for i in range(120)]
    file = write(tmp_path / "x.h5", splits=splits)
    with pytest.raises(UsageError, match="test split of 30 samples"):
        lock(file, LockOptions(fraction=0.2))
    assert lock(file).how == "the test split"
    assert locked_keys(file) == {f"{i:03d}.png" for i in range(90, 120)}
    assert fit(file, QUICK).plan.scheme == "val"


def test_a_test_split_may_be_ignored(tmp_path):
    file = write(tmp_path / "x.h5", splits=["test" if i >= 90 else "train" for i in range(120)])
    lock(file, LockOptions(split="ignore"))
    assert len(locked_keys(file)) == 24


def test_a_test_split_that_tears_groups_apart_is_refused(tmp_path):
    file = write(tmp_path / "x.h5", splits=["test" if i % 2 else "train" for i in range(120)])
    with pytest.raises(LabelsError, match="puts group 'p0' into 'test' and 'the rest'"):
        lock(file)


def test_what_another_file_has_locked_is_locked_with_its_looks(tmp_path, file):
    other = write(tmp_path / "y.h5", of=dataclasses.replace(SPEC, weights_sha256="1" * 64))
    with pytest.raises(UsageError, match="nothing is locked in it"):
        lock(other, LockOptions(like=file))
    lock(file, now=NOON)
    open_locked(file, fitted(file, tmp_path / "x.featx"))
    report = lock(other, LockOptions(like=file))
    assert (report.looks, report.date) == (1, "2026-03-01T12:00:00Z")
    assert locked_keys(other) == locked_keys(file)
    with pytest.raises(UsageError, match="--like"):
        LockOptions(like=file, fraction=0.2)


def test_what_is_locked_stays_locked(file):
    lock(file, now=NOON)
    before = file.read_bytes()
    with pytest.raises(UsageError, match="has been locked on 2026-03-01T12:00:00Z"):
        lock(file, LockOptions(random_state=1))
    assert file.read_bytes() == before


def test_samples_without_label_or_features_are_locked_with_their_group(tmp_path):
    labels = [f"class {i // 2 % 3}" if i % 10 else "" for i in range(120)]
    file = write(tmp_path / "x.h5", labels=labels, failed=(3, 11))
    report = lock(file)
    locked = locked_keys(file)
    assert report.n_others == sum(int(key[:3]) % 10 == 0 or int(key[:3]) in (3, 11) for key in locked)
    assert report.n_locked + report.n_others == len(locked)
    assert all(f"{int(key[:3]) ^ 1:03d}.png" in locked for key in locked)


def test_near_duplicates_on_both_sides_are_named_and_can_be_locked_together(tmp_path):
    def with_copies(path):
        write(path, per_group=1, groups=[""] * 120)
        with FeatureFile.open(path) as opened:
            X, ledger = opened.features(), opened.ledger()
        X[1::2] = X[0::2] + 0.01 * np.random.default_rng(1).normal(size=X[0::2].shape)
        labels = [ledger.label[i - i % 2] for i in range(120)]
        return write_file(path, feature_set(X, labels, spec=SPEC, sha256=ledger.sha256))

    report = lock(with_copies(tmp_path / "x.h5"))
    assert report.n_near_duplicates > 5
    assert any("near-duplicates have one sample in the locked part and one outside" in note for note in report.notes)
    report = lock(with_copies(tmp_path / "y.h5"), LockOptions(group_near_duplicates=True))
    assert report.n_near_duplicates == 0
    assert "near-duplicates" in report.how
    assert {f"{int(key[:3]) ^ 1:03d}.png" for key in locked_keys(tmp_path / "y.h5")} == locked_keys(tmp_path / "y.h5")


@pytest.mark.parametrize(
    "options", [{"fraction": 1.2}, {"split": "test"}, {"random_state": -1}, {"near_duplicate_distance": 3.0}]
)
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(UsageError):
        LockOptions(**options)


# Who may see it


def test_every_reader_of_labels_leaves_the_locked_part_out(tmp_path, file):
    everything = load_features(file)
    lock(file, now=NOON)
    locked = locked_keys(file)
    rest = load_features(file)
    assert set(rest.keys) == set(everything.keys) - locked
    assert (rest.locked.n_samples, rest.locked.date, rest.locked.looks) == (24, "2026-03-01T12:00:00Z", ())
    part = load_locked(file)
    assert set(part.keys) == locked
    np.testing.assert_array_equal(np.concatenate([rest.X, part.X])[np.argsort([*rest.keys, *part.keys])], everything.X)


def test_fit_on_a_locked_file_is_fit_on_a_file_that_never_had_these_samples(tmp_path, file):
    lock(file)
    locked = locked_keys(file)
    result = fit(file, QUICK)
    data = result.to_dict()
    assert data["left_out"]["locked"] == data["locked"]["n"] == 24
    assert data["n_samples"] == 96
    assert not {row.key for row in result.out_of_fold} & locked
    free = load_features(write(tmp_path / "free.h5"))
    alone = fit_features(free.take(~np.isin(free.keys, list(locked))), QUICK)
    assert result.whole.to_dict() == alone.whole.to_dict()
    assert (result.estimator[-1].coef_ == alone.estimator[-1].coef_).all()
    assert len(fit(file, dataclasses.replace(QUICK, refit="all", split="ignore")).fitted_on) == 96


def test_predict_scores_nothing_on_locked_samples_neither_from_the_file_nor_from_the_images(tmp_path, file):
    lock(file)
    bundle = fitted(file, tmp_path / "x.featx")
    free = write(tmp_path / "free.h5")  # of the same images, as if they were given anew
    for source in (file, free):
        predictions = predict(bundle, source)
        assert predictions.n_locked == 24
        assert predictions.evaluation.n_samples == 96
        hidden = {key for key, label in zip(predictions.keys, predictions.labels, strict=True) if not label}
        assert hidden == locked_keys(file)
        assert all(predictions.predicted)
        assert any("24 of 120 images are of the locked test set" in note for note in predictions.notes)


def test_rank_and_fewshot_leave_locked_samples_out_and_say_how_many(file):
    lock(file)
    for result in (rank([str(file)], RankOptions(n_jobs=1)), fewshot(file, FewShotOptions(heads=("lda",), shots=(1,)))):
        assert [note for note in result.notes if "Locked on" in note and note.endswith("here: 24 samples.")]
        assert result.to_dict()["left_out"]["locked"] == 24


def test_exported_tables_have_no_label_for_locked_samples(tmp_path, file):
    lock(file)
    locked = locked_keys(file)
    report = export_features(file, tmp_path / "x.csv")
    assert any("labels of the 24 locked samples are left empty" in note for note in report.notes)
    with open(tmp_path / "x.csv", encoding="utf-8", newline="") as table:
        assert {row["key"] for row in csv.DictReader(table) if not row["label"]} == locked
    export_features(file, tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as arrays:
        assert set(arrays["keys"][arrays["y"] == ""]) == locked
    export_features(file, tmp_path / "x.json")
    shown = json.loads((tmp_path / "x.json").read_text())["samples"]
    assert {one["key"] for one in shown if one["ground_truth"] is None} == locked


def test_a_merged_file_keeps_what_any_of_its_parts_had_locked(tmp_path, file):
    lock(file)
    other = write(tmp_path / "y.h5")
    merge_features([other, file], tmp_path / "both.h5")
    assert locked_keys(tmp_path / "both.h5") == locked_keys(file)


def test_views_of_a_locked_sample_are_locked_with_it(tmp_path):
    of = dataclasses.replace(SPEC, views=("plain", "flip"))
    file = write(tmp_path / "x.h5", of=of)
    lock(file)
    rest, part = load_features(file, views=True), load_locked(file, views=True)
    assert (len(rest), len(part)) == (192, 48)
    assert not set(rest.keys) & set(part.keys)
    assert part.by_sample().X.shape == (24, 2, 24)
    bundle = fitted(file, tmp_path / "x.featx", views="train", score_views="average")
    look = open_locked(file, bundle)
    predicted = load_bundle(bundle).classify(part.X)[0]
    assert look.look.scores["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(part.by_sample().y, predicted)
    )


def test_failed_samples_that_are_locked_are_no_reason_to_want_allow_missing(tmp_path):
    file = write(tmp_path / "x.h5", failed=(3,), splits=["test" if i < 30 else "train" for i in range(120)])
    lock(file)
    assert "003.png" in locked_keys(file)
    assert load_features(file).n_missing == 0
    assert open_locked(file, fitted(file, tmp_path / "x.featx")).n_failed == 1


# Looks


def test_looks_are_counted_dated_and_written_into_the_file(tmp_path, file):
    lock(file, now=NOON)
    bundle = fitted(file, tmp_path / "first.featx")
    first = open_locked(file, bundle, now=NOON + timedelta(days=1))
    part = load_locked(file)
    score = balanced_accuracy_score(part.y, load_bundle(bundle).predict(part.X))
    assert first.evaluation.scores["balanced_accuracy"].mean == pytest.approx(score)
    assert first.look.scores["balanced_accuracy"] == pytest.approx(score)
    assert (first.number, first.earlier, first.look.date) == (1, [], "2026-03-02T12:00:00Z")
    assert first.look.bundle_sha256 == hashlib.sha256(bundle.read_bytes()).hexdigest()
    assert first.look.looks_before_fit == 0
    assert "look no. 1" in first.sentence
    assert first.notes == []
    assert first.groups == "column patient"

    again = open_locked(file, bundle, now=NOON + timedelta(days=2))
    assert again.number == 2
    assert "look no. 2" in again.sentence
    assert "the first was on 2026-03-02T12:00:00Z (first.featx)" in again.sentence
    assert any("same classifier" in note for note in again.notes)

    later = fit(file, dataclasses.replace(QUICK, random_state=1))
    assert any("has been looked at (2 times, first on 2026-03-02T12:00:00Z)" in note for note in later.notes)
    save(later, tmp_path / "second.featx")
    third = open_locked(file, tmp_path / "second.featx", now=NOON + timedelta(days=3))
    assert (third.number, third.look.looks_before_fit) == (3, 2)
    assert any("Earlier looks may have led to this classifier" in note for note in third.notes)
    assert [look["date"][:10] for look in describe(file)["locked"]["looks"]] == [
        "2026-03-02", "2026-03-03", "2026-03-04",
    ]  # fmt: skip
    json.dumps(third.to_dict(), allow_nan=False)


def test_a_classifier_from_before_the_first_look_is_blind_and_the_report_says_what_to_quote(tmp_path, file):
    lock(file)
    one, other = (
        fitted(file, tmp_path / name, random_state=state) for state, name in enumerate(("a.featx", "b.featx"))
    )
    open_locked(file, one)
    assert any("Quote all of them" in note for note in open_locked(file, other).notes)


def test_no_score_is_shown_that_could_not_be_counted(tmp_path, file, monkeypatch):
    lock(file)
    bundle = fitted(file, tmp_path / "x.featx")
    before = file.read_bytes()

    def refuse(*_arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("featx.store.disk.replace", refuse)
        with pytest.raises(StoreWriteError, match="No space left"):
            open_locked(file, bundle)
    assert file.read_bytes() == before
    assert open_locked(file, bundle).number == 1


def test_two_looks_at_once_are_two_looks(tmp_path, file, monkeypatch):
    lock(file)
    one, other = (fitted(file, tmp_path / name, random_state=i) for i, name in enumerate(("a.featx", "b.featx")))
    module = sys.modules["featx.lock"]  # the attribute of that name is the function
    real = module.change_locked

    def another_comes_first(*arguments, **options):
        monkeypatch.setattr(module, "change_locked", real)
        open_locked(file, other)
        return real(*arguments, **options)

    monkeypatch.setattr(module, "change_locked", another_comes_first)
    look = open_locked(file, one)
    assert look.number == 2
    assert [earlier.bundle for earlier in look.earlier] == ["b.featx"]


def test_a_head_that_was_fitted_on_locked_images_is_refused_and_nothing_is_counted(tmp_path, file):
    bundle = fitted(file, tmp_path / "early.featx")
    lock(file)
    with pytest.raises(BundleError, match="fitted on 24 of the 24 locked images"):
        open_locked(file, bundle)
    assert describe(file)["locked"]["looks"] == []


def test_other_features_no_lock_and_no_labels_are_errors_of_their_own(tmp_path, file):
    bundle = fitted(file, tmp_path / "x.featx")
    with pytest.raises(UsageError, match="nothing is locked"):
        open_locked(file, bundle)
    other = write(tmp_path / "y.h5", of=dataclasses.replace(SPEC, weights_sha256="1" * 64))
    lock(other)
    with pytest.raises(SpecMismatchError):
        open_locked(other, bundle)
    lock(file)
    bundle = fitted(file, tmp_path / "x.featx")
    write(file, labels=[""] * 120)
    with pytest.raises(LabelsError, match="none of the 24 locked samples has a label"):
        open_locked(file, bundle)


def test_a_file_whose_samples_would_all_be_locked_is_refused(tmp_path, file):
    lock(file)
    small = write(tmp_path / "y.h5", n=120, groups=["one patient"] * 120)
    with pytest.raises(LabelsError, match="at least two groups"):
        lock(small)
    with pytest.raises(LabelsError, match="all of the 120 labelled samples would be locked"):
        lock(small, LockOptions(like=file))
