import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # dicom_files
sys.path.append(str(Path(__file__).parents[1] / "bin" / "bench.d"))  # what bin/bench faults is made of
