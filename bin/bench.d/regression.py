"""`bin/bench regression`: how often intervals of a regression's scores, and of its predictions, hold the truth.

Sets come from known populations. The truth of a score is that of the heads of the first folds, one from each set, on
fresh samples each: nominal 95 % should cover between 93 and 99 %. Prediction intervals at 90 % are asked for fresh
samples of each set.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.svm import SVR
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from featx.learn.regression.folds import FoldPlan, make_folds
from featx.learn.regression.intervals import NumberIntervals
from featx.learn.regression.metrics import METRICS, of_new
from featx.learn.regression.scores import evaluate_folds
from featx.learn.scores import FoldPredictions

FloatArray = NDArray[np.float64]
N_FRESH = 500
COVERAGE = 0.9


@dataclass(frozen=True)
class Population:
    """Numbers that are linear in five of the features, with noise.

    Attributes
    ----------
    name : str
    signal : float
        Deviation of what the features say; that of the noise is 1.
    n_features : int
    largest_group : int
        Groups of 1 to so many samples share 80 % of the noise's deviation, and half of the features' variance; 0: none.
    heavy : bool
        Noise of Student's t with 4 degrees of freedom.
    repeats : int
    head : callable () -> regressor
    """

    name: str
    signal: float = 1.0
    n_features: int = 20
    largest_group: int = 0
    heavy: bool = False
    repeats: int = 1
    head: Callable[[], object] = lambda: Ridge(10.0)

    def draw(self, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, NDArray[np.int64] | None]:
        X, noise, groups = rng.normal(size=(n, self.n_features)), rng.normal(size=n), None
        if self.heavy:
            noise = rng.standard_t(4, size=n) / 2**0.5
        if self.largest_group:
            groups = np.repeat(np.arange(n), rng.integers(1, self.largest_group + 1, n))[:n]
            X = 0.5**0.5 * (X + rng.normal(size=(n, self.n_features))[groups])
            noise = 0.6 * noise + 0.8 * rng.normal(size=n)[groups]
        return X, self.signal * X[:, :5].sum(axis=1) / 5**0.5 + noise, groups


POPULATIONS = (
    Population("nothing to learn, 50 features", signal=0.0, n_features=50),
    Population("as much noise as signal"),
    Population("strong signal", signal=3.0),
    Population("200 features, much shrinkage", n_features=200, head=lambda: Ridge(100.0)),
    Population("heavy tails", heavy=True),
    Population("patients", largest_group=5),
    Population("patients, nothing to learn", signal=0.0, n_features=50, largest_group=5),
    Population("patients, strong signal", signal=2.0, largest_group=5),
    Population("svr", head=lambda: SVR(C=1.0)),
    Population("alpha chosen inside", head=lambda: RidgeCV(10.0 ** np.arange(-2, 5))),
    Population("4 repeats", repeats=4),
)


@dataclass(frozen=True)
class Set:
    """What came of one set: (low, high) of each score, the first head on fresh samples, and the share that was held."""

    ends: dict[str, tuple[float, float]]
    fresh: dict[str, float]
    held: float
    floor: float


def run_set(population: Population, n: int, seed: int) -> Set:
    rng = np.random.default_rng((n, seed))
    X, y, groups = population.draw(n, rng)
    folds = make_folds(y, groups, FoldPlan(5, population.repeats, int(rng.integers(2**31))))
    heads = [population.head().fit(X[fold.train], y[fold.train]) for fold in folds]  # type: ignore[attr-defined]
    parts = [FoldPredictions(fold, head.predict(X[fold.test]), None) for fold, head in zip(folds, heads, strict=True)]
    scores = evaluate_folds(y, parts, groups).scores
    X_fresh, y_fresh, _ = population.draw(N_FRESH, rng)
    first = [part for part in parts if part.fold.repeat == 0]
    rows = np.concatenate([part.fold.test for part in first])
    intervals = NumberIntervals(
        heads[: len(first)],
        np.abs(y[rows] - np.concatenate([part.predicted for part in first])),
        np.repeat(np.arange(len(first)), [len(part.fold.test) for part in first]),
        rows if groups is None else groups[rows],
    )
    low, high = intervals.ends(X_fresh, COVERAGE)
    errors = y_fresh - heads[0].predict(X_fresh)
    fresh = {
        "square": float(np.mean(errors**2)),
        "mae": float(np.mean(np.abs(errors))),
        "variance": float(y_fresh.var()),
    }
    fresh["spearman"] = METRICS["spearman"].of(of_new(y_fresh, y_fresh - errors))
    return Set(
        {name: (one.low, one.high) for name, one in scores.items()},  # type: ignore[misc]
        fresh,
        float(np.mean((low <= y_fresh) & (y_fresh <= high))),
        intervals.floor(COVERAGE),
    )


def truth_of(sets: Sequence[Set]) -> dict[str, float]:
    """Return what the scores estimate."""
    mean = {name: float(np.mean([one.fresh[name] for one in sets])) for name in sets[0].fresh}
    return {
        "r2": 1 - mean["square"] / mean["variance"],
        "rmse": mean["square"] ** 0.5,
        "mae": mean["mae"],
        "spearman": mean["spearman"],
    }


def measure(population: Population, n: int, n_sets: int, n_jobs: int = 1) -> tuple[dict[str, float], dict[str, float]]:
    """Return how often the interval of each score holds the truth, and that of a prediction; and their mean widths."""
    with threadpool_limits(1):
        run = joblib.Parallel(n_jobs=n_jobs, batch_size=20)
        sets: list[Set] = list(run(joblib.delayed(run_set)(population, n, seed) for seed in range(n_sets)))
    held, widths = {}, {}
    for name, true in truth_of(sets).items():
        ends = [one.ends[name] for one in sets]
        held[name] = float(np.mean([low <= true <= high for low, high in ends]))
        widths[name] = float(np.mean([high - low for low, high in ends]))
    held["prediction"] = float(np.mean([one.held for one in sets]))
    return held, widths


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench regression", description=__doc__)
    parser.add_argument("--sets", type=int, default=1000, metavar="N", help="of each population and size")
    parser.add_argument("--n", type=int, nargs="+", default=[40, 100, 400], metavar="N", help="samples in a set")
    parser.add_argument("--only", default="", metavar="TEXT", help="only populations whose name contains it")
    options = parser.parse_args()
    start = time.monotonic()
    names = [*METRICS, "prediction"]
    print("\n% covered (mean width); predictions at 90 %\n")
    print("| population | n | " + " | ".join(names) + " |")
    print("| --- | ---: |" + " ---: |" * len(names))
    for population in (one for one in POPULATIONS if options.only in one.name):
        for n in options.n:
            held, widths = measure(population, n, options.sets)
            cells = [f"{100 * held[name]:.1f}" + (f" ({widths[name]:.3f})" if name in widths else "") for name in names]
            print(f"| {population.name} | {n} | " + " | ".join(cells) + " |", flush=True)
    print(f"\n{options.sets} sets each, in {(time.monotonic() - start) / 60:.0f} min")


if __name__ == "__main__":
    main()
