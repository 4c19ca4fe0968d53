"""`bin/bench l2sp`: drawing weights to where they came from (L2-SP) beside drawing them to zero (L2), on few images.

k images of each class of cifar10-small, drawn once for each seed; MobileNetV2 with ImageNet weights, all of its weights
trained from the solved head, at the same strength towards either place; the last epoch is taken, so that nothing is
chosen by images. Accuracy on the 1,000 test images, mean over the seeds; differences with their 95 % t-interval over
the seeds, in points.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from featx import FinetuneOptions, finetune
from featx.extract import extract
from featx.finetuning.options import Start
from featx.fit import FitOptions
from featx.manifest.folder import read_folder
from featx.manifest.record import Manifest
from featx.spec import FeatureRequest
from featx.vision.tuning.recipe import Recipe

SHARED = Path(__file__).resolve().parents[3] / "shared"


FOLDS = FitOptions(cv=3, inner_cv=3)  # five images of a class are too few for five folds with folds inside


@dataclass(frozen=True)
class Way:
    """What training does to the weights besides following the gradient."""

    name: str
    strength: float

    def recipe(self, epochs: int, seed: int) -> Recipe:
        sp, zero = (self.strength if self.name == name else 0.0 for name in ("L2-SP", "L2"))
        return Recipe(epochs=epochs, patience=0, l2sp=sp, l2sp_beta=sp, weight_decay=zero, random_state=seed)

    def __str__(self) -> str:
        return f"{self.name} {self.strength:g}" if self.strength else "neither"


def draw(manifest: Manifest, k: int, seed: int) -> Manifest:
    """k training images of each class, and all test images."""
    rng = np.random.default_rng([seed, k])
    labels, splits = np.array(manifest.labels), np.array(manifest.splits)
    rows = [
        rng.choice(np.flatnonzero((labels == name) & (splits == "train")), k, replace=False)
        for name in np.unique(labels)
    ]
    return manifest.take(np.sort(np.concatenate([*rows, np.flatnonzero(splits == "test")])).tolist())


def accuracies(manifest: Manifest, request: FeatureRequest, ways: list[Way], epochs: int, seed: int) -> list[float]:
    """Of the frozen head, and of each way."""
    with tempfile.TemporaryDirectory() as scratch:
        features = Path(scratch, "features.h5")
        extract(manifest, features, request=request)
        found: list[float] = []
        for way in ways:
            told = FinetuneOptions(recipe=way.recipe(epochs, seed), fit=FOLDS, validation=0.0)
            result = finetune(manifest, Start(features=features), told)
            found = found or [result.frozen_scores.scores["accuracy"].mean]
            found.append(result.tuned_scores.scores["accuracy"].mean)
    return found


def interval(differences: np.ndarray) -> str:
    n = len(differences)
    mean, half = 100 * differences.mean(), np.nan
    if n > 1:
        half = 100 * stats.t.ppf(0.975, n - 1) * differences.std(ddof=1) / np.sqrt(n)
    return f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bench l2sp", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=SHARED, metavar="FOLDER", help="holds data/ and weights/")
    parser.add_argument("--k", type=int, nargs="+", default=[5, 20, 100])
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--strengths", type=float, nargs="+", default=[1.0, 30.0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--pixels", type=int, default=64)
    options = parser.parse_args()
    photos, weights = (
        options.shared / "data/cifar10-small",
        options.shared / "weights/mobilenet_v2-imagenet1k.pth",
    )
    if not (photos.is_dir() and weights.is_file()):
        sys.exit(f"{photos} or {weights} is not there")
    ways = [Way("neither", 0.0), *(Way(name, s) for s in options.strengths for name in ("L2", "L2-SP"))]
    request = FeatureRequest(backbone="mobilenet_v2", weights=str(weights), image_size=options.pixels)
    manifest = read_folder(photos)
    names = ["frozen", *map(str, ways), *(f"L2-SP - L2, {s:g}" for s in options.strengths)]
    print("| k | " + " | ".join(names) + " |\n|" + " ---: |" * (1 + len(names)), flush=True)
    for k in options.k:
        rows = []
        for seed in range(options.seeds):
            rows.append(accuracies(draw(manifest, k, seed), request, ways, options.epochs, seed))
            print(f"k = {k}, seed {seed}: {np.round(rows[-1], 3)}", file=sys.stderr, flush=True)
        found = np.array(rows)
        cells = [f"{mean:.3f}" for mean in found.mean(axis=0)]
        cells += [interval(found[:, 3 + 2 * i] - found[:, 2 + 2 * i]) for i in range(len(options.strengths))]
        print(f"| {k} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
