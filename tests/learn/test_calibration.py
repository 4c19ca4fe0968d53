"""Maps against independent formulas, and a choice that looks only at what the maps were not fitted on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from featx.errors import UnknownNameError
from featx.learn.calibration import (
    ENOUGH_FOR_ISOTONIC,
    Calibration,
    Scored,
    apply_map,
    choose_calibration,
    deal_units,
    fit_map,
)


def scored(n=120, n_classes=3, n_views=1, *, sharper=1.0, seed=0, groups=None):
    """Probabilities that are true, then made sharper by a factor on their logits."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(n, 1, n_classes)) + 0.5 * rng.normal(size=(n, n_views, n_classes))
    true = (rng.random((n, 1)) > softmax(logits, axis=-1).mean(axis=1).cumsum(axis=1)).sum(axis=1)
    units = np.arange(n) if groups is None else groups
    return Scored(softmax(sharper * logits, axis=-1), np.minimum(true, n_classes - 1), np.arange(n) % 5, units)


def loss_at(temperature, some):
    """The objective of the temperature in plain words, for one view."""
    n, _, n_classes = some.probabilities.shape
    total = 0.0
    for p, k in zip(some.probabilities[:, 0], some.true, strict=True):
        logs = log_softmax(np.log(p) / temperature)
        right, wrong = (some.n_units + 1) / (some.n_units + 2), 1 / (some.n_units + 2) / (n_classes - 1)
        total -= sum((right if j == k else wrong) * logs[j] for j in range(n_classes))
    return total / n


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.floats(0.3, 4.0))
def test_the_temperature_is_the_minimum_of_its_objective(seed, n_classes, sharper):
    some = scored(30, n_classes, sharper=sharper, seed=seed)
    (temperature,) = fit_map("temperature", some)["temperature"]
    best = loss_at(temperature, some)
    assert all(best <= loss_at(temperature * factor, some) + 1e-12 for factor in (0.5, 0.9, 0.999, 1.001, 1.1, 2.0))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.5, 3.0))
def test_logits_times_a_factor_need_the_temperature_times_it(seed, factor):
    one, other = scored(60, seed=seed), scored(60, seed=seed, sharper=factor)
    ratio = fit_map("temperature", other)["temperature"] / fit_map("temperature", one)["temperature"]
    assert ratio == pytest.approx(factor, rel=1e-4)


def test_a_head_that_was_never_wrong_is_not_believed_beyond_the_rule_of_succession():
    p = np.full((40, 1, 2), 0.1)
    p[np.arange(40), 0, np.arange(40) % 2] = 0.9
    some = Scored(p, np.arange(40) % 2, np.arange(40) % 5, np.arange(40))
    mapped = apply_map("temperature", fit_map("temperature", some), p)
    np.testing.assert_allclose(mapped.max(axis=-1), 41 / 42, atol=1e-6)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_sigmoids_are_platts(n_classes):
    some = scored(n_classes=n_classes)
    found = fit_map("sigmoid", some)
    for place, k in enumerate(range(n_classes) if n_classes > 2 else [1]):
        p = some.probabilities[:, 0, k]
        odds, positive = np.log(p / (1 - p)), some.true == k
        up, down = (positive.sum() + 1) / (positive.sum() + 2), 1 / ((~positive).sum() + 2)
        target = np.where(positive, up, down)
        platt = LogisticRegression(C=np.inf, tol=1e-10).fit(
            np.r_[odds, odds][:, None],
            np.r_[np.ones(len(odds)), np.zeros(len(odds))],
            sample_weight=np.r_[target, 1 - target],
        )
        assert found["slopes"][place] == pytest.approx(platt.coef_[0, 0], rel=1e-4)
        assert found["intercepts"][place] == pytest.approx(platt.intercept_[0], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_isotonic_is_scikit_learns_between_its_ends(n_classes):
    some, new = scored(n_classes=n_classes), scored(n_classes=n_classes, seed=1).probabilities[:, 0]
    mapped = apply_map("isotonic", fit_map("isotonic", some), new)
    columns = []
    for k in range(n_classes) if n_classes > 2 else [1]:
        model = IsotonicRegression(y_min=1 / 122, y_max=121 / 122, out_of_bounds="clip")
        columns.append(model.fit(some.probabilities[:, 0, k], some.true == k).predict(new[:, k]))
    reference = np.stack(columns, axis=1) if n_classes > 2 else np.stack([1 - columns[0], columns[0]], axis=1)
    np.testing.assert_allclose(mapped, reference / reference.sum(axis=1, keepdims=True), atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["temperature", "sigmoid", "isotonic"]), st.integers(2, 4), st.integers(1, 3), st.integers(0, 99)
)
def test_what_comes_out_are_probabilities_even_of_certainties(method, n_classes, n_views, seed):
    some = scored(40, n_classes, n_views, sharper=60.0, seed=seed)  # some are 0 and 1 to the last digit
    mapped = apply_map(method, fit_map(method, some), some.probabilities)
    assert mapped.shape == some.probabilities.shape
    assert np.isfinite(mapped).all()
    assert (mapped >= 0).all()
    np.testing.assert_allclose(mapped.sum(axis=-1), 1, atol=1e-12)
    if method == "temperature":
        order = np.argsort(some.probabilities, axis=-1, kind="stable")
        assert (np.diff(np.take_along_axis(mapped, order, axis=-1), axis=-1) >= 0).all()


