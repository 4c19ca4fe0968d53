"""`bin/bench mini`: how good featx-mini's features are beside random weights, raw pixels and MobileNetV2, and how fast.

Logistic regression on standardised frozen features, C chosen by 3-fold cross-validation inside the training part.
Counts and accuracies hold on any machine up to rounding; for speed only the ratio measured in this run means something.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from featx.vision.mini import IMAGE_SIZE, MEAN, STD, featx_mini, load_featx_mini_weights  # noqa: E402

Network = Callable[[torch.Tensor], torch.Tensor]
Features = Callable[[list[Image.Image]], np.ndarray]


def preprocess(image: Image.Image, resize: int, crop: int) -> torch.Tensor:
    """Resize the shorter side, cut out the centre, normalise: (3, crop, crop) float32."""
    shorter = min(image.size)
    width, height = (int(resize * side / shorter) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - crop) / 2), round((height - crop) / 2)
    pixels = np.asarray(image.crop((left, top, left + crop, top + crop)), dtype=np.float32) / 255
    return torch.from_numpy((pixels - np.float32(MEAN)) / np.float32(STD)).permute(2, 0, 1)


def network_features(network: Network, resize: int, crop: int) -> Features:
    def features(images: list[Image.Image]) -> np.ndarray:
        batches = []
        with torch.inference_mode():
            for i in range(0, len(images), 64):
                x = torch.stack([preprocess(image, resize, crop) for image in images[i : i + 64]])
                batches.append(network(x.contiguous(memory_format=torch.channels_last)))
        return torch.cat(batches).numpy()

    return features


def raw_pixels(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)).ravel() for image in images]) / 255.0


def read_folder(folder: Path) -> tuple[list[Image.Image], list[str]]:
    """All pictures of <folder>/<class>/, and their classes."""
    paths = sorted(folder.glob("*/*.jp*g"))
    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(image.convert("RGB"))
    return images, [path.parent.name for path in paths]


def head() -> GridSearchCV:
    steps = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, tol=1e-3))
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    return GridSearchCV(steps, {"logisticregression__C": [1e-4, 1e-3, 1e-2, 1e-1, 1]}, cv=folds, n_jobs=-1)


def score_split(features: Features, folder: Path, train: str, test: str) -> str:
    (images, y), (test_images, test_y) = (read_folder(folder / part) for part in (train, test))
    fitted = head().fit(features(images), y)
    right = int((fitted.predict(features(test_images)) == np.array(test_y)).sum())
    return f"{right} of {len(test_y)} ({right / len(test_y):.3f})"


def score_digits(features: Features) -> str:
    data = load_digits()
    images = [Image.fromarray((image * 255 / 16).astype(np.uint8)).convert("RGB") for image in data.images]
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    scores = cross_val_score(head(), features(images), data.target, cv=folds)
    return f"{scores.mean():.3f}"


def iter_contestants(shared: Path) -> Iterator[tuple[str, Features]]:
    mini = load_featx_mini_weights(featx_mini())
    yield "featx-mini", network_features(mini, IMAGE_SIZE, IMAGE_SIZE)
    torch.manual_seed(0)
    yield "the same network, random weights", network_features(featx_mini(), IMAGE_SIZE, IMAGE_SIZE)
    yield "raw pixels, 32 x 32 colour", raw_pixels
    weights = shared / "weights" / "mobilenet_v2-imagenet1k.pth"
    if weights.exists():
        yield "MobileNetV2 (ImageNet), 224 px", network_features(load_mobilenet(weights), 256, 224)


def load_mobilenet(weights: Path | None) -> Network:
    network = torchvision.models.mobilenet_v2().eval()
    if weights is not None:
        network.load_state_dict(torch.load(weights, weights_only=True))
    network = network.to(memory_format=torch.channels_last)
    return lambda x: network.features(x).mean((2, 3))


def measure_speed(rounds: int = 9, batch_size: int = 32) -> tuple[float, float, float]:
    """Images per second of featx-mini and of MobileNetV2 (medians), and the median ratio of neighbouring timings."""
    mini = load_featx_mini_weights(featx_mini()).to(memory_format=torch.channels_last)
    contestants: list[tuple[Network, int]] = [(mini, IMAGE_SIZE), (load_mobilenet(None), 224)]
    rates: list[list[float]] = [[], []]
    with torch.inference_mode():
        for i in range(rounds + 1):
            for (network, size), kept in zip(contestants, rates, strict=True):
                x = torch.randn(batch_size, 3, size, size).contiguous(memory_format=torch.channels_last)
                start = time.perf_counter()
                network(x)
                if i:  # the first round warms up
                    kept.append(batch_size / (time.perf_counter() - start))
    ratios = [a / b for a, b in zip(*rates, strict=True)]
    return statistics.median(rates[0]), statistics.median(rates[1]), statistics.median(ratios)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bench mini", description=__doc__)
    parser.add_argument(
        "--shared",
        type=Path,
        default=ROOT.parent / "shared",
        metavar="FOLDER",
        help="holds data/hymenoptera, data/cifar10-small and weights/; absent parts are left out",
    )
    options = parser.parse_args(argv)
    tasks: dict[str, Callable[[Features], str]] = {}
    for name, train, test in (("hymenoptera", "train", "val"), ("cifar10-small", "train", "test")):
        folder = options.shared / "data" / name
        if folder.is_dir():
            tasks[f"{name} {train} -> {test}"] = lambda f, a=folder, b=train, c=test: score_split(f, a, b, c)
    tasks["digits, 5-fold"] = score_digits
    print("| features | " + " | ".join(tasks) + " |")
    print("| --- " * (len(tasks) + 1) + "|")
    for name, features in iter_contestants(options.shared):
        print(f"| {name} | " + " | ".join(score(features) for score in tasks.values()) + " |", flush=True)
    mini, mobilenet, ratio = measure_speed()
    print(
        f"\nfeatx-mini / MobileNetV2 at 224 px: {ratio:.1f} x the images/s ({mini:.0f} and {mobilenet:.0f}, float32, "
        f"batch 32, {torch.get_num_threads()} threads)"
    )


if __name__ == "__main__":
    main()
