"""What `featx fewshot` promises: whole groups, splits kept, the heads' own scores, and no more said than known."""

import dataclasses
import json

import numpy as np
import pytest
from feature_files import feature_set, spec_of, write_file
from threadpoolctl import threadpool_limits

from featx.errors import LabelsError, SpecMismatchError, StoreIncompleteError, UnknownNameError, UsageError
from featx.fewshot import FewShotOptions, fewshot
from featx.learn.draws import deal
from featx.learn.heads import make_head
from featx.suggest import suggest

SPEC = spec_of(8)
QUICK = FewShotOptions(repeats=6)
N = 120


@pytest.fixture(autouse=True)
def _quick(no_waiting_for_the_disk):
    with threadpool_limits(1):
        yield


def quick(**changes):
    return dataclasses.replace(QUICK, **changes)


def data(n=N, n_classes=3, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % n_classes
    X = rng.normal(size=(n_classes, 8))[codes] + noise * rng.normal(size=(n, 8))
    return X.astype(np.float32), np.array([f"class {code}" for code in codes], dtype=object)


def write(path, X, y, *, failed=(), sha=None, spec=SPEC, **columns):
    if sha is not None:
        columns["sha256"] = sha
    return write_file(path, feature_set(X, y, spec=spec, **columns), failed=failed)


def named(result):
    return {head.name: head for head in result.heads}


def splits(n_train=90):
    return ["train"] * n_train + ["test"] * (N - n_train)


# ---- scores


def test_scores_are_those_of_each_head_fitted_on_each_draw(tmp_path):
    X, y = data()
    result = fewshot(write(tmp_path / "x.h5", X, y, splits=splits()), quick(shots=(1, 4)))
    _, codes = np.unique(y, return_inverse=True)
    deals = deal(codes, None, repeats=6, parts=(np.arange(90), np.arange(90, N)))
    value = {"prototype": 0.0, "logreg": 10.0, "knn": None, "lda": 0.8}
    for name, head in named(result).items():
        for shot in head.scores:
            own = []
            for one in deals:
                rows = one.draw(shot.k).fitted
                model = make_head(name, shot.k if name == "knn" else value[name], "l2").fit(X[rows], codes[rows])
                own.append(np.mean(model.predict(X[90:]) == codes[90:]))
            assert shot.score.folds == pytest.approx(own, abs=1e-12)
            assert shot.score.mean == pytest.approx(np.mean(own))
            assert shot.score.low < shot.score.mean < shot.score.high
    assert list(named(result)) == ["logreg", "lda", "knn", "prototype"]
    assert (result.n_pool, result.n_scored, result.metric) == (90, 30, "balanced_accuracy")


def test_shots_go_up_to_all_there_are_drawn_once_where_that_is_everything(tmp_path):
    X, y = data()
    result = fewshot(write(tmp_path / "x.h5", X, y, splits=splits()), quick(heads=("prototype",)))
    [head] = result.heads
    assert [(shot.k, shot.n_draws) for shot in head.scores] == [(1, 6), (2, 6), (5, 6), (10, 6), (20, 6), (30, 1)]
    assert head.curve.check.k == 30
    means = [shot.score.mean for shot in head.scores]
    assert means[-1] > means[0]


def test_it_is_the_same_every_time_and_json_can_hold_it(tmp_path):
    X, y = data()
    path = write(tmp_path / "x.h5", X, y, groups=[f"p{i // 4}" for i in range(N)])
    options = quick(shots=(1, 3), transductive=True)
    one, two = (fewshot(path, options).to_dict() for _ in range(2))
    assert {**one, "seconds": 0} == {**two, "seconds": 0}
    assert json.loads(json.dumps(one, allow_nan=False))["groups"] == {"n": 30, "source": "column patient"}
    assert fewshot(path, dataclasses.replace(options, random_state=1)).to_dict()["heads"] != one["heads"]


def test_patients_that_look_alike_do_not_make_scores_better_than_chance(tmp_path):
    """Each patient has a face of its own, and a label that means nothing."""
    rng = np.random.default_rng(0)
    patients = np.arange(N) // 4
    X = (5 * rng.normal(size=(30, 8))[patients] + 0.1 * rng.normal(size=(N, 8))).astype(np.float32)
    y = np.array(["a", "b"], dtype=object)[rng.permutation(30) % 2][patients]
    options = quick(heads=("knn",), shots=(30,), repeats=12)
    alone = fewshot(write(tmp_path / "x.h5", X, y), options)
    whole = fewshot(write(tmp_path / "x.h5", X, y, groups=[f"p{p}" for p in patients]), options)
    assert alone.heads[0].scores[0].score.mean > 0.9
    assert any("No groups were given" in note for note in alone.notes)
    assert abs(whole.heads[0].scores[0].score.mean - 0.5) < 0.2
    assert not whole.notes


def test_values_are_chosen_inside_where_there_are_samples_enough(tmp_path):
    X, y = data()
    path = write(tmp_path / "x.h5", X, y, splits=splits())
    result = fewshot(path, quick(heads=("logreg", "prototype"), shots=(2, 10), inner_cv=3))
    few, more = named(result)["logreg"].scores
    assert few.values == {"C = 10": 6}
    assert sum(more.values.values()) == 6
    assert named(result)["prototype"].scores[1].values == {}


def test_episodes_have_the_interval_of_the_literature(tmp_path):
    X, y = data(n_classes=5)
    result = fewshot(write(tmp_path / "x.h5", X, y), quick(episodes=40, ways=3, queries=5, shots=(1, 5)))
    for head in result.heads:
        assert head.curve is None
        for shot in head.scores:
            own = np.array(shot.score.folds)
            assert shot.n_draws == 40
            assert shot.score.high - shot.score.mean == pytest.approx(1.96 * own.std(ddof=1) / 40**0.5)
    means = [shot.score.mean for shot in named(result)["prototype"].scores]
    assert 1 / 3 < means[0] < means[1]
    assert result.metric == "accuracy"


# ---- samples without a label


def test_samples_without_labels_help_where_they_are_asked_for(tmp_path):
    X, y = data(noise=0.9)
    more, _ = data(n=240, noise=0.9)
    everything = np.concatenate([X, more[N:]])
    y = np.concatenate([y, np.full(N, "", dtype=object)])
    path = write(tmp_path / "x.h5", everything, y, splits=[*splits(), *[""] * N])
    plain = fewshot(path, quick(shots=(1,), repeats=20))
    assert any(f"Samples without a label, left out: {N}" in note for note in plain.notes)
    result = named(fewshot(path, quick(shots=(1,), repeats=20, transductive=True)))
    assert list(result) == ["logreg", "lda", "knn", "prototype", "prototype+unlabelled", "label-propagation"]
    scores = {name: head.scores[0].score.mean for name, head in result.items()}
    assert scores["prototype+unlabelled"] > scores["prototype"]
    assert scores["label-propagation"] > scores["prototype"]


def test_no_unlabelled_sample_of_a_scored_group_is_learnt_from(tmp_path):
    X, y = data()
    spread = np.concatenate([X, 100 * X[90:]])
    y = np.concatenate([y, np.full(30, "", dtype=object)])
    groups = [f"p{i}" for i in [*range(N), *range(90, N)]]
    options = quick(shots=(2,), heads=("prototype",), transductive=True)
    with_them = fewshot(write(tmp_path / "x.h5", spread, y, groups=groups, splits=[*splits(), *[""] * 30]), options)
    without = fewshot(write(tmp_path / "x.h5", X, y[:N], groups=groups[:N], splits=splits()), options)
    assert [head.scores[0].score.folds for head in with_them.heads] == [
        pytest.approx(head.scores[0].score.folds) for head in without.heads
    ]


def test_suggestions_come_from_the_other_file_without_what_has_a_label(tmp_path):
    X, y = data()
    labelled = write(tmp_path / "x.h5", X[:12], y[:12])
    others = write(tmp_path / "o.h5", X, np.full(N, "", dtype=object))
    found = suggest(labelled, 8, unlabelled=others)
    keys = [one.key for one in found]
    assert len(set(keys)) == 8
    assert min(keys) >= "012.png"  # the first twelve are the same bytes
    assert all(0 <= one.margin <= one.probability <= 1 for one in found)
    assert suggest(labelled, 8, unlabelled=others) == found
    same = write(tmp_path / "s.h5", X, np.where(np.arange(N) < 12, y, ""))
    assert {one.key for one in suggest(same, 8)} == set(keys)
    assert len(suggest(same, 500)) == N - 12


def test_suggestions_that_cannot_be_made_say_why(tmp_path):
    X, y = data()
    path = write(tmp_path / "x.h5", X, y)
    with pytest.raises(LabelsError, match="no sample without a label"):
        suggest(path, 3)
    with pytest.raises(UsageError, match="standardise"):
        suggest(path, 3, quick(scaling="standardise"))
    one = write(tmp_path / "one.h5", X, np.where(np.arange(N) % 3, "", y))
    with pytest.raises(LabelsError, match="at least two classes"):
        suggest(one, 3)
    foreign = write(tmp_path / "f.h5", X, y, spec=dataclasses.replace(SPEC, node="other"))
    with pytest.raises(SpecMismatchError, match="node"):
        suggest(path, 3, unlabelled=foreign)


# ---- what cannot be done


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"heads": ("logrec",)}, UnknownNameError, "did you mean logreg"),
        ({"scoring": "roc_auc"}, UnknownNameError, "balanced_accuracy"),
        ({"scaling": "minmax"}, UnknownNameError, "standardise"),
        ({"heads": ()}, UsageError, "--head"),
        ({"repeats": 1}, UsageError, "--repeats"),
        ({"shots": (0,)}, UsageError, "--shots"),
        ({"inner_cv": 1}, UsageError, "--inner-cv 1"),
        ({"episodes": 1}, UsageError, "--episodes 1"),
        ({"episodes": 5, "transductive": True}, UsageError, "--transductive"),
        ({"split": "never"}, UsageError, "--split never"),
    ],
)
def test_options_that_mean_nothing_are_refused(changes, error, words):
    with pytest.raises(error, match=words):
        quick(**changes)


