"""Views from the command line: extract them, fit on them, call new images by their mean."""

import csv

import pytest

from featx.cli import options
from featx.vision.views import KINDS, plan_views

TINY = ["--backbone", "squeezenet1_1", "--weights", "random", "--num-workers", "2"]
QUICK = ["--scaling", "raw", "--C-grid", "1e-3:1e1:3", "--cv", "3", "--inner-cv", "2", "--n-jobs", "1"]


def test_views_go_all_the_way_from_images_to_predictions(featx, photos, tmp_path):
    target, bundle, oof = tmp_path / "v.h5", tmp_path / "v.featx", tmp_path / "oof.csv"
    report = featx("extract", photos, "-o", target, *TINY, "--views", "2", "--view-kinds", "flip", "--json").json
    assert (report["samples"], report["computed"], report["rows"]) == (16, 16, 32)
    assert featx("info", target, "--json").json["spec"]["views"] == ["plain", "hflip"]
    fitted = featx("fit", target, "-o", bundle, *QUICK, "--score-views", "average", "--oof", oof, "--json").json
    assert fitted["views"] == {"train": "all", "score": "average"}
    assert (fitted["n_samples"], fitted["n_fitted"]) == (16, 16)
    assert [one["support"] for one in fitted["per_class"]] == [8, 8]
    with oof.open(newline="") as file:
        assert len({row["key"] for row in csv.DictReader(file)}) == 16
    by_image, by_file = (featx("predict", bundle, source, "--json").json for source in (photos, target))
    assert by_image["n_samples"] == by_file["n_samples"] == 16
    for one, other in zip(by_image["predictions"], by_file["predictions"], strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
    plain = featx("fit", target, *QUICK)
    assert "a sample is called by its plain image" in " ".join(plain.out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--views", "65"], "--views 65: 1 to 64 are possible"),
        (["--views", "0"], "--views"),
        (["--views", "3", "--view-kinds", "flip"], "--view-kinds flip gives 2 different views"),
        (["--views", "2", "--view-kinds", "flip,blur"], "'blur' is none of flip, crop, rotate, colour, turn"),
        (["--view-seed", "-1"], "--view-seed"),
    ],
)
def test_views_that_cannot_be_are_named_with_what_the_option_takes(featx, photos, tmp_path, arguments, message):
    outcome = featx("extract", photos, "-o", tmp_path / "v.h5", *TINY, *arguments)
    assert outcome.code == 2
    assert message in " ".join(outcome.err.split())


def test_views_of_a_file_that_has_none_are_refused(featx, photos, tmp_path):
    featx("extract", photos, "-o", tmp_path / "p.h5", *TINY)
    for asked in (["--views", "train"], ["--score-views", "average"]):
        outcome = featx("fit", tmp_path / "p.h5", *QUICK, *asked)
        assert outcome.code == 2
        assert "the file has one row for each image" in " ".join(outcome.err.split())


def test_the_option_knows_every_kind():
    (kinds,) = (p.type for p in options.view_options(lambda: None).__click_params__ if p.name == "view_kinds")
    assert set(kinds.words) == set(KINDS)
    assert plan_views(2, kinds=kinds.convert("turn, crop", None, None)) == plan_views(2, kinds=("crop", "turn"))
