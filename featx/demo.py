"""The stage behind ``featx demo``: the whole job on real scans, with no network and no options.

The scans are the handwritten digits that come with scikit-learn (UCI, "Optical Recognition of Handwritten Digits",
https://archive.ics.uci.edu/dataset/80), written out as image files; the network is the small one inside featx.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featx.extract import extract
from featx.extract_report import ExtractReport
from featx.fit import FitOptions, FitResult, fit, fit_features, save
from featx.learn.dataset import load_features
from featx.predict import Predictions, predict
from featx.spec import FeatureRequest

N_PER_CLASS, N_ASIDE_PER_CLASS = 60, 6
SIDE = 64
"""Pixels of the files written: the 8 x 8 grey values of a scan would be a speck in a folder of pictures."""
BACKBONE = "featx-mini"
FIT_OPTIONS = FitOptions()
"""For the features and for the raw pixels alike."""

Advance = Callable[[int, int], None]
Progress = Callable[[str, str], AbstractContextManager[Advance]]
"""Called as ``progress(stage, unit)`` when a stage begins; what it returns is entered and called with (done, total)."""
OnStage = Callable[[str, object], None]
"""Called as ``on_stage(stage, outcome)`` when a stage is done."""


@dataclass(frozen=True)
class DemoFiles:
    """Where everything lies, and the commands that make it.

    Attributes
    ----------
    folder : Path
        Holds all of it.
    """

    folder: Path

    @property
    def scans(self) -> Path:
        """Class folders of PNG files to learn from."""
        return self.folder / "scans"

    @property
    def unseen(self) -> Path:
        """Class folders of PNG files that are kept aside."""
        return self.folder / "unseen"

    @property
    def features(self) -> Path:
        """The feature file of the scans."""
        return self.folder / "scans.h5"

    @property
    def bundle(self) -> Path:
        """The fitted classifier."""
        return self.folder / "scans.featx"

    @property
    def predictions(self) -> Path:
        """The table of predictions for the pictures kept aside."""
        return self.folder / "predictions.csv"

    @property
    def commands(self) -> dict[str, str]:
        """Name of a stage to the command that does the same."""
        arguments = {
            "extract": ["extract", self.scans, "-o", self.features, "--backbone", BACKBONE],
            "fit": ["fit", self.features, "-o", self.bundle],
            "predict": ["predict", self.bundle, self.unseen, "-o", self.predictions],
        }
        return {name: shlex.join(["featx", *map(str, words)]) for name, words in arguments.items()}


@dataclass(frozen=True)
class DemoImages:
    """What was written to disk.

    Attributes
    ----------
    files : DemoFiles
    n_scans, n_unseen : int
        Pictures to learn from, and kept aside.
    classes : tuple of str
    """

    files: DemoFiles
    n_scans: int
    n_unseen: int
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class DemoResult:
    """The outcome of each stage, in order.

    Attributes
    ----------
    images : DemoImages
    extraction : ExtractReport
    fit : FitResult
        On the network's features.
    pixels : FitResult
        The same heads and folds on the 64 grey values of each scan, without any network.
    predictions : Predictions
        For the pictures kept aside.
    """

    images: DemoImages
    extraction: ExtractReport
    fit: FitResult
    pixels: FitResult
    predictions: Predictions


NEXT_COMMANDS = (
    "featx extract YOUR-FOLDER/ -o cache/yours.h5",
    "featx fit cache/yours.h5 -o yours.featx",
    "featx predict yours.featx NEW-PICTURES/ -o predictions.csv",
)
"""What to type for pictures of one's own, in a folder with one folder for each class."""


def run_demo(
    folder: str | os.PathLike[str], *, on_stage: OnStage | None = None, progress: Progress | None = None
) -> DemoResult:
    """Run the main job: images on disk, features, a classifier with its scores, predictions.

    Parameters
    ----------
    folder : path-like
        Made if it is not there; what an earlier demo left in it is used again or overwritten.
    on_stage : callable, optional
        Called with ``"images", DemoImages``; ``"extract", ExtractReport``; ``"fit", FitResult``;
        ``"pixels", FitResult``; ``"predict", Predictions``.
    progress : callable, optional
        See `Progress`; for the stages extract, fit, pixels and predict.

    Returns
    -------
    DemoResult

    Raises
    ------
    FeatxError
        As the stages do, for example where the folder cannot be written.
    """
    tell = on_stage or _ignore
    watch = progress or (lambda *_: nullcontext(_ignore))
    files = DemoFiles(Path(folder))

    images = write_images(files)
    tell("images", images)
    with watch("extract", "images") as advance:
        extraction = extract(files.scans, files.features, request=FeatureRequest(backbone=BACKBONE), progress=advance)
    tell("extract", extraction)
    with watch("fit", "searches") as advance:
        fitted = fit(files.features, FIT_OPTIONS, progress=advance)
    assert isinstance(fitted, FitResult)
    save(fitted, files.bundle)
    tell("fit", fitted)
    with watch("pixels", "searches") as advance:
        pixels = fit_pixels(files, progress=advance)
    tell("pixels", pixels)
    with watch("predict", "images") as advance:
        predictions = predict(files.bundle, files.unseen, progress=advance)
    assert isinstance(predictions, Predictions)
    predictions.save(files.predictions)
    tell("predict", predictions)
    return DemoResult(images, extraction, fitted, pixels, predictions)


def write_images(files: DemoFiles) -> DemoImages:
    """Write a random but fixed choice of the digits as PNG files, dark on white; files that are right already stay.

    Raises
    ------
    OSError
        If the file system refuses.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    chosen = np.random.default_rng(0).permutation(len(digits.target))
    classes = [str(name) for name in digits.target_names]
    for target, name in enumerate(classes):
        of_class = chosen[digits.target[chosen] == target]
        for place, number in enumerate(of_class[: N_PER_CLASS + N_ASIDE_PER_CLASS]):
            folder = (files.scans if place < N_PER_CLASS else files.unseen) / name
            folder.mkdir(parents=True, exist_ok=True)
            _write_scan(folder / f"scan-{number:04}.png", digits.images[number])
    return DemoImages(files, N_PER_CLASS * len(classes), N_ASIDE_PER_CLASS * len(classes), tuple(classes))


def fit_pixels(files: DemoFiles, *, progress: Advance | None = None) -> FitResult:
    """Fit the same heads by the same folds to the 64 grey values of each scan instead of features."""
    features = load_features(files.features)
    X = np.stack([_read_pixels(files.scans / key) for key in features.keys])
    fitted = fit_features(dataclasses.replace(features, X=X, spec=None, digest=""), FIT_OPTIONS, progress=progress)
    assert isinstance(fitted, FitResult)
    return fitted


def _ignore(*_: object) -> None:
    """Stand in for a callback that was not given."""


def _write_scan(path: Path, grey: NDArray[np.float64]) -> None:
    """Write the ink of an 8 x 8 scan, 0 to 16, as a picture of `SIDE` x `SIDE` pixels."""
    scan = Image.fromarray(np.uint8(np.round(255 - grey * 255 / 16)))
    picture = scan.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    # An unchanged file keeps its time, so that a second demo finds its features up to date.
    if not (path.exists() and np.array_equal(np.asarray(Image.open(path)), np.asarray(picture))):
        picture.save(path)


def _read_pixels(path: Path) -> NDArray[np.float32]:
    """Return a picture's 8 x 8 grey values in [0, 1]: the mean over squares of its pixels."""
    with Image.open(path) as picture:
        return np.asarray(picture.reduce(SIDE // 8), dtype=np.float32).ravel() / np.float32(255)
