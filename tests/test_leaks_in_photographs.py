"""Near-duplicates in real photographs; `bin/bench near_duplicates` measures more of them."""

from pathlib import Path

import pytest
from PIL import Image, ImageEnhance

from featx.extract import extract
from featx.learn.dataset import load_features
from featx.learn.near_duplicates import find_near_duplicates
from featx.spec import FeatureRequest
from featx.vision.engine import EngineOptions

HYMENOPTERA = Path(__file__).parents[1] / "../shared/data/hymenoptera/val"


@pytest.mark.slow
@pytest.mark.skipif(not HYMENOPTERA.is_dir(), reason="needs ../shared")
def test_copies_of_photographs_are_found_and_different_photographs_of_one_class_are_not(tmp_path):
    photos = sorted(HYMENOPTERA.rglob("*.jpg"))
    ways = {
        "encoded again": lambda image: image,
        "cut": lambda image: image.crop((10, 10, image.width - 5, image.height - 5)),
        "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    }
    copied = {}
    for number, path in enumerate(photos):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        image.save(tmp_path / f"{number:03}.png")
        if number % 3 == 0:
            way = list(ways)[number // 3 % 3]
            ways[way](image).save(tmp_path / f"{number:03} {way}.jpg", quality=75)
            copied[f"{number:03}.png"] = way
    target = tmp_path / "photos.h5"
    request, engine = FeatureRequest(backbone="featx-mini"), EngineOptions(num_workers=0)
    extract(tmp_path, target, request=request, engine=engine)
    features = load_features(target)
    pairs = [(features.keys[i], features.keys[j]) for i, j in find_near_duplicates(features.X).pairs]
    # Two photographs of bees of one kind, alone on something white, are that much alike to this small network.
    assert sum(one[:3] != other[:3] for one, other in pairs) <= 1
    found = {next(key for key in pair if key.endswith(".png")) for pair in pairs}
    assert sum(key in found for key in copied) >= 0.9 * len(copied)
    assert all(key in found for key, way in copied.items() if way == "encoded again")
