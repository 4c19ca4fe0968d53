"""`FineTuneClassifier` keeps scikit-learn's contract, and trains as the stage does."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn
import torch
from PIL import Image
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_validate
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from tuning_samples import SMALL, write_networks

from featx import FineTuneClassifier, ImageFeatures
from featx.errors import ImageDecodeError, LabelsError, UnknownNameError, UsageError
from featx.finetuning.labelled import LabelledImages
from featx.learn.tuning_parts import plan_final

ROOT = str(Path(__file__).parents[1])
N = 20
TINY = {
    "backbone": SMALL, "weights": "random:0", "device": "cpu", "num_workers": 0,
    "batch_size": 8, "epochs": 1, "lr": 1e-3, "images": "none", "validation": 0.0,
}  # fmt: skip
START = {**TINY, "epochs": 0}
"""Nothing but the solved head: quick."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def networks(tmp_path_factory):
    """A folder with the user's own network, from which it can be imported."""
    folder = tmp_path_factory.mktemp("networks")
    write_networks(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


@pytest.fixture(scope="module")
def pixels():
    """Noise in which lines lie or stand, faintly."""
    rng = np.random.default_rng(0)
    found = rng.integers(0, 200, (N, 32, 32, 3))
    found[::2, ::4] += 50
    found[1::2, :, ::4] += 50
    return found.astype(np.uint8)


@pytest.fixture(scope="module")
def labels():
    return np.array(["lying", "standing"])[np.arange(N) % 2]


@pytest.fixture(scope="module")
def groups():
    return np.array([f"patient {i // 2}" for i in range(N)])


@pytest.fixture(scope="module")
def paths(tmp_path_factory, pixels):
    folder = tmp_path_factory.mktemp("images")
    for i, array in enumerate(pixels):
        Image.fromarray(array).save(folder / f"{i:02d}.png")
    return np.array([str(folder / f"{i:02d}.png") for i in range(N)])


@pytest.fixture(scope="module")
def fitted(pixels, labels):
    return FineTuneClassifier(**TINY).fit(pixels, labels)


# ---- scikit-learn's contract


def test_it_stores_its_arguments_and_does_nothing_else():
    weights = Path("no-such-file.pth")
    model = FineTuneClassifier("no-such-backbone", weights, epochs=-1, changes={"mixup": "?"})
    assert model.get_params()["weights"] is weights
    assert vars(model) == model.get_params()
    assert vars(clone(model)) == vars(model)
    assert vars(model.set_params(lr=0.5)) == {**vars(clone(model)), "lr": 0.5}
    assert is_classifier(model)
    assert repr(FineTuneClassifier(epochs=3)) == "FineTuneClassifier(epochs=3)"


def test_it_passes_the_checks_of_scikit_learn_for_what_is_no_matrix():
    with pytest.warns(SkipTestWarning):
        results = check_estimator(FineTuneClassifier(**TINY), on_skip=None, on_fail="raise")
    assert "check_estimator_cloneable" in {one["check_name"] for one in results}


def test_fit_leaves_the_parameters_alone_and_returns_itself(fitted):
    assert fitted.get_params() == FineTuneClassifier(**TINY).get_params()
    assert vars(clone(fitted)) == fitted.get_params()


def test_what_it_gives_is_a_classifiers(fitted, pixels, labels):
    probabilities = fitted.predict_proba(pixels)
    assert list(fitted.classes_) == ["lying", "standing"]
    assert probabilities.shape == (N, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert np.array_equal(fitted.predict(pixels), fitted.classes_[probabilities.argmax(axis=1)])
    assert fitted.score(pixels, labels) == accuracy_score(labels, fitted.predict(pixels))
    assert [epoch["number"] for epoch in fitted.history_] == [0, 1]


def test_without_fit_it_says_so(pixels):
    with pytest.raises(NotFittedError):
        FineTuneClassifier(**TINY).predict(pixels)


def test_paths_and_arrays_and_any_order_of_them_give_the_same(fitted, paths, pixels):
    expected = fitted.predict_proba(pixels)
    np.testing.assert_allclose(fitted.predict_proba(list(paths)), expected, atol=1e-5)
    np.testing.assert_allclose(fitted.predict_proba(paths[::-1])[::-1], expected, atol=1e-5)


def test_the_same_random_state_gives_the_same_classifier_to_the_bit(fitted, pixels, labels):
    again = clone(fitted).fit(pixels, labels)
    assert again.weights_ == fitted.weights_
    assert np.array_equal(again.predict_proba(pixels), fitted.predict_proba(pixels))
    other = clone(fitted).set_params(random_state=1).fit(pixels, labels)
    assert other.weights_ != fitted.weights_  # images come in another order


def test_classes_that_are_numbers_are_called_as_numbers(pixels, labels):
    y = np.where(labels == "lying", 10, 9)  # 9 comes before 10 as a number, and behind it as a name
    model, named = (FineTuneClassifier(**START).fit(pixels, each) for each in (y, labels))
    assert model.classes_.tolist() == [9, 10]
    np.testing.assert_array_equal(model.predict(pixels) == 10, named.predict(pixels) == "lying")
    np.testing.assert_allclose(model.predict_proba(pixels), named.predict_proba(pixels)[:, ::-1], atol=1e-5)


@pytest.mark.slow
def test_a_pickle_holds_the_weights_once_and_works_in_another_process(fitted, pixels, networks, tmp_path):
    fitted.predict(pixels[:2])
    content = pickle.dumps(fitted)
    assert len(content) < len(fitted.weights_) + 10_000  # the head, names, history
    (tmp_path / "model.pkl").write_bytes(content)
    np.save(tmp_path / "pixels.npy", pixels[:4])
    script = (
        "import pickle, numpy as np, torch; torch.set_num_threads(1);"
        "model = pickle.load(open('model.pkl', 'rb')); np.save('out.npy', model.predict_proba(np.load('pixels.npy')))"
    )
    found = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{networks}"}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, env=found)
    assert np.array_equal(np.load(tmp_path / "out.npy"), fitted.predict_proba(pixels[:4]))


# ---- what it trains on


def test_where_no_epoch_is_better_it_is_the_frozen_network_with_its_head(pixels, labels):
    model = FineTuneClassifier(**{**TINY, "lr": 0.0, "validation": 0.25}).fit(pixels, labels)
    assert model.best_epoch_ == 0
    rows = ImageFeatures(SMALL, "random:0", device="cpu", num_workers=0).transform(pixels)
    np.testing.assert_allclose(model.predict_proba(pixels), model.head_.predict_proba(rows), atol=1e-5)


@pytest.mark.parametrize(("backbone", "weights"), [(SMALL, "random:0"), ("featx-mini", "DEFAULT")])
def test_the_start_is_a_logistic_regression_that_scikit_learn_finds_as_well(pixels, labels, backbone, weights):
    """Of all values of C and all scalings that are tried, one gives the same probabilities."""
    rows = ImageFeatures(backbone, weights, device="cpu", num_workers=0).transform(pixels).astype(float)
    found = (
        FineTuneClassifier(**{**START, "backbone": backbone, "weights": weights})
        .fit(pixels, labels)
        .predict_proba(pixels)
    )
    differences = [
        np.abs(LogisticRegression(C=C, tol=1e-8, max_iter=10_000).fit(X, labels).predict_proba(X) - found).max()
        for C in np.geomspace(1e-6, 1e3, 10)
        for X in (rows, StandardScaler().fit_transform(rows), Normalizer().fit_transform(rows))
    ]
    assert min(differences) < 1e-3


def test_no_group_is_on_both_sides_of_the_choice(monkeypatch, pixels, labels, groups):
    parts = []

    def look(study, *, validation):
        parts.append((study, plan_final(study, validation=validation)))
        return parts[-1][1]

    monkeypatch.setattr("featx.finetune_classifier.plan_final", look)
    FineTuneClassifier(**{**START, "validation": 0.25}).fit(pixels, labels, groups)
    ((study, part),) = parts
    assert np.array_equal(LabelledImages(study, np.arange(N)).task(part).train.positions, part.train)
    assert not set(groups[part.train]) & set(groups[part.validate])
    assert sorted([*part.train, *part.validate]) == list(range(N))
    assert len(part.validate)


def test_samples_without_a_group_are_groups_of_their_own(pixels, labels):
    given = np.array([None, np.nan] * (N // 2), dtype=object)
    one = FineTuneClassifier(**START).fit(pixels, labels, given)
    other = FineTuneClassifier(**START).fit(pixels, labels)
    assert np.array_equal(one.predict_proba(pixels), other.predict_proba(pixels))


def test_cross_validation_gives_it_groups_and_never_a_test_image(tmp_path, paths, labels, groups):
    """Each fit is that of a classifier which has nothing but its training images: the others are no images there."""
    model, cv = FineTuneClassifier(**{**TINY, "changes": {"momentum": 0.5}}), GroupKFold(2)
    found = cross_validate(
        model,
        paths,
        labels,
        groups=groups,
        params={"groups": groups},
        cv=cv,
        return_estimator=True,
        error_score="raise",
    )
    train, test = next(cv.split(paths, labels, groups))
    alone = np.array([shutil.copy(path, tmp_path / Path(path).name) for path in paths])
    for place in test:
        Path(alone[place]).write_text("no image")
    own = clone(model).fit(alone[train], labels[train], groups[train])
    assert own.weights_ == found["estimator"][0].weights_
    assert found["test_score"][0] == own.score(paths[test], labels[test])


def test_groups_are_routed_where_scikit_learn_routes_metadata(pixels, labels, groups):
    with sklearn.config_context(enable_metadata_routing=True):
        model = FineTuneClassifier(**START).set_fit_request(groups=True)
        found = cross_validate(
            model,
            pixels,
            labels,
            params={"groups": groups},
            cv=GroupKFold(2),
            return_estimator=True,
            error_score="raise",
        )
    train, _ = next(GroupKFold(2).split(pixels, labels, groups))
    own = FineTuneClassifier(**START).fit(pixels[train], labels[train], groups[train])
    np.testing.assert_array_equal(found["estimator"][0].predict_proba(pixels), own.predict_proba(pixels))


def test_a_search_sets_its_parameters(pixels, labels):
    search = GridSearchCV(
        FineTuneClassifier(**{**TINY, "train": "head"}), {"epochs": [0, 1]}, cv=KFold(2), error_score="raise"
    )
    search.fit(pixels, labels)
    assert len(search.best_estimator_.history_) == 1 + search.best_params_["epochs"]


# ---- what is refused


def test_what_is_wrong_is_said(pixels, labels, tmp_path):
    def fit(X=pixels, y=labels, groups=None, **parameters):
        FineTuneClassifier(**{**TINY, **parameters}).fit(X, y, groups)

    with pytest.raises(ValueError, match="inconsistent"):
        fit(y=labels[:-1])
    with pytest.raises(ValueError, match="inconsistent"):
        fit(groups=np.zeros(3))
    with pytest.raises(ValueError, match="Unknown label type"):
        fit(y=np.linspace(0, 1, N))
    with pytest.raises(LabelsError, match="class"):
        fit(y=np.full(N, "one"))
    with pytest.raises(LabelsError, match="names that differ"):
        fit(y=np.array(["", "a"] * (N // 2)))
    with pytest.raises(UnknownNameError, match="recipe"):
        fit(recipe="nothing")
    with pytest.raises(UnknownNameError):
        fit(train="everything")
    with pytest.raises(UnknownNameError, match="value of a recipe 'mix_up'; did you mean mixup"):
        fit(changes={"mix_up": 0.2})
    with pytest.raises(UsageError, match="validation"):
        fit(validation=0.7)
    with pytest.raises(UsageError, match="batch-size"):
        fit(batch_size=0)
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    with pytest.raises(ImageDecodeError, match=r"bad\.png"):
        fit(X=[*pixels[:-1], str(bad)])
