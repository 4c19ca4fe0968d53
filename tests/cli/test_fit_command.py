"""``featx fit`` and ``featx predict`` as a person or a program calls them."""

import csv
import errno
import json
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from featx.learn.bundle import load_bundle

TINY = ["--backbone", "squeezenet1_1", "--weights", "random"]
QUICK = ["--scaling", "raw", "--C-grid", "1e-3:1e1:3", "--cv", "3", "--inner-cv", "2", "--n-jobs", "1"]


@pytest.fixture
def features(featx, photos, tmp_path):
    """A feature file of the sixteen pictures, grouped by their names."""
    target = tmp_path / "photos.h5"
    assert featx("extract", photos, "-o", target, *TINY, "--group-regex", r"(p\d)_").code == 0
    return target


def test_fit_saves_a_bundle_and_prints_scores_with_intervals(featx, features, tmp_path):
    bundle = tmp_path / "photos.featx"
    outcome = featx("fit", features, "-o", bundle, *QUICK, "--by-group")
    assert outcome.code == 0, outcome.err
    for words in ("balanced_accuracy", "95 % interval", "what they estimate", "guessing", "confusion", "sensitivity",
                  "chosen in each fold", "by group", "next: featx predict"):  # fmt: skip
        assert words in outcome.out
    wide = [line for line in outcome.out.splitlines() if str(tmp_path) not in line and len(line) > 100]
    assert wide == []
    assert bundle.exists()


def test_fit_json_has_the_documented_keys_and_nothing_else_is_on_stdout(featx, features, tmp_path):
    report = featx("fit", features, *QUICK, "--head", "logreg", "--head", "svm", "--json").json
    names = {"balanced_accuracy", "accuracy", "f1_macro", "roc_auc", "neg_log_loss"}
    assert set(report["scores"]) == set(report["cv_scores"]) == names
    for score in report["scores"].values():
        assert set(score) == {"mean", "low", "high", "folds", "method"}
    assert set(report["heads"]) == {"logreg", "svm"}
    assert report["head"] in report["heads"]
    assert report["groups"] == {"n": 8, "source": r"regex (p\d)_"}
    assert report["classes"] == ["moss", "rust"]
    assert report["n_samples"] == 16
    assert report["seconds"] > 0
    assert {"chosen", "baseline", "confusion"} <= set(report)


def test_a_reader_who_has_seen_enough_does_not_cost_the_classifier(features, tmp_path):
    target = tmp_path / "photos.featx"
    command = [sys.executable, "-m", "featx", "fit", str(features), "-o", str(target), *QUICK, "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()  # as `| head` does in the middle of a report
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait() != 0
    assert "Traceback" not in said
    assert load_bundle(target).classes == ["moss", "rust"]
    assert not list(tmp_path.glob("*.search"))


def test_without_groups_a_loud_line_says_so(featx, photos, tmp_path):
    featx("extract", photos, "-o", tmp_path / "x.h5", *TINY)
    outcome = featx("fit", tmp_path / "x.h5", *QUICK)
    assert "warning: No groups were given" in outcome.err
    assert featx("fit", tmp_path / "x.h5", *QUICK, "--json").json["groups"] is None


def test_oof_has_every_sample_once_with_its_group_and_fold(featx, features, tmp_path):
    target = tmp_path / "oof.csv"
    featx("fit", features, *QUICK, "--oof", target)
    rows = list(csv.DictReader(target.read_text().splitlines()))
    assert list(rows[0]) == ["key", "group", "fold", "true", "predicted", "p_moss", "p_rust"]
    assert len({row["key"] for row in rows}) == len(rows) == 16
    fold_of_group = {}
    for row in rows:
        assert fold_of_group.setdefault(row["group"], row["fold"]) == row["fold"]
        assert float(row["p_moss"]) + float(row["p_rust"]) == pytest.approx(1)


def test_cv_results_has_a_row_for_each_candidate_of_each_choice(featx, features, tmp_path):
    target = tmp_path / "cv.csv"
    outcome = featx("fit", features, *QUICK, "--head", "logreg", "--head", "prototype", "--cv-results", target)
    assert outcome.code == 0, outcome.err
    rows = list(csv.DictReader(target.read_text().splitlines()))
    assert len(rows) == 4 * (3 + 1)  # three folds and the final choice, three values of C and a prototype
    assert [row["outer_fold"] for row in rows if row["chosen"] == "True"] == ["1", "2", "3", "final"]
    assert {"split1_test_score", "mean_test_score", "std_test_score", "rank_test_score", "param_C"} <= set(rows[0])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--head", "logrge"], 2, "logreg"),
        (["--scoring", "acuracy"], 2, "accuracy"),
        (["--positive", "mos"], 2, "moss"),
        (["--C-grid", "1:0:3"], 2, "LO <= HI"),
        (["--cv", "1"], 2, "--cv"),
        (["--cv", "9"], 4, "--cv"),
        (["--min-per-class", "9"], 4, "--min-per-class"),
        (["--scaling", "minmax"], 2, "standardise"),
    ],
)
def test_a_wrong_option_gets_one_clear_message_and_its_exit_code(featx, features, tmp_path, arguments, code, words):
    outcome = featx("fit", features, "-o", tmp_path / "x.featx", *arguments)
    assert outcome.code == code, outcome.err
    assert words in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "x.featx").exists()


