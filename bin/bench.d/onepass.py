"""`bin/bench onepass`: three backbones in one pass over the images, beside three runs; the files are compared."""

import argparse
import statistics
import tempfile
from pathlib import Path

import h5py
import numpy as np
from _featx import run_json
from _photos import write_photos

BACKBONES = ("featx-mini", "mobilenet_v3_small", "shufflenet_v2_x0_5")


def seconds_of(photos: Path, output: str, backbones: tuple[str, ...], folder: Path) -> float:
    """Extract as one command does and return its own seconds, imports not counted."""
    words = [word for name in backbones for word in ("--backbone", name)]
    result = run_json("extract", photos, "-o", folder / output, "--weights", "random", *words)
    return float(max(file["seconds"] for file in result.get("files", [result])))


def is_same(one: Path, other: Path) -> bool:
    """Whether two feature files hold the same datasets, bit for bit, and were made by the same spec."""
    with h5py.File(one) as a, h5py.File(other) as b:
        names: list[str] = []
        a.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        same = all(np.asarray(a[name]).tolist() == np.asarray(b[name]).tolist() for name in names)
        return same and a.attrs["fingerprint"] == b.attrs["fingerprint"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench onepass", description=__doc__)
    parser.add_argument("--images", type=int, default=128, metavar="N", help="of each size; default: 128")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    options = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        for width, height in ((500, 375), (3000, 2250)):
            photos = write_photos(Path(scratch, f"{width}"), options.images, width=width, height=height)
            alone: list[float] = []
            together: list[float] = []
            equal = True
            for turn in range(options.rounds):
                folder = Path(scratch, f"{width}-{turn}")
                folder.mkdir()
                alone.append(sum(seconds_of(photos, f"{name}.h5", (name,), folder) for name in BACKBONES))
                together.append(seconds_of(photos, "all-{backbone}.h5", BACKBONES, folder))
                equal &= all(is_same(folder / f"{name}.h5", folder / f"all-{name}.h5") for name in BACKBONES)
            ratio = statistics.median(a / b for a, b in zip(alone, together, strict=True))
            lines.append(
                f"| {width} x {height} | {statistics.median(alone):.1f} | {statistics.median(together):.1f} | {ratio:.2f} "
                f"| {'yes' if equal else 'NO'} |"
            )
    print(f"\n{', '.join(BACKBONES)}; {options.images} images of each size, {options.rounds} rounds\n")
    print("| photographs | three runs, s | one pass, s | times as fast | same files |\n| --- | ---: | ---: | ---: | --- |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
