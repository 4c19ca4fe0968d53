"""What `featx audit` promises: shortcuts are flagged, sites left out tell the truth, wrong labels come first."""

import dataclasses
import json

import numpy as np
import pytest
from feature_files import feature_set, spec_of, write_file
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from threadpoolctl import threadpool_limits

from featx.audit import AuditOptions, audit, save_labels
from featx.errors import LabelsError, StoreIncompleteError, UnknownNameError, UsageError
from featx.learn.heads import make_head
from featx.learn.shortcuts import best_guess, groups_needed
from featx.learn.splits import make_folds
from featx.lock import LockOptions, lock
from featx.store.file import FeatureFile

QUICK = AuditOptions(cv=3, inner_cv=2, repeats=1, C_grid=(1e-2, 1.0, 2), n_jobs=1)


@pytest.fixture(autouse=True)
def _quick(no_waiting_for_the_disk):
    with threadpool_limits(1):
        yield


def quick(**changes):
    return dataclasses.replace(QUICK, **changes)


def write(path, X, y, meta=None, *, failed=(), size=(64, 48), bytes=None, **columns):
    """Write a feature file with further columns; `failed` are positions without a row."""
    sizes = 5000 + np.arange(len(y)) if bytes is None else bytes
    return write_file(
        path,
        feature_set(X, y, spec=spec_of(X.shape[1]), **columns),
        failed=failed,
        meta={name: [str(value) for value in column] for name, column in (meta or {}).items()},
        facts=[(int(n_bytes), i, "JPEG", *size, "RGB") for i, n_bytes in enumerate(sizes)],
    )


def hospitals(n_patients=120, per_patient=2, *, share=0.97, seed=0, signal=0.0):
    """Four hospitals; of two, nearly all patients are sick, of two nearly none. The features hold the hospital.

    Returns features, labels, hospitals and patients; `signal` is how far apart the classes are in themselves.
    """
    rng = np.random.default_rng(seed)
    site = np.arange(n_patients) % 4
    sick = (rng.random(n_patients) < np.where(site < 2, share, 1 - share)).astype(int)
    for number in range(4):  # some of either at each
        sick[np.flatnonzero(site == number)[:2]] = [0, 1]
    X = np.zeros((n_patients, 10))
    X[np.arange(n_patients), site] = 6.0
    X[:, 4] = signal * sick
    X = np.repeat(X, per_patient, axis=0) + rng.normal(size=(n_patients * per_patient, 10))
    patient = np.repeat(np.arange(n_patients), per_patient)
    return X, np.array(["sound", "sick"])[sick[patient]], np.array(list("ABCD"))[site[patient]], patient


def table(path, data, **more):
    X, y, site, patient = data
    return write(path, X, y, {"hospital": site} | more, groups=[f"p{one}" for one in patient])


def by_name(result):
    return {one.name: one for one in result.shortcuts}


# ---- the issue's own case


def test_a_hospital_that_goes_with_the_label_is_flagged_and_leaving_it_out_shows_chance(tmp_path):
    rng = np.random.default_rng(1)
    coin = [str(value) for value in rng.integers(0, 2, 120)[hospitals()[3]]]
    result = audit(table(tmp_path / "x.h5", hospitals(), coin=coin), QUICK)
    first = result.shortcuts[0]
    assert [one.name for one in result.flagged] == [first.name] == ["hospital"]
    assert first.score.mean > 0.95
    assert first.score.low > first.chance == 0.25
    assert first.association.cramers_v > 0.7
    assert first.p_adjusted < 0.01
    assert first.association.n_units == 120
    assert not by_name(result)["coin"].is_told
    assert "hospital" in result.verdict

    [study] = [one for one in result.sites if one.column == "hospital"]
    assert study.ordinary.mean > 0.85  # what the mix of each hospital allows
    assert study.left_out.mean == pytest.approx(0.5, abs=0.1)
    assert study.guessing == 0.5
    assert study.ordinary_within == pytest.approx(0.5, abs=0.15)  # it tells the hospital, not the sick
    assert study.is_worse
    assert study.gap.mean == pytest.approx(study.left_out.mean - study.ordinary.mean)
    assert any("worse where the head has not been trained" in remark for remark in result.site_remarks)