@pytest.mark.parametrize(
    ("option", "name", "words"),
    [
        ("-o", "photos.h5", "bundles are written as .featx"),
        ("-o", "nowhere/x.featx", "there is no folder"),
        ("--oof", "photos.h5", "predictions are written as .csv"),
        ("--oof", "nowhere/oof.csv", "there is no folder"),
        ("--cv-results", "photos.h5", "results of the search are written as .csv"),
    ],
)
def test_a_name_that_cannot_be_written_is_refused_before_the_work_and_overwrites_nothing(
    featx, features, tmp_path, option, name, words
):
    before = features.read_bytes()
    outcome = featx("fit", features, option, tmp_path / name)
    assert outcome.code == 2
    assert words in outcome.err.replace("\n", " ")
    assert features.read_bytes() == before


def test_predictions_never_overwrite_the_table_that_they_are_for(featx, bundle, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("path\nphotos/moss/p0_0.png\n")
    outcome = featx("predict", bundle, table, "-o", table)
    assert outcome.code == 2
    assert "SOURCE itself" in " ".join(outcome.err.split())  # a long folder breaks the line
    assert table.read_text() == "path\nphotos/moss/p0_0.png\n"


def test_one_class_only_is_fits_error_not_extracts(featx, tmp_path, write_photo):
    for i in range(6):
        write_photo(tmp_path / "one" / "moss" / f"{i}.png", (60, 140, 60), i)
    assert featx("extract", tmp_path / "one", "-o", tmp_path / "one.h5", *TINY).code == 0
    outcome = featx("fit", tmp_path / "one.h5")
    assert outcome.code == 4
    assert "class" in outcome.err


def test_fit_wants_allow_missing_for_a_file_with_failures(featx, photos, tmp_path):
    (photos / "moss" / "broken.png").write_bytes(b"broken")
    assert featx("extract", photos, "-o", tmp_path / "x.h5", *TINY).code == 8
    outcome = featx("fit", tmp_path / "x.h5", *QUICK)
    assert outcome.code == 5
    assert "--allow-missing" in outcome.err
    assert "moss/broken.png" in outcome.err
    assert featx("fit", tmp_path / "x.h5", *QUICK, "--allow-missing").code == 0


def test_fit_of_an_unfinished_or_missing_file_is_a_store_error(featx, tmp_path):
    assert featx("fit", tmp_path / "nowhere.h5").code == 5


@pytest.fixture
def bundle(featx, features, tmp_path):
    target = tmp_path / "photos.featx"
    assert featx("fit", features, "-o", target, *QUICK).code == 0
    return target


def test_predict_keeps_unreadable_images_with_their_status_and_exits_8(featx, bundle, tmp_path, write_photo):
    new = tmp_path / "new"
    write_photo(new / "a.png", (60, 140, 60), 50)
    (new / "b.jpg").write_text("no image")
    outcome = featx("predict", bundle, new, "-o", tmp_path / "p.csv")
    assert outcome.code == 8
    rows = list(csv.reader((tmp_path / "p.csv").read_text().splitlines()))
    assert rows[0] == ["key", "status", "predicted", "p_moss", "p_rust"]
    assert rows[1][:3] == ["a.png", "ok", "moss"]
    assert rows[2] == ["b.jpg", "failed", "", "", ""]
    assert "b.jpg" in outcome.out
    lines = featx("predict", bundle, new, "-o", tmp_path / "p.jsonl")
    assert lines.code == 8
    assert [json.loads(line)["status"] for line in (tmp_path / "p.jsonl").read_text().splitlines()] == ["ok", "failed"]


def test_predict_on_a_feature_file_equals_predict_on_its_images(featx, bundle, features, photos):
    images = list(csv.reader(featx("predict", bundle, photos).out.splitlines()))
    rows = list(csv.reader(featx("predict", bundle, features).out.splitlines()))
    assert [row[:3] for row in images] == [row[:3] for row in rows]
    assert np.allclose([[float(p) for p in row[3:]] for row in images[1:]],
                       [[float(p) for p in row[3:]] for row in rows[1:]], atol=1e-5)  # fmt: skip


def test_predict_prints_scores_where_labels_are_known(featx, bundle, tmp_path, write_photo):
    write_photo(tmp_path / "new" / "moss" / "a.png", (60, 140, 60), 300)
    outcome = featx("predict", bundle, tmp_path / "new", "-o", tmp_path / "p.csv")
    assert "scores on the 1 image whose label is known" in outcome.out
    report = featx("predict", bundle, tmp_path / "new", "--json").json
    assert report["evaluation"]["n_samples"] == 1
    assert report["evaluation"]["estimand"] == "the score of this one classifier on new samples like these"


def test_scores_on_training_images_alone_do_not_pass_for_scores_of_new_ones(featx, bundle, photos, tmp_path):
    outcome = featx("predict", bundle, photos, "-o", tmp_path / "p.csv")
    said = " ".join(outcome.out.split())
    assert "scores on the 16 images that the classifier was fitted on" in said
    assert "what they estimate: nothing that holds for new samples: the head was fitted on 16 of these 16" in said
    assert "new samples like these" not in said
    on_stdout = " ".join(featx("predict", bundle, photos).err.split())
    assert "16 images that the classifier was fitted on: balanced_accuracy" in on_stdout
    assert featx("predict", bundle, photos, "--json").json["evaluation"]["n_samples"] == 16


def test_predict_says_which_images_were_in_the_training_set_and_scores_the_new_ones(
    featx, bundle, photos, tmp_path, write_photo
):
    outcome = featx("predict", bundle, photos, "-o", tmp_path / "p.csv")
    assert "warning: 16 of 16 images were in the training set" in outcome.err
    for i in range(3):
        write_photo(photos / "moss" / f"new_{i}.png", (60, 140, 60), 200 + i)
    outcome = featx("predict", bundle, photos, "-o", tmp_path / "p.csv")
    assert "warning: 16 of 19 images were in the training set" in outcome.err
    assert "scores on the 3 images that are new to the classifier" in outcome.out
    on_stdout = featx("predict", bundle, photos)
    assert len(on_stdout.out.splitlines()) == 20
    assert "3 images that are new to the classifier" in on_stdout.err
    assert "balanced_accuracy 1.000" in on_stdout.err
    assert "fitted_on" not in featx("info", bundle).out + featx("info", bundle, "--json").out


def test_info_of_a_bundle_tells_head_scores_and_spec_in_lines_that_fit(featx, bundle):
    outcome = featx("info", bundle)
    for words in ("2 classes: moss, rust", "logreg", "fitted on", "balanced_accuracy", "squeezenet1_1", "scikit-learn"):
        assert words in outcome.out
    assert [line for line in outcome.out.replace(str(bundle), "").splitlines() if len(line) >= 100] == []


def test_info_of_a_bundle_that_says_too_little_is_a_bundle_error(featx, tmp_path):
    path = tmp_path / "poor.featx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bundle.json", '{"featx_format": 1}')
    assert featx("info", path).code == 6
    assert featx("info", path, "--json").json == {"featx_format": 1}


