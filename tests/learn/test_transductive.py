"""Samples without labels: each method against its formula written out, and where they help."""

import numpy as np
import pytest

from featx.learn import transductive
from featx.learn.transductive import ALPHA, METHODS, ROUNDS, TEMPERATURE, propagated_labels, soft_prototypes, spread


@pytest.fixture(scope="module")
def world():
    """Three classes along lines: one labelled sample of each is a poor mean, the crowd shows the rest."""
    rng = np.random.default_rng(0)
    codes = np.arange(150) % 3
    X = rng.normal(size=(3, 10))[codes] * 1.5 + rng.normal(size=(150, 10))
    return X, codes


def draws(codes, k, n=5, among=90):
    rng = np.random.default_rng(1)
    found = []
    for _ in range(n):
        found.append(np.concatenate([rng.permutation(np.flatnonzero(codes[:among] == c))[:k] for c in range(3)]))
    return found


def test_soft_prototypes_are_their_formula_for_each_draw(world):
    X, codes = world
    pool, scored, labelled = X[:90], X[90:], draws(codes, 2)
    found = soft_prototypes(pool, labelled, [codes[rows] for rows in labelled], scored)
    mean = pool.mean(axis=0)

    def unit(rows):
        return rows / np.linalg.norm(rows, axis=-1, keepdims=True)

    Z = unit(pool - mean)
    for rows, called in zip(labelled, found, strict=True):
        prototypes = unit(np.stack([Z[rows[codes[rows] == c]].mean(axis=0) for c in range(3)]))
        for _ in range(ROUNDS):
            shares = np.zeros((90, 3))
            for i in range(90):
                near = np.exp(Z[i] @ prototypes.T / TEMPERATURE)
                shares[i] = np.eye(3)[codes[i]] if i in rows else near / near.sum()
            prototypes = unit(np.stack([(shares[:, c] @ Z) / shares[:, c].sum() for c in range(3)]))
        assert called.tolist() == (unit(scored - mean) @ prototypes.T).argmax(axis=1).tolist()


def test_labels_spread_to_the_fixed_point_of_the_closed_form():
    from scipy.sparse import csr_array

    rng = np.random.default_rng(0)
    W = np.triu(rng.random((30, 30)) * (rng.random((30, 30)) < 0.3), 1)
    W = W + W.T + 1e-6
    root = np.sqrt(W.sum(axis=1))
    S = W / root[:, None] / root
    Y = np.eye(30)[:, :4]
    exact = (1 - ALPHA) * np.linalg.solve(np.eye(30) - ALPHA * S, Y)
    assert np.allclose(spread(csr_array(S), Y), exact, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_draws_together_are_draws_alone_and_the_crowd_helps(world, method, monkeypatch):
    X, codes = world
    labelled = draws(codes, 1)
    own = [codes[rows] for rows in labelled]
    together = METHODS[method](X[:90], labelled, own, X[90:])
    monkeypatch.setattr(transductive, "_AT_ONCE", 3)
    alone = METHODS[method](X[:90], labelled, own, X[90:])
    assert np.array_equal(together, alone)
    right = np.mean([called == codes[90:] for called in together])
    nearest = np.mean(
        [
            codes[rows][((X[90:, None] - X[rows]) ** 2).sum(axis=2).argmin(axis=1)] == codes[90:]
            for rows in labelled
        ]
    )  # fmt: skip
    assert right > nearest


def test_a_pool_of_nothing_but_labels_and_one_of_copies_are_no_trouble(world):
    X, codes = world
    rows = np.arange(9)
    for method in METHODS.values():
        [called] = method(X[:9], [rows], [codes[:9]], X[90:])
        assert np.mean(called == codes[90:]) > 0.5
    same = np.ones((20, 4))
    for method in (soft_prototypes, propagated_labels):
        [called] = method(same, [np.arange(3)], [np.arange(3)], same)
        assert set(called) <= {0, 1, 2}
