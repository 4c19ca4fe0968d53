"""Small manifests, rows and runs that are the same in every process."""

import contextlib
import dataclasses
import hashlib
import os

import h5py
import numpy as np

from featx.manifest.record import Manifest
from featx.spec import FeatureSpec, Preprocess
from featx.store import open_shard
from featx.store.records import FAILED, OK, FeatureBatch, LedgerEntry
from featx.store.run import ExtractionRun
from featx.store.trailer import row_ranges, trailer_of

SPEC = FeatureSpec(
    backbone="tiny",
    weights="random:0",
    weights_sha256="0" * 64,
    node="head",
    pooling="avg",
    feature_shape=(6,),
    preprocess=Preprocess(resize=(8,), crop=(8, 8), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    logits=True,
)
BATCH_SIZE = 4


def spec(**changes):
    return dataclasses.replace(SPEC, **changes)


def manifest(keys=20, **columns):
    keys = [f"train/c{i % 3}/{i:04d}.jpg" for i in range(keys)] if isinstance(keys, int) else list(keys)
    n = len(keys)
    given = {
        "labels": [key.split("/")[-2] if "/" in key else "" for key in keys],
        "groups": [f"patient {i // 2}" for i in range(n)],
        "splits": ["train"] * n,
        "folds": [""] * n,
        "meta": {"site": [f"site {i % 2}" for i in range(n)]},
        "group_source": "column patient",
    }
    return Manifest(root="", keys=keys, paths=keys, **(given | columns))


def sha256(key, version=0):
    return hashlib.sha256(f"{key}@{version}".encode()).hexdigest()


def row(sha, n=6, view=0):
    """The features of a view of these bytes, and three logits."""
    values = np.random.default_rng([int(sha[:12], 16), view]).normal(size=n + 3).astype(np.float32)
    return values[:n], values[n:]


def entry(key, version=0):
    if key.endswith("7.jpg"):
        return LedgerEntry(key, FAILED, "truncated: image file ends", sha256(key, version), 7, 70 + version)
    return LedgerEntry(key, OK, "", sha256(key, version), 7, 70 + version, "JPEG", 30, 20, "RGB")


def batch(keys, version=0, of=SPEC):
    entries = [entry(key, version) for key in keys]
    rows = [row(e.sha256, of.n_features, view) for e in entries if e.status == OK for view in range(of.n_views)]
    features = np.array([features for features, _ in rows], np.float32).reshape(-1, of.n_features)
    logits = np.array([logits for _, logits in rows], np.float32).reshape(-1, 3)
    return FeatureBatch(entries, features, logits if of.logits else None)


def open_run(path, samples, of=SPEC, **options):
    options = {"request": {"backbone": "tiny"}, "made_with": {"torch": "2"}, "batch_size": BATCH_SIZE} | options
    return ExtractionRun.open(path, manifest=samples, spec=of, **options)


def work_of(run, samples, version=0):
    """Positions to compute: missing, or of another modification time than this version's."""
    known = run.known
    return [
        position
        for position, key in enumerate(samples.keys)
        if key not in known or known[key].mtime_ns != entry(key, version).mtime_ns
    ]


def batches_of(run, samples, version=0, of=SPEC):
    work = work_of(run, samples, version)
    for start in range(0, len(work), run.batch_size):
        yield batch([samples.keys[i] for i in work[start : start + run.batch_size]], version, of)


def extract(
    path, samples, version=0, of=SPEC, before_batch=lambda batch: None, after_batch=lambda run: None, **options
):
    """The loop of an extraction; shards are closed as the store decides."""
    with open_run(path, samples, of, **options) as run:
        for done in batches_of(run, samples, version, of):
            before_batch(done)
            run.append(done)
            after_batch(run)
        return run.finish()


@contextlib.contextmanager
def edited(path):
    """Change a file with h5py and seal it again: what the seal lets through, the checks behind it must find."""
    with h5py.File(path, "a") as file:
        yield file
        file.flush()
        rows = row_ranges([file[name] for name in ("features", "logits") if name in file])
    with path.open("rb+") as file:
        trailer = trailer_of(file.fileno(), rows)
        file.seek(0, os.SEEK_END)
        file.write(trailer)


def make_shards_small(samples=2 * BATCH_SIZE):
    open_shard.MAX_SAMPLES = samples
