"""Generated photographs: smooth coloured blotches with some noise, as JPEG files in two class folders."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_photos(folder: Path, n: int, *, width: int = 320, height: int = 240) -> Path:
    """Write `n` different images, always the same ones, and return the folder."""
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(n):
        blotches = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        pixels = np.asarray(blotches.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
        pixels = (pixels + rng.integers(-8, 9, (height, width, 1))).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / ("cats", "dogs")[i % 2] / f"{i:05}.jpg", quality=90)
    return folder