def test_classes_that_look_different_at_each_hospital_are_told_by_folds_and_not_at_a_new_one(tmp_path):
    """Ordinary cross-validation is near 1 within each site too; leaving one out shows that nothing carries over."""
    rng = np.random.default_rng(0)
    n = 240
    site, sick = np.arange(n) % 4, np.arange(n) // 4 % 2
    X = rng.normal(size=(n, 12))
    X[np.arange(n), site] += 6.0 * (2 * sick - 1)
    X[np.arange(n), 4 + site] += 5.0
    path = write(tmp_path / "x.h5", X, np.array(["sound", "sick"])[sick], {"site": np.array(list("ABCD"))[site]})
    [study] = audit(path, quick(sites=("site",))).sites
    assert study.ordinary.mean > 0.97
    assert study.ordinary_within > 0.97
    assert study.left_out.mean == pytest.approx(0.5, abs=0.1)
    assert study.is_worse
    assert all(score.gap.high < 0 for score in study.sites)


def test_an_honest_class_survives_and_a_site_apart_from_the_label_is_not_flagged(tmp_path):
    result = audit(table(tmp_path / "x.h5", hospitals(share=0.5, signal=7.0)), QUICK)
    hospital = by_name(result)["hospital"]
    assert hospital.is_told
    assert not hospital.is_flagged
    assert result.flagged == []
    assert result.verdict.startswith("No possible shortcut")
    assert any("hospital" in remark and "No sign of a shortcut" in remark for remark in result.shortcut_remarks)
    [study] = result.sites
    assert study.left_out.mean > 0.95
    assert not study.is_worse


# ---- shortcuts


@pytest.mark.slow
def test_noise_flags_nothing(tmp_path):
    rng = np.random.default_rng(0)
    n = 80
    meta = {f"column {k}": rng.integers(0, 2 + k % 3, n) for k in range(5)}
    path = write(tmp_path / "x.h5", rng.normal(size=(n, 5)), np.array(["a", "b"])[rng.integers(0, 2, n)], meta)
    assert audit(path, QUICK).flagged == []


def test_a_column_is_told_as_scikit_learn_would_tell_it(tmp_path):
    X, y, site, patient = hospitals(60, share=0.8)
    X[:, :4] /= 4
    result = audit(table(tmp_path / "x.h5", (X, y, site, patient)), quick(columns=("hospital",)))
    [found] = result.shortcuts
    X = X.astype(np.float32).astype(float)
    expected = []
    for fold in make_folds(site, patient, n_splits=3, inner_splits=2):
        inner = np.zeros(len(fold.train), dtype=int)
        for part in make_folds(site[fold.train], patient[fold.train], n_splits=2):
            inner[part.test] = part.number
        search = GridSearchCV(
            make_head("logreg", 1.0, "standardise", class_weight="balanced"),
            {"head__C": [1e-2, 1.0]},
            scoring="balanced_accuracy",
            cv=PredefinedSplit(inner),
        ).fit(X[fold.train], site[fold.train])
        expected.append(search.score(X[fold.test], site[fold.test]))
    assert found.score.folds == pytest.approx(expected)


def test_what_the_label_alone_tells_stands_beside_it(tmp_path):
    """A diagnosis code under another name is told through the label: flagged, with a word about it."""
    X, y, site, patient = hospitals(share=0.5, signal=5.0)
    code = np.where(y == "sick", "C50", "Z00")
    result = audit(table(tmp_path / "x.h5", (X, y, site, patient), code=code), QUICK)
    [flagged] = result.flagged
    assert (flagged.name, flagged.from_label, flagged.beyond_label) == ("code", 1.0, False)
    assert flagged.association.cramers_v == pytest.approx(1.0)
    assert any("The label alone would tell it as well" in remark for remark in result.shortcut_remarks)


def test_best_guess_is_the_best_of_all_rules():
    from itertools import product

    table = np.array([[5.0, 1.0, 2.0], [1.0, 4.0, 4.0]])
    rules = product(range(3), repeat=2)
    best = max(sum(table[row, rule[row]] / table[:, rule[row]].sum() for row in range(2)) / 3 for rule in rules)
    assert best_guess(table) == pytest.approx(best)


