"""Power laws through scores: exact ones are found, others as near as least squares can; and what is said of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from featx.learn.learning_curve import GAIN, RATES, PowerLaw, learning_curve

KS = (1, 2, 5, 10, 20, 50, 100)


def curve(scores, ks=KS, noise=1e-3, seed=0):
    scores = np.asarray(scores)
    rng = np.random.default_rng(seed)
    return learning_curve(ks, scores, scores + noise * rng.normal(size=(200, len(ks))))


def law(a, b, c, ks=KS):
    return 1.0 - (a + b * np.array(ks, dtype=float) ** -c)


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 0.3), st.floats(0.1, 0.6), st.integers(5, 90))
def test_an_exact_power_law_is_found(a, b, place):
    c = float(RATES[place])
    found = PowerLaw.fit(np.array(KS, dtype=float), 1.0 - law(a, b, c)[None], np.ones(len(KS)))
    assert found.c[0] == pytest.approx(c, abs=1e-6)
    assert (found.a[0], found.b[0]) == (pytest.approx(a, abs=1e-6), pytest.approx(b, abs=1e-6))
    assert found.at(1000.0)[0] == pytest.approx(a + b * 1000.0**-c, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_any_curve_is_fitted_as_bounded_least_squares_would(seed):
    rng = np.random.default_rng(seed)
    sizes, errors, weights = np.array(KS, dtype=float), rng.random((1, len(KS))), rng.random(len(KS)) + 0.1
    weights = weights / weights.sum()
    found = PowerLaw.fit(sizes, errors, weights)

    def loss(a, b, c):
        return float(weights @ (errors[0] - a - b * sizes**-c) ** 2)

    best = np.inf
    for c in RATES:
        root = np.sqrt(weights)
        design = np.stack([root, root * sizes**-c], axis=1)
        best = min(best, loss(*lsq_linear(design, root * errors[0], bounds=(0, np.inf)).x, c))
    assert 0 <= found.a[0] <= 1
    assert found.b[0] >= 0
    assert loss(found.a[0], found.b[0], found.c[0]) == pytest.approx(best, rel=1e-6, abs=1e-9)


def test_curves_are_fitted_together_as_alone():
    errors = np.random.default_rng(0).random((7, len(KS)))
    sizes, weights = np.array(KS, dtype=float), np.arange(1.0, len(KS) + 1)
    together = PowerLaw.fit(sizes, errors, weights)
    for row in range(7):
        alone = PowerLaw.fit(sizes, errors[row : row + 1], weights)
        assert (together.a[row], together.b[row], together.c[row]) == (
            pytest.approx(alone.a[0]), pytest.approx(alone.b[0]), alone.c[0],
        )  # fmt: skip


def test_the_size_for_an_error_is_where_the_curve_has_it_and_infinite_below_its_end():
    law = PowerLaw(np.array([0.1, 0.1]), np.array([0.5, 0.5]), np.array([0.4, 0.4]))
    size = law.size_for(np.array([0.2, 0.1]))
    assert law.at(size[0])[0] == pytest.approx(0.2)
    assert size[1] == np.inf


def test_more_labels_are_counted_where_the_curve_still_rises():
    found = curve(law(0.05, 0.6, 0.3))
    assert found.check.k == 100
    assert found.check.up_to == 50
    assert abs(found.check.error) < 0.01
    more = found.more
    assert more.verdict == "number"
    target = 0.6 * 100**-0.3 - GAIN
    assert more.per_class == pytest.approx((0.6 / target) ** (1 / 0.3) - 100, rel=0.05)
    assert more.low < more.per_class < more.high
    assert "more of each class" in more.why
    assert found.doubled[0] == pytest.approx(1 - 0.05 - 0.6 * 200**-0.3, abs=0.005)


def test_a_flat_curve_and_one_that_cannot_be_told_are_said_plainly():
    flat = curve(law(0.3, 0.4, 1.5)).more
    assert (flat.verdict, flat.per_class) == ("flat", None)
    assert "not 3 points more" in flat.why
    stopped = np.minimum(law(0.0, 0.8, 0.2), law(0.0, 0.8, 0.2, (50,))[0])  # no more from 50 to 100
    stands = curve(stopped).more
    assert stands.verdict == "flat"
    assert "from k = 50 to k = 100 the score changed by " in stands.why
    bent = law(0.0, 0.8, 0.2)
    bent[-1] += 0.1
    off = curve(bent).more
    assert off.verdict == "cannot say"
    assert "is off at k = 100 by" in off.why
    few = curve(law(0.1, 0.5, 0.5, (1, 2, 3)), (1, 2, 3))
    assert (few.a, few.check, few.more.verdict) == (None, None, "cannot say")
    assert "3 sizes" in few.more.why
    unsure = curve(law(0.0, 0.5, 0.16), noise=0.02)
    assert unsure.more.verdict in ("number", "cannot say")
    assert unsure.more.high is None


def test_what_the_check_was_off_by_widens_the_interval():
    exact, off = law(0.05, 0.6, 0.3), law(0.05, 0.6, 0.3)
    off[-1] -= 0.02
    narrow, wide = curve(exact), curve(off)
    assert abs(wide.check.error) > abs(narrow.check.error)
    assert wide.more.high is None or wide.more.high - wide.more.low > 2 * (narrow.more.high - narrow.more.low)
