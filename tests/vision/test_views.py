"""A view is its text: drawn by seed, the same everywhere, and nothing that a text says can do more than turn pixels."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from featx.errors import UnknownNameError, UsageError
from featx.spec import VIEW_KINDS, FeatureRequest
from featx.vision import backbones
from featx.vision.backbones import load_backbone
from featx.vision.views import KINDS, MAX_VIEWS, apply_view, check_views, parse_view, plan_views

KIND_SETS = st.lists(st.sampled_from(sorted(KINDS)), min_size=1, unique=True)


def picture(width=31, height=20, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def same(a, b):
    return a.size == b.size and np.array_equal(np.asarray(a), np.asarray(b))


# Plans


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10**6), KIND_SETS)
def test_a_shorter_plan_is_the_beginning_of_a_longer_one_and_every_view_is_another(few, more, seed, kinds):
    few, more = sorted((few, more))
    try:
        views = plan_views(more, seed, kinds)
    except UsageError:  # the mirror image and quarter turns are only so many
        assert set(kinds) <= {"flip", "turn"}
        assert more > {("flip",): 2, ("turn",): 4, ("flip", "turn"): 8}[tuple(sorted(kinds))]
        return
    assert plan_views(few, seed, kinds) == views[:few]
    assert plan_views(more, seed, kinds[::-1]) == views
    assert views[0] == "plain"
    assert len(set(views)) == more
    check_views(views)


def test_a_plan_is_the_same_on_every_machine():
    assert plan_views(4) == (
        "plain",
        "hflip",
        "crop=0.11,0.16,0.72 rotate=-7.1 brightness=0.85 contrast=0.93 saturation=0.85",
        "crop=0.02,0.00,0.97 hflip rotate=-3.7 brightness=0.92 contrast=1.08 saturation=0.93",
    )
    assert plan_views(4, seed=1)[:2] == ("plain", "hflip")
    assert plan_views(4, seed=1)[2] != plan_views(4)[2]


def test_only_the_kinds_that_are_allowed_are_in_a_plan_and_half_of_it_is_mirrored():
    words = {"flip": "hflip", "crop": "crop", "turn": "turn", "rotate": "rotate", "colour": "brightness"}
    for kinds in (("crop",), ("colour", "rotate"), ("turn", "crop"), VIEW_KINDS):
        text = " ".join(plan_views(8, 3, kinds))
        assert {kind for kind, word in words.items() if word in text} == set(kinds)
    assert ["hflip" in view for view in plan_views(8)] == [False, True] * 4
    assert plan_views(3, kinds=("crop",))[1].startswith("crop=")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "--views 0: 1 to 64"),
        ((MAX_VIEWS + 1,), "--views 65"),
        ((2, -1), "--view-seed -1"),
        ((3, 0, ("flip",)), "--view-kinds flip gives 2 different views, --views 3 asks for more"),
        ((2, 0, ()), "--view-kinds none gives 1 different"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        plan_views(*arguments)


def test_an_unknown_kind_lists_close_matches():
    with pytest.raises(UnknownNameError, match="'color'; did you mean colour"):
        plan_views(2, 0, ("color",))


# Pixels


def test_the_plain_view_is_the_image_and_no_view_changes_it():
    image = picture()
    before = np.asarray(image).copy()
    assert apply_view(image, "plain") is image
    for view in plan_views(8, kinds=tuple(KINDS)):
        made = apply_view(image, view)
        assert made.mode == "RGB"
        assert same(made, apply_view(image, view))
    assert np.array_equal(np.asarray(image), before)


def test_each_word_does_what_pillow_does():
    image = picture(50, 40)
    assert same(apply_view(image, "hflip"), ImageOps.mirror(image))
    assert same(apply_view(image, "turn=90"), image.rotate(90, expand=True))
    assert same(apply_view(image, "turn=270"), image.rotate(270, expand=True))
    assert same(apply_view(image, "crop=0.1,0.25,0.5"), image.crop((5, 10, 30, 30)))
    assert same(apply_view(image, "crop=0,0,1 rotate=0.0"), image)
    for name, kind in (
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ):
        assert same(apply_view(image, f"{name}=1.25"), kind(image).enhance(1.25))


def test_words_are_applied_from_left_to_right():
    image = picture(40, 40)
    assert same(apply_view(image, "crop=0,0,0.5 hflip"), ImageOps.mirror(image.crop((0, 0, 20, 20))))
    assert same(apply_view(image, "hflip crop=0,0,0.5"), ImageOps.mirror(image.crop((20, 0, 40, 20))))


def test_a_rotation_turns_counterclockwise_about_the_middle():
    pixels = np.zeros((101, 101, 3), np.uint8)
    pixels[48:53, 70:75] = 255  # right of the middle
    turned = np.asarray(apply_view(Image.fromarray(pixels), "rotate=30"))[..., 0].astype(float)
    y, x = (np.average(axis, weights=turned) - (turned.shape[0] - 1) / 2 for axis in np.indices(turned.shape))
    assert np.degrees(np.arctan2(-y, x)) == pytest.approx(30, abs=1)
    assert np.hypot(x, y) == pytest.approx(22, abs=0.5)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.floats(-45, 45))
@example(2, 19, 10.0)  # an odd number of columns fewer: the window's middle is between two pixels
def test_a_rotation_shows_nothing_from_outside_and_keeps_most_of_the_image(width, height, degrees):
    white = Image.new("RGB", (width, height), "white")
    turned = apply_view(white, f"rotate={degrees:.1f}")
    assert np.asarray(turned).min() == 255
    assert turned.width <= width
    assert turned.height <= height
    if abs(degrees) <= 10 and min(width, height) >= 10 and max(width, height) < 2 * min(width, height):
        assert turned.width * turned.height > 0.5 * width * height


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10**6))
def test_images_of_a_few_pixels_have_views_too(width, height, seed):
    for view in plan_views(6, seed, tuple(KINDS)):
        made = apply_view(picture(width, height), view)
        assert min(made.size) >= 1
        assert made.mode == "RGB"


# Texts from files


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Plain",
        "hflip=1",
        "hflip ",
        "hflip  turn=90",
        "hflip hflip",
        "plain hflip",
        "turn=45",
        "turn",
        "crop=0.5,0.5",
        "crop=0.5,0.5,0.6",
        "crop=-0.1,0,0.5",
        "crop=0,0,0",
        "rotate=46",
        "rotate=nan",
        "rotate=1e1",
        "rotate=+5",
        "rotate=٣",
        "brightness=0",
        "brightness=1,1",
        "contrast=99999999999999999999",
        "saturation=inf",
        "__import__('os').getcwd()",
        "getcwd",
        "crop=0,0,1;hflip",
        "hflip\n",
    ],
)
def test_a_text_that_is_no_views_is_refused_with_the_words_that_are(text):
    with pytest.raises(UsageError, match=r"is not understood; each word once, of: crop=LEFT,TOP,SIZE, hflip"):
        apply_view(picture(), text)


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.text(max_size=30),
        st.lists(
            st.sampled_from(["crop=", "hflip", "turn=", "rotate=", "0.5", "90", ",", " ", "contrast=", "-", "."]),
            max_size=12,
        ).map("".join),
    )
)
def test_any_text_gives_an_image_or_a_usage_error(text):
    try:
        made = apply_view(picture(9, 7), text)
    except UsageError:
        return
    assert made.mode == "RGB"


def test_numbers_of_a_text_are_read_exactly():
    assert parse_view("crop=0.12,0.05,0.8 rotate=-7.5") == (("crop", (0.12, 0.05, 0.8)), ("rotate", (-7.5,)))


@pytest.mark.parametrize(
    "views", [(), ("hflip",), ("plain", "plain"), ("plain", "blur=3"), ("plain", *map(str, range(64)))]
)
def test_a_plan_from_a_file_is_checked(views):
    with pytest.raises(UsageError):
        check_views(views)


# In a spec


def test_a_backbone_has_the_plan_of_its_request_and_comes_back_with_the_texts_alone(monkeypatch):
    request = FeatureRequest("featx-mini", "random", n_views=3, view_seed=5, view_kinds=("crop", "colour"))
    spec = load_backbone(request).spec
    assert spec.views == plan_views(3, 5, ("crop", "colour"))
    assert spec.n_views == 3
    monkeypatch.setattr(backbones.views, "plan_views", lambda n, *_: ("plain",) if n == 1 else 1 / 0)
    assert backbones.restore_backbone(spec).spec == spec


def test_a_spec_with_views_that_are_none_is_refused_before_the_network_is_loaded():
    spec = load_backbone(FeatureRequest("featx-mini", "random")).spec
    assert spec.views == ("plain",)
    for views in ((), ("plain", "exec=1")):
        with pytest.raises(UsageError):
            backbones.restore_backbone(spec.__class__(**{**vars(spec), "views": views}))


def test_views_that_cannot_be_planned_are_refused_before_weights_are_loaded():
    request = FeatureRequest("resnet50", "/no/such/file.pth", n_views=65)
    with pytest.raises(UsageError, match="--views 65"):
        load_backbone(request)


def test_all_kinds_together_have_views_to_spare():
    views = plan_views(MAX_VIEWS, kinds=tuple(KINDS))
    assert len(views) == MAX_VIEWS
    assert all(a != b for a, b in itertools.combinations(views, 2))