def test_predict_refuses_a_feature_file_of_another_spec(featx, bundle, photos, tmp_path):
    featx("extract", photos, "-o", tmp_path / "max.h5", *TINY, "--pooling", "max")
    outcome = featx("predict", bundle, tmp_path / "max.h5")
    assert outcome.code == 5
    assert "pooling" in outcome.err


def test_predict_refuses_what_is_no_bundle(featx, tmp_path, photos):
    for name, content in (("pickle", pickle.dumps({"a": 1})), ("text", b"hello"), ("empty", b"")):
        path = tmp_path / f"{name}.featx"
        path.write_bytes(content)
        outcome = featx("predict", path, photos)
        assert outcome.code == 6, name
        assert "Traceback" not in outcome.err
    with zipfile.ZipFile(tmp_path / "other.featx", "w") as archive:
        archive.writestr("readme", "x")
    assert featx("predict", tmp_path / "other.featx", photos).code == 6
    assert featx("predict", tmp_path / "nowhere.featx", photos).code == 6


def test_info_of_a_bundle_shows_its_facts(featx, bundle):
    assert "squeezenet1_1" in featx("info", bundle).out
    facts = featx("info", bundle, "--json").json
    assert facts["classes"] == ["moss", "rust"]
    assert facts["head"] == "logreg"


