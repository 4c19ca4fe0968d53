"""`bin/bench startup`: what featx --help and featx info cost beside the imports that they cannot do without."""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _featx import FEATX, run_json, show
from _photos import write_photos


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def compare(ours: list[str], theirs: list[str], goal: float, rounds: int) -> str:
    """Time both in turn, so that whatever else the machine does meets both alike."""
    show(ours)
    show(theirs)
    times = [(seconds(ours), seconds(theirs)) for _ in range(rounds + 1)][1:]  # the first round fills the caches
    mine, other = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(a / b for a, b in times)
    name = f"featx {ours[1]}"
    return f"| {name} | {mine * 1000:.0f} | {theirs[-1]} | {other * 1000:.0f} | {ratio:.2f} | {goal} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="default: 15")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as scratch:
        photos, file = write_photos(Path(scratch, "photos"), 20), Path(scratch, "photos.h5")
        run_json("extract", photos, "-o", file, "--backbone", "featx-mini")
        lines = [
            compare([FEATX, "--help"], [sys.executable, "-c", "import click"], 2.5, rounds),
            compare([FEATX, "info", str(file)], [sys.executable, "-c", "import h5py"], 3, rounds),
        ]
    print(f"\nMedians of {rounds} runs in turn.\n")
    print("| command | ms | beside | ms | median ratio | goal at most |")
    print("| --- | ---: | --- | ---: | ---: | ---: |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
