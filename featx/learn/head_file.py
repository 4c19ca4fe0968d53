"""``head.skops`` inside a bundle: a scikit-learn estimator as a file that runs nothing when it is loaded.

skops (https://skops.readthedocs.io) writes an estimator as a schema and arrays; only types of scikit-learn's that are
safe, and featx's own, are admitted, by name.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import io
import json
import sys
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from featx.errors import BundleError
from featx.learn.archive import read_archive, write_archive

HEAD = "head.skops"
"""Name of the member."""
TRUSTED = (
    "featx.learn.calibrated.Calibrated",
    "featx.learn.discriminant.ShrinkageDiscriminant",
    "featx.learn.linear_layer.LinearHead",
    "featx.learn.linear.NewtonLinearSVC",
    "featx.learn.linear.NewtonLogisticRegression",
    "featx.learn.multilabel.heads.CalledLabels",
    "featx.learn.multilabel.heads.LinearLabels",
    "featx.learn.prototype.NearestPrototype",
    "featx.learn.calibrated.SigmoidCalibrated",
    "featx.learn.thresholded.Thresholded",
    # Parts of a fitted CalibratedClassifierCV, which skops trusts itself: two slopes and intercepts per class.
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
)
"""Types in ``head.skops`` that are admitted beyond those of scikit-learn, numpy and scipy that skops trusts."""
LOADERS = frozenset(
    ("DictNode", "JsonNode", "ListNode", "NdArrayNode", "ObjectNode", "SliceNode", "TupleNode", "TypeNode")
)
"""skops's kinds of node that a head is made of; bound methods, partials, sparse matrices ... are not among them."""


_NPY_START = b"\x93NUMPY"
_SCHEMA = "schema.json"  # skops's own name inside head.skops
_MAX_DEPTH = 200  # of nesting in the schema; a real head has about 30
# What skops, numpy and an estimator's __setstate__ can raise when the bytes are not what skops wrote.
_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    TypeError,
    ValueError,
)


