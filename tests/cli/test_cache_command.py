"""``featx cache``, as commands."""

import subprocess
import sys

import numpy as np
import pytest

from featx.caching import pruning
from featx.store.file import FeatureFile
from featx.store.run import ExtractionRun

MINI = ("--backbone", "featx-mini", "-q")


@pytest.fixture
def made(featx, photos, tmp_path, monkeypatch):
    """The file of sixteen pictures in ``cache/``, which is the folder that the commands look at."""
    monkeypatch.chdir(tmp_path)
    assert featx("extract", photos, "-o", "cache/photos.h5", *MINI).code == 0
    return tmp_path / "cache"


def test_the_help_of_each_command_has_an_example(featx):
    commands = ("ls", "verify", "prune", "merge", "export", "import")
    for name in commands:
        outcome = featx("cache", name, "--help")
        assert outcome.code == 0
        assert f"featx cache {name}" in outcome.out.partition("Example:")[2]
        assert all(len(line) <= 100 for line in outcome.out.splitlines())
    outcome = featx("cache", "--help")
    assert all(f"  {name} " in outcome.out for name in commands)


def test_a_command_that_is_not_there(featx):
    outcome = featx("cache", "lst")
    assert outcome.code == 2
    assert "unknown command 'cache lst'; did you mean cache ls" in outcome.err
    outcome = featx("cache", "merge", "a.h5")
    assert outcome.code == 2
    assert "featx cache merge --help shows the options" in outcome.err


def test_ls(featx, made):
    (made / "bad.h5").write_bytes(b"nothing")
    outcome = featx("cache", "ls")
    assert outcome.code == 0
    header, bad, photos, total, damaged = outcome.out.splitlines()
    assert header.split() == ["path", "backbone", "node", "spec", "rows", "failed", "size", "age", "state"]
    assert bad.split()[0] == "bad.h5"
    assert bad.split()[-1] == "damaged"
    assert photos.split()[:2] == ["photos.h5", "featx-mini"]
    assert photos.split()[-1] == "complete"
    assert total.startswith("2 items")
    assert damaged == "  bad.h5: damaged: not an HDF5 file"
    items = featx("cache", "ls", made, "--json").json["items"]
    assert [(item["path"], item["rows"]) for item in items] == [("bad.h5", None), ("photos.h5", 16)]
    assert featx("cache", "ls", "nothing").code == 2
    (made / "empty").mkdir()
    assert "nothing in" in featx("cache", "ls", made / "empty").out


def test_verify(featx, made, photos):
    outcome = featx("cache", "verify", made / "photos.h5", "--sample", "50%", "--source", photos, "-q")
    assert outcome.code == 0
    assert "good, 16 samples, 16 rows" in outcome.out
    assert "8 samples computed again: largest deviation 0" in outcome.out
    (made / "bad.h5").write_bytes((made / "photos.h5").read_bytes()[:-9])
    outcome = featx("cache", "verify", made / "photos.h5", made / "bad.h5", "--json")
    assert outcome.code == 5
    assert (outcome.json["good"], [file["good"] for file in outcome.json["files"]]) == (False, [True, False])
    outcome = featx("cache", "verify", made / "bad.h5")
    assert outcome.code == 5
    assert "NOT as it was written" in outcome.out
    assert "extract again with --replace" in outcome.out.replace("\n ", "")
    assert featx("cache", "verify", made / "nothing.h5").code == 5


@pytest.mark.parametrize("value", ["0", "-1", "x", "101%", "0%", "%"])
def test_samples_that_cannot_be(featx, made, value):
    assert featx("cache", "verify", made / "photos.h5", "--sample", value, "--source", "photos").code == 2


def test_a_sample_needs_a_source(featx, made):
    outcome = featx("cache", "verify", made / "photos.h5", "--sample", "3")
    assert outcome.code == 2
    assert "--sample and --source go together" in outcome.err


def test_prune_removes_only_what_it_is_told_to(featx, made, monkeypatch):
    (made / "old.h5.tmp").write_bytes(b"half")
    outcome = featx("cache", "prune")  # nobody to ask
    assert outcome.code == 0
    assert "old.h5.tmp" in outcome.out
    assert "nothing was removed; --yes removes it" in outcome.err
    assert (made / "old.h5.tmp").exists()
    outcome = featx("cache", "prune", "--json")
    assert (outcome.json["planned"], outcome.json["removed"]) == (["old.h5.tmp"], [])
    outcome = featx("cache", "prune", "--yes", "--files", "*.h5", "--json")
    assert sorted(item["path"] for item in outcome.json["removed"]) == ["old.h5.tmp", "photos.h5"]
    assert list(made.iterdir()) == []
    assert "nothing to remove" in featx("cache", "prune").out