OWN_NETWORK = """
import torch
from torch import nn


def network():
    return nn.Sequential(nn.Conv2d(3, 8, 16, stride=16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
"""


def test_a_bundles_own_code_runs_only_when_named_or_trusted(featx, photos, tmp_path, monkeypatch):
    (tmp_path / "own_network_of_mine.py").write_text(OWN_NETWORK)
    monkeypatch.chdir(tmp_path)
    own = "own_network_of_mine:network"
    assert featx("extract", photos, "-o", "own.h5", "--backbone", own).code == 0
    assert featx("fit", "own.h5", "-o", "own.featx", *QUICK).code == 0
    refused = featx("predict", "own.featx", photos)
    assert refused.code == 2
    assert "--trust" in refused.err
    named = featx("predict", "own.featx", photos, "--backbone", own)
    assert named.code == 0
    assert featx("predict", "own.featx", photos, "--trust").out == named.out
    assert featx("predict", "own.featx", photos, "--backbone", "other:network").code == 2
    again = featx("predict", "own.featx", "own.h5")
    assert [row.split(",")[2] for row in again.out.splitlines()] == [
        row.split(",")[2] for row in named.out.splitlines()
    ]


def test_the_users_own_weights_travel_in_the_bundle(featx, photos, tmp_path):
    import torch
    from torchvision.models import squeezenet1_1

    torch.manual_seed(3)
    torch.save(squeezenet1_1().state_dict(), tmp_path / "own.pth")
    featx(
        "extract", photos, "-o", tmp_path / "own.h5", "--backbone", "squeezenet1_1", "--weights", tmp_path / "own.pth"
    )
    featx("fit", tmp_path / "own.h5", "-o", tmp_path / "own.featx", *QUICK)
    (tmp_path / "own.pth").unlink()
    with zipfile.ZipFile(tmp_path / "own.featx") as archive:
        assert {"bundle.json", "head.skops", "weights.safetensors"} < set(archive.namelist())
    rows = list(csv.reader(featx("predict", tmp_path / "own.featx", photos).out.splitlines()))
    cached = list(csv.reader(featx("predict", tmp_path / "own.featx", tmp_path / "own.h5").out.splitlines()))
    assert len(rows) == 17
    assert np.allclose(np.array(rows[1:])[:, 3:].astype(float), np.array(cached[1:])[:, 3:].astype(float), atol=1e-5)


def test_a_csv_to_stdout_is_the_output_alone(featx, bundle, tmp_path):
    Image.new("RGB", (64, 64), (60, 140, 60)).save(tmp_path / "one.png")
    outcome = featx("predict", bundle, tmp_path / "one.png")
    assert outcome.out.splitlines()[0] == "key,status,predicted,p_moss,p_rust"
    assert len(outcome.out.splitlines()) == 2


# Several files


@pytest.fixture
def competing(featx, features, photos, tmp_path):
    """The same sixteen pictures in the features of two networks."""
    other = tmp_path / "a-network-with-a-rather-long-name.h5"
    assert featx("extract", photos, "-o", other, "--backbone", "featx-mini", "--group-regex", r"(p\d)_").code == 0
    return [features, other]


