"""--threshold on the command line."""

import numpy as np
import pytest
from feature_files import write_file
from trust_samples import features

QUICK = ["--scaling", "raw", "--C-grid", "1e-2:1e1:2", "--cv", "3", "--inner-cv", "2", "--n-jobs", "1"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_file(tmp_path_factory.mktemp("threshold") / "train.h5", features(90, 2, noise=2.0))


def test_fit_says_from_which_probability_on_the_positive_class_is_called(featx, file, tmp_path):
    bundle = tmp_path / "a.featx"
    told = featx("fit", file, *QUICK, "--threshold", "sensitivity=0.9", "--positive", "class 0", "-o", bundle)
    assert told.code == 0, told.err
    assert "'class 0' is called from a probability of" in told.out
    assert "(--threshold sensitivity=0.9)" in told.out
    assert "of 45, specificity" in told.out
    (header,) = (line for line in told.out.splitlines() if "inner score" in line)
    assert header.split()[-1] == "threshold"
    lines = [line for line in (told.out + told.err).splitlines() if str(bundle) not in line]
    assert max(map(len, lines)) <= 100
    for arguments in (["info", bundle], ["predict", bundle, file, "-o", tmp_path / "p.csv"]):
        assert "'class 0' is called from a probability of" in featx(*arguments).out
    report = featx("fit", file, *QUICK, "--threshold", "sensitivity=0.9", "--positive", "class 0", "--json").json
    value = report["threshold"]["value"]
    assert report["options"]["threshold"] == "sensitivity=0.9"
    predicted = featx("predict", bundle, file, "--json").json
    assert predicted["threshold"] == {"positive": "class 0", "value": value}
    p = np.array([row["probabilities"]["class 0"] for row in predicted["predictions"]])
    assert [row["predicted"] == "class 0" for row in predicted["predictions"]] == (p >= value).tolist()


@pytest.mark.parametrize("rule", ["recall=0.9", "sensitivity=1", "half", "-1"])
def test_what_is_no_rule_is_a_usage_error(featx, file, rule):
    outcome = featx("fit", file, f"--threshold={rule}")
    assert outcome.code == 2
    assert f"--threshold {rule}" in outcome.err
