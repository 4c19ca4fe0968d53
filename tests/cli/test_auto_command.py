"""``featx fit SOURCE --auto``: its options, what it prints, and what it refuses."""

import pytest

from featx.cli import race_report
from featx.learn.intervals import Interval
from featx.learn.paired import Comparison
from featx.learn.race_account import RaceLine
from featx.learn.racing import Standing

AUTO = ("--auto", "--auto-backbone", "featx-mini", "--n-jobs", 1)
LEAN = ("--cv", 2, "--inner-cv", 2, "--C-grid", "1:1:1", "--scaling", "raw", "--no-leak-gap", "--no-novelty",
    "--calibration", "none", "--conformal", "off", "-q")  # fmt: skip


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_it_makes_features_fits_and_explains(featx, photos):
    arguments = ("fit", photos, *AUTO, *LEAN, "-o", "photos.featx", "--group-regex", r"(p\d+)_")
    ran = featx(*arguments)
    assert ran.code == 0, ran.err
    assert "One backbone, featx-mini: there was nothing to race." in ran.out.replace("\n", " ")
    assert "no rungs: every backbone went through all images" in ran.out
    assert "comparing all on everything takes 16, so 0 were saved" in ran.out.replace("\n  ", " ")
    assert max(map(len, ran.out.splitlines())) <= 100
    again = featx(*arguments, "--json").json
    assert again["groups"] == {"n": 8, "source": r"regex (p\d+)_"}
    assert again["race"]["backbones"][0]["n_computed"] == 0
    assert again["race"]["roster"] == {name: ["featx-mini"] for name in ("1", "2", "final")}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("photos", "--auto", "--auto-backbone", "featx-mimi"), 2, "did you mean"),
        (("photos", *AUTO, "--auto-weights", "featx-mini"), 2, "expected NAME=WEIGHTS"),
        (("photos", *AUTO, "--auto-weights", "resnet18=x.pth"), 2, "which does not race"),
        (("photos", *AUTO, "--auto-weights", "featx-mini=x.pth"), 7, "x.pth"),
        (("photos", *AUTO, "--cv", "9"), 4, "too few samples"),
        (("photos", *AUTO, "--group-near-duplicates"), 2, "cannot group them"),
        (("photos", "photos", *AUTO), 2, "one SOURCE"),
        (("photos.h5", *AUTO), 2, "leave out --auto"),
        (("nothing-here", *AUTO), 4, "no such file or folder"),
        (("photos",), 2, "--auto"),
        (("a.h5", "--auto-backbone", "featx-mini"), 2, "needs --auto"),
        (("a.h5", "--group-regex", "(x)"), 2, "--group-regex says how images are read"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_made(featx, photos, tmp_path, arguments, code, message):
    ran = featx("fit", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err.replace("\n", " ")
    assert "Traceback" not in ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


def test_help_shows_what_is_new_and_not_every_option_of_extract(featx):
    shown = featx("fit", "--help").out
    assert "featx fit photos/ --auto -o photos.featx" in shown
    assert "--auto-backbone NAME" in shown
    assert "--label-column" not in shown


@pytest.mark.parametrize("race", ["final", "1.5"])
@pytest.mark.parametrize("p_value", [0.0001, 0.00012, 0.34])
@pytest.mark.parametrize("dropped", [True, False])
@pytest.mark.parametrize("backbone", ["mobilenet_v2", "timm:vit_small_patch14_dinov2.lvd142m"])
def test_what_became_of_a_backbone_fits_into_a_line(capsys, race, p_value, dropped, backbone):
    score = Interval(0.9, 0.8, 0.95, [], "")
    beside = Comparison(backbone, "featx-mini", "accuracy", (0.9, 0.8), 0.1, p_value, 300, "samples")
    standing = Standing("featx-mini" if race == "final" else backbone, score, beside, dropped)
    standings = (Standing(backbone, score, None, dropped=False), standing)
    race_report.print_rungs([RaceLine(3, 1200, one, race, 6, 6) for one in standings])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    what = lines[2].split("6 of 6")[1]
    assert ("dropped" in what) == dropped
    assert f"p = {p_value:.2g}" in what
    assert ("fold 1.5" in what) == (race == "1.5")
