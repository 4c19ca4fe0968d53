import csv
import dataclasses
import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featx.errors import InputError, MissingExtraError, StoreWriteError, UsageError
from featx.vision.engine import EngineOptions
from featx.vision.tuning.curves import check_curves, draw_curves
from featx.vision.tuning.epochs import Epoch
from featx.vision.tuning.event_files import EventFiles
from featx.vision.tuning.history import LINES, TABLE, EpochRow, HistoryFiles, read_history
from featx.vision.tuning.images import ImageReader
from featx.vision.tuning.network import TunedNetwork
from featx.vision.tuning.part import PartTask, PartTrainer
from featx.vision.tuning.recipe import Recipe

C = 2
RECIPE = Recipe(epochs=3, batch_size=4, lr=1e-3, patience=0)
EPOCHS = [
    Epoch(0, None, 0.5, 0.0, 0.0, None),
    Epoch(1, 0.7, 0.625, 1e-3, 0.25, 12.5),
    Epoch(2, 0.5, 0.75, 1e-4, 1.0, 11.0),
]

# Numbers that texts are known to lose: drawing any would take longer than the test.
NUMBERS = (0.0, -0.0, 0.1, 1 / 3, -2.5, 1e22, 5e-324, 2.0**-1022, 1.7976931348623157e308)
numbers, known = st.sampled_from(NUMBERS), st.sampled_from((None, *NUMBERS))
epochs = st.builds(Epoch, st.sampled_from((0, 1, 10**6)), known, known, numbers, numbers, known)


@pytest.fixture
def _no_sync(monkeypatch):
    monkeypatch.setattr("featx.store.disk.sync", lambda fd: None)
    monkeypatch.setattr("featx.store.disk.sync_folder", lambda path: None)


@pytest.mark.usefixtures("_no_sync")
@given(one=st.lists(epochs, max_size=3), other=st.lists(epochs, max_size=3))
def test_what_is_written_is_read_again(tmp_path_factory, one, other):
    folder = tmp_path_factory.mktemp("history")
    files = HistoryFiles(folder)
    files("1", one)
    files("final, ü", other)
    expected = [EpochRow.of("1", epoch) for epoch in one] + [EpochRow.of("final, ü", epoch) for epoch in other]
    assert read_history(folder / LINES) == expected
    with (folder / TABLE).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, record in zip(rows, expected, strict=True):
        for name, value in dataclasses.asdict(record).items():
            assert row[name] == ("" if value is None else str(value))


def test_each_epoch_is_there_once_and_parts_keep_their_places(tmp_path):
    files = HistoryFiles(tmp_path)
    for n in range(1, 4):
        files("1", EPOCHS[:n])
    files("2", EPOCHS[:1])
    files("1", EPOCHS[:2])
    assert [(row.part, row.epoch) for row in read_history(tmp_path / LINES)] == [("1", 0), ("1", 1), ("2", 0)]


def test_a_resumed_run_goes_on_and_another_begins_anew(tmp_path):
    HistoryFiles(tmp_path)("1", EPOCHS)
    HistoryFiles(tmp_path, keep=True)("2", EPOCHS[:1])
    assert [row.part for row in read_history(tmp_path / LINES)] == ["1"] * 3 + ["2"]
    HistoryFiles(tmp_path)("3", EPOCHS[:1])
    assert [row.part for row in read_history(tmp_path / LINES)] == ["3"]


@pytest.mark.parametrize("text", ["{", "[]", '{"part": "1"}'])
def test_a_line_that_is_no_row_is_named(tmp_path, text):
    HistoryFiles(tmp_path)("1", EPOCHS[:1])
    path = tmp_path / LINES
    path.write_text(path.read_text() + text + "\n")
    with pytest.raises(InputError, match="line 2"):
        HistoryFiles(tmp_path, keep=True)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(StoreWriteError, match="history"):
        HistoryFiles(tmp_path / "missing")("1", EPOCHS)


def make_task(part, tiny, manifest):
    coef = 0.01 * np.random.default_rng(0).normal(size=(C, tiny.spec.n_features))
    nothing = np.empty(0, dtype=np.int64)
    network = TunedNetwork(dataclasses.replace(tiny), coef, np.zeros(C)).eval()
    with ImageReader(manifest, tiny.spec, EngineOptions(num_workers=0)) as reader:
        expected = network(next(reader.batches([0], 1)).images).detach().double().numpy()
    return PartTask("1", part, part, nothing, coef, np.zeros(C), False, part.positions[:1], expected)


