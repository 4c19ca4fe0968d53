"""`bin/bench trust`: coverage of prediction sets, false alarms, calibration, and what tells strangers best.

Training sets are drawn again and again, generated ones and from real images; everything is counted on images that had
no part in the fit. `generated` takes whole groups; `images` draws from hymenoptera and cifar10-small; `strangers`
compares distances by how well they tell one set of photographs from another.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import joblib
import numpy as np
from _featx import run_json
from scipy.linalg import solve_triangular
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from featx.fit import FitOptions, fit_features  # noqa: E402
from featx.learn.conformal import choose_sets  # noqa: E402
from featx.learn.dataset import Features, load_features  # noqa: E402
from featx.learn.novelty import nearest, unit_length  # noqa: E402
from featx.learn.reliability import reliability_fixed  # noqa: E402

OPTIONS = FitOptions(scalings=("standardise",), C_grid=(1e-4, 1e0, 5), inner_cv=3, cv=5, n_jobs=1)
COVERAGE, ALARMS = 0.9, 0.05
N_CLASSES, N_FEATURES = 3, 100


@dataclass(frozen=True)
class Found:
    """What one fit gives on new images; shares count every group once."""

    plain: float
    filled: float
    per_class: float
    size: float
    floor: float
    alarms: float
    brier: tuple[float, float]
    ece: tuple[float, float]
    mapped: bool


def judge(train: Features, new: Features, groups: np.ndarray, cv: int = OPTIONS.cv) -> Found:
    with threadpool_limits(1):
        result = fit_features(train, replace(OPTIONS, cv=cv))
        sets, novelty = result.trust.conformal, result.trust.novelty
        X, true = new.X.astype(np.float64), np.searchsorted(result.classes, new.y)
        rows, weights = np.arange(len(true)), 1 / np.bincount(groups)[groups]
        predicted = result.estimator.predict(X)
        own = np.searchsorted(result.classes, predicted)
        p, by_class = sets.p_values(X), sets.p_values(X, per_class=True)
        inside = choose_sets(p, COVERAGE, own)
        each = choose_sets(by_class, COVERAGE, own)[rows, true]
        after = result.estimator.predict_proba(X)
        before = result.estimator.estimator_.predict_proba(X) if result.trust.method == "temperature" else after
    accounts = [reliability_fixed(new.y, predicted, one, result.classes) for one in (before, after)]
    return Found(
        np.average(p[rows, true] > 1 - COVERAGE + 1e-9, weights=weights),
        np.average(inside[rows, true], weights=weights),
        np.mean([np.average(each[true == k], weights=weights[true == k]) for k in range(len(result.classes))]),
        inside.sum(axis=1).mean(),
        sets.floor(COVERAGE),
        np.average(novelty.is_unlike(novelty.distance(new.X), ALARMS), weights=weights),
        tuple(one.brier.mean for one in accounts),
        tuple(one.ece.mean for one in accounts),
        result.trust.method == "temperature",
    )


def print_found(name: str, found: list[Found]) -> None:
    mean = {field: np.mean([getattr(one, field) for one in found], axis=0) for field in vars(found[0])}
    print(
        f"| {name} | {mean['plain']:.3f} | {mean['filled']:.3f} | {mean['per_class']:.3f} | {mean['size']:.2f} "
        f"| {mean['floor']:.3f} | {100 * mean['alarms']:.1f} % | {mean['brier'][0]:.3f} -> {mean['brier'][1]:.3f} "
        f"| {mean['ece'][0]:.3f} -> {mean['ece'][1]:.3f} | {100 * mean['mapped']:.0f} % |",
        flush=True,
    )


HEADER = (
    "| training set | found | with empty sets filled | per class | classes in a set | proven | false alarms "
    "| Brier | ECE | temperature |\n| --- " + "| ---: " * 9 + "|"
)


def as_features(X: np.ndarray, y: np.ndarray, groups: np.ndarray, *, grouped: bool) -> Features:
    empty = np.array([""] * len(y), dtype=object)
    names = np.array([f"g{group}" for group in groups], dtype=object) if grouped else empty
    keys = np.arange(len(y)).astype(str).astype(object)
    return Features(X.astype(np.float32), y, names, keys, empty, empty, empty, "column" if grouped else "")


def generate(n_groups: int, per_group: int, seed: int, cv: int) -> Found:
    rng = np.random.default_rng(seed)
    centres = 0.22 * rng.normal(size=(N_CLASSES, N_FEATURES)) + 0.5

    def draw(n: int) -> tuple[Features, np.ndarray]:
        sizes = rng.integers(1, 2 * per_group, n)
        groups = np.repeat(np.arange(n), sizes)
        y = (np.arange(n) % N_CLASSES)[groups]
        spread = 0.6 * rng.normal(size=(n, N_FEATURES))[groups] + 0.8 * rng.normal(size=(len(y), N_FEATURES))
        return as_features(centres[y] + spread, np.array([f"c{k}" for k in y]), groups, grouped=per_group > 1), groups

    (train, _), (new, groups) = draw(n_groups), draw(600)
    return judge(train, new, groups, cv)


def bench_generated(repeats: int, cv: int) -> None:
    print(f"\n{N_CLASSES} classes, {N_FEATURES} features, {cv} folds, {repeats} sets of each kind\n\n{HEADER}")
    for n_groups, per_group in ((60, 1), (100, 1), (300, 1), (60, 4), (100, 4)):
        found = joblib.Parallel(n_jobs=-1)(
            joblib.delayed(generate)(n_groups, per_group, seed, cv) for seed in range(repeats)
        )
        name = f"{n_groups} samples" if per_group == 1 else f"{n_groups} groups of 1 to {2 * per_group - 1}"
        print_found(name, found)


def draw_images(data: Features, n: int, seed: int) -> Found:
    """Learn from n images, the same number of each class, and judge all others."""
    rng = np.random.default_rng(seed)
    classes = np.unique(data.y)
    chosen = np.concatenate([rng.permutation(np.flatnonzero(data.y == k))[: n // len(classes)] for k in classes])
    rest = rng.permutation(np.setdiff1d(np.arange(len(data)), chosen))[:1500]
    return judge(data.take(np.sort(chosen)), data.take(rest), np.arange(len(rest)))


def bench_images(features: dict[str, Features], repeats: int) -> None:
    print(f"\nreal images, MobileNetV2, {repeats} training sets of each size\n\n{HEADER}")
    for name, sizes in (("hymenoptera", (60, 200)), ("cifar10-small", (200, 600))):
        data = features[name]
        data = replace(data, splits=np.array([""] * len(data), dtype=object))
        for n in sizes:
            found = joblib.Parallel(n_jobs=-1)(joblib.delayed(draw_images)(data, n, seed) for seed in range(repeats))
            print_found(f"{name}, {n} images", found)


def mahalanobis(train: np.ndarray, rows: np.ndarray) -> np.ndarray:
    mean = train.mean(axis=0)
    root = np.linalg.cholesky(ledoit_wolf(train)[0])
    return np.square(solve_triangular(root, (rows - mean).T, lower=True)).sum(axis=0)


DISTANCES = {
    "5 nearest, length 1": lambda train, rows: nearest(unit_length(rows), unit_length(train), 5),
    "5 nearest, as they are": lambda train, rows: nearest_plain(train, rows),
    "Mahalanobis, length 1": lambda train, rows: mahalanobis(*(unit_length(X).astype(float) for X in (train, rows))),
    "Mahalanobis, as they are": mahalanobis,
}


def nearest_plain(train: np.ndarray, rows: np.ndarray) -> np.ndarray:
    squares = np.square(rows).sum(axis=1)[:, None] + np.square(train).sum(axis=1) - 2 * rows @ train.T
    return np.sqrt(np.sort(np.maximum(squares, 0), axis=1)[:, :5]).mean(axis=1)


def compare(name: str, train: np.ndarray, y: np.ndarray, new: np.ndarray, strangers: dict[str, np.ndarray]) -> None:
    """False alarms at a threshold set out of fold to 5 %, and for each kind of stranger AUC and share found."""
    for text, distance in DISTANCES.items():
        own = np.empty(len(train))
        for fitted, left_out in StratifiedKFold(10, shuffle=True, random_state=0).split(train, y):
            own[left_out] = distance(train[fitted], train[left_out])
        threshold, like = np.quantile(own, 0.95), distance(train, new)
        cells = []
        for rows in strangers.values():
            far = distance(train, rows)
            auc = roc_auc_score(np.r_[np.zeros(len(like)), np.ones(len(far))], np.r_[like, far])
            cells.append(f"{auc:.3f} ({100 * np.mean(far > threshold):.0f} %)")
        print(f"| {name} | {text} | {100 * np.mean(like > threshold):.1f} % | {' | '.join(cells)} |", flush=True)


def bench_strangers(features: dict[str, Features]) -> None:
    rng = np.random.default_rng(0)
    bees, cifar, pictures = (features[name] for name in ("hymenoptera", "cifar10-small", "pictures"))
    photos, few = pictures.X.astype(float), rng.permutation(len(cifar))[:600]
    train = bees.splits == "train"
    print("\nAUC against new images of the same kind, and the share found at 5 % false alarms\n")
    print("| training set | distance | false alarms | CIFAR-10 | photographs |\n| --- | --- | ---: | ---: | ---: |")
    strangers = {"cifar": cifar.X[few].astype(float), "photographs": photos}
    compare("ants, bees", bees.X[train].astype(float), bees.y[train], bees.X[~train].astype(float), strangers)
    vehicles = np.isin(cifar.y, ["airplane", "automobile", "ship", "truck"])
    known = rng.permutation(np.flatnonzero(vehicles & (cifar.splits == "train")))[:600]
    new, animals = cifar.X[vehicles & (cifar.splits == "test")], cifar.X[~vehicles & (cifar.splits == "test")]
    print("\n| training set | distance | false alarms | CIFAR-10's animals |\n| --- | --- | ---: | ---: |")
    compare(
        "vehicles", cifar.X[known].astype(float), cifar.y[known], new.astype(float), {"animals": animals.astype(float)}
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench trust", description=__doc__)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", metavar="FOLDER")
    parser.add_argument("--repeats", type=int, default=20, metavar="N", help="training sets of each kind")
    parser.add_argument("--cv", type=int, default=OPTIONS.cv, metavar="N", help="folds, of generated sets")
    parser.add_argument("--only", choices=("generated", "images", "strangers"))
    options = parser.parse_args()
    if options.only in (None, "generated"):
        bench_generated(options.repeats, options.cv)
    if options.only == "generated":
        return
    weights = options.shared / "weights/mobilenet_v2-imagenet1k.pth"
    features = {}
    with tempfile.TemporaryDirectory() as scratch:
        for folder in ("hymenoptera", "cifar10-small", "pictures/large"):
            path = Path(scratch, f"{Path(folder).name}.h5")
            source = options.shared / "data" / folder
            run_json("extract", source, "-o", path, "--backbone", "mobilenet_v2", "--weights", weights)
            features[folder.split("/")[0]] = load_features(path)
    if options.only in (None, "images"):
        bench_images(features, options.repeats)
    if options.only in (None, "strangers"):
        bench_strangers(features)


if __name__ == "__main__":
    main()
