"""``featx fit --task regression`` and what follows, as a person or a program calls it."""

import csv

import numpy as np
import pytest
from PIL import Image

QUICK = ["--task", "regression", "--scaling", "raw", "--cv", "3", "--inner-cv", "2", "--n-jobs", "1"]


@pytest.fixture
def greys(tmp_path):
    """A table of 36 noisy grey pictures, three of each series; the label is how bright they are."""
    rng = np.random.default_rng(0)
    lines = ["path,label,group"]
    for i in range(36):
        level = 20 + 6 * i
        pixels = np.clip(level + rng.normal(0, 20, (40, 40)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{level},series {i // 3}")
    (tmp_path / "greys.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "greys.csv"


@pytest.fixture
def features(featx, greys, tmp_path):
    assert featx("extract", greys, "-o", tmp_path / "greys.h5", "--backbone", "featx-mini").code == 0
    return tmp_path / "greys.h5"


@pytest.fixture
def bundle(featx, features, tmp_path):
    assert featx("fit", features, *QUICK, "-o", tmp_path / "greys.featx").code == 0
    return tmp_path / "greys.featx"


def narrow(text, folder):
    return [line for line in text.splitlines() if len(line) > 100 and str(folder) not in line] == []


def test_the_report_fits_and_says_scores_guess_and_what_the_choice_is_worth(featx, features, tmp_path):
    oof = tmp_path / "oof.csv"
    heads = ["--head", "ridge", "--head", "knn"]
    outcome = featx("fit", features, *QUICK, *heads, "-o", tmp_path / "a.featx", "--oof", oof)
    assert outcome.code == 0, outcome.err
    text = " ".join(outcome.out.split())
    for words in (
        "score value 95 % interval guessing by fold",
        "(12 groups in 3 folds)",
        "labels: 20 to 230, mean 125",
        "guessing: the mean of the training part, for mae its median",
        "prediction intervals (predict --coverage 0.9): 3 fold heads, 12 groups",
        "each head alone, on the same images",
        "better than guessing the median",
        f"saved: {tmp_path / 'a.featx'}",
    ):
        assert words in text, words
    assert narrow(outcome.out, tmp_path)
    rows = list(csv.DictReader(oof.read_text().splitlines()))
    assert len(rows) == 36
    assert np.corrcoef([float(row["true"]) for row in rows], [float(row["predicted"]) for row in rows])[0, 1] > 0.9


def test_json_of_a_fit(featx, features):
    report = featx("fit", features, *QUICK, "--json").json
    assert (report["task"], report["head"]) == ("regression", "ridge")
    assert report["scores"]["r2"]["low"] < report["scores"]["r2"]["mean"]


def test_predict_writes_numbers_with_their_intervals(featx, bundle, features, greys, tmp_path):
    noisy = np.random.default_rng(1).normal(100, 20, (40, 40))  # as the pictures that were learned from
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(tmp_path / "new.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "more.csv").write_text("path,label\nnew.png,100\nbad.png,3\n0.png,20\n")
    outcome = featx("predict", bundle, tmp_path / "more.csv", "--coverage", "0.8", "-o", tmp_path / "p.csv")
    assert outcome.code == 8
    for words in ("2 images predicted", "prediction intervals at coverage 0.8", "found on the new images", "bad.png"):
        assert words in outcome.out
    assert narrow(outcome.out, tmp_path)
    rows = {row["key"]: row for row in csv.DictReader((tmp_path / "p.csv").read_text().splitlines())}
    assert list(rows["new.png"]) == ["key", "status", "predicted", "low", "high"]
    new = [float(rows["new.png"][name]) for name in ("low", "predicted", "high")]
    assert new == sorted(new)
    assert [rows["bad.png"][name] for name in ("status", "predicted", "low", "high")] == ["failed", "", "", ""]
    told = featx("predict", bundle, features, "--json").json
    assert told["n_seen"] == 36
    assert told["evaluation"]["scores"]["r2"]["mean"] > 0.9
    assert set(told["predictions"][0]) == {"key", "status", "reason", "label", "predicted", "seen"}


def test_more_coverage_than_groups_can_carry_is_said_and_leaves_ends_open(featx, bundle, features, tmp_path):
    outcome = featx("predict", bundle, features, "--coverage", "0.95")
    assert "The intervals have no ends: a coverage of 0.95 needs at least 19 groups" in " ".join(outcome.err.split())
    assert outcome.out.splitlines()[1].endswith(",,")


def test_labels_that_are_no_numbers_are_not_scored_and_that_is_said(featx, bundle, tmp_path):
    Image.new("L", (40, 40), 100).save(tmp_path / "new.png")
    (tmp_path / "named.csv").write_text("path,label\nnew.png,bright\n")
    outcome = featx("predict", bundle, tmp_path / "named.csv")
    assert outcome.code == 0
    assert "Nothing is scored: 1 of 1 labels of the source are no numbers, the first 'bright'" in " ".join(
        outcome.err.split()
    )


def test_what_has_no_meaning_is_refused_by_name(featx, bundle, features):
    for option in (["--positive", "x"], ["--class-weight", "balanced"], ["--calibration", "isotonic"]):
        outcome = featx("fit", features, *QUICK, *option)
        assert outcome.code == 2
        assert f"{option[0]} has no meaning for --task regression" in outcome.err
    for option in (["--abstain-below", "0.5"], ["--coverage", "0.9", "--coverage-per-class"]):
        outcome = featx("predict", bundle, features, *option)
        assert outcome.code == 2
        assert "has no meaning for --task regression" in outcome.err
    outcome = featx("fit", features, "--n-jobs", "1")
    assert outcome.code == 4
    assert "use --task regression" in " ".join(outcome.err.split())
    assert featx("fit", features, *QUICK, "--head", "lda").code == 2


def test_info_and_heads_know_regressions(featx, bundle):
    outcome = featx("info", bundle)
    assert outcome.code == 0
    assert "regression: numbers, from 20 to 230" in outcome.out
    assert narrow(outcome.out, bundle.parent)
    assert "with --task regression" in featx("heads").out
    assert [head["name"] for head in featx("heads", "--json").json["regression_heads"]] == ["ridge", "svr", "knn"]


def test_a_locked_part_takes_no_part_and_is_scored_by_a_counted_look(featx, features, tmp_path):
    locked = featx("lock", features, "--fraction", "0.25")
    assert locked.code == 0, locked.err
    assert "20 to 86" in locked.out  # ranges of numbers, not one class for each
    fitted = featx("fit", features, *QUICK, "-o", tmp_path / "a.featx")
    assert "took no part, locked on" in fitted.out
    look = featx("lock", features, "--open", tmp_path / "a.featx")
    assert look.code == 0, look.err
    assert "This is look no. 1" in look.out
    assert "the score of this one regression on new groups like these" in " ".join(look.out.split())
    assert narrow(look.out, tmp_path)
    assert "mae" in featx("info", features).out
