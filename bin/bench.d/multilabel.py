"""`bin/bench multilabel`: how often intervals of label scores hold the truth; one C for all labels, or one for each.

`coverage` draws sets from known populations; the truth of a score is its mean over all of them. `mosaics` makes
pictures of four CIFAR-10 photographs each with the animals in them as labels, and `one-c` compares the two choices on a
feature file of them.
"""

import argparse
import csv
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.special import expit
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from featx.errors import LabelsError
from featx.learn.dataset import load_features
from featx.learn.inner_folds import Rules, Samples
from featx.learn.intervals import Interval
from featx.learn.multilabel.folds import make_label_folds
from featx.learn.multilabel.heads import LABEL_HEADS, LinearLabels, decide_inner_folds
from featx.learn.multilabel.labels import LabelSyntax, LabelTable, read_labels
from featx.learn.multilabel.metrics import LABEL_SCORES, average_precision
from featx.learn.multilabel.scores import evaluate_label_folds
from featx.learn.scores import FoldPredictions

SHARES = (0.5, 0.3, 0.15)
THRESHOLD = 0.35
POPULATIONS = ((40, 1.5, 1), (100, 0.0, 1), (100, 1.5, 1), (400, 1.5, 1), (100, 1.5, 4))  # n, signal, size of groups
GRID = tuple(10.0**power for power in range(-6, 4))
ANIMALS = {"bird", "cat", "deer", "dog", "frog", "horse"}


def evaluate_set(n: int, signal: float, size: int, rng: np.random.Generator) -> dict[str, Interval] | None:
    """Cross-validate a head on one set; None where a label is too rare in it for the folds."""
    groups = np.repeat(np.arange(n // size), size)
    marks = (rng.random((n // size, len(SHARES))) < SHARES)[groups]
    X = rng.normal(size=(n, 8)) + np.pad(signal * marks, ((0, 0), (0, 5)))
    X += rng.normal(size=(n // size, 8))[groups] * (size > 1)
    table, ids = LabelTable(list("abc"), marks), groups if size > 1 else None
    try:
        folds = make_label_folds(table, ids, n_splits=5, random_state=int(rng.integers(2**31)))
    except LabelsError:
        return None
    parts = []
    for fold in folds:
        said = LinearLabels(C=0.1, tol=1e-4).fit(X[fold.train], marks[fold.train]).decision_function(X[fold.test])
        parts.append(FoldPredictions(fold, expit(said) > THRESHOLD, expit(said)))
    return evaluate_label_folds(table, parts, groups=ids).scores


def coverage(options: argparse.Namespace) -> None:
    for n, signal, size in POPULATIONS:
        drawn = (evaluate_set(n, signal, size, np.random.default_rng((n, size, seed))) for seed in range(options.sets))
        sets = [one for one in drawn if one is not None]
        print(f"\nn = {n}, signal {signal}, groups of {size}: {len(sets)} sets")
        for name in LABEL_SCORES:
            truth = np.mean([one[name].mean for one in sets])
            ends = [(one[name].low, one[name].high) for one in sets]
            held = np.mean([low <= truth <= high for low, high in ends])
            width = np.mean([high - low for low, high in ends])
            print(f"  {name:24} {truth:.3f}  covered {100 * held:5.1f} %  width {width:.3f}", flush=True)


def mosaics(options: argparse.Namespace) -> None:
    files = sorted(Path(options.source).glob("train/*/*.jpg"))
    random.Random(0).shuffle(files)
    target = Path(options.target)
    target.mkdir(exist_ok=True)
    with (target / "mosaics.csv").open("w", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(["path", "label"])
        for k in range(options.n):
            four = files[4 * k : 4 * k + 4]
            mosaic = Image.new("RGB", (64, 64))
            for place, one in enumerate(four):
                mosaic.paste(Image.open(one), (place % 2 * 32, place // 2 * 32))
            mosaic.save(target / f"{k:03}.png")
            rows.writerow([f"{k:03}.png", ";".join(sorted({one.parent.name for one in four} & ANIMALS)) or "none"])


def draws(X: np.ndarray, marks: np.ndarray, name: str, n: int, n_draws: int) -> Iterator[tuple[float, float]]:
    """Yield the mean average precision of one C for all labels, and of one for each, on what was not drawn."""
    rules = Rules("average_precision_macro")
    for seed in range(n_draws):
        order = np.random.default_rng(seed).permutation(len(X))
        own = marks[order][:, marks[order[:n]].sum(axis=0) >= 5]
        table = LabelTable([str(k) for k in range(own.shape[1])], own[:n])
        inner = [(fold.train, fold.test) for fold in make_label_folds(table, None, n_splits=5, random_state=seed)]
        samples = Samples.scaled(X[order], own, "l2")

        def precision(folds: list[tuple[np.ndarray, np.ndarray]], samples: Samples = samples) -> np.ndarray:
            found = [
                [[average_precision(*pair) for pair in zip(samples.y[rows].T, one.T, strict=True)] for one in decisions]
                for rows, decisions, _ in decide_inner_folds(samples, name, GRID, folds, rules)
            ]
            return np.nanmean(found, axis=0)  # (n_values, n_labels)

        inside, outside = precision(inner), precision([(np.arange(n), np.arange(n, len(X)))])
        each = outside[inside.argmax(axis=0), np.arange(own.shape[1])]
        yield float(outside[inside.mean(axis=1).argmax()].mean()), float(each.mean())


def one_c(options: argparse.Namespace) -> None:
    X, y, _, keys = load_features(options.file)
    marks = read_labels(y, keys, LabelSyntax()).marks
    pairs = [marks[:, a] & marks[:, b] for a in range(marks.shape[1]) for b in range(a)]
    marks = np.column_stack([marks, *pairs])
    for name in LABEL_HEADS:
        for n in (80, 200, 400):
            both = np.array(list(draws(X.astype(np.float64), marks, name, n, options.draws)))
            gains = both[:, 0] - both[:, 1]
            error = gains.std(ddof=1) / len(gains) ** 0.5
            print(
                f"{name} {n}: one C {both[:, 0].mean():.4f}, less one each {gains.mean():+.4f} +- {error:.4f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench multilabel", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("coverage")
    command.add_argument("--sets", type=int, default=300)
    command.set_defaults(run=coverage)
    command = commands.add_parser("mosaics")
    command.add_argument("source", help="a folder with train/CLASS/*.jpg of CIFAR-10")
    command.add_argument("target")
    command.add_argument("--n", type=int, default=600)
    command.set_defaults(run=mosaics)
    command = commands.add_parser("one-c")
    command.add_argument("file", help="features of the mosaics")
    command.add_argument("--draws", type=int, default=12)
    command.set_defaults(run=one_c)
    options = parser.parse_args()
    with threadpool_limits(1):
        options.run(options)


if __name__ == "__main__":
    main()
