"""The Ray engine on a real cluster of this machine: equal to the local one, whatever dies."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from featx.errors import FeatxError, UsageError
from featx.extract import extract
from featx.spec import FeatureRequest
from featx.store.file import FeatureFile
from featx.vision.engine import EngineOptions
from featx.vision.ray_cluster import RayOptions
from featx.vision.ray_crew import Crew

ray = pytest.importorskip("ray")

pytestmark = [
    # Ray leaves sockets and files to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]

NETWORK = '''
import os, signal, time
import torch
from torch import nn
from featx.spec import Preprocess

class Means(nn.Module):
    """Channel means; a white image ends the process, a very dark one takes its time."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Linear(3, 3)

    def forward(self, x):
        means = x.mean(dim=(2, 3))
        if x.device.type != "meta" and FATAL and (means > 0.95).all(dim=1).any():
            os.kill(os.getpid(), signal.SIGKILL)
        if x.device.type != "meta" and SLOW and (means < 0.05).all(dim=1).any():
            time.sleep(0.2)
        return self.scale(means)

FATAL = FATAL_HERE
SLOW = SLOW_HERE

def network():
    return Means(), Preprocess(resize=(8, 8), crop=(8, 8), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
'''


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    yield
    ray.shutdown()


def write_network(folder, name, *, fatal=False, slow=False):
    text = NETWORK.replace("FATAL_HERE", str(fatal)).replace("SLOW_HERE", str(slow))
    (folder / f"{name}.py").write_text(text)
    return f"{name}:network"


def write_images(folder, n, *, white=(), black=(), broken=()):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(n):
        value = 255 if i in white else 0 if i in black else None
        pixels = (
            rng.integers(1, 200, (8, 8, 3), dtype=np.uint8) if value is None else np.full((8, 8, 3), value, np.uint8)
        )
        pixels[0, 0] = i % 256, i // 256, 255 if value == 255 else 0  # no two images alike
        Image.fromarray(pixels).save(folder / f"{i:04}.png")
        if i in broken:
            (folder / f"{i:04}.png").write_bytes(b"no image")
    return folder


def contents(path):
    with FeatureFile.open(path) as file:
        return file.keys(), file.features(), list(file.ledger().entries()), file.fingerprint


def assert_same(one, other):
    (keys, features, ledger, fingerprint), (keys2, features2, ledger2, fingerprint2) = contents(one), contents(other)
    assert keys == keys2
    assert fingerprint == fingerprint2
    assert features.tobytes() == features2.tobytes()
    assert ledger == ledger2


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(source, output, backbone, engine="ray", progress=None, **options):
    given = {"batch_size": 4, "num_workers": 1, "device": "cpu"} | options
    return extract(
        source,
        output,
        request=FeatureRequest(backbone=backbone),
        engine=EngineOptions(engine=engine, **given),
        progress=progress,
    )


def test_a_cluster_that_is_not_there_is_one_clear_message(here):
    photos = write_images(here / "photos", 2)
    with pytest.raises(UsageError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        run(photos, here / "x.h5", write_network(here, "nowhere_network"), ray=RayOptions(address="127.0.0.1:1"))


@dataclass(eq=False)
class Start:
    """Stands for Ray's promise that an actor is ready."""

    fails: bool


class Cluster:
    """Stands for the module `ray`: some starts of actors fail, in the order in which they are asked for."""

    exceptions = ray.exceptions

    def __init__(self, *fails):
        self._fails = list(fails)
        self.n_started = 0

    def put(self, value):
        return value

    def remote(self, **share):
        return lambda worker: SimpleNamespace(remote=self._start)

    def _start(self, setup):
        self.n_started += 1
        fails = self._fails.pop(0) if self._fails else True
        return SimpleNamespace(ready=SimpleNamespace(remote=lambda: Start(fails)))

    def wait(self, references, timeout):
        return references[:1], references[1:]

    def get(self, reference):
        if reference.fails:
            raise ray.exceptions.RayActorError


def crew_of(cluster):
    connected = SimpleNamespace(ray=cluster, options=RayOptions())
    return Crew(connected, SimpleNamespace(cpus=1, gpus=0, n_actors=2), None, n_pieces=9)


def test_starts_of_actors_that_fail_end_the_run_only_where_none_has_ever_worked():
    nothing_works = Cluster()
    crew = crew_of(nothing_works)
    for _ in range(5):
        crew.wait()
    with pytest.raises(FeatxError, match="6 actors of the Ray cluster could not be started"):
        crew.wait()
    assert nothing_works.n_started == 2 + 5, "the last failure asks for no other"
    one_node_is_dying = crew_of(Cluster(True, True, True, True, False))
    for _ in range(20):
        one_node_is_dying.wait()
    assert one_node_is_dying.has_room


@pytest.mark.slow
def test_ray_gives_the_file_of_the_local_engine_bit_for_bit(here, cluster):
    photos = write_images(here / "photos", 43, broken={5, 17})
    backbone = write_network(here, "same_network")
    run(photos, here / "local.h5", backbone, "local")
    report = run(photos, here / "ray.h5", backbone)
    assert report.computed == 41
    assert set(report.failures.values()) == {"not-an-image"}
    assert_same(here / "local.h5", here / "ray.h5")


@pytest.mark.slow
def test_an_image_that_ends_its_actor_is_a_failed_row_and_the_rest_of_its_batch_is_as_without_it(here, cluster):
    photos = write_images(here / "photos", 30, white={13})
    with pytest.warns(RuntimeWarning, match="the actor died each time it computed 0013.png"):
        report = run(photos, here / "ray.h5", write_network(here, "deadly_network", fatal=True))
    assert report.failures == {"0013.png": "worker-crash"}
    assert report.computed == 29
    (photos / "0013.png").write_bytes(b"no image")  # what the local engine gives when it cannot be read
    run(photos, here / "local.h5", write_network(here, "mild_network"), "local")
    assert contents(here / "ray.h5")[0] == contents(here / "local.h5")[0]
    assert contents(here / "ray.h5")[1].tobytes() == contents(here / "local.h5")[1].tobytes()


@pytest.mark.slow
def test_kill_9_of_actors_in_mid_run_loses_nothing(here, cluster):
    photos = write_images(here / "photos", 160, black=range(0, 160, 4))
    run(photos, here / "local.h5", write_network(here, "quick_network"), "local")
    backbone = write_network(here, "slow_network", slow=True)
    killed = []

    def kill_some(done, total):
        if done >= 20 * (len(killed) + 1) and len(killed) < 3:
            pids = [pid for pid in _actor_pids() if pid not in killed]
            if pids:
                os.kill(pids[0], signal.SIGKILL)
                killed.append(pids[0])

    options = RayOptions(n_actors=2, cpus_per_actor=1)
    report = run(photos, here / "ray.h5", backbone, progress=kill_some, ray=options)
    assert len(killed) == 3
    assert (report.computed, report.failures) == (160, {})
    assert contents(here / "ray.h5")[0] == contents(here / "local.h5")[0]
    assert contents(here / "ray.h5")[1].tobytes() == contents(here / "local.h5")[1].tobytes()


def _actor_pids():
    """Processes of the machine that Ray has named after our actors."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(b"ray::Worker"):
                found.append(int(folder.name))
        except OSError:
            continue  # it has ended meanwhile
    return found


@pytest.mark.slow
def test_a_worker_node_that_dies_in_mid_run_loses_nothing(here):
    from ray.cluster_utils import Cluster

    photos = write_images(here / "photos", 160, black=range(0, 160, 4))
    run(photos, here / "local.h5", write_network(here, "near_network"), "local")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    killed = []

    def kill_the_node(done, total):
        if done >= 40 and not killed:
            killed.append(done)
            cluster.remove_node(node, allow_graceful=False)

    try:
        report = run(
            photos,
            here / "ray.h5",
            write_network(here, "far_network", slow=True),
            progress=kill_the_node,
            ray=RayOptions(address=cluster.address, cpus_per_actor=1),
        )
    finally:
        cluster.shutdown()
    assert killed
    assert (report.computed, report.failures) == (160, {})
    assert contents(here / "ray.h5")[1].tobytes() == contents(here / "local.h5")[1].tobytes()


@pytest.mark.slow
def test_a_run_that_was_stopped_is_resumed_by_the_other_engine_to_the_same_file(here, cluster):
    photos = write_images(here / "photos", 60)
    backbone = write_network(here, "resumed_network")
    run(photos, here / "local.h5", backbone, "local")

    class Stop(Exception):
        pass

    def stop(done, total):
        if done >= 24:
            raise Stop

    with pytest.raises(Stop):
        run(photos, here / "ray.h5", backbone, progress=stop)
    assert not (here / "ray.h5").exists()
    report = run(photos, here / "ray.h5", backbone, "local", batch_size=7)  # the journal's size counts, not this one
    assert report.unchanged >= 24
    assert_same(here / "local.h5", here / "ray.h5")


@pytest.mark.slow
def test_bytes_that_are_stored_already_are_copied(here, cluster):
    photos = write_images(here / "photos", 12)
    backbone = write_network(here, "copying_network")
    run(photos, here / "ray.h5", backbone)
    (photos / "0012.png").write_bytes((photos / "0003.png").read_bytes())
    report = run(photos, here / "ray.h5", backbone)
    assert (report.computed, report.copied, report.unchanged) == (0, 1, 12)


@pytest.mark.slow
def test_a_network_that_fails_in_an_actor_fails_the_run_with_its_own_message(here, cluster):
    photos = write_images(here / "photos", 4)
    (here / "failing_network.py").write_text(
        NETWORK.replace("FATAL_HERE", "False").replace("SLOW_HERE", "False")
        + "\nMeans.forward = lambda self, x: self.scale(x.mean(dim=(2, 3))) if len(x) < 3 else x.no_such_thing\n"
    )
    with pytest.raises(FeatxError, match="no_such_thing"):
        run(photos, here / "x.h5", "failing_network:network")


@pytest.mark.slow
def test_more_than_the_nodes_have_is_refused(here, cluster):
    photos = write_images(here / "photos", 4)
    options = RayOptions(cpus_per_actor=64)
    with pytest.raises(UsageError, match="no node of the Ray cluster has room for an actor of 64 cores"):
        run(photos, here / "x.h5", write_network(here, "greedy_network"), ray=options)