def test_an_interrupted_run_that_is_resumed_leaves_the_rows_of_an_uninterrupted_one(tmp_path, tiny, manifest, part):
    task = make_task(part, tiny, manifest)
    rows = {}
    for name in ("whole", "cut"):
        folder = tmp_path / name
        folder.mkdir()
        seen = []

        def trainer(folder=folder, seen=seen):
            record = [lambda part, epochs: seen.append((part, len(epochs)))]
            engine = EngineOptions(num_workers=0)
            return PartTrainer(tiny, manifest, RECIPE, engine, n_classes=C, folder=folder, records=record)

        def stop(progress):
            if progress.epoch == 2:
                raise KeyboardInterrupt

        if name == "cut":
            with pytest.raises(KeyboardInterrupt):
                trainer().train(task, progress=stop)
            assert [row.epoch for row in read_history(folder / LINES)] == [0, 1]
        trainer().train(task, resume=name == "cut")
        trainer().train(task, resume=True)  # nothing is left to do
        rows[name] = [dataclasses.replace(row, images_per_second=None) for row in read_history(folder / LINES)]
        assert seen[-1] == ("1", 4)
    assert rows["cut"] == rows["whole"]
    assert [row.epoch for row in rows["whole"]] == [0, 1, 2, 3]
    assert json.loads((tmp_path / "whole" / LINES).read_text().splitlines()[1])["lr"] <= RECIPE.lr


# ---- curves


def rows_of(*parts):
    return [EpochRow.of(part, epoch) for part in parts for epoch in EPOCHS]


@pytest.mark.parametrize(("suffix", "begins"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".SVG", b"<?xml")])
def test_the_suffix_says_which_picture_and_the_same_rows_give_the_same_one(tmp_path, suffix, begins):
    pytest.importorskip("matplotlib")
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        draw_curves(rows_of("1", "2", "final"), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].read_bytes().startswith(begins)


def test_the_curves_are_those_of_the_rows():
    pytest.importorskip("matplotlib")
    from featx.vision.tuning.curves import _figure

    left, right = _figure(rows_of("1", "2"), "accuracy", {"1": 1, "2": 0}).axes
    assert [line.get_label() for line in left.lines] == ["1", "2"]
    assert left.lines[0].get_xydata().tolist() == [[1, 0.7], [2, 0.5]]
    assert right.lines[0].get_xydata().tolist() == [[0, 0.5], [1, 0.625], [2, 0.75]]
    assert [right.lines[i].get_xydata().tolist() for i in (1, 3)] == [[[1, 0.625]], [[0, 0.5]]]
    assert left.get_xlim() == right.get_xlim()
    assert (right.get_ylabel(), right.get_legend() is not None) == ("accuracy", True)


def test_no_rows_are_an_empty_picture(tmp_path):
    pytest.importorskip("matplotlib")
    draw_curves([], tmp_path / "a.svg")
    assert (tmp_path / "a.svg").stat().st_size


@pytest.mark.parametrize("name", ["a.gif", "a", "missing/a.png"])
def test_a_picture_that_cannot_be_drawn_is_refused_before(tmp_path, name):
    with pytest.raises(UsageError, match=r"--curves"):
        check_curves(tmp_path / name)


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"featx\[report\]"):
        check_curves(tmp_path / "a.png")


# ---- TensorBoard


def scalars(folder, part):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / part))
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


@pytest.mark.filterwarnings("default")  # of tensorboard's own imports
def test_tensorboard_shows_each_epoch_once_after_a_resumed_run_too(tmp_path):
    pytest.importorskip("tensorboard")
    files = EventFiles(tmp_path)
    files("1", EPOCHS[:1])
    files("1", EPOCHS[:2])
    files.close()
    again = EventFiles(tmp_path)
    again("1", EPOCHS[:2])
    again("1", EPOCHS)
    again("2", EPOCHS[:1])
    again.close()
    found = scalars(tmp_path, "1")
    assert set(found) == {"loss", "validation", "lr", "distance", "images_per_second"}
    np.testing.assert_allclose(found["loss"], [(1, 0.7), (2, 0.5)], rtol=1e-6)
    assert found["validation"] == [(0, 0.5), (1, 0.625), (2, 0.75)]
    assert scalars(tmp_path, "2")["validation"] == [(0, 0.5)]


@pytest.mark.filterwarnings("default")
def test_a_place_that_cannot_be_a_folder_is_refused_before_anything_is_trained(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "file").write_text("")
    for place in ("file", "file/runs"):
        with pytest.raises(UsageError, match=r"--tensorboard .*file"):
            EventFiles(tmp_path / place)


def test_without_tensorboard_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"featx\[tensorboard\]"):
        EventFiles(tmp_path)