def test_columns_that_cannot_be_tested_are_listed_with_the_reason(tmp_path):
    X, y, site, patient = hospitals(40)
    n = len(y)
    meta = {
        "scan": [f"s{i}" for i in range(n)],
        "country": ["NL"] * n,
        "comment": [""] * n,
        "name": [f"n{one}" for one in patient],
        "rare": ["x" if one == 0 else "y" for one in patient],
        "device": ["d1" if one < 15 else "d2" if one < 30 else f"d{one}" for one in patient],
    }
    result = audit(table(tmp_path / "x.h5", (X, y, site, patient), **meta), QUICK)
    reasons = {one.name: one.reason for one in result.left_out}
    assert "of its own for every sample" in reasons["scan"]
    assert reasons["country"] == "constant: 'NL'"
    assert reasons["comment"] == "empty"
    assert "too thin: of 40 values no value is in 3 groups" in reasons["name"]
    assert "only one value is" in reasons["rare"]
    assert "constant" in reasons["width x height"]
    device = by_name(result)["device"]
    assert (device.values, device.n_rare) == (("d1", "d2"), 20)


@pytest.mark.parametrize(("cv", "inner_cv"), [(2, 2), (3, 2), (5, 3), (5, 5), (10, 3), (3, 6)])
def test_so_many_groups_are_just_enough_for_the_folds(cv, inner_cv):
    from featx.learn.splits import check_classes

    enough = groups_needed(cv, inner_cv)
    check_classes(["a"] * enough + ["b"] * enough, None, n_splits=cv, inner_splits=inner_cv)
    with pytest.raises(LabelsError):
        check_classes(["a"] * (enough - 1) + ["b"] * enough, None, n_splits=cv, inner_splits=inner_cv)


def test_bytes_per_pixel_that_the_features_tell_and_that_go_with_the_label_are_flagged(tmp_path):
    X, y, _, patient = hospitals(share=0.5)
    quality = np.where(y == "sick", 2000, 6000) + np.random.default_rng(0).integers(0, 1900, len(y))
    X[:, 9] += quality / 500
    path = write(tmp_path / "x.h5", X, y, groups=[f"p{one}" for one in patient], bytes=quality)
    result = audit(path, QUICK)
    assert [one.name for one in result.flagged] == ["bytes per pixel (JPEG)"]
    assert any("stand-in for JPEG quality" in remark for remark in result.shortcut_remarks)


def test_columns_can_be_named(tmp_path):
    path = table(tmp_path / "x.h5", hospitals(40), other=hospitals(40)[2])
    result = audit(path, quick(columns=("other", "image format")))
    assert [one.name for one in result.shortcuts] == ["other"]
    assert [one.name for one in result.left_out] == ["image format"]
    with pytest.raises(UnknownNameError, match="did you mean hospital"):
        audit(path, quick(columns=("hospitel",)))
    with pytest.raises(UnknownNameError, match="did you mean hospital"):
        audit(path, quick(sites=("hospitel",)))


# ---- sites


def test_a_site_that_is_left_out_is_scored_as_scikit_learn_would(tmp_path):
    X, y, site, patient = hospitals(60, share=0.7, signal=1.5)
    [study] = audit(table(tmp_path / "x.h5", (X, y, site, patient)), quick(sites=("hospital",))).sites
    X = X.astype(np.float32).astype(float)
    for score in study.sites:
        train, test = np.flatnonzero(site != score.site), np.flatnonzero(site == score.site)
        inner = np.zeros(len(train), dtype=int)
        for part in make_folds(y[train], patient[train], n_splits=2):
            inner[part.test] = part.number
        search = GridSearchCV(
            make_head("logreg", 1.0, "standardise"),
            {"head__C": [1e-2, 1.0]},
            scoring="balanced_accuracy",
            cv=PredefinedSplit(inner),
        ).fit(X[train], y[train])
        assert score.left_out.mean == pytest.approx(balanced_accuracy_score(y[test], search.predict(X[test])))
        area = roc_auc_score(y[test] == "sound", search.predict_proba(X[test])[:, 1])
        assert score.roc_auc == pytest.approx(area)
        assert score.left_out.low <= score.left_out.mean <= score.left_out.high
        assert score.gap.mean == pytest.approx(score.left_out.mean - score.ordinary)
    assert study.left_out.mean == pytest.approx(np.mean([score.left_out.mean for score in study.sites]))
    assert study.ordinary_within == pytest.approx(np.mean([score.ordinary for score in study.sites]))


def test_only_columns_with_every_class_at_each_value_are_taken_for_sites(tmp_path):
    X, y, site, patient = hospitals(60, share=0.7)
    one_class = np.where(site == "A", y, site)  # "sick" and "sound" beside B, C, D
    many = [f"m{one % 30}" for one in patient]
    result = audit(table(tmp_path / "x.h5", (X, y, site, patient), mixed=one_class, many=many), QUICK)
    assert [study.column for study in result.sites] == ["hospital"]


