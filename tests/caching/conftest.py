import sys
from pathlib import Path

for folder in (Path(__file__).parents[1] / "store", Path(__file__).parent):
    sys.path.insert(0, str(folder))  # store_samples and the like, also for the processes that the tests start
