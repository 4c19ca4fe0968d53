"""``featx extract``, ``info`` and ``backbones`` as a person or a program calls them."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from PIL import Image

from featx.extract import extract
from featx.spec import FeatureRequest
from featx.store.file import FeatureFile
from featx.store.trailer import row_ranges, trailer_of

TINY = ["--backbone", "squeezenet1_1", "--weights", "random", "--num-workers", "2"]


def test_summary_names_rows_rate_file_and_fingerprint(featx, photos, tmp_path):
    target = tmp_path / "photos.h5"
    outcome = featx("extract", photos, "-o", target, *TINY)
    assert outcome.code == 0
    assert "16 rows of 512 features, squeezenet1_1" in outcome.out
    assert "images/s" in outcome.out
    with FeatureFile.open(target) as file:
        assert file.fingerprint[:16] in outcome.out
        assert file.keys() == sorted(file.keys())
        assert file.labels() == ["moss"] * 8 + ["rust"] * 8


def test_json_is_one_object_and_nothing_else_on_stdout(featx, photos, tmp_path):
    report = featx("extract", photos, "-o", tmp_path / "photos.h5", *TINY, "--json").json
    assert (report["rows"], report["computed"], report["failed"], report["failures"]) == (16, 16, 0, {})


def test_dry_run_counts_by_class_group_and_split_and_writes_nothing(featx, tmp_path, write_photo):
    for split in ("train", "valid", "Test"):
        for i in range(3):
            write_photo(tmp_path / "data" / split / "moss" / f"a{i}_x.png", (1, 2, 3), i)
    outcome = featx("extract", tmp_path / "data", "--dry-run", "--group-regex", "(a.)_", "--json")
    assert outcome.json == {
        "samples": 9,
        "skipped": {},
        "class": {"moss": 9},
        "group": {"a0": 3, "a1": 3, "a2": 3},
        "split": {"test": 3, "train": 3, "val": 3},
    }
    assert "9 images" in featx("extract", tmp_path / "data", "--dry-run").out
    assert not list(tmp_path.glob("**/*.h5"))


def test_run_again_computes_only_missing_or_changed_rows(featx, photos, tmp_path, write_photo):
    target = tmp_path / "photos.h5"
    featx("extract", photos, "-o", target, *TINY)
    before = target.read_bytes()
    again = featx("extract", photos, "-o", target, *TINY, "--json").json
    assert (again["computed"], again["unchanged"]) == (0, 16)
    assert target.read_bytes() == before

    write_photo(photos / "rust" / "p4_0.png", (1, 2, 3), 999)  # changed
    write_photo(photos / "rust" / "p9_9.png", (9, 9, 9), 998)  # new
    (photos / "moss" / "p0_0.png").unlink()  # gone
    shutil.copy(photos / "moss" / "p0_1.png", photos / "moss" / "copy.png")  # identical bytes
    os.utime(photos / "moss" / "p1_2.png", (1, 1))  # touched only
    third = featx("extract", photos, "-o", target, *TINY, "--json").json
    assert (third["computed"], third["copied"], third["unchanged"], third["vanished"]) == (2, 1, 14, 1)
    with FeatureFile.open(target) as file:
        keys, features = file.keys(), file.features()
    fresh = tmp_path / "fresh.h5"
    featx("extract", photos, "-o", fresh, *TINY)
    with FeatureFile.open(fresh) as file:
        assert file.keys() == keys
        np.testing.assert_allclose(features, file.features(), atol=1e-4 * file.features().std())
    assert np.array_equal(features[keys.index("moss/copy.png")], features[keys.index("moss/p0_1.png")])


def test_labels_are_refreshed_without_computing(featx, photos, tmp_path):
    target = tmp_path / "photos.h5"
    table = tmp_path / "photos.csv"
    rows = [f"photos/{p.parent.name}/{p.name},{p.parent.name}" for p in sorted(photos.glob("*/*.png"))]
    table.write_text("path,label\n" + "\n".join(rows))
    featx("extract", table, "-o", target, *TINY)
    table.write_text("path,label,group,site\n" + "\n".join(f"{row}!,g{i % 3},s" for i, row in enumerate(rows)))
    report = featx("extract", table, "-o", target, *TINY, "--json").json
    assert (report["computed"], report["unchanged"]) == (0, 16)
    with FeatureFile.open(target) as file:
        assert set(file.labels()) == {"moss!", "rust!"}
        assert set(file.groups()) == {"g0", "g1", "g2"}
        assert file.meta() == {"site": ["s"] * 16}


def test_another_source_with_the_same_output_is_refused_without_replace(featx, photos, tmp_path, write_photo):
    target = tmp_path / "photos.h5"
    featx("extract", photos, "-o", target, *TINY)
    other = tmp_path / "other"
    write_photo(other / "a" / "1.png", (5, 5, 5), 1)
    outcome = featx("extract", other, "-o", target, *TINY)
    assert outcome.code == 5
    assert "--replace" in outcome.err
    assert featx("extract", other, "-o", target, *TINY, "--replace").code == 0


def test_a_file_of_another_spec_is_refused_naming_only_the_differing_fields(featx, photos, tmp_path):
    target = tmp_path / "photos.h5"
    featx("extract", photos, "-o", target, *TINY)
    outcome = featx("extract", photos, "-o", target, *TINY, "--pooling", "max", "--storage", "float16")
    assert outcome.code == 5
    assert "pooling" in outcome.err
    assert "storage" in outcome.err
    for same in ("backbone", "weights", "preprocess", "dtype"):
        assert same not in outcome.err.replace("squeezenet1_1", "")


def test_broken_images_are_named_and_the_run_finishes_with_8(featx, photos, tmp_path):
    (photos / "moss" / "empty.jpg").write_bytes(b"")
    (photos / "moss" / "text.jpg").write_text("these are words")
    whole = tmp_path / "whole.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(whole)
    (photos / "rust" / "cut.jpg").write_bytes(whole.read_bytes()[:700])
    target = tmp_path / "photos.h5"
    outcome = featx("extract", photos, "-o", target, *TINY, "--json")
    assert outcome.code == 8
    assert outcome.json["rows"] == 16
    assert {key: reason.split(":")[0] for key, reason in outcome.json["failures"].items()} == {
        "moss/empty.jpg": "empty",
        "moss/text.jpg": "not-an-image",
        "rust/cut.jpg": "truncated",
    }
    text = featx("extract", photos, "-o", target, *TINY)
    assert text.code == 8
    assert "moss/empty.jpg" in text.out
    assert "rust/cut.jpg" in featx("info", target, "--failures").out


def test_a_failed_row_is_tried_again_when_its_bytes_change(featx, photos, tmp_path, write_photo):
    broken = photos / "moss" / "late.png"
    broken.write_bytes(b"")
    target = tmp_path / "photos.h5"
    assert featx("extract", photos, "-o", target, *TINY).code == 8
    write_photo(broken, (60, 140, 60), 777)
    report = featx("extract", photos, "-o", target, *TINY, "--json")
    assert (report.code, report.json["computed"], report.json["rows"]) == (0, 1, 17)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--backbone", "resnet5O"], 2, "resnet50"),
        (["--weights", "DEFUALT"], 2, "DEFAULT"),
        (["--node", "classifier.9"], 2, "classifier"),
        (["--pooling", "cls"], 2, "avg"),
        (["--device", "cuda:7"], 2, "cuda"),
        (["--window", "5,1"], 2, "LO must be below HI"),
        (["--layout", "tree"], 2, "classes"),
        (["--label-column", "klass"], 4, "klass"),
        (["--group-regex", "(nothing)"], 4, "nothing"),
        (["--group-regex", "("], 2, "regex"),
        (["--weights", "missing.pth"], 7, "missing.pth"),
        (["--wieghts", "x"], 2, "--weights"),
        (["--root", "nowhere"], 4, "nowhere"),
        (["--batch-size", "0"], 2, "--batch-size"),
    ],
)
def test_a_wrong_option_gets_one_clear_message_and_its_exit_code(featx, photos, tmp_path, arguments, code, words):
    source = photos
    if {"--label-column", "--root"} & set(arguments):
        source = tmp_path / "t.csv"
        source.write_text("path,label\nphotos/moss/p0_0.png,moss\n")
    others = dict(zip(TINY[::2], TINY[1::2], strict=True)) | dict(zip(arguments[::2], arguments[1::2], strict=True))
    outcome = featx("extract", source, "-o", tmp_path / "x.h5", *(word for pair in others.items() for word in pair))
    assert outcome.code == code
    assert words in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "x.h5").exists()


@pytest.mark.parametrize("target", ["", ".", "folder/"])
def test_an_output_that_names_no_file_is_refused(featx, photos, tmp_path, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    outcome = featx("extract", photos, "-o", target, *TINY)
    assert outcome.code == 2
    assert "features.h5" in outcome.err
    assert featx("info", target).code == 5


def test_the_source_itself_is_never_overwritten_not_even_with_replace(featx, photos, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("path,label\nphotos/moss/p0_0.png,moss\n")
    before = table.read_bytes()
    assert featx("extract", table, "-o", table, *TINY, "--replace").code == 2
    assert featx("extract", table, "-o", table, *TINY).code == 2
    assert table.read_bytes() == before


def test_messages_fit_in_100_columns_and_commands_to_copy_stay_whole(featx, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text(",".join(f"a column called {i}" for i in range(12)) + "\n")
    outcome = featx("extract", table, "-o", tmp_path / "x.h5")
    assert outcome.code == 4
    assert all(len(line) < 100 or " " not in line for line in outcome.err.splitlines())
    assert "--path-column" in outcome.err


def test_an_unexpected_error_of_the_operating_system_is_a_message_too(featx, tmp_path):
    outcome = featx("info", tmp_path / ("x" * 300))
    assert outcome.code == 1
    assert "too long" in outcome.err


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (b"file,label\nphotos/moss/p0_0.png,moss\n", "--path-column"),
        (b"path\nphotos/moss/p0_0.png\nphotos/moss/p0_0.png\n", "line 3"),
        (b"path,label\nphotos/moss/p0_0.png,M\xe4rz\n", "save the table as UTF-8"),
        (b"path\n../elsewhere/1.png\n", "--root"),
        (b'path,label\n"photos/moss,moss\n', "quotation mark"),
        (b"path,split\nphotos/moss/p0_0.png,holdout\n", "holdout"),
        (b"", "empty"),
    ],
)
def test_a_table_that_cannot_be_read_is_an_input_error_with_its_line(featx, photos, tmp_path, table, words):
    path = tmp_path / "t.csv"
    path.write_bytes(table)
    outcome = featx("extract", path, "-o", tmp_path / "x.h5", *TINY)
    assert outcome.code == 4
    assert words in outcome.err
    assert "t.csv" in outcome.err
    assert not (tmp_path / "x.h5").exists()


@pytest.fixture(scope="module")
def small_file(tmp_path_factory, write_photo):
    """A folder with one picture, and its feature file."""
    folder = tmp_path_factory.mktemp("small")
    write_photo(folder / "photos" / "moss" / "1.png", (60, 140, 60), 1)
    extract(folder / "photos", folder / "x.h5", request=FeatureRequest(backbone="featx-mini"))
    return folder / "photos", folder / "x.h5"


def cut(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def make_newer(path):
    with h5py.File(path, "r+") as file:
        file.attrs["featx_format"] = 99
        file.flush()
        rows = row_ranges([file["features"]])
    with path.open("rb+") as file:
        trailer = trailer_of(file.fileno(), rows)
        file.seek(0, os.SEEK_END)
        file.write(trailer)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(cut, "--replace"), (make_newer, "newer"), (lambda path: path.write_text("a diary"), "not an HDF5 file")],
)
def test_an_output_that_cannot_be_used_is_refused_and_left_alone(featx, small_file, tmp_path, spoil, words):
    photos, good = small_file
    target = tmp_path / "x.h5"
    shutil.copy(good, target)
    spoil(target)
    before = target.read_bytes()
    for arguments in (("extract", photos, "-o", target, "--backbone", "featx-mini"), ("info", target)):
        outcome = featx(*arguments)
        assert outcome.code == 5
        assert words in " ".join(outcome.err.split())
    assert target.read_bytes() == before


def test_an_output_below_a_file_is_a_write_error(featx, photos, tmp_path):
    (tmp_path / "words.txt").write_text("x")
    outcome = featx("extract", photos, "-o", tmp_path / "words.txt" / "x.h5", *TINY)
    assert outcome.code == 5
    assert "give another -o FILE" in outcome.err


def test_a_full_disk_is_a_message_and_the_same_command_goes_on_when_there_is_room(featx, photos, tmp_path):
    target = tmp_path / "photos.h5"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        outcome = featx("extract", photos, "-o", target, *TINY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert outcome.code == 5
    assert "File too large" in outcome.err
    assert "same command again" in outcome.err
    assert not target.exists()
    assert featx("extract", photos, "-o", target, *TINY, "--json").json["rows"] == 16


def test_an_unknown_command_lists_close_matches(featx):
    outcome = featx("extrcat", "x")
    assert outcome.code == 2
    assert "extract" in outcome.err


def test_an_empty_folder_is_an_input_error(featx, tmp_path):
    (tmp_path / "nothing").mkdir()
    assert featx("extract", tmp_path / "nothing", "-o", tmp_path / "x.h5").code == 4
    assert featx("extract", tmp_path / "nowhere", "-o", tmp_path / "x.h5").code == 4


def test_info_shows_spec_counts_and_completeness(featx, photos, tmp_path):
    target = tmp_path / "photos.h5"
    featx("extract", photos, "-o", target, *TINY, "--group-regex", "(p\\d)_")
    text = featx("info", target).out
    for words in ("16 rows", "complete", "squeezenet1_1", "moss", "rust", "by group (regex", "preprocess", "random:0"):
        assert words in text
    facts = featx("info", target, "--json").json
    assert facts["counts"]["class"] == {"moss": 8, "rust": 8}
    assert facts["complete"] is True
    assert facts["bytes"] == target.stat().st_size


def test_info_shows_each_field_of_the_spec_in_a_line_that_fits(featx, photos, tmp_path):
    target = tmp_path / "photos.h5"
    featx("extract", photos, "-o", target, *TINY)
    lines = featx("info", target).out.replace(str(target), "").splitlines()
    assert max(map(len, lines)) < 100
    assert any("preprocess.crop" in line and "[224, 224]" in line for line in lines)
    assert featx("info", target, "--failures").out.strip() == "no failed images"


def test_a_name_with_a_line_break_stays_in_one_line(featx, photos, tmp_path):
    (photos / "moss" / "two\nlines.png").write_bytes(b"")
    target = tmp_path / "photos.h5"
    assert r"moss/two\nlines.png  (empty)" in featx("extract", photos, "-o", target, *TINY).out
    assert r"moss/two\nlines.png  (empty)" in featx("info", target, "--failures").out


def test_the_note_about_featx_mini_is_left_out_when_quiet(featx, photos, tmp_path):
    arguments = ["extract", photos, "-o", tmp_path / "x.h5", "--backbone", "featx-mini"]
    assert "resnet50" in featx(*arguments).err
    assert featx(*arguments, "--quiet").err == ""


@pytest.mark.parametrize("content", [b"", b"not hdf5 at all", None])
def test_info_of_a_file_that_is_no_feature_file_is_a_store_error(featx, tmp_path, content):
    target = tmp_path / "x.h5"
    if content is not None:
        target.write_bytes(content)
    outcome = featx("info", target)
    assert outcome.code == 5
    assert "Traceback" not in outcome.err


def test_backbones_lists_what_is_on_this_machine_and_the_nodes_of_one(featx):
    listed = featx("backbones", "squeezenet", "--json").json["backbones"]
    assert [b["name"] for b in listed] == ["squeezenet1_0", "squeezenet1_1"]
    assert listed[1]["n_features"] == 512
    nodes = featx("backbones", "squeezenet1_1", "--nodes", "--json").json["nodes"]
    assert any(node["name"] == "features.12" for node in nodes)
    shown = [line.split() for line in featx("backbones", "alexnet", "--nodes").out.splitlines()]
    assert ["classifier.2", "4096", "none", "fc6"] in shown
    assert ["classifier.6:input", "4096", "none", "default"] in shown
    assert ["features", "256", "x", "6", "x", "6", "avg,", "max,", "none"] in shown
    assert "squeezenet1_1" in featx("backbones", "squeeze").out


def start(*arguments, cwd):
    return subprocess.Popen(
        [sys.executable, "-m", "featx", *map(str, arguments)],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
    )  # fmt: skip


SLOW_NETWORK = """
import time
from torch import nn


