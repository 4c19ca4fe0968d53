"""``featx finetune`` as a person or a program calls it."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tuning_samples import SMALL, write_colours, write_networks

from featx.learn.bundle import load_bundle

GROUPS = ("--group-regex", r"(p\d+)_")
OWN = ("--backbone", SMALL)
QUICK = (
    "--epochs",
    1,
    "--cv",
    2,
    "--inner-cv",
    2,
    "--batch-size",
    8,
    "--num-workers",
    0,
    "--device",
    "cpu",
    "--head",
    "ridge",
    "-q",
)


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_networks(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("own_networks", None)
    torch.set_num_threads(before)


@pytest.fixture
def pictures(tmp_path):
    return write_colours(tmp_path / "pictures")


def flat(text):
    return " ".join(text.split())


@pytest.mark.parametrize("resume", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_checkpoints_of_an_earlier_run_are_not_replaced_silently(featx, pictures, resume):
    arguments = ("finetune", pictures, *OWN, *GROUPS, *QUICK, "--cv", 1, "-o", "tuned.featx")
    assert "earlier run" not in featx(*arguments).err
    again = featx(*arguments, *(["--resume"] if resume else []))
    assert again.code == 0, again.err
    assert ("checkpoints of an earlier run in tuned.featx.tuning are replaced" in flat(again.err)) is not resume


def test_the_size_of_the_images_and_near_duplicates_are_what_the_options_say(featx, pictures):
    size, twins = ("--image-size", 24), "--group-near-duplicates"
    ran = featx(
        "finetune", pictures, *OWN, *GROUPS, *QUICK, *size, twins, "--force", "--validation", 0, "-o", "t.featx"
    )
    assert ran.code == 0, ran.err
    bundle = load_bundle("t.featx")
    assert (bundle.spec.weights, bundle.spec.preprocess.crop) == ("tuned", (24, 24))
    assert bundle.facts["options"]["group_near_duplicates"]


def test_it_says_what_it_will_do_then_the_verdict_and_what_it_rests_on(featx, pictures):
    ran = featx("finetune", pictures, *OWN, *GROUPS, *QUICK, "-o", "tuned.featx")
    assert ran.code == 0, ran.err
    before, after = flat(ran.err), flat(ran.out)
    assert "3 trainings of up to 1 epoch on cpu" in before  # two folds and the kept network
    assert "training images are varied as photographs: windows of 70 to 100 %" in before
    for words in ("Verdict: no evidence", "tuned.featx holds the frozen classifier (ridge).", "balanced_accuracy",
                  "95 % interval", "what they estimate", "images/s", "tuned.featx.tuning", "--resume",
                  "next: featx predict tuned.featx"):  # fmt: skip
        assert words in after, words
    assert max(map(len, [*ran.out.splitlines(), *ran.err.splitlines()])) <= 100
    assert featx("info", "tuned.featx").code == 0


def test_json_is_one_lean_object(featx, pictures):
    ran = featx("finetune", pictures, *OWN, *GROUPS, *QUICK, "-o", "tuned.featx", "--json")
    found = ran.json
    assert {"verdict", "difference", "frozen", "tuned", "holds", "history"} < set(found)
    assert set(found["difference"]) == {"mean", "low", "high", "folds"}
    assert (found["verdict"], found["holds"], found["output"]) == ("no-evidence", "frozen", "tuned.featx")
    assert [part["name"] for part in found["history"]] == ["1", "2"]
    assert len(ran.out.encode()) < 20_000
    assert ".png" not in ran.out


def test_forced_the_bundle_holds_the_tuned_network_and_predict_and_info_take_it(featx, pictures):
    forced = ("--force", "--validation", 0)
    ran = featx("finetune", pictures, *OWN, *GROUPS, *QUICK, *forced, "-o", "tuned.featx")
    assert ran.code == 0, ran.err
    assert "tuned.featx holds the tuned network." in ran.out
    assert featx("predict", "tuned.featx", pictures).code == 2  # code of the user's own must be named
    predicted = featx("predict", "tuned.featx", pictures, *OWN)
    assert predicted.code == 0, predicted.err
    rows = list(csv.DictReader(predicted.out.splitlines()))
    assert len(rows) == 24
    assert all(float(row["p_moss"]) + float(row["p_rust"]) == pytest.approx(1) for row in rows)
    shown = flat(featx("info", "tuned.featx").out)
    assert "tuned network" in shown
    assert "no evidence" in shown
    assert load_bundle("tuned.featx").spec.weights == "tuned"


def test_histories_and_a_picture_of_the_curves_are_written(featx, pictures, tmp_path):
    pytest.importorskip("matplotlib")
    ran = featx("finetune", pictures, *OWN, *GROUPS, *QUICK, "-o", "tuned.featx", "--curves", "curves.svg")
    assert ran.code == 0, ran.err
    assert "<svg" in Path("curves.svg").read_text()
    rows = [json.loads(line) for line in (tmp_path / "tuned.featx.tuning" / "history.jsonl").read_text().splitlines()]
    assert [(row["part"], row["epoch"]) for row in rows] == [("1", 0), ("1", 1), ("2", 0), ("2", 1)]
    refused = featx("finetune", pictures, *OWN, *GROUPS, *QUICK, "-o", "tuned.featx", "--curves", "curves.gif")
    assert refused.code == 2
    assert ".svg" in refused.err


def test_what_would_take_too_long_is_refused_with_the_way_out(featx, pictures):
    arguments = ("finetune", pictures, *OWN, *GROUPS, *QUICK, "-o", "tuned.featx")
    refused = featx(*arguments, "--max-hours", "1e-7")
    assert (refused.code, refused.out) == (2, "")
    assert "take --cv 1 (one fold alone is tuned)" in flat(refused.err)
    assert not Path("tuned.featx").exists()


def test_help_has_examples_and_stays_within_a_terminal(featx):
    shown = featx("finetune", "--help").out
    for words in ("featx finetune photos/ --from photos.featx -o tuned.featx", "--resume", "--max-hours", "--l2sp"):
        assert words in shown
    assert max(map(len, shown.splitlines())) <= 100


# ---- stopped and resumed


def interrupt_when(path, number):
    """Send this process a signal as soon as a file is there."""

    def wait():
        for _ in range(1000):
            if path.exists():
                os.kill(os.getpid(), number)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_stopped_run_leaves_a_usable_bundle_says_so_and_goes_on(featx, pictures, tmp_path):
    arguments = ("finetune", pictures, *OWN, *GROUPS, *QUICK, "--epochs", 15, "--patience", 0, "-o", "tuned.featx")
    thread = interrupt_when(tmp_path / "tuned.featx.tuning" / "1.pt", signal.SIGINT)
    stopped = featx(*arguments)
    thread.join()
    assert (stopped.code, stopped.out) == (130, "")
    for words in (
        "tuned.featx holds the frozen classifier",
        "the tuning is not finished",
        "--resume goes on",
    ):
        assert words in flat(stopped.err)
    assert load_bundle("tuned.featx").facts["finetune"] == {"verdict": None, "holds": "frozen"}
    finished = featx(*arguments, "--resume")
    assert finished.code == 0, finished.err
    assert load_bundle("tuned.featx").facts["finetune"]["verdict"]


def test_a_stopped_run_leaves_an_earlier_bundle_as_it_was(featx, pictures, tmp_path):
    Path("tuned.featx").write_bytes(b"of an earlier run")
    thread = interrupt_when(tmp_path / "tuned.featx.tuning" / "1.pt", signal.SIGTERM)
    stopped = featx("finetune", pictures, *OWN, *GROUPS, *QUICK, "--epochs", 15, "--patience", 0, "-o", "tuned.featx")
    thread.join()
    assert stopped.code == 143
    assert "tuned.featx is left as it was" in flat(stopped.err)
    assert Path("tuned.featx").read_bytes() == b"of an earlier run"


def test_stopped_before_the_training_it_says_what_is_kept_and_the_same_command_takes_it(featx, pictures, monkeypatch):
    arguments = ("finetune", pictures, *OWN, *GROUPS, *QUICK, "-o", "tuned.featx")

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("featx.finetuning.material.load_features", stop)
        stopped = featx(*arguments)
    assert stopped.code == 130
    assert "tuned.featx is not written; extracted features are kept, and the same command takes them" in flat(
        stopped.err
    )
    assert not Path("tuned.featx").exists()
    with monkeypatch.context() as patch:
        patch.setattr("featx.finetuning.material.load_features", stop)
        patch.setattr("featx.vision.local_engine.iter_local", None)  # nothing is computed again
        assert featx(*arguments).code == 130
    assert featx(*arguments).code == 0


def facts_without_clock(path):
    facts = load_bundle(path).facts
    facts["finetune"]["seconds"] = 0
    for part in facts["finetune"]["history"]:
        for epoch in part["epochs"]:
            epoch["images_per_second"] = 0
    return facts


@pytest.mark.slow
def test_killed_half_way_and_resumed_the_weights_are_the_same_bit_for_bit(tmp_path):
    pictures = write_colours(tmp_path / "pictures")
    command = [
        sys.executable, "-m", "featx", "finetune", str(pictures), "--backbone", "featx-mini", *GROUPS, "--epochs", "6",
        "--cv", "2", "--inner-cv", "2", "--batch-size", "8", "--num-workers", "0", "--device", "cpu", "--patience", "0",
        "--force", "--validation", "0", "--mixup", "0.2", "--ema", "0.9",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}

    def start(name, *more):
        return subprocess.Popen(
            [*command, "-o", name, *more], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    whole = start("whole.featx")
    assert whole.communicate()[1] is not None
    assert whole.returncode == 0
    killed = start("killed.featx")
    kept = tmp_path / "killed.featx.tuning" / "2.pt"
    for _ in range(6000):
        if kept.exists() or killed.poll() is not None:
            break
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed.featx").exists()
    resumed = start("killed.featx", "--resume")
    _, err = resumed.communicate()
    assert resumed.returncode == 0, err
    one, other = (load_bundle(tmp_path / name) for name in ("whole.featx", "killed.featx"))
    assert one.weights is not None
    assert one.weights == other.weights
    X = np.eye(one.spec.n_features)
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    assert facts_without_clock(tmp_path / "whole.featx") == facts_without_clock(tmp_path / "killed.featx")


# ---- bad input


@pytest.fixture
def made(featx, pictures):
    """A feature file of the pictures, and a classifier fitted on it."""
    assert featx("extract", pictures, "-o", "own.h5", *OWN, *GROUPS).code == 0
    assert featx("fit", "own.h5", "-o", "own.featx", "--cv", 2, "--inner-cv", 2, "--scaling", "raw").code == 0
    assert featx("extract", pictures, "-o", "mini.h5", "--backbone", "featx-mini", *GROUPS).code == 0
    return pictures


def test_each_bad_input_gets_one_clear_message_with_its_exit_code(featx, made, tmp_path):
    kept = {path: path.read_bytes() for path in tmp_path.glob("own.*")}
    lacking = write_colours(tmp_path / "lacking", 8)
    cases = [
        (("pictures", "--from", "own.featx", "--features", "mini.h5"), 5, "backbone: file has featx-mini"),
        (("pictures", "--from", "absent.featx"), 6, "absent.featx"),
        (("pictures", "--features", "absent.h5"), 5, "no such feature file"),
        (("pictures", "--features", "own.featx"), 5, "own.featx"),
        (("absent", *OWN), 4, "no such file or folder"),
        ((lacking, "--features", "own.h5"), 4, "are not in the source"),
        (("pictures", *OWN, "--recipe", "tutorial"), 2, "head-sgd"),
        (("pictures", *OWN, "--validation", "0.9"), 2, "--validation"),
        (("pictures", *OWN, "--lr", "-1"), 2, "--lr"),
        (("pictures", *OWN, "--device", "cuda:7"), 2, "--device auto"),
        (("pictures", *OWN, "-o", "own.h5"), 2, "bundles are written as .featx"),
        (("pictures", *OWN, "--cv", 13), 4, "--cv"),
        (("pictures", *OWN, "--positive", "mos"), 2, "moss"),
        (("pictures", "--backbone", "resnt18"), 2, "resnet18"),
    ]
    for arguments, code, words in cases:
        ran = featx("finetune", *(["-o", "new.featx"] if "-o" not in arguments else []), *QUICK, *arguments)
        assert (ran.code, ran.out) == (code, ""), (arguments, ran.err)
        assert words in flat(ran.err), (arguments, ran.err)
        assert ran.err.count("error: ") == 1
        assert "Traceback" not in ran.err
        assert not Path("new.featx").exists()
    assert {path: path.read_bytes() for path in kept} == kept


def test_code_of_the_users_own_runs_only_when_it_is_named(featx, made):
    arguments = ("finetune", made, "--from", "own.featx", *GROUPS, *QUICK, "-o", "tuned.featx")
    refused = featx(*arguments)
    assert refused.code == 2
    assert f"--backbone {SMALL}" in flat(refused.err)


def test_an_image_that_cannot_be_read_is_named_and_may_be_left_out(featx, pictures):
    (pictures / "moss" / "broken.png").write_bytes(b"broken")
    arguments = ("finetune", pictures, *OWN, *GROUPS, *QUICK, "-o", "tuned.featx")
    refused = featx(*arguments)
    assert refused.code == 5
    assert "moss/broken.png" in refused.err
    assert "--allow-missing" in refused.err
    assert featx(*arguments, "--allow-missing").code == 0


def test_a_checkpoint_of_another_run_is_refused(featx, pictures):
    arguments = ("finetune", pictures, *OWN, *GROUPS, *QUICK, "-o", "tuned.featx")
    assert featx(*arguments).code == 0
    bundle = Path("tuned.featx").read_bytes()
    refused = featx(*arguments, "--resume", "--lr", "0.01")
    assert refused.code == 4
    assert "is a checkpoint of another training" in flat(refused.err)
    assert Path("tuned.featx").read_bytes() == bundle


def test_one_class_in_a_split(featx, tmp_path):
    split = write_colours(tmp_path / "split", 36, places=("train", "val", "test"))
    for path in (split / "val" / "rust").iterdir():
        path.unlink()
    refused = featx("finetune", split, *OWN, *QUICK, "-o", "tuned.featx")
    assert refused.code == 4
    assert "one class only" in flat(refused.err)


def test_a_failure_is_also_json(featx, pictures):
    ran = featx("finetune", pictures, *OWN, "--recipe", "tutorial", "-o", "tuned.featx", "--json")
    assert json.loads(ran.out)["error"]["exit_code"] == 2
