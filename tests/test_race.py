"""What ``featx fit --auto`` promises: it is an extraction and a fit, only that what cannot win is not computed."""

import dataclasses
import sys
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image
from threadpoolctl import threadpool_limits

import featx
from featx.errors import (
    InputError,
    LabelsError,
    StoreIncompleteError,
    UnknownNameError,
    UsageError,
    WeightsError,
)
from featx.extract import extract
from featx.fit import FitOptions, fit, save
from featx.learn.bundle import load_bundle
from featx.learn.ranking import RankOptions
from featx.race import RaceOptions, RaceRules, race
from featx.spec import FeatureRequest
from featx.store.file import FeatureFile
from featx.vision.engine import EngineOptions

LEAN = FitOptions(
    cv=3, inner_cv=2, C_grid=(1e-2, 1, 2), scalings=("raw",), n_jobs=1, calibration="none", conformal="off",
    novelty=False, leak_gap=False,
)  # fmt: skip
CHEAP = RankOptions(cv=3, inner_cv=2, C_grid=(0.1, 0.1, 1))
HERE = EngineOptions(num_workers=0, runtime="torch", batch_size=8)
N = 48

NETWORKS = """
import torch
from torch import nn


class Colour(nn.Module):
    \"\"\"One number of an image: the mean of a channel over a corner of it.\"\"\"

    def __init__(self, channel, side):
        super().__init__()
        self.channel, self.side = channel, side
        self.head = nn.Linear(1, 1)
        self.weight = nn.Parameter(torch.zeros(side))

    def forward(self, x):
        return self.head(x[:, self.channel, : self.side, : self.side].mean((1, 2))[:, None])


def weak():
    return Colour(2, 4)


def strong():
    return Colour(0, 200)
"""


@pytest.fixture(autouse=True, scope="module")
def _one_limit():
    """Limit threads once: looking for the libraries takes longer than one of these fits."""
    with threadpool_limits(1), pytest.MonkeyPatch.context() as patch:
        patch.setattr("featx.learn.search.threadpool_limits", lambda n: nullcontext())
        yield


@pytest.fixture(autouse=True)
def _quick(no_waiting_for_the_disk, monkeypatch, tmp_path):
    (tmp_path / "colours.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("colours", None)


@pytest.fixture
def photos(tmp_path):
    """Pictures of two classes that differ in red alone."""
    folder = tmp_path / "photos"
    for i in range(N):
        name = f"{'rust' if i % 2 else 'moss'}/{i:02}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).normal(0, 60, (12, 12, 3))
        pixels = np.array((150 if i % 2 else 90, 120, 120)) + noise
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name)
    return folder


def options(first=20, **others):
    names = ("colours:strong", "colours:weak")
    return RaceOptions(**({"backbones": names, "rules": RaceRules(first=first, cheap=CHEAP)} | others))


def run(photos, first=20, *, fit_options=LEAN, **others):
    return race(photos, options(first, **others), fit_options, engine=HERE)


def facts(result):
    """Everything but what names files and counts seconds."""
    return {**result.to_dict(), "seconds": 0, "race": None, "description": ""}


def rows(path):
    with FeatureFile.open(path) as file:
        return dict(zip(file.keys(), np.asarray(file.features()).tolist(), strict=True))


def test_the_better_backbone_wins_and_the_other_is_not_computed_further(photos):
    result = run(photos)
    weak, strong = result.race.runners
    assert (weak.backbone, strong.backbone) == ("colours:weak", "colours:strong")  # the smaller first
    assert result.race.winner == "colours:strong"
    assert result.spec.backbone == "colours:strong"
    assert (strong.n_images, strong.n_computed) == (N, N)
    assert weak.n_images == weak.n_computed == len(rows(weak.file)) < N
    assert result.race.n_saved == N - weak.n_images
    save(result, "photos.featx")
    assert load_bundle("photos.featx").facts["race"]["winner"] == "colours:strong"


def test_what_is_left_over_is_an_ordinary_feature_file_that_an_extraction_completes(photos):
    weak = run(photos).race.runners[0]
    report = extract(photos, weak.file, request=FeatureRequest(backbone="colours:weak"), engine=HERE)
    assert (report.rows, report.computed) == (N, N - weak.n_images)
    extract(photos, "alone.h5", request=FeatureRequest(backbone="colours:weak"), engine=HERE)
    assert rows(weak.file) == rows("alone.h5")


def test_with_one_backbone_it_is_extract_and_fit(photos):
    result = run(photos, backbones=("colours:weak",))
    extract(photos, "alone.h5", request=FeatureRequest(backbone="colours:weak"), engine=HERE)
    assert facts(result) == facts(fit("alone.h5", LEAN))


def test_with_too_few_images_for_a_rung_it_is_the_fit_of_several_files(photos):
    result = run(photos, first=N)
    assert result.race.races.decisions == []
    assert result.race.n_saved == 0
    names = ["photos-colours-weak.h5", "photos-colours-strong.h5"]
    extract(photos, "all/", request=[FeatureRequest(backbone=f"colours:{w}") for w in ("weak", "strong")], engine=HERE)
    assert facts(result) == facts(fit([f"all/{name}" for name in names], LEAN))


