"""Labelled sets drawn from known populations, for `bin/bench coverage`: their true scores can be had."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from featx.learn.heads import fit_head
from featx.learn.scores import FoldPredictions
from featx.learn.search import Job, Space, run_jobs
from featx.learn.splits import Fold, make_folds

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Head = Callable[[FloatArray, IntArray, FloatArray, int], FloatArray]
"""Training rows, their classes, rows to call, number of classes -> probabilities."""


# Heads that fit in well under a millisecond, and featx's own


def prototype(X: FloatArray, y: IntArray, rows: FloatArray, n_classes: int, *, temperature: float = 1.0) -> FloatArray:
    """Nearest class mean, as sure as if the spread of each class were 1."""
    means = np.stack([X[y == code].mean(axis=0) for code in range(n_classes)])
    return _softmax((rows @ means.T - (means**2).sum(axis=1) / 2) / temperature)


def cool_prototype(X: FloatArray, y: IntArray, rows: FloatArray, n_classes: int) -> FloatArray:
    """Nearest class mean for many features, where it would be far too sure."""
    return prototype(X, y, rows, n_classes, temperature=4.0)


def discriminant(X: FloatArray, y: IntArray, rows: FloatArray, n_classes: int) -> FloatArray:
    """Linear discriminant analysis with a covariance drawn 0.3 of the way to the identity."""
    means = np.stack([X[y == code].mean(axis=0) for code in range(n_classes)])
    centred = X - means[y]
    covariance = centred.T @ centred / len(X)
    covariance = 0.7 * covariance + 0.3 * np.trace(covariance) / X.shape[1] * np.eye(X.shape[1])
    directions = np.linalg.solve(covariance, means.T)
    return _softmax((rows @ directions - (means.T * directions).sum(axis=0) / 2) / 1.5)


def neighbours(X: FloatArray, y: IntArray, rows: FloatArray, n_classes: int) -> FloatArray:
    """Votes of the five nearest rows: a head that follows its training set closely."""
    distances = (rows**2).sum(axis=1)[:, None] + (X**2).sum(axis=1) - 2 * rows @ X.T
    nearest = np.argpartition(distances, 4, axis=1)[:, :5]
    votes = np.stack([(y[nearest] == code).sum(axis=1) for code in range(n_classes)], axis=1) + 0.3
    return votes / votes.sum(axis=1, keepdims=True)


def logreg(X: FloatArray, y: IntArray, rows: FloatArray, n_classes: int) -> FloatArray:
    """featx's logistic regression at C = 1."""
    assert len(np.unique(y)) == n_classes
    head = fit_head("logreg", 1.0, "raw", X, y, np.zeros(len(X), dtype=np.int64))
    return np.asarray(head.predict_proba(rows))


