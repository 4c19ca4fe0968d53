"""``featx audit`` as a person or a program calls it."""

import csv

import numpy as np
import pytest
from PIL import Image

QUICK = ["--C-grid", "1e-3:1:2", "--cv", "3", "--inner-cv", "2", "--repeats", "1", "--n-jobs", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty-eight pictures of two classes from two scanners; one takes mostly moss, and its pictures are brighter."""
    folder = tmp_path_factory.mktemp("audit")
    rng = np.random.default_rng(0)
    rows = ["path,label,patient,scanner,day,image"]
    for i in range(48):
        label, scanner = ["moss", "rust"][i % 2], ["old", "new"][(i % 2) ^ (i % 12 < 2)]
        colour = np.array((60, 140, 60) if label == "moss" else (160, 80, 50)) + (60 if scanner == "new" else 0)
        pixels = np.clip(rng.normal(colour, 30, (48, 64, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.jpg", quality=80)
        wrong = "rust" if i == 20 else label  # one label is wrong
        rows.append(f"{i:02}.jpg,{wrong},p{i // 4 * 2 + i % 2},{scanner},2021-{i % 12 + 1:02}-{i % 27 + 1:02},x{i}")
    (folder / "table.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture
def file(featx, folder):
    path = folder / "x.h5"
    if not path.exists():
        outcome = featx(
            "extract", folder / "table.csv", "-o", path, "--group-column", "patient", "--backbone", "featx-mini"
        )
        assert outcome.code == 0, outcome.err
    return path


def test_it_prints_shortcuts_sites_and_labels_in_doubt(featx, file, tmp_path):
    outcome = featx("audit", file, *QUICK, "--site", "scanner", "--csv", tmp_path / "out.csv")
    assert outcome.code == 0, outcome.err
    text = " ".join(outcome.out.split())
    for words in (
        "of whole groups (column patient), on 48 samples of 2 classes",
        "column values told 95 % interval chance by label V p",
        "scanner 2",
        "in quarters:",
        "stand-in for JPEG quality",
        "not tested: image (a value of its own for every sample, as an ID has)",
        "image format (constant: JPEG)",
        "leave one site out",
        "left out minus ordinary",
        "not of new sites",
        "estimated label errors:",
        "1 20.jpg rust moss",
        "saved:",
    ):
        assert words in text, (words, text)
    assert max(map(len, outcome.out.splitlines())) <= 100
    with open(tmp_path / "out.csv", newline="") as lines:
        first, *others = csv.DictReader(lines)
    assert (first["rank"], first["key"], first["suggested"], first["contradicts"]) == ("1", "20.jpg", "moss", "yes")
    assert len(others) == 47


def test_json_is_one_object_and_nothing_else(featx, file):
    outcome = featx("audit", file, *QUICK, "--json", "--quiet", "--top", "3")
    assert outcome.err == ""
    report = outcome.json
    assert report["labels"]["issues"][0]["key"] == "20.jpg"
    assert {one["name"] for one in report["shortcuts"]} >= {"scanner", "day"}
    assert report["groups"] == {"n": 24, "source": "column patient"}
    assert report["verdict"]


def test_a_plain_folder_has_files_facts_and_labels_to_audit(featx, photos, tmp_path):
    assert featx("extract", photos, "-o", tmp_path / "x.h5", "--backbone", "featx-mini").code == 0
    outcome = featx("audit", tmp_path / "x.h5", *QUICK)
    assert outcome.code == 0, outcome.err
    assert "No groups were given" in outcome.err
    assert "No column looks like a site" in outcome.out
    assert "bytes per pixel" in outcome.out
    outcome = featx("audit", tmp_path / "x.h5", *QUICK, "--site", "hospital")
    assert outcome.code == 2
    assert "no further columns" in outcome.err
    assert "known:" not in outcome.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--site", "scaner"], 2, "did you mean scanner"),
        (["--column", "scaner"], 2, "did you mean scanner"),
        (["--rank-by", "entropy"], 2, "self_confidence"),
        (["--csv", "out.txt"], 2, ".csv"),
        (["--cv", "1"], 2, "--cv"),
        (["--cv", "40"], 4, "--cv"),
    ],
)
def test_a_wrong_option_gets_one_clear_message_and_its_exit_code(featx, file, arguments, code, words):
    outcome = featx("audit", file, *arguments)
    assert outcome.code == code, outcome.err
    assert words in " ".join(outcome.err.split())
    assert "Traceback" not in outcome.err
