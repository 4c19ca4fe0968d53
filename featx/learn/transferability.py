"""Transferability scores: how well features suit labels, by formulas that train no classifier.

`logme`, `h_score`, `h_score_regularised` and `transrate` look at the features, `leep` and `nce` at what the backbone's
own classifier says. Larger is better for all of them; values are comparable between feature sets of the same samples
and labels, and between nothing else. How well they predict which backbone transfers best is another matter: see
``docs/rank.md``. Everything is computed in float64 from singular values, so that it holds for fewer samples than
features, where the matrices of the papers have no inverse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.errors import InputError, LabelsError
from featx.learn.evidence import max_log_evidence
from featx.learn.spectrum import Spectrum, squared_singular_values

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

EPSILON = 1e-4
"""The distortion of `transrate`: that of the listing in its paper."""


@dataclass(frozen=True)
class FeatureScores:
    """The scores that need features and labels only.

    Attributes
    ----------
    logme : float
        ``inf`` where the features explain the classes exactly, see `logme`.
    h_score, h_score_regularised, transrate : float
    h_score_of_chance : float
        The mean of `h_score` over all orders of the labels.
    saturated : bool
        Whether `h_score` is the number of classes minus 1 for any labels at all, so that it says nothing.
    """

    logme: float
    h_score: float
    h_score_regularised: float
    transrate: float
    h_score_of_chance: float
    saturated: bool


def score_features(X: ArrayLike, y: ArrayLike) -> FeatureScores:
    """Compute all scores that need features and labels only, with one decomposition for several of them.

    Parameters
    ----------
    X : array (n_samples, n_features)
    y : array (n_samples,)
        Labels of any kind.

    Raises
    ------
    InputError, LabelsError
        As in `logme`.
    """
    X, labels = _check(X, y)
    centred = _centre(X)
    n_samples, n_classes = len(X), len(labels.counts)
    return FeatureScores(
        logme=_logme(X, labels),
        h_score=_h_score(centred, labels),
        h_score_regularised=_h_score_regularised(centred, labels),
        transrate=_transrate(centred, labels, EPSILON),
        # Any centred direction is as good as any other to labels in random order, and there are n - 1 of them.
        h_score_of_chance=(n_classes - 1) * centred.rank / (n_samples - 1),
        saturated=centred.rank == n_samples - 1,
    )


def logme(X: ArrayLike, y: ArrayLike) -> float:
    """Logarithm of the maximum evidence, for each sample, that a Bayesian linear model gives the labels.

    You, Liu, Wang and Long, LogME: practical assessment of pre-trained models for transfer learning, ICML 2021. Each
    class is a target of zeros and ones, ``log N(y | 0, I / beta + F F^T / alpha) / n`` is maximised over alpha and
    beta, and the mean over the classes is the score. Features are neither centred nor scaled; their scale and
    rotation, and columns of zeros, change nothing.

    The maximum is found on the formula itself and not by the paper's fixed-point iteration: for a given ratio of beta
    to alpha the best beta is known in closed form, which leaves one number to search over, on all of its range. The
    code that was published with the paper leaves ``-(D - k)/2 log(alpha)`` out, where k < D features' directions are
    not zero; its values for fewer samples than features are no evidence of anything.

    Parameters
    ----------
    X : array (n_samples, n_features)
        Features, finite.
    y : array (n_samples,)
        Labels of any kind.

    Returns
    -------
    float
        May have either sign. ``inf`` where the features, in fewer directions than there are samples, explain some
        class exactly: the evidence then grows without end as beta does.

    Raises
    ------
    InputError
        If the shapes do not fit, or features are not finite.
    LabelsError
        If there are fewer than two classes.
    """
    X, labels = _check(X, y)
    return _logme(X, labels)


def h_score(X: ArrayLike, y: ArrayLike) -> float:
    """Share of the features' variance that lies between the classes, summed over directions of unit variance.

    Bao, Li, Huang, Zhang, Zheng, Zamir and Guibas, An information-theoretic approach to transferability in task
    transfer learning, ICIP 2019: ``tr(cov(f)^-1 cov(E[f | y]))``, here with the pseudo-inverse. It is at most the
    number of classes minus 1, and exactly that for any labels whatever where the features of n samples vary in n - 1
    directions, as they nearly always do for n <= n_features: `score_features` tells by ``saturated``.

    Parameters
    ----------
    X, y
        As in `logme`.

    Returns
    -------
    float
        From 0 (also of features that do not vary) to the number of classes minus 1.

    Raises
    ------
    InputError, LabelsError
        As in `logme`.
    """
    X, labels = _check(X, y)
    return _h_score(_centre(X), labels)


def h_score_regularised(X: ArrayLike, y: ArrayLike) -> float:
    """H-score with a shrunk covariance, which does not saturate for fewer samples than features.

    Ibrahim, Ponomareva and Mazumder, Newer is not always better: rethinking transferability metrics, their
    peculiarities, stability and performance, 2021: ``tr(S^-1 (1 - a) cov(E[f | y]))`` with
    ``S = (1 - a) cov(f) + a m I``, m the mean variance of a feature, and a the shrinkage of Ledoit and Wolf (2004).
    Both covariances are divided by n.

    Parameters
    ----------
    X, y
        As in `logme`.

    Returns
    -------
    float
        From 0 (also of features that do not vary) to the number of classes minus 1.

    Raises
    ------
    InputError, LabelsError
        As in `logme`.
    """
    X, labels = _check(X, y)
    return _h_score_regularised(_centre(X), labels)


def transrate(X: ArrayLike, y: ArrayLike, *, epsilon: float = EPSILON) -> float:
    """Coding rate of all features minus that of the features of a class: an estimate of what they tell of the labels.

    Huang, Huang, Rong, Yang and Wei, Frustratingly easy transferability estimation, ICML 2022:
    ``R(Z) - sum_c n_c / n R(Z_c)`` with ``R(Z) = 1/2 log det(I + Z^T Z / (n epsilon))``. Z is centred by the mean of
    all samples, as in the paper; Z_c are its rows of one class, not centred again. (The listing in the paper weighs
    classes alike, which is the same where they have the same size.) The value depends on the scale of the features and
    on epsilon.

    Parameters
    ----------
    X, y
        As in `logme`.
    epsilon : float
        The distortion, > 0, in units of a squared feature.

    Returns
    -------
    float
        At least 0; 0 of features that do not vary.

    Raises
    ------
    InputError, LabelsError
        As in `logme`; `InputError` also for an epsilon that is not positive.
    """
    if not 0 < epsilon < np.inf:
        raise InputError(f"epsilon must be positive and finite, got {epsilon}")
    X, labels = _check(X, y)
    return _transrate(_centre(X), labels, epsilon)


def leep(source_probabilities: ArrayLike, y: ArrayLike) -> float:
    """Mean log likelihood of the labels under the source classes' empirical predictor.

    Nguyen, Hassner, Seeger and Archambeau, LEEP: a new measure to evaluate transferability of learned representations,
    ICML 2020. With p(z | x) the source classifier's probabilities, ``p(y | z)`` comes from their sums over the samples
    of each class, and the score is the mean of ``log sum_z p(y_i | z) p(z | x_i)``.

    Parameters
    ----------
    source_probabilities : array (n_samples, n_source_classes)
        Softmax of the backbone's own logits; each row sums to 1.
    y : array (n_samples,)
        Labels of any kind.

    Returns
    -------
    float
        At most 0.

    Raises
    ------
    InputError
        If the shapes do not fit, or a row is no distribution.
    LabelsError
        If there are fewer than two classes.
    """
    P, labels = _check(source_probabilities, y, what="source_probabilities")
    bad = np.flatnonzero((P < 0).any(axis=1) | (np.abs(P.sum(axis=1) - 1) > 1e-3))
    if len(bad):
        raise InputError(
            f"source_probabilities: row {bad[0]} is no distribution (sum {P[bad[0]].sum():.4g}, least "
            f"{P[bad[0]].min():.4g}); give the softmax of the logits"
        )
    joint = labels.sums(P)
    likelihood = np.sum(P * _shares(joint)[labels.codes], axis=1)
    return float(np.mean(np.log(likelihood)))


def nce(source_labels: ArrayLike, y: ArrayLike) -> float:
    """Negative conditional entropy of the labels, given the source classifier's decisions.

    Tran, Nguyen and Hassner, Transferability and hardness of supervised classification tasks, ICCV 2019:
    ``sum p(y, z) log p(y | z)`` over the empirical distribution.

    Parameters
    ----------
    source_labels : array (n_samples,)
        The source class of each sample, of any kind: the largest of the backbone's own logits.
    y : array (n_samples,)
        Labels of any kind.

    Returns
    -------
    float
        At most 0; 0 where the source class settles the label.

    Raises
    ------
    InputError
        If the shapes do not fit.
    LabelsError
        If there are fewer than two classes.
    """
    source = np.asarray(source_labels)
    if source.ndim != 1:
        raise InputError(f"source_labels: expected (n_samples,), got {source.shape}")
    labels = _Labels.of(y, len(source))
    names, codes = np.unique(source, return_inverse=True)
    shape = (len(labels.counts), len(names))
    pairs = np.bincount(labels.codes * len(names) + codes, minlength=shape[0] * shape[1])
    joint = pairs.reshape(shape) / len(source)
    seen = joint > 0
    return float(np.sum(joint[seen] * np.log(_shares(joint)[seen])))


# What is checked and encoded once


@dataclass(frozen=True, eq=False)
class _Labels:
    """Labels as numbers.

    Attributes
    ----------
    codes : int array (n_samples,)
        0 ... n_classes - 1.
    counts : int array (n_classes,)
    """

    codes: IntArray
    counts: IntArray

    @classmethod
    def of(cls, y: ArrayLike, n_samples: int) -> _Labels:
        """Encode labels of any kind."""
        values = np.asarray(y)
        if values.shape != (n_samples,):
            raise InputError(f"y: expected a label for each of {n_samples} samples, got an array of {values.shape}")
        names, codes = np.unique(values, return_inverse=True)
        if len(names) < 2:
            which = f"only one class, {names[0]!s}" if len(names) else "no samples"
            raise LabelsError(f"{which}: a transferability score is about telling at least two classes apart")
        return cls(codes.astype(np.int64), np.bincount(codes))

    def sums(self, values: FloatArray) -> FloatArray:
        """Sum rows (n_samples, k) over each class: (n_classes, k)."""
        starts = np.cumsum(self.counts) - self.counts
        sums: FloatArray = np.add.reduceat(values[np.argsort(self.codes, kind="stable")], starts, axis=0)
        return sums


def _check(X: ArrayLike, y: ArrayLike, what: str = "X") -> tuple[FloatArray, _Labels]:
    values = np.asarray(X, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] < 1:
        raise InputError(f"{what}: expected (n_samples, at least one column), got {values.shape}")
    labels = _Labels.of(y, len(values))
    if not np.isfinite(values).all():
        raise InputError(f"{what}: NaN or infinite values, first in row {np.argmin(np.isfinite(values).all(axis=1))}")
    return values, labels


def _shares(joint: FloatArray) -> FloatArray:
    """Divide each column (n_classes,) by its sum; a column of zeros stays one."""
    total = joint.sum(axis=0)
    shares: FloatArray = np.divide(joint, total, out=np.zeros_like(joint), where=total > 0)
    return shares


def _centre(X: FloatArray) -> Spectrum:
    """Decompose features minus their mean."""
    centred = X - X.mean(axis=0)
    centred -= centred.mean(axis=0)  # what rounding left of a large mean
    centred[:, np.ptp(X, axis=0) == 0] = 0.0  # and of a constant
    return Spectrum.of(centred)


def _shrinkage(centred: Spectrum) -> float:
    """Return the weight of the identity in Ledoit and Wolf's covariance, in [0, 1].

    Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices, Journal of Multivariate
    Analysis 88 (2004): the estimated error of the covariance over its distance from the identity.
    """
    n_samples, n_features = centred.X.shape
    variances = centred.values / n_samples
    mean = variances.sum() / n_features
    distance = np.sum((variances - mean) ** 2) + (n_features - centred.rank) * mean**2
    lengths = np.einsum("ij,ij->i", centred.X, centred.X)
    error = (np.mean(lengths**2) - np.sum(variances**2)) / n_samples
    return float(np.clip(error / distance, 0.0, 1.0)) if distance > 0 else 0.0


# The scores


def _between(centred: Spectrum, labels: _Labels) -> FloatArray:
    """Return the share (rank,) of each direction's variance that lies between the classes."""
    sums = centred.coordinates(np.eye(len(labels.counts))[labels.codes])
    shares: FloatArray = np.sum(sums**2 / labels.counts, axis=1)
    return shares


