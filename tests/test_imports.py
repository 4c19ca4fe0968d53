"""What a command loads: each runs in a process of its own that lists its modules at the end."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx.cli.main import COMMANDS

HEAVY = {"torch", "torchvision", "sklearn", "skops", "joblib", "scipy", "pandas", "h5py", "numpy", "PIL", "rich"}

PROGRAM = """
import json, sys
from featx.cli.main import main
try:
    main(sys.argv[2:])
except SystemExit as end:
    with open(sys.argv[1], "w") as file:
        json.dump({"code": end.code, "modules": sorted(sys.modules)}, file)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty images of two classes in ``photos``, to be followed by the files that the commands make."""
    folder = tmp_path_factory.mktemp("imports")
    rng = np.random.default_rng(0)
    for i in range(20):
        path = folder / "photos" / ("dark", "bright")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(128 * (i % 2), 128 + 127 * (i % 2), (16, 16, 3), dtype=np.uint8)).save(path)
    return folder


def loaded(folder: Path, *arguments: str) -> set[str]:
    """Run ``featx ARGUMENTS`` in `folder` and return which of the heavy packages it loaded."""
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(report), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert report.exists(), done.stderr
    found = json.loads(report.read_text())
    assert found["code"] == 0, done.stderr
    return HEAVY & {name.partition(".")[0] for name in found["modules"]}


def extract(folder: Path) -> set[str]:
    return loaded(folder, "extract", "photos", "-o", "photos.h5", "--backbone", "featx-mini")


@pytest.fixture(scope="module")
def loaded_by_extract(folder: Path) -> set[str]:
    return extract(folder)


@pytest.fixture(scope="module")
def loaded_by_fit(folder: Path, loaded_by_extract: set[str]) -> set[str]:
    few = ["--cv", "2", "--inner-cv", "2", "--C-grid", "0.1:1:2", "--n-jobs", "1"]
    return loaded(folder, "fit", "photos.h5", "-o", "photos.featx", *few)


def test_featx_help_loads_nothing_heavy(tmp_path: Path) -> None:
    assert loaded(tmp_path, "--help") == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_loads_no_library_that_does_the_work(tmp_path: Path, name: str) -> None:
    assert loaded(tmp_path, name, "--help") <= {"rich"}


def test_featx_extract_loads_torch_and_no_scikit_learn(loaded_by_extract: set[str]) -> None:
    assert "torch" in loaded_by_extract
    assert not loaded_by_extract & {"sklearn", "skops", "joblib", "scipy", "pandas"}


def test_featx_extract_on_a_complete_file_loads_no_torch(folder: Path, loaded_by_extract: set[str]) -> None:
    assert not extract(folder) & {"torch", "torchvision", "sklearn", "scipy"}


def test_featx_info_loads_neither_torch_nor_scikit_learn(folder: Path, loaded_by_extract: set[str]) -> None:
    assert loaded(folder, "info", "photos.h5") <= {"h5py", "numpy"}


def test_featx_cache_loads_neither_torch_nor_scikit_learn(folder: Path, loaded_by_extract: set[str]) -> None:
    assert loaded(folder, "cache", "ls", ".") <= {"h5py", "numpy"}
    assert loaded(folder, "cache", "verify", "photos.h5") <= {"h5py", "numpy", "PIL"}
    assert loaded(folder, "cache", "export", "photos.h5", "-o", "out.npz") <= {"h5py", "numpy"}
    assert loaded(folder, "cache", "import", "out.npz", "-o", "out.h5") <= {"h5py", "numpy", "PIL"}


def test_featx_fit_loads_no_torch(loaded_by_fit: set[str]) -> None:
    assert "sklearn" in loaded_by_fit
    assert not loaded_by_fit & {"torch", "torchvision", "PIL"}


def test_featx_rank_loads_no_torch(folder: Path, loaded_by_extract: set[str]) -> None:
    few = ["--cv", "2", "--inner-cv", "2", "--C-grid", "0.1:1:2", "--n-jobs", "1"]
    assert not loaded(folder, "rank", "photos.h5", *few) & {"torch", "torchvision", "PIL"}


def test_featx_lock_loads_no_torch(folder: Path, loaded_by_extract: set[str]) -> None:
    (folder / "locked.h5").write_bytes((folder / "photos.h5").read_bytes())
    assert not loaded(folder, "lock", "locked.h5") & {"torch", "torchvision", "PIL"}


def test_featx_fewshot_loads_no_torch(folder: Path, loaded_by_extract: set[str]) -> None:
    few = ["--repeats", "2", "--shots", "1,2", "--transductive"]
    assert not loaded(folder, "fewshot", "photos.h5", *few) & {"torch", "torchvision", "PIL"}


def test_featx_audit_loads_no_torch(folder: Path, loaded_by_extract: set[str]) -> None:
    few = ["--cv", "2", "--inner-cv", "2", "--C-grid", "0.1:1:2", "--n-jobs", "1"]
    assert not loaded(folder, "audit", "photos.h5", *few) & {"torch", "torchvision", "PIL"}


def test_featx_predict_on_a_feature_file_loads_no_torch(folder: Path, loaded_by_fit: set[str]) -> None:
    assert not loaded(folder, "predict", "photos.featx", "photos.h5", "-o", "out.csv") & {"torch", "torchvision"}