class _Hidden(importlib.abc.MetaPathFinder):
    """Hides one module from import while it is on `sys.meta_path`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, fullname: str, _path: object, _target: object = None) -> None:
        """Refuse the hidden module and leave all others to the next finder."""
        if fullname == self.name:
            raise ModuleNotFoundError(fullname, name=fullname)


@functools.cache
def _skops_io() -> Any:
    """Import skops.io without torch.

    skops asks scikit-learn for the names of all estimators, which imports every package below ``sklearn``; one of them
    is a compatibility layer that imports torch. It would cost two seconds to no end.
    """
    hidden = _Hidden("sklearn.externals.array_api_compat.torch")
    sys.meta_path.insert(0, hidden)
    try:
        return importlib.import_module("skops.io")
    finally:
        sys.meta_path.remove(hidden)


def dump_head(estimator: Any, *, path: str) -> bytes:
    """Return skops's archive in a form that depends on the estimator only.

    skops names arrays and objects by their address in memory. Arrays are renamed by order, one for each mention, and
    the addresses are dropped: they only serve to build a shared object once.
    """
    try:
        members = read_archive(io.BytesIO(_skops_io().dumps(estimator)), path=path, what=HEAD)
    except TypeError as error:
        raise BundleError(f"the head cannot be saved: {error}", path=path) from error
    schema = json.loads(members[_SCHEMA])
    tidy: dict[str, bytes] = {}
    for node in _iter_nodes(schema):
        node.pop("__id__", None)
        if "file" in node:
            name = f"{len(tidy)}{Path(node['file']).suffix}"
            tidy[name] = members[node["file"]]
            node["file"] = name
    tidy[_SCHEMA] = json.dumps(schema).encode()
    buffer = io.BytesIO()
    write_archive(buffer, tidy)
    _check_types(schema, buffer.getvalue(), path=path)
    return buffer.getvalue()


def load_head(data: bytes, *, path: str) -> Any:
    """Load an estimator from what `dump_head` returned.

    Raises
    ------
    BundleError
        If it is damaged, or holds a type that is not admitted.
    """
    members = read_archive(io.BytesIO(data), path=path, what=HEAD)
    try:
        schema = json.loads(members[_SCHEMA])
        _check_arrays(schema, members)
        _check_types(schema, data, path=path)
        return _skops_io().loads(data, trusted=TRUSTED)
    except BundleError:
        raise
    except _DAMAGE as error:
        raise _damaged(error, path=path) from error


def _check_arrays(schema: Any, members: Mapping[str, bytes]) -> None:
    """Refuse what is small on disk and huge in memory: one part used many times, or an archive in place of an array."""
    nodes = list(_iter_nodes(schema))
    files = [node["file"] for node in nodes if "file" in node]
    if len(set(files)) < len(files) or any("__id__" in node for node in nodes):
        raise ValueError("it was not written by featx: its parts are shared")
    if not all(members[file].startswith(_NPY_START) for file in files):
        raise ValueError("it holds something in place of an array")


def _check_types(schema: Any, data: bytes, *, path: str) -> None:
    unknown = {
        f"{node['__module__']}.{node['__class__']}" for node in _iter_nodes(schema) if node["__loader__"] not in LOADERS
    }
    unknown = unknown or set(_skops_io().get_untrusted_types(data=data)) - set(TRUSTED)
    if unknown:
        names = ", ".join(sorted(unknown))
        raise BundleError(
            f"the head holds {names}: neither a type of scikit-learn's that is safe nor featx's", path=path
        )


def check_head(pipeline: Any, classes: list[str], n_features: int, *, several: bool = False, path: str) -> None:
    """Hold the head against the facts, and let it predict one row: all that predicting needs is there.

    A head without classes is to give a number; one of `several` classes at once says of each whether it is there.
    """
    from featx.learn.svm_state import check_svm

    try:
        for part in _iter_parts(pipeline, set()):
            check_svm(part)
        known, width = list(pipeline.classes_) if classes else [], pipeline.n_features_in_
        if known != classes or width != n_features:
            raise ValueError(
                f"it knows {len(known)} classes from {width} features, not {len(classes)} from {n_features}"
            )
        row = np.zeros((1, n_features), dtype=np.float32)
        if not classes:
            if np.shape(value := pipeline.predict(row)) != (1,) or not np.isfinite(value).all():
                raise ValueError("its predictions are not usable")
            return
        predicted, probabilities = (
            pipeline.call(row) if several else (pipeline.predict(row), pipeline.predict_proba(row))
        )
        is_known = predicted.shape == (1, len(classes)) if several else predicted[0] in classes
        if not is_known or probabilities.shape != (1, len(classes)) or not np.isfinite(probabilities).all():
            raise ValueError("its probabilities are not usable")
    except _DAMAGE as error:
        raise _damaged(error, path=path) from error


def _damaged(error: BaseException, *, path: str) -> BundleError:
    return BundleError(f"{HEAD} is damaged ({type(error).__name__}: {error})", path=path)


def _iter_nodes(schema: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Yield every object of skops's schema, outer ones first."""
    if depth > _MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    if isinstance(schema, dict):
        if "__loader__" in schema:
            yield schema
        children: Any = schema.values()
    else:
        children = schema if isinstance(schema, list) else ()
    for child in children:
        yield from _iter_nodes(child, depth + 1)


def _iter_parts(part: Any, seen: set[int]) -> Iterator[Any]:
    """Yield an estimator and all estimators in it."""
    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, (list, tuple)):
        children: Any = part
    elif isinstance(part, dict):
        children = part.values()
    elif hasattr(part, "get_params") or type(part).__module__.startswith("sklearn."):
        yield part
        children = getattr(part, "__dict__", {}).values()
    else:
        return
    for child in children:
        yield from _iter_parts(child, seen)