def test_several_files_compete_and_the_report_says_what_the_choice_is_worth(featx, competing, photos, tmp_path):
    bundle = tmp_path / "best.featx"
    outcome = featx("fit", *competing, *QUICK, "--head", "logreg", "--head", "lda", "-o", bundle)
    assert outcome.code == 0, outcome.err
    text = " ".join(outcome.out.split())
    for words in (
        "2 files compete: which one is best is chosen inside each training part",
        "the scores are those of the whole selection",
        "what they estimate: the expected score on new samples of the whole procedure, choices included",
        "each file alone, on the same images",
        "each head alone, on the same images",
        "a-network...long-name.h5",
        "what the choice is worth",
        "over 8 groups",
        "fold file head",
        "leak gap",
    ):
        assert words in text, words
    lines = [line for line in outcome.out.splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 100
    assert featx("predict", bundle, photos).code == 0


def test_json_of_several_files(featx, competing):
    report = featx("fit", *competing, *QUICK, "--json").json
    assert set(report["files"]) == {"photos.h5", "a-network-with-a-rather-long-name.h5"}
    assert report["file"] in report["files"]
    assert len(report["file_of_fold"]) == 3
    assert set(report["comparisons"]) == {"runner_up", "next_file", "guessing", "words"}
    assert report["comparisons"]["next_file"]["n_units"] == 8


def test_files_of_other_samples_are_refused_with_their_names(featx, features, photos, tmp_path):
    (photos / "moss" / "p0_0.png").unlink()
    other = tmp_path / "fewer.h5"
    featx("extract", photos, "-o", other, *TINY, "--group-regex", r"(p\d)_")
    outcome = featx("fit", features, other, *QUICK)
    assert outcome.code == 4
    assert "fewer.h5 lacks 1 that another has" in " ".join(outcome.err.split())
    assert featx("fit", features, features, *QUICK).code == 2


@pytest.fixture
def own_heads(tmp_path, monkeypatch):
    """A module of heads: one that a bundle holds, one that it does not, and one that fails on negative features."""
    (tmp_path / "own_heads_of_the_command.py").write_text(
        "from sklearn.naive_bayes import GaussianNB, MultinomialNB\n"
        "class Mine(GaussianNB):\n"
        "    pass\n"
        "def naive(): return GaussianNB()\n"
        "def mine(): return Mine()\n"
        "def counts(): return MultinomialNB()\n"
    )
    monkeypatch.chdir(tmp_path)
    return "own_heads_of_the_command"


def test_a_head_of_ones_own_that_cannot_be_saved_is_refused_before_the_search(featx, features, tmp_path, own_heads):
    target = tmp_path / "own.featx"
    refused = featx("fit", features, "-o", target, *QUICK, "--head", "logreg", "--head", f"{own_heads}:mine")
    said = " ".join(refused.err.split())
    assert refused.code == 6
    assert f"--head {own_heads}:mine could not be saved, so nothing was searched" in said
    assert "Mine: neither a type of scikit-learn's" in said
    assert not target.exists()
    assert featx("fit", features, *QUICK, "--head", f"{own_heads}:mine").code == 0
    assert featx("fit", features, "-o", target, *QUICK, "--head", f"{own_heads}:naive").code == 0
    assert target.exists()


@pytest.mark.parametrize("options", [["-o", "own.featx"], []])
def test_a_head_of_ones_own_that_fails_is_named_with_its_words(featx, features, own_heads, options):
    outcome = featx("fit", features, *options, *QUICK, "--scaling", "standardise", "--head", f"{own_heads}:counts")
    said = " ".join(outcome.err.split())
    assert outcome.code == 4
    assert f"head {own_heads}:counts failed on these features: ValueError: Negative values" in said


def test_results_are_printed_before_a_bundle_that_cannot_be_written(featx, features, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("featx.learn.bundle.disk.write_whole", full)
    outcome = featx("fit", features, "-o", tmp_path / "x.featx", *QUICK)
    assert outcome.code == 6
    assert "No space left on device" in " ".join(outcome.err.split())
    assert "balanced_accuracy" in outcome.out
    assert (tmp_path / "x.featx.search").exists()  # --resume has the answer again in no time


@pytest.fixture
def interrupted(featx, features, tmp_path, monkeypatch):
    """A bundle's name, with all searches of its fit beside it: the disk was full when it was to be saved."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("featx.learn.bundle.disk.write_whole", full)
        assert featx("fit", features, "-o", tmp_path / "x.featx", *QUICK).code == 6
    return tmp_path / "x.featx"


def test_resume_says_how_many_searches_it_took_up(featx, features, interrupted):
    outcome = featx("fit", features, "-o", interrupted, *QUICK, "--resume")
    assert outcome.code == 0
    assert "taken up from the fit that was interrupted: 7 searches" in " ".join(outcome.err.split())


def test_resume_says_that_kept_searches_are_of_another_fit(featx, features, interrupted):
    outcome = featx("fit", features, "-o", interrupted, *QUICK, "--scoring", "accuracy", "--resume")
    said = " ".join(outcome.err.split())
    assert outcome.code == 0
    assert "warning: --resume: none of the 7 searches in" in said
    assert "is of this fit" in said


def test_resume_says_that_there_was_nothing_to_go_on_with(featx, features, tmp_path):
    outcome = featx("fit", features, "-o", tmp_path / "x.featx", *QUICK, "--resume")
    said = " ".join(outcome.err.split())
    assert outcome.code == 0
    assert "warning: --resume: there was nothing to go on with" in said


def test_a_fit_that_begins_again_says_what_it_drops(featx, features, interrupted):
    outcome = featx("fit", features, "-o", interrupted, *QUICK)
    said = " ".join(outcome.err.split())
    assert "warning: 7 searches of an interrupted fit are dropped and begun again" in said
    assert "--resume" in said
