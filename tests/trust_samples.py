"""Feature sets in memory and as files, for what is asked of a fit and of its bundle."""

import hashlib

import numpy as np
from feature_files import feature_set, spec_of

from featx.fit import FitOptions

D = 8
SPEC = spec_of(D)
QUICK = {"cv": 3, "inner_cv": 2, "C_grid": (1e-2, 10, 2), "scalings": ("raw",), "n_jobs": 1}


def options(**changes):
    return FitOptions(**(QUICK | changes))


def features(n=90, n_classes=3, *, noise=1.0, seed=0, start=0, shift=0.0, **columns):
    """Classes in turn; the same classes for every seed, other samples; `start` numbers the keys."""
    centres = np.random.default_rng(99).normal(size=(n_classes, D))
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % n_classes
    own = {
        "keys": [f"{start + i:04d}.png" for i in range(n)],
        "sha256": [hashlib.sha256(b"%d" % (start + i)).hexdigest() for i in range(n)],
    }
    X = centres[codes] + noise * rng.normal(size=(n, D)) + shift
    return feature_set(X, [f"class {k}" for k in codes], spec=SPEC, **(own | columns))
