"""What heads fitted without a block of rows say about that block, from one factorisation of all rows.

Let Z be the rows less their mean (for a discriminant: less the mean of their class), K = Z Z', and U the eigenvectors
of K that are orthogonal to what the means span: K = U diag(v) U'. For a penalty f on the coefficients, with
w = f / (v + f),

    N = U_F diag(w) U_F'

is f times the F x F block of (K + f I)^-1, on that complement. For ridge regression with an intercept the residuals of
the block F, by the fit without it, are N^-1 (U_F diag(w) U' y): the generalisation of the leave-one-out formula
(Allen's PRESS; Golub, Heath and Wahba, Technometrics 21, 1979) to blocks (An, Liu and Venkatesh, Pattern Recognition
40, 2007), exact, with the intercept unpenalised. Written with N there is no difference of nearly equal numbers, also
where the fit of all rows goes through every one of them, as it does with fewer rows than features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featx.learn.training import TrainingParts

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

EIGEN = 12.0
"""Multiplications of a symmetric eigendecomposition of n rows, as a multiple of n cubed; measured against products."""
EACH = 2e6
"""Multiplications that the calls for one block and value take the time of."""
MOST_UNEVEN = 1e10
"""Largest ratio of weights w, 1 for a direction without rows; beyond it the parts are fitted one by one."""


@dataclass(frozen=True, eq=False)
class Block:
    """Rows that one part leaves out.

    Attributes
    ----------
    rows : int array (n_out,)
    scored : int array (n_scored,)
        Places in `rows` of those that are scored.
    """

    rows: IntArray
    scored: IntArray


def find_blocks(parts: TrainingParts, n_values: int) -> list[Block] | None:
    """Return what each part leaves out; None where formulas do not hold, or fitting part by part is as fast.

    They hold where all rows count the same, and every scored row is left out. They are made for fewer rows than
    coordinates.
    """
    n, n_coordinates = parts.X.shape
    if parts.class_weight is not None or n > n_coordinates:
        return None
    blocks = []
    for fitted, scored in zip(parts.fitted, parts.scored, strict=True):
        rows = np.setdiff1d(np.arange(n), fitted)
        if not np.isin(scored, rows).all():
            return None
        blocks.append(Block(rows, np.searchsorted(rows, scored)))
    apart = sum((EIGEN + n_coordinates / n) * float(n - len(one.rows)) ** 3 for one in blocks)
    together = EIGEN * n**3 + sum(n_values * (EACH + len(one.rows) ** 2 * (n + len(one.rows))) for one in blocks)
    return blocks if together < apart else None


@dataclass(frozen=True, eq=False)
class Factored:
    """Rows less their means, factored.

    Attributes
    ----------
    vectors : float64 array (n, n - n_means)
        U: orthonormal, and orthogonal to the indicators of the means.
    values : float64 array (n - n_means,)
        v, not negative.
    """

    vectors: FloatArray
    values: FloatArray

    @classmethod
    def of(cls, Z: FloatArray, indicators: FloatArray) -> Factored:
        """Factor rows (n, n_coordinates) that are less the means spanned by orthonormal indicators (n, n_means)."""
        kernel = Z @ Z.T
        # Twice the trace is beyond any eigenvalue: the indicators become the last eigenvectors, and are dropped.
        far = 2.0 * np.trace(kernel) or 1.0
        values, vectors = np.linalg.eigh(kernel + far * (indicators @ indicators.T))
        kept = len(Z) - indicators.shape[1]
        return cls(vectors[:, :kept], np.maximum(values[:kept], 0.0))

    def is_sure(self, penalty: float) -> bool:
        """Whether the weights of the smallest penalty are even enough."""
        return bool(self.values.max(initial=0.0) + penalty <= MOST_UNEVEN * penalty)


def solve_block(weighted: FloatArray, targets: FloatArray) -> FloatArray:
    """Solve N a = targets (n_out, k) for N = A A', given A = U_F diag(w)^(1/2) (n_out, p)."""
    from scipy.linalg import cho_factor, cho_solve

    solved: FloatArray = cho_solve(cho_factor(weighted @ weighted.T, check_finite=False), targets, check_finite=False)
    return solved
