"""``featx fit --task multilabel`` and what follows, as a person or a program calls it."""

import csv

import numpy as np
import pytest

QUICK = ["--scaling", "raw", "--C-grid", "1e-2:1:2", "--cv", "3", "--inner-cv", "2", "--n-jobs", "1", "-q"]


@pytest.fixture
def chests(featx, tmp_path):
    """Features made elsewhere, with findings as a large public set of chest films writes them."""
    rng = np.random.default_rng(0)
    marks = rng.random((60, 2)) < [0.5, 0.4]
    X = rng.normal(size=(60, 6)) + np.pad(3.0 * marks, ((0, 0), (0, 4)))
    labels = ["|".join(np.array(["Effusion", "Mass"])[row]) or "No Finding" for row in marks]
    np.savez(tmp_path / "chests.npz", X=X.astype(np.float32), y=labels, keys=[f"{i}.png" for i in range(60)])
    outcome = featx("cache", "import", tmp_path / "chests.npz", "-o", tmp_path / "chests.h5", "--made-by", "films")
    assert outcome.code == 0, outcome.err
    return tmp_path / "chests.h5"


SYNTAX = ["--task", "multilabel", "--label-separator", "|", "--none-label", "No Finding"]


def narrow(text, folder):
    return [line for line in text.splitlines() if len(line) > 100 and str(folder) not in line] == []


def test_fit_predict_and_lock_open_tell_one_story(featx, chests, tmp_path):
    bundle = tmp_path / "chests.featx"
    assert featx("lock", chests, "--fraction", "0.2").code == 0
    outcome = featx("fit", chests, *SYNTAX, *QUICK, "-o", bundle, "--head", "logreg", "--head", "svm")
    assert outcome.code == 0, outcome.err
    text = " ".join(outcome.out.split())
    for words in (
        "average_precision_macro",
        "exact_match",
        "guessing: a random order for precision and area",
        "AP: average precision; chance: that of a random order",
        "threshold: of the saved classifier",
        "each head alone",
        "better than guessing",
        "took no part, locked on",
        "without any label",
    ):
        assert words in text
    assert narrow(outcome.out, tmp_path)
    told = featx("predict", bundle, chests, "-o", tmp_path / "p.csv")
    assert told.code == 0, told.err
    assert "No Finding" in told.out
    assert narrow(told.out, tmp_path)
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert list(rows[0]) == ["key", "status", "predicted", "p_Effusion", "p_Mass", "unlike"]
    assert {row["predicted"] for row in rows} <= {"Effusion", "Mass", "Effusion|Mass", "No Finding"}
    to_stdout = featx("predict", bundle, chests)
    assert to_stdout.out.startswith("key,status,predicted,p_Effusion,p_Mass")
    assert "average_precision_macro" in to_stdout.err
    opened = featx("lock", chests, "--open", bundle)
    assert opened.code == 0, opened.err
    assert "f1_macro" in opened.out
    again = featx("lock", chests, "--open", bundle)
    assert "average_precision_macro  0." in again.out
    assert narrow(again.out, tmp_path)


def test_json_is_one_object(featx, chests):
    data = featx("fit", chests, *SYNTAX, *QUICK, "--json").json
    assert data["task"] == "multilabel"
    assert data["classes"] == ["Effusion", "Mass"]
    assert data["options"]["none_label"] == "No Finding"


def test_a_wrong_separator_is_guessed(featx, chests):
    outcome = featx("fit", chests, "--task", "multilabel", *QUICK)
    assert outcome.code == 4
    assert "try --label-separator '|'" in " ".join(outcome.err.split())
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    "arguments", [("--by-group",), ("--head", "lda"), ("--scoring", "accuracy"), ("--calibration", "isotonic")]
)
def test_options_without_meaning_are_wrong_usage(featx, chests, arguments):
    outcome = featx("fit", chests, *SYNTAX, *QUICK, *arguments)
    assert outcome.code == 2
    assert "multilabel" in outcome.err
