"""The engine: every sample exactly once and in order, as a row or as a failure."""

import hashlib
import io
import os
import threading

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from featx.errors import DeviceMemoryError, UnknownNameError, UsageError
from featx.manifest.record import Manifest
from featx.manifest.source import manifest_of
from featx.spec import FeatureRequest, FeatureSpec, Preprocess
from featx.store.records import REASONS
from featx.vision import nodes
from featx.vision.backbones import Backbone, load_backbone
from featx.vision.batch_size import LARGEST, fastest_batch_size
from featx.vision.embed import Embedder
from featx.vision.engine import EngineOptions, Job, iter_batches
from featx.vision.views import apply_view

PREPROCESS = Preprocess(resize=(8,), crop=(8, 8), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
SMALLER = Preprocess(resize=(6,), crop=(4, 4), mean=(0.1, 0.1, 0.1), std=(1.0, 1.0, 1.0))


class Means(nn.Module):
    """The mean of each channel, scaled: a network whose features can be told beforehand."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale
        self.batches = []

    def forward(self, x):
        self.batches.append(len(x))
        return x.mean(dim=(2, 3)) * self.scale


class Corner(Means):
    """The pixel at the top left."""

    def forward(self, x):
        return x[:, :, 0, 0].clone()


def embedder_of(network, **spec):
    traced = nodes.trace(network, (8, 8), meta=False)
    node = nodes.default_node(traced)
    network.batches.clear()
    values = {"backbone": "tests:means", "weights": "own", "weights_sha256": "", "node": node.name, "pooling": "none"}
    values |= {"feature_shape": node.shape, "preprocess": PREPROCESS}
    spec = FeatureSpec(**(values | spec))
    return Embedder(Backbone(spec, network, node, traced.n_classes), device="cpu")


def png(value, *, size=(8, 8)):
    out = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(out, "PNG")
    return out.getvalue()


def files(folder, contents):
    paths = []
    for i, data in enumerate(contents):
        paths.append(folder / f"{i:03d}.png")
        if data is not None:
            paths[-1].write_bytes(data)
    return Manifest(str(folder), [p.name for p in paths], [str(p) for p in paths], *[[""] * len(paths)] * 4)


def run(manifest, embedder, *, positions=None, batch_size=3, num_workers=2, lookup=None):
    positions = range(len(manifest)) if positions is None else positions
    options = EngineOptions(batch_size=batch_size, num_workers=num_workers)
    return [batch for _, batch in iter_batches(manifest, [Job(embedder, positions, lookup)], options)]


KINDS = {"missing": None, "empty": b"", "not-an-image": b"just some text", "truncated": png(1, size=(64, 64))[:-30]}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    samples=st.lists(st.one_of(st.integers(0, 255), st.sampled_from(list(KINDS))), max_size=12),
    batch_size=st.integers(1, 5),
    num_workers=st.sampled_from([None, 0, 1, 3]),
)
def test_every_sample_comes_back_exactly_once_and_in_order_as_a_row_or_a_failure(
    tmp_path_factory, samples, batch_size, num_workers
):
    folder = tmp_path_factory.mktemp("images")
    manifest = files(folder, [KINDS[s] if isinstance(s, str) else png(s) for s in samples])
    batches = run(manifest, embedder_of(Means()), batch_size=batch_size, num_workers=num_workers)
    entries = [entry for batch in batches for entry in batch.entries]
    assert [entry.key for entry in entries] == manifest.keys
    assert [len(batch.entries) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    values = []
    for batch in batches:
        assert len(batch.features) == sum(entry.status == "ok" for entry in batch.entries)
        values += list(batch.features[:, 0])
    assert values == pytest.approx([s / 255 for s in samples if not isinstance(s, str)])
    for entry, sample in zip(entries, samples, strict=True):
        if isinstance(sample, str):
            assert entry.status == "failed"
            assert entry.reason.split(":")[0] == sample
        else:
            assert (entry.status, entry.reason) == ("ok", "")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    samples=st.lists(st.one_of(st.integers(0, 255), st.sampled_from(list(KINDS))), max_size=10),
    wishes=st.lists(st.tuples(st.sets(st.integers(0, 9)), st.integers(1, 4), st.booleans()), max_size=4),
)
def test_each_of_several_jobs_gets_the_batches_that_it_would_get_alone(tmp_path_factory, samples, wishes):
    folder = tmp_path_factory.mktemp("images")
    manifest = files(folder, [KINDS[s] if isinstance(s, str) else png(s) for s in samples])
    jobs = [
        Job(
            embedder_of(Means(scale=index + 1), preprocess=SMALLER if smaller else PREPROCESS),
            sorted(position for position in positions if position < len(samples)),
            batch_size=size,
        )
        for index, (positions, size, smaller) in enumerate(wishes)
    ]
    together = [[] for _ in jobs]
    for index, batch in iter_batches(manifest, jobs, EngineOptions(num_workers=2)):
        together[index].append(batch)
    for job, batches in zip(jobs, together, strict=True):
        alone = [batch for _, batch in iter_batches(manifest, [job], EngineOptions(num_workers=2))]
        assert [batch.entries for batch in batches] == [batch.entries for batch in alone]
        assert all(np.array_equal(mine.features, its.features) for mine, its in zip(batches, alone, strict=True))
        keys = [entry.key for batch in batches for entry in batch.entries]
        assert keys == [manifest.keys[position] for position in job.positions]


def test_positions_of_several_jobs_must_ascend(tmp_path):
    jobs = [Job(embedder_of(Means()), [0, 1]), Job(embedder_of(Means()), [1, 0])]
    with pytest.raises(UsageError, match="ascending"):
        iter_batches(files(tmp_path, [png(1), png(2)]), jobs)


def test_an_engine_that_does_not_exist_is_an_error_and_nothing_takes_its_place():
    with pytest.raises(UnknownNameError, match=r"unknown engine 'dask'.*local"):
        iter_batches(Counting(1).manifest(), [Job(embedder_of(Means()), [0])], EngineOptions(engine="dask"))


class Small(Means):
    """A network on a device that has no room for more than some images at once."""

    def __init__(self, room, error=torch.OutOfMemoryError):
        super().__init__()
        self.room, self.error = room, error

    def forward(self, x):
        if len(x) > self.room:
            raise self.error(f"no room for {len(x)}")
        return super().forward(x)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_a_batch_too_large_for_memory_is_computed_in_halves_and_told_once_not_once_a_batch(tmp_path, error):
    manifest = files(tmp_path, [png(i) for i in range(20)])
    embedder, told = embedder_of(Small(3, error), views=("plain", "hflip")), []
    batches = [
        b for _, b in iter_batches(manifest, [Job(embedder, range(20))], EngineOptions(8, 2), notify=told.append)
    ]
    assert [len(batch.entries) for batch in batches] == [8, 8, 4]
    assert np.concatenate([b.features[::2, 0] for b in batches]) == pytest.approx(np.arange(20) / 255)
    assert embedder.backbone.network.batches == [2] * 20
    assert [words.partition("at once: ")[2] for words in told] == [
        f"from here on {n} in one forward pass" for n in (4, 2)
    ]


def test_memory_that_does_not_suffice_for_one_image_is_an_error_that_says_so(tmp_path):
    embedder = embedder_of(Small(2))
    embedder.backbone.network.room = 0
    with (
        pytest.raises(DeviceMemoryError, match="even one image"),
        pytest.warns(RuntimeWarning, match="from here on 1 in one forward pass"),
    ):
        run(files(tmp_path, [png(1), png(2)]), embedder)


def test_a_batch_size_is_tried_out_and_no_larger_than_memory_allows(tmp_path):
    embedder = embedder_of(Small(20))
    assert fastest_batch_size(embedder) in (8, 16)
    with pytest.raises(DeviceMemoryError):
        fastest_batch_size(embedder_of(Small(3)))
    manifest = files(tmp_path, [png(i) for i in range(20)])
    batches = [b for _, b in iter_batches(manifest, [Job(embedder, range(20))], EngineOptions("auto", 2))]
    assert len(batches[0].entries) in (8, 16)


def test_the_size_beyond_which_nothing_is_gained_is_taken(monkeypatch):
    rates = {8: 100.0, 16: 106.0, 32: 130.0, 64: 136.0, 128: 900.0}
    monkeypatch.setattr("featx.vision.batch_size._images_per_second", lambda embedder, size: rates[size])
    assert fastest_batch_size(embedder_of(Means())) == 32


def test_a_size_that_would_take_half_of_the_free_memory_is_not_tried(monkeypatch):
    monkeypatch.setattr("featx.vision.batch_size._images_per_second", lambda embedder, size: float(size))
    assert fastest_batch_size(embedder_of(Means())) == LARGEST
    monkeypatch.setattr("featx.vision.batch_size._free_bytes", lambda: 0.0)
    monkeypatch.setattr("featx.vision.batch_size._resident_bytes", lambda: 1.0)
    assert fastest_batch_size(embedder_of(Means())) == 8


def test_views_of_a_sample_are_consecutive_rows_and_the_plain_one_is_as_without_views(tmp_path):
    rng = np.random.default_rng(3)
    images = [Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8)) for _ in range(5)]
    views = ("plain", "hflip", "brightness=1.2")
    plain = run(manifest_of(images), embedder_of(Corner()))
    batches = run(manifest_of(images), embedder_of(Corner(), views=views))
    for batch, alone in zip(batches, plain, strict=True):
        assert batch.entries == alone.entries
        assert np.array_equal(batch.features[::3], alone.features)
    for v, view in enumerate(views):
        seen = run(manifest_of([apply_view(image, view) for image in images]), embedder_of(Corner()))
        assert np.array_equal(
            np.concatenate([batch.features[v::3] for batch in batches]), np.concatenate([b.features for b in seen])
        )


def test_a_sample_with_one_bad_view_fails_as_a_whole(tmp_path):
    class Sunburnt(Means):
        def forward(self, x):
            features = super().forward(x)
            features[features[:, 0] > 0.9] = float("nan")
            return features

    manifest = files(tmp_path, [png(100), png(200)])
    (batch,) = run(manifest, embedder_of(Sunburnt(), views=("plain", "brightness=1.2")))
    assert [entry.reason for entry in batch.entries] == ["", "not-finite"]
    assert batch.features.shape == (2, 3)


class Two(nn.Module):
    """A network with two places to read."""

    def __init__(self):
        super().__init__()
        self.batches = []
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)

    def forward(self, x):
        self.batches.append(len(x))
        return self.second(self.first(x)).mean(dim=(2, 3))


def test_jobs_that_share_an_embedder_share_its_passes_where_their_batches_are_the_same(tmp_path):
    network = Two().eval()
    traced = nodes.trace(network, (8, 8), meta=False)
    network.batches.clear()
    backbones = []
    for name, channels in (("first", 4), ("second", 5)):
        node = nodes.find_node(network, traced, name)
        spec = FeatureSpec("tests:two", "own", "", name, "avg", (channels,), PREPROCESS)
        backbones.append(Backbone(spec, network, node))
    both = Embedder(backbones[0], also=backbones[1:], device="cpu")
    manifest = files(tmp_path, [png(i) for i in range(7)])

    def rows(jobs):
        found = [[] for _ in jobs]
        for index, batch in iter_batches(manifest, jobs, EngineOptions(batch_size=3)):
            found[index].append(batch.features)
        return [np.concatenate(features) for features in found]

    together = rows([Job(both, range(7)), Job(both, range(7), output=1)])
    assert network.batches == [3, 3, 1]
    for backbone, features in zip(backbones, together, strict=True):
        assert np.array_equal(features, rows([Job(Embedder(backbone, device="cpu"), range(7))])[0])
    network.batches.clear()
    apart = rows([Job(both, range(7)), Job(both, [1, 2, 3, 4, 5], output=1)])
    assert network.batches == [3, 3, 3, 2, 1]
    assert np.array_equal(apart[0], together[0])
    np.testing.assert_allclose(apart[1], together[1][1:6], rtol=1e-5)


class Late(Embedder):
    """An embedder that takes batches ahead, as on a device that works beside the caller."""

    def __init__(self, backbone):
        super().__init__(backbone, device="cpu")
        self.ahead, self.under_way, self.most, self.cancelled = 2, 0, 0, 0

    def submit(self, pixels):
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        return _LateBatch(self, pixels.copy())


class _LateBatch:
    def __init__(self, embedder, pixels):
        self.embedder, self.pixels = embedder, pixels

    def results(self):
        self.embedder.under_way -= 1
        return Embedder.submit(self.embedder, self.pixels).results()

    def cancel(self):
        self.embedder.cancelled += 1


def test_batches_are_begun_ahead_where_the_device_works_beside_the_caller(tmp_path):
    manifest = files(tmp_path, [png(i // 2) for i in range(13)])  # 3 and 4, ...: the same bytes in two batches
    embedder = Late(embedder_of(Means()).backbone)
    batches = run(manifest, embedder, batch_size=3)
    assert embedder.most == 3
    assert np.concatenate([b.features[:, 0] for b in batches]) == pytest.approx(np.arange(13) // 2 / 255)
    assert sum(embedder.backbone.network.batches) == 7, "what another batch computes already is not computed again"


def test_who_stops_early_leaves_no_batch_behind_that_goes_on_computing(tmp_path):
    manifest = files(tmp_path, [png(i) for i in range(13)])
    embedder = Late(embedder_of(Means()).backbone)
    batches = iter_batches(manifest, [Job(embedder, range(13))], EngineOptions(batch_size=3))
    next(batches)
    batches.close()
    assert embedder.under_way == embedder.cancelled == 2


def test_memory_that_runs_out_behind_the_caller_s_back_is_halved_too(tmp_path):
    told = []
    embedder = Late(embedder_of(Small(2)).backbone)
    jobs = [Job(embedder, range(10))]
    manifest = files(tmp_path, [png(i) for i in range(10)])
    batches = [batch for _, batch in iter_batches(manifest, jobs, EngineOptions(4), notify=told.append)]
    assert np.concatenate([b.features[:, 0] for b in batches]) == pytest.approx(np.arange(10) / 255)
    assert len(told) == 1


def test_the_ledger_tells_what_the_file_was(tmp_path):
    out = io.BytesIO()
    Image.new("L", (20, 10)).save(out, "JPEG")
    manifest = files(tmp_path, [out.getvalue(), KINDS["truncated"]])
    os.utime(manifest.paths[0], ns=(5, 1_234_567_890_123_456_789))
    (batch,) = run(manifest, embedder_of(Means()))
    first, second = batch.entries
    assert (first.format, first.mode, first.width, first.height) == ("JPEG", "L", 20, 10)
    assert first.reason == "jpeg named .png"
    assert first.bytes == len(out.getvalue())
    assert first.mtime_ns == os.stat(manifest.paths[0]).st_mtime_ns
    assert first.sha256 == hashlib.sha256(out.getvalue()).hexdigest()
    assert second.sha256 == hashlib.sha256(KINDS["truncated"]).hexdigest()
    assert second.bytes == len(KINDS["truncated"])
    assert second.status == "failed"
    assert second.reason.split(":")[0] in REASONS


def test_a_name_that_cannot_be_a_key_is_a_failed_row(tmp_path):
    manifest = files(tmp_path, [png(1), png(2)])
    refused = Manifest(manifest.root, manifest.keys, manifest.paths, *[[""] * 2] * 4, refused={1: "name-not-utf8"})
    (batch,) = run(refused, embedder_of(Means()))
    assert [entry.status for entry in batch.entries] == ["ok", "failed"]
    assert batch.entries[1].reason == "name-not-utf8"


def test_any_batch_size_and_number_of_threads_give_the_same_features(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (150, 140, 3), np.uint8) for _ in range(13)]
    embedder = Embedder(load_backbone(FeatureRequest(backbone="featx-mini", weights="random")), device="cpu")
    results = [
        np.concatenate([b.features for b in run(manifest_of(arrays), embedder, batch_size=size, num_workers=n)])
        for size, n in ((1, 1), (7, 4), (64, None))
    ]
    for result in results[1:]:
        assert result.shape == (13, 928)
        assert np.abs(result - results[0]).max() <= 1e-4 * results[0].std()
    again = np.concatenate([b.features for b in run(manifest_of(arrays), embedder, batch_size=7, num_workers=1)])
    assert np.array_equal(again, results[1]), "same batches, same bits"


def test_paths_arrays_and_pil_images_give_the_same_features(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (9, 11, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    manifest = manifest_of([tmp_path / "a.png", pixels, Image.fromarray(pixels)])
    (batch,) = run(manifest, embedder_of(Means()))
    assert [entry.status for entry in batch.entries] == ["ok"] * 3
    assert np.array_equal(batch.features[0], batch.features[1])
    assert np.array_equal(batch.features[0], batch.features[2])
    assert [(e.width, e.height) for e in batch.entries] == [(11, 9)] * 3
    assert len({e.sha256 for e in batch.entries}) == 3
    assert batch.entries[1].bytes == 0


def test_identical_bytes_in_a_batch_are_computed_once(tmp_path):
    embedder = embedder_of(Means())
    batches = run(files(tmp_path, [png(5), png(6), png(5), png(5)]), embedder, batch_size=4)
    assert embedder.backbone.network.batches == [2]
    assert batches[0].features[:, 0] == pytest.approx(np.array([5, 6, 5, 5]) / 255)


def test_rows_that_the_caller_knows_are_copied_not_computed(tmp_path):
    embedder = embedder_of(Means())
    known = {}

    def lookup(sha256):
        return known.get(sha256)

    manifest = files(tmp_path, [png(1), png(2), png(2), png(3), None])
    seen = []
    job = Job(embedder, range(5), lookup)
    for _, batch in iter_batches(manifest, [job], EngineOptions(batch_size=2)):
        hashes = [entry.sha256 for entry in batch.entries if entry.status == "ok"]
        known |= {sha: (row + 10, None) for sha, row in zip(hashes, batch.features, strict=True)}
        seen += list(batch.features[:, 0])
    assert seen == pytest.approx([1 / 255, 2 / 255, 10 + 2 / 255, 3 / 255])
    assert embedder.backbone.network.batches == [2, 1], "the third file has the bytes of the second"


def test_positions_choose_and_order_the_samples(tmp_path):
    manifest = files(tmp_path, [png(i) for i in range(6)])
    batches = run(manifest, embedder_of(Means()), positions=[4, 0, 5], batch_size=2)
    assert [[e.key for e in b.entries] for b in batches] == [["004.png", "000.png"], ["005.png"]]
    assert run(manifest, embedder_of(Means()), positions=[]) == []


def test_nan_and_infinite_features_are_failed_rows(tmp_path):
    class Bad(Means):
        def forward(self, x):
            features = super().forward(x)
            features[x.amax(dim=(1, 2, 3)) > 0.9] = float("nan")
            features[x.amax(dim=(1, 2, 3)) == 0] = float("inf")
            return features

    (batch,) = run(files(tmp_path, [png(250), png(9), png(0)]), embedder_of(Bad()))
    assert [entry.reason for entry in batch.entries] == ["not-finite", "", "not-finite"]
    assert [entry.status for entry in batch.entries] == ["failed", "ok", "failed"]
    assert batch.features.shape == (1, 3)
    assert batch.entries[0].sha256


def test_float16_storage_is_what_comes_out_and_its_overflow_is_a_failure(tmp_path):
    manifest = files(tmp_path, [png(10), png(255)])
    (batch,) = run(manifest, embedder_of(Means(scale=1e5), storage="float16"))
    assert batch.features.dtype == np.float16
    assert [entry.reason for entry in batch.entries] == ["", "not-finite"]
    (batch,) = run(manifest, embedder_of(Means(scale=1e5)))
    assert [entry.reason for entry in batch.entries] == ["", ""]


def test_logits_come_with_their_rows(tmp_path):
    class Scores(nn.Module):
        def __init__(self):
            super().__init__()
            self.batches = []
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            self.batches.append(len(x))
            return self.fc(x.mean(dim=(2, 3)))

    network = Scores()
    manifest = files(tmp_path, [png(3), b"no image", png(200)])
    (batch,) = run(manifest, embedder_of(network, logits=True))
    assert batch.logits.shape == (2, 2)
    with torch.inference_mode():
        expected = network.fc(torch.tensor([[3 / 255] * 3, [200 / 255] * 3])).numpy()
    np.testing.assert_allclose(batch.logits, expected, rtol=1e-5)
    (nothing,) = run(manifest, embedder_of(network, logits=True), positions=[1])
    assert nothing.features.shape == (0, 3)
    assert nothing.logits.shape == (0, 2)


class Counting:
    """Arrays that count how many of them were asked for."""

    def __init__(self, n, broken=None):
        self.n, self.asked, self.broken = n, 0, broken
        self.lock = threading.Lock()

    def __getitem__(self, i):
        with self.lock:
            self.asked += 1
        if i == self.broken:
            raise RuntimeError("a bug of ours")
        return np.full((8, 8, 3), i % 256, np.uint8)

    def manifest(self):
        empty = [""] * self.n
        return Manifest("", [str(i) for i in range(self.n)], empty, empty, empty, empty, empty, arrays=self)


def decoders():
    return [t for t in threading.enumerate() if t.name.startswith("featx-decode")]


def test_reading_ahead_is_bounded_so_that_memory_does_not_grow_with_the_number_of_images():
    source = Counting(3000)
    batches = iter_batches(source.manifest(), [Job(embedder_of(Means()), range(3000))], EngineOptions(4, 2))
    per_sample = 2  # the hash and the pixels each ask for the array
    for n in range(1, 20):
        next(batches)
        assert source.asked <= per_sample * 4 * (n + 3)
    batches.close()


def test_stopping_early_leaves_no_threads():
    batches = iter_batches(Counting(500).manifest(), [Job(embedder_of(Means()), range(500))], EngineOptions(4, 3))
    next(batches)
    assert decoders()
    batches.close()
    assert not decoders()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_an_interrupt_passes_through_and_leaves_no_threads(error):
    def lookup(sha256):
        raise error

    with pytest.raises(error):
        run(Counting(500).manifest(), embedder_of(Means()), lookup=lookup)
    assert not decoders()


def test_an_error_that_is_not_of_the_image_is_not_hidden_as_a_failed_row():
    with pytest.raises(RuntimeError, match="a bug of ours"):
        run(Counting(20, broken=13).manifest(), embedder_of(Means()))
    assert not decoders()


@pytest.mark.parametrize("options", [EngineOptions(0), EngineOptions(-1), EngineOptions(1, -1)])
def test_a_batch_size_or_number_of_workers_out_of_range_is_a_usage_error(options):
    with pytest.raises(UsageError, match="at least"):
        iter_batches(Counting(1).manifest(), [Job(embedder_of(Means()), [0])], options)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_images_resized_on_the_device_give_the_bits_of_images_resized_by_the_workers(tmp_path, num_workers):
    rng = np.random.default_rng(4)
    contents = [KINDS["truncated"], None]
    for height, width in rng.integers(20, 300, (9, 2)):
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(out, "PNG")
        contents.append(out.getvalue())
    manifest = files(tmp_path, [*contents, contents[-1]])
    embedder = Embedder(load_backbone(FeatureRequest(backbone="featx-mini", weights="random")), device="cpu")
    results = []
    for preprocess in ("cpu", "device"):
        options = EngineOptions(batch_size=4, num_workers=num_workers, preprocess=preprocess)
        results.append([batch for _, batch in iter_batches(manifest, [Job(embedder, range(len(manifest)))], options)])
    for one, other in zip(*results, strict=True):
        assert one.entries == other.entries
        assert np.array_equal(one.features, other.features)
    assert sum(len(batch.features) for batch in results[0]) == 10


def test_an_unknown_place_to_preprocess_is_a_usage_error():
    with pytest.raises(UsageError, match="unknown place to preprocess 'gpu'"):
        iter_batches(Counting(1).manifest(), [Job(embedder_of(Means()), [0])], EngineOptions(preprocess="gpu"))
