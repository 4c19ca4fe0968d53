"""`bin/bench passes`: what one pass over the images saves for several backbones, and what decoding processes cost.

Both on the same generated photographs, the alternatives in turn. The time of a process that decodes is counted as the
processor's, in it and in its parent, so that other work on the machine hardly matters.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from _featx import run_json
from _photos import write_photos

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from featx.manifest.record import Manifest  # noqa: E402
from featx.manifest.source import read_source  # noqa: E402
from featx.spec import Preprocess  # noqa: E402
from featx.vision.decode_pool import DecodePool  # noqa: E402
from featx.vision.engine import EngineOptions  # noqa: E402
from featx.vision.pixels import PixelPlan, read_sample  # noqa: E402

PLAN = PixelPlan(Preprocess(resize=(256,), crop=(224, 224), mean=(), std=()))


class Threads(DecodePool):
    """The same pool, but the threads that ask the processes decode by themselves."""

    def _read(self, position: int, wanted: object) -> list[object]:
        del wanted
        return read_sample(self._manifest, position, [PLAN])


def compare_passes(photos: Path, scratch: Path, backbones: list[str], rounds: int) -> None:
    ratios = []
    for _ in range(rounds):
        seconds = {}
        for way in ("one pass", "one after the other"):
            folder = tempfile.mkdtemp(dir=scratch)
            each = [["--backbone", name] for name in backbones]
            runs = [[word for pair in each for word in pair]] if way == "one pass" else each
            started = time.perf_counter()
            for run in runs:
                run_json("extract", photos, "-o", f"{folder}/{{backbone}}.h5", "--weights", "random", *run)
            seconds[way] = time.perf_counter() - started
        ratios.append(seconds["one pass"] / seconds["one after the other"])
        print(", ".join(f"{way} {value:.1f} s" for way, value in seconds.items()), flush=True)
    print(f"one pass takes {statistics.median(ratios):.2f} of the time ({_each(ratios)})\n")


def compare_decoders(manifest: Manifest, rounds: int) -> None:
    print("milliseconds of processor time for each image")
    print("round  in processes  of which in their parent  in threads")
    ratios = []
    for i in range(rounds):
        workers, parent = _cpu_ms(DecodePool, manifest)
        _, threads = _cpu_ms(Threads, manifest)
        ratios.append((workers + parent) / threads)
        print(f"{i + 1:5}  {workers + parent:12.2f}  {parent:24.2f}  {threads:10.2f}", flush=True)
    print(f"in processes it takes {statistics.median(ratios):.2f} of the time in threads ({_each(ratios)})")


def _cpu_ms(kind: type[DecodePool], manifest: Manifest) -> tuple[float, float]:
    """Return processor time of the workers and of this process."""
    with kind(manifest, (PLAN,), EngineOptions()) as pool:
        for future in [pool.submit(i, [0]) for i in range(8)]:
            future.result()
        pids = [worker.pid for worker in pool._idle]
        workers, own = sum(map(_cpu_seconds, pids)), time.process_time()
        for future in [pool.submit(i, [0]) for i in range(len(manifest))]:
            future.result()
        own, workers = time.process_time() - own, sum(map(_cpu_seconds, pids)) - workers
    return 1000 * workers / len(manifest), 1000 * own / len(manifest)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _each(ratios: list[float]) -> str:
    return ", ".join(f"{ratio:.2f}" for ratio in ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400, metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--width", type=int, default=1600, help="of the photographs for the passes (pixels)")
    parser.add_argument("--backbones", nargs="+", default=["resnet18", "mobilenet_v2", "squeezenet1_1"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        large = write_photos(scratch / "large", options.images, width=options.width, height=options.width * 3 // 4)
        compare_passes(large, scratch, options.backbones, options.rounds)
        small = write_photos(scratch / "small", options.images, width=500, height=375)
        compare_decoders(read_source(small), options.rounds)


if __name__ == "__main__":
    main()