def test_sites_without_some_class_are_scored_as_far_as_defined(tmp_path):
    X, y, site, patient = hospitals(60, share=0.7, signal=6.0)
    X[:, :4] = 0.0  # the sites look alike
    kept = (site != "D") | (y == "sound")
    X, y, site, patient = X[kept], y[kept], site[kept], patient[kept]
    options = quick(sites=("hospital",))
    [study] = audit(table(tmp_path / "x.h5", (X, y, site, patient)), options).sites
    scores = {score.site: score for score in study.sites}
    assert scores["D"].classes == ("sound",)
    assert scores["D"].left_out.mean > 0.9
    assert scores["D"].roc_auc is None
    assert study.guessing == pytest.approx((3 * 0.5 + 1) / 4)

    y = np.where((site == "A") & (y == "sick"), "odd", y)  # a class that no other site has
    [study] = audit(table(tmp_path / "y.h5", (X, y, site, patient)), options).sites
    scores = {score.site: score for score in study.sites}
    assert scores["A"].unseen == ("odd",)
    assert scores["A"].left_out.mean <= 0.5
    assert scores["B"].unseen == ()


def test_a_site_without_which_one_class_is_left_is_not_scored_and_says_why(tmp_path):
    X, y, site, patient = hospitals(60)
    y = np.where((site == "A") & (np.arange(len(y)) % 4 < 2), "sick", "sound")
    result = audit(table(tmp_path / "x.h5", (X, y, site, patient)), quick(sites=("hospital",)))
    scores = {score.site: score for score in result.sites[0].sites}
    assert "only one class, 'sound'" in scores["A"].why_not
    assert scores["A"].left_out.mean is None
    assert scores["B"].why_not == ""
    assert any("hospital A: not scored" in remark for remark in result.site_remarks)


def test_a_patient_of_two_hospitals_is_never_in_training_and_test(tmp_path):
    X, y, site, patient = hospitals(60, share=0.6, signal=2.0)
    moved = np.isin(patient, [0, 4, 8]) & (np.arange(len(y)) % 2 == 1)
    site = np.where(moved, "B", site)
    [study] = audit(table(tmp_path / "x.h5", (X, y, site, patient)), quick(sites=("hospital",))).sites
    assert {score.site: score.n_kept_out for score in study.sites} == {"A": 3, "B": 3, "C": 0, "D": 0}


def test_a_site_that_cannot_be_left_out_is_an_error(tmp_path):
    data = hospitals(40)
    n = len(data[1])
    path = table(tmp_path / "x.h5", data, country=["NL"] * n, known=["A", *[""] * (n - 1)])
    with pytest.raises(LabelsError, match="'country' can be left out: it is constant"):
        audit(path, quick(sites=("country",)))


# ---- labels


