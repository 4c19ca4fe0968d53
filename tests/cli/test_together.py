"""`torchrun -m featx finetune`: one process speaks and writes, and what comes of it is what one alone finds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from featx.cli.together import together
from featx.errors import InputError
from featx.vision.tuning.ranks import Joined, Ranks

ROOT = Path(__file__).parents[2]


class _Two(Joined):
    """The second of two processes; whether the other has failed before is known."""

    def __init__(self, is_first_to_fail):
        super().__init__(Ranks(1, 2))
        object.__setattr__(self, "is_first_to_fail", is_first_to_fail)

    def fails_first(self):
        return self.is_first_to_fail


def as_second(monkeypatch, is_first_to_fail):
    from contextlib import nullcontext

    monkeypatch.setattr("featx.vision.tuning.ranks.joined", lambda: nullcontext(_Two(is_first_to_fail)))


def test_alone_it_speaks(capsys):
    with together() as ranks:
        print("something")
    assert ranks == Ranks()
    assert capsys.readouterr().out == "something\n"


def test_the_second_is_silent(monkeypatch, capsys):
    as_second(monkeypatch, True)
    with together() as ranks:
        print("something")
        print("else", file=sys.stderr)
    assert not ranks.is_first
    assert capsys.readouterr() == ("", "")
    print("again")
    assert capsys.readouterr().out == "again\n"


@pytest.mark.parametrize(("error", "code"), [(InputError("no image"), 4), (KeyboardInterrupt(), 130)], ids=str)
def test_of_those_that_fail_the_first_says_why(monkeypatch, error, code):
    as_second(monkeypatch, True)
    with pytest.raises(type(error)), together():
        raise error
    as_second(monkeypatch, False)
    with pytest.raises(click.exceptions.Exit) as stop, together():
        raise error
    assert stop.value.exit_code == code


# ---- for real


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(24):
        (root / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 200, (24, 24, 3), dtype=np.uint8)).save(root / "ab"[i % 2] / f"{i:02d}.png")
    return root


def finetune(n, source, target, *more):
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(n), "-m"] if n > 1 else []
    options = ["--backbone", "featx-mini", "--optimiser", "sgd", "--lr", "0.001", "--epochs", "2", "--batch-size", "5"]
    return subprocess.run(
        [sys.executable, "-m", *torchrun, "featx", "finetune", source, "-o", target, "--cv", "1", *options, *more],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=300,
        check=False,
    )


def lasting(told, *, nearly=False):
    """Everything but times and file names; nearly: with numbers that are equal to 1e-5."""
    if isinstance(told, dict):
        kept = {key: value for key, value in told.items() if "second" not in key and key != "output"}
        return {key: lasting(value, nearly=nearly) for key, value in kept.items()}
    if isinstance(told, list):
        return [lasting(value, nearly=nearly) for value in told]
    return pytest.approx(told, abs=1e-5) if nearly and isinstance(told, float) else told


@pytest.mark.slow
def test_two_processes_say_once_what_one_says(tmp_path, photos):
    one = finetune(1, photos, tmp_path / "one.featx", "--json", "--force")
    two = finetune(2, photos, tmp_path / "two.featx", "--json", "--force")
    assert one.returncode == two.returncode == 0, two.stderr
    assert lasting(json.loads(two.stdout)) == lasting(json.loads(one.stdout), nearly=True)
    assert two.stderr.count("trainings of up to") == 1


@pytest.mark.slow
def test_two_processes_fail_with_one_message(tmp_path, photos):
    found = finetune(2, photos, tmp_path / "never.featx", "--batch-size", "1")
    assert found.returncode != 0
    assert found.stderr.count("error: --batch-size 1: fewer images than the 2 processes") == 1
    assert not (tmp_path / "never.featx").exists()
