"""`bin/bench gpu`: a naive loop, featx end to end, its own forward pass alone on one device, and where the rest goes.

Everything is measured in turn in one process, on the same generated photographs, with random weights; medians of the
rounds. Float32 is exact (TF32 off) in featx, while the naive loop has PyTorch's default, convolutions in TF32.
"""

import argparse
import contextlib
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torchvision
from _photos import write_photos

from featx.extract import extract
from featx.spec import FeatureRequest
from featx.store.run import ExtractionRun
from featx.vision.backbones import load_backbone
from featx.vision.devices import choose_device
from featx.vision.embed import Embedder
from featx.vision.engine import EngineOptions
from featx.vision.registry import classifier_of

WIDTH, HEIGHT = 500, 375


class Bench:
    """The arms that are measured, on one folder of photographs."""

    def __init__(self, options: argparse.Namespace, photos: Path, scratch: Path) -> None:
        self.options, self.photos, self.scratch = options, photos, scratch
        self.device = torch.device(options.device)
        self.is_cuda = self.device.type == "cuda"

    def request(self, dtype: str) -> FeatureRequest:
        return FeatureRequest(backbone=self.options.model, weights="random", dtype=dtype)

    def naive(self) -> float:
        """What a good tutorial does: an ImageFolder, a DataLoader, eval mode, no gradients, one batch after another."""
        model = self.options.model
        transform = torchvision.models.get_model_weights(model).DEFAULT.transforms()
        network = torchvision.models.get_model(model, weights=None).eval()
        parent, _, name = (classifier_of(network) or "").rpartition(".")
        setattr(network.get_submodule(parent), name, torch.nn.Identity())
        network.to(self.device)
        start = time.perf_counter()
        loader = torch.utils.data.DataLoader(
            torchvision.datasets.ImageFolder(str(self.photos), transform),
            batch_size=self.options.batch_size,
            num_workers=self.options.num_workers,
            pin_memory=self.is_cuda,
        )
        rows = 0
        with torch.no_grad():
            for images, _ in loader:
                rows += len(network(images.to(self.device)).cpu())
        assert rows == self.options.images
        return rows / (time.perf_counter() - start)

    def featx(self, dtype: str) -> float:
        """`featx extract`, from files to a feature file."""
        options = self.options
        report = extract(
            self.photos,
            self.scratch / f"{time.monotonic_ns()}.h5",
            request=self.request(dtype),
            engine=EngineOptions(batch_size=options.batch_size, num_workers=options.num_workers, device=options.device),
        )
        assert report.computed == options.images
        assert report.rate is not None
        return report.rate

    def without_network(self) -> float:
        """`featx extract` with a network that costs nothing: reading, decoding, copying and writing."""

        def nothing(embedder: Embedder, pixels: torch.Tensor) -> list[torch.Tensor]:
            return [torch.zeros((len(pixels), embedder.backbone.spec.n_features), device=pixels.device)]

        with replaced(Embedder, "forward", nothing):
            return self.featx("float32")

    def forward_only(self, dtype: str) -> float:
        """The same network in the same arithmetic on a batch that is in the device's memory already."""
        embedder = Embedder(load_backbone(self.request(dtype)), device=self.options.device)
        size = embedder.buffer(self.options.batch_size).shape
        pixels = torch.randint(0, 256, size, dtype=torch.uint8).to(self.device)
        for _ in range(3):
            embedder.forward(pixels)
        self.wait()
        n, start = 0, time.perf_counter()
        while n < 4 or time.perf_counter() - start < self.options.seconds:
            for _ in range(20 if self.is_cuda else 1):
                embedder.forward(pixels)
                n += 1
            self.wait()
        return n * len(pixels) / (time.perf_counter() - start)

    def wait(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def shares_of_main_thread(self, dtype: str) -> dict[str, float]:
        """What the thread that feeds the device spends its time with, in one more run."""
        spent: defaultdict[str, float] = defaultdict(float)

        def timed(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **keywords: Any) -> Any:
                start = time.perf_counter()
                try:
                    return method(*arguments, **keywords)
                finally:
                    spent[name] += time.perf_counter() - start

            return call

        with contextlib.ExitStack() as stack:
            for cls, method, name in (
                (Embedder, "_begin", "handing batches in" if self.is_cuda else "computing"),
                (Embedder, "_land", "waiting for the device"),
                (ExtractionRun, "append", "writing"),
            ):
                stack.enter_context(replaced(cls, method, timed(name, getattr(cls, method))))
            seconds = self.options.images / self.featx(dtype)
        spent["waiting for decoded images, bookkeeping"] = seconds - sum(spent.values())
        return {name: value / seconds for name, value in spent.items()}

    def profile(self, dtype: str) -> tuple[dict[str, float], list[tuple[str, float]]]:
        """Shares of the time in which the device computes and copies, and the operations that take most of it."""
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self.is_cuda:
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as profile:
            self.featx(dtype)
        wanted = torch.autograd.DeviceType.CUDA if self.is_cuda else torch.autograd.DeviceType.CPU
        events = [event for event in profile.events() if event.device_type == wanted]
        operations: Counter[str] = Counter()
        for event in events:
            operations[event.name] += event.self_device_time_total if self.is_cuda else event.self_cpu_time_total
        whole = sum(operations.values()) or 1
        most = [(name, value / whole) for name, value in operations.most_common(8)]
        if not self.is_cuda:
            return {}, most
        # Of the time between the first and the last thing that the device does: without loading and warming up.
        spans = {"kernels": [], "copies": []}  # type: dict[str, list[tuple[float, float]]]
        for event in events:
            kind = "copies" if event.name.startswith(("Memcpy", "Memset")) else "kernels"
            spans[kind].append((event.time_range.start, event.time_range.end))
        compute = spans["kernels"]
        whole = max(end for _, end in compute) - min(start for start, _ in compute)
        shares = {kind: covered(each) / whole for kind, each in spans.items()}
        shares["kernels or copies"] = covered([*spans["kernels"], *spans["copies"]]) / whole
        return shares, most


def covered(spans: list[tuple[float, float]]) -> float:
    """The length of the union of time spans."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


@contextlib.contextmanager
def replaced(cls: type, name: str, value: Any) -> Iterator[None]:
    before = getattr(cls, name)
    setattr(cls, name, value)
    try:
        yield
    finally:
        setattr(cls, name, before)


def table(head: list[str], lines: list[list[str]]) -> None:
    print(f"\n| {' | '.join(head)} |\n| --- |" + " ---: |" * (len(head) - 1))
    for line in lines:
        print(f"| {' | '.join(line)} |")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="default: cuda; cpu tries the benchmark itself out")
    parser.add_argument("--model", default="resnet50", help="of torchvision; default: resnet50")
    parser.add_argument("--images", type=int, default=8000, metavar="N", help="default: 8000")
    parser.add_argument("--batch-size", type=int, default=128, metavar="N", help="default: 128")
    parser.add_argument("--num-workers", type=int, default=os.cpu_count(), metavar="N", help="default: the cores")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], help="default: float32 bfloat16")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each forward-only measurement; default: 5")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("bench gpu: torch sees no CUDA device here; --device cpu --model resnet18 --images 64 tries it out")
    choose_device(options.device)
    with tempfile.TemporaryDirectory() as scratch:
        photos = write_photos(Path(scratch, "photos"), options.images, width=WIDTH, height=HEIGHT)
        run(Bench(options, photos, Path(scratch)))


def run(bench: Bench) -> None:
    options = bench.options
    name = torch.cuda.get_device_name(bench.device) if bench.is_cuda else platform.processor() or platform.machine()
    print(f"{name}, {os.cpu_count()} cores, torch {torch.__version__}: {options.model}, {options.images} images")
    print(f"of {WIDTH} x {HEIGHT} pixels, batches of {options.batch_size}, {options.num_workers} workers", flush=True)
    arms: dict[str, Callable[[], float]] = {
        "naive loop": bench.naive,
        "featx without the network": bench.without_network,
    }
    for dtype in options.dtypes:
        arms[f"featx {dtype}"] = lambda dtype=dtype: bench.featx(dtype)
        arms[f"forward only {dtype}"] = lambda dtype=dtype: bench.forward_only(dtype)
    rates: defaultdict[str, list[float]] = defaultdict(list)
    for i in range(options.rounds + 1):
        for arm, measure in arms.items():
            rate = measure()
            if i:  # the first round warms everything up
                rates[arm].append(rate)
            print(f"round {i}: {arm}: {rate:.1f} images/s", flush=True)
    middle = {arm: statistics.median(each) for arm, each in rates.items()}
    lines = []
    for arm, rate in middle.items():
        to_naive = statistics.median(a / b for a, b in zip(rates[arm], rates["naive loop"], strict=True))
        dtype = arm.rpartition(" ")[2]
        own = middle.get(f"forward only {dtype}") if arm.startswith("featx") else None
        lines.append([arm, f"{rate:.1f}", f"{to_naive:.2f}", f"{rate / own:.3f}" if own else ""])
    table(["median of the rounds", "images/s", "ratio to the naive loop", "share of its forward pass"], lines)
    for dtype in options.dtypes:
        shares = bench.shares_of_main_thread(dtype)
        table(
            [f"featx {dtype}: the thread that feeds the device", "share"], [[k, f"{v:.3f}"] for k, v in shares.items()]
        )
        busy, most = bench.profile(dtype)
        if busy:
            table(
                [f"featx {dtype}, profiled: the device is busy with", "share"],
                [[k, f"{v:.3f}"] for k, v in busy.items()],
            )
        table([f"featx {dtype}, profiled: operation", "share of their sum"], [[k[:70], f"{v:.3f}"] for k, v in most])


if __name__ == "__main__":
    main()
