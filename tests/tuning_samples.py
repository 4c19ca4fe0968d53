"""Small networks, and pictures for them, that `featx finetune` trains in seconds."""

import numpy as np
from PIL import Image

from featx.fit import FitOptions

LEAN = FitOptions(
    cv=2, inner_cv=2, C_grid=(1e-2, 1, 2), scalings=("raw",), n_jobs=1, calibration="none", conformal="off",
    novelty=False, leak_gap=False,
)  # fmt: skip
"""A fit of milliseconds."""

MODULE = "own_networks"
SMALL, BLIND = f"{MODULE}:small", f"{MODULE}:blind"
SOURCE = '''
"""Networks for pictures of 32 x 32."""

import torch
from torch import nn

from featx.spec import Preprocess

SIZE = Preprocess(resize=(32,), crop=(32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)


def small():
    """Two convolutions, one of them with a batch norm."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    ), SIZE


def blind():
    """The same features for a picture and its transpose: each filter is its own mirror image along the diagonal."""
    first = nn.Conv2d(3, 16, 5, stride=1)
    with torch.no_grad():
        first.weight.copy_((first.weight + first.weight.transpose(2, 3)) / 2)
    return nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)), SIZE
'''


def write_networks(folder):
    """Write the module of the networks into a folder."""
    (folder / f"{MODULE}.py").write_text(SOURCE)


def save_picture(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


def write_colours(folder, n=24, *, seed=0, noise=70, places=None):
    """Write pictures of two classes that differ in colour, two of each patient ``p<number>``.

    `places` are the folders above the classes in which they go in turn; by default there is none.
    """
    rng = np.random.default_rng(seed)
    for i in range(n):
        kind = ("moss", "rust")[i % 2]
        pixels = np.array((110, 130, 110) if i % 2 == 0 else (130, 110, 110)) + rng.normal(0, noise, (36, 36, 3))
        place = folder if places is None else folder / places[i // 2 % len(places)]
        save_picture(place / kind / f"p{i // 4 * 2 + i % 2}_{i:02}.png", pixels)
    return folder


def write_stripes(folder, n, *, seed=0):
    """Write pictures of stripes that lie or stand, in colours and of widths drawn alike for both classes."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        wave = np.sin(np.arange(32) * rng.uniform(0.9, 1.6) + rng.uniform(0, 7))
        colours = rng.uniform(40, 90, 3)
        pixels = 128 + wave[:, None, None] * colours + rng.normal(0, 25, (32, 32, 3))
        save_picture(folder / ("lie", "stand")[i % 2] / f"{i:03}.png", pixels if i % 2 == 0 else pixels.swapaxes(0, 1))
    return folder


def write_noise(folder, n, *, seed=0):
    """Write pictures of noise in two classes that mean nothing."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        save_picture(folder / "ab"[i % 2] / f"{i:03}.png", 128 + rng.normal(0, 60, (32, 32, 3)) + rng.normal(0, 30, 3))
    return folder
