"""Trust on the command line: what fit says, what predict may be asked, nothing wider than the terminal."""

import csv

import pytest
from feature_files import write_file
from threadpoolctl import threadpool_limits
from trust_samples import features

QUICK = ["--scaling", "raw", "--C-grid", "1e-2:1e1:2", "--cv", "3", "--inner-cv", "2", "--n-jobs", "1"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trust")
    write_file(folder / "train.h5", features(90, groups=[f"p{i // 3}" for i in range(90)]))
    write_file(folder / "new.h5", features(60, seed=1, start=1000, shift=0.5))
    return folder


@pytest.fixture
def bundle(featx, files):
    path = files / "a.featx"
    if not path.exists():
        with threadpool_limits(1):
            assert featx("fit", files / "train.h5", "-o", path, *QUICK).code == 0
    return path


@pytest.mark.parametrize("head", ["logreg", "svm"])
@pytest.mark.parametrize("calibration", ["auto", "none", "temperature", "sigmoid", "isotonic"])
def test_fit_says_how_probabilities_were_made_and_what_predict_can_do(featx, files, calibration, head):
    outcome = featx("fit", files / "train.h5", *QUICK, "--head", head, "--calibration", calibration)
    assert outcome.code == 0, outcome.err
    said = ("probabilities:", "brier", "ece", "by chance alone", "if only the surest were called")
    for words in (*said, "3 fold heads, 30 groups", "images unlike the training set are flagged"):
        assert words in outcome.out
    assert max(map(len, (outcome.out + outcome.err).splitlines())) <= 100


def test_fit_json_has_the_account(featx, files):
    report = featx("fit", files / "train.h5", *QUICK, "--calibration", "temperature", "--json").json
    account = report["calibration"]
    assert (account["asked"], account["method"]) == ("temperature", "temperature")
    assert account["temperature"] > 0
    assert set(account["brier"]) == {"mean", "low", "high", "folds", "method"}
    assert account["uncalibrated"]["ece"]["mean"] is not None
    assert [fold["fold"] for fold in account["folds"]] == ["1", "2", "3"]
    assert report["conformal"]["n_groups"] == 30
    assert report["conformal"]["floor"]["0.9"] == pytest.approx(0.8 - 2 * 0.9 * 2 / 33)
    assert report["novelty"]["n_rows"] == 90


def test_options_that_keep_nothing(featx, files):
    outcome = featx("fit", files / "train.h5", *QUICK, "--conformal", "off", "--no-novelty")
    assert "prediction sets: none (it was fitted with --conformal off)" in outcome.out
    assert "images unlike" not in outcome.out
    assert featx("fit", files / "train.h5", *QUICK, "--calibration", "platt").code == 2


def test_predict_is_as_careful_as_it_is_told(featx, bundle, files):
    target = files / "p.csv"
    careful = ["--coverage", "0.9", "--abstain-below", "0.8", "--false-alarms", "0.1"]
    outcome = featx("predict", bundle, files / "new.h5", "-o", target, *careful)
    assert outcome.code == 0, outcome.err
    said = ("prediction sets at coverage 0.9:", "proven:", "found on the new images:", "by class: class 0")
    for words in (*said, "abstained below 0.8:", "unlike the training set:"):
        assert words in outcome.out
    assert max(len(line) for line in outcome.out.splitlines() if str(files) not in line) <= 100
    rows = list(csv.DictReader(target.read_text().splitlines()))
    assert list(rows[0])[-3:] == ["set", "abstained", "unlike"]
    assert {row["abstained"] for row in rows} == {"yes", "no"}
    assert all((row["predicted"] == "") == (row["abstained"] == "yes") for row in rows)
    to_stdout = featx("predict", bundle, files / "new.h5", *careful)
    assert to_stdout.out.splitlines() == target.read_text().splitlines()
    assert "prediction sets at coverage 0.9:" in to_stdout.err
    data = featx("predict", bundle, files / "new.h5", *careful, "--coverage-per-class", "--json").json
    assert data["sets"]["per_class"] is True
    assert data["abstaining"]["n_abstained"] == sum(row["abstained"] == "yes" for row in rows)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--coverage", "90"], "as in 0.9"),
        (["--coverage-per-class"], "--coverage 0.9"),
        (["--abstain-below", "0"], "as in 0.8"),
        (["--false-alarms", "1.5"], "as in 0.05"),
    ],
)
def test_values_out_of_range_end_with_code_2(featx, bundle, files, arguments, words):
    outcome = featx("predict", bundle, files / "new.h5", *arguments)
    assert outcome.code == 2
    assert words in outcome.err


def test_a_bundle_without_sets_ends_with_code_6(featx, files):
    featx("fit", files / "train.h5", "-o", files / "off.featx", *QUICK, "--conformal", "off", "--no-novelty")
    outcome = featx("predict", files / "off.featx", files / "new.h5", "--coverage", "0.9")
    assert outcome.code == 6
    assert "--conformal off" in outcome.err