@pytest.mark.slow
def test_a_stopped_race_goes_on_and_decides_the_same(photos):
    expected = run(photos, folder="whole")

    class Stop(Exception):
        pass

    n_images = 0

    class Watch:
        def __init__(self, step, unit):
            self.counts = step.startswith("extract")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def __call__(self, done, total):
            nonlocal n_images
            if self.counts and done:
                n_images = n_images + 1
                if n_images in (2, 6):
                    raise Stop

    n_stops = 0
    while True:
        try:
            result = race(photos, options(), LEAN, engine=HERE, progress=Watch)
            break
        except Stop:
            n_stops += 1
    assert n_stops == 2
    assert facts(result) == facts(expected)
    assert result.race.races.decisions == expected.race.races.decisions
    for mine, other in zip(result.race.runners, expected.race.runners, strict=True):
        assert rows(mine.file) == rows(other.file)
    again = run(photos)
    assert [one.n_computed for one in again.race.runners] == [0, 0]
    assert again.race.races.decisions == expected.race.races.decisions


def test_broken_images_are_named_or_left_out_as_if_they_were_not_there(photos):
    for name in ("moss/00.png", "rust/31.png"):
        (photos / name).write_bytes((photos / name).read_bytes()[:60])
    with pytest.raises(StoreIncompleteError, match=r"have no features, the first .*/.*png.*--allow-missing") as caught:
        run(photos)
    assert caught.value.missing >= 1
    result = run(photos, fit_options=dataclasses.replace(LEAN, allow_missing=True))
    assert set(result.race.failures) == {"moss/00.png", "rust/31.png"}
    assert any("have no row: 2" in note for note in result.notes)
    for name in result.race.failures:
        (photos / name).unlink()
    without = run(photos, folder="other", fit_options=dataclasses.replace(LEAN, allow_missing=True))
    assert without.race.races.decisions == result.race.races.decisions
    assert without.whole.evaluation == result.whole.evaluation


def test_unlabelled_images_and_those_without_a_split_are_never_computed_and_are_counted(photos):
    keys = sorted(str(path.relative_to(photos)) for path in photos.glob("*/*.png"))
    lines = ["path,label,split"]
    for i, key in enumerate(keys):
        label = "" if i % 10 == 0 else key.split("/")[0]
        lines.append(f"photos/{key},{label},{'' if i % 10 == 1 else 'train' if i % 3 else 'test'}")
    (photos.parent / "table.csv").write_text("\n".join(lines))
    result = run(photos.parent / "table.csv")
    assert result.plan.scheme == "test"
    assert (result.unlabelled, result.plan.n_without_split) == (5, 5)
    assert result.race.n_images == len(rows(result.race.runners[1].file)) == N - 10
    extract("table.csv", "all.h5", request=FeatureRequest(backbone="colours:strong"), engine=HERE)
    expected, ours = fit("all.h5", LEAN), result.to_dict()
    assert result.whole.evaluation == expected.whole.evaluation
    assert ours["left_out"] == expected.to_dict()["left_out"]


def test_backbones_without_weights_are_left_out_and_told(photos, monkeypatch):
    def no_network(*_, **__):
        raise WeightsError("resnet18.pth cannot be downloaded", weights="resnet18")

    monkeypatch.setattr("featx.vision.download.fetch", no_network)
    result = run(photos, backbones=("resnet18", "colours:strong"))
    assert result.race.winner == "colours:strong"
    assert any("resnet18 took no part: resnet18.pth cannot" in note for note in result.notes)
    with pytest.raises(WeightsError, match="none of the 2 backbones has weights"):
        run(photos, backbones=("resnet18", "resnet50"))
    with pytest.raises(WeightsError, match="does not exist"):
        run(photos, backbones=("resnet18", "colours:weak"), weights={"resnet18": "missing.pth"})


def test_what_cannot_be_done_is_said_before_anything_is_computed(photos):
    with pytest.raises(UnknownNameError, match="resnet18"):
        run(photos, backbones=("colours:weak", "resnet81"))
    with pytest.raises(UsageError, match="near-duplicates could be found"):
        run(photos, fit_options=dataclasses.replace(LEAN, group_near_duplicates=True))
    with pytest.raises(UsageError, match="which does not race"):
        options(weights={"resnet18": "x.pth"})
    with pytest.raises(UsageError, match="at least one"):
        options(backbones=())
    with pytest.raises(LabelsError, match="too few samples"):
        run(photos, fit_options=dataclasses.replace(LEAN, cv=50))
    with pytest.raises(LabelsError, match="no labelled samples"):
        race(list(photos.glob("*/*.png")), options(), LEAN, engine=HERE)
    assert not (photos.parent / "cache").exists()


def test_a_file_with_a_locked_part_is_refused(photos):
    run(photos, backbones=("colours:weak",))
    featx.lock("cache/photos-colours-weak.h5", featx.LockOptions(fraction=0.2))
    with pytest.raises(InputError, match="locked for the last test"):
        run(photos)
