"""`ImageFeatures` and `CachedFeatures` keep scikit-learn's contract, and give what an extraction gives."""

import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from joblib import Parallel, delayed
from PIL import Image
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.exceptions import SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import featx
from featx import CachedFeatures, FeatureRequest, ImageFeatures
from featx.errors import ImageDecodeError, InputError, StoreError, UnknownNameError, UsageError
from featx.manifest.source import manifest_of
from featx.store import lock
from featx.store.cache import ShardCache
from featx.vision.backbones import load_backbone
from featx.vision.mini import N_FEATURES

N = 8
MINI = {"backbone": "featx-mini", "weights": "random", "device": "cpu", "num_workers": 2}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads on busy cores wait for each other more than they compute; workers inherit the environment."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


def close(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal in the sense of the feature file: same runtime and device, another batch size."""
    return a.shape == b.shape and np.abs(a - b).max() <= 1e-4 * b.std()


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    rng = np.random.default_rng(0)
    tone = np.where(np.arange(N) % 2, 60, 190)[:, None, None, None]
    return (tone + rng.integers(-50, 50, (N, 40, 48, 3))).astype(np.uint8)


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.array(["bright", "dark"])[np.arange(N) % 2]


@pytest.fixture(scope="module")
def paths(tmp_path_factory, pixels) -> list[str]:
    folder = tmp_path_factory.mktemp("images")
    for i, array in enumerate(pixels):
        Image.fromarray(array).save(folder / f"{i:02d}.png")
    return [str(folder / f"{i:02d}.png") for i in range(N)]


@pytest.fixture(scope="module")
def features(pixels) -> np.ndarray:
    return ImageFeatures(**MINI).fit_transform(pixels)


@pytest.fixture(scope="module")
def feature_file(tmp_path_factory, paths, labels) -> Path:
    """Eight good samples and one that failed."""
    path = tmp_path_factory.mktemp("cache") / "a.h5"
    bad = Path(paths[0]).with_name("bad.png")
    bad.write_text("no image")
    names = [Path(item).name for item in [*paths, bad]]
    manifest = manifest_of([*paths, bad], labels=[*labels, "dark"], keys=names)
    featx.extract(
        manifest, path, request=FeatureRequest("featx-mini", "random"), engine=featx.EngineOptions(device="cpu")
    )
    return path


# Our own contract test for the image transformer


def test_image_features_stores_its_arguments_and_does_nothing_else() -> None:
    weights = Path("no-such-file.pth")
    transformer = ImageFeatures("no-such-backbone", weights, batch_size=-1, window=[0, 1], cache=Path("no/where"))
    assert transformer.get_params()["weights"] is weights
    assert vars(transformer) == transformer.get_params()
    assert vars(clone(transformer)) == vars(transformer)


def test_image_features_shows_what_differs_from_the_defaults_only() -> None:
    assert repr(ImageFeatures(node="layer3")) == "ImageFeatures(node='layer3')"


def test_image_features_passes_the_checks_of_scikit_learn_for_what_is_no_matrix() -> None:
    with pytest.warns(SkipTestWarning):
        results = check_estimator(ImageFeatures(**MINI), on_skip=None, on_fail="raise")
    assert "check_estimator_cloneable" in {one["check_name"] for one in results}


def test_fit_learns_nothing_and_transform_needs_no_fit(pixels, features) -> None:
    transformer = ImageFeatures(**MINI)
    assert np.array_equal(transformer.transform(pixels), features)
    assert transformer.fit(pixels) is transformer
    assert vars(transformer) == transformer.get_params()


def test_image_features_are_finite_float32_rows(features) -> None:
    assert features.shape == (N, N_FEATURES)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def test_paths_pil_images_and_arrays_give_the_same_rows(pixels, paths, features) -> None:
    transformer = ImageFeatures(**MINI)
    for X in (
        paths,
        [Path(path) for path in paths],
        np.array(paths),
        np.array(paths, dtype=object),
        pd.Series(paths, index=range(100, 100 + N)),
        pd.DataFrame({"path": paths}),
        [Image.fromarray(array) for array in pixels],
        list(pixels),
        [paths[0], Image.fromarray(pixels[1]), *pixels[2:]],
    ):
        assert np.array_equal(transformer.transform(X), features)


def test_grey_arrays_are_images_too(pixels) -> None:
    grey = pixels[..., 0]
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    assert np.array_equal(ImageFeatures(**MINI).transform(grey), ImageFeatures(**MINI).transform(rgb))


def test_rows_are_in_the_order_of_the_input_and_an_image_may_come_twice(paths, features) -> None:
    order = [3, 0, 3, 7, 5]
    assert close(ImageFeatures(**MINI).transform([paths[i] for i in order]), features[order])


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_one_image_alone_has_the_row_that_it_has_among_others(pixels, features, batch_size) -> None:
    assert close(ImageFeatures(**MINI, batch_size=batch_size).transform(pixels), features)


@pytest.mark.parametrize("X", [[], np.empty((0, 8, 8, 3), np.uint8), np.array([], dtype=str)])
def test_empty_input_is_an_error(X) -> None:
    with pytest.raises(InputError):
        ImageFeatures(**MINI).transform(X)


@pytest.mark.parametrize(
    "X", ["a.png", Path("a.png"), np.zeros((3, 8, 8, 3)), np.zeros((8, 8), np.uint8), [1.5], np.array([["a", "b"]])]
)
def test_input_that_is_no_images_is_an_error(X) -> None:
    with pytest.raises((InputError, UsageError)):
        ImageFeatures(**MINI).transform(X)


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize(("name", "reason"), [("none.png", "missing"), ("text.png", "not-an-image")])
def test_an_unreadable_image_is_an_error_that_names_it(tmp_path, paths, name, reason, cache) -> None:
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ImageDecodeError, match=f"item 2, .*{name}") as caught:
        ImageFeatures(**MINI, cache=tmp_path / "c" if cache else None).transform([*paths[:2], str(tmp_path / name)])
    assert caught.value.reason == reason


def test_an_unknown_backbone_is_an_error_with_close_matches(paths) -> None:
    with pytest.raises(UnknownNameError, match="resnet50"):
        ImageFeatures("resnet5O").fit_transform(paths)


def test_image_features_are_those_of_an_extraction(feature_file, features) -> None:
    assert close(features, featx.load_features(feature_file, allow_missing=True).X)


def test_parameters_set_later_count(pixels) -> None:
    transformer = ImageFeatures(**MINI)
    before = transformer.transform(pixels[:1])
    assert not np.array_equal(transformer.set_params(weights="random:1").transform(pixels[:1]), before)
    assert transformer.set_params(node="stage1").transform(pixels[:1]).shape[1] != N_FEATURES


def test_a_weights_file_that_was_replaced_is_read_again(tmp_path, pixels) -> None:
    from safetensors.torch import save_file

    from featx.vision.backbones import load_backbone

    rows = []
    for seed in range(2):
        network = load_backbone(FeatureRequest("featx-mini", f"random:{seed}")).network
        save_file(network.state_dict(), tmp_path / "new")
        (tmp_path / "new").replace(tmp_path / "w.safetensors")
        rows.append(ImageFeatures("featx-mini", tmp_path / "w.safetensors", device="cpu").transform(pixels[:1]))
        assert close(rows[-1], ImageFeatures("featx-mini", f"random:{seed}", device="cpu").transform(pixels[:1]))
    assert not np.array_equal(*rows)


# In scikit-learn's company


def model(**options):
    return make_pipeline(ImageFeatures(**MINI, **options), StandardScaler(), LogisticRegression())


def test_a_pickle_holds_no_weights_and_works_in_another_process(paths, labels) -> None:
    fitted = model().fit(paths, labels)
    assert len(pickle.dumps(fitted[0])) < 1000
    (there,) = Parallel(n_jobs=2)([delayed(fitted.predict_proba)(paths)])
    assert np.allclose(there, fitted.predict_proba(paths), atol=1e-6)


@pytest.mark.slow
def test_grid_search_with_two_jobs_equals_one(paths, labels, tmp_path) -> None:
    grid = {"imagefeatures__node": ["stage1", "stage2"]}
    results = [
        GridSearchCV(model(cache=tmp_path / f"{n_jobs}"), grid, cv=2, n_jobs=n_jobs, error_score="raise").fit(
            paths, labels
        )
        for n_jobs in (1, 2)
    ]
    one, two = (result.cv_results_["mean_test_score"] for result in results)
    assert np.array_equal(one, two)
    assert one.max() > 0.9
    assert np.array_equal(results[1].predict(paths), labels)


def test_cross_validate_takes_arrays_and_lists_of_paths(paths, pixels, labels) -> None:
    by_path = cross_validate(model(), paths, labels, cv=3, error_score="raise")
    by_array = cross_validate(model(), pixels, labels, cv=3, error_score="raise")
    assert np.array_equal(by_path["test_score"], by_array["test_score"])


def test_pandas_output_has_names_and_the_index_of_the_input(paths, features) -> None:
    transformer = ImageFeatures(**MINI).set_output(transform="pandas")
    frame = transformer.fit_transform(pd.Series(paths[:3], index=["a", "b", "c"]))
    assert list(frame.index) == ["a", "b", "c"]
    assert list(frame.columns) == list(transformer.get_feature_names_out())
    assert frame.columns[0] == "imagefeatures0"
    assert close(frame.to_numpy(), features[:3])


def test_a_column_of_a_table_can_be_images(paths, features) -> None:
    table = pd.DataFrame({"image": paths, "age": np.arange(N)})
    for columns in ("image", ["image"]):
        both = make_column_transformer((ImageFeatures(**MINI), columns), ("passthrough", ["age"])).fit_transform(table)
        assert close(both[:, :-1], features)


# The cache


def test_rows_in_the_cache_are_not_computed_again_whatever_they_come_from(tmp_path, pixels, paths, features) -> None:
    cached = ImageFeatures(**MINI, cache=tmp_path)
    assert close(cached.transform(pixels), features)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featx.image_input.iter_batches", lambda *_args: pytest.fail("computed again"))
        assert close(cached.transform(pixels[::-1].copy()), features[::-1])
        with pytest.raises(pytest.fail.Exception):
            cached.transform(paths)  # the bytes of a file are not those of an array
    assert close(cached.transform([*paths, *paths]), np.concatenate([features, features]))


def test_rows_of_another_spec_are_not_taken_from_the_cache(tmp_path, pixels) -> None:
    first = ImageFeatures(**MINI, cache=tmp_path).transform(pixels)
    other = ImageFeatures(**{**MINI, "weights": "random:1"}, cache=tmp_path).transform(pixels)
    assert close(other, ImageFeatures(**{**MINI, "weights": "random:1"}).transform(pixels))
    assert not close(other, first)


def test_what_was_computed_before_an_unreadable_image_is_in_the_cache(tmp_path, paths) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(paths[0]).read_bytes()[:-200])
    cached = ImageFeatures(**MINI, cache=tmp_path / "cache", batch_size=4)
    with pytest.raises(ImageDecodeError):
        cached.transform([*paths, str(broken)])
    cache = ShardCache.open(tmp_path / "cache", cached.spec_)
    from featx.manifest.source import sample_sha256

    manifest = manifest_of(paths)
    assert len(cache.get([sample_sha256(manifest, i) for i in range(N)])) == N


def test_views_lie_side_by_side_and_the_cache_keeps_each_for_every_plan(tmp_path, pixels, features) -> None:
    request = FeatureRequest("featx-mini", "random", n_views=3, view_kinds=("flip", "turn"))
    spec = load_backbone(request).spec
    options = {"device": "cpu", "num_workers": 2, "cache": tmp_path}
    assert np.array_equal(ImageFeatures(spec, device="cpu").transform(pixels), features)
    assert not any(tmp_path.iterdir())
    every = ImageFeatures(spec, views="all", **options)
    rows = every.transform(pixels)
    assert rows.shape == (N, 3 * N_FEATURES) == (N, len(every.get_feature_names_out()))
    assert close(rows[:, :N_FEATURES], features)
    mirrored = pixels[:, :, ::-1]
    assert close(rows[:, N_FEATURES : 2 * N_FEATURES], ImageFeatures(**MINI).transform(mirrored))
    assert len(list(tmp_path.iterdir())) == 3
    for views in (spec.views, ("plain",), spec.views[:2]):  # nothing new is computed: the rows are the same bits
        some = ImageFeatures(dataclasses.replace(spec, views=views), views="all", **options).transform(pixels)
        assert np.array_equal(some, rows[:, : len(views) * N_FEATURES])
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(UnknownNameError, match="value of views 'al'; did you mean all"):
        ImageFeatures(spec, views="al").transform(pixels)


def test_a_process_that_cannot_take_the_lock_reads_what_is_there_and_computes_the_rest(
    tmp_path, pixels, features
) -> None:
    cached = ImageFeatures(**MINI, cache=tmp_path)
    cached.transform(pixels[:4])
    folder = ShardCache.open(tmp_path, cached.spec_).path
    held = lock.WriterLock.take(folder / "lock")
    assert held is not None
    before = sorted(folder.iterdir())
    try:
        assert close(ImageFeatures(**MINI, cache=tmp_path).transform(pixels), features)
        assert sorted(folder.iterdir()) == before
    finally:
        held.release()
    ImageFeatures(**MINI, cache=tmp_path).transform(pixels)
    assert len(sorted(folder.iterdir())) > len(before)


@pytest.mark.slow
def test_two_processes_with_one_cache_at_once_both_get_all_rows(tmp_path, pixels, features) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.choice(N, 3) for _ in range(20)] + [np.arange(N)] * 2
    cached = ImageFeatures(**MINI, cache=tmp_path)
    rows = Parallel(n_jobs=2)(delayed(cached.transform)(pixels[part]) for part in parts)
    for part, some in zip(parts, rows, strict=True):
        assert close(some, features[part])
    assert len({path.name for path in ShardCache.open(tmp_path, cached.spec_).path.glob("shard-*")}) > 1


# CachedFeatures


def keys_of(paths: list[str]) -> list[str]:
    return [Path(path).name for path in paths]


def test_cached_features_gives_the_row_of_each_key_in_any_order(feature_file, paths) -> None:
    stored = featx.load_features(feature_file, allow_missing=True)
    keys = list(stored.keys)
    order = [5, 0, 5, 7]
    for X in ([keys[i] for i in order], np.array(keys)[order], pd.Series(keys).iloc[order]):
        rows = CachedFeatures(feature_file).transform(X)
        assert np.array_equal(rows, stored.X[order])
        assert rows.dtype == np.float32


def test_cached_features_of_a_file_with_views_are_the_plain_images(tmp_path, pixels, features) -> None:
    request = FeatureRequest("featx-mini", "random", n_views=2)
    featx.extract(list(pixels), tmp_path / "v.h5", request=request, engine=featx.EngineOptions(device="cpu"))
    X, _, _, keys = featx.load_features(tmp_path / "v.h5")
    assert close(X, features)
    assert np.array_equal(CachedFeatures(tmp_path / "v.h5").transform(keys[::-1]), X[::-1])


def test_an_unknown_key_is_an_error_with_close_matches(feature_file) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown key '3\.png'.*03\.png"):
        CachedFeatures(feature_file).transform(["03.png", "3.png"])


def test_a_key_whose_image_failed_is_an_error_that_says_why(feature_file) -> None:
    with pytest.raises(InputError, match=r"bad\.png: no features, because not-an-image"):
        CachedFeatures(feature_file).transform(["03.png", "bad.png"])


@pytest.mark.parametrize("X", [[], np.array([], dtype=str)])
def test_no_keys_are_an_error(feature_file, X) -> None:
    with pytest.raises(InputError):
        CachedFeatures(feature_file).transform(X)


def test_a_missing_file_is_an_error_where_it_is_read(tmp_path) -> None:
    transformer = CachedFeatures(tmp_path / "none.h5")
    with pytest.raises(StoreError):
        transformer.transform(["a"])


def test_cached_features_passes_the_checks_of_scikit_learn_for_what_is_no_matrix(feature_file) -> None:
    with pytest.warns(SkipTestWarning):
        assert check_estimator(CachedFeatures(feature_file), on_skip=None, on_fail="raise")


def test_keys_cross_validate_with_two_jobs_as_the_matrix_does(feature_file) -> None:
    stored = featx.load_features(feature_file, allow_missing=True)
    head = LogisticRegression(C=1e-3)
    by_key = cross_validate(
        make_pipeline(CachedFeatures(feature_file), head), stored.keys, stored.y, cv=3, n_jobs=2, error_score="raise"
    )
    by_row = cross_validate(head, stored.X, stored.y, cv=3, error_score="raise")
    assert np.array_equal(by_key["test_score"], by_row["test_score"])


def test_cached_features_pickles_without_the_rows_and_names_its_columns(feature_file) -> None:
    transformer = CachedFeatures(feature_file).set_output(transform="pandas")
    frame = transformer.fit_transform(["00.png", "01.png"])
    assert list(frame.columns) == list(transformer.get_feature_names_out())
    assert len(pickle.dumps(transformer)) < 1000
    assert pickle.loads(pickle.dumps(transformer)).transform(["01.png"]).equals(frame.iloc[[1]].reset_index(drop=True))


def test_a_feature_file_that_was_replaced_is_read_again(tmp_path, paths) -> None:
    path, engine = tmp_path / "a.h5", featx.EngineOptions(device="cpu")
    request = FeatureRequest("featx-mini", "random")
    for places in (range(3), range(2, 8)):
        manifest = manifest_of([paths[i] for i in places])
        featx.extract(manifest, path, request=request, engine=engine, update=featx.UpdateOptions(replace=True))
        assert len(CachedFeatures(path).transform(manifest.keys)) == len(places)


def test_cached_features_and_a_pickle_of_image_features_import_no_torch(feature_file, tmp_path) -> None:
    (tmp_path / "both.pkl").write_bytes(pickle.dumps([CachedFeatures(feature_file), ImageFeatures(**MINI)]))
    code = (
        "import pickle, sys\n"
        "pickle.load(open(sys.argv[1], 'rb'))[0].fit_transform(['00.png'])\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "both.pkl"], check=True)
