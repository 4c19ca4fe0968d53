"""`bin/bench threshold`: what a chosen threshold is worth on training sets of two uneven classes.

Training sets are drawn from real features, so many of the rare class and of the rest, and everything else is the test
part (up to 400 and 1,200). Each is given featx's own search (5-fold, balanced accuracy, `l2` features), with and
without `--class-weight balanced`; then each `--threshold` is chosen on the same out-of-fold probabilities. F1 is of the
rare class, at the shares of the training set. In brackets the gain over the head's own decision on the same sets, with
its standard error.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from _featx import run_json
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from featx.fit import FitOptions  # noqa: E402
from featx.learn.dataset import load_features  # noqa: E402
from featx.learn.out_of_fold import Finish, finish  # noqa: E402
from featx.learn.search import Job, run_jobs  # noqa: E402
from featx.learn.splits import make_folds  # noqa: E402
from featx.learn.threshold import Rule  # noqa: E402

RULES = ("none", "balanced_accuracy", "f1", "sensitivity=0.9")
SETS = {
    "hymenoptera": ("bees", ((10, 100), (20, 150), (100, 100))),
    "cifar10-small": ("cat", ((20, 200), (50, 450))),
}
RARE, REST = "rare", "rest"


def make_job(y: np.ndarray, n_rare: int, n_rest: int, seed: int) -> Job:
    rng = np.random.default_rng(seed)
    rare, rest = (rng.permutation(np.flatnonzero(y == name)) for name in (RARE, REST))
    train = np.sort(np.concatenate([rare[:n_rare], rest[:n_rest]]))
    test = np.concatenate([rare[n_rare:][:400], rest[n_rest:][:1200]])
    folds = make_folds(y[train], None, n_splits=5, random_state=seed)
    calibration = np.zeros(len(train), dtype=np.int64)
    for fold in folds:
        calibration[fold.test] = fold.number
    return Job("1", [(train[f.train], train[f.test]) for f in folds], train, calibration, test, keep=True)


def proportions(y: np.ndarray, predicted: np.ndarray, odds: float) -> tuple[float, float, float, float]:
    """Balanced accuracy, F1 where there are `odds` of the rest for one of the rare, sensitivity, specificity."""
    caught, spared = np.mean(predicted[y == RARE] == RARE), np.mean(predicted[y == REST] == REST)
    return (caught + spared) / 2, 2 * caught / (caught + 1 + odds * (1 - spared)), caught, spared


def compare(name: str, X: np.ndarray, y: np.ndarray, sizes: tuple[int, int], head: str, repeats: int) -> None:
    found: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for seed in range(repeats):
        job = make_job(y, *sizes, seed)
        for weight in (None, "balanced"):
            space = FitOptions(heads=(head,), scalings=("l2",), class_weight=weight).space
            searched = run_jobs(X, y, [job], space)
            for rule in RULES:
                wanted = Finish("auto", Rule.read(rule), RARE)
                [outcome] = finish(X, y, [job], searched, space, wanted, groups=None)
                scores = proportions(y[job.test], outcome.heads[head].predicted, sizes[1] / sizes[0])
                found.setdefault((weight or "none", rule), []).append(scores)
    own = np.array(found["none", "none"])
    for (weight, rule), values in found.items():
        scores, gain = np.array(values), np.array(values) - own
        error = gain.std(axis=0, ddof=1) / np.sqrt(repeats)
        cells = [
            f"{scores[:, k].mean():.3f}" + (f" ({gain[:, k].mean():+.3f}, {error[k]:.3f})" if gain.any() else "")
            for k in (0, 1)
        ]
        print(
            f"| {name}, {sizes[0]} of {sum(sizes)} | {weight} | {rule} | {cells[0]} | {cells[1]} "
            f"| {scores[:, 2].mean():.3f} | {scores[:, 3].mean():.3f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench threshold", description=__doc__)
    parser.add_argument("--repeats", type=int, default=20, metavar="N", help="training sets of each size")
    parser.add_argument("--head", default="logreg")
    parser.add_argument("--only", choices=SETS, help="only this set of images")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", metavar="FOLDER")
    parser.add_argument("--features", type=Path, metavar="FOLDER", help="holds hymenoptera.h5 ... made by MobileNetV2")
    options = parser.parse_args()
    if options.repeats < 2:
        parser.error("--repeats: at least 2, else there is no spread")
    print("| training set | class weight | threshold | balanced accuracy | F1 | sensitivity | specificity |")
    print("| --- | --- | --- | --- | --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as scratch, threadpool_limits(1):
        for folder, (rare, all_sizes) in SETS.items():
            if options.only not in (None, folder):
                continue
            file = Path(options.features or scratch, f"{folder}.h5")
            if options.features is None:
                weights = options.shared / "weights/mobilenet_v2-imagenet1k.pth"
                source = options.shared / "data" / folder
                run_json("extract", source, "-o", file, "--backbone", "mobilenet_v2", "--weights", weights)
            data = load_features(file)
            X, y = data.X.astype(np.float64), np.where(data.y == rare, RARE, REST)
            for sizes in all_sizes:
                compare(f"{folder} {rare}", X, y, sizes, options.head, options.repeats)


if __name__ == "__main__":
    main()
