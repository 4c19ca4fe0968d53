"""The workers that decode: what an image does to one of them costs that image alone, and nothing is left behind."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from featx.errors import FeatxError, UsageError
from featx.manifest.source import manifest_of
from featx.spec import Preprocess
from featx.store.records import REASONS
from featx.vision import spare_workers
from featx.vision.decode_pool import DecodePool, prepare_workers
from featx.vision.decode_worker import DecoderDiedError, DecodeWorker, default_command
from featx.vision.decoder import greeting, request
from featx.vision.engine import EngineOptions
from featx.vision.pixels import PixelPlan, read_sample

PLAN = PixelPlan(Preprocess(resize=(8,), crop=(8, 8), mean=(), std=()))

FAULTY = """
import ctypes, os, pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.path[:] = sys.argv[2:]
from featx.vision import decoder

sound = decoder.read_file

def read_file(place, key, frame, plans):
    if "segfault" in place:
        ctypes.string_at(0)
    if "hang" in place:
        time.sleep(1000)
    if "bug" in place:
        raise KeyError("a bug of ours")
    if "exit" in place:
        os._exit(3)
    if "noise" in place:
        print("a library's words", flush=True)
        os.write(1, b"and more")
        os.write(2, b"and complaints")
    if "killed once" in place and not pathlib.Path(place + ".killed").exists():
        pathlib.Path(place + ".killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return sound(place, key, frame, plans)

decoder.read_file = read_file
decoder.main(int(sys.argv[1]))
"""


def faulty_command():
    return [sys.executable, "-P", "-c", FAULTY, str(os.getpid()), *sys.path]


def write(folder, *names):
    paths = [folder / f"{name}.png" for name in names]
    for i, path in enumerate(paths):
        Image.new("RGB", (12, 10), (i, 2 * i, 3 * i)).save(path)
    return paths


def read(paths, *, command=None, plans=(PLAN,), **options):
    manifest = manifest_of(paths)
    with DecodePool(manifest, plans, EngineOptions(**{"num_workers": 2} | options), command=command) as pool:
        futures = [pool.submit(position, range(len(plans))) for position in range(len(paths))]
        return [future.result() for future in futures]


def decoders():
    return [thread for thread in threading.enumerate() if thread.name.startswith("featx-decode")]


@pytest.fixture
def own_spares(monkeypatch):
    """No worker that waits from before, and none that stays."""
    spares = spare_workers.SpareWorkers()
    monkeypatch.setattr("featx.vision.decode_pool.SPARES", spares)
    yield spares
    spares.close()


def assert_same(outcomes, expected):
    for mine, its in zip(outcomes, expected, strict=True):
        assert mine.entry == its.entry
        assert np.array_equal(mine.pixels, its.pixels)


def test_a_worker_reads_what_this_process_would_read(tmp_path):
    paths = write(tmp_path, "a", "b", "c")
    (tmp_path / "words.png").write_text("no image")
    not_utf8 = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    Path(not_utf8).write_bytes(paths[0].read_bytes())
    paths += [tmp_path / "words.png", tmp_path / "missing.png", not_utf8]
    larger = PixelPlan(Preprocess(resize=(9, 7), crop=(), mean=(), std=(), interpolation="bicubic"), ("plain", "hflip"))
    plans = (PLAN, larger)
    manifest = manifest_of(paths)
    for position, outcomes in enumerate(read(paths, plans=plans)):
        assert_same(outcomes, read_sample(manifest, position, plans))
    assert [outcomes[1].pixels.shape for outcomes in read(paths[:1], plans=plans)] == [(2, 3, 9, 7)]


def test_an_image_that_crashes_or_hangs_its_worker_is_a_failed_row_and_costs_no_other_one(tmp_path):
    names = ["1", "segfault", "2", "bug", "3", "hang", "4", "exit", "5"]
    outcomes = read(write(tmp_path, *names), command=faulty_command(), time_limit=1.5)
    reasons = {name: outcome.entry.reason for name, (outcome,) in zip(names, outcomes, strict=True)}
    assert reasons == {
        **dict.fromkeys("12345", ""),
        "segfault": "decoder-crash: signal 11 (Segmentation fault)",
        "bug": "decoder-crash: KeyError: 'a bug of ours'",
        "hang": "timeout: 1.5 s",
        "exit": "decoder-crash: exit code 3",
    }
    for name, (outcome,) in zip(names, outcomes, strict=True):
        assert (outcome.entry.status == "ok") == (outcome.pixels is not None) == (name in "12345")
        assert outcome.entry.reason.partition(":")[0] in {"", *REASONS}


def test_a_worker_that_was_killed_from_outside_costs_no_image(tmp_path):
    ((outcome,),) = read(write(tmp_path, "killed once"), command=faulty_command())
    assert outcome.entry.status == "ok"


def test_idle_workers_that_were_killed_from_outside_cost_no_image(tmp_path, own_spares):
    paths = write(tmp_path, "1", "2", "3")
    with DecodePool(manifest_of(paths), (PLAN,), EngineOptions(num_workers=2)) as pool:
        for future in [pool.submit(position, [0]) for position in (0, 1)]:
            future.result()
        killed = list(pool._idle)
        for worker in killed:
            worker.kill()
        while any(worker.is_alive for worker in killed):
            time.sleep(0.01)
        assert pool.submit(2, [0]).result()[0].entry.status == "ok"
    assert len(killed) == 2


def test_what_a_library_prints_does_not_get_between_the_answers(tmp_path, capfd):
    outcomes = read(write(tmp_path, "noise", "1"), command=faulty_command(), num_workers=1)
    assert [outcome.entry.status for (outcome,) in outcomes] == ["ok", "ok"]
    assert capfd.readouterr() == ("", "")


def test_a_worker_that_cannot_start_is_an_error_that_says_why_and_not_an_endless_loop(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no numpy in this place')"]
    with pytest.raises(FeatxError, match=r"does not start: exit code 1 .no numpy in this place.*\n.*--num-workers 0"):
        read(write(tmp_path, "1", "2"), command=command)
    with pytest.raises(FeatxError, match="No such file"):
        read(write(tmp_path, "1"), command=[str(tmp_path / "python-of-old")])
    assert not decoders()


def test_without_workers_and_for_pixels_in_memory_no_process_is_started(tmp_path):
    command = [str(tmp_path / "no such program")]
    ((outcome,),) = read(write(tmp_path, "1"), command=command, num_workers=0)
    assert outcome.entry.status == "ok"
    ((outcome,),) = read([np.zeros((4, 4, 3), np.uint8)], command=command)
    assert outcome.entry.status == "ok"


def test_an_option_that_does_not_fit_is_raised_as_what_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(UsageError, match="LOAD_TRUNCATED_IMAGES is on"):
        read(write(tmp_path, "1"))


def test_the_limit_of_pixels_is_this_process_s(tmp_path, monkeypatch):
    paths = write(tmp_path, "1")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read(paths)[0][0].entry.reason.startswith("bomb: 12 x 10 pixels")
    monkeypatch.undo()
    assert read(paths)[0][0].entry.status == "ok"


def test_closing_waits_for_no_image_and_leaves_neither_thread_nor_process(tmp_path, own_spares):
    paths = write(tmp_path, "hang", "1")
    started = time.monotonic()
    with DecodePool(manifest_of(paths), (PLAN,), EngineOptions(num_workers=2), command=faulty_command()) as pool:
        hanging, good = pool.submit(0, [0]), pool.submit(1, [0])
        assert good.result()[0].entry.status == "ok"
        (busy,) = pool._busy
    assert time.monotonic() - started < 30
    assert not decoders()
    with pytest.raises(FeatxError, match="closed"):
        hanging.result()
    with pytest.raises(ProcessLookupError):
        os.kill(busy.pid, 0)


def test_idle_workers_serve_the_next_pool_and_a_dead_one_is_replaced(tmp_path, own_spares):
    paths = write(tmp_path, "1")
    read(paths)
    (worker,) = own_spares._spares
    read(paths, plans=(PLAN, PixelPlan(PLAN.preprocess, ("hflip",))))
    assert own_spares._spares == [worker]
    worker.kill()
    while worker.is_alive:
        time.sleep(0.01)
    assert read(paths)[0][0].entry.status == "ok"
    assert [other.pid != worker.pid for other in own_spares._spares] == [True]
    own_spares.close()
    assert not worker.is_alive


def test_workers_that_were_prepared_are_those_that_work(tmp_path, own_spares):
    manifest = manifest_of(write(tmp_path, "1", "2", "3"))
    for options in (EngineOptions(num_workers=0), EngineOptions(num_workers=2), EngineOptions(num_workers=2)):
        prepare_workers(manifest, options)
    prepare_workers(manifest_of([np.zeros((4, 4, 3), np.uint8)]), EngineOptions(num_workers=5))
    own_spares._starter.submit(int).result()
    prepared = {worker.pid for worker in own_spares._spares}
    assert len(prepared) == 2
    read(manifest.paths)
    assert {worker.pid for worker in own_spares._spares} == prepared


def test_a_worker_follows_this_process_from_folder_to_folder(tmp_path, own_spares, monkeypatch):
    for name in ("a", "b", "gone"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        write(tmp_path / name, name)
        assert read([f"{name}.png"], num_workers=1)[0][0].entry.status == "ok"
    shutil.rmtree(tmp_path / "gone")
    assert read([f"{name}.png"], num_workers=1)[0][0].entry.reason == "missing"
    assert read([tmp_path / "a" / "a.png"], num_workers=1)[0][0].entry.status == "ok"
    assert len(own_spares._spares) == 1


def test_ctrl_c_in_the_terminal_does_not_reach_a_worker(tmp_path):
    (path,) = write(tmp_path, "1")
    worker = DecodeWorker(default_command())
    try:
        worker.greet(greeting([PLAN]))
        for _ in range(3):
            os.kill(worker.pid, signal.SIGINT)
            assert worker.ask(request(str(path), "1.png", 0, [0]), 60)[0].entry.status == "ok"
    finally:
        worker.close()


def test_an_answer_that_makes_no_sense_is_the_worker_s_death():
    worker = DecodeWorker([sys.executable, "-c", "print('A' * 100, flush=True); input()"])
    try:
        with pytest.raises(DecoderDiedError, match="nonsense"):
            worker.greet(b"hello\n")
    finally:
        worker.close()


def test_the_worker_loads_neither_torch_nor_scikit_learn():
    imports = "import sys, featx.vision.decoder, featx.vision.engine"
    program = imports + "; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "PIL" in loaded
    assert not {"torch", "torchvision", "sklearn", "scipy", "h5py", "pandas", "pyarrow", "pydicom"} & set(loaded)


def test_the_memory_of_a_worker_stays_flat(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.jpg" for i in range(6)]
    for path, side in zip(paths, (300, 1200, 700, 1500, 64, 1000), strict=True):
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(path)
    worker = DecodeWorker(default_command())
    sizes = []
    try:
        worker.greet(greeting([PLAN]))
        for _ in range(12):
            for path in paths:
                worker.ask(request(str(path), path.name, 0, [0]), 60)
            sizes.append(int(Path(f"/proc/{worker.pid}/statm").read_text().split()[1]))
    finally:
        worker.close()
    assert max(sizes[6:]) <= 1.1 * max(sizes[:3])


PARENT = """
import sys, time
from featx.manifest.source import manifest_of
from featx.spec import Preprocess
from featx.vision.decode_pool import DecodePool, prepare_workers
from featx.vision.engine import EngineOptions
from featx.vision.pixels import PixelPlan

plan = PixelPlan(Preprocess(resize=(8,), crop=(8, 8), mean=(), std=()))
pool = DecodePool(manifest_of(sys.argv[1:3]), [plan], EngineOptions(num_workers=2), command=eval(sys.argv[3]))
busy, idle = pool.submit(0, [0]), pool.submit(1, [0])
idle.result()
print(*[worker.pid for worker in [*pool._busy, *pool._idle]], flush=True)
time.sleep(600)
"""


def is_running(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a busy worker ends with its image")
def test_workers_end_with_a_parent_that_was_killed_also_in_the_middle_of_an_image(tmp_path):
    hang, good = write(tmp_path, "hang", "1")
    command = f"[sys.executable, '-P', '-c', {FAULTY!r}, str(__import__('os').getpid()), *sys.path]"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, hang, good, command], stdout=subprocess.PIPE, text=True)
    try:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(is_running, pids))
    finally:
        parent.kill()
        parent.communicate()
    deadline = time.monotonic() + 30
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_running, pids))


@pytest.mark.slow
def test_a_script_without_a_main_guard_works_and_a_file_beside_it_is_no_module_of_the_worker(tmp_path):
    write(tmp_path, "1", "2")
    (tmp_path / "script").mkdir()
    (tmp_path / "numpy.py").write_text("raise SystemExit('this is not numpy')")
    script = tmp_path / "script" / "run.py"
    script.write_text(
        "print('once')\n"
        "import featx\n"
        "request = featx.FeatureRequest(backbone='featx-mini')\n"
        "report = featx.extract(['1.png', '2.png'], 'x.h5', request=request)\n"
        "print(report.rows, report.failures)\n"
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout.split("\n")[:2] == ["once", "2 {}"]
    assert done.stderr == ""
