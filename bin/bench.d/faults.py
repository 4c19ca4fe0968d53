"""`bin/bench faults`: kill -9 at random moments of featx extract, each resumed, against a run that nobody disturbed."""

import argparse
import json
import random
import subprocess
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from _featx import FEATX, show
from _photos import write_photos


def contents(path: Path) -> dict[str, np.ndarray]:
    """Everything in an HDF5 file by name: datasets, and attributes as ``name@attribute``."""
    found: dict[str, np.ndarray] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        found.update({f"{name}@{key}": np.asarray(value) for key, value in item.attrs.items()})
        if isinstance(item, h5py.Dataset):
            found[name] = np.asarray(item[()])

    with h5py.File(path) as file:
        visit("", file)
        file.visititems(visit)
    return found


def is_identical(a: np.ndarray, b: np.ndarray) -> bool:
    """Same type, same shape, same bits."""
    values = (a.tolist(), b.tolist()) if a.dtype == object else (a.tobytes(), b.tobytes())
    return a.dtype == b.dtype and a.shape == b.shape and values[0] == values[1]


def differing(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> set[str]:
    common = found.keys() & wanted.keys()
    return (found.keys() ^ wanted.keys()) | {name for name in common if not is_identical(found[name], wanted[name])}


def count_bad_rows(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> tuple[int, int]:
    """How many rows are lost, and how many are there with other features."""
    rows = dict(zip(found["keys"], found["features"], strict=True))
    pairs = [(rows.get(key), row) for key, row in zip(wanted["keys"], wanted["features"], strict=True)]
    return sum(row is None for row, _ in pairs), sum(
        row is not None and row.tobytes() != right.tobytes() for row, right in pairs
    )


class Extraction:
    """One feature file that is killed and resumed until it is finished."""

    def __init__(self, command: list[str], target: Path) -> None:
        self.command = [*command, "-o", str(target)]
        self.target = target
        self.kept = 0
        self.lost = 0

    def run(self, seconds: float | None) -> bool:
        """Run or resume, kill -9 after so many seconds; whether it ended by itself before that."""
        process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            _, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return False
        if process.returncode:
            raise SystemExit(f"a resumed run failed with exit code {process.returncode}:\n{err}")
        return True

    def count_kept(self) -> int:
        """Rows that outlived the kill; what had outlived an earlier one must still be there."""
        done = subprocess.run([FEATX, "info", str(self.target), "--json"], capture_output=True, text=True, check=False)
        info = json.loads(done.stdout) if done.returncode == 0 else {"pending": {"done": 0}}  # killed before it began
        kept = int(info["pending"]["done"] if info["pending"] else info["rows"])
        self.lost += max(0, self.kept - kept)
        self.kept = kept
        return kept


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=25, metavar="N", help="default: 25")
    parser.add_argument("--images", type=int, default=400, metavar="N", help="default: 400")
    parser.add_argument("--backbone", default="resnet50", help="with random weights; default: resnet50")
    parser.add_argument("--seed", type=int, default=None, help="of the moments; default: another one each time")
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        photos = write_photos(Path(scratch, "photos"), options.images)
        command = [FEATX, "extract", str(photos), "--backbone", options.backbone, "--weights", "random"]
        reference = Path(scratch, "undisturbed.h5")
        show([*command, "-o", reference.name])
        start = time.monotonic()
        Extraction(command, reference).run(None)
        duration = time.monotonic() - start
        wanted = contents(reference)
        print(
            f"undisturbed: {duration:.1f} s; kills at moments drawn from 0 to {duration:.1f} s, seed {seed}", flush=True
        )

        kills = finished = lost = wrong = 0
        survived: list[int] = []
        unequal: set[str] = set()
        while kills < options.kills:
            run = Extraction(command, Path(scratch, f"disturbed-{finished}.h5"))
            while not run.run(moments.uniform(0, duration) if kills < options.kills else None):
                kills += 1
                survived.append(run.count_kept())
                print(f"kill {kills}: {survived[-1]} of {options.images} rows kept", flush=True)
            finished += 1
            found = contents(run.target)
            unequal.update(differing(found, wanted))
            lost_here, wrong_here = count_bad_rows(found, wanted)
            lost, wrong = lost + lost_here + run.lost, wrong + wrong_here
            print(f"finished and compared: {len(wanted)} datasets and attributes", flush=True)
    print("\n| kill -9, each resumed | rows kept, median (min to max) | finished files | rows lost | wrong rows |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    middle = f"{np.median(survived):.0f} ({min(survived)} to {max(survived)})"
    print(f"| {kills} | {middle} of {options.images} | {finished} | {lost} | {wrong} |")
    print("\nnot equal, bit for bit: " + (", ".join(sorted(unequal)) or "nothing"))
    raise SystemExit(bool(unequal))


if __name__ == "__main__":
    main()
