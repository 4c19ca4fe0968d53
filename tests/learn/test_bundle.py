"""A bundle comes back as it was saved; a file that is not one is refused with one clear message, running nothing."""

import errno
import io
import json
import os
import pickle
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC

from featx.errors import BundleError, FeatxError
from featx.learn import archive
from featx.learn.bundle import load_bundle, read_facts, save_bundle
from featx.learn.calibrated import SigmoidCalibrated
from featx.spec import FeatureSpec, Preprocess
from featx.store import disk

CLASSES = ["ants", "bees", "wasps, large"]
N_FEATURES = 6
SPEC = FeatureSpec(
    backbone="resnet18",
    weights="random:0",
    weights_sha256="0" * 64,
    node="flatten",
    pooling="avg",
    feature_shape=(N_FEATURES,),
    preprocess=Preprocess(resize=(32,), crop=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)),
)
FACTS = {
    "classes": CLASSES,
    "spec": SPEC.to_dict(),
    "scores": {"accuracy": {"mean": 0.9, "low": None}},
    "head": "logreg",
}
WEIGHTS = bytes(range(256)) * 9


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.array(CLASSES, dtype=object)[np.arange(60) % 3]
    X = rng.normal(size=(60, N_FEATURES)).astype(np.float32)
    X[np.arange(60), np.arange(60) % 3] += 2
    return X, y


def fitted(head, scale=None) -> Pipeline:
    return make_pipeline(scale or StandardScaler(), head).fit(*data())


def calibrated(head) -> SigmoidCalibrated:
    return SigmoidCalibrated(head, folds=np.arange(60) // 3 % 2)


HEADS = {
    "logreg": lambda: LogisticRegression(),
    "svm": lambda: calibrated(LinearSVC(random_state=0)),
    "svm-rbf": lambda: calibrated(SVC(random_state=0)),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    for name, head in HEADS.items():
        save_bundle(folder / f"{name}.featx", estimator=fitted(head()), facts=FACTS, weights=WEIGHTS)
    return {name: folder / f"{name}.featx" for name in HEADS}


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def write(path: Path, members: dict[str, bytes]) -> Path:
    with path.open("wb") as file:
        archive.write_archive(file, members)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", HEADS)
def test_a_loaded_head_predicts_what_the_saved_one_did_bit_for_bit(saved, name) -> None:
    X, _ = data()
    head, bundle = fitted(HEADS[name]()), load_bundle(saved[name])
    assert np.array_equal(bundle.predict(X), head.predict(X))
    assert np.array_equal(bundle.predict_proba(X), head.predict_proba(X))
    assert np.array_equal(bundle.pipeline.predict_proba(X), head.predict_proba(X))


def test_every_fact_comes_back(saved) -> None:
    bundle = load_bundle(saved["logreg"])
    assert bundle.classes == CLASSES
    assert bundle.spec == SPEC
    assert bundle.scores == FACTS["scores"]
    assert {name: bundle.facts[name] for name in FACTS} == FACTS
    assert bundle.weights == WEIGHTS
    assert bundle.notes == []
    assert {"featx", "python", "scikit-learn", "numpy", "scipy", "skops"} == set(bundle.facts["versions"])


def test_without_a_users_own_weights_there_are_none_in_the_zip(tmp_path) -> None:
    path = tmp_path / "a.featx"
    save_bundle(path, estimator=fitted(LogisticRegression()), facts={**FACTS, "spec": SPEC})
    assert sorted(members_of(path)) == ["bundle.json", "head.skops"]
    assert load_bundle(path).weights is None
    assert load_bundle(path).spec == SPEC


def test_the_same_head_and_facts_give_the_same_bytes_in_another_process(tmp_path, saved) -> None:
    code = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('t', sys.argv[1])\n"
        "t = importlib.util.module_from_spec(spec); spec.loader.exec_module(t)\n"
        "padding = [object() for _ in range(12345)]\n"
        "for name in t.HEADS:\n"
        "    head = t.fitted(t.HEADS[name]())\n"
        "    t.save_bundle(sys.argv[2] + name, estimator=head, facts=t.FACTS, weights=t.WEIGHTS)\n"
    )
    subprocess.run([sys.executable, "-c", code, __file__, f"{tmp_path}/"], check=True)
    for name, path in saved.items():
        assert (tmp_path / name).read_bytes() == path.read_bytes()


def test_members_are_stored_so_that_the_bytes_do_not_depend_on_a_compressor(saved) -> None:
    with zipfile.ZipFile(saved["svm"]) as file:
        assert {info.compress_type for info in file.infolist()} == {zipfile.ZIP_STORED}
        assert {info.date_time for info in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize(
    ("field", "words"),
    [
        pytest.param(10, "compressed in a way", id="method"),
        pytest.param(6, "damaged zip archive .*version", id="version"),  # zipfile raises NotImplementedError
    ],
)
def test_a_bundle_packed_in_a_way_that_is_not_known_is_refused(tmp_path, saved, field, words) -> None:
    path = tmp_path / "packed.featx"
    content = saved["svm"].read_bytes()
    with zipfile.ZipFile(saved["svm"]) as file:
        place = file.start_dir + field
    path.write_bytes(content[:place] + b"\x63\x00" + content[place + 2 :])
    with pytest.raises(BundleError, match=words):
        load_bundle(path)


def test_a_bundle_zipped_again_by_another_tool_still_loads(tmp_path, saved) -> None:
    path = tmp_path / "again.featx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members_of(saved["svm"]).items():
            file.writestr(name, content)
    X, _ = data()
    assert np.array_equal(load_bundle(path).predict_proba(X), load_bundle(saved["svm"]).predict_proba(X))


# What must be refused


def test_a_bundle_that_is_missing_is_refused(tmp_path) -> None:
    assert "cannot be read (No such file" in refusal(tmp_path / "none.featx")
    assert "cannot be read (Is a directory" in refusal(tmp_path)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_bundle_that_is_a_pickle_is_refused_and_not_run(tmp_path, protocol) -> None:
    path = tmp_path / "evil.featx"
    path.write_bytes(pickle.dumps(Evil(tmp_path / "ran"), protocol))
    assert "is a pickle" in refusal(path)
    assert not (tmp_path / "ran").exists()


def test_a_head_that_is_a_pickle_is_refused_and_not_run(tmp_path, saved) -> None:
    evil = pickle.dumps(Evil(tmp_path / "ran"))
    path = write(tmp_path / "evil.featx", {**members_of(saved["logreg"]), "head.skops": evil})
    assert "head.skops is a pickle" in refusal(path)
    assert not (tmp_path / "ran").exists()


class Evil:
    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "is empty"), (b"PK", "not a zip"), (b"\x89HDF\r\n\x1a\n" + bytes(600), "not a zip"), (b"{}", "not a zip")],
)
def test_a_file_that_is_not_a_zip_is_refused(tmp_path, content, says) -> None:
    path = tmp_path / "a.featx"
    path.write_bytes(content)
    assert says in refusal(path)


