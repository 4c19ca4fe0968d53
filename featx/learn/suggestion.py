"""Which samples to label next."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.learn.linear import NewtonLogisticRegression

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Suggestion:
    """A sample whose label would teach most.

    Attributes
    ----------
    key : str
    predicted : str
        What the head on the labels there are calls it.
    probability : float
    margin : float
        The probability less that of the second class.
    """

    key: str
    predicted: str
    probability: float
    margin: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def suggest_rows(
    X: FloatArray, y: NDArray[np.str_], candidates: FloatArray, n: int, *, C: float, random_state: int = 0
) -> tuple[IntArray, NDArray[np.str_], FloatArray]:
    """Choose candidates of which the head is unsure, and that differ from each other.

    BADGE (Ash et al., Deep batch active learning by diverse, uncertain gradient lower bounds, ICLR 2020) for a linear
    head on frozen features: the gradient of the loss, were the predicted class right, is ``(p - e_predicted)`` times
    the features; it is long where the head is unsure. The seeding of k-means++ (Arthur and Vassilvitskii 2007) among
    these gradients takes long ones that point elsewhere.

    Parameters
    ----------
    X : float64 array (n_labelled, n_features)
        Scaled.
    y : str array (n_labelled,)
        At least two classes.
    candidates : float64 array (n_candidates, n_features)
        Scaled alike.
    n : int
        How many; at most as many as there are.
    C : float
        Of the logistic regression.

    Returns
    -------
    rows : int array (n,)
        Of the candidates, in the order in which they were chosen.
    predicted : str array (n_candidates,)
    probabilities : float64 array (n_candidates, n_classes)
    """
    head = NewtonLogisticRegression(C=C).fit(X, y)
    probabilities = head.predict_proba(candidates)
    predicted = head.classes_[probabilities.argmax(axis=1)]
    residuals = probabilities - np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
    return _spread(residuals, candidates, n, np.random.default_rng(random_state)), predicted, probabilities


def _spread(residuals: FloatArray, X: FloatArray, n: int, rng: np.random.Generator) -> IntArray:
    """Seed k-means++ among the products of residuals and features, which are never written out."""
    squares = (residuals**2).sum(axis=1) * (X**2).sum(axis=1)
    chosen = [int(np.argmax(squares))]
    distances = np.full(len(X), np.inf)
    while True:
        last = chosen[-1]
        inner = (residuals @ residuals[last]) * (X @ X[last])
        apart = np.maximum(squares + squares[last] - 2.0 * inner, 0.0)
        apart[apart < 1e-12 * max(float(squares.max()), 1e-300)] = 0.0  # what is the same but for rounding
        distances = np.minimum(distances, apart)
        distances[chosen] = 0.0
        if len(chosen) == min(n, len(X)):
            return np.array(chosen)
        total = float(distances.sum())
        left = np.setdiff1d(np.arange(len(X)), chosen)
        # Nothing but copies of what was chosen: any will do.
        chosen.append(int(rng.choice(len(X), p=distances / total)) if total > 0 else int(rng.choice(left)))
