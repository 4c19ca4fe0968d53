"""featx demo runs the main job on real images, with no network and no options."""

import csv
import shlex
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from featx import demo
from featx.cli.main import featx as command_line
from featx.demo import NEXT_COMMANDS, DemoFiles, DemoResult, run_demo, write_images
from featx.fit import FitOptions
from featx.learn.dataset import load_features


@pytest.fixture(scope="module", autouse=True)
def _no_network() -> Iterator[None]:
    def refuse(*_: object) -> None:
        raise AssertionError("the demo wants the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        yield


class Witness:
    """Notes what the demo tells."""

    def __init__(self) -> None:
        self.outcomes: dict[str, object] = {}
        self.progress: dict[str, list[tuple[int, int]]] = {}

    def on_stage(self, stage: str, outcome: object) -> None:
        self.outcomes[stage] = outcome

    @contextmanager
    def watch(self, stage: str, unit: str) -> Iterator[Callable[[int, int], None]]:
        calls = self.progress[stage] = []
        yield lambda done, total: calls.append((done, total))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> DemoFiles:
    return DemoFiles(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def small(files: DemoFiles) -> Iterator[tuple[DemoResult, Witness]]:
    """The outcome of a demo with a sixth of the pictures and a short search."""
    witness = Witness()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "N_PER_CLASS", 10)
        patch.setattr(demo, "N_ASIDE_PER_CLASS", 2)
        patch.setattr(demo, "FIT_OPTIONS", FitOptions(inner_cv=3, scalings=("standardise",), C_grid=(1e-3, 1e-1, 3)))
        yield run_demo(files.folder, on_stage=witness.on_stage, progress=witness.watch), witness


def test_600_scans_and_60_more_kept_aside_lie_on_disk_as_pictures(tmp_path: Path) -> None:
    images = write_images(DemoFiles(tmp_path))
    scans, unseen = (sorted(folder.glob("*/*.png")) for folder in (images.files.scans, images.files.unseen))
    assert (len(scans), len(unseen)) == (images.n_scans, images.n_unseen) == (600, 60)
    assert set(Counter(path.parent.name for path in scans).values()) == {60}
    assert not {path.name for path in scans} & {path.name for path in unseen}
    with Image.open(scans[0]) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (64, 64))


def test_a_file_holds_the_scan_that_its_name_says_under_its_own_class(tmp_path: Path) -> None:
    digits = load_digits()
    images = write_images(DemoFiles(tmp_path))
    for path in [*images.files.scans.glob("*/*.png"), *images.files.unseen.glob("*/*.png")]:
        number = int(path.stem.removeprefix("scan-"))
        assert path.parent.name == str(digits.target[number])
        ink = 1 - demo._read_pixels(path)
        assert np.corrcoef(ink, digits.data[number])[0, 1] > 0.95


def test_each_stage_is_told_in_order_and_its_progress_ends_at_the_total(small: tuple[DemoResult, Witness]) -> None:
    result, witness = small
    assert witness.outcomes == {
        "images": result.images,
        "extract": result.extraction,
        "fit": result.fit,
        "pixels": result.pixels,
        "predict": result.predictions,
    }
    assert list(witness.outcomes) == ["images", "extract", "fit", "pixels", "predict"]
    assert list(witness.progress) == ["extract", "fit", "pixels", "predict"]
    assert all(calls[-1][0] == calls[-1][1] > 0 for calls in witness.progress.values())


def test_raw_pixels_are_judged_by_the_same_heads_and_folds(small: tuple[DemoResult, Witness]) -> None:
    result, _ = small
    assert result.fit.options == result.pixels.options
    folds = [[(row.key, row.fold, row.true) for row in fit.out_of_fold] for fit in (result.fit, result.pixels)]
    assert folds[0] == folds[1]
    assert len(folds[0]) == result.images.n_scans
    chance = 1 / len(result.images.classes)
    for fit in (result.fit, result.pixels):
        assert fit.whole.evaluation.scores["accuracy"].low > 2 * chance


def test_the_pictures_kept_aside_are_predicted_and_scored(files: DemoFiles, small: tuple[DemoResult, Witness]) -> None:
    predictions = small[0].predictions
    assert sorted(predictions.keys) == sorted(str(p.relative_to(files.unseen)) for p in files.unseen.glob("*/*.png"))
    assert predictions.evaluation is not None
    assert not set(predictions.keys) & set(load_features(files.features).keys.tolist())
    with files.predictions.open(newline="") as file:
        assert list(csv.reader(file)) == list(predictions.iter_csv_rows())


def test_a_second_demo_computes_no_features_again(files: DemoFiles, small: tuple[DemoResult, Witness]) -> None:
    again = run_demo(files.folder)
    assert again.extraction.computed == 0
    assert again.fit.whole == small[0].fit.whole


def test_the_commands_that_it_names_are_ones_that_featx_understands(files: DemoFiles) -> None:
    for line in [*files.commands.values(), *NEXT_COMMANDS]:
        program, name, *arguments = shlex.split(line)
        assert program == "featx"
        context = command_line.make_context("featx", [name, *arguments])
        command = command_line.get_command(context, name)
        assert command is not None
        command.make_context(name, arguments, parent=context)


@pytest.mark.slow
def test_the_whole_demo_tells_digits_apart(tmp_path: Path) -> None:
    result = run_demo(tmp_path)
    assert result.extraction.rows == 600
    for fit in (result.fit, result.pixels):
        assert fit.whole.evaluation.scores["accuracy"].mean > 0.9
    assert np.mean(np.array(result.predictions.predicted) == np.array(result.predictions.labels)) > 0.85
