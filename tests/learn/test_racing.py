"""What races between backbones promise: growing parts of whole groups, and no look beyond a training part."""

import dataclasses
from contextlib import nullcontext

import numpy as np
import pytest
from feature_files import apart
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from featx.errors import UsageError
from featx.fit import arrange, fit_classes
from featx.learn.contest import Entry
from featx.learn.groups import GroupIds, resolve_groups
from featx.learn.options import FitOptions
from featx.learn.paired import compare
from featx.learn.quick import QuickTest
from featx.learn.racing import LEAST, Field, RaceRules, hold_races
from featx.learn.ranking import RankOptions
from featx.learn.search import Job
from featx.learn.views import ViewUse

N = 120
LEAN = FitOptions(
    cv=3, inner_cv=2, C_grid=(1e-2, 1, 2), scalings=("raw",), n_jobs=1, calibration="none", conformal="off",
    novelty=False, leak_gap=False,
)  # fmt: skip
CHEAP = RankOptions(cv=3, inner_cv=2, C_grid=(0.1, 0.1, 1))
ALONE = GroupIds(None, 0, "", given=False, names=())


@pytest.fixture(autouse=True, scope="module")
def _one_limit():
    """Limit threads once: looking for the libraries takes longer than one of these fits."""
    with threadpool_limits(1), pytest.MonkeyPatch.context() as patch:
        patch.setattr("featx.learn.search.threadpool_limits", lambda n: nullcontext())
        yield


def features(n=N, d=4, **changes):
    return apart(n, d, **changes)


class Course:
    """Races on feature sets in memory; the smallest backbone is the first. Remembers what was asked for."""

    def __init__(self, files, *, options=LEAN, first=30, ties="best", y=None, cheap=CHEAP):
        self.files, self.options, self.asked = files, options, {}
        data = next(iter(files.values()))
        entry = Entry("", dataclasses.replace(data, X=np.empty((len(data), 0), np.float32)), ViewUse())
        study, _ = arrange([entry], options)
        self.jobs = [*study.outer_jobs(study.outer_folds()), study.final_job()]
        y = data.y if y is None else y
        field = Field.deal(y, study.groups, data.keys.tolist(), random_state=options.random_state)
        self.races = hold_races(
            field, self.jobs, list(files), self.fetch, RaceRules(first=first, ties=ties, cheap=cheap), options
        )

    def fetch(self, wanted):
        for name, rows in wanted.items():
            self.asked[name] = np.union1d(self.asked.get(name, rows), rows)
        return {name: self.files[name].X[rows] for name, rows in wanted.items()}

    def fit(self):
        left = {name: self.files[name] for name in self.races.survivors}
        if len(left) == 1:
            return fit_classes(next(iter(left.values())), self.options)
        return fit_classes(left, self.options, roster=self.races.roster)

    def decisions(self, race):
        return [one for one in self.races.decisions if one.race == race]


# Parts of the samples


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60)), min_size=1, max_size=150),
    st.floats(0.01, 1),
    st.floats(0.01, 1),
    st.integers(0, 3),
)
def test_parts_are_nested_stratified_and_of_whole_groups(samples, one, other, seed):
    y = np.array([f"class {label}" for label, _ in samples])
    groups = resolve_groups([f"p{patient}" for _, patient in samples], [""] * len(y), "")
    field = Field.deal(y, groups, [f"{i}" for i in range(len(y))], random_state=seed)
    rows = np.flatnonzero(np.random.default_rng(seed).random(len(y)) < 0.8)
    small, large = (field.share(rows, share) for share in sorted((one, other)))
    assert set(small) <= set(large) <= set(rows)
    assert np.array_equal(field.share(rows, 1.0), rows)
    for part in (small, large):
        assert not set(groups.ids[part]) & set(groups.ids[np.setdiff1d(rows, part)])


def test_each_class_gives_its_share_and_ten_groups_at_least():
    y = np.repeat(["common", "rare", "very rare"], [400, 60, 4])
    field = Field.deal(y, ALONE, [f"{i}" for i in range(len(y))], random_state=0)
    counts = dict(zip(*np.unique(y[field.share(np.arange(len(y)), 0.1)], return_counts=True), strict=True))
    assert counts == {"common": 40, "rare": LEAST, "very rare": 4}


