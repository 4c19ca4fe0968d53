import sys
from pathlib import Path

import pytest

for folder in (Path(__file__).parents[1] / "store", Path(__file__).parent):
    sys.path.insert(0, str(folder))  # store_samples and the like, also for the processes that the tests start


@pytest.fixture(autouse=True)
def _quick(no_waiting_for_the_disk):
    """Nothing here is lost in a power cut."""


@pytest.fixture(autouse=True)
def no_trial(monkeypatch, request):
    """A process for each HDF5 file takes half a second; tests that ask for `with_trial` have it."""
    if "with_trial" not in request.fixturenames:
        monkeypatch.setattr("featx.caching.slides.try_reading", lambda paths: None)


@pytest.fixture
def with_trial():
    """Let foreign HDF5 files be tried in a process of their own."""
