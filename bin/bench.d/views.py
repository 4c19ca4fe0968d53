"""`bin/bench views`: what training on augmented views, and averaging over them, gain beside plain images.

Small training sets are drawn again and again from the training part; the test part is always the same whole one.
Logistic regression on standardised features, C chosen inside the training part. Extraction runs once for each data set:
plans of 2 and 4 views are the beginning of that of 8. Differences are paired: the same training images with and without
views.
"""

import argparse
import csv
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import joblib
import numpy as np
from _featx import run_json
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from featx.fit import FitOptions, fit_features  # noqa: E402
from featx.learn.dataset import Features, load_features  # noqa: E402

OPTIONS = FitOptions(scalings=("standardise",), C_grid=(1e-5, 1e-1, 5), inner_cv=3, cv=2, n_jobs=1)


@dataclass(frozen=True)
class Task:
    """One data set with one network, and how many images of a class are learned from, of how many at most."""

    folder: str
    backbone: tuple[str, ...]
    test: str
    sizes: tuple[int, ...]
    most: tuple[int | None, int | None] = (None, None)

    def name(self) -> str:
        return f"{self.folder}, {self.backbone[1]}"


def write_table(task: Task, data: Path, scratch: Path) -> Path:
    """List the images of a task."""
    table = scratch / f"{task.folder}.csv"
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split"])
        for part, split, most in (("train", "train", task.most[0]), (task.test, "test", task.most[1])):
            for folder in sorted((data / task.folder / part).iterdir()):
                kept = sorted(folder.iterdir())[:most]
                rows.writerows((image.relative_to(data), folder.name, split) for image in kept)
    return table


def draw(data: Features, n_per_class: int, seed: int) -> Features:
    """Keep some training images of each class, and the whole test part."""
    rng = np.random.default_rng(seed)
    kept = [np.flatnonzero(data.splits == "test")]
    for name in np.unique(data.y):
        rows = np.flatnonzero((data.splits == "train") & (data.y == name))
        kept.append(rng.permutation(rows)[:n_per_class])
    return data.take(np.sort(np.concatenate(kept)))


def score(data: Features, n_per_class: int, seed: int, n_views: int, used: str) -> tuple[float, float]:
    """Accuracy and log loss of the test part."""
    some = draw(data, n_per_class, seed)
    if n_views == 1:
        some, options = replace(some, X=some.X[:, 0]), OPTIONS
    else:
        trained, scored = used.split("/")
        some, options = replace(some, X=some.X[:, :n_views]), replace(OPTIONS, views=trained, score_views=scored)
    with threadpool_limits(1):
        scores = fit_features(some, options).whole.evaluation.scores
    return scores["accuracy"].mean or 0.0, scores["neg_log_loss"].mean or 0.0


def iter_settings(most: int) -> Iterator[tuple[int, str, str]]:
    yield 1, "", "plain images only"
    for n_views in (2, 4, 8):
        if n_views <= most:
            yield n_views, "train/plain", f"{n_views} views, scored plain"
            yield n_views, "train/average", f"{n_views} views, averaged"
    yield most, "none/average", f"fitted plain, {most} views averaged"


def compare(data: Features, n_per_class: int, repeats: int) -> None:
    settings = list(iter_settings(data.X.shape[1]))
    found = joblib.Parallel(n_jobs=-1)(
        joblib.delayed(score)(data, n_per_class, seed, n_views, used)
        for n_views, used, _ in settings
        for seed in range(repeats)
    )
    values = np.array(found).reshape(len(settings), repeats, 2)
    for (_, _, text), own in zip(settings, values, strict=True):
        gain = own - values[0]
        spread = f"{100 * own[:, 0].mean():.1f} ({100 * own[:, 0].std(ddof=1):.1f})"
        if own is values[0] or not gain.any():
            print(f"| {n_per_class} | {text} | {spread} | | | |", flush=True)
            continue
        print(
            f"| {n_per_class} | {text} | {spread} "
            f"| {100 * gain[:, 0].mean():+.1f} ({100 * gain[:, 0].std(ddof=1):.1f}) "
            f"| {np.sum(gain[:, 0] > 0)} / {np.sum(gain[:, 0] < 0)} | {-gain[:, 1].mean():+.3f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench views", description=__doc__)
    parser.add_argument(
        "--shared", type=Path, default=ROOT.parent / "shared", metavar="FOLDER", help="holds data/ and weights/"
    )
    parser.add_argument("--repeats", type=int, default=20, metavar="N", help="training sets of each size")
    parser.add_argument("--views", type=int, default=8, choices=(2, 4, 8), help="the longest plan")
    parser.add_argument("--only", default="", metavar="TEXT", help="only data sets whose name contains it")
    options = parser.parse_args()
    if options.repeats < 2:
        parser.error("--repeats: at least 2, else there is no spread")
    weights = options.shared / "weights/mobilenet_v2-imagenet1k.pth"
    mobilenet, mini = ("--backbone", "mobilenet_v2", "--weights", str(weights)), ("--backbone", "featx-mini")
    tasks = [
        Task("hymenoptera", mobilenet, "val", (10, 20, 60)),
        Task("hymenoptera", mini, "val", (10, 20, 60)),
        Task("cifar10-small", mini, "test", (10, 30), most=(60, 50)),
    ]
    if not ((options.shared / "data").is_dir() and weights.is_file()):
        sys.exit(f"{options.shared / 'data'} or {weights} is not there")
    with tempfile.TemporaryDirectory() as scratch:
        for task in tasks:
            if options.only not in task.name():
                continue
            table, file = write_table(task, options.shared / "data", Path(scratch)), Path(scratch, "features.h5")
            views = ("--views", str(options.views), "--replace")
            run_json("extract", table, "--root", options.shared / "data", "-o", file, *task.backbone, *views)
            data = load_features(file, views=True).by_sample()
            n_test = int(np.sum(data.splits == "test"))
            print(f"\n{task.name()}: {n_test} test images; (standard deviation over {options.repeats} training sets)")
            print("| images a class | rows | accuracy, % | against plain, points | better / worse | log loss, change |")
            print("| ---: | --- | ---: | ---: | ---: | ---: |")
            for n_per_class in task.sizes:
                compare(data, n_per_class, options.repeats)
            print()


if __name__ == "__main__":
    main()
