"""`bin/bench finetune_gain`: what tuning a network gains over its frozen head on photographs, by featx's own gate.

MobileNetV2 with ImageNet weights, the default recipe of `featx finetune` unless an option changes it. hymenoptera:
trained on train, judged on val, at 224 px. cifar10-small: the same with train and test, at 96 px. Once for each seed,
and once for each `--lr` (`found`: by the learning-rate test). Counts hold on any machine up to rounding; times do not.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from _featx import run_json

SHARED = Path(__file__).resolve().parents[3] / "shared"
SETS = {"hymenoptera": 224, "cifar10-small": 96}
COLUMNS = ("images", "lr", "seed", "epochs", "frozen", "tuned", "difference", "verdict", "minutes")


def row(name: str, seed: int, told: dict[str, Any]) -> tuple[str, ...]:
    """What a run found, in the words of the table."""
    n = told["frozen"]["n_samples"]
    right = [round(n * told[who]["scores"]["accuracy"]["mean"]) for who in ("frozen", "tuned")]
    difference, part = told["difference"], told["history"][0]
    return (
        name,
        f"{part['lr']:.2g}" + ("" if told["recipe"]["lr"] else " (found)"),
        str(seed),
        f"{part['best_epoch']} of {len(part['epochs']) - 1}",
        f"{right[0]} of {n}",
        f"{right[1]} of {n}",
        f"{100 * difference['mean']:+.1f} [{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}]",
        told["verdict"],
        f"{told['seconds'] / 60:.1f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bench finetune_gain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=SHARED, metavar="FOLDER", help="holds data/ and weights/")
    parser.add_argument("--only", choices=SETS, help="one of the two sets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--lr", nargs="+", default=["found"], help="found, or a number")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="further ones of featx finetune, last")
    options = parser.parse_args()
    weights = options.shared / "weights/mobilenet_v2-imagenet1k.pth"
    print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS), flush=True)
    for name in [options.only] if options.only else SETS:
        photos, pixels = options.shared / "data" / name, str(SETS[name])
        if not (photos.is_dir() and weights.is_file()):
            sys.exit(f"{photos} or {weights} is not there")
        with tempfile.TemporaryDirectory() as scratch:
            features = Path(scratch, "features.h5")
            network = ["--backbone", "mobilenet_v2", "--weights", weights, "--image-size", pixels]
            run_json("extract", photos, "-o", features, *network)
            for lr in options.lr:
                for seed in options.seeds:
                    out = Path(scratch, f"{lr}-{seed}.featx")
                    rate = [] if lr == "found" else ["--lr", lr]
                    told = run_json(
                        *("finetune", photos, "--features", features, "-o", out, "--random-state", str(seed)),
                        *rate,
                        *options.options,
                    )
                    print("| " + " | ".join(row(name, seed, told)) + " |", flush=True)


if __name__ == "__main__":
    main()
