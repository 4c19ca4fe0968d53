"""The command line as a fixture, and small folders of pictures for it."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from featx.cli import main as cli


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def featx(capsys, monkeypatch):
    """Run ``featx ARGUMENTS`` in this process and return its code, stdout and stderr."""

    def run(*arguments):
        arguments = [str(argument) for argument in arguments]
        monkeypatch.setattr("sys.argv", ["featx", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        captured = capsys.readouterr()
        return Outcome(stop.value.code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def write_photo():
    """A function that writes one picture: ``write_photo(path, colour, seed)``."""
    return _write_photo


def _write_photo(path, colour, seed):
    """Write a noisy picture around a colour: classes that any network tells apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 40, (48, 64, 3))
    Image.fromarray(np.clip(np.asarray(colour) + noise, 0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path, write_photo):
    """Sixteen pictures in two class folders."""
    folder = tmp_path / "photos"
    for i in range(8):
        write_photo(folder / "moss" / f"p{i // 2}_{i}.png", (60, 140, 60), i)
        write_photo(folder / "rust" / f"p{4 + i // 2}_{i}.png", (160, 80, 50), 100 + i)
    return folder
