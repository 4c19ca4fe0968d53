"""Many small fits at once are the fits of each head alone."""

import numpy as np
import pytest

from featx.learn.draws import deal, deal_episodes
from featx.learn.heads import HEADS, SCALINGS, make_head
from featx.learn.inner_folds import Samples
from featx.learn.small_fits import Fixed, call, choose

N, D, N_CLASSES = 120, 40, 3


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    codes = np.arange(N) % N_CLASSES
    X = 0.7 * rng.normal(size=(N_CLASSES, D))[codes] + rng.normal(size=(N, D)) + 1.0
    return X, codes, np.array(["a", "b", "c"])[codes]


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("head", HEADS)
def test_calls_are_those_of_the_head_fitted_on_each_draw(data, head, scaling):
    X, codes, y = data
    draws = [one.draw(k) for k in (1, 2, 7, 20) for one in deal(codes, None, repeats=4)]
    values = [Fixed().value(head, len(draw.fitted) // N_CLASSES) for draw in draws]
    found = call(Samples.scaled(X, y, scaling), codes, draws, head, values)
    differ = 0
    for draw, value, called in zip(draws, values, found, strict=True):
        assert called.converged
        model = make_head(head, value, scaling).fit(X[draw.fitted], codes[draw.fitted])
        differ += np.sum(model.predict(X[draw.scored]) != called.codes)
    # Ties within rounding: of one sample of each class each column's deviation may be nothing but that.
    assert differ <= 0.005 * sum(len(draw.scored) for draw in draws)


@pytest.mark.parametrize("head", ["logreg", "svm", "knn", "prototype"])
def test_episodes_know_their_own_classes_only(data, head):
    X, codes, y = data
    draws = deal_episodes(codes, None, episodes=12, ways=2, shots=3, queries=4)
    found = call(Samples.scaled(X, y, "l2"), codes, draws, head, [Fixed().value(head, 3)] * 12)
    for draw, called in zip(draws, found, strict=True):
        assert set(called.codes) <= set(codes[draw.fitted])
        assert np.mean(called.codes == codes[draw.scored]) > 0.5


def test_a_value_is_chosen_inside_a_draw_and_the_simplest_of_equals(data):
    X, codes, y = data
    draw = deal(codes, None, repeats=1)[0].draw(20)
    samples = Samples.scaled(X, y, "l2")
    values = (1e-6, 1e-5, 1.0, 10.0)
    chosen = choose(samples, draw, None, "logreg", values, n_folds=4, scoring="balanced_accuracy")
    assert chosen in values
    far = Samples.scaled(X + 50.0 * np.eye(N_CLASSES, D)[codes], y, "raw")
    assert choose(far, draw, None, "logreg", (0.1, 1.0, 10.0), n_folds=4, scoring="balanced_accuracy") == 0.1


def test_what_is_fixed_is_said_in_words():
    fixed = Fixed(C=3.0)
    assert [fixed.describe(head) for head in ("logreg", "knn", "prototype", "label-propagation")] == [
        "logreg: C = 3", "knn: n_neighbors = k, at most 20", "", "",
    ]  # fmt: skip
    assert [fixed.value(head, 5) for head in ("knn", "lda", "ridge", "prototype")] == [5.0, 0.8, 1.0, 0.0]
