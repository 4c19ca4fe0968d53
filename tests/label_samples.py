"""Feature sets with several labels for a sample, in memory and as files."""

import numpy as np
from trust_samples import D, features

NAMES = ("fox", "snow", "tree")
QUICK = {"task": "multilabel", "cv": 3, "inner_cv": 2, "C_grid": (1e-2, 1, 2), "scalings": ("raw",), "n_jobs": 1}


def texts_of(marks, separator=";"):
    return [separator.join(np.array(NAMES)[row]) or "none" for row in marks]


def labelled(n=60, *, signal=2.0, seed=0, start=0, separator=";", **columns):
    """Samples with any of three labels, each of which moves a feature."""
    rng = np.random.default_rng(seed)
    marks = rng.random((n, 3)) < [0.5, 0.4, 0.3]
    X = (rng.normal(size=(n, D)) + np.pad(signal * marks, ((0, 0), (0, D - 3)))).astype(np.float32)
    columns = {"y": texts_of(marks, separator), "X": X} | columns
    X, y = columns.pop("X"), columns.pop("y")
    data = features(n, start=start, **columns)
    return type(data)(**(vars(data) | {"X": X, "y": np.array(y)}))
