"""`bin/bench scale`: what a sample costs where there are a million: start-up, memory, resuming, merging."""

import argparse
import contextlib
import csv
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _featx import FEATX, show
from PIL import Image

SIZES = (1_000, 10_000, 100_000, 1_000_000)
IN_A_FOLDER = 1_000

NETWORK = """
from torch import nn
from featx.spec import Preprocess

def tiny():
    layers = nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    return nn.Sequential(*layers), Preprocess(resize=(16,), crop=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
"""


def write_images(scratch: Path) -> None:
    """Ten small pictures under a thousand names in one folder, which has a thousand names of its own."""
    images = scratch / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for i in range(IN_A_FOLDER):
        path = images / f"{i:03}.png"
        if i < 10:
            Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path)
        else:
            path.hardlink_to(images / f"{i % 10:03}.png")
    for i in range(max(SIZES) // IN_A_FOLDER):
        (scratch / f"d{i:03}").symlink_to(images)
    (scratch / "scale_network.py").write_text(NETWORK)


def write_table(path: Path, n: int) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "group"])
        for i in range(n):
            folder, image = divmod(i, IN_A_FOLDER)
            writer.writerow([f"d{folder:03}/{image:03}.png", ("moss", "rust")[i % 2], f"patient {i // 4}"])


@dataclass
class Outcome:
    """What one run of the command took, in seconds and MiB; until the first and the last batch since its start."""

    first: float
    last: float
    total: float
    done: int
    peak: float


def run(command: list[str], folder: Path, *, kill_at: int | None = None) -> Outcome:
    """Run ``featx extract`` on a terminal of its own, where it shows its progress; kill -9 after so many images."""
    terminal, theirs = pty.openpty()
    started = time.monotonic()
    environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs
    )
    os.close(theirs)
    first, last, done, text = 0.0, 0.0, 0, b""
    with contextlib.suppress(OSError):  # how Linux says that nobody writes to the terminal any more
        while piece := os.read(terminal, 65536):
            text = (text + piece)[-65536:]
            for found in re.finditer(rb"(\d+)/(\d+)", text):
                if int(found[1]) > done:
                    done, last = int(found[1]), time.monotonic() - started
                    first = first or last
            if kill_at is not None and done >= kill_at:
                process.send_signal(signal.SIGKILL)
    os.close(terminal)
    _, status, usage = os.wait4(process.pid, 0)
    total = time.monotonic() - started
    code = process.returncode = os.waitstatus_to_exitcode(status)
    if code != (0 if kill_at is None else -signal.SIGKILL):
        sys.exit(f"the command ended with exit code {code}:\n{text.decode(errors='replace')}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return Outcome(first, last, total, done, usage.ru_maxrss * unit / 2**20)


def measure(scratch: Path, n: int) -> str:
    table = scratch / f"{n}.csv"
    write_table(table, n)
    command = [FEATX, "extract", table.name, "-o", f"{n}.h5", "--backbone", "scale_network:tiny"]
    show(command)
    begun = run(command, scratch, kill_at=n // 2)
    resumed = run(command, scratch)
    again = run(command, scratch)
    cells = (
        f"{n:,}",
        f"{begun.first:.1f}",
        f"{begun.done / (begun.last - begun.first):.0f}" if begun.last > begun.first else "-",
        f"{resumed.first:.1f}",
        f"{resumed.total - resumed.last:.1f}",
        f"{again.total:.1f}",
        f"{max(begun.peak, resumed.peak):.0f}",
        f"{again.peak:.0f}",
        f"{(scratch / f'{n}.h5').stat().st_size / n:.0f}",
    )
    for path in (table, scratch / f"{n}.h5"):
        path.unlink()
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench scale", description=__doc__)
    parser.add_argument("--max", type=int, default=max(SIZES), metavar="N", help="largest number; default: a million")
    most = parser.parse_args().max
    with tempfile.TemporaryDirectory() as scratch:
        write_images(Path(scratch))
        lines = []
        for n in (size for size in SIZES if size <= most):
            lines.append(measure(Path(scratch), n))
            print(lines[-1], flush=True)
    print("\nSeconds and MiB; a run is killed -9 in the middle and resumed; `again` finds the file complete.\n")
    header = (
        "samples",
        "first batch after",
        "images/s",
        "resumed: first batch after",
        "last batch to end",
        "again",
        "peak MiB",
        "peak again",
        "bytes of file/sample",
    )
    print(f"| {' | '.join(header)} |")
    print("|" + " ---: |" * len(header))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