def test_another_zip_such_as_a_torch_checkpoint_is_refused(tmp_path) -> None:
    path = write(tmp_path / "a.featx", {"archive/data.pkl": b"\x80\x02.", "archive/version": b"3"})
    assert "has no bundle.json; it is not a bundle" in refusal(path)


def zip_bomb(path: Path, *, lie: bool) -> Path:
    """32 MiB of zeros in 32 KiB; with `lie` the headers claim that it unpacks to its own size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bundle.json", bytes(32 << 20))
    if lie:
        content = path.read_bytes()
        packed = zipfile.ZipFile(path).getinfo("bundle.json").compress_size
        size = (32 << 20).to_bytes(4, "little")
        assert content.count(size) == 2
        path.write_bytes(content.replace(size, packed.to_bytes(4, "little")))
    return path


def test_a_zip_bomb_is_refused_from_its_headers(tmp_path) -> None:
    assert "is a zip bomb" in refusal(zip_bomb(tmp_path / "bomb.featx", lie=False))


def test_a_zip_bomb_whose_headers_lie_is_refused_while_reading(tmp_path) -> None:
    path = zip_bomb(tmp_path / "bomb.featx", lie=True)
    assert path.stat().st_size < 100_000
    assert "damaged" in refusal(path)


def test_a_zip_bomb_inside_of_the_head_is_refused(tmp_path, saved) -> None:
    bomb = zip_bomb(tmp_path / "bomb", lie=False).read_bytes()
    path = write(tmp_path / "a.featx", {**members_of(saved["logreg"]), "head.skops": bomb})
    assert "head.skops is a zip bomb" in refusal(path)


def test_members_that_overlap_are_refused_as_a_bomb(tmp_path) -> None:
    """Many entries of the directory that point to the same bytes (https://www.bamsoftware.com/hacks/zipbomb/)."""
    path = write(tmp_path / "a.featx", {"bundle.json": bytes(1000)})
    content = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        start = file.start_dir
    directory = content[start : content.rindex(b"PK\x05\x06")]
    copies = [directory.replace(b"bundle.json", b"bundle%5d" % i) for i in range(2000)]
    end = b"PK\x05\x06" + bytes(4) + (2000).to_bytes(2, "little") * 2
    end += sum(map(len, copies)).to_bytes(4, "little") + start.to_bytes(4, "little") + bytes(2)
    path.write_bytes(content[:start] + b"".join(copies) + end)
    assert "is a zip bomb" in refusal(path)


def test_a_member_named_twice_is_refused(tmp_path, saved) -> None:
    path = tmp_path / "a.featx"
    path.write_bytes(saved["logreg"].read_bytes())
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as file:
        file.writestr("bundle.json", "{}")
    assert "'bundle.json' 2 times" in refusal(path)


@pytest.mark.parametrize("missing", ["bundle.json", "head.skops"])
def test_a_missing_member_is_named(tmp_path, saved, missing) -> None:
    members = members_of(saved["logreg"])
    del members[missing]
    assert f"has no {missing}" in refusal(write(tmp_path / "a.featx", members))


def with_facts(path: Path, saved, **changes) -> Path:
    members = members_of(saved["logreg"])
    facts = {**json.loads(members["bundle.json"]), **changes}
    return write(path, {**members, "bundle.json": json.dumps(facts).encode()})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"featx_format": 3}, "format 3, newer than this featx reads (2); update featx"),
        ({"featx_format": None}, "which format"),
        ({"featx_format": True}, "which format"),
        ({"classes": ["ants", 2, 3]}, "classes"),
        ({"classes": ["ants"]}, "classes"),
        ({"classes": ["ants", "bees"]}, "knows 3 classes"),
        ({"classes": CLASSES[::-1]}, "head.skops is damaged"),
        ({"scores": 3}, "scores"),
        ({"fitted_on": {"a": 1}}, "fitted_on"),
        ({"fitted_on": [7]}, "fitted_on"),
        ({"spec": None}, "how its features were made"),
        ({"spec": {**SPEC.to_dict(), "backbone": 7}}, "backbone is 7"),
        ({"spec": {**SPEC.to_dict(), "feature_shape": [7]}}, "from 6 features, not 3 from 7"),
        ({"spec": {**SPEC.to_dict(), "preprocess": {}}}, "how its features were made"),
    ],
)
def test_facts_that_cannot_be_are_refused(tmp_path, saved, changes, says) -> None:
    assert says in refusal(with_facts(tmp_path / "a.featx", saved, **changes))


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_bad_json_is_refused(tmp_path, saved, content) -> None:
    path = write(tmp_path / "a.featx", {**members_of(saved["logreg"]), "bundle.json": content})
    assert "bundle.json" in refusal(path)


