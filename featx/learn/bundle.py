"""The ``.featx`` bundle: a fitted head, what made its features, and every fact about how well it does.

One zip: ``bundle.json``; ``head.skops``, the scikit-learn estimator (https://skops.readthedocs.io); and
``weights.safetensors`` where the network's weights were the user's own. Loading it runs no code that is in it: no
pickle, and only estimators of scikit-learn's and featx's, by name.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.metadata
import io
import json
import os
import platform
import sys
import tokenize
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.errors import BundleError
from featx.learn.archive import read_archive, write_archive
from featx.spec import FeatureSpec
from featx.store import disk

BUNDLE_FORMAT = 1
"""Version of the bundle's layout; a reader refuses what is newer."""
SHA_DIGITS = 16
"""Of each training image's SHA-256 that ``fitted_on`` holds: enough to recognise it, and shorter."""
TRUSTED = (
    "featx.learn.calibrated.SigmoidCalibrated",
    # Parts of a fitted CalibratedClassifierCV, which skops trusts itself: two slopes and intercepts per class.
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
)
"""Types in ``head.skops`` that are admitted beyond those of scikit-learn, numpy and scipy that skops trusts."""
LOADERS = frozenset(
    ("DictNode", "JsonNode", "ListNode", "NdArrayNode", "ObjectNode", "SliceNode", "TupleNode", "TypeNode")
)
"""skops's kinds of node that a head is made of; bound methods, partials, sparse matrices ... are not among them."""

_FACTS, _HEAD, _WEIGHTS = "bundle.json", "head.skops", "weights.safetensors"
_NPY_START = b"\x93NUMPY"
_SCHEMA = "schema.json"  # skops's own name inside head.skops
_MAX_DEPTH = 200  # of nesting in the schema; a real head has about 30
_LIBRARIES = ("featx", "scikit-learn", "numpy", "scipy", "skops")
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


