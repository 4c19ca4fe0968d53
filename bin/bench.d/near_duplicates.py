"""`bin/bench near_duplicates`: which copies of a photograph are found in its features, and which other pairs are.

Every photograph of hymenoptera is written again in several ways. For each way, originals and copies together are one
set of images, as if somebody had collected both; found is a copy that makes a pair with its original. Pairs of
different photographs are counted too, and those among the originals and in cifar10-small named.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _featx import run_json
from PIL import Image, ImageEnhance, ImageOps

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from featx.learn.dataset import Features, load_features  # noqa: E402
from featx.learn.near_duplicates import find_near_duplicates  # noqa: E402


def crop(share: float) -> Callable[[Image.Image], Image.Image]:
    """Cut to a share of each side, off the centre."""

    def cut(image: Image.Image) -> Image.Image:
        width, height = int(image.width * share), int(image.height * share)
        left, top = int((image.width - width) * 0.7), int((image.height - height) * 0.3)
        return image.crop((left, top, left + width, top + height))

    return cut


WAYS: dict[str, tuple[Callable[[Image.Image], Image.Image], int]] = {
    "JPEG at quality 80": (lambda image: image, 80),
    "JPEG at quality 50": (lambda image: image, 50),
    "half the size": (lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS), 92),
    "darker, 0.8": (lambda image: ImageEnhance.Brightness(image).enhance(0.8), 92),
    "brighter, 1.3": (lambda image: ImageEnhance.Brightness(image).enhance(1.3), 92),
    "turned by 5 degrees": (lambda image: image.rotate(5, Image.Resampling.BICUBIC), 92),
    "mirrored": (ImageOps.mirror, 92),
    "cut to 90 % of each side": (crop(0.9), 92),
    "cut to 80 % of each side": (crop(0.8), 92),
    "cut to 60 % of each side": (crop(0.6), 92),
    "without colour": (lambda image: image.convert("L").convert("RGB"), 92),
}


def write_copies(photos: list[Path], folder: Path) -> None:
    """Write each photograph as it is, and in every way, under a number."""
    for number, path in enumerate(photos):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        for name, (change, quality) in {"original": (lambda image: image, 0), **WAYS}.items():
            target = folder / name
            target.mkdir(exist_ok=True)
            if quality:
                change(image).save(target / f"{number:04}.jpg", quality=quality)
            else:
                image.save(target / f"{number:04}.png")


def part(features: Features, way: str) -> np.ndarray:
    """The rows of one way, in the order of the photographs."""
    return features.X[[key.startswith(f"{way}/") for key in features.keys]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench near_duplicates", description=__doc__)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", metavar="FOLDER")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th photograph")
    options = parser.parse_args()
    data, weights = options.shared / "data", options.shared / "weights/mobilenet_v2-imagenet1k.pth"
    if not data.is_dir():
        sys.exit(f"{data} is not there")
    backbones = {"featx-mini": ("--backbone", "featx-mini")}
    if weights.is_file():
        backbones["mobilenet_v2"] = ("--backbone", "mobilenet_v2", "--weights", str(weights))
    photos = sorted((data / "hymenoptera").rglob("*.jpg"))[:: options.every]
    with tempfile.TemporaryDirectory() as scratch:
        copies = Path(scratch, "copies")
        copies.mkdir()
        write_copies(photos, copies)
        for name, backbone in backbones.items():
            target = Path(scratch, f"{name}.h5")
            run_json("extract", copies, "-o", target, *backbone)
            run_json("extract", data / "cifar10-small", "-o", Path(scratch, f"{name}-cifar.h5"), *backbone)
            features = load_features(target)
            originals = part(features, "original")
            print(f"\n{name}: {len(originals)} photographs and a copy of each")
            for way in WAYS:
                near = find_near_duplicates(np.concatenate([originals, part(features, way)]))
                same = near.pairs[:, 0] == near.pairs[:, 1] - len(originals)
                print(f"  {way:26} {same.sum() / len(originals):6.1%} found, {np.sum(~same)} other pairs")
            for what, X, keys in (
                ("the photographs alone", originals, [str(path.relative_to(data)) for path in photos]),
                ("cifar10-small", *_rows(load_features(Path(scratch, f"{name}-cifar.h5")))),
            ):
                near = find_near_duplicates(X)
                print(f"  {what}: {len(X)} images, {len(near)} pairs; {near.rule}")
                for (one, other), distance in zip(near.pairs, near.distances, strict=True):
                    print(f"    {distance:.4f} {keys[one]} ~ {keys[other]}")


def _rows(features: Features) -> tuple[np.ndarray, list[str]]:
    return features.X, list(features.keys)


if __name__ == "__main__":
    main()
