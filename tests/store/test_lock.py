import os
import subprocess
import sys
from pathlib import Path

from featx.store.lock import WriterLock, owner_of

RACE = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from featx.errors import StoreLockedError
from featx.store.parts import Parts
path, marker = Path(sys.argv[2]), Path(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
won = 0
until = time.monotonic() + 1.0
while time.monotonic() < until:
    try:
        parts = Parts.take(path)
    except StoreLockedError:
        continue
    os.close(os.open(marker, os.O_CREAT | os.O_EXCL))  # two owners at once would fail here
    os.unlink(marker)
    parts.release(discard=True)
    won += 1
print(won)
"""


def test_owners_that_remove_the_lock_with_its_folder_are_never_two_at_once(tmp_path):
    command = [sys.executable, "-c", RACE, os.path.dirname(__file__), tmp_path / "x.h5", tmp_path / "marker"]
    processes = [subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], results
    assert sum(int(out) for out, _ in results) > 10
    assert os.listdir(tmp_path) == []


def test_the_lock_names_its_owner_and_can_be_taken_again(tmp_path):
    path = Path(tmp_path / "lock")
    lock = WriterLock.take(path)
    assert owner_of(path).startswith(f"pid {os.getpid()} on ")
    assert WriterLock.take(path) is None
    lock.release()
    lock.release()
    again = WriterLock.take(path)
    assert again is not None
    again.release()
    assert owner_of(tmp_path / "none") == "unknown"


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path):
    script = (
        "import os, signal, sys; from pathlib import Path; from featx.store.lock import WriterLock\n"
        "lock = WriterLock.take(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, tmp_path / "lock"]).returncode == -9
    lock = WriterLock.take(tmp_path / "lock")
    assert lock is not None
    lock.release()