def test_planted_labels_are_found_and_the_csv_holds_every_sample(tmp_path):
    X, y, site, patient = hospitals(share=0.5, signal=9.0)
    clean = audit(table(tmp_path / "clean.h5", (X, y, site, patient)), QUICK).labels
    assert clean.joint.n_errors <= 3
    assert clean.n_against <= 3
    wrong = y.copy()
    planted = [10, 55, 120, 201, 33]
    wrong[planted] = np.where(y[planted] == "sick", "sound", "sick")
    result = audit(table(tmp_path / "x.h5", (X, wrong, site, patient)), QUICK)
    assert {int(one.key[:3]) for one in result.labels.issues[:5]} == set(planted)
    assert result.labels.joint.n_errors == pytest.approx(5, abs=3)
    save_labels(result, tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert len(lines) == len(y) + 1
    assert {int(line.split(",")[1][:3]) for line in lines[1:6]} == set(planted)
    with pytest.raises(UsageError):
        save_labels(result, tmp_path / "out.txt")


def test_a_head_that_guesses_is_said_to_say_nothing(tmp_path):
    rng = np.random.default_rng(0)
    path = write(tmp_path / "x.h5", rng.normal(size=(60, 4)), np.array(["a", "b"])[np.arange(60) % 2])
    assert any("not better than guessing" in remark for remark in audit(path, QUICK).label_remarks)


# ---- what is left out, and what is said


def test_unlabelled_failed_and_small_ones_are_left_out_and_said(tmp_path):
    X, y, site, _ = hospitals(40, share=0.5, signal=4.0)
    y = y.astype("<U10")
    y[:4], y[[10, 30]] = "", "odd"
    meta = {"hospital": site}
    path = write(
        tmp_path / "x.h5", X, y, meta, failed=(5,), splits=["train", "test"] * 40, folds=["1", "2"] * 40,
    )  # fmt: skip
    with pytest.raises(StoreIncompleteError):
        audit(path, QUICK)
    with pytest.raises(LabelsError, match="--min-per-class"):
        audit(path, quick(allow_missing=True))
    result = audit(path, quick(allow_missing=True, min_per_class=3))
    assert result.n_samples == 80 - 4 - 1 - 2
    assert result.small_classes == {"odd": 2}
    said = " ".join(result.notes)
    for words in (
        "No groups were given",
        "label, left out: 4",
        "features, left out: 1",
        "odd (2)",
        "All splits",
        "fold",
    ):
        assert words in said
    assert by_name(result)["hospital"].n_samples == result.n_samples  # columns stay with their samples
    assert by_name(result)["hospital"].score.mean > 0.9


def test_a_random_state_settles_everything_and_json_holds_it(tmp_path):
    path = table(tmp_path / "x.h5", hospitals(40, share=0.7))
    first, again = (json.loads(json.dumps(audit(path, QUICK).to_dict(), allow_nan=False)) for _ in range(2))
    assert first.pop("seconds") > 0
    assert again.pop("seconds") > 0
    assert first == again
    assert first["shortcuts"][0]["flagged"] in (True, False)
    assert len(first["labels"]["issues"]) <= QUICK.top


def test_progress_counts_up_to_its_total(tmp_path):
    seen = []
    path = table(tmp_path / "x.h5", hospitals(40, share=0.7))
    audit(path, QUICK, progress=lambda done, total: seen.append((done, total)))
    totals = {total for _, total in seen}
    assert len(totals) == 1
    assert [done for done, _ in seen] == list(range(1, totals.pop() + 1))


@pytest.mark.parametrize(
    "changes", [{"rank_by": "entropy"}, {"top": -1}, {"cv": 1}, {"repeats": 0}, {"C_grid": (1.0, 0.1, 3)}]
)
def test_wrong_options_are_refused(changes):
    with pytest.raises(UsageError):
        quick(**changes)


# ---- near-duplicates, and what is locked


def test_near_duplicates_are_one_group_when_asked_for(tmp_path):
    rng = np.random.default_rng(5)
    X = np.repeat(rng.normal(size=(60, 200)), 2, axis=0) + 1e-3 * rng.normal(
        size=(120, 200)
    )  # sixty images, each twice
    coin = np.repeat(rng.integers(0, 2, 60), 2)
    path = write(tmp_path / "x.h5", X, np.where(np.repeat(rng.integers(0, 2, 60), 2), "a", "b"), {"coin": coin})
    loose = audit(path, QUICK)
    joined = audit(path, quick(group_near_duplicates=True))
    assert loose.groups.ids is None
    assert (joined.groups.n, joined.groups.source) == (60, "near-duplicates")
    assert "nearly the same are one group: 60 groups" in " ".join(joined.notes)
    assert by_name(loose)["coin"].score.mean - by_name(joined)["coin"].score.mean > 0.2  # a copy tells a coin
    given = write(tmp_path / "y.h5", X, np.where(coin, "a", "b"), groups=[f"p{i}" for i in range(120)])
    assert audit(given, quick(group_near_duplicates=True)).groups.source == "column patient, joined by near-duplicates"
    with pytest.raises(LabelsError, match=r"would join 120 of 120 samples.* more than 20% is refused"):
        audit(path, quick(group_near_duplicates=True, near_duplicate_distance=2.0))


def test_what_is_locked_takes_no_part_and_is_counted(tmp_path):
    X, y, site, patient = hospitals(60, signal=1.0)
    path = write(tmp_path / "x.h5", X, y, {"hospital": site}, groups=[f"p{one}" for one in patient])
    lock(path, LockOptions(fraction=0.25))
    with FeatureFile.open(path) as file:
        locked = file.locked()
        is_open = np.array([key not in locked.keys for key in file.keys()])  # noqa: SIM118  no mapping
    result = audit(path, QUICK)
    assert result.n_samples == is_open.sum() == 120 - len(locked.keys)
    assert result.to_dict()["samples_left_out"]["locked"] == len(locked.keys)
    assert f"left out of everything here: {len(locked.keys)} samples" in " ".join(result.notes)
    named = [issue.key for issue in result.labels.issues]
    assert set(named) == {f"{i:03d}.png" for i in np.flatnonzero(is_open)}
    assert by_name(result)["hospital"].n_samples == is_open.sum()
