"""Maps that make probabilities come true as often as they say, and the choice between them.

A map is fitted on out-of-fold probabilities: each sample's own, by a head that did not see it. Which map is chosen by
what the maps say of samples that they were not fitted on either, fold by fold of the same probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from featx.errors import UnknownNameError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

METHODS = ("none", "temperature", "sigmoid", "isotonic")
"""The maps, simplest first."""
CALIBRATIONS = ("auto", *METHODS)
"""Values of ``--calibration``."""
ENOUGH_FOR_ISOTONIC = 1000
"""Samples, or groups, from which on ``auto`` considers isotonic regression.

Niculescu-Mizil and Caruana (Predicting good probabilities with supervised learning, ICML 2005) saw it overfit with
fewer calibration samples than about this; scikit-learn's guide says the same.
"""
DEALT = 5
"""Folds for the choice, where the probabilities come from a single one."""
COLDEST, HOTTEST = 1e-2, 1e2
"""Between these a temperature is looked for."""
EPS = float(np.finfo(np.float64).eps)
"""Probabilities are cut here before a logarithm is taken, as scikit-learn's log loss does."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Out-of-fold probabilities of samples.

    Attributes
    ----------
    probabilities : float64 array (n_samples, n_views, n_classes)
        One row for each view by which a sample is called; a sample's probability is their mean.
    true : int array (n_samples,)
        Position of each sample's class.
    folds : int array (n_samples,)
        In which fold it was left out.
    units : int array (n_samples,)
        What is independent of what: the group of each sample, or its own number.
    """

    probabilities: FloatArray
    true: IntArray
    folds: IntArray
    units: IntArray

    def __len__(self) -> int:
        return len(self.true)

    @property
    def n_units(self) -> int:
        """How many groups there are, or samples."""
        return len(np.unique(self.units))

    def take(self, rows: NDArray[np.bool_]) -> Scored:
        """Return some of the samples."""
        return Scored(self.probabilities[rows], self.true[rows], self.folds[rows], self.units[rows])


@dataclass(frozen=True, eq=False)
class Calibration:
    """A fitted map, and how it was chosen.

    Attributes
    ----------
    method : str
        One of `METHODS`.
    parameters : dict of str to float64 array
        ``temperature`` (1,); or ``slopes`` and ``intercepts`` (n_maps,); or ``sizes`` (n_maps,) with ``knots`` and
        ``values``, one map after the other. There is one map for each class, and of two classes for the second only.
    losses : dict of str to float
        For each map that was considered, the mean log loss of samples on which it was not fitted.
    n_samples, n_units : int
        On which the map was fitted: samples, and groups of them.
    """

    method: str
    parameters: dict[str, FloatArray] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    n_samples: int = 0
    n_units: int = 0

    def apply(self, probabilities: FloatArray) -> FloatArray:
        """Return calibrated probabilities for probabilities (n, n_classes)."""
        return apply_map(self.method, self.parameters, probabilities)

    @property
    def temperature(self) -> float | None:
        """The temperature, where that is the map: above 1 it takes certainty away."""
        return float(self.parameters["temperature"][0]) if self.method == "temperature" else None


def check_calibration(name: str) -> None:
    """Raise UnknownNameError for a value that ``--calibration`` does not take."""
    if name not in CALIBRATIONS:
        raise UnknownNameError("calibration", name, CALIBRATIONS)


def choose_calibration(
    scored: Scored, method: str = "auto", *, among: Sequence[str] = ("none", "temperature", "isotonic")
) -> Calibration:
    """Choose a map and fit it.

    Each candidate is fitted fold by fold on the other folds' samples, and its log loss is taken on the fold's own.
    From the simplest on, a candidate takes over where its mean log loss is lower by more than one standard error of
    the difference, whole groups counted as one (the one-standard-error rule of Breiman et al., Classification and
    Regression Trees, 1984): a tie goes to the simpler one. The map that is returned is fitted on all samples.

    Parameters
    ----------
    scored : Scored
    method : str
        One of `CALIBRATIONS`.
    among : sequence of str
        What ``"auto"`` considers, simplest first; isotonic regression only from `ENOUGH_FOR_ISOTONIC` groups or samples
        on.

    Returns
    -------
    Calibration
    """
    check_calibration(method)
    if method == "none":
        return Calibration("none")
    candidates = list(among) if method == "auto" else ["none", method]
    if method == "auto" and scored.n_units < ENOUGH_FOR_ISOTONIC:
        candidates = [name for name in candidates if name != "isotonic"]
    losses = {name: _left_out_losses(name, scored) for name in candidates}
    chosen = candidates[0] if method == "auto" else method
    if method == "auto":
        for name in candidates[1:]:
            if _is_better(losses[chosen] - losses[name], scored.units):
                chosen = name
    return Calibration(
        chosen,
        fit_map(chosen, scored),
        {name: float(np.mean(loss)) for name, loss in losses.items()},
        len(scored),
        scored.n_units,
    )


def fit_map(method: str, scored: Scored) -> dict[str, FloatArray]:
    """Fit the parameters of a map, see `Calibration.parameters`."""
    fit = {"none": _nothing, "temperature": _fit_temperature, "sigmoid": _fit_sigmoids, "isotonic": _fit_isotonic}
    return fit[method](scored)


def apply_map(method: str, parameters: Mapping[str, FloatArray], probabilities: FloatArray) -> FloatArray:
    """Return calibrated probabilities for probabilities (..., n_classes)."""
    if method == "none":
        return probabilities
    if method == "temperature":
        return _softmax(np.log(np.maximum(probabilities, EPS)) / parameters["temperature"])
    columns = _columns(probabilities)
    if method == "sigmoid":
        from scipy.special import expit

        mapped = expit(parameters["slopes"] * _log_odds(columns) + parameters["intercepts"])
    else:
        ends = np.cumsum(parameters["sizes"]).astype(np.int64)
        maps = zip(np.split(parameters["knots"], ends[:-1]), np.split(parameters["values"], ends[:-1]), strict=True)
        mapped = np.stack([np.interp(columns[..., k], *knots) for k, knots in enumerate(maps)], axis=-1)
    if mapped.shape[-1] == 1:
        return np.concatenate([1 - mapped, mapped], axis=-1)
    normalised: FloatArray = mapped / mapped.sum(axis=-1, keepdims=True)
    return normalised


def _left_out_losses(method: str, scored: Scored) -> FloatArray:
    """Log loss of each sample under a map that was fitted on the other folds."""
    folds = scored.folds if len(np.unique(scored.folds)) > 1 else deal_units(scored)
    losses = np.empty(len(scored))
    for fold in np.unique(folds):
        own = folds == fold
        parameters = fit_map(method, scored.take(~own))
        mean = apply_map(method, parameters, scored.probabilities[own]).mean(axis=1)
        losses[own] = -np.log(np.clip(mean[np.arange(len(mean)), scored.true[own]], EPS, 1.0))
    return losses


def deal_units(scored: Scored) -> IntArray:
    """Deal groups, or samples, into `DEALT` folds like cards, class after class; the fold of each sample."""
    units, first, inverse = np.unique(scored.units, return_index=True, return_inverse=True)
    folds = np.empty(len(units), dtype=np.int64)
    folds[np.lexsort((units, scored.true[first]))] = np.arange(len(units)) % DEALT
    dealt: IntArray = folds[inverse]
    return dealt


def _is_better(gains: FloatArray, units: IntArray) -> bool:
    """Whether the mean gain is larger than its standard error, whole units varying together."""
    n_units, places = len(np.unique(units)), np.unique(units, return_inverse=True)[1]
    if n_units < 2:
        return False
    mean = float(np.mean(gains))
    deviations = np.bincount(places, weights=gains - mean, minlength=n_units)
    error = (n_units / (n_units - 1) * float(np.sum(deviations**2))) ** 0.5 / len(gains)
    return bool(mean > error)


# The maps


def _nothing(_scored: Scored) -> dict[str, FloatArray]:
    return {}


def _fit_temperature(scored: Scored) -> dict[str, FloatArray]:
    """Fit one divisor of the log probabilities (Guo et al., On calibration of modern neural networks, ICML 2017).

    It minimises the log loss of the samples' mean probabilities. The true class counts (n + 1) / (n + 2) for n groups
    or samples, and the others share the rest: without a wrong one among n, the rule of succession allows no more
    certainty, where the plain log loss would ask for all there is. (Platt smooths his targets in the same way.)
    """
    from scipy.optimize import minimize_scalar

    n_samples, _, n_classes = scored.probabilities.shape
    target = np.full((n_samples, n_classes), 1 / (scored.n_units + 2) / (n_classes - 1))
    target[np.arange(n_samples), scored.true] = (scored.n_units + 1) / (scored.n_units + 2)
    logs = np.log(np.maximum(scored.probabilities, EPS))

    def loss(log_temperature: float) -> float:
        mean = _softmax(logs / np.exp(log_temperature)).mean(axis=1)
        return float(-np.sum(target * np.log(np.maximum(mean, np.finfo(np.float64).tiny))) / n_samples)

    bounds = (np.log(COLDEST), np.log(HOTTEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    return {"temperature": np.array([np.exp(found.x)])}


def _fit_sigmoids(scored: Scored) -> dict[str, FloatArray]:
    """Fit a sigmoid of each class's log odds (Platt 1999) on rows that weigh one over their number for each sample."""
    n_samples, n_views, _ = scored.probabilities.shape
    values = _log_odds(_columns(scored.probabilities)).reshape(n_samples * n_views, -1)
    fits = []
    for k, is_class in enumerate(_targets(scored)):
        up, down = (is_class.sum() + 1) / (is_class.sum() + 2), 1 / ((~is_class).sum() + 2)
        targets = np.repeat(np.where(is_class, up, down), n_views)
        fits.append(_fit_sigmoid(values[:, k], targets))
    slopes, intercepts = np.array(fits).T
    return {"slopes": slopes, "intercepts": intercepts}


