"""Learning from samples without labels beside the few that have them.

Both methods look at the pool, the labelled samples of a draw and those without labels, and are applied to other samples
afterwards: what is scored takes no part. Many draws from one pool are worked out together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

TEMPERATURE = 0.05
"""Of the softmax over cosines: the share of a class in a sample without a label."""
ROUNDS = 5
NEIGHBOURS = 15
ALPHA = 0.9
"""How much of a sample's classes comes from its neighbours in each step of propagation."""
MAX_STEPS = 200
_TOL = 1e-5
_AT_ONCE = 512
"""Classes times draws that are worked out together, and rows of a matrix of similarities."""


def soft_prototypes(
    pool: FloatArray, labelled: Sequence[IntArray], codes: Sequence[IntArray], scored: FloatArray
) -> list[IntArray]:
    """Call samples by class means that samples without labels have refined.

    Prototypes (``prototype``: centred features of unit length) are the means of the labelled samples; then, `ROUNDS`
    times, of these and of all others, which count for each class by their softmax over its cosines: soft k-means after
    Ren et al. (Meta-learning for semi-supervised few-shot classification, ICLR 2018), with the centring of SimpleShot
    (https://arxiv.org/abs/1911.04623) on the mean of the whole pool.

    Parameters
    ----------
    pool : float64 array (n_pool, n_features)
    labelled : sequence of int array (n_labelled,)
        For each draw which rows of the pool have labels.
    codes : sequence of int array (n_labelled,)
        Their classes, from 0; each is there, and every draw has equally many.
    scored : float64 array (n_scored, n_features)

    Returns
    -------
    list of int array (n_scored,)
        For each draw the class of each scored sample.
    """
    mean = pool.mean(axis=0)
    Z, others = _unit(pool - mean), _unit(scored - mean)
    found: list[IntArray] = []
    for start, stop in _goes(codes):
        known = _one_hot(labelled[start:stop], codes[start:stop], len(Z))  # (n_pool, n_draws, n_classes)
        is_labelled = known.any(axis=2, keepdims=True)
        shares = known
        for _ in range(ROUNDS + 1):
            weights = shares / shares.sum(axis=0)
            prototypes = Z.T @ weights.reshape(len(Z), -1)
            prototypes /= np.maximum(np.linalg.norm(prototypes, axis=0), 1e-300)
            near = (Z @ prototypes).reshape(shares.shape) / TEMPERATURE
            near = np.exp(near - near.max(axis=2, keepdims=True))
            shares = np.where(is_labelled, known, near / near.sum(axis=2, keepdims=True))
        called = (others @ prototypes).reshape(len(others), *shares.shape[1:]).argmax(axis=2)
        found += list(called.T)
    return found


def propagated_labels(
    pool: FloatArray, labelled: Sequence[IntArray], codes: Sequence[IntArray], scored: FloatArray
) -> list[IntArray]:
    """Call samples by labels that have spread over a graph of neighbours.

    Zhou et al. (Learning with local and global consistency, NeurIPS 2003): ``F = alpha S F + (1 - alpha) Y`` until it
    stands, with S the symmetrically normalised graph of the `NEIGHBOURS` nearest by cosine, after centring. A class
    counts by its share in all that was spread of it, so that none drowns the others (their class mass normalisation,
    Zhu et al., ICML 2003, for classes that are as frequent in the draw). A scored sample takes the mean of its nearest
    neighbours in the pool, weighted by their similarity.

    Parameters
    ----------
    pool, labelled, codes, scored
        As in `soft_prototypes`.
    """
    mean = pool.mean(axis=0)
    Z, others = _unit(pool - mean), _unit(scored - mean)
    n_neighbours = min(NEIGHBOURS, len(Z) - 1)
    graph = _neighbours(Z, Z, n_neighbours, itself=False)
    graph = graph.maximum(graph.T)
    root = np.sqrt(np.maximum(np.asarray(graph.sum(axis=1)).ravel(), 1e-300))
    graph = csr_array(graph.multiply(1.0 / root[:, None]).multiply(1.0 / root[None, :]))
    to_pool = _neighbours(others, Z, n_neighbours, itself=True)
    found: list[IntArray] = []
    for start, stop in _goes(codes):
        Y = _one_hot(labelled[start:stop], codes[start:stop], len(Z))
        F = spread(graph, Y.reshape(len(Z), -1))
        F /= np.maximum(F.sum(axis=0), 1e-300)
        found += list((to_pool @ F).reshape(len(others), *Y.shape[1:]).argmax(axis=2).T)
    return found


def spread(graph: csr_array, Y: FloatArray) -> FloatArray:
    """Return the fixed point F (n, n_columns) of ``F = ALPHA * graph @ F + (1 - ALPHA) * Y``."""
    F = Y
    for _ in range(MAX_STEPS):
        new = ALPHA * (graph @ F) + (1.0 - ALPHA) * Y
        moved = float(np.abs(new - F).max())
        F = new
        if moved < _TOL * (1.0 - ALPHA):
            break
    return np.asarray(F)


Method = Callable[[FloatArray, Sequence[IntArray], Sequence[IntArray], FloatArray], list[IntArray]]
METHODS: dict[str, Method] = {"prototype+unlabelled": soft_prototypes, "label-propagation": propagated_labels}
"""By the name under which they are shown beside the heads."""


def _neighbours(rows: FloatArray, among: FloatArray, n: int, *, itself: bool) -> csr_array:
    """Return similarities (n_rows, n_among) to the nearest of each row; never below a little above 0."""
    places, values = [], []
    for start in range(0, len(rows), _AT_ONCE):
        near = rows[start : start + _AT_ONCE] @ among.T
        if not itself:
            near[np.arange(len(near)), start + np.arange(len(near))] = -np.inf
        nearest = np.argpartition(-near, n - 1, axis=1)[:, :n]
        places.append(nearest)
        values.append(np.maximum(np.take_along_axis(near, nearest, axis=1), 1e-6))
    indices, indptr = np.concatenate(places).ravel(), np.arange(len(rows) + 1) * n
    return csr_array((np.concatenate(values).ravel(), indices, indptr), shape=(len(rows), len(among)))


def _unit(rows: FloatArray) -> FloatArray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: FloatArray = rows / np.where(length > 0, length, 1.0)
    return unit


def _one_hot(labelled: Sequence[IntArray], codes: Sequence[IntArray], n_pool: int) -> FloatArray:
    Y = np.zeros((n_pool, len(labelled), int(codes[0].max()) + 1))
    for draw, (rows, own) in enumerate(zip(labelled, codes, strict=True)):
        Y[rows, draw, own] = 1.0
    return Y


def _goes(codes: Sequence[IntArray]) -> list[tuple[int, int]]:
    at_once = max(1, _AT_ONCE // (int(codes[0].max()) + 1))
    return [(start, min(start + at_once, len(codes))) for start in range(0, len(codes), at_once)]
