"""What `featx rank` promises: one set of samples and folds for every file, ties said, no look at what is kept apart."""

import dataclasses
import json

import numpy as np
import pytest
from feature_files import feature_set, spec_of, write_file
from scipy.special import softmax
from scipy.stats import ttest_1samp
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from threadpoolctl import threadpool_limits

from featx.errors import (
    InputError,
    LabelsError,
    StoreError,
    StoreIncompleteError,
    UnknownNameError,
    UsageError,
)
from featx.learn.heads import make_head
from featx.learn.intervals import Interval
from featx.learn.quick import is_tie
from featx.learn.ranking import CAUTION, SCORES
from featx.learn.splits import make_folds
from featx.learn.transferability import h_score, h_score_regularised, leep, logme, nce, transrate
from featx.rank import RankOptions, rank
from featx.spec import FOREIGN

QUICK = RankOptions(cv=3, inner_cv=2, C_grid=(1e-2, 1.0, 2), n_jobs=1)
N = 48


@pytest.fixture(autouse=True)
def _quick(no_waiting_for_the_disk):
    with threadpool_limits(1):
        yield


def quick(**changes):
    return dataclasses.replace(QUICK, **changes)


def labels(n=N, n_classes=3):
    return np.array([f"class {i % n_classes}" for i in range(n)])


def features(y, d=6, *, noise=1.0, seed=0):
    """A centre for each label, and noise."""
    rng = np.random.default_rng(seed)
    names, codes = np.unique(y, return_inverse=True)
    return (rng.normal(size=(len(names), d))[codes] + noise * rng.normal(size=(len(y), d))).astype(np.float32)


def write(path, X, y, *, logits=None, failed=(), sha=None, views=1, foreign=False, order=None, **columns):
    """Write a feature file; `failed` are positions without a row, `order` is that of its rows."""
    order = np.arange(len(y)) if order is None else np.asarray(order)
    spec = spec_of(
        X.shape[-1],
        logits=logits is not None,
        views=("plain", *[f"view {i}" for i in range(1, views)]),
        **({"weights": FOREIGN} if foreign else {}),
    )
    if sha is not None:
        columns["sha256"] = sha
    return write_file(
        path,
        feature_set(X, y, spec=spec, **columns).take(order),
        failed=[place for place, i in enumerate(order) if i in failed],
        logits=None if logits is None else logits[order],
    )


def named(result):
    return {name.removesuffix(".h5"): file for name, file in zip(result.names, result.files, strict=True)}


# ---- the order


def test_files_come_in_the_order_of_the_score_and_ties_with_the_first_are_said(tmp_path):
    y = labels()
    good = features(y, noise=0.5)
    paths = [
        write(tmp_path / "noise.h5", features(y, noise=30.0), y),
        write(tmp_path / "good.h5", good, y),
        write(tmp_path / "same.h5", good[:, ::-1].copy(), y),
        write(tmp_path / "fair.h5", features(y, noise=3.0), y),
    ]
    result = rank(paths, QUICK)
    means = [file.score.mean for file in result.files]
    assert means == sorted(means, reverse=True)
    assert result.names[:2] == ["good.h5", "same.h5"]  # equals stay in the order in which they were given
    first, same, *others = result.files
    assert (first.behind, first.tied) == (None, False)
    assert (same.behind.mean, same.tied) == (0.0, True)
    assert "same.h5" in result.ties
    for file in others:
        folds = np.subtract(first.score.folds, file.score.folds)
        assert file.behind.mean == pytest.approx(np.mean(folds))
        assert file.behind.folds == pytest.approx(folds)
        assert file.tied == (file.behind.low <= 0 <= file.behind.high)
    assert result.guessing == pytest.approx(1 / 3)


def test_no_tie_is_said_too_and_of_a_single_file_nothing(tmp_path):
    y = labels(n_classes=2)
    paths = [
        write(tmp_path / "a.h5", features(y, noise=0.1), y),
        write(tmp_path / "b.h5", features(y, noise=50.0, seed=1), y),
    ]
    assert rank(paths, quick(cv=5)).ties.startswith("No file is tied with the first")
    alone = rank(paths[:1], QUICK)
    assert alone.ties == ""
    assert not any("picked" in note for note in alone.notes)
    assert any("best of 2" in note for note in rank(paths, QUICK).notes)


