"""Scores of numbers: scikit-learn's and scipy's values, and influences that leaving a sample out confirms."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from featx.errors import UnknownNameError
from featx.learn.regression.metrics import METRICS, SCORINGS, check_scoring, of_new


@pytest.fixture
def numbers():
    rng = np.random.default_rng(0)
    true = rng.exponential(size=200)
    return true, 0.7 * true + rng.normal(scale=0.4, size=200)


def test_scorings_are_those_of_scikit_learn_and_scipy(numbers):
    true, predicted = numbers
    expected = {
        "neg_mean_absolute_error": -mean_absolute_error(true, predicted),
        "neg_root_mean_squared_error": -root_mean_squared_error(true, predicted),
        "r2": r2_score(true, predicted),
        "spearman": spearmanr(true, predicted).statistic,
    }
    assert set(expected) == set(SCORINGS)
    both = np.stack([predicted, true])
    for name, value in expected.items():
        assert SCORINGS[name](true, both) == pytest.approx([value, {"r2": 1, "spearman": 1}.get(name, 0)])


def test_metrics_are_the_same_values(numbers):
    tested = of_new(*numbers)
    for name, scoring in (("r2", "r2"), ("mae", "neg_mean_absolute_error"), ("spearman", "spearman")):
        assert METRICS[name].of(tested) == pytest.approx(abs(float(SCORINGS[scoring](*numbers))))


def test_undefined_is_nan_and_one_number_for_all_orders_nothing():
    same = np.ones(5)
    assert np.isnan(SCORINGS["r2"](same, np.arange(5.0)))
    assert np.isnan(SCORINGS["spearman"](same, np.arange(5.0)))
    assert SCORINGS["spearman"](np.arange(5.0), same) == 0
    assert np.isnan(METRICS["spearman"].of(of_new(np.arange(5.0), same)))


@pytest.mark.parametrize("name", METRICS)
def test_influences_are_how_far_a_sample_moves_the_score(name, numbers):
    metric, tested = METRICS[name], of_new(*numbers)
    influences = metric.influence(tested)
    assert influences.sum() == pytest.approx(0, abs=1e-9)
    whole, n = metric.link(metric.of(tested)), len(numbers[0])
    without = [metric.link(metric.of(tested.take(np.arange(n) != i))) for i in range(n)]
    left_out = (whole - np.array(without)) * (n - 1) / n
    assert np.corrcoef(influences, left_out)[0, 1] > 0.999
    assert np.std(influences) == pytest.approx(np.std(left_out), rel=0.05)
    assert metric.back(metric.link(metric.of(tested))) == pytest.approx(metric.of(tested))


def test_an_unknown_scoring_lists_close_ones():
    with pytest.raises(UnknownNameError, match="did you mean spearman"):
        check_scoring("spearmans")
