import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import store_samples as samples

from featx.store import disk
from featx.store.cache import ShardCache, read_cache_spec
from featx.store.inspection import inspect_shards

SPEC = samples.spec(logits=False)
SHAS = [samples.sha256(str(i)) for i in range(10)]
ROWS = np.array([samples.row(sha)[0] for sha in SHAS])


def assert_holds(cache, positions):
    found = cache.get(SHAS)
    assert sorted(found) == sorted(SHAS[i] for i in positions)
    for i in positions:
        np.testing.assert_array_equal(found[SHAS[i]], ROWS[i])


def test_rows_come_back_by_sha256_in_this_process_and_the_next(tmp_path):
    cache = ShardCache.open(tmp_path / "cache", SPEC)
    assert cache.get(SHAS) == {}
    assert not (tmp_path / "cache").exists()
    cache.put(SHAS[:4], ROWS[:4])
    assert_holds(cache, range(4))
    cache.put(SHAS[3:6], ROWS[3:6])
    assert_holds(cache, range(6))
    assert_holds(ShardCache.open(tmp_path / "cache", SPEC), range(6))


def test_rows_that_are_there_are_not_written_again(tmp_path):
    cache = ShardCache.open(tmp_path, SPEC)
    cache.put(SHAS, ROWS)
    n_files = len(list(tmp_path.rglob("*")))
    ShardCache.open(tmp_path, SPEC).put(SHAS, ROWS)
    assert len(list(tmp_path.rglob("*"))) == n_files


def test_rows_of_another_spec_are_kept_apart(tmp_path):
    ShardCache.open(tmp_path, SPEC).put(SHAS, ROWS)
    assert ShardCache.open(tmp_path, samples.spec(logits=False, pooling="max")).get(SHAS) == {}


def test_float16_storage(tmp_path):
    cache = ShardCache.open(tmp_path, samples.spec(logits=False, storage="float16"))
    cache.put(SHAS, ROWS)
    np.testing.assert_array_equal(cache.get(SHAS[:1])[SHAS[0]], ROWS[0].astype(np.float16))


def test_what_another_process_wrote_is_seen_at_once(tmp_path):
    one, other = ShardCache.open(tmp_path, SPEC), ShardCache.open(tmp_path, SPEC)
    one.put(SHAS[:2], ROWS[:2])
    assert_holds(other, range(2))
    one.put(SHAS[2:4], ROWS[2:4])
    other.put(SHAS[4:6], ROWS[4:6])
    assert_holds(one, range(6))
    assert_holds(other, range(6))


HOLDER = """
import sys
from pathlib import Path
from featx.store.lock import WriterLock
lock = WriterLock.take(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_process_without_the_lock_reads_what_is_there_and_its_put_does_nothing(tmp_path):
    cache = ShardCache.open(tmp_path, SPEC)
    cache.put(SHAS[:3], ROWS[:3])
    command = [sys.executable, "-c", HOLDER, cache.path / "lock"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout.readline() == "held\n"
        cache.put(SHAS[3:], ROWS[3:])
        assert_holds(cache, range(3))
        process.stdin.close()
        process.wait()
        process.stdout.close()
    cache.put(SHAS[3:], ROWS[3:])
    assert_holds(cache, range(10))


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from test_cache import ROWS, SHAS, SPEC, ShardCache
order = slice(None, None, int(sys.argv[3]))
print("ready", flush=True)
sys.stdin.readline()
cache = ShardCache.open(sys.argv[1], SPEC)
for start in range(0, 10, 2):
    cache.put(SHAS[order][start : start + 2], ROWS[order][start : start + 2])
"""


def test_two_processes_that_write_at_once_leave_right_rows_each_once(tmp_path):
    here = os.path.dirname(__file__)
    commands = [[sys.executable, "-c", WRITER, tmp_path, here, order] for order in ("1", "-1")]
    processes = [subprocess.Popen(command, stdin=-1, stdout=-1, text=True) for command in commands]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.wait() for process in processes] == [0, 0]
    for process in processes:
        process.stdin.close()
        process.stdout.close()
    cache = ShardCache.open(tmp_path, SPEC)
    found = cache.get(SHAS)
    assert len(found) >= 2  # whoever finds the other one writing leaves its own rows out
    for sha, row in found.items():
        np.testing.assert_array_equal(row, ROWS[SHAS.index(sha)])
    shards = inspect_shards(cache.path)
    assert (shards.problems, sum(shard.rows for shard in shards.shards)) == ([], len(found))
    assert read_cache_spec(cache.path) == SPEC


def refuse(*args, **options):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("name", ["make_folders", "open_file", "write", "sync", "replace", "sync_folder"])
def test_a_disk_that_refuses_makes_put_do_nothing(tmp_path, monkeypatch, name):
    cache = ShardCache.open(tmp_path, SPEC)
    cache.put(SHAS[:3], ROWS[:3])
    with monkeypatch.context() as patch:
        patch.setattr(disk, name, refuse)
        cache.put(SHAS[3:], ROWS[3:])
    assert set(SHAS[:3]) <= set(cache.get(SHAS))
    cache.put(SHAS[3:], ROWS[3:])
    assert_holds(cache, range(10))
    assert_holds(ShardCache.open(tmp_path, SPEC), range(10))


@pytest.mark.skipif(os.geteuid() == 0, reason="permission bits do not stop root")
def test_a_folder_that_may_not_be_read_or_written_is_an_empty_cache(tmp_path):
    tmp_path.chmod(0)
    cache = ShardCache.open(tmp_path, SPEC)
    cache.put(SHAS, ROWS)
    assert cache.get(SHAS) == {}
    tmp_path.chmod(0o700)


def test_a_file_where_the_folder_should_be_is_an_empty_cache(tmp_path):
    (tmp_path / "cache").write_text("")
    cache = ShardCache.open(tmp_path / "cache", SPEC)
    cache.put(SHAS, ROWS)
    assert cache.get(SHAS) == {}


def test_a_cache_that_is_emptied_while_in_use_never_gives_wrong_rows(tmp_path):
    cache, other = ShardCache.open(tmp_path, SPEC), ShardCache.open(tmp_path, SPEC)
    cache.put(SHAS[:5], ROWS[:5])
    shutil.rmtree(cache.path)
    other.put(SHAS[5:], ROWS[5:])
    for _ in range(2):
        found = cache.get(SHAS)
        assert all((row == ROWS[SHAS.index(sha)]).all() for sha, row in found.items())
    cache.put(SHAS[:5], ROWS[:5])
    assert_holds(ShardCache.open(tmp_path, SPEC), range(10))


def test_a_damaged_shard_costs_its_rows_only(tmp_path):
    cache = ShardCache.open(tmp_path, SPEC)
    cache.put(SHAS[:5], ROWS[:5])
    cache.put(SHAS[5:], ROWS[5:])
    first = sorted(cache.path.glob("shard-*"))[0]
    first.write_bytes(first.read_bytes()[:-1000])
    cache.get(SHAS)
    assert_holds(cache, range(5, 10))
    cache.put(SHAS[:5], ROWS[:5])
    assert_holds(ShardCache.open(tmp_path, SPEC), range(10))