def _fit_sigmoid(values: FloatArray, targets: FloatArray) -> tuple[float, float]:
    """Slope and intercept that minimise the log loss of `targets`: Newton's method with halved steps.

    After Lin, Lin and Weng (A note on Platt's probabilistic outputs for support vector machines, 2007).
    """
    from scipy.special import expit

    rows = np.stack([values, np.ones(len(values))])

    def loss(point: FloatArray) -> float:
        z = point @ rows
        return float(np.mean(np.logaddexp(0.0, z) - targets * z))

    point, value = np.zeros(2), float("inf")
    for _ in range(100):
        p = expit(point @ rows)
        gradient = rows @ (p - targets) / len(values)
        hessian = (rows * (p * (1 - p))) @ rows.T / len(values) + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        value = loss(point)
        while loss(point - step) > value and np.max(np.abs(step)) > 1e-12:
            step = step / 2
        point = point - step
        if np.max(np.abs(gradient)) < 1e-10 or np.max(np.abs(step)) <= 1e-12:
            break
    return float(point[0]), float(point[1])


def _fit_isotonic(scored: Scored) -> dict[str, FloatArray]:
    """Fit a rising step function of each class's probability (Zadrozny and Elkan, KDD 2002), straight between steps.

    It ends where the rule of succession does: at 1 / (n + 2) and (n + 1) / (n + 2) for n groups or samples.
    """
    from sklearn.isotonic import IsotonicRegression

    n_samples, n_views, _ = scored.probabilities.shape
    values = _columns(scored.probabilities).reshape(n_samples * n_views, -1)
    least = 1 / (scored.n_units + 2)
    knots, heights = [], []
    for k, is_class in enumerate(_targets(scored)):
        model = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip")
        model.fit(values[:, k], np.repeat(is_class.astype(np.float64), n_views))
        knots.append(np.asarray(model.X_thresholds_, dtype=np.float64))
        heights.append(np.asarray(model.y_thresholds_, dtype=np.float64))
    sizes = np.array([len(some) for some in knots], dtype=np.float64)
    return {"sizes": sizes, "knots": np.concatenate(knots), "values": np.concatenate(heights)}


def _targets(scored: Scored) -> Sequence[NDArray[np.bool_]]:
    """Who is of the class, for each map: for all classes, of two for the second."""
    n_classes = scored.probabilities.shape[-1]
    return [scored.true == k for k in (range(n_classes) if n_classes > 2 else [1])]


def _columns(probabilities: FloatArray) -> FloatArray:
    return probabilities[..., 1:] if probabilities.shape[-1] == 2 else probabilities


def _log_odds(probabilities: FloatArray) -> FloatArray:
    p = np.clip(probabilities, EPS, 1 - EPS)
    odds: FloatArray = np.log(p) - np.log1p(-p)
    return odds


def _softmax(logs: FloatArray) -> FloatArray:
    powers = np.exp(logs - logs.max(axis=-1, keepdims=True))
    shares: FloatArray = powers / powers.sum(axis=-1, keepdims=True)
    return shares