def test_the_score_is_that_of_nested_cross_validation_in_scikit_learn(tmp_path):
    y, X = labels(), features(labels(), noise=2.0)
    [file] = rank([write(tmp_path / "a.h5", X, y)], QUICK).files
    expected = []
    for fold in make_folds(y, None, n_splits=3, inner_splits=2):
        inner = np.zeros(len(fold.train), dtype=int)
        for part in make_folds(y[fold.train], None, n_splits=2):
            inner[part.test] = part.number
        search = GridSearchCV(
            make_head("logreg", 1.0, "standardise"),
            {"head__C": [1e-2, 1.0]},
            scoring="balanced_accuracy",
            cv=PredefinedSplit(inner),
        ).fit(X[fold.train].astype(float), y[fold.train])
        expected.append(search.score(X[fold.test].astype(float), y[fold.test]))
    assert file.score.folds == pytest.approx(expected)


@pytest.mark.parametrize("scoring", ["accuracy", "roc_auc", "roc_auc_ovr", "neg_log_loss"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_it_ranks_by_what_is_asked_for(tmp_path, scoring, n_classes):
    y = labels(n_classes=n_classes)
    paths = [write(tmp_path / f"{noise}.h5", features(y, noise=noise), y) for noise in (20.0, 1.0)]
    result = rank(paths, quick(scoring=scoring))
    expected = ("roc_auc" if n_classes == 2 else "roc_auc_ovr") if "auc" in scoring else scoring
    assert result.metric == expected
    assert result.names == ["1.0.h5", "20.0.h5"]
    assert result.files[0].score.mean > result.guessing


def test_the_order_of_the_rows_in_a_file_changes_nothing(tmp_path):
    y, rng = labels(), np.random.default_rng(0)
    X, logits = features(y, noise=2.0), rng.normal(size=(N, 5))
    groups = [f"p{i // 3}" for i in range(N)]
    first = write(tmp_path / "a.h5", features(y, noise=2.0, seed=1), y, logits=logits, groups=groups)
    ordered = write(tmp_path / "b.h5", X, y, logits=logits, groups=groups)
    mixed = write(tmp_path / "c.h5", X, y, logits=logits, groups=groups, order=rng.permutation(N))
    found = named(rank([first, ordered, mixed], QUICK))
    assert found["b"].score == found["c"].score
    assert found["b"].transferability == found["c"].transferability


def test_a_random_state_settles_everything_and_another_deals_other_folds(tmp_path):
    y = labels()
    paths = [write(tmp_path / "a.h5", features(y, noise=2.0), y)]
    first, again = (rank(paths, QUICK).to_dict() for _ in range(2))
    assert first.pop("seconds") > 0
    assert again.pop("seconds") > 0
    assert first == again
    [other] = rank(paths, quick(random_state=1)).files
    assert other.score.folds != first["files"][0]["score"]["folds"]


def test_repeats_deal_the_samples_anew(tmp_path):
    y = labels()
    paths = [write(tmp_path / f"{seed}.h5", features(y, noise=2.0, seed=seed), y) for seed in (0, 1)]
    first, second = rank(paths, quick(repeats=2)).files
    assert len(first.score.folds) == 6
    assert first.score.folds[:3] != first.score.folds[3:]
    assert "2 repeats" in second.behind.method


# ---- scores beside it


def test_the_other_scores_are_those_of_the_functions_on_the_same_rows(tmp_path):
    y, rng = labels(), np.random.default_rng(0)
    X, logits = features(y), rng.normal(size=(N, 5)).astype(np.float32) * 3
    [file] = rank([write(tmp_path / "a.h5", X, y, logits=logits)], QUICK).files
    X, P = X.astype(float), softmax(logits.astype(float), axis=1)
    assert list(file.transferability) == list(SCORES)
    assert file.transferability == {
        "logme": logme(X, y),
        "h_score": h_score(X, y),
        "h_score_regularised": h_score_regularised(X, y),
        "transrate": transrate(X, y),
        "leep": leep(P, y),
        "nce": nce(P.argmax(axis=1), y),
    }
    assert file.why_none == {}
    assert not file.saturated


def test_what_a_file_lacks_is_said_with_what_would_give_it(tmp_path):
    y = labels()
    paths = [
        write(tmp_path / "with.h5", features(y), y, logits=np.zeros((N, 4))),
        write(tmp_path / "without.h5", features(y), y),
        write(tmp_path / "foreign.h5", features(y), y, foreign=True),
    ]
    result = rank(paths, QUICK)
    found = named(result)
    assert found["without"].transferability["leep"] is found["without"].transferability["nce"] is None
    assert "--with-logits" in found["without"].why_none["leep"]
    assert "--with-logits" not in found["foreign"].why_none["nce"]
    assert found["with"].transferability["nce"] == pytest.approx(-np.log(3))
    [remark] = [remark for remark in result.remarks if "--with-logits" in remark]
    assert remark.startswith("No LEEP and NCE of without.h5: ")


def test_a_saturated_h_score_and_one_that_chance_nearly_gives_are_said(tmp_path):
    y = labels()
    paths = [write(tmp_path / f"{d}.h5", features(y, d), y) for d in (6, 30, 60)]
    result = rank(paths, QUICK)
    found = named(result)
    assert [found[d].saturated for d in ("6", "30", "60")] == [False, False, True]
    assert found["60"].transferability["h_score"] == pytest.approx(2)
    assert found["30"].h_score_of_chance == pytest.approx(2 * 30 / 47)
    saturated, close = result.remarks[:2]
    assert "H is 2 (classes - 1) for any labels" in saturated
    assert "60.h5" in saturated
    assert "1.277 (30.h5), of at most 2" in close
    assert "6.h5" not in close


def test_an_infinite_logme_is_no_number_but_a_reason(tmp_path):
    y = labels()
    result = rank([write(tmp_path / "a.h5", np.eye(3, dtype=np.float32)[np.arange(N) % 3], y)], QUICK)
    [file] = result.files
    assert file.transferability["logme"] is None
    assert "infinite" in file.why_none["logme"]
    assert "Infinity" not in json.dumps(result.to_dict(), allow_nan=False)


def test_the_json_object_holds_what_is_documented(tmp_path):
    y = labels()
    result = rank([write(tmp_path / f"{i}.h5", features(y, seed=i), y) for i in (0, 1)], QUICK)
    data = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert set(data) == {
        "metric", "files", "guessing", "ties", "classes", "n_samples", "description", "groups", "left_out", "caution",
        "remarks", "warnings", "options", "seconds",
    }  # fmt: skip
    assert set(data["files"][0]) == {
        "path", "backbone", "weights", "node", "n_features", "score", "behind", "tied", "transferability", "why_none",
        "h_score_of_chance", "saturated", "edges", "n_unconverged",
    }  # fmt: skip
    assert (
        set(data["files"][1]["behind"]) == set(data["files"][0]["score"]) == {"mean", "low", "high", "folds", "method"}
    )
    assert data["n_samples"] == N
    assert data["caution"] == CAUTION
    assert "0.42 to 0.69" in CAUTION


# ---- what a choice may see


def test_groups_are_never_on_both_sides(tmp_path):
    """Patients that can be told, with labels that mean nothing: far above chance without groups, chance with them."""
    rng = np.random.default_rng(0)
    patient = np.arange(96) // 8
    y = np.array(["a", "b"])[rng.permutation(np.arange(12) % 2)[patient]]
    X = (rng.normal(size=(12, 40))[patient] + 0.1 * rng.normal(size=(96, 40))).astype(np.float32)
    without = rank([write(tmp_path / "a.h5", X, y)], QUICK)
    within = rank([write(tmp_path / "b.h5", X, y, groups=[f"p{p}" for p in patient])], QUICK)
    assert without.files[0].score.mean == 1.0
    assert within.files[0].score.mean < 0.75
    assert "No groups were given" in without.notes[0]
    assert within.groups.n == 12
    assert not any("groups" in note for note in within.notes)


@pytest.mark.parametrize("others", [("test",), ("val", "test"), ("val",)])
def test_what_is_kept_for_the_report_is_not_looked_at(tmp_path, others):
    y = labels(72)
    splits = np.array(["train", "train", *others])[np.arange(72) // 3 % (2 + len(others))]
    X, logits = features(y, noise=2.0), np.random.default_rng(0).normal(size=(72, 4))
    hidden = splits == others[-1]
    result = rank([write(tmp_path / "a.h5", X, y, splits=splits, logits=logits)], QUICK)
    assert result.n_samples == np.sum(~hidden)
    assert result.n_not_ranked == np.sum(hidden)
    X[hidden] *= -5
    logits[hidden] = 0
    again = rank([write(tmp_path / "a.h5", X, y, splits=splits, logits=logits)], QUICK)
    assert again.files == result.files
    everything = rank([tmp_path / "a.h5"], quick(split="ignore"))
    assert everything.n_samples == 72
    assert everything.files != result.files


def test_a_fold_column_prescribes_the_outer_folds(tmp_path):
    y, X = labels(), features(labels(), noise=2.0)
    folds = np.array(["x", "y", "z", "w"])[np.random.default_rng(0).integers(0, 4, N)]
    result = rank([write(tmp_path / "a.h5", X, y, folds=folds)], QUICK)
    assert len(result.files[0].score.folds) == 4
    assert "4 folds" in result.description


def test_unlabelled_rows_are_left_out_and_counted(tmp_path):
    y = labels()
    X = features(y, noise=2.0)
    y[[3, 4]] = ""
    result = rank([write(tmp_path / "a.h5", X, y)], QUICK)
    assert result.n_samples == N - 2
    assert result.classes == ["class 0", "class 1", "class 2"]
    assert "Samples without a label, left out: 2." in result.notes
    rest = np.setdiff1d(np.arange(N), [3, 4])
    alone = rank([write(tmp_path / "b.h5", X[rest], y[rest])], QUICK)
    assert alone.files[0].score == result.files[0].score


def test_small_classes_are_left_out_when_asked_for(tmp_path):
    y = labels()
    y[[0, 1]] = "rare"
    paths = [write(tmp_path / "a.h5", features(y), y)]
    with pytest.raises(LabelsError, match="--min-per-class 3"):
        rank(paths, QUICK)
    result = rank(paths, quick(min_per_class=3))
    assert result.n_samples == N - 2
    assert "Classes left out as too small: rare (2)." in result.notes


def test_of_views_the_plain_image_counts(tmp_path):
    y, rng = labels(), np.random.default_rng(0)
    X, logits = features(y, noise=2.0), rng.normal(size=(N, 4))
    plain = rank([write(tmp_path / "a.h5", X, y, logits=logits)], QUICK)
    X3 = np.stack([X, 0 * X, -X], axis=1)
    logits3 = np.stack([logits, 0 * logits, -logits], axis=1)
    views = rank([write(tmp_path / "a.h5", X3, y, logits=logits3, views=3)], QUICK)
    assert views.files == plain.files
    assert any("plain image" in note for note in views.notes)


# ---- files that do not go together


@pytest.mark.parametrize(
    ("column", "values", "word"),
    [("groups", ["p"] * N, "group"), ("splits", ["train"] * N, "split"), ("folds", ["1", "2"] * (N // 2), "fold")],
)
def test_files_that_disagree_about_a_sample_are_refused(tmp_path, column, values, word):
    y = labels()
    paths = [write(tmp_path / "a.h5", features(y), y), write(tmp_path / "b.h5", features(y), y, **{column: values})]
    with pytest.raises(LabelsError, match=rf"a\.h5 and .*b\.h5 give {N} of {N} samples another {word}, the first '000"):
        rank(paths, QUICK)


def test_another_label_or_another_image_under_one_key_is_refused(tmp_path):
    y = labels()
    other = y.copy()
    other[5] = "class 0"
    a = write(tmp_path / "a.h5", features(y), y)
    b = write(tmp_path / "b.h5", features(y), other)
    with pytest.raises(
        LabelsError, match=r"1 of 48 samples another label, the first '005.png': 'class 2' and 'class 0'"
    ):
        rank([a, b], QUICK)
    sha = [f"{i + (i == 7) * 1000:064x}" for i in range(N)]
    c = write(tmp_path / "c.h5", features(y), y, sha=sha)
    with pytest.raises(InputError, match=r"1 of 48 samples are other images in .*c\.h5 .* '007.png'"):
        rank([a, c], QUICK)
    unknown = write(tmp_path / "d.h5", features(y), y, sha=[""] * N)
    assert len(rank([a, unknown], QUICK).files) == 2


def test_other_samples_are_refused_or_left_out(tmp_path):
    y = labels()
    X = features(y, noise=2.0)
    a = write(tmp_path / "a.h5", X, y)
    fewer = write(tmp_path / "b.h5", X[:-6], y[:-6])
    with pytest.raises(
        InputError, match=r"b\.h5 lacks 6 .* the first '042.png'.* 42 that every file has.*allow-missing"
    ):
        rank([a, fewer], QUICK)
    result = rank([a, fewer], quick(allow_missing=True))
    assert result.n_samples == 42
    assert result.n_left_out == 6
    assert "Samples that not every file has, left out: 6." in result.notes
    assert result.files[0].score == result.files[1].score == rank([fewer], QUICK).files[0].score
    elsewhere = write(tmp_path / "c.h5", X, y, keys=[f"other/{i}.png" for i in range(N)])
    with pytest.raises(InputError, match=r"no sample is in every file: .*'000.png', .*'other/0.png'"):
        rank([a, elsewhere], quick(allow_missing=True))


def test_failed_rows_need_to_be_allowed(tmp_path):
    y = labels()
    X = features(y, noise=2.0)
    a, b = write(tmp_path / "a.h5", X, y, failed=[0]), write(tmp_path / "b.h5", X, y, failed=[1, 9])
    with pytest.raises(StoreIncompleteError, match="allow-missing"):
        rank([a, b], QUICK)
    result = rank([a, b], quick(allow_missing=True))
    assert result.n_samples == N - 3
    assert result.files[0].score == result.files[1].score


def test_what_cannot_be_ranked_says_why(tmp_path):
    y = np.array(["only"] * N)
    with pytest.raises(LabelsError, match="only one class, 'only'"):
        rank([write(tmp_path / "a.h5", features(labels()), y)], QUICK)
    with pytest.raises(LabelsError, match="no labelled samples"):
        rank([write(tmp_path / "b.h5", features(labels()), [""] * N)], QUICK)
    with pytest.raises(UsageError, match="at least one"):
        rank([], QUICK)
    with pytest.raises(UsageError, match="twice"):
        rank([tmp_path / "a.h5", tmp_path / "." / "a.h5"], QUICK)
    with pytest.raises(StoreError, match="no such feature file"):
        rank([tmp_path / "nowhere.h5"], QUICK)


def test_a_file_that_is_replaced_meanwhile_is_an_error_not_a_mixture(tmp_path):
    y = labels()
    a, b = write(tmp_path / "a.h5", features(y), y), write(tmp_path / "b.h5", features(y), y)

    def replace(done, total):
        if done == 1:
            write(b, features(y, seed=9), y)

    with pytest.raises(StoreError, match=r"b\.h5: the file was replaced"):
        rank([a, b], QUICK, progress=replace)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"scaling": "minmax"}, UnknownNameError),
        ({"scoring": "acuracy"}, UnknownNameError),
        ({"cv": 1}, UsageError),
        ({"C_grid": (1.0, 0.1, 3)}, UsageError),
        ({"split": "train"}, UsageError),
        ({"n_jobs": 0}, UsageError),
    ],
)
def test_options_are_checked_when_they_are_made(changes, error):
    with pytest.raises(error):
        RankOptions(**changes)


def test_progress_goes_over_all_files_to_the_end(tmp_path):
    y = labels()
    steps = []
    paths = [write(tmp_path / f"{i}.h5", features(y, seed=i), y) for i in range(3)]
    rank(paths, QUICK, progress=lambda done, total: steps.append((done, total)))
    total = steps[0][1]
    assert steps == [(done, total) for done in range(1, total + 1)]


# ---- ties


def test_features_that_do_not_vary_are_the_last_and_no_tie(tmp_path):
    y = labels(60, 2)
    paths = [
        write(tmp_path / "zero.h5", np.zeros((60, 3), np.float32), y),
        write(tmp_path / "a.h5", features(y, noise=0.01), y),
    ]
    result = rank(paths, quick(cv=5))
    assert result.names == ["a.h5", "zero.h5"]
    assert result.files[1].score.folds == [0.5] * 5
    assert result.files[0].score.folds == [1.0] * 5
    assert not result.files[1].tied
    assert result.files[1].transferability["h_score"] == 0


@pytest.mark.parametrize(
    ("folds", "expected"),
    [
        ([0.1, 0.1, 0.1, 0.1, 0.1], False),  # no width, and chance would not do it five times
        ([0.1, 0.1, 0.1], True),
        ([0.0] * 5, True),
        ([None, None], True),
    ],
)
def test_without_an_interval_a_tie_is_what_chance_could_bring(folds, expected):
    values = [value for value in folds if value is not None]
    assert is_tie(Interval(np.mean(values) if values else None, None, None, folds, "")) is expected


def test_the_difference_is_tested_by_pairs_with_the_corrected_variance(tmp_path):
    """The plain paired t test, widened by the root of 1 + k / (k - 1) for the training parts that folds share."""
    y = labels(120)
    paths = [write(tmp_path / f"{i}.h5", features(y, noise=2.0 + i / 2, seed=i), y) for i in (0, 1)]
    first, second = rank(paths, quick(cv=5)).files
    folds = np.subtract(first.score.folds, second.score.folds)
    plain = ttest_1samp(folds, 0).confidence_interval(0.95)
    half = (plain.high - plain.low) / 2 * np.sqrt(1 + 5 / 4)
    assert second.behind.high - second.behind.mean == pytest.approx(half)
    assert second.behind.mean - second.behind.low == pytest.approx(half)
