"""Training parts that share one matrix of features, and what heads fitted on them say about other rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class TrainingParts:
    """Training parts with the rows that are scored by what is fitted on them.

    Attributes
    ----------
    X : float64 array (n_samples, n_features)
    codes : int array (n_samples,), or bool array (n_samples, n_labels)
        Class of each row, from 0; or which labels it has.
    fitted : tuple of int array
        For each part the rows that it is fitted on; every class is among them.
    scored : tuple of int array
        For each part the rows that are scored.
    n_features : int
        How many features there are, where X holds fewer coordinates of them (`featx.learn.coordinates`).
    class_weight : str or None
        ``"balanced"``, or all rows count the same.
    random_state : int
    device : str
        Where linear heads are fitted: ``"cpu"``, or one of PyTorch's names.
    """

    X: FloatArray
    codes: NDArray[Any]
    fitted: tuple[IntArray, ...]
    scored: tuple[IntArray, ...]
    n_features: int
    class_weight: str | None = None
    random_state: int = 0
    device: str = "cpu"

    def __len__(self) -> int:
        return len(self.fitted)

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return int(self.codes.max()) + 1

    def weights(self) -> FloatArray:
        """Return how much each row counts in each part (n_parts, n_samples): 0 where it is not in it.

        With labels (n_parts, n_labels, n_samples).
        """
        weights = np.zeros((len(self), *self.codes.shape[1:], len(self.X)))
        for part, rows in enumerate(self.fitted):
            weights[part][..., rows] = class_weights(self.codes[rows], self.class_weight).T
        return weights


@dataclass(frozen=True, eq=False)
class Scored:
    """What heads fitted on one part say about its scored rows, at each value of the head's parameter.

    Attributes
    ----------
    predicted : int array (n_values, n_scored)
        Classes.
    values : float64 array (n_values, n_scored, n_classes), or (n_values, n_scored)
        Probabilities if the head has its own, else decision values: one for two classes.
    converged : bool array (n_values,)
    """

    predicted: IntArray
    values: FloatArray
    converged: NDArray[np.bool_]

    @classmethod
    def of_decisions(cls, decisions: FloatArray, converged: NDArray[np.bool_] | None = None) -> Scored:
        """Take the class of the largest decision value (n_values, n_scored, n_functions); of one function, the sign."""
        if converged is None:
            converged = np.ones(len(decisions), dtype=bool)
        if decisions.shape[2] == 1:
            decisions = decisions[:, :, 0]
            return cls((decisions > 0).astype(np.int64), decisions, converged)
        return cls(decisions.argmax(axis=2), decisions, converged)

    @classmethod
    def of_probabilities(cls, decisions: FloatArray, converged: NDArray[np.bool_] | None = None) -> Scored:
        """Take decision values as in `of_decisions`, whose softmax (or sigmoid) are the head's own probabilities."""
        scored = cls.of_decisions(decisions, converged)
        return cls(scored.predicted, softmax(decisions), scored.converged)


def softmax(decisions: FloatArray) -> FloatArray:
    """Return probabilities (..., n_classes) from decision values (..., n_functions): a sigmoid for two classes."""
    if decisions.shape[-1] == 1:
        positive = 0.5 * (1.0 + np.tanh(0.5 * decisions))
        return np.concatenate([1.0 - positive, positive], axis=-1)
    probabilities: FloatArray = np.exp(decisions - decisions.max(axis=-1, keepdims=True))
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    return probabilities


def class_weights(codes: IntArray | BoolArray, class_weight: str | None) -> FloatArray:
    """Return the weight (n,) of each row by its class: ``n / (n_classes * n_of_its_class)`` where balanced, else 1.

    With labels (n, n_labels): of each, the rows with and without it are two classes.
    """
    if class_weight is None:
        return np.ones(codes.shape)
    if codes.ndim == 2:
        return np.stack([class_weights(own.astype(np.int64), class_weight) for own in codes.T], axis=1)
    counts = np.bincount(codes)
    weights: FloatArray = len(codes) / (np.sum(counts > 0) * counts[codes])
    return weights
