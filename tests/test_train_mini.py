"""`bin/train-mini`: the same file again, also when the run was stopped or made longer."""

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from featx.vision.mini import featx_mini, load_featx_mini_weights

SCRIPT = Path(__file__).parents[1] / "bin" / "train-mini"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty pictures and a teacher who knows nothing."""
    folder = tmp_path_factory.mktemp("mini")
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for i in range(40):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
        coarse.resize((90, 70), Image.Resampling.BICUBIC).save(folder / "pictures" / f"{i}.png")
    torch.manual_seed(0)
    torch.save(torchvision.models.mobilenet_v2().state_dict(), folder / "teacher.pth")
    return folder


@pytest.fixture
def train(folder, tmp_path, monkeypatch, one_thread):
    """Run the script in this process, with batches and images of a size for tests; return the file's bytes."""
    loader = SourceFileLoader("train_mini", str(SCRIPT))
    script = module_from_spec(spec_from_loader("train_mini", loader))
    loader.exec_module(script)
    for name, value in {"BATCH": 8, "CHUNK": 16, "TEACHER_SIZE": 32, "STEADY_SIZE": 32, "WARM_UP": 2}.items():
        monkeypatch.setattr(script, name, value)

    def run(*options):
        given = ["--pictures", folder / "pictures", "--teacher", folder / "teacher.pth", "--crops", 40, "-o", "x.st"]
        given += ["--work", tmp_path / "work", *options]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["train-mini", *map(str, given)])
        script.main()
        return (tmp_path / "x.st").read_bytes()

    run.script = script
    return run


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_second_run_gives_the_same_file_and_another_seed_another_one(train, tmp_path):
    first = train("--steps", 4)
    assert train("--steps", 4) == first
    assert train("--steps", 4, "--seed", 1, "--work", tmp_path / "other") != first


def test_a_run_made_longer_goes_on_from_where_its_learning_rate_began_to_fall(train, capsys):
    long = train("--steps", 8)
    train("--steps", 4)
    capsys.readouterr()
    assert train("--steps", 8, "--resume", "--measure", 1) == long
    assert "after 4 steps" in (out := capsys.readouterr().out)
    assert "after 3 steps" not in out


def test_a_stopped_run_goes_on_from_its_checkpoint(train, monkeypatch, capsys):
    whole = train("--steps", 6)
    monkeypatch.setattr(train.script, "SAVE_SECONDS", -1)
    step = train.script.Lesson.step

    def stop_at_the_fifth(lesson, number, side):
        if number == 4:
            raise KeyboardInterrupt
        return step(lesson, number, side)

    with monkeypatch.context() as stopped:
        stopped.setattr(train.script.Lesson, "step", stop_at_the_fifth)
        with pytest.raises(KeyboardInterrupt):
            train("--steps", 6)
    capsys.readouterr()
    assert train("--steps", 6, "--resume", "--measure", 1) == whole
    assert "after 4 steps" not in capsys.readouterr().out


def test_crops_and_teacher_outputs_that_are_there_are_not_made_again(train, monkeypatch):
    first = train("--steps", 1)
    monkeypatch.setattr(train.script, "teach", None)
    assert train("--steps", 1) == first


def test_the_file_holds_trained_weights_of_the_network(train, tmp_path):
    train("--steps", 3)
    trained, untrained = load_featx_mini_weights(featx_mini(), tmp_path / "x.st"), featx_mini()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert not torch.allclose(trained(images), untrained(images), rtol=0.1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--steps", 3, "--resume"), "a run of 3 steps cannot go on"),
        (("--steps", 4, "--resume", "--lr", 0.5), "is of a run with"),
        (("--steps", 4, "--crops", 41), "crops made with other settings"),
        (("--steps", 4, "--pictures", "."), "0 pictures in .: too few"),
    ],
)
def test_what_does_not_go_together_is_said(train, options, told):
    train("--steps", 4)
    with pytest.raises(SystemExit, match=told):
        train(*options)
