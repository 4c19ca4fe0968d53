"""What the README shows is run: its Python as it stands, its commands with the backbone that needs no download."""

import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx.cli import main as cli

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (featx .*?)(?:  +#.*)?$", README, flags=re.MULTILINE)
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def run(command: str) -> int:
    arguments = shlex.split(command)[1:]
    if arguments[0] == "extract":
        arguments += ["--backbone", "featx-mini"]
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    return int(stop.value.code)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A newcomer's folder: photos/, new-photos/, scans.csv."""
    folder = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(0)
    rows = ["path,label,patient"]
    for i in range(30):
        name = f"photos/{'moss' if i % 2 else 'rust'}/{i:02}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.normal((60, 140, 60) if i % 2 else (160, 80, 50), 30, (64, 64, 3))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name)
        rows.append(f"{name},{name.split('/')[1]},p{i // 3}")
    (folder / "new-photos").mkdir()
    Image.new("RGB", (80, 60), (60, 140, 60)).save(folder / "new-photos" / "a.png")
    (folder / "scans.csv").write_text("\n".join(rows))
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def test_the_commands_of_daily_life_run(folder, capsys):
    assert [shlex.split(command)[1] for command in COMMANDS] == [
        "extract", "extract", "info", "fit", "predict", "backbones", "heads",
    ]  # fmt: skip
    for command in COMMANDS:
        assert run(command) == 0, (command, capsys.readouterr().err)
    predictions = (folder / "predictions.csv").read_text()
    assert predictions.startswith("key,status,predicted,p_moss,p_rust,unlike\na.png,ok,moss,")


def test_the_python_runs(folder):
    test_names = {"paths": sorted(map(str, Path("photos").glob("*/*.png")))}
    test_names["labels"] = [Path(path).parent.name for path in test_names["paths"]]
    if not Path("photos.featx").exists():
        for command in COMMANDS:
            run(command)
    for block in PYTHON:
        exec(compile(block, "README.md", "exec"), test_names)
    assert test_names["bundle"].predict(test_names["X"]).tolist() == test_names["y"].tolist()
    assert len(PYTHON) == 4
