"""`bin/bench heads`: which head earns its place, on real features and training sets of several sizes.

Training sets are drawn from a data set's training part, and the test part is always the same. Each head is given the
same search: scaling and its one parameter by 5-fold cross-validation inside the training set, by balanced accuracy. A
Gaussian process and a multi-layer perceptron run beside the heads of featx, through scikit-learn's GridSearchCV with
the same scalings. A head earns its place where it is better than logistic regression on the same training sets, or as
good and faster.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _featx import run_json
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF, ConstantKernel
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from featx.fit import FitOptions  # noqa: E402
from featx.learn.dataset import Features, load_features  # noqa: E402
from featx.learn.heads import HEADS  # noqa: E402
from featx.learn.search import Job, run_jobs  # noqa: E402


@dataclass(frozen=True)
class Answer:
    """What a head says about the test part, and the seconds that it took to choose and fit it."""

    classes: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray
    seconds: float


def folds_of(y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(StratifiedKFold(5, shuffle=True, random_state=0).split(y, y))


def of_featx(head: str) -> Callable[[np.ndarray, np.ndarray, np.ndarray], Answer]:
    def run(X: np.ndarray, y: np.ndarray, others: np.ndarray) -> Answer:
        folds = folds_of(y)
        calibration = np.zeros(len(y), dtype=int)
        for number, (_, scored) in enumerate(folds):
            calibration[scored] = number
        n = len(y)
        job = Job("1", folds, np.arange(n), calibration, n + np.arange(len(others)), keep=True)
        start = time.perf_counter()
        # The labels of what is predicted are not looked at.
        [outcome] = run_jobs(
            np.concatenate([X, others]), np.concatenate([y, np.repeat(y[:1], len(others))]), [job],
            FitOptions(heads=(head,)).space,
        )  # fmt: skip
        best = outcome.best
        return Answer(np.unique(y), best.predicted, best.probabilities, time.perf_counter() - start)

    return run


def of_scikit_learn(model: object, grid: dict[str, list[object]]) -> Callable[..., Answer]:
    def run(X: np.ndarray, y: np.ndarray, others: np.ndarray) -> Answer:
        pipeline = Pipeline([("scale", "passthrough"), ("head", model)])
        scalings = ["passthrough", StandardScaler(), Normalizer()]
        start = time.perf_counter()
        search = GridSearchCV(
            pipeline, {"scale": scalings, **{f"head__{name}": values for name, values in grid.items()}},
            cv=folds_of(y), scoring="balanced_accuracy",
        ).fit(X, y)  # fmt: skip
        return Answer(
            search.classes_, search.predict(others), search.predict_proba(others), time.perf_counter() - start
        )

    return run


def contenders() -> dict[str, Callable[..., Answer]]:
    gaussian = GaussianProcessClassifier(optimizer=None, random_state=0)
    kernels = [ConstantKernel(10.0, "fixed") * RBF(length, "fixed") for length in (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)]
    perceptron = MLPClassifier((64,), max_iter=500, random_state=0)
    return {
        **{name: of_featx(name) for name in HEADS},
        "Gaussian process": of_scikit_learn(gaussian, {"kernel": kernels}),
        "MLP, 64 hidden": of_scikit_learn(perceptron, {"alpha": [1e-4, 1e-2, 1.0]}),
    }


def draw(data: Features, n_per_class: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero((data.splits == "train") & (data.y == name)) for name in np.unique(data.y)]
    return np.sort(np.concatenate([rng.permutation(own)[:n_per_class] for own in rows]))


def compare(name: str, data: Features, n_per_class: int, repeats: int, only: str) -> None:
    test = data.splits != "train"
    X, y = data.X.astype(np.float64), data.y
    first: np.ndarray | None = None
    for head, run in contenders().items():
        if only and head not in (*only.split(","), "logreg"):
            continue
        found = []
        for seed in range(repeats):
            rows = draw(data, n_per_class, seed)
            with threadpool_limits(1), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                said = run(X[rows], y[rows], X[test])
            found.append(
                (
                    balanced_accuracy_score(y[test], said.predicted),
                    log_loss(y[test], said.probabilities, labels=said.classes),
                    said.seconds,
                )
            )
        accuracy, loss, seconds = np.array(found).T
        first = accuracy if first is None else first
        gain = accuracy - first
        better = f"{100 * gain.mean():+.1f} ({100 * gain.std(ddof=1):.1f})" if gain.any() else ""
        print(
            f"| {name} | {n_per_class} | {head} | {100 * accuracy.mean():.1f} | {better} | {loss.mean():.3f} "
            f"| {seconds.mean():.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench heads", description=__doc__)
    parser.add_argument("--repeats", type=int, default=10, metavar="N", help="training sets of each size")
    parser.add_argument("--only", default="", metavar="NAME,...", help="only these heads, beside logreg")
    parser.add_argument(
        "--shared", type=Path, default=ROOT.parent / "shared", metavar="FOLDER", help="holds data/ and weights/"
    )
    options = parser.parse_args()
    if options.repeats < 2:
        parser.error("--repeats: at least 2, else there is no spread")
    weights = options.shared / "weights/mobilenet_v2-imagenet1k.pth"
    if not weights.is_file():
        sys.exit(f"{weights} is not there")
    print("| features | images a class | head | balanced accuracy, % | against logreg (deviation) | log loss | s |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as scratch:
        for folder, sizes in (("hymenoptera", (15, 60)), ("cifar10-small", (5, 20, 60))):
            file = Path(scratch, f"{folder}.h5")
            source = options.shared / "data" / folder
            run_json("extract", source, "-o", file, "--backbone", "mobilenet_v2", "--weights", weights)
            for n_per_class in sizes:
                compare(folder, load_features(file), n_per_class, options.repeats, options.only)


if __name__ == "__main__":
    main()