def test_files_that_leave_nothing_to_draw_say_so(tmp_path):
    X, y = data()
    path = write(tmp_path / "x.h5", X, y, splits=splits())
    with pytest.raises(UsageError, match=r"--shots 31: there are 30 samples of the smallest class"):
        fewshot(path, quick(shots=(31,)))
    with pytest.raises(UsageError, match=r"--ways 5: the file has 3 classes"):
        fewshot(path, quick(episodes=5))
    with pytest.raises(LabelsError, match="only one class"):
        fewshot(write(tmp_path / "one.h5", X, np.full(N, "a", dtype=object)), QUICK)
    with pytest.raises(LabelsError, match="no labelled samples"):
        fewshot(write(tmp_path / "none.h5", X, np.full(N, "", dtype=object)), QUICK)
    alone = np.where(np.arange(N) == N - 1, "new", y)
    with pytest.raises(LabelsError, match="class 'new' is scored"):
        fewshot(write(tmp_path / "new.h5", X, alone, splits=splits()), QUICK)
    with pytest.raises(StoreIncompleteError, match="--allow-missing"):
        fewshot(write(tmp_path / "m.h5", X, y, failed=(3,)), QUICK)
    fewshot(tmp_path / "m.h5", quick(allow_missing=True, heads=("prototype",), shots=(1,)))


def test_small_classes_are_left_out_when_asked_for(tmp_path):
    X, y = data()
    y[:2] = "rare"
    path = write(tmp_path / "x.h5", X, y)
    with pytest.raises(LabelsError):
        fewshot(path, QUICK)
    result = fewshot(path, quick(min_per_class=4, heads=("prototype",), shots=(1, 2)))
    assert result.classes == ["class 0", "class 1", "class 2"]
    assert any("rare (2)" in note for note in result.notes)
    assert result.heads[0].curve.more.verdict == "cannot say"
