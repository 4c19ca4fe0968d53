"""The stage behind ``featx finetune``, from what it begins with to the bundle."""

import dataclasses
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits
from tuning_samples import BLIND, LEAN, SMALL, write_colours, write_networks, write_noise, write_stripes

from featx.errors import (
    BundleError,
    InputError,
    LabelsError,
    SpecMismatchError,
    StoreIncompleteError,
    StoreWriteError,
    UsageError,
    WeightsError,
)
from featx.estimators import ImageFeatures
from featx.extract import extract
from featx.finetune import FinetuneOptions, Keep, Start, finetune, plan_finetune
from featx.fit import FitOptions, fit, save
from featx.learn.bundle import load_bundle
from featx.learn.training import softmax
from featx.learn.tuning_parts import FINAL
from featx.lock import LockOptions, lock
from featx.manifest.source import SourceOptions
from featx.predict import predict
from featx.spec import FeatureRequest
from featx.vision.backbones import load_backbone, restore_backbone
from featx.vision.engine import EngineOptions
from featx.vision.tuning.images import ImageReader
from featx.vision.tuning.network import TunedNetwork
from featx.vision.tuning.recipe import Recipe

HERE = EngineOptions(num_workers=0, runtime="torch", batch_size=8, device="cpu")
QUICK = Recipe(epochs=2, batch_size=8, lr=3e-3, patience=0)
OPTIONS = FinetuneOptions(recipe=QUICK, fit=LEAN, cv=2)
PATIENTS = SourceOptions(group_regex=r"(p\d+)_")
REQUEST = FeatureRequest(backbone=SMALL)
NEITHER = Start(request=REQUEST)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Limit threads once: looking for the libraries takes longer than one of these fits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1), pytest.MonkeyPatch.context() as patch:
        patch.setattr("featx.learn.search.threadpool_limits", lambda n: nullcontext())
        yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path):
    monkeypatch.setattr("featx.store.disk.sync", lambda fd: None)
    monkeypatch.setattr("featx.store.disk.sync_folder", lambda path: None)
    write_networks(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("own_networks", None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Pictures, a feature file of them and a classifier fitted on it; none of them is changed."""
    folder = tmp_path_factory.mktemp("made")
    write_networks(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        write_colours(folder / "photos")
        extract(folder / "photos", folder / "photos.h5", request=REQUEST, source_options=PATIENTS, engine=HERE)
    sys.modules.pop("own_networks", None)
    save(fit(folder / "photos.h5", LEAN), folder / "photos.featx")
    return folder


@pytest.fixture
def photos(made):
    return made / "photos"


@pytest.fixture
def features(made):
    return made / "photos.h5"


@pytest.fixture
def bundle(made):
    return made / "photos.featx"


@pytest.fixture
def own_photos(tmp_path, photos):
    """A copy that may be changed."""
    return shutil.copytree(photos, tmp_path / "photos")


def options(*, recipe=None, fit=None, **changes):
    """The options of these tests with some changed, those of recipe and fit by dicts."""
    made = {"recipe": dataclasses.replace(QUICK, **(recipe or {})), "fit": dataclasses.replace(LEAN, **(fit or {}))}
    return dataclasses.replace(OPTIONS, **made, **changes)


FORCED = options(force=True, validation=0.0)
"""Keeps a network that was trained for all its epochs."""


def run(source, start=None, chosen=OPTIONS, **more):
    start = start or Start(features=source.parent / "photos.h5", request=REQUEST)
    return finetune(source, start, chosen, source_options=PATIENTS, engine=HERE, **more)


def plan(source, start=None, chosen=OPTIONS, **more):
    start = start or Start(features=source.parent / "photos.h5", request=REQUEST)
    grouped = PATIENTS if (source / "moss").exists() else SourceOptions()
    return plan_finetune(source, start, chosen, source_options=grouped, engine=HERE, **more)


def from_file(path, request=REQUEST, **more):
    return Start(features=path, request=request, **more)


def told(result):
    """What a run found, without what depends on the clock."""
    found = {**result.to_dict(), "seconds": 0}
    for part in found["history"]:
        for epoch in part["epochs"]:
            epoch["images_per_second"] = 0
    return found


# ---- what it begins with


def test_from_a_feature_file_from_a_bundle_and_from_neither_the_same_is_found(photos, features, bundle):
    expected = told(run(photos, from_file(features)))
    assert told(run(photos, NEITHER)) == expected
    assert told(run(photos, Start(bundle=bundle, request=REQUEST))) == expected
    assert told(run(photos, from_file(features, bundle=load_bundle(bundle)))) == expected


def test_a_bundle_brings_its_heads(photos, features):
    save(fit(features, dataclasses.replace(LEAN, heads=("lda",))), "lda.featx")
    job = plan(photos, from_file(features, bundle="lda.featx"))
    assert job.frozen.whole.chosen.head == "lda"
    assert {part.choice.head for part in job.parts} == {"lda"}


@pytest.mark.parametrize(
    ("changes", "n_classes"), [({}, 2), ({"scalings": ("standardise",)}, 2), ({"scalings": ("l2",)}, 3)]
)
def test_training_begins_where_the_frozen_head_ends(tmp_path, own_photos, changes, n_classes):
    if n_classes == 3:
        (write_colours(tmp_path / "more", seed=9) / "rust").rename(own_photos / "third")
    result = run(own_photos, NEITHER, chosen=options(recipe={"epochs": 1}, fit=changes))
    assert [len(part.epochs) for part in result.history] == [2] * len(result.history)
    assert max(part.start_difference for part in result.history) < 1e-4


def test_features_that_the_network_does_not_give_are_refused_before_the_first_step(photos):
    rough = FeatureRequest(backbone=SMALL, dtype="bfloat16")
    extract(photos, "rough.h5", request=rough, source_options=PATIENTS, engine=HERE)
    chosen, seen = options(recipe={"lr": None}, fit={"C_grid": (1e4, 1e4, 1)}), []
    with pytest.raises(InputError, match="does not begin where the frozen head ends"):
        run(photos, from_file("rough.h5"), chosen, progress=seen.append)
    assert seen == []


def test_a_training_in_bfloat16_begins_where_the_frozen_head_ends_in_float32(photos):
    chosen = options(recipe={"dtype": "bfloat16", "epochs": 1}, fit={"C_grid": (1e4, 1e4, 1)}, cv=1)
    result = run(photos, chosen=chosen)
    assert result.history[0].start_difference < 1e-4
    assert len(result.history[0].epochs) == 2


def test_a_head_that_is_no_layer_is_replaced_as_the_start_and_this_is_said(photos):
    said = []
    result = run(photos, chosen=options(fit={"heads": ("knn",)}), notify=said.append)
    assert {part.start["head"] for part in result.history} == {"logreg"}
    assert result.frozen.whole.chosen.head == "knn"
    assert any("the frozen head is knn" in text and "begins with logreg" in text for text in said)


# ---- the parts


def test_no_group_is_in_two_of_train_validation_and_test(photos, features):
    job = plan(photos, from_file(features))
    groups = job.judging.study.data.groups
    assert [part.name for part in job.parts] == ["1", "2", FINAL]
    for part in job.parts:
        own = [set(groups[rows]) for rows in (part.train, part.validate, part.test)]
        assert not own[0] & own[1]
        assert not own[2] & (own[0] | own[1])
    tests = np.concatenate([part.test for part in job.parts[:-1]])
    assert sorted(tests) == list(range(24))


@pytest.mark.parametrize(
    ("places", "scheme"),
    [(("train", "val", "test"), "val-test"), (("train", "train", "val"), "val"), (("train", "train", "test"), "test")],
)
def test_train_val_and_test_are_kept_apart(tmp_path, places, scheme):
    folder = write_colours(tmp_path / "split", 36, places=places)
    job = plan_finetune(folder, Start(request=REQUEST), OPTIONS, engine=HERE)
    (part,) = job.parts
    splits = job.judging.study.data.splits
    assert job.judging.study.plan.scheme == scheme
    assert set(splits[part.train]) == {"train"}
    assert set(splits[part.validate]) == {"val" if scheme == "val-test" else "train"}
    assert set(splits[part.test]) == {places[-1]}
    result = job.run()
    assert [one.name for one in result.history] == [FINAL]
    assert result.tuned_scores.n_samples == len(part.test)
    assert "One training each" in result.verdict.describe()


def test_one_fold_alone_may_be_tuned(photos):
    result = run(photos, chosen=options(cv=1))
    assert [part.name for part in result.history] == ["1"]
    assert result.tuned_scores.n_samples == result.frozen_scores.n_samples < 24
    assert len(result.to_dict()["difference"]["folds"]) == 1
    assert "One training each" in result.verdict.describe()


# ---- the gate


def test_json_has_the_documented_keys_and_is_lean(photos):
    found = run(photos).to_dict()
    assert {"verdict", "difference", "frozen", "tuned", "holds", "history"} < set(found)
    assert set(found["difference"]) == {"mean", "low", "high", "folds"}
    assert set(found) == {
        "verdict", "difference", "comparison", "single_training", "words", "frozen", "tuned", "holds", "history",
        "recipe", "warnings", "seconds",
    }  # fmt: skip
    assert set(found["frozen"]) == {"head", "scores", "n_samples", "estimand"}


def test_the_difference_is_that_of_the_scores_on_the_same_samples(photos):
    result = run(photos, chosen=options(recipe={"lr": 3e-2, "epochs": 4}))
    found, scores = result.to_dict(), [one.scores["accuracy"] for one in (result.tuned_scores, result.frozen_scores)]
    assert found["difference"]["folds"] == pytest.approx(np.subtract(*[one.folds for one in scores]))
    assert found["difference"]["mean"] == pytest.approx(scores[0].mean - scores[1].mean)


def test_the_frozen_classifier_is_kept_unless_tuning_wins_or_is_forced(photos):
    frozen, forced = run(photos), run(photos, chosen=FORCED)
    assert frozen.verdict.verdict == "no-evidence"
    assert (frozen.holds, frozen.tuned) == ("frozen", None)
    assert (forced.holds, forced.history[-1].name) == ("tuned", FINAL)
    frozen.save("frozen.featx")
    forced.save("forced.featx")
    for name, holds in (("frozen", "frozen"), ("forced", "tuned")):
        facts = load_bundle(f"{name}.featx").facts
        assert facts["finetune"]["holds"] == holds
        assert facts["finetune"]["verdict"]
        assert {"frozen": frozen, "forced": forced}[name].verdict.describe() in facts["description"]


def test_a_network_that_no_epoch_made_better_is_not_kept_even_by_force(photos):
    result = run(photos, chosen=options(recipe={"epochs": 0}, force=True))
    assert result.holds == "frozen"
    assert "no epoch was better than the start" in result.notes[-1]
    assert result.to_dict()["difference"]["mean"] == 0


# ---- the bundle


def by_hand(folder, job):
    """What the network of the final checkpoint says of all images, without any of featx's own bundle."""
    state = torch.load(folder / "final.pt", weights_only=True)["state"]["done"]["state"]
    spec, manifest = job.material.backbone.spec, job.material.manifest
    backbone = restore_backbone(spec, job.material.weights, allow_code=SMALL)
    n_classes, n_features = state["head.weight"].shape
    network = TunedNetwork(backbone, np.zeros((n_classes, n_features)), np.zeros(n_classes))
    network.restore(state)
    network.eval()
    with ImageReader(manifest, spec, HERE) as reader, torch.inference_mode():
        return network(next(reader.batches(np.arange(len(manifest)), 100)).images).double().numpy()


@pytest.mark.parametrize("validation", [0.0, 0.3])
def test_predict_python_and_scikit_learn_take_the_tuned_bundle_and_say_what_training_ended_with(tmp_path, validation):
    folder = write_stripes(tmp_path / "stripes", 32)
    recipe = {"lr": 1e-2, "epochs": 6, "images": "none"}
    chosen = options(force=True, validation=validation, recipe=recipe, cv=1)
    job = plan(folder, NEITHER, chosen, keep=Keep(tmp_path / "kept"))
    result = job.run()
    assert result.holds == "tuned"
    result.save("tuned.featx")
    values = by_hand(tmp_path / "kept", job)
    probabilities = result.tuned.calibration.apply(softmax(values))

    found = predict("tuned.featx", folder, engine=HERE, allow_code=SMALL)
    np.testing.assert_allclose(found.probabilities, probabilities, atol=1e-5)
    loaded = load_bundle("tuned.featx")
    paths = [folder / key for key in job.material.manifest.keys]
    X = ImageFeatures(loaded.spec, "tuned.featx", allow_code=SMALL, num_workers=0, device="cpu").transform(paths)
    np.testing.assert_allclose(loaded.predict_proba(X), probabilities, atol=1e-5)
    assert loaded.predict(X).tolist() == np.array(loaded.classes)[values.argmax(axis=1)].tolist()
    assert loaded.spec.weights == "tuned"
    assert loaded.facts["scores"]["accuracy"]["mean"] == result.tuned_scores.scores["accuracy"].mean
    assert all(found.seen)


def test_the_frozen_classifier_brings_the_users_own_weights(photos, bundle):
    run(photos).save("frozen.featx")
    found = predict("frozen.featx", photos, engine=HERE, allow_code=SMALL)
    expected = predict(bundle, photos, engine=HERE, allow_code=SMALL)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
    assert load_bundle("frozen.featx").weights is not None


def test_locked_images_stay_out_also_where_a_bundle_alone_knows_of_them(tmp_path):
    photos, features = write_colours(tmp_path / "photos", 36), "photos.h5"
    extract(photos, features, request=REQUEST, source_options=PATIENTS, engine=HERE)
    lock(features, LockOptions(fraction=0.3))
    save(fit(features, LEAN), "photos.featx")
    known = plan(photos, from_file(features))
    hidden = set(known.material.manifest.keys) - set(known.material.data.keys)
    assert hidden
    said = []
    job = plan(photos, Start(bundle="photos.featx", request=REQUEST), notify=said.append)
    assert not hidden & set(job.material.data.keys)
    assert any("locked" in text and str(len(hidden)) in text for text in said)


# ---- long runs


def test_how_long_it_will_take_and_how_images_vary_is_said_before(photos):
    said, seen = [], []
    run(photos, notify=said.append, progress=lambda at: seen.append(len(said)))
    assert "3 trainings of up to 2 epochs on cpu" in said[-1]
    assert "mirrored half of the time" in said[-2]
    assert set(seen) == {len(said)}


def test_what_would_take_too_long_is_refused_with_the_way_out(tmp_path, photos):
    with pytest.raises(UsageError, match="--cv 1") as caught:
        run(photos, chosen=options(max_hours=1e-9), keep=Keep(tmp_path / "kept"))
    assert "--max-hours 1e-09" in str(caught.value)
    assert not list((tmp_path / "kept").glob("*.pt"))
    run(photos, chosen=options(max_hours=1.0, recipe={"epochs": 1}, cv=1))


def test_progress_counts_the_images_of_all_parts(photos):
    seen = []
    run(photos, chosen=options(recipe={"epochs": 2}), progress=seen.append)
    assert [at.part for at in seen] == sorted(at.part for at in seen)
    assert {at.part for at in seen} == {"fold 1", "fold 2"}
    images = [at.images for at in seen]
    assert images == sorted(images)
    assert len(set(images)) == len(images)
    assert all(at.images <= at.n_images for at in seen)
    assert all(at.validation is not None and np.isfinite(at.loss) for at in seen)


def test_finding_the_learning_rate_is_announced_and_counted(photos):
    said, seen = [], []
    run(photos, chosen=options(recipe={"lr": None}, cv=1), notify=said.append, progress=seen.append)
    assert "of them to find the learning rate" in said[-1]
    epochs = [at.epoch for at in seen if at.part == "fold 1"]
    assert epochs == sorted(epochs)
    assert set(epochs) == {0, 1, 2}
    assert [at.images for at in seen] == sorted({at.images for at in seen})
    assert all(at.images <= at.n_images for at in seen)


def test_without_epochs_no_learning_rate_is_looked_for(photos):
    said, seen = [], []
    result = run(photos, chosen=options(recipe={"lr": None, "epochs": 0}), notify=said.append, progress=seen.append)
    assert said[-1].startswith("3 trainings of up to 0 epochs on cpu (0 steps): ")
    assert seen == []
    assert [(part.lr, part.best_epoch) for part in result.history] == [(0.0, 0), (0.0, 0)]
    assert (result.verdict.verdict, result.verdict.comparison.difference) == ("no-evidence", 0.0)


def test_a_resumed_run_finds_the_same_and_counts_only_what_it_computes(tmp_path, photos):
    whole = run(photos, chosen=FORCED)
    seen = []

    def stop(at):
        if at.part == "fold 2" and at.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(photos, chosen=FORCED, keep=Keep(tmp_path / "kept"), progress=stop)
    resumed = run(photos, chosen=FORCED, keep=Keep(tmp_path / "kept", resume=True), progress=seen.append)
    assert told(resumed) == told(whole)
    assert resumed.tuned.weights == whole.tuned.weights
    assert [at.part for at in seen if at.epoch == 1][:1] == ["final"]
    n_fold, n_all = 12, 24
    assert seen[-1].images == n_fold + 2 * n_all


def test_a_stopped_run_leaves_the_frozen_classifier(photos, bundle):
    job = plan(photos)
    job.save_frozen("stopped.featx")
    stopped = load_bundle("stopped.featx")
    assert stopped.facts["description"].endswith("A fine-tune of the network was stopped before it was finished.")
    assert stopped.facts["finetune"] == {"verdict": None, "holds": "frozen"}
    found = predict("stopped.featx", photos, engine=HERE, allow_code=SMALL)
    expected = predict(bundle, photos, engine=HERE, allow_code=SMALL)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)


def test_a_checkpoint_of_another_run_is_refused_and_stays(tmp_path, photos):
    keep = Keep(tmp_path / "kept")
    run(photos, keep=keep)
    before = (tmp_path / "kept" / "1.pt").read_bytes()
    with pytest.raises(InputError, match="another training"):
        run(photos, chosen=options(recipe={"lr": 1e-4}), keep=dataclasses.replace(keep, resume=True))
    assert (tmp_path / "kept" / "1.pt").read_bytes() == before


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_trained(tmp_path, photos, monkeypatch):
    seen = []
    free = dataclasses.make_dataclass("Usage", ["free"])(1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
    with pytest.raises(StoreWriteError, match="MiB left"):
        run(photos, keep=Keep(tmp_path / "kept"), progress=seen.append)
    assert seen == []


# ---- bad input


def test_a_feature_file_of_another_backbone_than_the_bundle_is_refused(photos, bundle):
    extract(photos, "mini.h5", request=FeatureRequest(backbone="featx-mini"), engine=HERE)
    with pytest.raises(SpecMismatchError, match="backbone") as caught:
        run(photos, from_file("mini.h5", bundle=bundle))
    assert caught.value.differences["backbone"] == ("featx-mini", SMALL)


def test_weights_that_changed_since_are_refused(photos):
    state = load_backbone(FeatureRequest(backbone="featx-mini")).network.state_dict()
    torch.save(state, "own.pth")
    request = FeatureRequest(backbone="featx-mini", weights="own.pth")
    extract(photos, "own.h5", request=request, engine=HERE)
    save(fit("own.h5", LEAN), "own.featx")
    torch.save({name: tensor + 0.1 for name, tensor in state.items()}, "own.pth")
    extract(photos, "new.h5", request=request, engine=HERE)
    with pytest.raises(SpecMismatchError, match="weights_sha256"):
        run(photos, from_file("new.h5", bundle="own.featx"))


def test_code_of_the_users_own_that_gives_other_weights_now_is_refused(tmp_path, photos, features):
    with pytest.raises(UsageError, match="own_networks:small"):
        run(photos, Start(features=features))
    (tmp_path / "own_networks.py").write_text(
        (tmp_path / "own_networks.py").read_text().replace("(8, 8, 3", "(8, 8, 5")
    )
    sys.modules.pop("own_networks", None)
    with pytest.raises(WeightsError):
        run(photos, from_file(features))


def test_one_class_in_a_split_is_refused(tmp_path):
    folder = write_colours(tmp_path / "split", 36, places=("train", "val", "test"))
    for path in (folder / "val" / "rust").iterdir():
        path.unlink()
    with pytest.raises(LabelsError, match="one class only"):
        finetune(folder, NEITHER, OPTIONS, engine=HERE)


@pytest.mark.parametrize("places", [("train", "val"), ("train", "val", "test")])
def test_a_comparison_on_one_class_is_refused_since_naming_it_always_would_win(tmp_path, places):
    folder = write_colours(tmp_path / "split", 36, places=places)
    for path in (folder / places[-1] / "rust").iterdir():
        path.unlink()
    said = f"{places[-1]}, on which tuned and frozen are compared, has samples of one class only, 'moss'"
    with pytest.raises(LabelsError, match=said):
        finetune(folder, NEITHER, OPTIONS, engine=HERE)


def test_one_fold_of_one_class_is_refused_alone_and_compared_with_others(own_photos):
    paths = sorted(own_photos.rglob("*.png"))
    folds = ["a" if path.parent.name == "moss" and i % 2 else "bc"[i // 2 % 2] for i, path in enumerate(paths)]
    named = [path.relative_to(Path.cwd()) for path in paths]
    rows = [f"{path},{path.parent.name},{fold}" for path, fold in zip(named, folds, strict=True)]
    Path("photos.csv").write_text("\n".join(["path,label,fold", *rows]))
    with pytest.raises(LabelsError, match=r"fold a, .*'moss': .* Compare on all folds: --cv 5"):
        finetune("photos.csv", NEITHER, options(cv=1), engine=HERE)
    assert plan_finetune("photos.csv", NEITHER, options(cv=3), engine=HERE).parts[0].name == "a"


@pytest.mark.parametrize("size", [1, 1000])
def test_batches_of_one_with_a_batch_norm_and_fewer_images_than_a_batch_train(photos, size):
    result = run(photos, chosen=options(recipe={"batch_size": size, "epochs": 1}, cv=1))
    assert all(np.isfinite(epoch["loss"]) for epoch in result.history[0].epochs[1:])


def test_an_image_that_cannot_be_read_is_named_before_anything_is_trained(own_photos, bundle):
    photos, known = own_photos, Start(bundle=bundle, request=REQUEST)
    broken = photos / "moss" / "p99_99.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    seen = []
    with pytest.raises(StoreIncompleteError, match=r"moss/p99_99\.png"):
        run(photos, NEITHER, progress=seen.append)
    with pytest.raises(InputError, match=r"moss/p99_99\.png"):
        run(photos, known, progress=seen.append)
    assert seen == []
    result = run(photos, known, options(fit={"allow_missing": True}, cv=1))
    assert any("have no row: 1" in note for note in result.notes)


def test_an_image_that_changed_or_vanished_since_is_named_before_anything_is_trained(own_photos, features):
    photos = own_photos
    first = sorted((photos / "moss").iterdir())[0]
    before = first.read_bytes()
    first.write_bytes((photos / "rust" / sorted(p.name for p in (photos / "rust").iterdir())[0]).read_bytes())
    with pytest.raises(InputError, match="are not those from which") as caught:
        run(photos, from_file(features))
    assert f"moss/{first.name}" in str(caught.value)
    first.write_bytes(before)
    first.unlink()
    with pytest.raises(InputError, match="1 of 24 samples with features are not in the source") as caught:
        run(photos, from_file(features))
    assert f"moss/{first.name}" in str(caught.value)


def test_images_without_features_are_counted(own_photos, features):
    (own_photos / "moss" / "p78_78.png").write_bytes(b"new")
    said = []
    plan(own_photos, from_file(features), notify=said.append)
    assert any("photos.h5: 1. They take no part" in text for text in said)


def test_too_few_groups_for_a_validation_part_are_named_with_the_way_out(tmp_path):
    few = write_colours(tmp_path / "few", 16)
    with pytest.raises(LabelsError, match="Take --validation 0"):
        run(few, NEITHER, chosen=options(fit={"cv": 4}, cv=4, validation=0.5))
    run(few, NEITHER, chosen=options(fit={"cv": 4}, cv=4, validation=0.0, recipe={"epochs": 1}))


def test_a_device_that_is_not_there_is_refused_before_anything_is_computed(photos):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    absent = dataclasses.replace(HERE, device="cuda")
    with pytest.raises(UsageError, match="not on this machine"):
        finetune(photos, Start(request=REQUEST), OPTIONS, engine=absent)


def test_a_bundle_of_another_task_is_refused(features, photos, tmp_path):
    folder = tmp_path / "numbers"
    for i, path in enumerate(sorted(photos.rglob("*.png"))):
        (folder / f"{i}").mkdir(parents=True)
        (folder / f"{i}" / path.name).write_bytes(path.read_bytes())
    extract(folder, "numbers.h5", request=REQUEST, engine=HERE)
    save(fit("numbers.h5", FitOptions(task="regression", cv=3, inner_cv=2, n_jobs=1)), "numbers.featx")
    with pytest.raises(BundleError, match="regression"):
        run(photos, Start(bundle="numbers.featx", request=REQUEST))


# ---- what the gate is worth


@pytest.mark.slow
def test_on_pure_noise_at_most_2_of_20_sets_say_better(tmp_path):
    recipe = {"epochs": 4, "lr": 1e-2, "images": "none", "batch_size": 16}
    verdicts, epochs = [], []
    for seed in range(20):
        folder = write_noise(tmp_path / f"noise-{seed}", 60, seed=seed)
        chosen = options(recipe={**recipe, "random_state": seed}, fit={"cv": 5, "random_state": seed}, cv=5)
        result = finetune(folder, NEITHER, chosen, engine=HERE)
        verdicts.append(result.verdict.verdict)
        epochs += [part.best_epoch for part in result.history]
    assert verdicts.count("better") <= 2
    assert verdicts.count("worse") <= 2
    assert sum(epoch > 0 for epoch in epochs) > len(epochs) / 4  # else it is the frozen head beside itself


@pytest.mark.slow
def test_a_shape_that_frozen_features_cannot_see_is_learnt_and_the_verdict_is_better(tmp_path):
    folder = write_stripes(tmp_path / "stripes", 100)
    recipe = {"epochs": 12, "lr": 1e-2, "images": "none", "batch_size": 16, "l2sp": 0.0}
    job = plan_finetune(
        folder,
        Start(request=FeatureRequest(backbone=BLIND)),
        options(recipe=recipe, fit={"cv": 5}, cv=5, validation=0.3),
        engine=HERE,
    )
    result = job.run()
    assert result.frozen_scores.scores["accuracy"].mean < 0.65
    assert result.tuned_scores.scores["accuracy"].mean > 0.9
    assert (result.verdict.verdict, result.holds) == ("better", "tuned")
    result.save("tuned.featx")
    new = write_stripes(tmp_path / "new", 40, seed=1)
    found = predict("tuned.featx", new, engine=HERE, allow_code=BLIND)
    assert found.evaluation.scores["accuracy"].mean > 0.9
