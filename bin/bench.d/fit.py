"""`bin/bench fit`: choosing C by cross-validation, featx beside scikit-learn's own ways, on the same folds.

Each cell of the table is one matrix of features (rows x features, classes). Everybody scores each C of the same grid on
the same five folds of the same features, which are standardised once for all; scikit-learn with its own tolerances, and
with enough iterations to converge. Each runs in a process of its own, one after another, with all cores: scikit-learn's
searches in as many processes where a cell is large. A contender that a cell's time limit stops is tried again, with
featx, on one fold and three values of C. Ratios are of seconds of the same work.
"""

import argparse
import contextlib
import multiprocessing
import os
import platform
import resource
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import scipy
import sklearn
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC, LinearSVC
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from featx.learn.coordinates import n_functions  # noqa: E402
from featx.learn.inner_folds import Rules, Samples, score_inner_folds  # noqa: E402

GRID = tuple(10.0**power for power in range(-6, 4))
SHORT_GRID = (1e-4, 1e-2, 1.0)
MANY = 2_000
"""From so many rows on everybody uses all cores: below, starting processes and threads costs more than they save."""
SHORT, SHORT_RUNS = 2.0, 3
"""What takes fewer seconds is run so often, and the shortest time counts: the first call imports and plans."""


@dataclass(frozen=True)
class Cell:
    """One matrix of features."""

    n: int
    d: int
    n_classes: int
    kind: str = "generated"

    def name(self) -> str:
        return f"{self.n:,} x {self.d:,}, {self.n_classes} classes, {self.kind}"


@dataclass(frozen=True)
class Work:
    """What is scored: folds and values of C."""

    folds: Sequence[tuple[np.ndarray, np.ndarray]]
    grid: Sequence[float]
    n_jobs: int | None

    def name(self) -> str:
        return f"{len(self.folds)} x {len(self.grid)}"


Run = Callable[[np.ndarray, np.ndarray, Work], np.ndarray]
"""Scores each C on the folds."""