def _softmax(values: FloatArray) -> FloatArray:
    exponents = np.exp(values - values.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


# Populations


@dataclass(frozen=True)
class Population:
    """Gaussian classes, or several Gaussians to a class, and how a set from it is cross-validated.

    Attributes
    ----------
    name : str
    n_features, n_classes, n_modes : int
    separation : float
        Distance of the means from the origin, where the spread is 1.
    shares : tuple of float
        Of the classes; empty = equal.
    largest_group : int
        Groups (patients) of 1 to so many samples, all of one class; 0 = no groups.
    effect : float
        How much of the spread is the group's own, as a standard deviation.
    head : Head or None
        None: featx's own search, which chooses C of a logistic regression inside each training part.
    cv, repeats : int
    """

    name: str
    n_features: int = 20
    n_classes: int = 2
    separation: float = 1.1
    shares: tuple[float, ...] = ()
    largest_group: int = 0
    effect: float = 0.6
    n_modes: int = 1
    head: Head | None = field(default=prototype)
    cv: int = 5
    repeats: int = 1

    @property
    def means(self) -> FloatArray:
        """Centres (n_classes, n_modes, n_features); two classes face each other."""
        directions = np.random.default_rng(7).normal(size=(self.n_classes, self.n_modes, self.n_features))
        if self.n_classes == 2 and self.n_modes == 1:
            directions[1] = -directions[0]
        return self.separation * directions / np.linalg.norm(directions, axis=2, keepdims=True)

    def draw(self, n: int, rng: np.random.Generator) -> tuple[FloatArray, IntArray, IntArray | None]:
        """Draw a set with random labels: as many groups of each class, or samples, as there are folds at least."""
        shares = self.shares or (1 / self.n_classes,) * self.n_classes
        while True:
            sizes = np.ones(n, dtype=np.int64)
            if self.largest_group:
                sizes = rng.integers(1, self.largest_group + 1, n)
                sizes = sizes[: int(np.searchsorted(np.cumsum(sizes), n)) + 1]
                sizes[-1] -= sizes.sum() - n
            of_group = rng.choice(self.n_classes, len(sizes), p=shares)
            if np.bincount(of_group, minlength=self.n_classes).min() >= self.cv:
                break
        groups = np.repeat(np.arange(len(sizes)), sizes)
        y = of_group[groups]
        if not self.largest_group:
            return self._rows(y, rng), y, None
        own = rng.normal(size=(len(sizes), self.n_features))[groups]
        centre = self.means[y, rng.integers(self.n_modes, size=n)]
        rest = (1 - self.effect**2) ** 0.5 * rng.normal(size=(n, self.n_features))
        return centre + self.effect * own + rest, y, groups

    def draw_fresh(self, n: int, rng: np.random.Generator) -> tuple[FloatArray, IntArray]:
        """Draw independent samples, each of a group of its own."""
        y = rng.choice(self.n_classes, n, p=self.shares or None)
        return self._rows(y, rng), y

    def _rows(self, y: IntArray, rng: np.random.Generator) -> FloatArray:
        rows: FloatArray = self.means[y, rng.integers(self.n_modes, size=len(y))]
        return rows + rng.normal(size=rows.shape)


POPULATIONS = (
    Population("2 classes"),
    Population("2 classes, near perfect", separation=2.3),
    Population("2 classes, hard, 100 features", n_features=100, separation=0.7),
    Population("2 classes, chance", n_features=50, separation=0.0),
    Population("2 classes, 500 features", n_features=500, separation=1.5, head=cool_prototype),
    Population("5 classes", n_classes=5, separation=2.2),
    Population("5 classes, near perfect", n_classes=5, separation=3.5),
    Population("15 % positive", shares=(0.85, 0.15)),
    Population("15 % positive, near perfect", shares=(0.85, 0.15), separation=2.0),
    Population("5 classes, 14 to 36 %", n_classes=5, separation=2.2, shares=(0.36, 0.22, 0.14, 0.14, 0.14)),
    Population("patients", largest_group=5),
    Population("patients, near perfect", largest_group=5, separation=2.0),
    Population("patients, chance", largest_group=5, effect=0.8, separation=0.0),
    Population("5 neighbours, 3 modes", n_features=10, n_modes=3, separation=2.5, head=neighbours),
    Population("discriminant", separation=1.3, head=discriminant),
    Population("logistic regression, C = 1", head=logreg),
    Population("4 repeats", repeats=4),
    Population("4 repeats, patients", repeats=4, largest_group=5),
    Population("3 folds", cv=3),
    Population("10 folds, 500 features", cv=10, n_features=500, separation=1.5, head=cool_prototype),
)
CHOSEN = Population("logistic regression, C chosen inside", head=None)


# Cross-validation of a set


@dataclass(frozen=True, eq=False)
class Study:
    """A set, cross-validated; what the head of its first fold says of fresh samples is for the truth."""

    population: Population
    y: NDArray[np.str_]
    groups: IntArray | None
    folds: list[Fold]
    parts: list[FoldPredictions]
    fresh: FoldPredictions
    y_fresh: NDArray[np.str_]
    X: FloatArray

    @property
    def classes(self) -> list[str]:
        return name_classes(np.arange(self.population.n_classes)).tolist()


def name_classes(codes: IntArray) -> NDArray[np.str_]:
    return np.array([f"class {code}" for code in codes.tolist()])


def cross_validate(population: Population, n: int, seed: Sequence[int], n_fresh: int = 1000) -> Study:
    """Draw a set and cross-validate the population's procedure on it, in featx's own folds."""
    rng = np.random.default_rng(seed)
    X, codes, groups = population.draw(n, rng)
    X_fresh, codes_fresh = population.draw_fresh(n_fresh, rng)
    y, y_fresh = name_classes(codes), name_classes(codes_fresh)
    state = int(rng.integers(2**31))
    folds = make_folds(y, groups, n_splits=population.cv, n_repeats=population.repeats, random_state=state)
    if population.head is None:
        parts = _search(X, y, groups, folds, X_fresh, state)
    else:
        parts = []
        for fold in folds:
            rows = np.concatenate([X[fold.test], X_fresh]) if fold is folds[0] else X[fold.test]
            parts.append(population.head(X[fold.train], codes[fold.train], rows, population.n_classes))
    n_test = len(folds[0].test)
    first = parts[0]
    parts[0] = first[:n_test]
    fresh = Fold(0, 0, folds[0].train, np.arange(n_fresh))
    return Study(
        population,
        y,
        groups,
        folds,
        [_call(fold, part) for fold, part in zip(folds, parts, strict=True)],
        _call(fresh, first[n_test:]),
        y_fresh,
        X,
    )


def _call(fold: Fold, probabilities: FloatArray) -> FoldPredictions:
    return FoldPredictions(fold, name_classes(probabilities.argmax(axis=1)), probabilities)


def _search(
    X: FloatArray, y: NDArray[np.str_], groups: IntArray | None, folds: Sequence[Fold], fresh: FloatArray, state: int
) -> list[FloatArray]:
    """Choose C inside each training part by balanced accuracy, as `featx fit --scaling raw --inner-cv 3` does."""
    jobs = []
    for fold in folds:
        own = None if groups is None else groups[fold.train]
        inner = make_folds(y[fold.train], own, n_splits=3, random_state=state)
        pairs = [(fold.train[pair.train], fold.train[pair.test]) for pair in inner]
        test = np.concatenate([fold.test, len(y) + np.arange(len(fresh))]) if fold is folds[0] else fold.test
        jobs.append(Job(fold.name, pairs, fold.train, np.zeros(len(fold.train), dtype=np.int64), test))
    space = Space(("logreg",), ("raw",), (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0), "balanced_accuracy")
    rows, labels = np.concatenate([X, fresh]), np.concatenate([y, np.full(len(fresh), y[0])])
    return [outcome.best.probabilities for outcome in run_jobs(rows, labels, jobs, space)]
