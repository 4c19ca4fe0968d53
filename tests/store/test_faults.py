import errno
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import store_samples as samples
from fault_disk import FileSystem, Recorder, crash_states

from featx.errors import StoreWriteError
from featx.store import disk, open_shard
from featx.store.file import FeatureFile
from featx.store.parts import pending

MANIFEST = samples.manifest(18)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(open_shard, "MAX_SAMPLES", 8)


@pytest.fixture
def no_sync(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # what a sync does is modelled


def nothing(root):
    pass


def an_older_file(root):
    samples.extract(root / "x.h5", samples.manifest(10, labels=["old"] * 10))


def a_stopped_run(root):
    with samples.open_run(root / "x.h5", MANIFEST) as run:
        run.append(samples.batch(MANIFEST.keys[:4]))


def assert_no_litter(root):
    assert sorted(os.listdir(root)) == ["x.h5"]


def without_every_write_of_hdf5(states, n=12):
    """Leave out states that differ from the one before in the bytes of the file being merged alone, but every n-th."""
    last = None
    for number, kind, names, data in states:
        merging = names.get("x.h5.tmp")
        state = names, {file: content for file, content in data.items() if file != merging}
        if state != last or not number % n:
            yield number, kind, names, data
        last = state


@pytest.mark.parametrize("before", [pytest.param(nothing, marks=pytest.mark.slow), an_older_file, a_stopped_run])
@pytest.mark.parametrize("thin", [without_every_write_of_hdf5, pytest.param(iter, marks=pytest.mark.slow)])
def test_every_crash_point_resumes_to_the_identical_file_and_loses_no_acknowledged_row(
    tmp_path, monkeypatch, no_sync, before, thin
):
    root = tmp_path / "work"
    root.mkdir()
    before(root)
    start = FileSystem.of(root)
    with monkeypatch.context() as patch:
        recorder = Recorder(patch, root)
        with samples.open_run(root / "x.h5", MANIFEST) as run:
            acknowledged = list(run.known)
            recorder.note(acknowledged)
            for batch in samples.batches_of(run, MANIFEST):
                run.append(batch)
                if len(run.known) > len(acknowledged):
                    acknowledged = list(run.known)
                    recorder.note(acknowledged)
            run.finish()
    expected = (root / "x.h5").read_bytes()
    assert_no_litter(root)
    notes = {number: args[0] for number, (name, args) in enumerate(recorder.calls) if name == "note"}
    assert len(notes) >= 2

    n_states = 0
    for number, kind, names, data in thin(crash_states(start, recorder.calls)):
        place = tmp_path / "crashed"
        place.mkdir()
        start.materialise(place, names=names, data=data)
        promised = [args for at, args in notes.items() if at < number]
        with samples.open_run(place / "x.h5", MANIFEST) as run:
            lost = set(promised[-1] if promised else ()) - set(run.known)
            assert not lost, (number, kind)
            for batch in samples.batches_of(run, MANIFEST):
                run.append(batch)
            run.finish()
        assert (place / "x.h5").read_bytes() == expected, (number, kind)
        assert_no_litter(place)
        shutil.rmtree(place)
        n_states += 1
    assert n_states > 30


def operations(tmp_path, monkeypatch, before, *, step):
    """Run once; return the numbers of its operations, of the many writes of HDF5 every `step`-th only."""
    root = tmp_path / "clean"
    root.mkdir()
    before(root)
    with monkeypatch.context() as patch:
        recorder = Recorder(patch, root)
        samples.extract(root / "x.h5", MANIFEST)
    names = ["", *(name for name, _ in recorder.calls)]
    merging = [at for at, pair in enumerate(itertools.pairwise(names)) if pair == ("write", "write")]
    return [at for at in range(len(recorder.calls)) if at not in merging or not at % step], root / "x.h5"


@pytest.mark.parametrize(
    ("before", "step"),
    [
        (nothing, 60),
        pytest.param(nothing, 1, marks=pytest.mark.slow),
        pytest.param(an_older_file, 1, marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_at_every_operation_is_a_store_write_error_and_the_run_resumes(
    tmp_path, monkeypatch, no_sync, before, step
):
    places, whole = operations(tmp_path, monkeypatch, before, step=step)
    n_raised = n_exact = 0
    for at in places:
        root = tmp_path / str(at)
        root.mkdir()
        before(root)
        path = root / "x.h5"
        error = None
        with monkeypatch.context() as patch:
            Recorder(patch, root, refuse_at=at, error=OSError(errno.ENOSPC, "No space left on device"))
            try:
                samples.extract(path, MANIFEST)
            except StoreWriteError as caught:
                error = caught
        if error is not None:
            n_raised += 1
            assert error.errno == errno.ENOSPC
            assert "No space left on device" in str(error)
            n_old = FeatureFile.open(path).n_samples if path.exists() else 0
            left = pending(path)
            n_kept = min(18, n_old + (left.n_done if left else 0))
            with samples.open_run(path, MANIFEST) as run:
                assert len(run.known) == n_kept
            if "is kept" in str(error):
                said = int(re.search(r"outcome of (\d+) of 18 samples is kept; the same command again", str(error))[1])
                assert n_kept - 8 <= said <= n_kept  # a line whose sync was refused may be there all the same
                n_exact += said == n_kept
        samples.extract(path, MANIFEST)  # where nothing was raised, the housekeeping at the end was refused
        assert path.read_bytes() == whole.read_bytes()
        assert_no_litter(root)
        shutil.rmtree(root)
    assert n_raised > 20
    assert n_exact > 12


@pytest.mark.slow
def test_ctrl_c_in_every_operation_keeps_the_open_shard_and_the_run_resumes(tmp_path, monkeypatch, no_sync):
    places, whole = operations(tmp_path, monkeypatch, nothing, step=60)
    for at in places:
        root = tmp_path / str(at)
        root.mkdir()
        path = root / "x.h5"
        appended = []
        with monkeypatch.context() as patch:
            Recorder(patch, root, refuse_at=at, error=signal.SIGINT, once=True)
            with pytest.raises(KeyboardInterrupt):
                samples.extract(path, MANIFEST, before_batch=appended.append)
        with samples.open_run(path, MANIFEST) as run:
            assert set(run.known) >= {entry.key for batch in appended for entry in batch.entries}
        samples.extract(path, MANIFEST)
        assert path.read_bytes() == whole.read_bytes()
        assert_no_litter(root)
        shutil.rmtree(root)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_target_that_cannot_be_written_is_a_store_write_error(tmp_path, monkeypatch, code):
    an_older_file(tmp_path)
    before = (tmp_path / "x.h5").read_bytes()
    with monkeypatch.context() as patch:
        Recorder(patch, tmp_path, refuse_at=0, error=OSError(code, os.strerror(code)))
        with pytest.raises(StoreWriteError, match=os.strerror(code)) as caught:
            samples.open_run(tmp_path / "x.h5", MANIFEST)
    assert caught.value.errno == code
    assert (tmp_path / "x.h5").read_bytes() == before


def test_a_full_disk_leaves_no_half_merged_file(tmp_path, monkeypatch):
    with samples.open_run(tmp_path / "x.h5", MANIFEST) as run:
        for batch in samples.batches_of(run, MANIFEST):
            run.append(batch)
        run.flush()
        real, written = disk.write, []

        def write(fd, data, offset):
            written.append(len(data))
            if len(written) > 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(fd, data, offset)

        monkeypatch.setattr(disk, "write", write)
        with pytest.raises(StoreWriteError, match="18 of 18 samples is kept") as caught:
            run.finish()
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == ["x.h5.parts"]


LIMITED = """
import json, resource, sys
sys.path.insert(0, sys.argv[1])
import store_samples as samples
from featx.errors import StoreWriteError
samples.make_shards_small()
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    samples.extract(sys.argv[2], samples.manifest(80), of=samples.spec(feature_shape=(200,)))
except StoreWriteError as error:
    print(json.dumps([error.errno, str(error)]))
"""


@pytest.mark.parametrize(("limit", "n_kept"), [(10_000, 0), (50_000, 80)])
def test_a_real_file_size_limit_is_a_store_write_error_and_the_run_resumes(tmp_path, monkeypatch, limit, n_kept):
    path, manifest, spec = tmp_path / "x.h5", samples.manifest(80), samples.spec(feature_shape=(200,))
    command = [sys.executable, "-c", LIMITED, os.path.dirname(__file__), path, str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    code, message = json.loads(done.stdout)
    assert code == errno.EFBIG
    assert f"{n_kept} of 80 samples is kept" in message
    assert not path.exists()
    with samples.open_run(path, manifest, spec) as run:
        assert len(run.known) == n_kept
    samples.extract(path, manifest, of=spec)
    samples.extract(tmp_path / "whole.h5", manifest, of=spec)
    assert path.read_bytes() == (tmp_path / "whole.h5").read_bytes()


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
import store_samples as samples
samples.make_shards_small()
def say(run):
    print(len(run.known), flush=True)
samples.extract(sys.argv[2], samples.manifest(400), after_batch=say)
"""


@pytest.mark.parametrize("kill_at", [9, 100, 350])
def test_a_run_killed_with_sigkill_and_resumed_equals_an_uninterrupted_one(tmp_path, monkeypatch, kill_at):
    path, manifest = tmp_path / "x.h5", samples.manifest(400)
    command = [sys.executable, "-c", KILLED, os.path.dirname(__file__), path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            acknowledged = int(line)
            if acknowledged >= kill_at:
                process.kill()
                break
    assert process.returncode == -signal.SIGKILL
    assert not path.exists()
    left = pending(path)
    assert left.n_done >= acknowledged
    assert left.n_left == 400 - left.n_done
    monkeypatch.setattr(open_shard, "MAX_SAMPLES", 2048)
    with samples.open_run(path, manifest) as run:
        assert list(run.known) == manifest.keys[: left.n_done]
    samples.extract(path, manifest)
    samples.extract(tmp_path / "whole.h5", manifest)
    assert path.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def a_folder_with_shards(tmp_path):
    path = tmp_path / "x.h5"
    with samples.open_run(path, MANIFEST) as run:
        for batch in samples.batches_of(run, MANIFEST):
            run.append(batch)
    folder = tmp_path / "x.h5.parts"
    return path, folder, sorted(folder.glob("shard-*"))


def known_keys(path):
    with samples.open_run(path, MANIFEST) as run:
        return list(run.known)


def test_a_shard_that_is_gone_or_altered_does_not_count(tmp_path):
    path, _, shards = a_folder_with_shards(tmp_path)
    assert len(shards) == 3
    data = bytearray(shards[1].read_bytes())
    data[len(data) // 2] ^= 1
    shards[1].write_bytes(data)
    shards[2].unlink()
    assert known_keys(path) == MANIFEST.keys[:8]
    samples.extract(path, MANIFEST)
    samples.extract(tmp_path / "whole.h5", MANIFEST)
    assert path.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_a_shard_without_a_line_does_not_count(tmp_path):
    path, folder, _ = a_folder_with_shards(tmp_path)
    lines = (folder / "journal").read_bytes().splitlines(keepends=True)
    (folder / "journal").write_bytes(b"".join(lines[:2]))
    assert known_keys(path) == MANIFEST.keys[:16]


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_torn_last_line_is_ignored_and_overwritten(tmp_path, cut):
    path, folder, _ = a_folder_with_shards(tmp_path)
    journal = folder / "journal"
    journal.write_bytes(journal.read_bytes()[:-cut])
    assert known_keys(path) == MANIFEST.keys[:16]
    with samples.open_run(path, MANIFEST) as run:
        for batch in samples.batches_of(run, MANIFEST):
            run.append(batch)
    assert len(journal.read_bytes().splitlines()) == 3
    assert known_keys(path) == MANIFEST.keys


def test_a_bad_line_in_the_middle_does_not_cost_the_shards_after_it(tmp_path):
    path, folder, _ = a_folder_with_shards(tmp_path)
    lines = (folder / "journal").read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"samples": 8', b'"samples": 9')
    (folder / "journal").write_bytes(b"".join(lines))
    assert known_keys(path) == [*MANIFEST.keys[:8], *MANIFEST.keys[16:]]
    samples.extract(path, MANIFEST)
    samples.extract(tmp_path / "whole.h5", MANIFEST)
    assert path.read_bytes() == (tmp_path / "whole.h5").read_bytes()


@pytest.mark.parametrize(
    ("field", "value"),
    [("number", "2"), ("number", -1), ("samples", None), ("size", 2.5), ("sha256", "\0"), ("left", [8])],
)
def test_a_line_of_the_wrong_types_is_no_line_though_its_checksum_is_right(tmp_path, field, value):
    path, folder, _ = a_folder_with_shards(tmp_path)
    lines = (folder / "journal").read_bytes().splitlines(keepends=True)
    text = json.dumps(json.loads(lines[1].partition(b" ")[2]) | {field: value}).encode()
    lines[1] = b"%08x %s\n" % (zlib.crc32(text), text)
    (folder / "journal").write_bytes(b"".join(lines))
    assert pending(path).n_done == 10
    assert known_keys(path) == [*MANIFEST.keys[:8], *MANIFEST.keys[16:]]


def test_a_line_that_is_nested_without_end_is_no_line(tmp_path):
    path, folder, _ = a_folder_with_shards(tmp_path)
    text = b"[" * 100_000
    with (folder / "journal").open("ab") as journal:
        journal.write(b"%08x %s\n" % (zlib.crc32(text), text))
    assert known_keys(path) == MANIFEST.keys


def test_a_lost_header_costs_nothing(tmp_path):
    path, folder, _ = a_folder_with_shards(tmp_path)
    for text in ("{", "[" * 100_000, '{"spec": {"preprocess": 3}}'):
        (folder / "header.json").write_text(text)
        assert pending(path) is None
    assert known_keys(path) == MANIFEST.keys


@pytest.mark.skipif(os.geteuid() == 0, reason="permission bits do not stop root")
def test_a_read_only_folder_is_a_store_write_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreWriteError) as caught:
        samples.open_run(tmp_path / "x.h5", MANIFEST)
    assert caught.value.errno == errno.EACCES


def test_a_target_below_a_file_is_a_store_write_error(tmp_path):
    Path(tmp_path / "file").write_text("")
    with pytest.raises(StoreWriteError, match="give another -o"):
        samples.open_run(tmp_path / "file" / "x.h5", MANIFEST)
