"""A few of each fault of `bin/bench faults` strike featx extract; the finished file is the undisturbed one."""

import argparse
import random

import _full_disk
import pytest
from _disturbances import Faults
from _scene import Scene, undisturbed
from faults import RAY, faults_of

pytestmark = pytest.mark.slow

FAULTS = faults_of(argparse.Namespace(kills=4, tries=2, ray_kills=2))


@pytest.fixture(scope="module")
def engine(request, tmp_path_factory):
    """A scene, the options of an engine, and what comes of it undisturbed."""
    options = RAY if request.param == "ray" else ()
    if options:
        pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp(request.param) / "scene"
    scene = Scene.build(folder, n_images=240, pause=0.2 if options else 0.05, shard_seconds=0.3)
    return scene, options, *undisturbed(scene, "undisturbed.h5", *options)


def assert_nothing_is_lost(tally):
    assert tally.tries
    assert not tally.remarks
    assert (tally.lost, tally.wrong, tally.unequal) == (0, 0, set())
    assert tally.finished


@pytest.mark.parametrize(
    ("engine", "name"), [(fault.engine, name) for name, fault in FAULTS.items()], indirect=["engine"]
)
def test_what_is_disturbed_and_resumed_is_the_undisturbed_file(engine, name):
    *_, tally = FAULTS[name].strike(Faults(*engine, random.Random(name)))
    assert_nothing_is_lost(tally)


@pytest.mark.parametrize("kind", ["bytes", "files"])
def test_a_small_disk_that_is_full_loses_nothing(tmp_path, kind):
    if kind not in _full_disk.kinds():
        pytest.skip("no small file system may be mounted here")
    scene = Scene.build(tmp_path / "scene", n_images=80, pause=0, shard_seconds=0)
    *_, tally = _full_disk.try_sizes(kind, scene, tmp_path, max_tries=15)
    assert_nothing_is_lost(tally)
    assert tally.tries == tally.finished == 15
