"""What ``featx fit`` says of leaks on a terminal and in JSON."""

import pytest
from PIL import Image

TINY = ["--backbone", "squeezenet1_1", "--weights", "random"]
QUICK = ["--scaling", "raw", "--C-grid", "1e-3:1e1:3", "--cv", "2", "--inner-cv", "2", "--n-jobs", "1"]


@pytest.fixture
def features(featx, photos, tmp_path):
    """Sixteen pictures of eight patients; one is there again as a file of other bytes, without a patient."""
    with Image.open(photos / "moss" / "p0_0.png") as image:
        image.save(photos / "moss" / "again.bmp")
    target = tmp_path / "photos.h5"
    assert featx("extract", photos, "-o", target, *TINY, "--group-regex", r"(p\d)_").code == 0
    return target


def test_the_report_names_the_copy_its_threshold_and_the_leak_gap(featx, features, tmp_path):
    outcome = featx("fit", features, *QUICK)
    assert outcome.code == 0, outcome.err
    said = " ".join(outcome.err.split())
    assert "1 pair of near-duplicates with no group in common" in said
    assert "moss/again.bmp ~ moss/p0_0.png" in said
    assert "--group-near-duplicates keeps them together" in said
    shown = " ".join(outcome.out.split())
    assert "near-duplicates in the features: 1 pair near: cosine distance of centred features of at most" in shown
    assert "if all groups were ignored" in shown
    assert [line for line in (outcome.out + outcome.err).splitlines() if len(line) > 100] == []


def test_json_has_the_gap_as_a_number_and_the_rest_beside_it(featx, features):
    report = featx("fit", features, *QUICK, "--json").json
    details = report["leaks"]["leak_gap"]
    assert report["leak_gap"] == details["ungrouped"] - details["grouped"]
    near = report["leaks"]["near_duplicates"]
    assert [pair["keys"] for pair in near["pairs"]] == [["moss/again.bmp", "moss/p0_0.png"]]
    assert (near["n_pairs"], near["n_in_different_groups"]) == (1, 1)
    assert near["thresholds"][0]["ratio"] > 0
    assert report["leaks"]["nearest_neighbour"]["head"] == "logreg"


def test_the_copy_joins_its_patient_when_asked(featx, features):
    report = featx("fit", features, *QUICK, "--group-near-duplicates", "--no-leak-gap", "--json").json
    assert report["groups"] == {"n": 8, "source": r"regex (p\d)_, joined by near-duplicates"}
    assert report["leaks"]["near_duplicates"]["n_in_different_groups"] == 0
    assert report["leak_gap"] is None
    assert report["leaks"]["no_leak_gap"] == "left out as asked for"


def test_a_threshold_that_joins_everything_is_refused_with_exit_code_4(featx, features):
    outcome = featx("fit", features, *QUICK, "--group-near-duplicates", "--near-duplicate-distance", "2")
    assert outcome.code == 4
    assert "would join 17 of 17 samples" in " ".join(outcome.err.split())
    assert featx("fit", features, "--near-duplicate-distance", "3").code == 2
