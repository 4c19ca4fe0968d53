"""`bin/bench extract`: images/s of featx, of the loop that a good tutorial writes, and of the tools of others, in turn.

(a) torchvision, ImageFolder, a DataLoader with 2 workers, eval, no_grad; (b) featx on PyTorch alone; (c) featx on its
fastest runtime; (d) the bare forward pass of that runtime on a tensor in memory; (e) featx with --dtype bfloat16.
Random weights, batches of 32, all contenders in one process and in turn, round after round; medians of the rounds.
"""

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import _contenders as contenders
import torch
from _contenders import Contender, NotInstalledError
from _photos import write_photos

from featx.errors import FeatxError
from featx.vision.images import open_rgb, preprocess_pixels
from featx.vision.reading import Reading

MODELS = ("resnet18", "resnet50", "mobilenet_v2", "vit_b_16", "convnext_tiny", "vgg16")
PEERS = {"timm loop": contenders.timm_loop, "thingsvision": contenders.thingsvision, "embetter": contenders.embetter}


def seconds_of(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(entrants: Sequence[Contender], rounds: int) -> dict[str, list[float]]:
    """Images/s of each, round after round, each round in another order."""
    rates: dict[str, list[float]] = {entrant.name: [] for entrant in entrants}
    for turn in range(rounds):
        start = turn % len(entrants)
        for entrant in [*entrants[start:], *entrants[:start]]:
            before = time.perf_counter()
            n = entrant.run()
            rates[entrant.name].append(n / (time.perf_counter() - before))
    return rates


def parts_of(model: str, files: Sequence[Path]) -> tuple[float, float]:
    """Seconds an image of decoding and of preprocessing, each alone with all cores."""
    preprocess = contenders.backbone_of(model).spec.preprocess
    reading = Reading.of(preprocess)
    data = [path.read_bytes() for path in files]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        images = [image for image, _ in threads.map(partial(open_rgb, reading=reading), data)]
        decode = min(seconds_of(lambda: list(threads.map(partial(open_rgb, reading=reading), data))) for _ in range(3))
        small = partial(preprocess_pixels, preprocess=preprocess)
        resize = min(seconds_of(lambda: list(threads.map(small, images))) for _ in range(3))
    return decode / len(files), resize / len(files)


def entrants_of(model: str, folder: Path, n: int, options: argparse.Namespace) -> list[Contender]:
    makers: dict[str, Callable[[], Callable[[], int]]] = {
        "(a) tutorial": partial(contenders.tutorial, model, folder),
        "(b) featx torch": partial(contenders.featx, model, folder, runtime="torch"),
        f"(c) featx {options.runtime}": partial(contenders.featx, model, folder, runtime=options.runtime),
        "(d) bare forward": partial(contenders.bare, model, n, runtime=options.runtime),
        "(d') bare forward, torch": partial(contenders.bare, model, n, runtime="torch"),
    }
    if not options.no_bfloat16:
        makers["(e) featx bfloat16"] = partial(contenders.featx, model, folder, runtime="auto", dtype="bfloat16")
    if options.peers:
        makers |= {name: partial(maker, model, folder) for name, maker in PEERS.items()}
    entrants = []
    for name, maker in makers.items():
        try:
            entrants.append(contenders.make(name, maker))
        except NotInstalledError:
            print(f"- {model}: {name}: not installed")
        except FeatxError as error:
            print(f"- {model}: {name}: {error}")
    return entrants


def show(model: str, entrants: Sequence[Contender], rates: dict[str, list[float]], parts: tuple[float, float]) -> None:
    """Print one model's table."""
    medians = {name: statistics.median(each) for name, each in rates.items()}
    base = medians["(a) tutorial"]
    print(f"\n{model}\n\n| contender | images/s | of (a) | range of the rounds | made in, s |")
    print("| --- | ---: | ---: | --- | ---: |")
    for entrant in entrants:
        each = rates[entrant.name]
        print(
            f"| {entrant.name} | {medians[entrant.name]:.1f} | {medians[entrant.name] / base:.2f} | "
            f"{min(each):.1f} to {max(each):.1f} | {entrant.prepared:.1f} |"
        )
    decode, resize = parts
    for end, alone in (("(b)", "(d')"), ("(c)", "(d) ")):
        whole = next((rate for name, rate in medians.items() if name.startswith(end)), None)
        forward = next((rate for name, rate in medians.items() if name.startswith(alone)), None)
        if whole is None or forward is None:
            continue
        limit = 1 / (decode + resize + 1 / forward)
        print(
            f"\n{end}: decode {decode * 1e3:.2f} ms, preprocess {resize * 1e3:.2f} ms, forward {1e3 / forward:.2f} ms "
            f"an image, each alone: one after the other {limit:.1f} images/s, end to end {whole / limit:.2f} of it and "
            f"{whole / forward:.2f} of the bare forward pass"
        )
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench extract", description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="NAME")
    parser.add_argument("--images", type=int, default=192, metavar="N", help="generated, 500 x 375; default: 192")
    parser.add_argument("--folder", type=Path, help="of class folders with JPEGs of your own, instead of --images")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument("--runtime", default="auto", help="of (c) and (d); default: auto")
    parser.add_argument("--no-bfloat16", action="store_true")
    parser.add_argument("--peers", action="store_true", help="also timm in a loop, thingsvision and embetter")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or write_photos(Path(scratch, "photos"), options.images, width=500, height=375)
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        about = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
        print(f"{len(files)} images, {options.rounds} rounds, {about}")
        for model in options.models:
            entrants = entrants_of(model, folder, len(files), options)
            show(model, entrants, measure(entrants, options.rounds), parts_of(model, files[:96]))
    print(f"\npeak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
