"""The heads: scikit-learn classifiers on features, each with its scaling in one pipeline.

`make_head` is the definition: a pipeline on the full features. `Head.search` scores the same head at many values of its
parameter on many training parts, at a fraction of the cost of as many fits. Tests hold the one against the other, and
both against scikit-learn's own classifiers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import SVC

from featx.errors import UnknownNameError
from featx.learn.calibrated import SigmoidCalibrated
from featx.learn.discriminant import ShrinkageDiscriminant, search_lda
from featx.learn.kernel import search_svm_rbf
from featx.learn.linear import NewtonLinearSVC, NewtonLogisticRegression, search_logistic, search_svm
from featx.learn.neighbours import search_knn
from featx.learn.own import maker, own_head, search_by_fitting
from featx.learn.prototype import NearestPrototype, search_prototype
from featx.learn.ridge import search_ridge
from featx.learn.training import Scored, TrainingParts

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Parameter:
    """What is chosen of a head.

    Attributes
    ----------
    name : str
        As in scikit-learn; ``""`` where there is nothing to choose.
    values : tuple of float
        What is tried unless told otherwise, the simplest head first: of equally good ones it is taken.
    limits : (float, float)
        The least and the most that it can be; the best value may lie beyond any other edge of `values`.
    per_view : int
        Power of the number of rows of a sample by which a value is multiplied, so that rows count 1 / V each.
    """

    name: str
    values: tuple[float, ...]
    limits: tuple[float, float] = (0.0, np.inf)
    per_view: int = 0

    def edge(self, value: float, values: Sequence[float]) -> str:
        """Return ``"lower"`` or ``"upper"`` where better values may lie beyond that end of `values`, else ``""``."""
        if len(values) == 1 or value in self.limits:
            return ""
        return {min(values): "lower", max(values): "upper"}.get(value, "")


STRENGTHS = Parameter("C", tuple(10.0**power for power in range(-6, 4)), per_view=-1)
ALPHAS = Parameter("alpha", tuple(10.0**power for power in range(8, -5, -1)), per_view=1)
SHRINKAGES = Parameter("shrinkage", (1.0, 0.99, 0.97, 0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.03, 0.01, 0.001), (0.0, 1.0))
NEIGHBOURS = Parameter("n_neighbors", (100, 50, 30, 20, 15, 10, 7, 5, 3, 2, 1), (1, np.inf), per_view=1)
NOTHING = Parameter("", (0.0,))


@dataclass(frozen=True)
class Head:
    """One kind of classifier.

    Attributes
    ----------
    name, summary : str
        As in ``--head``, and one line about it.
    parameter : Parameter
    make : callable (value, class_weight, random_state) -> classifier
        The unfitted classifier on scaled features.
    search : callable (TrainingParts, values) -> iterator of Scored
        What `make` would say for each part at each value.
    has_probabilities : bool
        Whether it has probabilities of its own; else they are a sigmoid of its decision values.
    is_isometric : bool
        Whether it depends on distances and angles alone, and may be fitted in `featx.learn.coordinates`.
    is_solved : bool
        Whether every fit takes the steps of a solver, `featx.learn.path`.
    """

    name: str
    summary: str
    parameter: Parameter
    make: Callable[[float, str | None, int], Any]
    search: Callable[[TrainingParts, Sequence[float]], Iterator[Scored]]
    has_probabilities: bool
    is_isometric: bool = True
    is_solved: bool = False


HEADS = {
    head.name: head
    for head in (
        Head(
            name="logreg",
            summary="multinomial logistic regression, L2 penalty",
            parameter=STRENGTHS,
            make=lambda C, class_weight, _: NewtonLogisticRegression(C=C, class_weight=class_weight),
            search=partial(search_logistic, multinomial=True),
            has_probabilities=True,
            is_solved=True,
        ),
        Head(
            name="svm",
            summary="linear SVM, squared hinge loss, one class against the rest",
            parameter=STRENGTHS,
            make=lambda C, class_weight, _: NewtonLinearSVC(C=C, class_weight=class_weight),
            search=search_svm,
            has_probabilities=False,
            is_solved=True,
        ),
        Head(
            name="svm-rbf",
            summary="SVM with a Gaussian kernel, one class against one",
            parameter=STRENGTHS,
            make=lambda C, class_weight, random_state: SVC(
                C=C, kernel="rbf", gamma="scale", class_weight=class_weight, random_state=random_state
            ),
            search=search_svm_rbf,
            has_probabilities=False,
            is_isometric=False,  # gamma depends on the mean of all numbers
        ),
        Head(
            name="logreg-ovr",
            summary="logistic regression, one class against the rest",
            parameter=STRENGTHS,
            make=lambda C, class_weight, _: NewtonLogisticRegression(C=C, class_weight=class_weight, multinomial=False),
            search=partial(search_logistic, multinomial=False),
            has_probabilities=True,
            is_solved=True,
        ),
        Head(
            name="ridge",
            summary="least squares, L2 penalty, one class against the rest",
            parameter=ALPHAS,
            make=lambda alpha, class_weight, _: RidgeClassifier(alpha=alpha, class_weight=class_weight),
            search=search_ridge,
            has_probabilities=False,
        ),
        Head(
            name="lda",
            summary="linear discriminant analysis with a shrunken covariance",
            parameter=SHRINKAGES,
            make=lambda shrinkage, class_weight, _: ShrinkageDiscriminant(
                shrinkage=shrinkage, priors="equal" if class_weight == "balanced" else None
            ),
            search=search_lda,
            has_probabilities=True,
        ),
        Head(
            name="knn",
            summary="nearest neighbours by cosine distance, weighted by its inverse",
            parameter=NEIGHBOURS,
            make=lambda n_neighbors, _, __: KNeighborsClassifier(
                int(n_neighbors), metric="cosine", weights="distance", algorithm="brute"
            ),
            search=search_knn,
            has_probabilities=True,
        ),
        Head(
            name="prototype",
            summary="nearest class mean, centred, of unit length (SimpleShot)",
            parameter=NOTHING,
            make=lambda _, __, ___: NearestPrototype(),
            search=search_prototype,
            has_probabilities=False,
        ),
    )
}
"""By name, in the order in which ties are broken."""

SCALINGS: dict[str, Callable[[], Any] | None] = {"raw": None, "standardise": StandardScaler, "l2": Normalizer}
"""Features as they are; each column to mean 0 and deviation 1; each row to Euclidean length 1. In the order of ties."""


def find_head(name: str) -> Head:
    """Return the head of a name: one of `HEADS`, or that of a user's function, ``package.module:factory``.

    Raises
    ------
    UnknownNameError
        With close matches.
    UsageError, InputError
        A function that is not there, fails, or gives no classifier.
    """
    if name in HEADS:
        return HEADS[name]
    if ":" not in name:
        raise UnknownNameError("head", name, HEADS, hint="your own is written package.module:factory")
    make = maker(name)
    has_probabilities = hasattr(own_head(name), "predict_proba")
    search = partial(search_by_fitting, make=make, name=name)
    return Head(name, "your own", NOTHING, make, search, has_probabilities, is_isometric=False)


def order_of(name: str) -> int:
    """Return a head's place in the order in which ties are broken: a user's own come last."""
    return list(HEADS).index(name) if name in HEADS else len(HEADS)


def make_scaler(scaling: str) -> Any:
    """Return the unfitted scaler, or None for ``"raw"``."""
    make = SCALINGS[scaling]
    return None if make is None else make()


def make_head(
    name: str, value: float, scaling: str, random_state: int = 0, *, class_weight: str | None = None
) -> Pipeline:
    """Return the unfitted pipeline of a scaling and a head: what every fit of featx amounts to.

    Parameters
    ----------
    name, scaling : str
        As `find_head` takes it, and of `SCALINGS`.
    value : float
        Of the head's parameter.
    random_state : int
    class_weight : str or None
        ``"balanced"``, or all samples count the same.

    Returns
    -------
    sklearn.pipeline.Pipeline
        Steps ``scale`` (not with ``"raw"``) and ``head``.
    """
    steps = [("head", find_head(name).make(value, class_weight, random_state))]
    scaler = make_scaler(scaling)
    return Pipeline(steps if scaler is None else [("scale", scaler), *steps])


def fit_head(
    name: str,
    value: float,
    scaling: str,
    X: FloatArray,
    y: NDArray[Any],
    folds: NDArray[np.int_] | None,
    random_state: int = 0,
    *,
    class_weight: str | None = None,
    weights: FloatArray | None = None,
) -> Any:
    """Fit a head, with a sigmoid behind it where it has no probabilities of its own.

    Parameters
    ----------
    name, value, scaling, random_state, class_weight
        As in `make_head`.
    X : float64 array (n_samples, n_features)
    y : str array (n_samples,)
    folds : int array (n_samples,)
        The fold of each row, for the out-of-fold decision values behind the sigmoid of heads without probabilities;
        None: no sigmoid.
    weights : float64 array (n_samples,), optional
        How much each row counts for that sigmoid.

    Returns
    -------
    sklearn.pipeline.Pipeline or SigmoidCalibrated
    """
    head = make_head(name, value, scaling, random_state, class_weight=class_weight)
    is_bare = folds is None or find_head(name).has_probabilities
    return (head if is_bare else SigmoidCalibrated(head, folds, weights)).fit(X, y)
