"""What more labels would bring: a power law through the scores of growing training sets.

The error of many learners falls as ``a + b n^-c`` over the sizes that people can afford (Cortes et al., Learning
curves: asymptotic values and rate of convergence, NeurIPS 1993; Hestness et al., https://arxiv.org/abs/1712.00409;
Mahmood et al., How much more data do I need?, CVPR 2022). It is an extrapolation: its error is measured where it can
be, from half of the largest training set that there is to the whole, and stated.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

LEAST_SIZES = 3
"""So many parameters need as many sizes, up to half of the largest for the check."""
RATES = np.linspace(0.05, 2.0, 118)
"""Values of c that are tried."""
GAIN = 0.03
"""What is asked for: 3 points."""
FARTHEST = 10.0
"""Times the largest training set: beyond, the power law is not asked."""
SURE = 0.95


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """``error = a + b * n**-c``, fitted to one or several curves.

    Attributes
    ----------
    a, b, c : float64 array (n_curves,)
        0 <= a <= 1: what no number of labels takes away; b >= 0; c among `RATES`.
    """

    a: FloatArray
    b: FloatArray
    c: FloatArray

    @classmethod
    def fit(cls, sizes: FloatArray, errors: FloatArray, weights: FloatArray) -> PowerLaw:
        """Fit by weighted least squares.

        Parameters
        ----------
        sizes : float64 array (n_sizes,)
        errors : float64 array (n_curves, n_sizes)
            From 0 to 1.
        weights : float64 array (n_sizes,)
            Inverse variances, up to a factor.

        Notes
        -----
        For a given c the least squares in a and b are linear; where they leave their bounds the best point is on one of
        them. c is the best of a grid: no start, no local optimum, the same for any number of curves at once.
        """
        w = weights / weights.sum()
        best: FloatArray = np.full(len(errors), np.inf)
        found = np.zeros((3, len(errors)))
        y = errors @ w
        for c in RATES:
            x = sizes**-c
            mean = float(w @ x)
            spread = float(w @ (x - mean) ** 2)
            slope = np.maximum((errors @ (w * (x - mean))) / spread, 0.0)
            floor = y - slope * mean
            # a = 0 where the line would go below; where b = 0, a is the mean, which is within bounds
            through_zero = np.maximum(errors @ (w * x) / float(w @ x**2), 0.0)
            a, b = np.where(floor < 0, 0.0, floor), np.where(floor < 0, through_zero, slope)
            loss = ((errors - a[:, None] - b[:, None] * x) ** 2) @ w
            better = loss < best - 1e-15
            best = np.where(better, loss, best)
            found[:, better] = np.stack([a, b, np.full_like(a, c)])[:, better]
        return cls(*found)

    def at(self, n: float) -> FloatArray:
        """Return the error at a size (n_curves,)."""
        error: FloatArray = self.a + self.b * n**-self.c
        return error

    def size_for(self, errors: FloatArray) -> FloatArray:
        """Return the size at which errors (n_curves,) are reached; infinite where they never are."""
        left = errors - self.a
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            n = (self.b / left) ** (1.0 / self.c)
        return np.where((left > 0) & np.isfinite(n), n, np.inf)


@dataclass(frozen=True)
class Check:
    """The curve fitted to small training sets, held against what was measured on the largest.

    Attributes
    ----------
    k : int
        Samples of each class in the largest.
    up_to : int
        And in the largest that the curve was fitted to: at most half as many.
    predicted, measured, error : float
        Scores; error is predicted minus measured.
    low, high : float
        95 % of the predictions over resamples.
    """

    k: int
    up_to: int
    predicted: float
    measured: float
    error: float
    low: float
    high: float


@dataclass(frozen=True)
class MoreLabels:
    """How many more labels a gain takes.

    Attributes
    ----------
    gain : float
    verdict : {"number", "flat", "cannot say"}
    per_class, low, high : float or None
        More samples of each class than the largest training set has, with their 95 % interval over resamples, widened
        by what the curve was off in its check; `high` is None where it has no end. All None without a number.
    why : str
        In words, for any verdict.
    """

    gain: float
    verdict: str
    per_class: float | None
    low: float | None
    high: float | None
    why: str


@dataclass(frozen=True)
class LearningCurve:
    """A power law through a head's scores.

    Attributes
    ----------
    a, b, c : float or None
        Of the error, see `PowerLaw`; None with fewer than `LEAST_SIZES` sizes.
    ks : tuple of int
        What it was fitted to.
    check : Check or None
    doubled : tuple of float or None
        The score that it gives for twice the largest training set, with its 95 % interval.
    more : MoreLabels
    """

    a: float | None
    b: float | None
    c: float | None
    ks: tuple[int, ...]
    check: Check | None
    doubled: tuple[float, float, float] | None
    more: MoreLabels

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, numbers and None, for JSON."""
        return asdict(self)


