"""``featx extract`` with several outputs in one pass, and its options of the engine."""

import os

import h5py
import numpy as np
import pytest

from featx.store.file import FeatureFile

TINY = ["--backbone", "squeezenet1_1", "--weights", "random", "--num-workers", "2"]

NETWORK = """
import os
from torch import nn


class Small(nn.Module):
    def __init__(self, room):
        super().__init__()
        self.room = room
        self.body, self.head = nn.Conv2d(3, 4, 8, stride=8), nn.Linear(4, 2)

    def forward(self, x):
        if len(x) > self.room:
            raise MemoryError
        if os.path.exists("stop") and os.path.getsize("forwards") > 2:
            raise KeyboardInterrupt
        with open("forwards", "ab") as file:
            file.write(b".")
        return self.head(self.body(x).mean((2, 3)))


def wide():
    return Small(100)


def narrow():
    return Small(3)
"""


def contents(path):
    """Everything in a feature file: datasets and attributes."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
        found |= {f"attribute {name}": value for name, value in file.attrs.items()}
    return found


def assert_same_file(path, other):
    mine, its = contents(path), contents(other)
    assert mine.keys() == its.keys()
    for name in mine:
        assert np.array_equal(mine[name], its[name]), name


def test_several_backbones_and_nodes_in_one_pass_give_the_files_of_single_runs(featx, photos, tmp_path):
    (photos / "moss" / "words.png").write_text("no image")
    many = tmp_path / "many"
    both = ["--backbone", "squeezenet1_1", "--backbone", "featx-mini", "--weights", "random:3", "--num-workers", "2"]
    outcome = featx("extract", photos, "-o", f"{many}/", *both, "--json", "--batch-size", "5", "--views", "2")
    assert outcome.code == 8
    files = outcome.json["files"]
    assert [file["path"] for file in files] == [f"{many}/photos-{name}.h5" for name in ("squeezenet1_1", "featx-mini")]
    assert [(file["rows"], file["computed"], file["failed"]) for file in files] == [(32, 16, 1)] * 2
    for name in ("squeezenet1_1", "featx-mini"):
        alone = tmp_path / f"{name}.h5"
        one = ["--backbone", name, "--weights", "random:3", "--batch-size", "5", "--views", "2"]
        assert featx("extract", photos, "-o", alone, *one).code == 8
        assert_same_file(many / f"photos-{name}.h5", alone)


def test_several_nodes_of_one_network_need_one_forward_pass(featx, photos, tmp_path, monkeypatch):
    (tmp_path / "own_network.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    arguments = ["--backbone", "own_network:wide", "--batch-size", "4", "--num-workers", "2"]
    nodes = ["--node", "body", "--node", "head:input"]
    outcome = featx("extract", photos, "-o", "x-{node}.h5", *arguments, *nodes)
    assert outcome.code == 0
    assert (tmp_path / "forwards").stat().st_size == 1 + 4, "one to find the nodes, one for each batch"
    assert [line.split(":")[0] for line in outcome.out.splitlines() if " rows of " in line] == [
        "x-body.h5",
        "x-head-input.h5",
    ]
    for node in ("body", "head:input"):
        alone = f"alone-{node.replace(':', '-')}.h5"
        assert featx("extract", photos, "-o", alone, *arguments, "--node", node).code == 0
        assert_same_file(alone.replace("alone", "x"), alone)


def test_ctrl_c_tells_what_is_kept_for_each_file_and_the_same_command_goes_on(featx, photos, tmp_path, monkeypatch):
    (tmp_path / "own_network.py").write_text(NETWORK)
    (tmp_path / "stop").touch()
    (tmp_path / "forwards").touch()
    monkeypatch.chdir(tmp_path)
    pair = ["--backbone", "own_network:wide", "--backbone", "featx-mini", "--weights", "random", "--batch-size", "4"]
    outcome = featx("extract", photos, "-o", "{backbone}.h5", *pair)
    assert outcome.code == 130
    words = " ".join(outcome.err.split())
    kept = {name: int(words.split(f" of 16 images are kept in {name}.h5.parts")[0].split()[-1])
            for name in ("own_network-wide", "featx-mini")}  # fmt: skip
    assert all(0 < n < 16 for n in kept.values())
    assert "featx extract" in outcome.err
    (tmp_path / "stop").unlink()
    files = featx("extract", photos, "-o", "{backbone}.h5", *pair, "--json").json["files"]
    assert [file["computed"] for file in files] == [16 - n for n in kept.values()]
    for file, name in zip(files, ("own_network:wide", "featx-mini"), strict=True):
        featx("extract", photos, "-o", "alone.h5", "--backbone", name, *pair[4:], "--replace")
        assert_same_file(file["path"], "alone.h5")


def test_files_that_are_complete_in_part_get_their_own_missing_rows_only(featx, photos, tmp_path, write_photo):
    pair = ["--backbone", "squeezenet1_1", "--backbone", "featx-mini", "--weights", "random", "--num-workers", "2"]
    target = str(tmp_path / "{backbone}.h5")
    featx("extract", photos, "-o", tmp_path / "squeezenet1_1.h5", *TINY)
    files = featx("extract", photos, "-o", target, *pair, "--json").json["files"]
    assert [(file["computed"], file["unchanged"]) for file in files] == [(0, 16), (16, 0)]
    write_photo(photos / "rust" / "p9_9.png", (9, 9, 9), 998)
    featx("extract", photos, "-o", tmp_path / "featx-mini.h5", "--backbone", "featx-mini", "--weights", "random")
    before = (tmp_path / "featx-mini.h5").read_bytes()
    files = featx("extract", photos, "-o", target, *pair, "--json").json["files"]
    assert [(file["computed"], file["unchanged"]) for file in files] == [(1, 16), (0, 17)]
    assert (tmp_path / "featx-mini.h5").read_bytes() == before
    files = featx("extract", photos, "-o", target, *pair, "--json").json["files"]
    assert [file["computed"] for file in files] == [0, 0]


def test_weights_go_with_backbones_in_their_order(featx, photos, tmp_path):
    arguments = ["--backbone", "featx-mini", "--weights", "random:1", "--weights", "random:2"]
    files = featx("extract", photos, "-o", tmp_path / "{weights}.h5", *arguments, "--json").json["files"]
    assert [os.path.basename(file["path"]) for file in files] == ["random-1.h5", "random-2.h5"]
    assert files[0]["fingerprint"] != files[1]["fingerprint"]


TWO = ["--backbone", "squeezenet1_1", "--backbone", "featx-mini", "--weights", "random"]


@pytest.mark.parametrize(
    ("target", "arguments", "words"),
    [
        ("x.h5", TWO, "x-{backbone}.h5"),
        ("x-{node}.h5", TWO, "'x-default.h5' to more than one of 2 feature files"),
        ("x.h5", [*TWO, "--weights", "random", "--weights", "random"], "--weights is there 3 times"),
        ("x-{backbone}.h5", [*TINY, "--backbone", "squeezenet1_1"], "asked for twice"),
        ("x.h5", [*TINY, "--batch-size", "many"], "'many' is neither a number from 1 on nor auto"),
        ("x.h5", [*TINY, "--time-limit", "0"], "--time-limit"),
        ("x.h5", [*TINY, "--num-workers", "-1"], "--num-workers"),
        ("x.h5", [*TINY, "--engine", "dask"], "--engine"),
        ("x.h5", [*TINY, "--runtime", "tensorrt"], "unknown runtime 'tensorrt'"),
        ("x.h5", [*TINY, "--ray-address", "auto"], "without --engine ray"),
        ("x.h5", [*TINY, "--preprocess", "gpu"], "--preprocess"),
        ("x.h5", [*TINY, "--device", "cpu", "--decoder", "nvjpeg"], "needs an NVIDIA GPU"),
    ],
)
def test_options_of_the_engine_and_of_several_files_that_do_not_fit_say_so(
    featx, photos, tmp_path, monkeypatch, target, arguments, words
):
    monkeypatch.chdir(tmp_path)
    outcome = featx("extract", photos, "-o", target, *arguments)
    assert outcome.code == 2
    assert words in outcome.err
    assert not list(tmp_path.glob("*.h5*"))


def test_the_batch_size_may_be_left_to_the_machine_and_a_resumed_run_keeps_it(featx, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("featx.vision.batch_size.fastest_batch_size", lambda embedder: 6)
    target = tmp_path / "x.h5"
    assert featx("extract", photos, "-o", target, *TINY, "--batch-size", "auto", "--time-limit", "30").code == 0
    with FeatureFile.open(target) as file:
        made_with = file.made_with
    assert (made_with["batch_size"], made_with["engine"], made_with["device"]) == (6, "local", "cpu")
    assert made_with["runtime"]


def test_where_images_are_resized_does_not_show_in_the_features(featx, photos, tmp_path):
    rows = []
    for place in ("cpu", "device"):
        outcome = featx("extract", photos, "-o", tmp_path / f"{place}.h5", *TINY, "--preprocess", place)
        assert outcome.code == 0
        assert "on cpu (float32)" in outcome.out
        with FeatureFile.open(tmp_path / f"{place}.h5") as file:
            rows.append(file.features())
            assert file.made_with["numerics"] == "float32"
    assert np.array_equal(rows[0], rows[1])


def test_memory_that_does_not_suffice_is_told_and_the_run_goes_on(featx, photos, tmp_path, monkeypatch):
    (tmp_path / "own_network.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    outcome = featx("extract", photos, "-o", "x.h5", "--backbone", "own_network:narrow", "--batch-size", "8", "--json")
    assert (outcome.code, outcome.json["rows"]) == (0, 16)
    assert outcome.err.count("too little memory") == 2
    assert "from here on 2 in one forward pass" in " ".join(outcome.err.split())


def test_an_image_that_takes_too_long_is_a_failed_row_and_tried_again_by_the_next_run(featx, photos, tmp_path):
    target = tmp_path / "x.h5"
    # no machine decodes an image in a microsecond
    outcome = featx("extract", photos, "-o", target, *TINY, "--time-limit", "0.000001", "--limit", "2", "--json")
    assert outcome.code == 8
    assert set(outcome.json["failures"].values()) == {"timeout: 1e-06 s"}
    again = featx("extract", photos, "-o", target, *TINY, "--limit", "2", "--json")
    assert (again.code, again.json["computed"]) == (0, 2)
