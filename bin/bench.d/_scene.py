"""An extraction that faults strike: many small pictures, a small slow network, and the file that nobody disturbed."""

import signal
import subprocess
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from _featx import FEATX
from PIL import Image

FINISHED, FAILED_ROWS = 0, 8
"""Exit codes."""
TOLERANCE = 1e-4
"""In standard deviations: what featx promises of other batches."""
PATIENCE = 600.0
"""Seconds after which a run that should end has not."""

NETWORK = """
import time
import torch
from torch import nn
from featx.spec import Preprocess
from featx.store import open_shard

open_shard.MAX_SECONDS = {shard_seconds}

class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        layers = nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(64, 2)

    def forward(self, x):
        if x.device.type != "meta":
            time.sleep({pause})
        return self.head(self.layers(x))

def slow():
    return Slow(), Preprocess(resize=(16,), crop=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
"""

Contents = dict[str, np.ndarray]
"""See `contents`."""


@dataclass(frozen=True)
class Scene:
    """Where everything lies.

    Attributes
    ----------
    folder : Path
        The current folder of every run.
    n_images : int
        Pictures in ``photos``.
    """

    folder: Path
    n_images: int

    @classmethod
    def build(cls, folder: Path, *, n_images: int, pause: float, shard_seconds: float) -> "Scene":
        """Write pictures and a network that waits `pause` seconds on every batch."""
        folder.mkdir()
        (folder / "faults_network.py").write_text(NETWORK.format(pause=pause, shard_seconds=shard_seconds))
        rng = np.random.default_rng(0)
        for name in ("moss", "rust"):
            (folder / "photos" / name).mkdir(parents=True)
        for i in range(n_images):
            pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / ("moss", "rust")[i % 2] / f"{i:05}.png")
        return cls(folder, n_images)

    def command(self, target: str, *options: str) -> list[str]:
        words = ["extract", "photos", "-o", target, "--backbone", "faults_network:slow", "--weights", "random"]
        return [FEATX, *words, "--batch-size", "8", "--runtime", "torch", "--device", "cpu", "-q", *options]


@dataclass
class Tally:
    """What became of one kind of fault.

    Attributes
    ----------
    tries : int
        Faults.
    kept : list of int
        Rows that were there after each of them.
    lost, wrong : int
        Rows that had outlived a fault and did not outlive the next, or are missing in a finished file; and rows of it
        with other features.
    deviation : float
        Of rows that were computed again with other neighbours in their batch, at most: in standard deviations of their
        feature.
    finished : int
        Files that were finished and compared.
    unequal : set of str
        Datasets and attributes in which a finished file was not the undisturbed one.
    remarks : list of str
        What else was not as it should be.
    """

    tries: int = 0
    kept: list[int] = field(default_factory=list)
    lost: int = 0
    wrong: int = 0
    deviation: float = 0
    finished: int = 0
    unequal: set[str] = field(default_factory=set)
    remarks: list[str] = field(default_factory=list)

    def compare(self, path: Path, wanted: Contents, *, again: Collection[str] = ()) -> None:
        """Compare a finished file with the undisturbed one.

        Parameters
        ----------
        path : Path
            The file.
        wanted : dict
            What the undisturbed one holds.
        again : collection of str
            Samples that failed for the fault and were computed by a later run, in another batch than undisturbed: they
            are the same within rounding, not bit for bit.
        """
        found = contents(path)
        self.finished += 1
        rows = dict(zip(found["keys"], found["features"], strict=True))
        spread = wanted["features"].std(axis=0)
        for key, right in zip(wanted["keys"], wanted["features"], strict=True):
            row = rows.get(key)
            self.lost += row is None
            if row is not None and row.tobytes() != right.tobytes():
                deviation = float(np.max(np.abs(row - right) / spread))
                self.wrong += key.decode() not in again or deviation > TOLERANCE
                self.deviation = max(self.deviation, deviation)
        rounded = {"features", "features@sha256"} if self.deviation and not self.wrong else set()
        self.unequal |= differing(found, wanted) - rounded