def head_with(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    archive.write_archive(buffer, members)
    return buffer.getvalue()


def with_schema(path: Path, source: Path, change) -> Path:
    """A bundle whose head's schema went through `change(text) -> text`."""
    members = members_of(source)
    with zipfile.ZipFile(io.BytesIO(members["head.skops"])) as file:
        head = {name: file.read(name) for name in file.namelist()}
    head["schema.json"] = change(head["schema.json"].decode()).encode()
    return write(path, {**members, "head.skops": head_with(head)})


@pytest.mark.parametrize(
    ("module", "name"),
    [("evil_module", "Estimator"), ("os", "system"), ("sklearn.pipeline", "Evil"), ("featx.learn.bundle", "Bundle")],
)
def test_a_type_that_is_neither_scikit_learns_nor_ours_is_refused_by_name(tmp_path, saved, module, name) -> None:
    def change(schema: str) -> str:
        ours = '"__class__": "LogisticRegression", "__module__": "sklearn.linear_model._logistic"'
        assert ours in schema
        return schema.replace(ours, f'"__class__": "{name}", "__module__": "{module}"')

    assert f"holds {module}.{name}:" in refusal(with_schema(tmp_path / "a.featx", saved["logreg"], change))
    assert "evil_module" not in sys.modules


@pytest.mark.parametrize(
    "loader", ["MethodNode", "PartialNode", "OperatorFuncNode", "SparseMatrixNode", "CachedNode", "X"]
)
def test_parts_that_no_head_is_made_of_are_refused_by_name(tmp_path, saved, loader) -> None:
    path = with_schema(tmp_path / "a.featx", saved["logreg"], lambda text: text.replace("ObjectNode", loader))
    assert "sklearn.pipeline.Pipeline" in refusal(path)


def test_a_module_named_in_a_file_is_not_imported(tmp_path, saved, monkeypatch) -> None:
    (tmp_path / "evil_module.py").write_text("import pathlib; pathlib.Path(__file__).with_name('ran').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = with_schema(
        tmp_path / "a.featx", saved["logreg"], lambda text: text.replace('"sklearn.pipeline"', '"evil_module"')
    )
    assert "evil_module.Pipeline" in refusal(path)
    assert not (tmp_path / "ran").exists()


def doubled(X):
    return X * 2


@pytest.mark.parametrize(
    ("estimator", "says"),
    [
        (lambda: fitted(RandomForestClassifier(2, random_state=0)), "sklearn.tree._tree.Tree"),
        (lambda: fitted(LogisticRegression(), FunctionTransformer(doubled)), ".doubled"),
        (lambda: fitted(LogisticRegression(), FunctionTransformer(np.abs, kw_args={})), "numpy.absolute"),
    ],
)
def test_what_would_not_load_is_not_saved(tmp_path, estimator, says) -> None:
    with pytest.raises(BundleError, match=r"the head holds .*") as caught:
        save_bundle(tmp_path / "a.featx", estimator=estimator(), facts=FACTS)
    assert says in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_one_array_used_many_times_is_refused(tmp_path, saved) -> None:
    """Small on disk, and as large in memory as its author likes."""
    path = with_schema(tmp_path / "a.featx", saved["logreg"], lambda text: text.replace('"1.npy"', '"0.npy"'))
    assert "parts are shared" in refusal(path)


@pytest.mark.parametrize("array", ["_n_support", "support_", "_intercept_", "_dual_coef_", "support_vectors_"])
def test_an_svm_whose_arrays_do_not_belong_together_is_refused_before_libsvm_reads_past_their_end(
    tmp_path, saved, array
) -> None:
    members = members_of(saved["svm-rbf"])
    with zipfile.ZipFile(io.BytesIO(members["head.skops"])) as file:
        head = {name: file.read(name) for name in file.namelist()}
    schema = head["schema.json"].decode()
    name = schema.split(f'"{array}": ')[1].split('"file": "')[1].split('"')[0]
    old, buffer = np.load(io.BytesIO(head[name])), io.BytesIO()
    np.save(buffer, np.resize(old, (*old.shape[:-1], 1)))
    head[name] = buffer.getvalue()
    assert "SVC." in refusal(write(tmp_path / "a.featx", {**members, "head.skops": head_with(head)}))


def test_another_version_of_scikit_learn_is_a_note_and_not_a_failure(tmp_path, saved) -> None:
    import sklearn

    path = with_schema(tmp_path / "a.featx", saved["logreg"], lambda text: text.replace(sklearn.__version__, "1.5.2"))
    bundle = load_bundle(path)
    assert bundle.notes
    assert all("1.5.2" in note and sklearn.__version__ in note for note in bundle.notes)


# Anything at all: 300 mutated files


def mutated(rng: random.Random, source: Path) -> bytes:
    """A bundle with a few bytes changed, cut or doubled: of the file, or of a member inside of good zips."""

    def mutate(content: bytes) -> bytes:
        changed = bytearray(content)
        for _ in range(rng.choice([1, 1, 1, 3, 20])):
            at = rng.randrange(len(changed))
            kind = rng.randrange(4)
            if kind == 0:
                changed[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                changed[at] = rng.choice(b'0129{}[]",:.-eE\x00\xff')
            elif kind == 2:
                del changed[at : at + rng.choice([1, 8, 500])]
            else:
                changed[at:at] = changed[at : at + rng.choice([1, 8, 500])]
            if not changed:
                break
        return bytes(changed)

    members = members_of(source)
    level = rng.randrange(4)
    if level == 0:
        return mutate(source.read_bytes())
    if level == 1:
        name = rng.choice(["bundle.json", "head.skops"])
        return head_with({**members, name: mutate(members[name])})
    with zipfile.ZipFile(io.BytesIO(members["head.skops"])) as file:
        head = {name: file.read(name) for name in file.namelist()}
    name = "schema.json" if level == 2 else rng.choice(sorted(head))
    return head_with({**members, "head.skops": head_with({**head, name: mutate(head[name])})})


@pytest.mark.parametrize("name", HEADS)
def test_mutated_bundles_load_or_are_refused_with_a_featx_error(tmp_path, saved, name) -> None:
    rng, path, outcomes = random.Random(name), tmp_path / "a.featx", []
    for _ in range(100):
        path.write_bytes(mutated(rng, saved[name]))
        try:
            bundle = load_bundle(path)
        except FeatxError:
            outcomes.append(False)
        else:
            assert bundle.predict_proba(np.zeros((2, N_FEATURES))).shape == (2, 3)
            outcomes.append(True)
    assert 0 < sum(outcomes) < 60


# What the file system does


def test_a_full_disk_leaves_the_old_bundle_and_no_rest(tmp_path, saved) -> None:
    """RLIMIT_FSIZE as a stand-in for the full disk."""
    path = tmp_path / "a.featx"
    old = saved["logreg"].read_bytes()
    path.write_bytes(old)
    code = (
        "import resource, signal, sys\n"
        "from featx.errors import BundleError\n"
        "from featx.learn.bundle import load_bundle, read_facts, save_bundle\n"
        "bundle = load_bundle(sys.argv[1])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "try:\n"
        "    save_bundle(sys.argv[1], estimator=bundle.pipeline, facts=bundle.facts, weights=bytes(9000))\n"
        "except BundleError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True)
    assert "cannot be written (File too large); nothing was changed" in done.stdout
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["open_file", "write", "sync", "replace"])
def test_no_space_at_any_step_leaves_the_old_bundle(tmp_path, saved, monkeypatch, call) -> None:
    path = tmp_path / "a.featx"
    path.write_bytes(b"old")

    def fail(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk, call, fail)
    with pytest.raises(BundleError, match="No space left on device"):
        save_bundle(path, estimator=fitted(LogisticRegression()), facts=FACTS)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_bundle_takes_the_place_of_a_file_behind_a_link_and_of_nothing_else(tmp_path) -> None:
    (tmp_path / "real.featx").write_bytes(b"old")
    (tmp_path / "link.featx").symlink_to("real.featx")
    save_bundle(tmp_path / "link.featx", estimator=fitted(LogisticRegression()), facts=FACTS)
    assert (tmp_path / "link.featx").is_symlink()
    assert load_bundle(tmp_path / "real.featx").classes == CLASSES
    with pytest.raises(BundleError, match="not a file that could be replaced"):
        save_bundle("/dev/null", estimator=fitted(LogisticRegression()), facts=FACTS)


def test_a_folder_that_does_not_exist_is_said(tmp_path) -> None:
    with pytest.raises(BundleError, match="cannot be written"):
        save_bundle(tmp_path / "none" / "a.featx", estimator=fitted(LogisticRegression()), facts=FACTS)


def test_loading_a_bundle_imports_no_torch_and_its_facts_no_scikit_learn_either(saved) -> None:
    code = (
        "import sys; from featx.learn.bundle import load_bundle, read_facts; read_facts(sys.argv[1])\n"
        "assert not {'sklearn', 'skops', 'scipy', 'torch', 'h5py', 'click'} & set(sys.modules)\n"
        "load_bundle(sys.argv[1])\n"
        "assert not {'torch', 'h5py', 'click'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, saved["svm"]], check=True)


def test_facts_are_read_without_the_head(tmp_path, saved) -> None:
    path = write(tmp_path / "a.featx", {"bundle.json": members_of(saved["svm"])["bundle.json"], "head.skops": b""})
    assert read_facts(path) == load_bundle(saved["svm"]).facts
    assert "head.skops is empty" in refusal(path)
