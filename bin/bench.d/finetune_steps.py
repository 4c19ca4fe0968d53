"""`bin/bench finetune_steps`: images/s of training, featx beside the loop that a good tutorial writes, in turn.

(a) torchvision, ImageFolder, a DataLoader with 2 workers, RandomResizedCrop and flip, train(), SGD with momentum, all
weights; (b) featx, the same with its own images, batch norms as they are; (c) the bare training step of (b) on a tensor
in memory; (d) featx with --dtype bfloat16; (e) featx with --train last-block, (f) the same once what the frozen layers
give is kept, (g) --train head alike; with the bytes that are kept of an image. Random weights, batches of 32,
photographs of 500 x 375; medians of the rounds, each in another order.

--gpu: on a GPU, ResNet-50 in bfloat16 with its images, the bare step on a batch that is there already, and its images
without the step; the first is to reach 85 % of the second.
"""

import argparse
import copy
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
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
from featx.vision.tuning.feeding import lanes_of
from featx.vision.tuning.images import Batch, ImageReader, epoch_views
from featx.vision.tuning.lower import ActivationCache
from featx.vision.tuning.network import TunedNetwork
from featx.vision.tuning.optimisation import Optimisation
from featx.vision.tuning.recipe import IMAGE_KINDS, Recipe

BATCH = 32
RECIPE = Recipe(optimiser="sgd", lr=1e-3, batch_size=BATCH, l2sp=0.01, clip=1.0)


