"""Feature sets in memory, and as the feature files that `featx extract` would write of them."""

import dataclasses

import numpy as np

from featx.learn.dataset import Features
from featx.manifest.record import Manifest
from featx.spec import FeatureSpec, Preprocess
from featx.store.records import FAILED, OK, FeatureBatch, LedgerEntry
from featx.store.run import ExtractionRun


def spec_of(d, backbone="tiny", **changes):
    """What made `d` features."""
    preprocess = Preprocess((8,), (8, 8), (0.0,) * 3, (1.0,) * 3)
    return dataclasses.replace(FeatureSpec(backbone, "random:0", "0" * 64, "head", "avg", (d,), preprocess), **changes)


def feature_set(X, y, *, spec=None, digest="", **columns):
    """Features with the columns that are given; else nothing is known of the samples but that no two are the same."""
    n = len(y)
    empty = np.array([""] * n, dtype=object)
    known = {
        "groups": empty,
        "keys": np.array([f"{i:03d}.png" for i in range(n)], dtype=object),
        "splits": empty,
        "folds": empty,
        "sha256": np.array([f"{i:064x}" for i in range(n)], dtype=object),
    }
    given = {name: np.array(values, dtype=object) for name, values in columns.items()}
    source = "column patient" if any(columns.get("groups", ())) else ""
    X = np.asarray(X, dtype=np.float32)
    return Features(X, np.array(y, dtype=str), **(known | given), group_source=source, spec=spec, digest=digest)


def apart(n, d=4, *, signal=1.0, seed=0, y=None, **columns):
    """Two or more classes in turn, each with a feature of its own."""
    y = np.array([f"class {i % 2}" for i in range(n)]) if y is None else np.array(y)
    X = np.random.default_rng(seed).normal(size=(n, d))
    X[np.arange(n), np.unique(y, return_inverse=True)[1]] += signal
    return feature_set(X, y, **columns)


def write_file(path, data, *, failed=(), reason="truncated", logits=None, meta=None, facts=None, weights=None):
    """Write a feature file, in the place of one that is there.

    Samples at the places `failed` have no row; `data.X` and `logits` are by sample, and by view where there are views;
    `facts` are what the ledger has of each sample after its bytes.
    """
    n, good = len(data), np.setdiff1d(np.arange(len(data)), list(failed))
    manifest = Manifest(
        root="",
        keys=data.keys.tolist(),
        paths=data.keys.tolist(),
        labels=data.y.tolist(),
        groups=data.groups.tolist(),
        splits=data.splits.tolist(),
        folds=data.folds.tolist(),
        group_source=data.group_source,
        meta=meta or {},
    )
    entries = [
        LedgerEntry(
            key, *((FAILED, reason) if place in failed else (OK, "")), sha, *(() if facts is None else facts[place])
        )
        for place, (key, sha) in enumerate(zip(data.keys, data.sha256, strict=True))
    ]
    rows, scores = (
        None if by_sample is None else by_sample[good].reshape(-1, by_sample.shape[-1]).astype(np.float32)
        for by_sample in (data.X, logits)
    )
    options = {"manifest": manifest, "spec": data.spec, "request": {}, "made_with": {}, "batch_size": n}
    with ExtractionRun.open(path, **options, weights=weights, replace=True) as run:
        run.append(FeatureBatch(entries, rows, scores))
        run.finish()
    return path
