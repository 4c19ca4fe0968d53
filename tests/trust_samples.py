"""Feature sets in memory and as files, for what is asked of a fit and of its bundle."""

import hashlib

import numpy as np

from featx.fit import FitOptions
from featx.learn.dataset import Features
from featx.manifest.record import Manifest
from featx.spec import FeatureSpec, Preprocess
from featx.store.records import FAILED, OK, FeatureBatch, LedgerEntry
from featx.store.run import ExtractionRun

D = 8
SPEC = FeatureSpec("tiny", "random:0", "0" * 64, "head", "avg", (D,), Preprocess((8,), (8, 8), (0.0,) * 3, (1.0,) * 3))
QUICK = {"cv": 3, "inner_cv": 2, "C_grid": (1e-2, 10, 2), "scalings": ("raw",), "n_jobs": 1}


def options(**changes):
    return FitOptions(**(QUICK | changes))


def features(n=90, n_classes=3, *, noise=1.0, seed=0, start=0, shift=0.0, **columns):
    """Classes in turn; the same classes for every seed, other samples; `start` numbers the keys."""
    centres = np.random.default_rng(99).normal(size=(n_classes, D))
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    empty = np.array([""] * n, dtype=object)
    given = {name: np.array(values, dtype=object) for name, values in columns.items()}
    known = {
        "X": (centres[y] + noise * rng.normal(size=(n, D)) + shift).astype(np.float32),
        "y": np.array([f"class {k}" for k in y]),
        "groups": empty,
        "keys": np.array([f"{start + i:04d}.png" for i in range(n)], dtype=object),
        "splits": empty,
        "folds": empty,
        "sha256": np.array([hashlib.sha256(b"%d" % (start + i)).hexdigest() for i in range(n)], dtype=object),
    }
    return Features(**(known | given), spec=SPEC, group_source="column patient" if "groups" in columns else "")


def write_file(path, data, *, failed=()):
    """Write a feature file; samples at the places `failed` have no features."""
    manifest = Manifest(
        root="",
        keys=data.keys.tolist(),
        paths=data.keys.tolist(),
        labels=data.y.tolist(),
        groups=data.groups.tolist(),
        splits=data.splits.tolist(),
        folds=data.folds.tolist(),
        group_source=data.group_source,
    )
    entries = [
        LedgerEntry(key, FAILED, "not-an-image") if place in failed else LedgerEntry(key, OK, "", sha)
        for place, (key, sha) in enumerate(zip(data.keys, data.sha256, strict=True))
    ]
    good = [place for place in range(len(data)) if place not in failed]
    with ExtractionRun.open(
        path, manifest=manifest, spec=data.spec, request={}, made_with={}, batch_size=len(data), weights=None
    ) as run:
        run.append(FeatureBatch(entries, data.X[good]))
        run.finish()
    return path
