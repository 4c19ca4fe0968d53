"""`bin/bench hymenoptera`: ants and bees, MobileNetV2 of ImageNet, logistic regression fitted on train."""

import argparse
import sys
import tempfile
from pathlib import Path

from _featx import run_json

SHARED = Path(__file__).resolve().parents[3] / "shared"


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench hymenoptera", description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, metavar="FOLDER", help="holds data/ and weights/")
    shared = parser.parse_args().shared
    photos, weights = shared / "data/hymenoptera", shared / "weights/mobilenet_v2-imagenet1k.pth"
    if not (photos.is_dir() and weights.is_file()):
        sys.exit(f"{photos} or {weights} is not there")
    with tempfile.TemporaryDirectory() as scratch:
        features, bundle = Path(scratch, "ants-bees.h5"), Path(scratch, "ants-bees.featx")
        run_json("extract", photos, "-o", features, "--backbone", "mobilenet_v2", "--weights", weights)
        result = run_json("fit", features, "-o", bundle)
    confusion = result["confusion"]
    right, total = sum(row[i] for i, row in enumerate(confusion)), sum(map(sum, confusion))
    accuracy, cv = result["scores"]["accuracy"], result["cv_scores"]["accuracy"]
    print(f"\nval: {right} of {total} right (goal: 145 +- 2 of 153)")
    print(
        f"     accuracy {accuracy['mean']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}] ({accuracy['method']})"
    )
    print(f"train, cross-validated: accuracy {cv['mean']:.3f} [{cv['low']:.3f}, {cv['high']:.3f}] ({cv['method']})")


if __name__ == "__main__":
    main()