@pytest.mark.parametrize("answer", [True, False])
def test_prune_asks_on_a_terminal(featx, made, monkeypatch, answer):
    (made / "old.h5.tmp").write_bytes(b"half")
    monkeypatch.setattr("featx.cli.cache._is_terminal", lambda: True)
    monkeypatch.setattr("click.confirm", lambda question: answer)
    featx("cache", "prune")
    assert (made / "old.h5.tmp").exists() != answer


def test_prune_says_what_it_could_not_remove(featx, made, monkeypatch):
    (made / "old.h5.tmp").write_bytes(b"half")

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setitem(pruning._REMOVE, "temporary", refuse)
    outcome = featx("cache", "prune", "--yes")
    assert "removed 0 items" in outcome.out
    assert "old.h5.tmp stays: [Errno 13] Permission denied" in outcome.err


@pytest.mark.parametrize("value", ["7x", "d", "-1d", ""])
def test_ages_that_cannot_be(featx, made, value):
    assert featx("cache", "prune", "--older-than", value).code == 2


def test_merge(featx, made, photos, write_photo, tmp_path):
    other = tmp_path / "other"
    write_photo(other / "moss" / "new.png", (60, 140, 60), 900)
    write_photo(other / "moss" / "p0_0.png", (60, 140, 60), 0)
    write_photo(other / "moss" / "p0_1.png", (60, 140, 60), 901)
    featx("extract", other, "-o", "cache/other.h5", *MINI)
    files = ("cache/photos.h5", "cache/other.h5")
    outcome = featx("cache", "merge", *files, "-o", "cache/all.h5", "-q")
    assert outcome.code == 5
    assert "moss/p0_1.png: sha256" in outcome.err
    assert "p0_0" not in outcome.err
    outcome = featx("cache", "merge", *files, "-o", "cache/all.h5", "--prefer", "last")
    assert outcome.code == 0
    assert "17 rows, 17 samples from 2 files" in outcome.out
    assert "1 conflict, settled by --prefer last" in outcome.out
    outcome = featx("cache", "merge", *files, "-o", "cache/all.h5", "--prefer", "first", "--replace", "--json")
    assert (outcome.json["rows"], outcome.json["shared"], list(outcome.json["conflicts"])) == (17, 2, ["moss/p0_1.png"])
    assert featx("cache", "merge", *files, "-o", "cache/all.h5").code == 2


def test_export_and_import_and_what_the_result_is_good_for(featx, made, photos, tmp_path):
    (photos / "moss" / "bad.png").write_bytes(b"no image")
    assert featx("extract", photos, "-o", "cache/photos.h5", *MINI).code == 8
    outcome = featx("cache", "export", "cache/photos.h5", "-o", "out.npz")
    assert outcome.code == 0
    assert "1 failed sample, not in it (--ledger includes them)" in outcome.out
    assert featx("cache", "export", "cache/photos.h5", "-o", "out.csv", "--ledger", "--json").json["lines"] == 17
    outcome = featx("cache", "import", "out.npz", "-o", "cache/foreign.h5", "--made-by", "my network")
    assert outcome.code == 0
    assert "16 rows of 928 features, made elsewhere (foreign:my network)" in outcome.out
    outcome = featx("cache", "import", "out.csv", "-o", "cache/csv.h5", "--json")
    assert outcome.code == 8
    assert outcome.json["failures"] == {"moss/bad.png": "not-finite"}
    assert "made elsewhere and imported" in featx("info", "cache/foreign.h5").out
    foreign = {item["path"]: item["state"] for item in featx("cache", "ls", "--json").json["items"]}
    assert foreign == {"csv.h5": "foreign", "foreign.h5": "foreign", "photos.h5": "complete"}

    few = ("--cv", "2", "--inner-cv", "2", "--C-grid", "0.1:1:2", "--n-jobs", "1", "-q")
    assert featx("fit", "cache/foreign.h5", "-o", "foreign.featx", *few).code == 0
    assert "it is for feature files, and not for images" in featx("info", "foreign.featx").out
    outcome = featx("predict", "foreign.featx", photos, "-q")
    assert outcome.code == 2
    assert "made elsewhere and imported (foreign:my network)" in outcome.err
    assert "--made-by WORDS" in outcome.err.replace("\n", " ")
    (tmp_path / "new.npz").write_bytes((tmp_path / "out.npz").read_bytes())
    featx("cache", "import", "new.npz", "-o", "cache/new.h5", "--made-by", "my network")
    assert featx("predict", "foreign.featx", "cache/new.h5", "-o", "new.csv", "-q").code == 0
    outcome = featx("predict", "foreign.featx", "cache/csv.h5", "-q")
    assert outcome.code == 5
    assert "imported in the same words" in outcome.err.replace("\n", " ")
    outcome = featx("extract", photos, "-o", "cache/foreign.h5", *MINI)
    assert outcome.code == 5
    assert "backbone: file has foreign:my network, asked for featx-mini" in outcome.err
    outcome = featx("cache", "verify", "cache/foreign.h5", "--sample", "1", "--source", photos, "-q")
    assert outcome.code == 2
    assert "no image can be turned into them here" in outcome.err.replace("\n", " ")


