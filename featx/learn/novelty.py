"""What is unlike the training set: the distance to the nearest training images, and how rare such a distance is.

The distance is the mean over the k nearest rows of the training set, all of length 1 (Sun, Ming, Zhu and Li,
Out-of-distribution detection with deep nearest neighbors, ICML 2022; here the mean of the k distances rather than the
last). How rare it is, is asked of the training images themselves: each one's distance to those of other groups. With
every group counted once, as in `featx.learn.conformal`,

    p = (1 + sum over groups of the share of its images at such a distance or a larger one) / (G + 1)

and an image with p <= rate is called unlike the training set. An image like those of the training set is called so with
at most that probability: more neighbours can only bring an image nearer, so that the training images' distances, which
were taken without the new image, are no smaller than those with which full conformal prediction would compare.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.errors import UsageError
from featx.learn.conformal import ROUNDING, FloatArray, IntArray, groups_needed, weight_up_to

NEIGHBOURS = 5
MOST_BYTES = 8 << 20
"""Of training rows that are kept; of more, a sample is drawn. A thousand rows tell strangers as well as three do."""
MOST_CALIBRATING = 5_000
"""Training images whose own distance is taken; of more, a sample is drawn."""
FARTHEST = 2.0
"""Between rows of length 1; stands for neighbours that are not there."""
FALSE_ALARMS = 0.05
"""Default share of images like those of the training set that may be called unlike it."""
_BLOCK = 1024  # rows whose distances are in memory at a time


@dataclass(frozen=True, eq=False)
class Novelty:
    """The training set, as far as it is needed to tell what is unlike it.

    Attributes
    ----------
    rows : float32 array (n_rows, n_features)
        Of length 1, or 0.
    distances : float64 array (n_calibrating,)
        Of training images to those of other groups.
    weights : float64 array (n_calibrating,)
        One over the number of such images in its group.
    neighbours : int
        k.
    unit : str
        ``"groups"`` or ``"samples"``, for messages.
    """

    rows: NDArray[np.float32] = field(repr=False)
    distances: FloatArray = field(repr=False)
    weights: FloatArray = field(repr=False)
    neighbours: int = NEIGHBOURS
    unit: str = "samples"

    @property
    def n_groups(self) -> int:
        """How many groups, or samples, the rate is calibrated on."""
        return round(float(self.weights.sum()))

    def distance(self, X: ArrayLike) -> FloatArray:
        """Return the distance (n,) of features (n, n_features), 0 to 2."""
        return nearest(unit_length(X), self.rows, self.neighbours)

    def p_values(self, distances: FloatArray) -> FloatArray:
        """Return how rare such distances (n,) are among the training images, (n,)."""
        p: FloatArray = (1.0 + weight_up_to(-distances, -self.distances, self.weights)) / (1.0 + self.n_groups)
        return p

    def is_unlike(self, distances: FloatArray, false_alarms: float = FALSE_ALARMS) -> NDArray[np.bool_]:
        """Say for distances (n,) whether they are those of images unlike the training set, (n,)."""
        unlike: NDArray[np.bool_] = self.p_values(distances) <= false_alarms + ROUNDING
        return unlike

    def too_few(self, false_alarms: float = FALSE_ALARMS) -> str:
        """Say why nothing can be called unlike at this rate; ``""`` where it can."""
        least = groups_needed(1 - false_alarms)
        if self.n_groups >= least:
            return ""
        return (
            f"Nothing can be called unlike the training set with {false_alarms:g} false alarms: that needs at least "
            f"{least} {self.unit}, and there are {self.n_groups}."
        )


def check_false_alarms(rate: float) -> None:
    """Raise UsageError for a rate that is not between 0 and 1."""
    if not 0 < rate < 1:
        raise UsageError(f"--false-alarms {rate:g}: a share between 0 and 1 is expected, as in 0.05")


def fit_novelty(X: ArrayLike, groups: IntArray | None, *, random_state: int = 0) -> Novelty:
    """Take what is needed from a training set.

    Parameters
    ----------
    X : array (n_samples, n_features)
    groups : int array (n_samples,), or None
    random_state : int
        Draws what is kept of a large training set.
    """
    unit = unit_length(X)
    ids = np.arange(len(unit)) if groups is None else groups
    rng = np.random.default_rng(random_state)
    kept = _draw(rng, len(unit), max(MOST_BYTES // (4 * unit.shape[1]), 2 * NEIGHBOURS))
    calibrating = _draw(rng, len(unit), MOST_CALIBRATING)
    rows = unit[kept]
    distances = nearest(unit[calibrating], rows, NEIGHBOURS, apart=(ids[calibrating], ids[kept]))
    _, inverse, counts = np.unique(ids[calibrating], return_inverse=True, return_counts=True)
    return Novelty(rows, distances, 1.0 / counts[inverse], unit="samples" if groups is None else "groups")


def unit_length(X: ArrayLike) -> NDArray[np.float32]:
    """Scale rows to length 1; a row of zeros stays."""
    rows = np.asarray(X, dtype=np.float32)
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    rows = np.divide(rows, largest, out=np.zeros_like(rows), where=largest > 0)  # no square under- or overflows
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def nearest(
    rows: NDArray[np.float32],
    among: NDArray[np.float32],
    neighbours: int,
    *,
    apart: tuple[IntArray, IntArray] | None = None,
) -> FloatArray:
    """Return the mean distance (n,) of each row to the nearest of others.

    Parameters
    ----------
    rows, among : float32 arrays (n, n_features), (m, n_features)
        Of length 1.
    neighbours : int
        Where there are fewer, `FARTHEST` stands for the rest.
    apart : (int array (n,), int array (m,)), optional
        Groups of both: those of the same group are no neighbours.
    """
    found = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        # Of unit rows: |a - b|^2 = 2 - 2 a b; a row of zeros is 1 from all others.
        products = np.asarray(rows[block] @ among.T, dtype=np.float64)
        squares = np.square(rows[block]).sum(axis=1, keepdims=True) + np.square(among).sum(axis=1)
        distances: FloatArray = np.sqrt(np.maximum(squares - 2 * products, 0.0))
        if apart is not None:
            distances[apart[0][block, None] == apart[1]] = FARTHEST
        if len(among) < neighbours:
            distances = np.pad(distances, ((0, 0), (0, neighbours - len(among))), constant_values=FARTHEST)
        found[block] = np.sort(np.partition(distances, neighbours - 1, axis=1)[:, :neighbours], axis=1).mean(axis=1)
    return found


def _draw(rng: np.random.Generator, n: int, most: int) -> IntArray:
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))