def _h_score(centred: Spectrum, labels: _Labels) -> float:
    return float(np.sum(_between(centred, labels)))


def _h_score_regularised(centred: Spectrum, labels: _Labels) -> float:
    if centred.rank == 0:
        return 0.0
    n_samples, n_features = centred.X.shape
    shrinkage = _shrinkage(centred)
    variances = centred.values / n_samples
    kept = (1 - shrinkage) * variances
    weights = kept / (kept + shrinkage * variances.sum() / n_features)
    return float(np.sum(weights * _between(centred, labels)))


def _transrate(centred: Spectrum, labels: _Labels, epsilon: float) -> float:
    rate = _coding_rate(centred.values, len(centred.X), epsilon)
    for code, count in enumerate(labels.counts.tolist()):
        values = squared_singular_values(centred.X[labels.codes == code])
        rate -= count / len(centred.X) * _coding_rate(values, count, epsilon)
    return max(rate, 0.0)  # below 0 by rounding only: log det is concave


def _coding_rate(values: FloatArray, n_samples: int, epsilon: float) -> float:
    return 0.5 * float(np.sum(np.log1p(values / (n_samples * epsilon))))


def _logme(X: FloatArray, labels: _Labels) -> float:
    targets = np.eye(len(labels.counts))[labels.codes]
    return float(np.mean(max_log_evidence(X, targets))) / len(X)
