"""Scores of labels are scikit-learn's; how samples move them is the derivative of scikit-learn's by their weight."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from featx.errors import UnknownNameError
from featx.learn.multilabel.metrics import (
    LABEL_SCORES,
    LabelPredictions,
    check_label_scoring,
    label_influence,
    label_mistakes,
    label_value,
)


def sklearns(name, p, weights=None):
    true, called, w = p.true.astype(int), p.called.astype(int), {"sample_weight": weights}
    there, anywhere = p.true.any(axis=0), (p.true | p.called).any(axis=0)
    ranked = there & ~p.true.all(axis=0)
    return {
        "average_precision_macro": lambda: metrics.average_precision_score(
            true[:, there], p.scores[:, there], average="macro", **w
        ),
        "roc_auc_macro": lambda: metrics.roc_auc_score(true[:, ranked], p.scores[:, ranked], average="macro", **w),
        "f1_macro": lambda: metrics.f1_score(true[:, anywhere], called[:, anywhere], average="macro", **w),
        "f1_micro": lambda: metrics.f1_score(true, called, average="micro", **w),
        "label_accuracy": lambda: 1 - metrics.hamming_loss(true, called, **w),
        "exact_match": lambda: metrics.accuracy_score(true, called, **w),
    }[name]()


def predictions(seed, n=40, n_labels=3, ties=False):
    rng = np.random.default_rng(seed)
    true = rng.random((n, n_labels)) < rng.uniform(0.1, 0.6, n_labels)
    scores = true * 0.5 + rng.normal(size=true.shape)
    if ties:
        scores = np.round(scores)
    return LabelPredictions(true, scores > 0.5, scores)


@pytest.mark.parametrize("name", LABEL_SCORES)
@pytest.mark.parametrize("ties", [False, True])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_values_are_scikit_learns(name, ties, seed):
    p = predictions(seed, ties=ties)
    assert label_value(name, p) == pytest.approx(sklearns(name, p), abs=1e-12)


@pytest.mark.parametrize("name", LABEL_SCORES)
@pytest.mark.parametrize("ties", [False, True])
def test_influence_is_the_derivative_by_the_weight_of_a_sample(name, ties):
    p = predictions(3, n=25, ties=ties)
    step = 1e-5
    slopes = [
        (sklearns(name, p, 1 + step * one) - sklearns(name, p, 1 - step * one)) / (2 * step) for one in np.eye(len(p))
    ]
    np.testing.assert_allclose(label_influence(name, p), slopes, atol=1e-8)
    assert label_influence(name, p).sum() == pytest.approx(0, abs=1e-12)


def test_labels_that_are_nowhere_or_everywhere_do_not_count_where_a_score_is_undefined():
    true = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1]], dtype=bool)
    p = LabelPredictions(true, np.zeros_like(true), np.array([[3.0, 1, 1], [2, 1, 1], [1, 1, 1]]))
    assert label_value("average_precision_macro", p) == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)
    assert label_value("roc_auc_macro", p) == pytest.approx(0.5)
    nothing = LabelPredictions(true[:, [1]], p.called[:, [1]], p.scores[:, [1]])
    assert [label_value(name, nothing) for name in LABEL_SCORES] == [None, None, None, None, 1.0, 1.0]
    assert label_influence("f1_micro", nothing).tolist() == [0, 0, 0]
    assert label_value("f1_micro", nothing.take(np.array([], dtype=int))) is None


def test_one_more_mistake_costs_its_share_of_what_is_independent():
    true = np.array([[1, 0], [1, 0], [0, 1], [0, 0]], dtype=bool)
    units = np.array([0, 0, 1, 2])
    assert label_mistakes("exact_match", true, units) == pytest.approx([1 / 3])
    assert label_mistakes("label_accuracy", true, units) == pytest.approx([1 / 6, 1 / 6])
    assert label_mistakes("average_precision_macro", true, units) == pytest.approx([1 / 2, 1 / 2])
    assert label_mistakes("f1_micro", true, units) == pytest.approx([1 / 2])
    assert len(label_mistakes("roc_auc_macro", true, units)) == 4


def test_an_unknown_scoring_is_refused_with_what_there_is():
    with pytest.raises(UnknownNameError, match="average_precision_macro"):
        check_label_scoring("average_precision")
