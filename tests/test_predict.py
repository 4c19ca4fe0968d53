"""A bundle gives new images what the cached route gave, keeps every sample in its output, refuses other features."""

import csv
import dataclasses
import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.metrics import accuracy_score

import featx
from featx import EngineOptions, FeatureRequest, FitOptions, SourceOptions, image_pipeline, load_bundle, predict
from featx.errors import BundleError, ManifestError, SpecMismatchError, StoreError, StoreWriteError, UsageError
from featx.fit import save
from featx.learn.bundle import save_bundle
from featx.predict import Predictions
from featx.store import disk
from featx.store.records import REASONS

N = 16
CLASSES = ["bright", "dark, grey"]
ENGINE = EngineOptions(device="cpu", num_workers=2, batch_size=5)
REQUEST = FeatureRequest("featx-mini", "random", node="stage2")
QUICK = {"cv": 2, "inner_cv": 2, "C_grid": (0.01, 1.0, 2), "n_jobs": 1}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Eight noisy images of each class."""
    folder = tmp_path_factory.mktemp("predict") / "photos"
    rng = np.random.default_rng(0)
    for i in range(N):
        path = folder / CLASSES[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (200, 60)[i % 2] + rng.integers(-50, 50, (40, 48, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def feature_file(photos) -> Path:
    path = photos.with_name("photos.h5")
    featx.extract(photos, path, request=REQUEST, engine=ENGINE)
    return path


@pytest.fixture(scope="module")
def bundles(feature_file) -> dict[str, Path]:
    paths = {}
    for head in ("logreg", "svm", "svm-rbf"):
        paths[head] = feature_file.with_name(f"{head}.featx")
        save(featx.fit(feature_file, FitOptions(heads=(head,), **QUICK)), paths[head])
    return paths


@pytest.fixture(scope="module")
def bundle(bundles) -> Path:
    return bundles["logreg"]


@pytest.fixture(scope="module")
def mixed(photos) -> Path:
    """A flat folder with three good images and one of each kind that cannot be read."""
    folder = photos.with_name("mixed")
    folder.mkdir()
    images = sorted(photos.glob("*/*.png"))
    for i in (0, 5, 9):
        (folder / f"{i:02d}.png").write_bytes(images[i].read_bytes())
    (folder / "01-text.png").write_text("no image")
    (folder / "02-empty.png").touch()
    (folder / "03-cut.png").write_bytes(images[0].read_bytes()[:-300])
    (folder / "04-loop.png").symlink_to("04-loop.png")
    return folder


@pytest.mark.parametrize("head", ["logreg", "svm", "svm-rbf"])
def test_the_images_the_head_was_fitted_on_give_the_cached_routes_probabilities(
    photos, feature_file, bundles, head
) -> None:
    stored = featx.load_features(feature_file)
    estimator = load_bundle(bundles[head]).pipeline
    predictions = predict(bundles[head], photos, engine=ENGINE)
    assert predictions.keys == list(stored.keys)
    assert predictions.labels == list(stored.y)
    assert predictions.status == ["ok"] * N
    assert np.abs(predictions.probabilities - estimator.predict_proba(stored.X.astype(float))).max() < 1e-5
    assert predictions.predicted == list(estimator.predict(stored.X.astype(float)))


@pytest.mark.parametrize("head", ["logreg", "svm", "svm-rbf"])
def test_a_feature_file_gives_what_its_images_give(photos, feature_file, bundles, head) -> None:
    by_file, by_image = predict(bundles[head], feature_file), predict(bundles[head], photos, engine=ENGINE)
    assert np.abs(by_file.probabilities - by_image.probabilities).max() < 1e-5
    for column in ("classes", "keys", "status", "reasons", "labels", "predicted"):
        assert getattr(by_file, column) == getattr(by_image, column)
    assert by_file.evaluation.confusion == by_image.evaluation.confusion


def test_a_bundle_may_be_given_loaded_and_images_as_lists_and_arrays(photos, bundle) -> None:
    expected = predict(bundle, photos, engine=ENGINE)
    paths = [photos / key for key in expected.keys]
    loaded = load_bundle(bundle)
    for source in (
        paths,
        [Image.open(path) for path in paths],
        np.stack([np.asarray(Image.open(path)) for path in paths]),
    ):
        predictions = predict(loaded, source, engine=ENGINE)
        assert np.abs(predictions.probabilities - expected.probabilities).max() < 1e-5
        assert predictions.evaluation is None


def test_image_pipeline_is_a_fitted_pipeline_that_takes_images(photos, bundles) -> None:
    expected = predict(bundles["svm"], photos, engine=ENGINE)
    pipeline = image_pipeline(bundles["svm"], device="cpu")
    paths = [photos / key for key in expected.keys]
    assert np.abs(pipeline.predict_proba(paths) - expected.probabilities).max() < 1e-5
    assert list(pipeline.predict(paths)) == expected.predicted
    assert pipeline.score(paths, expected.labels) == accuracy_score(expected.labels, expected.predicted)


def test_a_table_is_a_source_and_its_labels_are_scored(tmp_path, photos, bundle) -> None:
    keys = [path.relative_to(photos) for path in sorted(photos.glob("*/*.png"))]
    table = tmp_path / "table.tsv"
    lines = [f"{key}\t{key.parts[0] if i else ''}\tp{i // 2}" for i, key in enumerate(keys)]
    table.write_text("\n".join(["file\tlabel\tgroup", *lines]))
    options = SourceOptions(path_column="file", root=str(photos))
    predictions = predict(bundle, table, source_options=options, engine=ENGINE)
    known = [i for i, label in enumerate(predictions.labels) if label]
    assert len(known) == N - 1 == predictions.evaluation.n_samples
    accuracy = accuracy_score([predictions.labels[i] for i in known], [predictions.predicted[i] for i in known])
    assert predictions.evaluation.scores["accuracy"].mean == pytest.approx(accuracy)


def test_a_label_that_the_head_does_not_know_counts_as_wrong_and_is_named(tmp_path, photos, bundle) -> None:
    (tmp_path / "images" / "wasps").mkdir(parents=True)
    image = next(photos.glob("*/*.png"))
    (tmp_path / "images" / "wasps" / "a.png").write_bytes(image.read_bytes())
    evaluation = predict(bundle, tmp_path / "images", engine=ENGINE).evaluation
    assert evaluation.unseen == ["wasps"]
    assert evaluation.scores["accuracy"].mean == 0


# Images of the training set


def test_images_of_the_training_set_are_counted_and_the_new_ones_have_scores_of_their_own(
    tmp_path, photos, bundle
) -> None:
    folder = tmp_path / "photos"
    rng = np.random.default_rng(1)
    for i in range(6):
        path = folder / CLASSES[i % 2] / f"new {i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (200, 60)[(i + (i < 2)) % 2] + rng.integers(-50, 50, (40, 48, 3))  # the first two look like the others
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    for i, path in enumerate(sorted(photos.glob("*/*.png"))[:4]):
        (folder / CLASSES[0] / f"seen {i}.png").write_bytes(path.read_bytes())  # under another name
    predictions = predict(bundle, folder, engine=ENGINE)
    assert predictions.seen == ["seen" in key for key in predictions.keys]
    assert predictions.notes == [
        "4 of 10 images were in the training set; the scores on them say nothing about new images."
    ]
    assert predictions.evaluation.n_samples == 10
    assert predictions.evaluation.estimand.endswith("new samples: the head was fitted on 4 of these 10")
    assert predictions.evaluation_new.estimand == "the score of this one classifier on new samples like these"
    assert predictions.evaluation_new.n_samples == 6
    assert predictions.evaluation_new.scores["accuracy"].mean == pytest.approx(4 / 6)
    data = predictions.to_dict()
    assert (data["n_seen"], data["warnings"]) == (4, predictions.notes)
    assert data["evaluation_new"]["n_samples"] == 6
    assert [record["seen"] for record in data["predictions"]] == predictions.seen


def test_without_new_images_there_are_no_scores_of_new_ones_and_with_new_ones_only_no_warning(
    photos, mixed, feature_file, bundle
) -> None:
    by_file, by_image = predict(bundle, feature_file), predict(bundle, photos, engine=ENGINE)
    assert by_file.seen == by_image.seen == [True] * N
    assert by_file.evaluation.n_samples == N
    assert by_file.evaluation_new is None
    arrays = predict(bundle, [np.zeros((40, 48, 3), np.uint8)], engine=ENGINE)
    assert (arrays.seen, arrays.notes) == ([False], [])
    assert predict(bundle, mixed, engine=ENGINE).seen == [True, False, False, False, False, True, True]


def test_only_what_the_saved_head_was_fitted_on_counts_as_seen(tmp_path, photos) -> None:
    paths = sorted(photos.glob("*/*.png"))
    splits = ["test" if i % 3 == 2 else "train" for i in range(N)]
    rows = [(path, path.parts[-2], split) for path, split in zip(paths, splits, strict=True)]
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    options = SourceOptions(root=str(photos))
    featx.extract(tmp_path / "table.csv", tmp_path / "a.h5", request=REQUEST, source_options=options, engine=ENGINE)
    for refit, seen in (("default", [split == "train" for split in splits]), ("all", [True] * N)):
        save(featx.fit(tmp_path / "a.h5", FitOptions(refit=refit, **QUICK)), tmp_path / "a.featx")
        assert predict(tmp_path / "a.featx", tmp_path / "a.h5").seen == seen


# Views


@pytest.fixture(scope="module")
def with_views(photos) -> Path:
    path = photos.with_name("views.h5")
    featx.extract(photos, path, request=dataclasses.replace(REQUEST, n_views=3), engine=ENGINE)
    return path


@pytest.mark.parametrize(("head", "score_views"), [("logreg", "plain"), ("svm", "average")])
def test_images_their_features_and_the_pipeline_agree_on_a_head_fitted_on_views(
    photos, with_views, feature_file, tmp_path, head, score_views
) -> None:
    save(featx.fit(with_views, FitOptions(heads=(head,), score_views=score_views, **QUICK)), tmp_path / "a.featx")
    by_file, by_image = predict(tmp_path / "a.featx", with_views), predict(tmp_path / "a.featx", photos, engine=ENGINE)
    paths = [photos / key for key in by_file.keys]
    pipeline = image_pipeline(tmp_path / "a.featx", device="cpu", cache=tmp_path / "cache")
    assert len(by_file) == len(by_image) == N
    for _ in range(2):  # the second time from the cache
        assert np.abs(pipeline.predict_proba(paths) - by_file.probabilities).max() < 1e-5
    assert np.abs(by_image.probabilities - by_file.probabilities).max() < 1e-5
    assert by_file.predicted == by_image.predicted == list(pipeline.predict(paths))
    assert pipeline.score(paths, by_file.labels) == accuracy_score(by_file.labels, by_file.predicted)
    if score_views == "plain":
        assert predict(tmp_path / "a.featx", feature_file).predicted == by_file.predicted
    else:
        with pytest.raises(SpecMismatchError, match="views: file has"):
            predict(tmp_path / "a.featx", feature_file)
        with pytest.raises(UsageError, match="cannot be fitted again"):
            pipeline.fit(paths, by_file.labels)


# What cannot be read stays in


def test_unreadable_images_stay_in_the_output_with_their_status(mixed, bundle) -> None:
    predictions = predict(bundle, mixed, engine=ENGINE)
    assert predictions.keys == [
        "00.png",
        "01-text.png",
        "02-empty.png",
        "03-cut.png",
        "04-loop.png",
        "05.png",
        "09.png",
    ]
    assert predictions.status == ["ok", "failed", "failed", "failed", "failed", "ok", "ok"]
    reasons = ["not-an-image", "empty", "truncated", "symlink-loop"]
    assert [reason.partition(":")[0] for reason in predictions.reasons] == ["", *reasons, "", ""]
    assert set(reasons) <= set(REASONS)
    assert predictions.failures_by_reason == dict.fromkeys(reasons, 1)
    failed = np.array(predictions.status) == "failed"
    assert np.isnan(predictions.probabilities[failed]).all()
    assert np.allclose(predictions.probabilities[~failed].sum(axis=1), 1)
    assert [name for name in predictions.predicted if name] == list(np.array(predictions.predicted)[~failed])
    assert predictions.evaluation is None


def test_failed_rows_of_a_feature_file_stay_in_the_output(mixed, bundle, tmp_path) -> None:
    featx.extract(mixed, tmp_path / "mixed.h5", request=REQUEST, engine=ENGINE)
    by_file, by_image = predict(bundle, tmp_path / "mixed.h5"), predict(bundle, mixed, engine=ENGINE)
    assert by_file.failures == by_image.failures
    assert by_file.keys == by_image.keys
    assert by_file.predicted == by_image.predicted


def test_a_source_of_which_nothing_can_be_read_gives_only_failures(tmp_path, bundle) -> None:
    (tmp_path / "a.png").write_text("no image")
    predictions = predict(bundle, tmp_path, engine=ENGINE)
    assert list(predictions.failures) == ["a.png"]
    assert predictions.probabilities.shape == (1, 2)


def test_any_batch_size_gives_the_same_probabilities(photos, mixed, bundle) -> None:
    for source in (photos, mixed):
        one, many = (
            predict(bundle, source, engine=dataclasses.replace(ENGINE, batch_size=size)).probabilities
            for size in (1, 64)
        )
        assert np.allclose(one, many, atol=1e-5, equal_nan=True)


def test_progress_is_told_of_every_batch_up_to_the_end(photos, feature_file, bundle) -> None:
    seen: list[tuple[int, int]] = []
    predict(bundle, photos, engine=ENGINE, progress=lambda *counts: seen.append(counts))
    assert seen == [(5, 16), (10, 16), (15, 16), (16, 16)]
    seen.clear()
    predict(bundle, feature_file, progress=lambda *counts: seen.append(counts))
    assert seen[-1] == (16, 16)


# What is refused


def test_a_feature_file_of_another_spec_is_refused_with_the_differing_fields_only(tmp_path, photos, bundle) -> None:
    other = tmp_path / "other.h5"
    featx.extract(photos, other, request=dataclasses.replace(REQUEST, node="stage1", window=(0, 9)), engine=ENGINE)
    with pytest.raises(SpecMismatchError) as caught:
        predict(bundle, other)
    assert set(caught.value.differences) == {"node", "feature_shape", "preprocess.window"}
    assert str(other) in str(caught.value)


@pytest.mark.parametrize(("name", "error"), [("none.h5", StoreError), ("none", ManifestError)])
def test_a_source_that_is_not_there_is_an_error(tmp_path, bundle, name, error) -> None:
    with pytest.raises(error):
        predict(bundle, tmp_path / name)


def test_a_bundle_that_is_not_there_is_an_error(tmp_path, photos) -> None:
    with pytest.raises(BundleError):
        predict(tmp_path / "none.featx", photos)


def test_options_of_folders_are_refused_for_a_feature_file(feature_file, bundle) -> None:
    with pytest.raises(UsageError, match="feature file"):
        predict(bundle, feature_file, source_options=SourceOptions(limit=3))


def test_a_feature_file_of_any_name_is_seen_by_its_first_bytes(tmp_path, feature_file, bundle) -> None:
    (tmp_path / "features").symlink_to(feature_file)
    assert predict(bundle, tmp_path / "features").keys == predict(bundle, feature_file).keys


# The user's own weights and code


def test_a_bundle_with_the_users_own_weights_needs_their_file_no_more(tmp_path, photos) -> None:
    from featx.vision.backbones import load_backbone

    weights = tmp_path / "own.safetensors"
    save_file(load_backbone(FeatureRequest("featx-mini", "random:7")).network.state_dict(), weights)
    request = dataclasses.replace(REQUEST, weights=str(weights))
    featx.extract(photos, tmp_path / "a.h5", request=request, engine=ENGINE)
    save(featx.fit(tmp_path / "a.h5", FitOptions(**QUICK)), tmp_path / "a.featx")
    weights.unlink()
    expected = predict(tmp_path / "a.featx", tmp_path / "a.h5")
    predictions = predict(tmp_path / "a.featx", photos, engine=ENGINE)
    assert np.abs(predictions.probabilities - expected.probabilities).max() < 1e-5
    pipeline = image_pipeline(tmp_path / "a.featx", device="cpu")
    assert np.abs(pipeline.predict_proba([photos / key for key in expected.keys]) - expected.probabilities).max() < 1e-5


def test_code_that_a_bundle_names_is_not_imported_unless_the_user_names_it_too(
    tmp_path, photos, bundle, monkeypatch
) -> None:
    (tmp_path / "own_network.py").write_text("import pathlib; pathlib.Path(__file__).with_name('ran').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    loaded = load_bundle(bundle)
    spec = dataclasses.replace(loaded.spec, backbone="own_network:make", weights="own")
    save_bundle(tmp_path / "a.featx", estimator=loaded.pipeline, facts={**loaded.facts, "spec": spec}, weights=b"x")
    for run in (
        lambda: predict(tmp_path / "a.featx", photos, engine=ENGINE),
        lambda: predict(tmp_path / "a.featx", photos, engine=ENGINE, allow_code="own_network:other"),
        lambda: image_pipeline(tmp_path / "a.featx").predict([next(photos.glob("*/*.png"))]),
    ):
        with pytest.raises(UsageError, match="own_network:make"):
            run()
    assert not (tmp_path / "ran").exists()


# Writing


@pytest.fixture(scope="module")
def predictions(mixed, bundle) -> Predictions:
    return predict(bundle, mixed, engine=ENGINE)


def test_csv_has_the_documented_header_and_a_row_for_every_sample(tmp_path, predictions) -> None:
    predictions.save(tmp_path / "p.csv")
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["key", "status", "predicted", "p_bright", "p_dark, grey"]
    assert [row[0] for row in rows] == predictions.keys
    assert [row[1] for row in rows] == predictions.status
    assert [row[2] for row in rows] == predictions.predicted
    written = np.array([[float(cell or "nan") for cell in row[3:]] for row in rows])
    assert np.array_equal(written, predictions.probabilities, equal_nan=True)


def test_jsonl_has_one_strict_object_for_every_sample(tmp_path, predictions) -> None:
    predictions.save(tmp_path / "p.jsonl")
    lines = (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert records == list(predictions.iter_records())
    assert [record["key"] for record in records] == predictions.keys
    assert records[1]["reason"].startswith("not-an-image")
    assert records[1]["predicted"] is records[1]["probabilities"] is None
    assert records[0]["probabilities"] == dict(zip(CLASSES, predictions.probabilities[0].tolist(), strict=True))


def test_keys_of_any_characters_survive_csv_and_jsonl() -> None:
    keys = ['a"b.png', "line\nbreak.png", "comma,.png", "ü✓.png", " space "]
    n = len(keys)
    predictions = Predictions(
        keys=keys,
        status=["ok"] * n,
        reasons=[""] * n,
        labels=[""] * n,
        seen=[False] * n,
        classes=["x", "y"],
        predicted=["x"] * n,
        probabilities=np.full((n, 2), 0.5),
    )
    as_csv, as_jsonl = io.StringIO(), io.StringIO()
    predictions.write_csv(as_csv)
    predictions.write_jsonl(as_jsonl)
    assert [row[0] for row in csv.reader(io.StringIO(as_csv.getvalue()))][1:] == keys
    assert [json.loads(line)["key"] for line in as_jsonl.getvalue().strip().split("\n")] == keys


def test_everything_as_one_strict_json_object(predictions, feature_file, bundle) -> None:
    for some in (predictions, predict(bundle, feature_file)):
        data = json.loads(json.dumps(some.to_dict(), allow_nan=False))
        assert data["n_samples"] == len(data["predictions"]) == len(some)
        assert data["n_failed"] == len(some.failures)


def test_another_kind_of_output_is_refused(tmp_path, predictions) -> None:
    with pytest.raises(UsageError, match=r"\.csv or \.jsonl"):
        predictions.save(tmp_path / "p.xlsx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["open_file", "write", "sync", "replace"])
def test_a_full_disk_leaves_the_old_predictions(tmp_path, predictions, monkeypatch, call) -> None:
    path = tmp_path / "p.csv"
    path.write_text("old")

    def fail(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk, call, fail)
    with pytest.raises(StoreWriteError, match="No space left"):
        predictions.save(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path, predictions) -> None:
    pipe = tmp_path / "p.csv"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        predictions.save(pipe)
        assert reader.stdout.read().startswith("key,status,predicted,")
    assert pipe.is_fifo()


# What is loaded


def test_predicting_from_a_feature_file_imports_no_torch(feature_file, bundles) -> None:
    code = (
        "import sys; from featx import predict\n"
        "assert len(predict(sys.argv[1], sys.argv[2])) == 16\n"
        "assert not {'torch', 'torchvision', 'click'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, bundles["svm-rbf"], feature_file], check=True)
