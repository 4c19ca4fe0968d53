"""`bin/bench finetune_steps`: images/s of training, featx beside the loop that a good tutorial writes, in turn.

(a) torchvision, ImageFolder, a DataLoader with 2 workers, RandomResizedCrop and flip, train(), SGD with momentum, all
weights; (b) featx, the same with its own images, batch norms as they are; (c) the bare training step of (b) on a tensor
in memory; (d) featx with --dtype bfloat16; (e) featx with --train last-block. Random weights, batches of 32,
photographs of 500 x 375; medians of the rounds, each in another order.
"""

import argparse
import copy
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _photos import write_photos
from torch import nn
from torchvision import datasets, models
from torchvision.transforms import v2

from featx.manifest.folder import read_folder
from featx.spec import FeatureRequest
from featx.vision.backbones import Backbone, load_backbone
from featx.vision.engine import EngineOptions
from featx.vision.tuning.images import ImageReader, epoch_views
from featx.vision.tuning.network import TunedNetwork
from featx.vision.tuning.optimisation import Optimisation
from featx.vision.tuning.recipe import IMAGE_KINDS, Recipe

BATCH = 32
RECIPE = Recipe(optimiser="sgd", lr=1e-3, batch_size=BATCH, l2sp=0.01, clip=1.0)


def tutorial(name: str, folder: Path) -> Callable[[int], None]:
    """The fine-tune of a transfer learning tutorial."""
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(224),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    loader = torch.utils.data.DataLoader(
        datasets.ImageFolder(str(folder), transform), batch_size=BATCH, shuffle=True, num_workers=2
    )
    model = models.get_model(name, num_classes=2).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    criterion = nn.CrossEntropyLoss()

    def run(n_steps: int) -> None:
        for _, (images, labels) in zip(range(n_steps), loader, strict=False):
            optimiser.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimiser.step()
            loss.item()

    return run


class Featx:
    """featx's own training step."""

    def __init__(self, backbone: Backbone, folder: Path, recipe: Recipe) -> None:
        own = dataclasses.replace(backbone, network=copy.deepcopy(backbone.network))
        self.manifest = read_folder(folder)
        self.codes = np.array([sorted(set(self.manifest.labels)).index(label) for label in self.manifest.labels])
        network = TunedNetwork(own, 0.01 * np.ones((2, backbone.spec.n_features)), np.zeros(2))
        network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.step = Optimisation(network, recipe, 10_000, np.ones(2))
        self.spec, self.recipe = backbone.spec, recipe
        self.images = torch.randn(BATCH, 3, *self.spec.preprocess.crop).contiguous(memory_format=torch.channels_last)

    def run(self, n_steps: int) -> None:
        order = np.random.default_rng(0).permutation(len(self.codes))[: n_steps * BATCH]
        views = epoch_views(order, IMAGE_KINDS[self.recipe.images], 0, 1)
        with ImageReader(self.manifest, self.spec, EngineOptions()) as reader:
            for batch in reader.batches(order, BATCH, views):
                self.step.take_step(batch.images, self.codes[batch.positions])

    def bare(self, n_steps: int) -> None:
        for _ in range(n_steps):
            self.step.take_step(self.images, self.codes[:BATCH])


def measure(name: str, folder: Path, n_steps: int, rounds: int) -> dict[str, list[float]]:
    backbone = load_backbone(FeatureRequest(backbone=name, weights="random"))
    plain = Featx(backbone, folder, RECIPE)
    runs: dict[str, Callable[[int], None]] = {
        "(a) tutorial": tutorial(name, folder),
        "(b) featx": plain.run,
        "(c) bare step": plain.bare,
        "(d) bfloat16": Featx(backbone, folder, dataclasses.replace(RECIPE, dtype="bfloat16")).run,
        "(e) last block": Featx(backbone, folder, dataclasses.replace(RECIPE, train="last-block")).run,
    }
    for run in runs.values():
        run(1)
    rates: dict[str, list[float]] = {contender: [] for contender in runs}
    for turn in range(rounds):
        names = list(runs)
        for contender in [*names[turn % len(names) :], *names[: turn % len(names)]]:
            start = time.perf_counter()
            runs[contender](n_steps)
            rates[contender].append(n_steps * BATCH / (time.perf_counter() - start))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench finetune_steps", description=__doc__)
    parser.add_argument("--models", nargs="+", default=["resnet18", "mobilenet_v2"], metavar="NAME")
    parser.add_argument("--steps", type=int, default=8, metavar="N", help="in each round")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_photos(Path(scratch), options.steps * BATCH, width=500, height=375)
        for place, name in enumerate(options.models):
            rates = {
                key: statistics.median(of) for key, of in measure(name, folder, options.steps, options.rounds).items()
            }
            if not place:
                print("| model | " + " | ".join(rates) + " |\n| --- |" + " ---: |" * len(rates))
            slowest = rates["(a) tutorial"]
            print(
                f"| {name} | " + " | ".join(f"{rate:.1f} ({rate / slowest:.2f})" for rate in rates.values()) + " |",
                flush=True,
            )


if __name__ == "__main__":
    main()
