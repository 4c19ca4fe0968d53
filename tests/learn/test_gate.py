"""The gate: its verdict turns where a sign test by hand does, and does not depend on who is called first."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featx.learn.gate import BETTER, NO_EVIDENCE, WORSE, Verdict
from featx.learn.paired import Comparison
from featx.learn.scores import FoldPredictions
from featx.learn.splits import Fold

CLASSES = ["ant", "bee"]
NONE = np.array([], dtype=np.int64)


def labels(n):
    return np.array([CLASSES[i % 2] for i in range(n)])


def calls(y, wrong=(), *, n_folds=1):
    """Predictions that are right but for some places, in consecutive folds."""
    predicted = np.array(y)
    places = list(wrong)
    predicted[places] = np.where(predicted[places] == "ant", "bee", "ant")
    tests = np.array_split(np.arange(len(y)), n_folds)
    return [
        FoldPredictions(Fold(0, i, np.setdiff1d(np.arange(len(y)), test), test), predicted[test], None)
        for i, test in enumerate(tests)
    ]


def judge(y, tuned, frozen, **options):
    return Verdict.of(y, tuned, frozen, CLASSES, **{"is_fixed": True} | options)


@pytest.mark.parametrize(("n_wrong", "verdict"), [(0, NO_EVIDENCE), (5, NO_EVIDENCE), (6, BETTER)])
def test_of_twelve_samples_six_that_all_speak_for_one_are_evidence_and_five_are_not(n_wrong, verdict):
    """Of k differences of one sign, all 2^k ways to flip them but two are smaller: p = 2 / 2^k."""
    y = labels(12)
    wrong, right = calls(y, range(n_wrong)), calls(y)
    found = judge(y, right, wrong)
    assert found.verdict == verdict
    assert found.comparison.p_value == pytest.approx(min(1.0, 2 / 2**n_wrong))
    assert found.to_dict()["difference"]["mean"] == pytest.approx(n_wrong / 12)
    other = judge(y, wrong, right)
    assert other.verdict == {BETTER: WORSE}.get(verdict, verdict)
    assert other.comparison.p_value == found.comparison.p_value


def test_what_many_samples_of_few_groups_say_counts_by_group():
    y, groups = labels(12), np.repeat(np.arange(3), 4)
    found = judge(y, calls(y), calls(y, range(12)), groups=groups)
    assert found.verdict == NO_EVIDENCE
    assert found.comparison.p_value == pytest.approx(2 / 2**3)
    assert "over 3 groups" in found.describe()


@given(
    tuned=st.sets(st.integers(0, 29)),
    frozen=st.sets(st.integers(0, 29)),
    n_folds=st.integers(1, 3),
)
def test_it_does_not_matter_who_is_called_first(tuned, frozen, n_folds):
    y = labels(30)
    one, other = (calls(y, wrong, n_folds=n_folds) for wrong in (tuned, frozen))
    found, turned = judge(y, one, other, is_fixed=False), judge(y, other, one, is_fixed=False)
    assert turned.verdict == {BETTER: WORSE, WORSE: BETTER, NO_EVIDENCE: NO_EVIDENCE}[found.verdict]
    difference = (len(frozen) - len(tuned)) / 30
    assert found.to_dict()["difference"]["mean"] == pytest.approx(difference)
    assert turned.to_dict()["difference"]["mean"] == pytest.approx(-difference)
    assert (found.verdict == BETTER) <= (difference > 0)
    assert len(found.to_dict()["difference"]["folds"]) == n_folds


@pytest.mark.parametrize(("n_folds", "is_fixed", "is_single"), [(1, True, True), (1, False, True), (5, False, False)])
def test_one_training_each_is_said_to_hide_how_trainings_differ(n_folds, is_fixed, is_single):
    y = labels(40)
    found = judge(y, calls(y, n_folds=n_folds), calls(y, range(0, 40, 2), n_folds=n_folds), is_fixed=is_fixed)
    assert found.is_single == found.to_dict()["single_training"] == is_single
    assert ("One training each" in found.describe()) == is_single


def test_the_words_hold_the_numbers_and_json_the_words():
    y = labels(40)
    found = judge(y, calls(y, [0]), calls(y, range(0, 40, 2)))
    assert found.verdict == BETTER
    for words in ("better: the tuned network is right more often", "0.975 tuned, 0.500 frozen", "+47.5 points",
                  "95 % interval", "over 40 samples", "two-sided at 5 %"):  # fmt: skip
        assert words in found.describe()
    told = json.loads(json.dumps(found.to_dict()))
    assert told["words"] == found.describe()
    assert told["difference"]["low"] < 0.475 < told["difference"]["high"]


def test_what_cannot_be_compared_is_no_evidence_in_words_too():
    undefined = Verdict(
        NO_EVIDENCE, Comparison("tuned", "frozen", "accuracy", (None, None), None, None, 0, "samples"), True
    )
    assert undefined.describe() == "no evidence: the two cannot be compared"
    assert undefined.to_dict()["difference"] == {"mean": None, "low": None, "high": None, "folds": []}
