"""Sound feature files, stopped runs, bundles, weights and features made elsewhere, and the doors they come in by."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _image_kinds import FailedRow

CLASSES = ["moss", "rust"]
N, N_FEATURES = 40, 6


# ---- feature files


def _spec() -> Any:
    from featx.spec import FeatureSpec, Preprocess

    return FeatureSpec(
        backbone="tiny",
        weights="random:0",
        weights_sha256="0" * 64,
        node="head",
        pooling="avg",
        feature_shape=(N_FEATURES,),
        preprocess=Preprocess(resize=(8,), crop=(8, 8), mean=(0.5,) * 3, std=(0.25,) * 3),
        logits=True,
    )


def _write_run(path: Path, *, finish: bool) -> None:
    """Write a feature file, or what a run that was stopped leaves."""
    from featx.store.records import FAILED, OK, FeatureBatch, LedgerEntry
    from featx.store.run import ExtractionRun

    manifest = _manifest()
    with ExtractionRun.open(
        path,
        manifest=manifest,
        spec=_spec(),
        request={"backbone": "tiny"},
        made_with={},
        batch_size=8,
        weights=b"w" * 99,
    ) as run:
        for start in range(0, N if finish else N // 2, 8):
            keys = manifest.keys[start : start + 8]
            entries = [
                LedgerEntry(key, FAILED, "truncated: it ends")
                if i == 3
                else LedgerEntry(key, OK, "", f"{start + i:064x}", 7, 70, "JPEG", 30, 20, "RGB")
                for i, key in enumerate(keys)
            ]
            rng = np.random.default_rng(start)
            rows = rng.normal(size=(len(keys) - 1, N_FEATURES + 3)).astype(np.float32)
            run.append(FeatureBatch(entries, rows[:, :N_FEATURES], rows[:, N_FEATURES:]))
            run.flush()
        if finish:
            run.finish()


def _manifest() -> Any:
    from featx.manifest.record import Manifest

    keys = [f"{CLASSES[i % 2]}/{i:03}.jpg" for i in range(N)]
    return Manifest(
        root="",
        keys=keys,
        paths=keys,
        labels=[CLASSES[i % 2] for i in range(N)],
        groups=[f"p {i // 4}" for i in range(N)],
        splits=["train"] * N,
        folds=[""] * N,
        meta={"site": ["a", "b"] * (N // 2)},
        group_source="column group",
    )


def write_feature_files(folder: Path) -> list[Path]:
    _write_run(folder / "x.h5", finish=True)
    return [folder / "x.h5"]


def read_feature_file(path: Path) -> Any:
    from featx.caching.verification import verify_features
    from featx.info import describe
    from featx.learn.dataset import load_features
    from featx.store.file import FeatureFile

    report = verify_features(path)
    described = describe(path)
    with FeatureFile.open(path) as file:
        columns = [file.keys(), file.labels(), file.groups(), file.splits(), file.folds(), file.classes(), file.meta()]
        arrays = [file.features().tobytes(), file.logits().tobytes(), file.views().tobytes(), file.weights()]
        ledger = vars(file.ledger())
        accounts = file.accounts([f"{CLASSES[i % 2]}/{i:03}.jpg" for i in range(N)]).records.tobytes()
        file.verify()
    load_features(path, allow_missing=True)
    if not report.is_good:
        raise FailedRow(report.problems[0])
    described.pop("path")
    described.pop("bytes")
    return columns, arrays, accounts, described, {name: list(column) for name, column in ledger.items()}


def write_stopped_runs(folder: Path) -> list[Path]:
    _write_run(folder / "x.h5", finish=False)
    parts = folder / "x.h5.parts"
    shards = sorted(path for path in parts.iterdir() if path.suffix == ".h5")
    return [parts / "journal", parts / "header.json", shards[0], parts / "weights.safetensors"]


def write_journal(folder: Path) -> list[Path]:
    return write_stopped_runs(folder)[:1]


def read_stopped_run(path: Path) -> None:
    """Look at a run and resume it: what the damage took is computed again, and the file is whole."""
    from featx.caching.listing import list_folder
    from featx.caching.verification import verify_features
    from featx.errors import StoreError
    from featx.info import describe
    from featx.store.file import FeatureFile

    target = path.parent.with_name("x.h5")
    list_folder(target.parent)
    try:
        describe(target)
        verify_features(target)
    except StoreError:
        _write_run(target, finish=True)
        raise
    _write_run(target, finish=True)
    with FeatureFile.open(target) as file:
        file.verify()
        if sorted(file.keys()) != sorted(key for i, key in enumerate(_manifest().keys) if i % 8 != 3):
            raise AssertionError("the resumed file has other rows")


# ---- bundles and weights


def write_bundles(folder: Path) -> list[Path]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    from featx.learn.bundle import save_bundle
    from featx.learn.calibrated import SigmoidCalibrated

    rng = np.random.default_rng(0)
    y = np.array(CLASSES, dtype=object)[np.arange(60) % 2]
    X = rng.normal(size=(60, N_FEATURES)) + (np.arange(60) % 2)[:, None]
    facts = {"classes": CLASSES, "spec": _spec(), "scores": {"accuracy": {"mean": 0.9}}, "fitted_on": ["0" * 16]}
    paths = []
    for number, head in enumerate((LogisticRegression(), SigmoidCalibrated(SVC(), np.arange(60) // 3 % 2))):
        paths.append(folder / f"{number}.featx")
        fitted = make_pipeline(StandardScaler(), head).fit(X, y)
        save_bundle(paths[-1], estimator=fitted, facts=facts, weights=b"w" * 99 if number else None)
    return paths


def read_bundle(path: Path) -> None:
    from featx.errors import BundleError
    from featx.learn.bundle import load_bundle, read_facts

    facts_error = None
    try:
        read_facts(path)
    except BundleError as error:  # any other is a crash
        facts_error = error
    bundle = load_bundle(path)
    assert facts_error is None, f"a bundle that loads has no facts: {facts_error}"
    assert bundle.positive in (None, *bundle.classes)
    bundle.was_fitted_on("0" * 64)


def _tensors() -> dict[str, Any]:
    import torch

    torch.manual_seed(0)
    return dict(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).state_dict())


def write_weights(folder: Path) -> list[Path]:
    import safetensors.torch

    safetensors.torch.save_file(_tensors(), folder / "a.safetensors")
    return [folder / "a.safetensors"]


def write_checkpoints(folder: Path) -> list[Path]:
    import torch

    torch.save(_tensors(), folder / "a.pth")
    torch.save({"state_dict": _tensors(), "epoch": 3}, folder / "b.pth", _use_new_zipfile_serialization=False)
    return [folder / "a.pth", folder / "b.pth"]


def read_weights(path: Path) -> None:
    import torch

    from featx.vision import tensors

    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    tensors.load_into(network, tensors.read_state_dict(path), weights=str(path))


# ---- features made elsewhere


def write_arrays(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(N, N_FEATURES)).astype(np.float32), np.array([CLASSES[i % 2] for i in range(N)])
    np.savez(folder / "a.npz", X=X, y=y, groups=np.arange(N) // 4, keys=np.array([f"k{i}" for i in range(N)]))
    np.savez_compressed(folder / "b.npz", features=np.asfortranarray(X.astype(np.float64)), labels=np.arange(N) % 2)
    np.save(folder / "c.npy", X)
    np.savetxt(folder / "d.txt", X)
    return [folder / name for name in ("a.npz", "b.npz", "c.npy", "d.txt")]


def _feature_rows() -> Iterator[list[str]]:
    rng = np.random.default_rng(0)
    for i in range(N):
        yield [f"k{i}", CLASSES[i % 2], f"p{i // 4}", *(f"{value:.5f}" for value in rng.normal(size=N_FEATURES))]


def write_feature_tables(folder: Path) -> list[Path]:
    header = ["key", "label", "group", *(f"f{i}" for i in range(N_FEATURES))]
    paths = []
    for name, separator in (("a.csv", ","), ("b.tsv", "\t")):
        paths.append(folder / name)
        paths[-1].write_text("\n".join(separator.join(row) for row in (header, *_feature_rows())))
    if importlib.util.find_spec("pyarrow"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = dict(zip(header, zip(*_feature_rows(), strict=True), strict=True))
        numbers = {name: [float(value) for value in columns[name]] for name in header[3:]}
        paths.append(folder / "c.parquet")
        pq.write_table(pa.table(columns | numbers), paths[-1])
    return paths


def write_slides(folder: Path) -> list[Path]:
    import h5py

    rng = np.random.default_rng(0)
    paths = []
    for number, options in enumerate(({}, {"chunks": (8, N_FEATURES), "compression": "gzip", "shuffle": True})):
        paths.append(folder / f"{number}.h5")
        with h5py.File(paths[-1], "w", libver=("earliest", "latest")[number]) as file:
            file.create_dataset("features", data=rng.normal(size=(N, N_FEATURES)).astype(np.float32), **options)
            file["coords"] = rng.integers(0, 9999, (N, 2))
            file["label"] = [CLASSES[i % 2] for i in range(N)]
    return paths


def import_file(path: Path) -> None:
    from featx.caching.importing import import_features

    import_features(path, path.parent / "imported.h5", replace=True)
