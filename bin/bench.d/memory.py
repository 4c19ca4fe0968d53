"""`bin/bench memory`: whether the peak memory of featx extract grows with the number of images."""

import argparse
import tempfile
from pathlib import Path

from _featx import peak_memory
from _photos import write_photos


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench memory", description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[400, 4000], metavar="N", help="default: 400 4000")
    options = parser.parse_args()
    peaks = []
    with tempfile.TemporaryDirectory() as scratch:
        for n in options.images:
            photos = write_photos(Path(scratch, f"photos-{n}"), n)
            peaks.append(peak_memory("extract", photos, "-o", Path(scratch, f"{n}.h5"), "--backbone", "featx-mini"))
    print("\n| images | peak resident memory, MiB | ratio to the first |")
    print("| ---: | ---: | ---: |")
    for n, peak in zip(options.images, peaks, strict=True):
        print(f"| {n:,} | {peak:.0f} | {peak / peaks[0]:.3f} |")


if __name__ == "__main__":
    main()
