"""Listing: every state that a folder of feature files can be in, without reading features."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
import store_samples as samples

from featx.caching import listing
from featx.caching.listing import list_folder
from featx.errors import UsageError
from featx.store.cache import ShardCache
from featx.store.file import FeatureFile
from featx.store.lock import is_held
from featx.store.parts import Parts


def items(folder):
    return {item.path: item for item in list_folder(folder)}


def stop_a_run(path, n_done=8, n_samples=20):
    manifest = samples.manifest(n_samples)
    with samples.open_run(path, manifest) as run:
        run.append(samples.batch(manifest.keys[:n_done]))


def keep_rows(folder, n=3, of=samples.SPEC):
    shas = [samples.sha256(str(i)) for i in range(n)]
    ShardCache.open(folder, of).put(shas, np.array([samples.row(sha)[0] for sha in shas]))
    return folder / of.fingerprint[:16]


def test_files_runs_rows_and_leftovers_are_listed_with_what_they_are(tmp_path):
    samples.extract(tmp_path / "done.h5", samples.manifest(20))
    stop_a_run(tmp_path / "deep" / "begun.h5")
    rows = keep_rows(tmp_path / "rows")
    (tmp_path / "cut.h5").write_bytes((tmp_path / "done.h5").read_bytes()[:2000])
    (tmp_path / "empty.hdf5").write_bytes(b"")
    (tmp_path / "old.h5.tmp").write_bytes(b"half")
    (tmp_path / "README.md").write_text("not a feature file")
    (tmp_path / "no-ending").write_bytes((tmp_path / "done.h5").read_bytes())
    (tmp_path / "link.h5").symlink_to(tmp_path / "done.h5")
    (tmp_path / "linked").symlink_to(tmp_path / "deep")
    found = items(tmp_path)
    rows_path = rows.relative_to(tmp_path).as_posix()
    names = ["cut.h5", "deep/begun.h5.parts", "done.h5", "empty.hdf5", "no-ending", "old.h5.tmp", rows_path]
    assert list(found) == sorted(names)
    done = found["done.h5"]
    assert (done.kind, done.state, done.rows, done.failed, done.n_features) == ("file", "complete", 18, 2, 6)
    assert (done.backbone, done.node, done.fingerprint) == ("tiny", "head", samples.SPEC.fingerprint)
    assert done.bytes == (tmp_path / "done.h5").stat().st_size
    begun = found["deep/begun.h5.parts"]
    assert (begun.kind, begun.state, begun.rows, begun.failed, begun.backbone) == ("run", "12 left", 7, 1, "tiny")
    assert found["cut.h5"].is_damaged
    assert found["empty.hdf5"].state == "damaged: not an HDF5 file"
    assert (found["no-ending"].state, found["no-ending"].rows) == ("complete", 18)
    assert (found["old.h5.tmp"].kind, found["old.h5.tmp"].state) == ("temporary", "left over")
    kept = found[rows_path]
    assert (kept.kind, kept.rows, kept.backbone, kept.fingerprint) == ("rows", 3, "tiny", samples.SPEC.fingerprint)
    assert all(0 <= time.time() - item.modified < 60 for item in found.values())


def test_a_file_with_a_stopped_run_beside_it_is_not_complete(tmp_path):
    samples.extract(tmp_path / "a.h5", samples.manifest(8))
    stop_a_run(tmp_path / "a.h5", 12)
    assert {path: item.state for path, item in items(tmp_path).items()} == {"a.h5": "8 left", "a.h5.parts": "8 left"}


def test_what_is_being_written_is_running(tmp_path):
    samples.extract(tmp_path / "a.h5", samples.manifest(8))
    lock = Parts.take(tmp_path / "a.h5")
    (tmp_path / "a.h5.tmp").write_bytes(b"half")
    assert {item.state for item in list_folder(tmp_path)} == {"running"}
    lock.release(discard=True)
    assert {item.state for item in list_folder(tmp_path)} == {"complete"}


def test_a_run_that_kept_nothing(tmp_path):
    (tmp_path / "a.h5.parts").mkdir()
    (tmp_path / "a.h5.parts" / "lock").write_text("")
    assert items(tmp_path)["a.h5.parts"].state == "nothing kept"


def test_listing_reads_no_features_and_no_columns(tmp_path, monkeypatch):
    samples.extract(tmp_path / "a.h5", samples.manifest(8))
    stop_a_run(tmp_path / "b.h5")
    keep_rows(tmp_path)

    def refuse(*args, **options):
        raise AssertionError("read")

    for name in ("features", "logits", "keys", "ledger", "verify"):
        monkeypatch.setattr(FeatureFile, name, refuse)
    assert len(list_folder(tmp_path)) == 3


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        list_folder(tmp_path / "nothing")
    assert list_folder(tmp_path) == []


def test_an_item_is_json_ready(tmp_path):
    samples.extract(tmp_path / "a.h5", samples.manifest(8))
    assert list_folder(tmp_path)[0].to_dict()["state"] == listing.COMPLETE


def test_a_lock_of_a_dead_process_is_free_and_is_not_taken_to_know_that(tmp_path, monkeypatch):
    code = (
        "import sys, os\nfrom pathlib import Path\nfrom featx.store.lock import WriterLock\n"
        "lock = WriterLock.take(Path(sys.argv[1]))\nprint('held', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "lock"], stdin=-1, stdout=-1) as process:
        process.stdout.readline()
        assert is_held(tmp_path / "lock")
        process.kill()
        process.wait()
        process.stdout.close()
    monkeypatch.setattr("fcntl.flock", lambda *args: pytest.fail("touched"))
    assert not is_held(tmp_path / "lock")
    assert not is_held(tmp_path / "no-lock")


@pytest.mark.parametrize("owner", ["", "pid x on y", "pid 99999999999999999999 on elsewhere", "pid OWN on "])
def test_a_lock_that_names_nobody_here_is_asked(tmp_path, owner):
    (tmp_path / "lock").write_text(owner.replace("OWN", str(os.getpid())))
    assert not is_held(tmp_path / "lock")
