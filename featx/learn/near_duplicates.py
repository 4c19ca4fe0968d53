"""Pictures that are nearly the same: found in the features, without labels and without looking at any image.

A copy that was encoded again, cut a little or made brighter has nearly the features of its original. How near is near
depends on network and data: the distance between two photographs of one kind may be 0.1 with one network and 0.5 with
another, and in a dense corner of the data all distances are small. So a distance is compared with those to the two
pictures' own k-th nearest neighbours, and the limit of that ratio comes from the data too; see `find_near_duplicates`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import LabelsError, UsageError

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.int64]
Progress = Callable[[int, int], None]

SCALES = {10: 0.4, 30: 0.33, 100: 0.3}
"""Neighbours k against which distances are held, and the largest ratio that counts as near at each."""
EXPECTED_BY_CHANCE = 0.25
"""Pairs expected in a file of pictures that have nothing to do with each other; shared out over the scales as 1 / k."""
FEWEST = 12
"""Samples below which neighbours say nothing about a usual distance; only equal features are found then."""
LARGEST_CLUSTER = 0.2
"""Share of all samples above which one cluster is refused as a group."""
_BLOCK = 16_000_000  # numbers of a block of the matrix of distances
_ROUNDED = 1e-3  # distances below are computed again in double precision


@dataclass(frozen=True)
class Threshold:
    """What counts as near at one scale.

    Attributes
    ----------
    k : int
        The neighbour whose distance is the measure.
    ratio : float
        A pair is near when its distance is at most `ratio` times the geometric mean of the distances of its two
        samples to their k-th neighbours.
    typical : float
        The distance that this is for the median sample.
    """

    k: int
    ratio: float
    typical: float


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest other samples of each sample, nearest first.

    Attributes
    ----------
    index : int array (n_samples, m)
    distance : float array (n_samples, m)
        One minus the cosine of centred features: 0 = the same direction from the mean, 1 = a right angle, 2 = opposite.
    """

    index: IntArray
    distance: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NearDuplicates:
    """Pairs of samples whose features are nearly the same.

    Attributes
    ----------
    n_samples, n_features : int
    pairs : int array (n_pairs, 2)
        Positions, the smaller first; the nearest pair first.
    distances : float array (n_pairs,)
        One minus the cosine of centred features.
    thresholds : tuple of Threshold
        By which they were found; empty where a distance was given, or there were too few samples.
    distance : float or None
        The distance that was given instead.
    neighbours : Neighbours
    """

    n_samples: int
    n_features: int
    pairs: IntArray
    distances: NDArray[np.float64]
    thresholds: tuple[Threshold, ...]
    distance: float | None
    neighbours: Neighbours = field(repr=False)

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def rule(self) -> str:
        """What counts as near, in words."""
        measure = "cosine distance of centred features"
        if self.n_features == 1:
            return "not told from one feature: it has no direction to compare"
        if self.distance is not None:
            return f"{measure} of at most {self.distance:g}, as asked for"
        if not self.thresholds:
            return f"equal features (with fewer than {FEWEST} samples there is no usual distance)"
        sides = [
            f"{one.ratio:.2g} of that to the {one.k}th nearest sample (typically {one.typical:.2g})"
            for one in self.thresholds
        ]
        return f"{measure} of at most {', or '.join(sides)}"