def test_an_import_says_what_it_did_with_the_numbers(featx, tmp_path):
    X = np.random.default_rng(0).normal(size=(15, 4))
    X[:12, 0] = np.nan
    np.savez(tmp_path / "x.npz", X=X, label=["a"] * 15)
    outcome = featx("cache", "import", tmp_path / "x.npz", "-o", tmp_path / "x.h5", "--label-column", "label")
    assert outcome.code == 8
    assert "12 samples failed and have no row" in outcome.out
    assert "... and 2 more: --json lists all" in outcome.out
    assert "float64 numbers are stored as float32" in outcome.out


SLOW_EXTRACT = """
import sys, time
from featx.cli.main import main
from featx.store.run import ExtractionRun
append = ExtractionRun.append

def slow(self, batch):
    print("append", flush=True)
    sys.stdin.readline()
    append(self, batch)

ExtractionRun.append = slow
main(sys.argv[1:])
"""


def run(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True)


@pytest.mark.slow
def test_two_processes_that_extract_the_same_set_do_not_spoil_each_other(featx, photos, tmp_path):
    target = tmp_path / "both.h5"
    with run(SLOW_EXTRACT, "extract", photos, "-o", target, *MINI) as first:
        assert first.stdout.readline() == "append\n"  # it has the lock, and has not finished
        second = run("from featx.cli.main import main; main()", "extract", photos, "-o", target, *MINI)
        _, message = second.communicate(timeout=120)
        assert second.returncode == 5
        message = message.replace("\n", " ")
        assert f"another process is writing this file (pid {first.pid} on " in message
        assert "wait for it or stop it" in message
        assert [item["state"] for item in featx("cache", "ls", tmp_path, "--json").json["items"]] == ["running"]
        assert featx("cache", "prune", tmp_path, "--older-than", "0", "--yes", "--json").json["planned"] == []
        _, message = first.communicate("\n" * 9, timeout=120)
        assert first.returncode == 0, message
    featx("extract", photos, "-o", tmp_path / "alone.h5", *MINI)
    assert target.read_bytes() == (tmp_path / "alone.h5").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone.h5", "both.h5", "photos"]


CACHED = """
import sys
import numpy as np
from featx.estimators import ImageFeatures

paths = sys.argv[3:]
print("ready", flush=True)
sys.stdin.readline()
rows = ImageFeatures("featx-mini", batch_size=4, num_workers=1, cache=sys.argv[1]).transform(paths)
np.save(sys.argv[2], rows)
"""


@pytest.mark.slow
def test_two_processes_with_one_cache_of_rows(featx, photos, tmp_path):
    paths = sorted(map(str, photos.rglob("*.png")))
    orders = [paths, paths[::-1]]
    both = [run(CACHED, tmp_path / "rows", tmp_path / f"{i}.npy", *order) for i, order in enumerate(orders)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in both:
        _, message = process.communicate(timeout=120)
        assert process.returncode == 0, message
    rows = [np.load(tmp_path / f"{i}.npy") for i in range(2)]
    assert np.abs(rows[0] - rows[1][::-1]).max() <= 1e-4 * rows[0].std()
    (item,) = featx("cache", "ls", tmp_path / "rows", "--json").json["items"]
    assert (item["kind"], item["rows"], item["backbone"]) == ("rows", 16, "featx-mini")
    assert featx("cache", "verify", tmp_path / "rows" / item["path"]).code == 0
    again = run(CACHED, tmp_path / "rows", tmp_path / "again.npy", *paths)
    again.communicate("\n", timeout=120)
    assert any((np.load(tmp_path / "again.npy") == row).all() for row in (rows[0], rows[1][::-1]))


def test_what_ctrl_c_leaves_can_be_listed_and_finished(featx, photos, tmp_path, monkeypatch):
    flush = ExtractionRun.finish

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(ExtractionRun, "finish", interrupted)
    assert featx("extract", photos, "-o", tmp_path / "a.h5", *MINI).code == 130
    monkeypatch.setattr(ExtractionRun, "finish", flush)
    (item,) = featx("cache", "ls", tmp_path, "--json").json["items"]
    assert (item["path"], item["state"], item["rows"]) == ("a.h5.parts", "0 left", 16)
    assert featx("cache", "verify", tmp_path / "a.h5").code == 0
    assert featx("extract", photos, "-o", tmp_path / "a.h5", *MINI).code == 0
    with FeatureFile.open(tmp_path / "a.h5") as file:
        assert file.n_rows == 16