def test_a_sample_more_changes_no_others_place_and_labels_have_no_say_in_the_order():
    keys = [f"{i}" for i in range(50)]
    y = np.array(["a", "b"] * 25)
    whole = Field.deal(y, ALONE, keys, random_state=3)
    fewer = Field.deal(y[1:], ALONE, keys[1:], random_state=3)
    assert np.array_equal(fewer.order, whole.order[1:])
    assert np.array_equal(Field.deal(y[::-1], ALONE, keys, random_state=3).order, whole.order)
    assert not np.array_equal(Field.deal(y, ALONE, keys, random_state=4).order, whole.order)


# Races


def test_a_clearly_better_backbone_wins_every_race_and_others_are_computed_no_further():
    course = Course({"weak": features(signal=0.0, seed=1), "strong": features(signal=4.0)}, first=40)
    assert course.races.survivors == ("strong",)
    assert course.races.roster == dict.fromkeys(("1", "2", "3", "final"), ("strong",))
    assert 40 <= len(course.asked["weak"]) < 0.5 * N
    assert np.array_equal(course.asked["weak"], course.races.wanted["weak"])
    assert {one.rung for one in course.races.decisions} == {1}
    assert all(one.standings[0].backbone == "strong" for one in course.races.decisions)


def test_a_decision_is_that_of_the_cheap_score_and_the_paired_test():
    files = {"weak": features(signal=0.4, seed=1), "middle": features(signal=1.2, seed=2), "strong": features(signal=3)}
    course = Course(files, options=dataclasses.replace(LEAN, scoring="roc_auc"), first=60)
    (decision,) = course.decisions("final")
    rows = course.races.wanted["weak"]
    y = files["weak"].y
    job = course.jobs[-1]
    own = Field.deal(y, ALONE, files["weak"].keys.tolist(), random_state=0).share(job.rows, 60 / len(job.rows))
    assert set(own) <= set(rows)
    test = QuickTest.plan(
        y[own], ALONE, RankOptions(C_grid=(0.1, 0.1, 1), scoring="roc_auc").of_fit.space, cv=3, inner_cv=2
    )
    found = {name: test.run(one.X[own].astype(float)) for name, one in files.items()}
    scores = {name: evaluation.scores["roc_auc"].mean for name, (evaluation, _) in found.items()}
    assert [(s.backbone, s.score.mean) for s in decision.standings] == sorted(scores.items(), key=lambda x: -x[1])
    for standing in decision.standings[1:]:
        parts = [test.predictions(found[name][1]) for name in ("strong", standing.backbone)]
        expected = compare(y[own], ("strong", standing.backbone), *parts, ["class 0", "class 1"], "roc_auc")
        assert standing.beside_best == expected
        # Of three, the worse half is the last one: the middle one stays however far it is behind.
        assert standing.dropped == (standing.backbone == "weak" and not expected.is_tie)


def test_nobody_who_cannot_be_told_from_the_best_is_dropped_and_of_equals_the_smaller_wins():
    twin = features(signal=1.0)
    course = Course({"small": twin, "large": dataclasses.replace(twin, X=twin.X[:, ::-1].copy())})
    assert course.races.roster["final"] == ("small", "large")
    assert len(course.races.decisions) > 4  # more than one rung
    result = course.fit()
    assert (result.file, set(result.file_of_fold)) == ("small", {"small"})


def test_ties_may_go_to_the_smaller_in_every_race():
    small, slightly_better = features(signal=1.1), features(signal=1.3)  # the same noise
    files = {"small": small, "large": slightly_better}
    course = Course(files, first=60)
    assert course.races.roster["final"] == ("small", "large")
    smaller = Course(files, first=N, ties="smaller")
    assert smaller.races.roster["final"] == ("small",)
    last = smaller.decisions("final")[-1]
    assert (last.n_samples, last.standings[0].backbone) == (N, "large")
    assert [s.backbone for s in last.standings if not s.dropped] == ["small"]
    told = Course({"small": features(signal=0.0), "large": features(signal=3.0)}, first=N, ties="smaller")
    assert told.races.roster["final"] == ("large",)


def test_labels_and_features_of_an_outer_test_part_change_nothing_in_its_own_race():
    files = {f"{k}": features(72, signal=0.5 * k, seed=k) for k in range(2)}
    course = Course(files, first=40)
    job = course.jobs[1]
    y = files["0"].y.copy()
    y[job.test] = np.random.default_rng(0).permutation(y[job.test])
    other = {name: dataclasses.replace(one, X=one.X.copy()) for name, one in files.items()}
    for one in other.values():
        one.X[job.test] = np.random.default_rng(1).normal(size=(len(job.test), 4))
    again = Course(other, first=40, y=y)
    assert course.decisions(job.name)
    assert again.decisions(job.name) == course.decisions(job.name)
    assert again.races.roster[job.name] == course.races.roster[job.name]
    assert again.decisions("final") != course.decisions("final")  # whose race it is sees them