@pytest.mark.parametrize("method", ["temperature", "sigmoid", "isotonic"])
def test_copies_of_a_view_change_nothing(method):
    one = scored()
    many = Scored(np.repeat(one.probabilities, 3, axis=1), one.true, one.folds, one.units)
    for name, values in fit_map(method, many).items():
        np.testing.assert_allclose(values, fit_map(method, one)[name], rtol=1e-6, atol=1e-9)
    assert choose_calibration(many, method).losses == pytest.approx(choose_calibration(one, method).losses)


# The choice


def test_true_probabilities_are_left_alone_and_sharpened_ones_get_their_temperature():
    assert choose_calibration(scored(400)).method == "none"
    found = choose_calibration(scored(400, sharper=3.0))
    assert found.method == "temperature"
    assert found.temperature == pytest.approx(3.0, rel=0.15)
    assert (found.n_samples, found.n_units) == (400, 400)


def test_a_tie_goes_to_the_simpler_one():
    equal = Scored(np.full((50, 1, 2), 0.5), np.arange(50) % 2, np.arange(50) % 5, np.arange(50))
    assert choose_calibration(equal).method == "none"  # no temperature changes one half


def test_the_losses_are_those_of_left_out_folds():
    some = scored(sharper=2.0)
    found = choose_calibration(some)
    left_out = np.empty((len(some), 3))
    for fold in range(5):
        rest = some.take(some.folds != fold)
        left_out[some.folds == fold] = apply_map(
            "temperature", fit_map("temperature", rest), some.probabilities[some.folds == fold, 0]
        )
    assert found.losses["temperature"] == pytest.approx(log_loss(some.true, left_out))
    assert found.losses["none"] == pytest.approx(log_loss(some.true, some.probabilities[:, 0]))


def test_a_gain_of_one_group_alone_is_no_gain():
    """Forty pictures of one patient, all certain and wrong, among sixty patients of whom the head speaks the truth."""
    fair, one = scored(60), scored(40)
    p = np.concatenate([fair.probabilities, np.tile([0.98, 0.01, 0.01], (40, 1, 1))])
    true, folds = np.r_[fair.true, np.ones(40, int)], np.r_[fair.folds, one.folds]
    as_samples = Scored(p, true, folds, np.arange(100))
    as_groups = Scored(p, true, np.r_[fair.folds, np.zeros(40, int)], np.r_[np.arange(60), np.full(40, 60)])
    assert choose_calibration(as_samples).method == "temperature"
    assert choose_calibration(as_groups).method == "none"


def test_isotonic_regression_is_considered_with_enough_groups_only():
    n = ENOUGH_FOR_ISOTONIC
    assert set(choose_calibration(scored(n - 1)).losses) == {"none", "temperature"}
    assert set(choose_calibration(scored(n)).losses) == {"none", "temperature", "isotonic"}
    assert "isotonic" not in choose_calibration(scored(n, groups=np.arange(n) // 2)).losses


def test_isotonic_regression_wins_where_no_temperature_can_mend_it():
    some = scored(3000, n_classes=2)
    p = some.probabilities[:, :, 1]
    bent = np.where(p > 0.5, 0.5 + (p - 0.5) / 20, p)  # one half of the scale is squeezed
    found = choose_calibration(Scored(np.stack([1 - bent, bent], axis=-1), some.true, some.folds, some.units))
    assert found.method == "isotonic"


def test_one_fold_alone_is_dealt_into_several_with_whole_groups():
    groups = np.repeat(np.arange(30), 4)
    some = scored(groups=groups)
    one_fold = Scored(some.probabilities, some.true, np.zeros(120, dtype=int), groups)
    dealt = deal_units(one_fold)
    assert set(dealt) == set(range(5))
    assert all(len(set(dealt[groups == g])) == 1 for g in range(30))
    assert choose_calibration(one_fold).losses.keys() == {"none", "temperature"}


def test_asked_for_is_given():
    assert choose_calibration(scored(), "none").losses == {}
    for method in ("temperature", "sigmoid", "isotonic"):
        assert choose_calibration(scored(), method).method == method
    with pytest.raises(UnknownNameError, match="temperature"):
        choose_calibration(scored(), "temprature")
    assert Calibration("none").apply(np.eye(2)).tolist() == np.eye(2).tolist()