class Extraction:
    """One feature file that is disturbed and resumed until it is finished."""

    def __init__(self, scene: Scene, target: str, tally: Tally, *options: str) -> None:
        self.path = scene.folder / target
        self._scene, self._tally = scene, tally
        self._command = scene.command(target, *options)
        self._kept = 0

    def start(self) -> "subprocess.Popen[str]":
        """Run or resume."""
        return subprocess.Popen(
            self._command,
            cwd=self._scene.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # A shell in the background lets its jobs ignore Ctrl-C, and they their children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def wait(self, process: "subprocess.Popen[str]", seconds: float | None = None) -> bool:
        """Wait for the end, or for some seconds; whether it has ended."""
        try:
            self.said = process.communicate(timeout=PATIENCE if seconds is None else seconds)[1]
        except subprocess.TimeoutExpired:
            if seconds is None:
                process.kill()
                process.communicate()
                raise SystemExit(f"a run did not end in {PATIENCE:g} s: {' '.join(self._command)}") from None
            return False
        return True

    def run(self, *, codes: tuple[int, ...] = (FINISHED,)) -> int:
        """Run to the end and return the exit code."""
        process = self.start()
        self.wait(process)
        self.check(process.returncode, codes)
        return process.returncode

    def check(self, code: int, codes: tuple[int, ...]) -> None:
        """Note an exit code that should not be, and a traceback."""
        if code not in codes or "Traceback" in self.said:
            self._tally.remarks.append(f"exit code {code}, expected {codes}: {self.said.strip()[-1500:]}")

    def note_fault(self) -> int:
        """Count a fault, and the rows that outlived it; what had outlived an earlier one must still be there."""
        kept = count_rows(self.path)
        self._tally.tries += 1
        self._tally.kept.append(kept)
        self._tally.lost += max(0, self._kept - kept)
        self._kept = kept
        return kept


def undisturbed(scene: Scene, target: str, *options: str) -> tuple[Contents, float]:
    """Run without a fault; what is in the file, and the seconds that it took."""
    tally = Tally()
    begun = time.monotonic()
    run = Extraction(scene, target, tally, *options)
    run.run()
    if tally.remarks:
        raise SystemExit(tally.remarks[0])
    return contents(run.path), time.monotonic() - begun


def count_rows(path: Path) -> int:
    """Rows in a finished file, or else those that a run has kept so far."""
    from featx.errors import StoreError
    from featx.info import describe

    try:
        found = describe(path)
    except StoreError:  # disturbed before it kept anything
        return 0
    return int(found["pending"]["done"] if found["pending"] else found["rows"])


def failures(path: Path) -> list[str]:
    """Samples of a finished file that have no row."""
    from featx.info import describe

    return list(describe(path)["failures"])


def contents(path: Path) -> Contents:
    """Everything in an HDF5 file by name: datasets, and attributes as ``name@attribute``."""
    found: Contents = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        found.update({f"{name}@{key}": np.asarray(value) for key, value in item.attrs.items()})
        if isinstance(item, h5py.Dataset):
            found[name] = np.asarray(item[()])

    with h5py.File(path) as file:
        visit("", file)
        file.visititems(visit)
    return found


def differing(found: Contents, wanted: Contents) -> set[str]:
    """Names of what is not the same: type, shape or bits."""
    common = found.keys() & wanted.keys()
    return (found.keys() ^ wanted.keys()) | {name for name in common if not _is_identical(found[name], wanted[name])}


def _is_identical(a: np.ndarray, b: np.ndarray) -> bool:
    values = (a.tolist(), b.tolist()) if a.dtype == object else (a.tobytes(), b.tobytes())
    return a.dtype == b.dtype and a.shape == b.shape and values[0] == values[1]