def test_with_one_rung_it_is_the_contest_of_several_files():
    files = {"a": features(signal=0.8, seed=1), "b": features(signal=1.0, seed=2)}
    course = Course(files, first=N)
    assert (course.races.decisions, course.asked) == ([], {})
    ours, expected = course.fit().to_dict(), fit_classes(files, LEAN).to_dict()
    assert ours | {"seconds": 0} == expected | {"seconds": 0}


def test_who_was_dropped_from_a_race_cannot_win_its_part():
    files = {"a": features(signal=1.0, seed=1), "b": features(signal=1.2, seed=2)}
    everything = fit_classes(files, LEAN)
    roster = {"1": ("a",), "2": ("b",), "3": ("a",), "final": ("b",)}
    result = fit_classes(files, LEAN, roster=roster)
    assert (result.file_of_fold, result.file) == (["a", "b", "a"], "b")
    folds = [
        everything.files[name].evaluation.scores["accuracy"].folds[place] for place, name in enumerate(["a", "b", "a"])
    ]
    assert result.whole.evaluation.scores["accuracy"].folds == folds
    assert result.files["a"].evaluation == everything.files["a"].evaluation


def test_a_rung_that_cannot_be_judged_drops_nobody_and_says_why():
    y = ["common"] * 100 + ["rare"] * 8
    patients = [f"p{i}" for i in range(100)] + [f"q{i // 2}" for i in range(8)]
    files = {name: features(108, signal=s, y=y, groups=patients) for name, s in (("a", 0.0), ("b", 5.0))}
    options = dataclasses.replace(LEAN, cv=2)
    course = Course(files, options=options, cheap=dataclasses.replace(CHEAP, cv=5))
    assert course.races.roster["final"] == ("a", "b")
    assert all("too few groups" in one.unjudged and not one.standings for one in course.decisions("final"))


def test_patients_stay_whole_in_every_rung():
    files = {name: features(signal=s, groups=[f"p{i // 3}" for i in range(N)]) for name, s in (("a", 0), ("b", 0.2))}
    course = Course(files, first=30)
    ids = np.arange(N) // 3
    assert course.asked
    for rows in course.asked.values():
        assert np.array_equal(np.flatnonzero(np.isin(ids, ids[rows])), rows)


@pytest.mark.slow
def test_on_noise_the_score_is_chance_where_the_best_of_shows_more():
    options = dataclasses.replace(LEAN, heads=("lda",))
    whole, best_of = [], []
    for seed in range(16):
        y = np.random.default_rng((1, seed)).permutation([f"class {i % 2}" for i in range(48)])
        files = {f"{k}": features(48, signal=0.0, y=y, seed=(seed, k)) for k in range(5)}
        course = Course(files, options=options, first=20)
        assert course.races.decisions
        whole.append(course.fit().whole.evaluation.scores["balanced_accuracy"].mean)
        alone = fit_classes(files, options).files.values()
        best_of.append(max(one.evaluation.scores["balanced_accuracy"].mean for one in alone))
    error = np.std(whole, ddof=1) / len(whole) ** 0.5
    assert abs(np.mean(whole) - 0.5) < 3 * error < 0.08
    assert np.mean(best_of) - 0.5 > 2 * np.std(best_of, ddof=1) / len(best_of) ** 0.5
    assert np.mean(best_of) > np.mean(whole) + 0.04


def test_jobs_of_different_sizes_may_be_raced():
    files = {"weak": features(signal=0.0, seed=1), "strong": features(signal=3.0)}
    data = files["weak"]
    field = Field.deal(data.y, ALONE, data.keys.tolist(), random_state=0)
    nothing = np.array([], dtype=np.int64)
    jobs = [Job(f"{n}", [], np.arange(n), np.zeros(n), nothing) for n in (16, N)]
    races = hold_races(
        field,
        jobs,
        list(files),
        lambda w: {k: files[k].X[r] for k, r in w.items()},
        RaceRules(first=30, cheap=CHEAP),
        LEAN,
    )
    assert races.roster == {"16": ("weak", "strong"), f"{N}": ("strong",)}


@pytest.mark.parametrize("wrong", [{"first": 0}, {"ties": "largest"}])
def test_rules_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UsageError, match=f"--auto-{next(iter(wrong))}"):
        RaceRules(**wrong)