def find_near_duplicates(
    X: FloatArray, *, distance: float | None = None, progress: Progress | None = None
) -> NearDuplicates:
    """Find the pairs of samples that are nearer to each other than chance would have it.

    Features are centred by their mean, and the distance is one minus the cosine. A pair is near when its distance is at
    most t times the geometric mean of its two samples' distances to their k-th nearest neighbours, for some k of
    `SCALES`. Such a ratio has no unit and follows the local density, as in the ratio test for matching image features
    (Lowe, Distinctive image features from scale-invariant keypoints, IJCV 60, 2004) and in self-tuning spectral
    clustering (Zelnik-Manor and Perona, NIPS 2004).

    The limit t is the smaller of two. The first is that of chance: if samples lie independently with a density that is
    even out to the k-th neighbour, the number of samples within a distance grows as its power q, half the intrinsic
    dimension, and about ``n k t^q / 2`` of all pairs have a ratio below t (the same Poisson model as in Levina and
    Bickel, Maximum likelihood estimation of intrinsic dimension, NIPS 2004); t is where `EXPECTED_BY_CHANCE` pairs are
    expected, with q from the median growth between the k-th and the 2k-th neighbour. In many dimensions chance alone
    would allow a ratio near 1, which means alike and not copied; so the second limit is the fixed one of `SCALES`. The
    larger k are for series of pictures: in a series of 50 the 10th neighbour is a member, the 100th is not.

    Parameters
    ----------
    X : float array (n_samples, n_features)
    distance : float, optional
        Take every pair up to this distance instead.
    progress : callable (done, total), optional
        Counts samples.

    Returns
    -------
    NearDuplicates
        None from a single feature, which has no direction. Each sample's nearest 200 are looked at. Time is that of
        n^2 n_features multiplications in single precision; memory is a copy of X, and some 300 MB at n = 50,000.
    """
    n, n_features = X.shape
    scales = [k for k in SCALES if n >= 10 * k] or ([min(10, n // 6)] if n >= FEWEST else [])
    m = 2 * max(SCALES) if distance is not None else 2 * max(scales, default=1)
    neighbours = nearest_neighbours(X, m, progress=progress)
    limits = np.zeros(neighbours.distance.shape)
    thresholds = []
    if distance is not None:
        limits += distance
    else:
        for k in scales:
            share = EXPECTED_BY_CHANCE / k / sum(1 / other for other in scales)
            thresholds.append(_threshold(neighbours.distance, k, share))
            reach = neighbours.distance[:, k - 1]
            np.maximum(limits, thresholds[-1].ratio * np.sqrt(reach[:, None] * reach[neighbours.index]), out=limits)
    if n_features == 1:  # all samples on one side of the mean have the same direction
        limits -= np.inf
    found = np.argwhere(neighbours.distance <= limits)
    pairs = np.sort(np.stack([found[:, 0], neighbours.index[found[:, 0], found[:, 1]]], axis=1), axis=1)
    distances = neighbours.distance[found[:, 0], found[:, 1]]
    pairs, first = np.unique(pairs, axis=0, return_index=True)
    order = np.argsort(distances[first], kind="stable")
    return NearDuplicates(n, n_features, pairs[order], distances[first][order], tuple(thresholds), distance, neighbours)


def _threshold(distances: NDArray[np.float64], k: int, expected: float) -> Threshold:
    """Work out the limit at one scale, so that so many pairs are expected by chance."""
    n = len(distances)
    near, far = distances[:, k - 1], distances[:, min(2 * k, distances.shape[1]) - 1]
    usable = near > 0
    growth = float(np.median(np.log(far[usable] / near[usable]))) if usable.any() else 0.0
    # In a distance that grows with the power 1/q of the number of samples, t^q = 2 expected / (n k).
    log_ratio = np.log(2 * expected / (n * k)) * growth / np.log(2)
    usual = SCALES.get(k, max(SCALES.values()))
    ratio = min(usual, float(np.exp(log_ratio)))
    return Threshold(k, ratio, ratio * float(np.median(near)))


def nearest_neighbours(X: FloatArray, m: int, *, progress: Progress | None = None) -> Neighbours:
    """Find the m nearest others of each sample by the cosine of centred features, in blocks of the n x n matrix.

    Parameters
    ----------
    X : float array (n_samples, n_features)
    m : int
        Fewer where there are not so many others.
    progress : callable (done, total), optional
    """
    units = centred_units(X)
    n = len(units)
    m = max(0, min(m, n - 1))
    index = np.empty((n, m), dtype=np.int64)
    distance = np.empty((n, m))
    step = max(1, _BLOCK // max(1, n))
    for start in range(0, n, step):
        rows = np.arange(start, min(start + step, n))
        cosines = units[rows] @ units.T
        cosines[np.arange(len(rows)), rows] = -np.inf  # nobody is a neighbour of his own
        near = _largest(cosines, m)
        apart = np.maximum(1.0 - np.take_along_axis(cosines, near, axis=1).astype(np.float64), 0.0)
        _sharpen(units, rows, near, apart)
        order = np.lexsort((near, apart), axis=1)
        index[rows], distance[rows] = np.take_along_axis(near, order, 1), np.take_along_axis(apart, order, 1)
        if progress is not None:
            progress(int(rows[-1]) + 1, n)
    return Neighbours(index, distance)


def _largest(values: NDArray[np.float32], m: int) -> IntArray:
    """Return the columns (n, m) of the m largest values of each row, in any order."""
    n, n_columns = values.shape
    if not 0 < m < n_columns:
        return np.argsort(values, axis=1)[:, n_columns - m :]
    if m < n_columns // 4:
        # Values can be partitioned several times as fast as positions; ties at the limit are rare.
        limit = np.partition(values, n_columns - m, axis=1)[:, n_columns - m, None]
        columns = np.nonzero(values >= limit)[1]
        if len(columns) == n * m:
            return columns.reshape(n, m)
    return np.argpartition(values, n_columns - m, axis=1)[:, n_columns - m :]


def nearest_elsewhere(X: FloatArray, neighbours: Neighbours, parts: IntArray, rows: IntArray) -> IntArray:
    """Find for some samples the nearest one of another part.

    Parameters
    ----------
    X : float array (n_samples, n_features)
    neighbours : Neighbours
        Of the same samples: most answers are among them.
    parts : int array (n_samples,)
        Negative but for -1: takes no part at all.
    rows : int array (n,)
        For which samples.

    Returns
    -------
    int array (n,)
        -1 where no other part has a sample.
    """
    found = np.full(len(rows), -1, dtype=np.int64)
    if neighbours.index.shape[1]:
        theirs = parts[neighbours.index[rows]]
        fits = (theirs != parts[rows][:, None]) & (theirs >= -1)
        has_one = fits.any(axis=1)
        found[has_one] = neighbours.index[rows[has_one], fits[has_one].argmax(axis=1)]
    left = np.flatnonzero(found < 0)
    if len(left):
        units = centred_units(X)
        step = max(1, _BLOCK // len(X))
        for start in range(0, len(left), step):
            some = left[start : start + step]
            cosines = units[rows[some]] @ units.T
            cosines[(parts[rows[some]][:, None] == parts) | (parts < -1)] = -np.inf
            best = cosines.argmax(axis=1)
            is_one = np.isfinite(cosines[np.arange(len(some)), best])
            found[some[is_one]] = best[is_one]
    return found


def centred_units(X: FloatArray) -> NDArray[np.float32]:
    """Return centred features at length 1, float32 (n_samples, n_features); a sample at the mean stays zero."""
    if not len(X):
        return np.asarray(X, dtype=np.float32)
    centred = np.asarray(X - X.mean(axis=0, dtype=np.float64).astype(X.dtype), dtype=np.float32)
    largest = np.abs(centred).max(initial=np.finfo(np.float32).tiny)
    centred /= largest  # no square under- or overflows
    lengths = np.sqrt(np.einsum("ij,ij->i", centred, centred))[:, None]
    units: NDArray[np.float32] = np.divide(centred, lengths, out=np.zeros_like(centred), where=lengths > 0)
    return units


def _sharpen(units: NDArray[np.float32], rows: IntArray, near: IntArray, apart: NDArray[np.float64]) -> None:
    """Compute small distances again, in place: one minus a rounded cosine has no digits left there."""
    places = np.argwhere(apart < _ROUNDED)
    for start in range(0, len(places), 4096):
        one, other = places[start : start + 4096].T
        difference = units[rows[one]].astype(np.float64) - units[near[one, other]]
        apart[one, other] = np.einsum("ij,ij->i", difference, difference) / 2


def check_distance(distance: float | None) -> None:
    """Raise UsageError for a value that ``--near-duplicate-distance`` does not take."""
    if distance is not None and not 0 <= distance <= 2:
        raise UsageError(f"--near-duplicate-distance {distance:g}: expected 0 to 2")


def check_clusters(
    joined: IntArray | None, apart: IntArray | None, near: NearDuplicates, keys: Sequence[str] | NDArray[np.object_]
) -> None:
    """Raise when near-duplicates would make a group that is no group any more but a large part of the data.

    Parameters
    ----------
    joined : int array (n_samples,), or None
        Groups with near-duplicates joined.
    apart : int array (n_samples,), or None
        Groups without.
    near : NearDuplicates
    keys : str sequence (n_samples,)

    Raises
    ------
    LabelsError
        Names the size of the cluster, the threshold and the next step.
    """
    if joined is None:
        return
    apart = np.arange(near.n_samples) if apart is None else apart
    sizes = np.bincount(joined)
    for group in np.flatnonzero(sizes > LARGEST_CLUSTER * near.n_samples).tolist():
        members = np.flatnonzero(joined == group)
        if len(np.unique(apart[members])) > 1:
            raise LabelsError(
                f"--group-near-duplicates would join {len(members)} of {near.n_samples} samples, "
                f"{str(keys[members[0]])!r} among them, into one group; more than {LARGEST_CLUSTER:.0%} is refused: "
                "these are not a few copies but pictures that are all alike. "
                f"Near is here a {near.rule}. Give a smaller --near-duplicate-distance, or a group column"
            )


def summary_of(near: NearDuplicates) -> dict[str, Any]:
    """Return the rule and its numbers, for JSON."""
    return {
        "rule": near.rule,
        "thresholds": [{"k": one.k, "ratio": one.ratio, "typical": one.typical} for one in near.thresholds],
        "distance": near.distance,
    }
