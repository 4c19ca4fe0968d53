import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # store_samples, also for the processes that the tests start