class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 8, stride=8), nn.Linear(4, 2)

    def forward(self, x):
        time.sleep(0.02)
        with open("forwards", "ab") as file:
            file.write(b".")
        return self.head(self.body(x).mean((2, 3)))


def network():
    return Slow()
"""


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_an_interrupted_run_says_what_is_kept_and_the_command_that_resumes(
    tmp_path, featx, monkeypatch, signum, code, write_photo
):
    (tmp_path / "slow_network.py").write_text(SLOW_NETWORK)
    for i in range(100):
        write_photo(tmp_path / "many" / "moss" / f"{i:03d}.png", (60, 140, 60), i)
    arguments = ["extract", "many", "-o", "many.h5", "--backbone", "slow_network:network", "--batch-size", "1"]
    process = start(*arguments, cwd=tmp_path)
    deadline = time.monotonic() + 60
    forwards = tmp_path / "forwards"
    while not (forwards.exists() and forwards.stat().st_size > 20) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signum)  # as a terminal does: the processes that decode get it too
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "run the same command again" in err
    assert "featx extract many -o many.h5" in err
    monkeypatch.chdir(tmp_path)
    assert "not complete" in featx("info", "many.h5", "--failures").out
    kept = featx("info", "many.h5", "--json").json["pending"]["done"]
    assert 0 < kept < 100
    assert f"{kept} of 100 images are kept" in err
    report = featx(*arguments, "--json").json
    assert (report["rows"], report["computed"]) == (100, 100 - kept)


def test_a_locked_file_is_refused_with_the_writer_named(featx, photos, tmp_path):
    target = tmp_path / "photos.h5"
    script = (
        "import sys, time; from pathlib import Path; from featx.store.parts import Parts\n"
        "parts = Parts.take(Path(sys.argv[1])); print('locked', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, str(target)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline().strip() == "locked"
        outcome = featx("extract", photos, "-o", target, *TINY)
        assert outcome.code == 5
        assert str(holder.pid) in outcome.err
    finally:
        holder.kill()
        holder.communicate()


def test_errors_are_json_too_when_asked_for(featx, tmp_path):
    outcome = featx("extract", tmp_path / "nowhere", "-o", tmp_path / "x.h5", "--json")
    assert json.loads(outcome.out)["error"]["exit_code"] == outcome.code == 4