def generate(cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """Features as networks give them: non-negative, a few directions with most of the variance, overlapping classes."""
    rng = np.random.default_rng(cell.n + cell.d + cell.n_classes)
    codes = rng.permutation(np.arange(cell.n) % cell.n_classes)
    rank = cell.d // 2
    directions = rng.normal(size=(rank, cell.d)).astype(np.float32) / np.sqrt(rank)
    deviations = np.arange(1, rank + 1, dtype=np.float32) ** -0.5
    hidden = (
        rng.normal(size=(cell.n, rank)).astype(np.float32)
        + 0.5 * rng.normal(size=(cell.n_classes, rank)).astype(np.float32)[codes]
    )
    X = np.maximum((hidden * deviations * 5) @ directions + 0.1 * rng.normal(size=(cell.n, cell.d)), 0)
    return np.asarray(X, dtype=np.float64), codes


def load(cell: Cell, shared: Path, scratch: Path) -> tuple[np.ndarray, np.ndarray]:
    """Real features: MobileNetV2 with ImageNet's weights."""
    from _featx import run_json

    from featx.learn.dataset import load_features

    file = scratch / f"{cell.kind}.h5"
    if not file.exists():
        weights = shared / "weights/mobilenet_v2-imagenet1k.pth"
        folder = shared / "data" / cell.kind
        run_json("extract", folder, "-o", file, "--backbone", "mobilenet_v2", "--weights", weights)
    data = load_features(file)
    return np.asarray(data.X, dtype=np.float64), np.unique(data.y, return_inverse=True)[1]


def featx(head: str, X: np.ndarray, y: np.ndarray, work: Work) -> np.ndarray:
    names = np.array([f"{code:03d}" for code in range(y.max() + 1)])[y]
    # As `featx fit` does: one thread for each task where there are several, or little to do.
    with threadpool_limits(None if len(X) >= MANY else 1):
        n_fits = len(work.folds) * len(work.grid) * n_functions(int(y.max()) + 1)
        samples = Samples.scaled(X, names, "raw", n_fits=n_fits)
        found = score_inner_folds(samples, {head: work.grid}, work.folds, Rules("accuracy"))[head]
    if not found.converged.all():
        print(f"    {np.sum(~found.converged)} fits of featx did not converge", flush=True)
    return np.asarray(found.scores.mean(axis=0))


def grid_search(model: object, X: np.ndarray, y: np.ndarray, work: Work) -> np.ndarray:
    search = GridSearchCV(model, {"C": list(work.grid)}, cv=work.folds, refit=False, n_jobs=work.n_jobs)
    return np.asarray(search.fit(X, y).cv_results_["mean_test_score"])


def logistic_regression_cv(X: np.ndarray, y: np.ndarray, work: Work) -> np.ndarray:
    model = LogisticRegressionCV(
        Cs=list(work.grid), cv=work.folds, max_iter=10_000, n_jobs=work.n_jobs, use_legacy_attributes=False,
        scoring="accuracy", l1_ratios=(0.0,),
    )  # fmt: skip
    return np.asarray(model.fit(X, y).scores_).reshape(len(work.folds), -1).mean(axis=0)


def lbfgs(X: np.ndarray, y: np.ndarray, work: Work) -> np.ndarray:
    return grid_search(LogisticRegression(max_iter=10_000), X, y, work)


def newton_cholesky(X: np.ndarray, y: np.ndarray, work: Work) -> np.ndarray:
    return grid_search(LogisticRegression(solver="newton-cholesky", max_iter=1_000), X, y, work)


def linear_svc(X: np.ndarray, y: np.ndarray, work: Work) -> np.ndarray:
    return grid_search(LinearSVC(max_iter=10_000, random_state=0), X, y, work)


def svc(X: np.ndarray, y: np.ndarray, work: Work) -> np.ndarray:
    return grid_search(SVC(kernel="linear"), X, y, work)


CONTENDERS: dict[str, dict[str, Run]] = {
    "logreg": {
        "GridSearchCV, lbfgs": lbfgs,
        "GridSearchCV, newton-cholesky": newton_cholesky,
        "LogisticRegressionCV": logistic_regression_cv,
    },
    "svm": {"GridSearchCV, LinearSVC": linear_svc, "GridSearchCV, SVC linear": svc},
}


def too_large(name: str, cell: Cell) -> str:
    """Say why a contender is not run on a cell; empty where it is."""
    n_coefficients = cell.d * (1 if cell.n_classes == 2 else cell.n_classes)
    if name.endswith("newton-cholesky") and n_coefficients > 2_048:
        return f"not run: a Hessian of {n_coefficients:,} squared, factored in every step"
    if name.endswith("SVC linear") and cell.n > 2_000:
        return "not run above 2,000 rows"
    return ""


@dataclass(frozen=True)
class Measured:
    """Seconds, peak memory above the features' in MiB, and the mean score at each C; or nothing in time."""

    seconds: float
    memory: float
    scores: np.ndarray


def measure(run: Run, X: np.ndarray, y: np.ndarray, work: Work, limit: float) -> Measured | None:
    """Run in a process of its own; None where it takes longer than the limit."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def child() -> None:
        os.setpgrp()
        warnings.simplefilter("ignore")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = np.inf
        for _ in range(SHORT_RUNS):
            start = time.perf_counter()
            scores = run(X, y, work)
            seconds = min(seconds, time.perf_counter() - start)
            if seconds > SHORT:
                break
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        theirs.send((seconds, (own + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024, scores))
        os._exit(0)

    process = context.Process(target=child)
    process.start()
    assert process.pid is not None
    found = Measured(*ours.recv()) if ours.poll(limit) else None
    # Also after a good end: joblib's workers outlive the process that began them, and hold memory and the terminal.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.join()
    return found


def works(cell: Cell, y: np.ndarray) -> tuple[Work, Work]:
    """All folds and values of C, and a few."""
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(y, y))
    n_jobs = os.cpu_count() if cell.n >= MANY else None
    return Work(folds, GRID, n_jobs), Work(folds[:1], SHORT_GRID, None)


class Stopwatch:
    """Measures a contender on one matrix; the same work is measured once."""

    def __init__(self, X: np.ndarray, y: np.ndarray, limit: float) -> None:
        self._matrix, self._limit = (X, y), limit
        self._known: dict[tuple[str, str], Measured | None] = {}

    def time(self, name: str, run: Run, work: Work) -> Measured | None:
        if (name, work.name()) not in self._known:
            self._known[name, work.name()] = measure(run, *self._matrix, work, self._limit)
        return self._known[name, work.name()]


def compare(cell: Cell, X: np.ndarray, y: np.ndarray, limit: float, only: str) -> None:
    X = (X - X.mean(axis=0)) / np.where(X.std(axis=0) > 0, X.std(axis=0), 1.0)
    watch = Stopwatch(X, y, limit)
    full, short = works(cell, y)
    for head, others in CONTENDERS.items():
        if only and head != only:
            continue
        for name, run in others.items():
            line = f"| {cell.name()} | {head} | {name} |"
            reason = too_large(name, cell)
            if reason:
                print(f"{line} | | | | | | {reason} |", flush=True)
                continue
            for work in (full, short):
                ours = watch.time(head, partial(featx, head), work)
                theirs = None if ours is None else watch.time(name, run, work)
                if ours is not None and theirs is not None:
                    print(f"{line} {work.name()} | {told(ours, theirs)} |", flush=True)
                    break
            else:
                print(f"{line} | | | | | | not run: over {limit:g} s |", flush=True)


def told(ours: Measured, theirs: Measured) -> str:
    """Say what featx and another contender took, and by how much their scores differ."""
    cells = (
        f"{ours.seconds:.2f}",
        f"{theirs.seconds:.2f}",
        f"{theirs.seconds / ours.seconds:.1f}",
        f"{ours.memory:.0f} / {theirs.memory:.0f}",
        f"{np.abs(ours.scores - theirs.scores).max():.3f}",
    )
    return " | ".join(cells)


def cells(quick: bool) -> list[Cell]:
    """The matrices, the small ones first."""
    found = [
        Cell(n, d, n_classes)
        for n in (60, 200, 2_000, 10_000)
        for n_classes in (2, 10, 100)
        for d in (576, 2_048, 4_096)
        if n >= 6 * n_classes or (n, n_classes) == (60, 10)
    ]
    found = [cell for cell in found if cell.n >= 5 * cell.n_classes]
    return [cell for cell in found if cell.n <= 200] if quick else [*found, Cell(50_000, 576, 10)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench fit", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only up to 200 rows")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cells whose name contains it")
    parser.add_argument("--head", default="", choices=["", *CONTENDERS], help="only this head")
    parser.add_argument("--limit", type=float, default=120.0, metavar="SECONDS", help="for one contender on one cell")
    parser.add_argument(
        "--shared", type=Path, default=ROOT.parent / "shared", metavar="FOLDER", help="holds data/ and weights/"
    )
    options = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}, "
        f"scipy {scipy.__version__}, scikit-learn {sklearn.__version__}\n"
    )
    print("| features | head | beside | folds x C | featx, s | s | ratio | MiB: featx / other | scores differ by |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        real = [Cell(396, 1280, 2, "hymenoptera"), Cell(4_000, 1280, 10, "cifar10-small")]
        if not (options.shared / "data").is_dir():
            print(f"(no real features: {options.shared / 'data'} is not there)")
            real = []
        for cell in [*cells(options.quick), *(real[:1] if options.quick else real)]:
            if options.only in cell.name():
                X, y = generate(cell) if cell.kind == "generated" else load(cell, options.shared, Path(scratch))
                compare(cell, X, y, options.limit, options.head)


if __name__ == "__main__":
    main()