def tutorial(name: str, folder: Path, pixels: int) -> Callable[[int], None]:
    """The fine-tune of a transfer learning tutorial."""
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(pixels),
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
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        network = network.to(self.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.step = Optimisation(network, recipe, 10_000, np.ones(2))
        self.network, self.spec, self.recipe = network, backbone.spec, recipe
        images = torch.randn(BATCH, 3, *self.spec.preprocess.crop, device=self.device)
        self.images = images.contiguous(memory_format=torch.channels_last)

    def batches(self, n_steps: int) -> Iterator[Batch]:
        order = np.random.default_rng(0).permutation(len(self.codes))[: n_steps * BATCH]
        views = epoch_views(order, IMAGE_KINDS[self.recipe.images], 0, 1)
        with ImageReader(self.manifest, self.spec, EngineOptions(), lanes=lanes_of(self.device)) as reader:
            yield from reader.batches(order, BATCH, views)

    def run(self, n_steps: int) -> None:
        for batch in self.batches(n_steps):
            self.step.take_step(batch.images, self.codes[batch.positions])

    def read(self, n_steps: int) -> None:
        for _ in self.batches(n_steps):
            pass

    def bare(self, n_steps: int) -> None:
        for _ in range(n_steps):
            self.step.take_step(self.images, self.codes[:BATCH])


class Kept(Featx):
    """The same where frozen layers are below: what they give is kept from the first run on."""

    def __init__(self, backbone: Backbone, folder: Path, recipe: Recipe) -> None:
        super().__init__(backbone, folder, recipe)
        self.network.freeze_below(self.step.trained())
        self.cache = ActivationCache(lambda images: self.network.lower(images.to(self.device)), limit=4 * 2**30)

    def run(self, n_steps: int) -> None:
        order = np.random.default_rng(0).permutation(len(self.codes))[: n_steps * BATCH]
        views = list(epoch_views(order, IMAGE_KINDS[self.recipe.images], 0, 1))
        with ImageReader(self.manifest, self.spec, EngineOptions(), lanes=lanes_of(self.device)) as reader:
            for positions, maps in self.cache.batches(order, views, BATCH, reader.batches):
                self.step.take_step(maps, self.codes[positions])

    @property
    def kept(self) -> str:
        return f"{self.cache.size / max(1, self.cache.misses) / 1024:,.0f} KiB"


def sized(backbone: Backbone, pixels: int) -> Backbone:
    crop = dataclasses.replace(backbone.spec.preprocess, resize=(round(pixels / 0.875),), crop=(pixels, pixels))
    return dataclasses.replace(backbone, spec=dataclasses.replace(backbone.spec, preprocess=crop))


def measure(name: str, folder: Path, options: argparse.Namespace) -> dict[str, str]:
    backbone = sized(load_backbone(FeatureRequest(backbone=name, weights="random")), options.pixels)
    plain = Featx(backbone, folder, RECIPE)
    last, head = (Kept(backbone, folder, dataclasses.replace(RECIPE, train=train)) for train in ("last-block", "head"))
    runs: dict[str, Callable[[int], None]] = {
        "(a) tutorial": tutorial(name, folder, options.pixels),
        "(b) featx": plain.run,
        "(c) bare step": plain.bare,
        "(d) bfloat16": Featx(backbone, folder, dataclasses.replace(RECIPE, dtype="bfloat16")).run,
        "(e) last block": Featx(backbone, folder, dataclasses.replace(RECIPE, train="last-block")).run,
        "(f) last block, kept": last.run,
        "(g) head, kept": head.run,
    }
    runs = {key: run for key, run in runs.items() if key[1] in options.only}
    for key, run in runs.items():
        run(options.steps if "kept" in key else 1)
    rates: dict[str, list[float]] = {contender: [] for contender in runs}
    for turn in range(options.rounds):
        names = list(runs)
        for contender in [*names[turn % len(names) :], *names[: turn % len(names)]]:
            start = time.perf_counter()
            runs[contender](options.steps)
            rates[contender].append(options.steps * BATCH / (time.perf_counter() - start))
    found = {key: statistics.median(of) for key, of in rates.items()}
    first = next(iter(found.values()))
    kept = {"f": f", {last.kept} an image", "g": f", {head.kept} an image"}
    return {key: f"{rate:.1f} ({rate / first:.2f}{kept.get(key[1], '')})" for key, rate in found.items()}


def on_gpu(options: argparse.Namespace) -> None:
    """Measure ResNet-50 in bfloat16 with its images beside the bare step, in turn."""
    steps = options.steps or 100
    print(f"{torch.cuda.get_device_name()}, {os.cpu_count()} cores, torch {torch.__version__}: resnet50, bfloat16,")
    print(f"{options.rounds} rounds of {steps} steps of {BATCH} images of {options.pixels} px", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_photos(Path(scratch), steps * BATCH, width=500, height=375)
        backbone = sized(load_backbone(FeatureRequest(backbone="resnet50", weights="random")), options.pixels)
        one = Featx(backbone, folder, dataclasses.replace(RECIPE, dtype="bfloat16"))
        runs = {"with its images": one.run, "bare step": one.bare, "images alone": one.read}
        for run in runs.values():
            run(4)
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(options.rounds):
            for name, run in runs.items():
                torch.cuda.synchronize()
                start = time.perf_counter()
                run(steps)
                torch.cuda.synchronize()
                rates[name].append(steps * BATCH / (time.perf_counter() - start))
    shares = [one / other for one, other in zip(rates["with its images"], rates["bare step"], strict=True)]
    for name, of in rates.items():
        print(f"{name}: {statistics.median(of):.0f} images/s ({min(of):.0f} to {max(of):.0f})")
    share = statistics.median(shares)
    print(f"share of the bare step: {100 * share:.0f} % (target 85: {'reached' if share >= 0.85 else 'missed'})")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench finetune_steps", description=__doc__)
    parser.add_argument("--models", nargs="+", default=["resnet18", "mobilenet_v2"], metavar="NAME")
    parser.add_argument("--steps", type=int, metavar="N", help="in each round; default: 8, with --gpu 100")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--pixels", type=int, default=224, metavar="N", help="height and width of what is trained on")
    parser.add_argument("--only", default="abcdefg", metavar="LETTERS", help="of the contenders")
    parser.add_argument("--gpu", action="store_true", help="ResNet-50 on a GPU, and nothing else")
    options = parser.parse_args()
    if options.gpu:
        if not torch.cuda.is_available():
            sys.exit("bench finetune_steps --gpu: nothing is measured, torch sees no CUDA device here")
        on_gpu(options)
        return
    options.steps = options.steps or 8
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_photos(Path(scratch), options.steps * BATCH, width=500, height=375)
        for place, name in enumerate(options.models):
            cells = measure(name, folder, options)
            if not place:
                print("| model | " + " | ".join(cells) + " |\n| --- |" + " ---: |" * len(cells))
            print(f"| {name}, {options.pixels} px | " + " | ".join(cells.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
