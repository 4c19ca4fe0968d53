"""Pruning: what can be made again goes, what is in use or finished stays."""

import os
import shutil
import time

import pytest
import store_samples as samples
from test_listing import keep_rows, stop_a_run

from featx.caching.pruning import plan_prune, prune
from featx.store.file import FeatureFile
from featx.store.lock import WriterLock
from featx.store.parts import Parts


def going(folder, **options):
    return {leftover.path: leftover.why for leftover in plan_prune(folder, **options).going}


def age(path, days):
    then = time.time() - days * 24 * 3600
    for one in [*(path.rglob("*") if path.is_dir() else []), path]:
        os.utime(one, (then, then))


def test_finished_files_and_fresh_work_stay(tmp_path):
    samples.extract(tmp_path / "a.h5", samples.manifest(8))
    stop_a_run(tmp_path / "b.h5")
    rows = keep_rows(tmp_path)
    plan = plan_prune(tmp_path)
    assert plan.going == []
    assert set(plan.staying) == {"b.h5.parts", rows.name}
    assert "the same featx extract goes on" in plan.staying["b.h5.parts"]
    age(tmp_path / "a.h5", 1000)
    assert going(tmp_path) == {}


def test_old_runs_and_old_rows_go_and_a_rerun_begins_afresh(tmp_path):
    stop_a_run(tmp_path / "b.h5")
    rows = keep_rows(tmp_path / "deep")
    (rows / "somebody's.txt").write_text("kept")
    for path in (tmp_path / "b.h5.parts", rows):
        age(path, 8)
    assert set(going(tmp_path)) == {"b.h5.parts", f"deep/{rows.name}"}
    assert going(tmp_path, older_than=9 * 24 * 3600) == {}
    plan = plan_prune(tmp_path)
    report = prune(plan)
    assert [leftover.path for leftover in report.removed] == ["b.h5.parts"]
    assert report.staying == {f"deep/{rows.name}": "something in it could not be removed"}
    assert [path.name for path in rows.iterdir()] == ["somebody's.txt"]
    assert report.bytes == plan.going[0].bytes > 1000
    samples.extract(tmp_path / "b.h5", samples.manifest(20))
    with FeatureFile.open(tmp_path / "b.h5") as file:
        assert file.n_rows == 18


def test_what_is_of_no_use_goes_at_once(tmp_path):
    path = tmp_path / "a.h5"
    stop_a_run(path, 8, 8)
    shutil.copytree(tmp_path / "a.h5.parts", tmp_path / "kept")
    samples.extract(path, samples.manifest(8))
    shutil.move(tmp_path / "kept", tmp_path / "a.h5.parts")  # killed after the file had its name
    (tmp_path / "b.h5.parts").mkdir()
    (tmp_path / "b.h5.tmp").write_bytes(b"half")
    (tmp_path / "c.h5.tmp").write_bytes(b"half")
    assert going(tmp_path) == {
        "a.h5.parts": "all that it keeps is in the finished file",
        "b.h5.parts": "a run that kept nothing",
        "b.h5.tmp": "left over by a run that was killed",
        "c.h5.tmp": "left over by a run that was killed",
    }
    report = prune(plan_prune(tmp_path))
    assert [one.name for one in tmp_path.iterdir()] == ["a.h5"]
    # b.h5.tmp went with its run
    assert {leftover.path for leftover in report.removed} | set(report.staying) == {
        *("a.h5.parts", "b.h5.parts", "b.h5.tmp", "c.h5.tmp")
    }


def test_a_run_that_holds_more_than_the_file_is_work(tmp_path):
    samples.extract(tmp_path / "a.h5", samples.manifest(8))
    stop_a_run(tmp_path / "a.h5", 12)
    assert going(tmp_path) == {}


def test_a_leftover_beside_a_run_that_goes_on_does_not_take_the_run_with_it(tmp_path):
    stop_a_run(tmp_path / "a.h5")
    (tmp_path / "a.h5.tmp").write_bytes(b"half")
    before = sorted(path.name for path in (tmp_path / "a.h5.parts").iterdir())
    assert [leftover.path for leftover in prune(plan_prune(tmp_path)).removed] == ["a.h5.tmp"]
    assert sorted(path.name for path in (tmp_path / "a.h5.parts").iterdir()) == before


def test_files_go_by_their_names_only(tmp_path):
    for name in ("old-a.h5", "old-b.h5", "new.h5", "deep/old-c.h5"):
        samples.extract(tmp_path / name, samples.manifest(8))
    assert set(going(tmp_path, files=["old-?.h5"])) == {"old-a.h5", "old-b.h5", "deep/old-c.h5"}
    assert set(going(tmp_path, files=["deep/*", "new*"])) == {"deep/old-c.h5", "new.h5"}
    prune(plan_prune(tmp_path, files=["old-*"]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "new.h5"]
    assert not list((tmp_path / "deep").iterdir())


def test_what_is_in_use_stays_and_what_was_written_meanwhile(tmp_path):
    samples.extract(tmp_path / "a.h5", samples.manifest(8))
    stop_a_run(tmp_path / "b.h5")
    rows = keep_rows(tmp_path)
    locks = [Parts.take(tmp_path / "a.h5"), Parts.take(tmp_path / "b.h5")]
    row_lock = WriterLock.take(rows / "lock")
    plan = plan_prune(tmp_path, older_than=0, files=["*"])
    assert plan.going == []
    assert plan.staying["a.h5"] == "a run is writing it"
    for lock in locks:
        lock.release(discard=False)
    row_lock.release()

    plan = plan_prune(tmp_path, older_than=0, files=["*"])
    assert len(plan.going) == 3
    row_lock, lock = WriterLock.take(rows / "lock"), Parts.take(tmp_path / "a.h5")  # between the plan and the deed
    stop_a_run(tmp_path / "b.h5", 12)
    report = prune(plan)
    assert report.removed == []
    assert "written or removed since" in report.staying["b.h5.parts"]
    row_lock.release()
    lock.release(discard=False)


def test_links_are_neither_followed_nor_removed(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "cache"
    stop_a_run(outside / "a.h5")
    folder.mkdir()
    (folder / "a.h5.parts").symlink_to(outside / "a.h5.parts")
    (folder / "deep").symlink_to(outside)
    (outside / "b.h5.tmp").write_bytes(b"half")
    (folder / "b.h5.tmp").symlink_to(outside / "b.h5.tmp")
    plan = plan_prune(folder, older_than=0, files=["*"])
    assert plan.going == []
    plan = plan_prune(outside, older_than=0)
    shutil.move(outside / "a.h5.parts", tmp_path / "moved")
    (outside / "a.h5.parts").symlink_to(tmp_path / "moved")  # a link in its place, after the plan was made
    prune(plan)
    assert (tmp_path / "moved" / "journal").is_file()


@pytest.mark.skipif(os.geteuid() == 0, reason="permission bits do not stop root")
def test_a_folder_that_refuses_is_said(tmp_path):
    (tmp_path / "a.h5.tmp").write_bytes(b"half")
    plan = plan_prune(tmp_path)
    tmp_path.chmod(0o500)
    assert set(prune(plan).staying) == {"a.h5.tmp"}
    tmp_path.chmod(0o700)