def learning_curve(ks: tuple[int, ...], scores: FloatArray, resampled: FloatArray) -> LearningCurve:
    """Fit, check and extrapolate a learning curve.

    Parameters
    ----------
    ks : tuple of int (n_sizes,)
        Ascending; samples of each class.
    scores : float64 array (n_sizes,)
        The mean score at each, from 0 to 1.
    resampled : float64 array (n_resamples, n_sizes)
        The same over resamples of the draws and of what is scored: the same resample in a row.
    """
    n_small = sum(2 * k <= ks[-1] for k in ks)
    if n_small < LEAST_SIZES:
        why = (
            f"a curve that can be tried takes {LEAST_SIZES} sizes of training sets up to half of the largest, and "
            f"there are {n_small}"
        )
        return LearningCurve(None, None, None, ks, None, None, MoreLabels(GAIN, "cannot say", None, None, None, why))
    sizes = np.array(ks, dtype=np.float64)
    errors = 1.0 - np.vstack([scores, resampled])
    variances = resampled.var(axis=0)
    weights = 1.0 / np.maximum(variances, 1e-6)  # 0.1 of a point: none is surer than that
    law = PowerLaw.fit(sizes, errors, weights)
    shorter = PowerLaw.fit(sizes[:n_small], errors[:, :n_small], weights[:n_small])
    predicted = 1.0 - shorter.at(sizes[-1])
    low, high = _interval(predicted[1:])
    error = float(predicted[0] - scores[-1])
    check = Check(ks[-1], ks[n_small - 1], float(predicted[0]), float(scores[-1]), error, low, high)
    doubled = 1.0 - law.at(2.0 * sizes[-1])
    return LearningCurve(
        float(law.a[0]),
        float(law.b[0]),
        float(law.c[0]),
        ks,
        check,
        (float(doubled[0]), *_interval(doubled[1:])),
        _more_labels(law, ks, check, resampled[:, -1] - resampled[:, n_small - 1]),
    )


def _more_labels(law: PowerLaw, ks: tuple[int, ...], check: Check, gained: FloatArray) -> MoreLabels:
    """Ask the curve; where it was wrong by as much as is asked for, ask only what was `gained` from the check's sizes.

    `gained` (n_resamples,) is the difference of the scores that were measured at `Check.k` and `Check.up_to`.
    """
    largest = float(ks[-1])
    now, farthest, off = law.at(largest), FARTHEST * largest, abs(check.error)
    size = law.size_for(now - GAIN)
    points = f"{100 * GAIN:g} points more"
    reached = float(np.mean(size[1:] <= farthest))
    if off >= GAIN:
        lowest, highest = (100 * end for end in _interval(gained))
        if highest < 100 * GAIN:
            why = (
                f"from k = {check.up_to} to k = {check.k} the score changed by {100 * float(gained.mean()):+.1f} "
                f"points (95 %: {lowest:+.1f} to {highest:+.1f})"
            )
            return MoreLabels(GAIN, "flat", None, None, None, why)
        why = (
            f"fitted up to k = {check.up_to} the curve is off at k = {check.k} by {100 * off:.1f} points, as much as "
            "is asked for"
        )
        return MoreLabels(GAIN, "cannot say", None, None, None, why)
    if reached < 1 - SURE:
        why = (
            f"{FARTHEST:g} times as many labels would give {1 - float(law.at(farthest)[0]):.3f}, not {points}, in "
            f"{100 * (1 - reached):.0f} % of resamples"
        )
        return MoreLabels(GAIN, "flat", None, None, None, why)
    if reached < 0.5 or size[0] > farthest:
        why = f"{FARTHEST:g} times as many labels would give {points} in {100 * reached:.0f} % of resamples only"
        return MoreLabels(GAIN, "cannot say", None, None, None, why)
    # The resamples know nothing of a curve that is none of this law: what it was off by counts on either side.
    tail = (1 - SURE) / 2
    low = float(np.quantile(law.size_for(now - GAIN + off)[1:], tail, method="lower")) - largest
    high = float(np.quantile(law.size_for(now - GAIN - off)[1:], 1 - tail, method="higher")) - largest
    endless = high + largest > farthest
    end = f"with no end within {FARTHEST:g} times as many" if endless else f"to {high:.0f}"
    why = f"about {size[0] - largest:.0f} more of each class (95 %: from {low:.0f} {end}) for {points}"
    return MoreLabels(GAIN, "number", float(size[0] - largest), low, None if endless else high, why)


def _interval(values: FloatArray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - SURE) / 2, (1 + SURE) / 2])
    return float(low), float(high)
