import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # dicom_files, feature_files ...
sys.path.append(str(Path(__file__).parents[1] / "bin" / "bench.d"))  # what bin/bench faults is made of


@pytest.fixture
def no_waiting_for_the_disk(monkeypatch):
    """What outlasts a power cut is tested beside the store; elsewhere nothing is lost, and tests are twice as fast."""
    monkeypatch.setattr("featx.store.disk.sync", lambda fd: None)
    monkeypatch.setattr("featx.store.disk.sync_folder", lambda path: None)


@pytest.fixture(autouse=True)
def modules_of_a_test_are_forgotten(tmp_path_factory):
    """Two tests may write networks of one name; without this, the later one would get the former's."""
    before = set(sys.modules)
    yield
    ours = str(tmp_path_factory.getbasetemp())
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(ours):
            del sys.modules[name]
