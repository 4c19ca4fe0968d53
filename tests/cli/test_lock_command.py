"""``featx lock`` as a person or a program calls it."""

import re

import pytest

TINY = ["--backbone", "squeezenet1_1", "--weights", "random"]
QUICK = ["--scaling", "raw", "--C-grid", "1e-3:1e1:3", "--cv", "2", "--inner-cv", "2", "--n-jobs", "1"]


@pytest.fixture
def features(featx, photos, tmp_path):
    target = tmp_path / "photos.h5"
    assert featx("extract", photos, "-o", target, *TINY, "--group-regex", r"(p\d_\d)").code == 0
    return target


@pytest.fixture
def locked(featx, features):
    assert featx("lock", features, "--fraction", "0.25").code == 0
    return features


def narrow(text, folder):
    return [line for line in text.splitlines() if len(line) > 100 and str(folder) not in line] == []


def test_lock_says_what_is_locked_and_what_to_do_next(featx, features, tmp_path):
    outcome = featx("lock", features, "--fraction", "0.25")
    assert outcome.code == 0, outcome.err
    for words in ("locked 4 samples of 16", "moss", "0.250", "Wilson (4 groups", f"featx lock {features} --open"):
        assert words in " ".join(outcome.out.split())
    assert narrow(outcome.out, tmp_path)
    again = featx("lock", features)
    assert again.code == 2
    assert "has been locked on" in " ".join(again.err.split())


def test_lock_json_holds_the_account(featx, features):
    report = featx("lock", features, "--json").json
    assert report["classes"] == {"moss": {"locked": 2, "open": 6}, "rust": {"locked": 2, "open": 6}}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", report["date"])
    assert (report["n_locked"], report["n_groups"]) == (4, 4)


def test_fit_lock_open_and_info_tell_one_story(featx, locked, tmp_path):
    bundle = tmp_path / "photos.featx"
    outcome = featx("fit", locked, "-o", bundle, *QUICK)
    assert outcome.code == 0, outcome.err
    assert "4 samples took no part, locked on" in outcome.out
    outcome = featx("lock", locked, "--open", bundle)
    assert outcome.code == 0, outcome.err
    assert "This is look no. 1 at the locked part" in outcome.out
    assert "photos.featx on 4 locked samples, groups: regex" in outcome.out
    assert narrow(outcome.out, tmp_path)
    second = featx("lock", locked, "--open", bundle, "--json").json
    assert (second["look"], len(second["earlier"]), second["n_samples"]) == (2, 1, 4)
    assert second["scores"]["balanced_accuracy"]["mean"] == second["earlier"][0]["scores"]["balanced_accuracy"]
    assert any("same classifier" in warning for warning in second["warnings"])
    shown = featx("info", locked).out
    assert "looked at 2 times" in shown
    assert shown.count("photos.featx") == 2
    assert narrow(shown, tmp_path)
    facts = featx("info", locked, "--json").json["locked"]
    assert (facts["n"], len(facts["looks"])) == (4, 2)
    assert featx("fit", locked, *QUICK, "--json").json["locked"]["looks"] == [one["date"] for one in facts["looks"]]
    assert "locked_away" not in featx("info", bundle, "--json").json
    assert "has been looked at (2 times" in " ".join(featx("fit", locked, *QUICK).err.split())


def test_a_new_image_of_a_locked_patient_is_locked_and_extract_says_how_many_are(featx, locked, photos, write_photo):
    before = featx("info", locked, "--json").json["locked"]
    for i in range(8):
        write_photo(photos / "moss" / f"p{i // 2}_{i} again.png", (60, 140, 60), 500 + i)
        write_photo(photos / "rust" / f"p{4 + i // 2}_{i} again.png", (160, 80, 50), 600 + i)
    outcome = featx("extract", photos, "-o", locked, *TINY, "--group-regex", r"(p\d_\d)")
    assert outcome.code == 0
    assert "locked for the last test 8" in outcome.out
    after = featx("info", locked, "--json").json
    assert (before["n"], after["locked"]["n"], after["samples"]) == (4, 8, 32)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--fraction", "1.5"], 2, "--fraction"),
        (["--like", "nowhere.h5"], 5, "no such feature file"),
        (["--open", "nowhere.featx"], 6, "cannot be read"),
        (["--open", "nowhere.featx", "--fraction", "0.2"], 2, "no meaning beside --open"),
        (["--split", "test"], 2, "--split"),
    ],
)
def test_what_does_not_go_ends_with_a_message_and_leaves_the_file_alone(featx, features, arguments, code, words):
    before = features.read_bytes()
    outcome = featx("lock", features, *arguments)
    assert outcome.code == code, outcome.err
    assert words in " ".join(outcome.err.split())
    assert features.read_bytes() == before


def test_a_missing_file_is_a_store_error(featx, tmp_path):
    assert featx("lock", tmp_path / "nowhere.h5").code == 5
