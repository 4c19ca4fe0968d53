"""What a user may bring by mistake: one clear message and its exit code, and never a score that says nothing."""

import dataclasses

import numpy as np
import pytest
from feature_files import write_file
from store.store_samples import edited
from trust_samples import SPEC, D, features

N = 40
QUICK = ["--cv", "2", "--inner-cv", "2", "--n-jobs", "1"]
FIT = [*QUICK, "--scaling", "raw", "--C-grid", "1e-2:1e1:2", "--conformal", "off", "--calibration", "none"]


def with_labels(labels):
    return dataclasses.replace(features(len(labels), 2), y=np.array(labels))


def with_features(X):
    X = np.asarray(X, dtype=np.float32)
    return dataclasses.replace(features(len(X), 2), X=X, spec=dataclasses.replace(SPEC, feature_shape=X.shape[1:]))


X = features(N, 2).X
BAD = {
    "one class": (with_labels(["a"] * N), "only one class, 'a'"),
    "no label": (with_labels([""] * N), "no labelled samples"),
    "three samples": (with_labels(["a", "b", "a"]), "too few samples"),
    "one of each class": (with_labels(list("abcde")), "5 classes of 5 samples: are the labels names or measurements?"),
    "labels that are names": (with_labels([f"{i}.png" for i in range(N)]), f"{N} classes of {N} samples"),
    "a class in one group": (
        dataclasses.replace(features(N, 2, groups=[f"p{i}" for i in range(N)]), y=np.array(["a"] + ["b"] * (N - 1))),
        "'a' has 1",
    ),
    "two groups": (features(N, 2, groups=[f"p{i // 2 % 2}" for i in range(N)]), "too few groups"),
    "the same features": (with_features(np.ones((N, D))), "have the same features, so nothing can be learnt"),
    "a label of blanks": (with_labels(["a", "  "] * (N // 2)), "20 samples have a label of blanks alone"),
    "a leading blank": (with_labels(["a", "b", " a", "b"] * (N // 4)), "classes ' a' and 'a' (10 and 10 samples)"),
    "another encoding": (
        with_labels(["caf\u00e9", "cafe\u0301"] * (N // 2)),
        r"classes 'cafe\u0301' and 'caf\xe9' (20 and 20 samples) look the same",
    ),
}  # fmt: skip


def run(featx, command, path):
    """Run a command on a file; a warning of some library is an error here."""
    arguments = {"fit": FIT, "rank": QUICK, "audit": QUICK, "fewshot": ["--repeats", "2"], "lock": []}[command]
    return featx(command, path, *arguments)


@pytest.mark.parametrize("command", ["fit", "rank", "fewshot", "audit", "lock"])
@pytest.mark.parametrize("bad", BAD)
def test_what_nothing_can_be_learnt_from_is_refused_by_every_command(featx, tmp_path, command, bad):
    data, words = BAD[bad]
    outcome = run(featx, command, write_file(tmp_path / "x.h5", data))
    said = " ".join(outcome.err.split())
    if (command, bad) == ("lock", "two groups"):  # one of them can be locked
        assert outcome.code == 0
        return
    assert outcome.code == 4, said
    assert said.startswith("error: ")
    if command != "lock" or "blank" in bad or "same" in bad or "encoding" in bad:
        assert words in said
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("large numbers", with_features(X * 1e30)),
        ("small numbers", with_features(X * 1e-30)),
        ("one feature", with_features(X[:, :1])),
        ("a row of zeros", with_features(np.vstack([np.zeros((1, D)), X[1:]]))),
        ("many more features than samples", with_features(np.random.default_rng(0).normal(size=(N, 10_000)))),
        ("copies alone", with_features(np.repeat(X[:2], 2, axis=0)[np.arange(N) % 4])),
        ("as many classes as half the samples", features(N, 10)),
    ],
)
def test_what_is_odd_but_usable_gives_no_warning_of_the_libraries(featx, tmp_path, what, data):
    heads = ["--head", "svm-rbf", "--head", "prototype"]
    file = write_file(tmp_path / "x.h5", data)
    fitted = featx("fit", file, "-o", tmp_path / "x.featx", *FIT, *heads)

    assert fitted.code == 0, fitted.err
    assert featx("predict", tmp_path / "x.featx", file, "-o", tmp_path / "p.csv").code == 0
    assert featx("fewshot", file, "--repeats", "2", "--shots", "2").code == 0


def test_one_feature_has_no_direction_and_so_no_near_duplicates(featx, tmp_path):
    report = featx("fit", write_file(tmp_path / "x.h5", with_features(X[:, :1])), *FIT, "--json").json
    near = report["leaks"]["near_duplicates"]
    assert near["n_pairs"] == 0
    assert "one feature" in near["rule"]


def test_a_head_is_not_chosen_on_a_validation_part_of_one_class(featx, tmp_path):
    splits = ["val" if i % 4 == 0 else "test" if i % 4 < 3 and i > 20 else "train" for i in range(N)]
    outcome = featx("fit", write_file(tmp_path / "x.h5", features(N, 2, splits=splits)), *FIT)
    assert outcome.code == 4
    assert "samples of one class only, 'class 0'" in " ".join(outcome.err.split())


def test_classes_that_the_scored_part_lacks_are_named(featx, tmp_path):
    file = write_file(
        tmp_path / "x.h5", features(N, 2, splits=["test" if i % 2 == 0 and i > 20 else "train" for i in range(N)])
    )
    for command in ("fit", "fewshot"):
        assert "is of these classes" in " ".join(run(featx, command, file).err.split()), command


def test_labels_that_the_classifier_lacks_are_named_by_predict(featx, tmp_path):
    assert featx("fit", write_file(tmp_path / "a.h5", features(N, 2)), "-o", tmp_path / "x.featx", *FIT).code == 0
    other = dataclasses.replace(features(N, 2, start=N), y=np.array([" class 0", "class 1"] * (N // 2)))
    outcome = featx("predict", tmp_path / "x.featx", write_file(tmp_path / "b.h5", other), "-o", tmp_path / "p.csv")
    assert "counted as wrong: ' class 0'." in " ".join(outcome.err.split())


def test_a_file_with_nan_is_refused_by_every_command(featx, tmp_path):
    good = write_file(tmp_path / "good.h5", features(N, 2))
    assert featx("fit", good, "-o", tmp_path / "x.featx", *FIT).code == 0
    file = write_file(tmp_path / "x.h5", features(N, 2))
    with edited(file) as inside:
        inside["features"][3, 2] = np.nan
    for command in ("fit", "rank", "fewshot", "audit", "lock"):
        assert run(featx, command, file).code == 5, command
    outcome = featx("predict", tmp_path / "x.featx", file, "-o", tmp_path / "p.csv")
    assert outcome.code == 4
    assert "'0003.png' has NaN or infinite features" in outcome.err
    assert not (tmp_path / "p.csv").exists()


def test_a_class_with_a_line_break_stays_in_one_line_of_a_table(featx, tmp_path):
    outcome = featx("fit", write_file(tmp_path / "x.h5", with_labels(["a\nb", "c"] * (N // 2))), *FIT)
    assert outcome.code == 0, outcome.err
    assert "\nb " not in outcome.out
    assert r"a\nb" in outcome.out


def test_fewshot_names_classes_and_offers_no_option_that_is_not_there(featx, tmp_path):
    outcome = featx("fewshot", write_file(tmp_path / "x.h5", with_labels(["ant", "bee", "ant", "bee", "ant", "bee"])))
    said = " ".join(outcome.err.split())
    assert "'ant' has 3" in said
    assert "try" not in said
