"""The evidence of a Bayesian linear model: the likelihood of targets when weights and noise are normal.

The weights have precision alpha and the noise has precision beta, so that n targets y on features X are
``N(0, I / beta + X X^T / alpha)``. In the left singular vectors of X that covariance is diagonal, whatever the shape of
X; nothing here needs an inverse or a determinant of another matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.learn.spectrum import EPS, Spectrum

FloatArray = NDArray[np.float64]

STEP = 0.5
"""Between two values of u, see `_Evidence`, at which the evidence is looked at: it bends over several units of u."""
BEYOND = 60.0
"""How far u goes on after the weakest direction is as strong as the noise. The least noise that is told from none, a
rounding error of the targets, is found within 45."""
HALVINGS = 60
"""Of an interval of `STEP`: to the last bit of u."""


def max_log_evidence(X: FloatArray, targets: FloatArray) -> FloatArray:
    """Maximise ``log N(y | 0, I / beta + X X^T / alpha)`` over alpha and beta, for each target.

    Parameters
    ----------
    X : float64 array (n_samples, n_features)
        Finite.
    targets : float64 array (n_samples, n_targets)
        Finite, and no column of zeros.

    Returns
    -------
    float64 array (n_targets,)
        The supremum: also where it is only approached as alpha (features that explain nothing) or beta (no noise)
        grows. ``inf`` where a target is explained exactly in fewer directions than there are samples.
    """
    n_samples = len(X)
    spectrum = Spectrum.of(X)
    coordinates = spectrum.coordinates(targets)
    rest = np.sum(spectrum.outside(targets, coordinates) ** 2, axis=0)
    explained = rest <= np.sum(targets**2, axis=0) * max(X.shape) * EPS
    fits_anything = spectrum.rank == n_samples
    if fits_anything:
        explained[:] = True
    lambdas = spectrum.values / spectrum.values[-1] if spectrum.rank else spectrum.values
    evidence = _Evidence(n_samples, lambdas, coordinates**2, np.where(explained, 0.0, rest))
    best = evidence.without_features()
    if fits_anything:
        best = np.maximum(best, evidence.without_noise())
    if spectrum.rank:
        best = np.maximum(best, evidence.maximum())
    return best if fits_anything else np.where(explained, np.inf, best)


@dataclass(frozen=True, eq=False)
class _Evidence:
    """The log evidence of k targets as a function of u = log(beta s^2 / alpha), with the best beta at each u.

    s is the largest singular value. In the left singular vectors the covariance is diagonal: (1 + w_i) / beta with
    w_i = exp(u) lambda_i, and 1 / beta outside of their span. The best beta is n over the target's squared length in
    units of (1 + w_i).

    Attributes
    ----------
    n_samples : int
    lambdas : float64 array (rank,)
        Squared singular values over the largest, ascending.
    squares : float64 array (rank, k)
        Of the targets' coordinates.
    rest : float64 array (k,)
        Squared length of the targets outside of the span.
    """

    n_samples: int
    lambdas: FloatArray
    squares: FloatArray
    rest: FloatArray

    def without_features(self) -> FloatArray:
        """Return the limit for alpha to infinity: (k,)."""
        return self._value(self.rest + self.squares.sum(axis=0), 0.0)

    def without_noise(self) -> FloatArray:
        """Return the limit for beta to infinity, which is finite where the rank is the number of samples: (k,)."""
        return self._value(np.sum(self.squares / self.lambdas[:, None], axis=0), np.sum(np.log(self.lambdas)))

    def maximum(self) -> FloatArray:
        """Return the largest value (k,) at a finite u: on a grid, then by bisection of the slope around the best."""
        # Below the first value the sum of all w is less than 1e-12, and the evidence is that without features.
        first = -28.0 - np.log(len(self.lambdas))
        last = BEYOND - np.log(self.lambdas[0])
        grid = np.arange(first, last + STEP, STEP)
        w = np.exp(grid)[:, None] * self.lambdas
        values = self._value(self.rest + (1 / (1 + w)) @ self.squares, np.sum(np.log1p(w), axis=1)[:, None])
        best = np.argmax(values, axis=0)
        low, high = grid[best] - STEP, grid[best] + STEP
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            rises = self._slope(middle) > 0
            low, high = np.where(rises, middle, low), np.where(rises, high, middle)
        w = np.exp((low + high) / 2) * self.lambdas[:, None]
        refined = self._value(self.rest + np.sum(self.squares / (1 + w), axis=0), np.sum(np.log1p(w), axis=0))
        largest: FloatArray = np.maximum(refined, values.max(axis=0))
        return largest

    def _value(self, length: FloatArray, log_det: Any) -> FloatArray:
        n = self.n_samples
        value: FloatArray = -0.5 * n * (np.log(2 * np.pi * length / n) + 1) - 0.5 * log_det
        return value

    def _slope(self, u: FloatArray) -> FloatArray:
        """Return the derivative (k,) of the evidence of each target at its own u (k,)."""
        w = np.exp(u) * self.lambdas[:, None]
        shrunk = self.squares / (1 + w)
        noise = w / (1 + w)
        length = self.rest + np.sum(shrunk, axis=0)
        slope: FloatArray = 0.5 * (self.n_samples * np.sum(shrunk * noise, axis=0) / length - np.sum(noise, axis=0))
        return slope
