"""`bin/bench coverage`: how often the intervals of scores hold the truth, on sets from known populations.

The truth is the expected score of the procedure at the size of the folds' training parts: the mean score of the heads
of the first folds, one from each set, on fresh samples each. Nominal 95 % should cover between 93 and 99 %.
`--against` sets other intervals beside featx's, and `--fixed` judges those of one fixed test part.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from _generated_sets import (
    CHOSEN,
    POPULATIONS,
    Population,
    cross_validate,
    name_classes,
)
from _interval_kinds import KINDS, Ends

from featx.learn.metrics import METRICS, score_predictions
from featx.learn.scores import evaluate_fixed

CHUNK = 50  # sets that a process takes at once
SHORT = {"balanced_accuracy": "balanced acc.", "f1_macro": "F1", "roc_auc": "ROC AUC", "neg_log_loss": "log loss"}


@dataclass(frozen=True)
class Held:
    """How many intervals held the truth, and how wide they were on average, for one score."""

    share: float
    width: float


def judge(ends: Sequence[Ends], truth: Mapping[str, float]) -> dict[str, Held]:
    """Count the intervals that hold the truth; none at all holds nothing."""
    held = {}
    for place, (name, true) in enumerate(truth.items()):
        there = [pair for pair in (one[name] for one in ends) if pair is not None]
        widths = [high - low for low, high in there]
        share = sum(low <= true <= high for low, high in there) / len(ends)
        held[METRICS[place]] = Held(share, float(np.mean(widths)) if widths else np.nan)
    return held


def measure(
    population: Population, n: int, n_sets: int, kinds: Sequence[str], n_jobs: int
) -> dict[str, dict[str, Held]]:
    """Cross-validate sets of n samples, and judge the intervals of each kind."""
    starts = range(0, n_sets, CHUNK)
    chunks = joblib.Parallel(n_jobs=n_jobs)(
        joblib.delayed(_run_chunk)(population, n, range(start, min(start + CHUNK, n_sets)), kinds) for start in starts
    )
    scores = [values for chunk in chunks for values, _ in chunk]
    truth = {name: float(np.mean([one[name] for one in scores])) for name in scores[0]}
    return {kind: judge([ends[kind] for chunk in chunks for _, ends in chunk], truth) for kind in kinds}


def _run_chunk(
    population: Population, n: int, numbers: Sequence[int], kinds: Sequence[str]
) -> list[tuple[dict[str, float | None], dict[str, Ends]]]:
    found = []
    with threadpool_limits(1):
        for number in numbers:
            study = cross_validate(population, n, (n, number))
            fresh = study.fresh
            values = score_predictions(study.y_fresh, fresh.predicted, fresh.probabilities, study.classes)
            found.append((values, {kind: KINDS[kind](study) for kind in kinds}))
    return found


def measure_fixed(population: Population, n: int, n_sets: int, n_jobs: int) -> dict[str, dict[str, Held]]:
    """Judge the intervals of one classifier, fitted on 150 samples, on test parts of n samples."""
    rng = np.random.default_rng(1)
    X, codes, _ = population.draw(150, rng)
    assert population.head is not None

    def call(rows: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return population.head(X, codes, rows, population.n_classes)  # type: ignore[misc]

    rows, fresh = population.draw_fresh(200_000, rng)
    classes = name_classes(np.arange(population.n_classes)).tolist()
    probabilities = np.concatenate([call(part) for part in np.array_split(rows, 50)])
    predicted = name_classes(probabilities.argmax(axis=1))
    truth = score_predictions(name_classes(fresh), predicted, probabilities, classes)

    def ends(seed: int) -> Ends:
        with threadpool_limits(1):
            rows, y, groups = population.draw(n, np.random.default_rng((n, seed)))
            probabilities = call(rows)
            predicted = name_classes(probabilities.argmax(axis=1))
            scores = evaluate_fixed(name_classes(y), predicted, probabilities, classes, groups=groups).scores
            return {name: (one.low, one.high) for name, one in scores.items()}  # type: ignore[misc]

    found = joblib.Parallel(n_jobs=n_jobs)(joblib.delayed(ends)(seed) for seed in range(n_sets))
    return {"featx": judge(found, truth)}  # type: ignore[arg-type]


def print_cells(cells: Mapping[tuple[str, int], dict[str, Held]]) -> None:
    print("\n% covered (mean width)\n")
    print("| population | n | " + " | ".join(SHORT.get(name, name) for name in METRICS) + " |")
    print("| --- | ---: |" + " ---: |" * len(METRICS))
    for (name, n), held in cells.items():
        print(f"| {name} | {n} | " + " | ".join(f"{100 * h.share:.1f} ({h.width:.3f})" for h in held.values()) + " |")
    for n in sorted({n for _, n in cells}):
        own = [held for (_, size), held in cells.items() if size == n]
        means = [np.mean([held[name].share for held in own]) for name in METRICS]
        print(f"| *all of them* | {n} | " + " | ".join(f"{100 * mean:.1f}" for mean in means) + " |")
    print(flush=True)


def print_kinds(cells: Mapping[tuple[str, int], dict[str, dict[str, Held]]], kinds: Sequence[str]) -> None:
    print("\nlowest to highest % covered; cells below 93 and above 99; mean width as a part of featx's (median cell)\n")
    print("| interval | " + " | ".join(SHORT.get(name, name) for name in METRICS) + " |")
    print("| --- |" + " --- |" * len(METRICS))
    for kind in kinds:
        texts = []
        for name in METRICS:
            shares = np.array([100 * held[kind][name].share for held in cells.values()])
            widths = [held[kind][name].width / held["featx"][name].width for held in cells.values()]
            if np.isnan(widths).any() and not shares.any():
                texts.append("")
                continue
            texts.append(
                f"{shares.min():.1f} to {shares.max():.1f}; {np.sum(shares < 93)}, {np.sum(shares > 99)}; "
                f"{np.nanmedian(widths):.2f}"
            )
        print(f"| {kind} | " + " | ".join(texts) + " |")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench coverage", description=__doc__)
    parser.add_argument("--sets", type=int, default=2000, metavar="N", help="of each population and size")
    parser.add_argument("--n", type=int, nargs="+", default=[40, 100, 400], metavar="N", help="samples in a set")
    parser.add_argument("--only", default="", metavar="TEXT", help="only populations whose name contains it")
    parser.add_argument("--against", action="store_true", help="other intervals, too")
    parser.add_argument("--fixed", action="store_true", help="one classifier on fixed test parts instead")
    parser.add_argument("--chosen", action="store_true", help="featx's own search as the head; a tenth of the sets")
    parser.add_argument("--n-jobs", type=int, default=-1, metavar="N", help="processes; default: all cores")
    options = parser.parse_args()
    kinds = list(KINDS) if options.against else ["featx"]
    n_sets = options.sets // 10 if options.chosen else options.sets
    populations = [one for one in ((CHOSEN,) if options.chosen else POPULATIONS) if options.only in one.name]
    if options.fixed:
        populations = [one for one in populations if one.repeats == 1 and one.cv == 5]
    if not populations or n_sets < 2:
        parser.error("no populations, or no sets")
    run: Callable[[Population, int], dict[str, dict[str, Held]]] = lambda population, n: (  # noqa: E731
        measure_fixed(population, n, n_sets, options.n_jobs)
        if options.fixed
        else measure(population, n, n_sets, kinds, options.n_jobs)
    )
    start = time.monotonic()
    cells = {}
    for population in populations:
        for n in options.n:
            cells[population.name, n] = run(population, n)
            held = cells[population.name, n]["featx"]["balanced_accuracy"]
            print(f"{population.name}, n = {n}: {100 * held.share:.1f} % of balanced accuracy", file=sys.stderr)
    print_cells({cell: held["featx"] for cell, held in cells.items()})
    if options.against and not options.fixed:
        print_kinds(cells, kinds)
    print(f"{n_sets} sets each, {len(cells)} cells, in {(time.monotonic() - start) / 60:.0f} min")


if __name__ == "__main__":
    main()
