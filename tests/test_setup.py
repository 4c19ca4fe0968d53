"""Two commands from a fresh clone: the environment that bin/featx makes, the constraints, and what a wheel holds."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]

# Stands in for featx: no dependencies, and a build backend of its own, so that pip needs no index. Each build leaves a
# line in builds.txt; a file named "slow" makes it take long enough to be killed.
PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = """
import time, zipfile
from pathlib import Path

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    with open("builds.txt", "a") as file:
        file.write("built\\n")
    if Path("slow").exists():
        time.sleep(60)
    info = "featx-0.1.dist-info"
    files = {
        "stand_in.pth": str(Path.cwd()),
        f"{info}/METADATA": "Metadata-Version: 2.1\\nName: featx\\nVersion: 0.1\\nProvides-Extra: dev\\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        f"{info}/entry_points.txt": "[console_scripts]\\nfeatx = stand_in:main\\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(Path(wheel_directory) / "featx-0.1-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return "featx-0.1-py3-none-any.whl"
"""


def make_project(folder: Path) -> Path:
    (folder / "bin").mkdir(parents=True)
    for name in ("featx", "env.sh"):
        shutil.copy(ROOT / "bin" / name, folder / "bin" / name)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "constraints.txt").write_text("")
    (folder / "backend.py").write_text(BACKEND)
    (folder / "stand_in.py").write_text("import sys\ndef main():\n    print('featx', *sys.argv[1:])\n")
    return folder


def clean_environment(**more: str) -> dict[str, str]:
    """This process's, without what coverage or an active virtual environment put into it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "VIRTUAL_ENV"))} | more


def start(project: Path, *arguments: str, new_session: bool = False) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", str(project / "bin/featx"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
        start_new_session=new_session,
        # A job in a shell's background ignores Ctrl-C, and bash cannot undo that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(project: Path, *arguments: str) -> str:
    """Run bin/featx, check that it came through with nothing else on stdout, and return stderr."""
    process = start(project, *arguments)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, " ".join(["featx", *arguments]) + "\n"), err
    return err


def n_builds(project: Path) -> int:
    builds = project / "builds.txt"
    return len(builds.read_text().splitlines()) if builds.exists() else 0


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose environment is made."""
    folder = make_project(tmp_path_factory.mktemp("setup") / "with a space")
    err = run(folder, "--first", "use")
    assert "making" in err
    assert "installing" in err
    assert err.splitlines()[-1] == "featx set-up: done"
    return folder


def test_once_made_the_environment_costs_no_other_program(project: Path, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    command = [bash, str(project / "bin/featx"), "a", "b c"]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "featx a b c\n", "")


def test_bin_featx_works_through_links_and_from_another_folder(project: Path, tmp_path: Path) -> None:
    (tmp_path / "first").symlink_to(os.path.relpath(project / "bin/featx", tmp_path))
    (tmp_path / "second").symlink_to("first")
    done = subprocess.run(
        ["./second", "x"], cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("featx x\n", "")


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_the_environment_is_refreshed_once_when_a_file_changes(project: Path, name: str) -> None:
    before = n_builds(project)
    with (project / name).open("a") as file:
        file.write("# changed\n")
    assert "up to date" in run(project)
    assert run(project) == ""
    assert n_builds(project) == before + 1


@pytest.mark.slow
def test_a_refresh_for_bin_featx_keeps_the_development_tools(project: Path) -> None:
    ensure = f"ROOT='{project}'; . bin/env.sh; ensure_env dev"
    subprocess.run(["bash", "-c", ensure], cwd=project, env=clean_environment(), check=True, capture_output=True)
    with (project / "pyproject.toml").open("a") as file:
        file.write("# changed again\n")
    assert "every extra" in run(project)
    assert (project / ".venv/featx-stamp").read_text().startswith("dev\n")


@pytest.mark.slow
def test_an_environment_of_another_python_is_made_anew(project: Path) -> None:
    stamp = project / ".venv/featx-stamp"
    lines = stamp.read_text().split("\n")
    lines[2] = "/usr/bin/false"
    stamp.write_text("\n".join(lines))
    assert "making" in run(project)


@pytest.mark.slow
def test_a_folder_that_moved_gets_its_environment_anew(project: Path) -> None:
    moved = project.rename(project.with_name("moved"))
    try:
        assert "making" in run(moved)
        assert run(moved) == ""
    finally:
        moved.rename(project)


@pytest.mark.slow
def test_a_killed_set_up_is_recognised_and_finished(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    (project / "slow").touch()
    process = start(project, new_session=True)
    wait_for(lambda: n_builds(project) == 1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (project / "slow").unlink()
    # What a kill between two files of a package leaves: metadata, but no INSTALLER, which pip writes last.
    half = next(project.glob(".venv/lib/python*/site-packages")) / "featx-0.1.dist-info"
    half.mkdir()
    (half / "METADATA").write_text("Metadata-Version: 2.1\nName: featx\nVersion: 0.1\n")
    assert "up to date" in run(project)
    assert (half / "INSTALLER").exists()
    assert run(project) == ""


@pytest.mark.slow
def test_ctrl_c_ends_the_set_up_and_says_how_to_go_on(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    (project / "slow").touch()
    process = start(project, new_session=True)
    wait_for(lambda: n_builds(project) == 1)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from here" in err


@pytest.mark.slow
def test_of_two_started_at_once_one_waits_for_the_other(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    processes = [start(project, str(number)) for number in range(2)]
    outcomes = [process.communicate(timeout=120) for process in processes]
    assert [out for out, _ in outcomes] == ["featx 0\n", "featx 1\n"]
    assert n_builds(project) == 1
    assert sorted("waiting" in err for _, err in outcomes) == [False, True]


def test_without_a_python_new_enough_the_message_says_what_to_install(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    bash = shutil.which("bash")
    done = subprocess.run(
        [bash, str(project / "bin/featx")], env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "Python 3.11 or newer" in done.stderr
    assert not (project / ".venv").exists()


def test_the_constraints_pin_a_version_in_range_for_everything_that_is_asked_for() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = itertools.chain(pyproject["dependencies"], *pyproject["optional-dependencies"].values())
    ranges = {requirement.name: requirement.specifier for requirement in map(Requirement, asked)}
    del ranges["featx"]
    lines = re.sub(r"#.*", "", (ROOT / "constraints.txt").read_text()).split("\n")
    pins = {pin.name: pin.specifier for pin in map(Requirement, filter(str.strip, lines))}
    assert pins.keys() == ranges.keys()
    for name, pin in pins.items():
        (version,) = pin
        assert version.operator == "=="
        assert version.version in ranges[name]
        assert all(clause.operator == ">=" for clause in ranges[name]), f"{name}: an open range was promised"


@pytest.mark.slow
def test_the_wheel_holds_the_command_the_weights_the_types_and_the_licence(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "featx", source / "featx", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", str(tmp_path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode and "setuptools" in done.stderr:
        pytest.skip("no package index within reach to take setuptools from")
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
        info = next(name for name in names if name.endswith("/entry_points.txt")).split("/")[0]
        assert "featx = featx.cli.main:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert {"featx/py.typed", "featx/vision/weights/featx-mini.safetensors", f"{info}/licenses/LICENSE"} <= set(names)
    assert {name.split("/")[0] for name in names} == {"featx", info}
