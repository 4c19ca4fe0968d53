import numpy as np
import pytest

from featx.vision.tuning.images import epoch_views
from featx.vision.tuning.recipe import HEAD_SGD, IMAGE_KINDS, RECIPES, describe_images
from featx.vision.views import parse_view


def drawn(kind, n=400):
    """Which words occur among many views, with their numbers."""
    found = {}
    for view in epoch_views(np.arange(n), IMAGE_KINDS[kind], 0, 1):
        for word, values in parse_view(view):
            found.setdefault(word, []).append(values)
    return found


@pytest.mark.parametrize("kind", ["text", "scans"])
def test_what_reads_from_left_to_right_is_never_mirrored(kind):
    assert "hflip" not in drawn(kind)
    assert "turn" not in drawn(kind)
    assert "mirrored" in describe_images(kind).partition("never")[2]


@pytest.mark.parametrize("kind", ["microscopy", "satellite"])
def test_what_has_no_up_is_turned_by_any_angle(kind):
    angles = []
    for view in epoch_views(np.arange(400), IMAGE_KINDS[kind], 0, 1):
        words = dict(parse_view(view))
        angles.append((words.get("turn", (0,))[0] + words["rotate"][0]) % 360)
    counts, _ = np.histogram(angles, bins=8, range=(0, 360))
    assert counts.min() > 25
    assert "turned by any angle" in describe_images(kind)
    assert 0.4 < len(drawn(kind)["hflip"]) / 400 < 0.6


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_the_sentence_says_what_is_done(kind):
    found, said = drawn(kind), describe_images(kind).partition("; never ")[0]
    assert ("windows" in said) == ("crop" in found)
    assert ("mirrored" in said) == ("hflip" in found)
    assert ("degrees" in said or "any angle" in said) == ("rotate" in found)
    assert ("colour" in said) == ("saturation" in found)
    if "crop" in found:
        sizes = [size for _, _, size in found["crop"]]
        assert 0.7 <= min(sizes) < 0.72 < 0.98 < max(sizes) <= 1.0


def test_sentences():
    assert describe_images("none") == "training images are taken as they are"
    assert describe_images("text") == (
        "training images are varied as text: windows of 70 to 100 % of the width and height; never mirrored, turned "
        "or changed in colour"
    )
    assert describe_images("photographs").endswith("colour changed by up to 20 %; never turned")
    assert describe_images("scans").endswith("turned by up to 10 degrees; never mirrored or changed in colour")


def test_the_tutorials_recipe_has_a_learning_rate_and_the_default_one_finds_it():
    assert (HEAD_SGD.lr, RECIPES["default"].lr) == (0.001, None)