@dataclass(frozen=True)
class Bundle:
    """A fitted head with its facts; it predicts from features, as the scikit-learn estimator in it does.

    Attributes
    ----------
    path : str
        Where it was loaded from.
    pipeline : scikit-learn estimator
        The fitted head with its scaling, for feature matrices (n, `spec.n_features`).
    classes : list of str
        In the order of the columns of `predict_proba`.
    spec : FeatureSpec
        What made the features.
    scores : dict
        Name of a score to its mean, interval and folds, for the part of the data that was reported.
    facts : dict
        Everything in ``bundle.json``.
    weights : bytes or None
        The network's weights as a safetensors file, where they were the user's own.
    notes : list of str
        What was noticed while loading, such as another version of scikit-learn.
    """

    path: str
    pipeline: Any = field(repr=False)
    classes: list[str]
    spec: FeatureSpec
    scores: dict[str, Any] = field(repr=False)
    facts: dict[str, Any] = field(repr=False)
    weights: bytes | None = field(default=None, repr=False)
    notes: list[str] = field(default_factory=list)

    @property
    def classes_(self) -> NDArray[Any]:
        """The classes as scikit-learn names them, (n_classes,)."""
        return np.asarray(self.pipeline.classes_)

    @property
    def positive(self) -> str | None:
        """The positive one of two classes, where ``featx fit`` was told one."""
        options = self.facts.get("options")
        positive = options.get("positive") if isinstance(options, dict) else None
        return positive if positive in self.classes else None

    def was_fitted_on(self, sha256: str) -> bool:
        """Whether the head was fitted on an image with these bytes."""
        return sha256[:SHA_DIGITS] in self._fitted_on

    @functools.cached_property
    def _fitted_on(self) -> frozenset[str]:
        return frozenset(self.facts.get("fitted_on", ()))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the head's own decision for each row of features (n, n_features), as class names (n,)."""
        return np.asarray(self.pipeline.predict(X))

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability (n, n_classes) of each class, for features (n, n_features)."""
        return np.asarray(self.pipeline.predict_proba(X), dtype=np.float64)


def save_bundle(
    path: str | os.PathLike[str], *, estimator: Any, facts: Mapping[str, Any], weights: bytes | None = None
) -> None:
    """Write a bundle, all of it or nothing; the same facts and head give the same bytes.

    Parameters
    ----------
    path : path-like
        Usually ``NAME.featx``; replaced if it exists.
    estimator : scikit-learn estimator
        Fitted on features (n, n_features), with ``predict`` and ``predict_proba``.
    facts : mapping
        JSON-ready, without NaN; holds at least ``classes`` (list of str) and ``spec`` (a `FeatureSpec` or its dict),
        usually also ``scores``, and ``fitted_on``: the first `SHA_DIGITS` digits of each training image's SHA-256.
    weights : bytes, optional
        A safetensors file, where the network's weights were the user's own.

    Raises
    ------
    BundleError
        If the estimator holds something that would not be loaded again, or the file cannot be written.
    """
    path = os.fspath(path)
    versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    facts = {"featx_format": BUNDLE_FORMAT, "versions": {"python": platform.python_version(), **versions}, **facts}
    if isinstance(facts["spec"], FeatureSpec):
        facts["spec"] = facts["spec"].to_dict()
    members = {
        _FACTS: json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False).encode(),
        _HEAD: _dump_head(estimator, path=path),
    }
    if weights is not None:
        members[_WEIGHTS] = weights
    buffer = io.BytesIO()
    write_archive(buffer, members)
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise BundleError("is not a file that could be replaced", path=path)
    try:
        disk.write_whole(target, buffer.getbuffer())
    except OSError as error:
        raise BundleError(f"cannot be written ({error.strerror}); nothing was changed", path=path) from error


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Load a fitted head with its facts, running no code that is in the file.

    Parameters
    ----------
    path : path-like
        What ``featx fit -o NAME.featx`` wrote.

    Returns
    -------
    Bundle

    Raises
    ------
    BundleError
        If it is missing, damaged, of a newer format, a pickle, a zip bomb, or holds a type that is neither
        scikit-learn's nor featx's.
    """
    path = os.fspath(path)
    members = _read_members(path)
    facts = _parse_facts(members, path=path)
    classes, spec = _check_facts(facts, path=path)
    if _HEAD not in members:
        raise BundleError(f"has no {_HEAD}; it is not a bundle, or not a whole one", path=path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pipeline = _load_head(members[_HEAD], path=path)
        _check_head(pipeline, classes, spec.n_features, path=path)
    notes = list(dict.fromkeys(str(warning.message) for warning in caught))
    return Bundle(path, pipeline, classes, spec, facts["scores"], facts, members.get(_WEIGHTS), notes)


def read_facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what a bundle says about itself, without its head and without scikit-learn.

    Raises
    ------
    BundleError
        If it is missing, no bundle, or of a newer format.
    """
    path = os.fspath(path)
    return _parse_facts(_read_members(path, only=[_FACTS]), path=path)


def _read_members(path: str, *, only: Collection[str] | None = None) -> dict[str, bytes]:
    try:
        with Path(path).open("rb") as file:
            return read_archive(file, path=path, only=only)
    except OSError as error:
        raise BundleError(f"cannot be read ({error.strerror})", path=path) from error


def _parse_facts(members: Mapping[str, bytes], *, path: str) -> dict[str, Any]:
    if _FACTS not in members:
        raise BundleError(f"has no {_FACTS}; it is not a bundle, as featx fit writes it", path=path)
    try:
        facts = json.loads(members[_FACTS])
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{_FACTS} is not valid JSON ({error})", path=path) from error
    version = facts.get("featx_format") if isinstance(facts, dict) else None
    if type(version) is not int or version < 1:
        raise BundleError(f"{_FACTS} does not say which format it has", path=path)
    if version > BUNDLE_FORMAT:
        raise BundleError(
            f"is of format {version}, newer than this featx reads ({BUNDLE_FORMAT}); update featx", path=path
        )
    return dict(facts)


def _check_facts(facts: dict[str, Any], *, path: str) -> tuple[list[str], FeatureSpec]:
    classes = facts.get("classes")
    if not (isinstance(classes, list) and len(classes) > 1 and all(isinstance(name, str) for name in classes)):
        raise BundleError(f"{_FACTS} does not name the classes", path=path)
    if not isinstance(facts.setdefault("scores", {}), dict):
        raise BundleError(f"{_FACTS}: scores are not a table", path=path)
    fitted_on = facts.get("fitted_on", [])
    if not (isinstance(fitted_on, list) and all(isinstance(digits, str) for digits in fitted_on)):
        raise BundleError(f"{_FACTS}: fitted_on is not a list of digests", path=path)
    try:
        spec = FeatureSpec.from_dict(facts["spec"])
        _ = spec.fingerprint  # infinite numbers have none
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise BundleError(f"{_FACTS} does not say how its features were made ({error})", path=path) from error
    return classes, spec


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


def _dump_head(estimator: Any, *, path: str) -> bytes:
    """Return skops's archive in a form that depends on the estimator only.

    skops names arrays and objects by their address in memory. Arrays are renamed by order, one for each mention, and
    the addresses are dropped: they only serve to build a shared object once.
    """
    try:
        members = read_archive(io.BytesIO(_skops_io().dumps(estimator)), path=path, what=_HEAD)
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


def _load_head(data: bytes, *, path: str) -> Any:
    members = read_archive(io.BytesIO(data), path=path, what=_HEAD)
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


def _check_head(pipeline: Any, classes: list[str], n_features: int, *, path: str) -> None:
    """Hold the head against the facts, and let it predict one row: all that predicting needs is there."""
    from featx.learn.svm_state import check_svm

    try:
        for part in _iter_parts(pipeline, set()):
            check_svm(part)
        known, width = list(pipeline.classes_), pipeline.n_features_in_
        if known != classes or width != n_features:
            raise ValueError(
                f"it knows {len(known)} classes from {width} features, not {len(classes)} from {n_features}"
            )
        row = np.zeros((1, n_features), dtype=np.float32)
        predicted, probabilities = pipeline.predict(row), pipeline.predict_proba(row)
        if (
            predicted[0] not in classes
            or probabilities.shape != (1, len(classes))
            or not np.isfinite(probabilities).all()
        ):
            raise ValueError("its probabilities are not usable")
    except _DAMAGE as error:
        raise _damaged(error, path=path) from error


def _damaged(error: BaseException, *, path: str) -> BundleError:
    return BundleError(f"{_HEAD} is damaged ({type(error).__name__}: {error})", path=path)


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
