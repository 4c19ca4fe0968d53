"""The ``.featx`` bundle: a fitted head, what made its features, and every fact about how well it does.

One zip: ``bundle.json``; ``head.skops``, the scikit-learn estimator (https://skops.readthedocs.io);
``weights.safetensors`` where the network's weights were the user's own; and what `featx.learn.trust_file` says. Loading
it runs no code that is in it: no pickle, and only estimators of scikit-learn's and featx's, by name.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.metadata
import io
import json
import os
import platform
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.errors import BundleError
from featx.learn.archive import read_archive, write_archive
from featx.learn.head_file import HEAD, check_head, dump_head, load_head
from featx.learn.tasks import CLASSIFICATION, TASKS
from featx.learn.views import ViewUse, classify
from featx.spec import FeatureSpec
from featx.store import disk

if TYPE_CHECKING:
    from featx.learn.conformal import Conformal
    from featx.learn.novelty import Novelty
    from featx.learn.regression.intervals import NumberIntervals
    from featx.learn.threshold import Threshold

BUNDLE_FORMAT = 2
"""Version of the bundle's layout; a reader refuses what is newer."""
SHA_DIGITS = 16
"""Of each training image's SHA-256 that ``fitted_on`` holds: enough to recognise it, and shorter."""
_FACTS, _WEIGHTS = "bundle.json", "weights.safetensors"
_LIBRARIES = ("featx", "scikit-learn", "numpy", "scipy", "skops")


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
        In the order of the columns of `predict_proba`; none where the task has no classes.
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
    views : ViewUse
        Which rows of a sample the head was fitted on, and what a sample is called by.
    members : dict of str to bytes
        What else is in the zip; `conformal` and `novelty` read it.
    """

    path: str
    pipeline: Any = field(repr=False)
    classes: list[str]
    spec: FeatureSpec
    scores: dict[str, Any] = field(repr=False)
    facts: dict[str, Any] = field(repr=False)
    weights: bytes | None = field(default=None, repr=False)
    notes: list[str] = field(default_factory=list)
    views: ViewUse = ViewUse()
    members: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def needed_spec(self) -> FeatureSpec:
        """What makes the features that `classify` takes: `spec`, with the views by which a sample is called."""
        return self.spec if self.views.score == "average" else replace(self.spec, views=self.spec.views[:1])

    @property
    def task(self) -> str:
        """What the head was fitted for: of `featx.learn.tasks.TASKS`; bundles that do not say so are classification."""
        return str(self.facts.get("task", CLASSIFICATION))

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

    @property
    def threshold(self) -> Threshold | None:
        """From which probability on the positive class is called; None where the head decides by itself."""
        from featx.learn.threshold import Threshold
        from featx.learn.thresholded import Thresholded

        if not isinstance(self.pipeline, Thresholded):
            return None
        return Threshold(str(self.pipeline.positive_), float(self.pipeline.threshold_))

    @functools.cached_property
    def conformal(self) -> Conformal:
        """What prediction sets are made of; a BundleError says why, where it is not in the bundle."""
        from featx.learn.trust_file import load_conformal

        return load_conformal(self.members, self.facts, self.spec.n_features, path=self.path)

    @functools.cached_property
    def intervals(self) -> NumberIntervals:
        """What prediction intervals are made of; a BundleError says why, where it is not in the bundle."""
        from featx.learn.regression.interval_file import load_intervals

        return load_intervals(self.members, self.facts, self.spec.n_features, path=self.path)

    @functools.cached_property
    def novelty(self) -> Novelty:
        """What tells images unlike the training set; a BundleError says why, where it is not in the bundle."""
        from featx.learn.trust_file import load_novelty

        return load_novelty(self.members, self.facts, self.spec.n_features, path=self.path)

    @property
    def has_novelty(self) -> bool:
        """Whether there is a `novelty`."""
        from featx.learn.trust_file import NOVELTY

        return NOVELTY in self.members

    def was_fitted_on(self, sha256: str) -> bool:
        """Whether the head was fitted on an image with these bytes."""
        return sha256[:SHA_DIGITS] in self._fitted_on

    def is_locked_away(self, sha256: str) -> bool:
        """Whether an image with these bytes was kept for the last test when the head was fitted."""
        return sha256[:SHA_DIGITS] in self._locked_away

    @functools.cached_property
    def _locked_away(self) -> frozenset[str]:
        found = self.facts.get("locked_away", ())
        return (
            frozenset(digits for digits in found if isinstance(digits, str)) if isinstance(found, list) else frozenset()
        )

    @functools.cached_property
    def _fitted_on(self) -> frozenset[str]:
        return frozenset(self.facts.get("fitted_on", ()))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the head's decision for each row of features (n, n_features), as class names (n,)."""
        return np.asarray(self.pipeline.predict(X))

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability (n, n_classes) of each class, for features (n, n_features)."""
        return np.asarray(self.pipeline.predict_proba(X), dtype=np.float64)

    def classify(self, X: ArrayLike) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Call samples as they were called when the head was scored.

        Parameters
        ----------
        X : array (n_samples * n_views, n_features)
            Made by `needed_spec`: the rows of each sample one after the other; one row each, unless samples are called
            by the mean over their views.

        Returns
        -------
        predicted : array (n_samples,)
            As class names.
        probabilities : float64 array (n_samples, n_classes)
        """
        return classify(self.pipeline, np.asarray(X, dtype=np.float64), self.needed_spec.n_views)  # as heads are fitted


def save_bundle(
    path: str | os.PathLike[str],
    *,
    estimator: Any,
    facts: Mapping[str, Any],
    weights: bytes | None = None,
    conformal: Conformal | None = None,
    novelty: Novelty | None = None,
    intervals: NumberIntervals | None = None,
) -> None:
    """Write a bundle, all of it or nothing; the same facts and head give the same bytes.

    Parameters
    ----------
    path : path-like
        Usually ``NAME.featx``; replaced if it exists.
    estimator : scikit-learn estimator
        Fitted on features (n, n_features), with ``predict`` and ``predict_proba``.
    facts : mapping
        JSON-ready, without NaN; holds at least ``classes`` (list of str) where the task has any, and ``spec`` (a
        `FeatureSpec` or its dict), usually also ``scores``, and ``fitted_on``: the first `SHA_DIGITS` digits of each
        training image's SHA-256.
    weights : bytes, optional
        A safetensors file, where the network's weights were the user's own.
    conformal : Conformal, optional
        For prediction sets; `facts` then holds ``conformal`` with ``classes`` and ``unit``.
    novelty : Novelty, optional
        For what is unlike the training set; `facts` then holds ``novelty`` with ``neighbours`` and ``unit``.
    intervals : NumberIntervals, optional
        For prediction intervals; `facts` then holds ``intervals`` with ``unit``.

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
        HEAD: dump_head(estimator, path=path),
    }
    if weights is not None:
        members[_WEIGHTS] = weights
    if conformal is not None or novelty is not None:
        from featx.learn.trust_file import dump_conformal, dump_novelty

        members |= {} if conformal is None else dump_conformal(conformal, path=path)
        members |= {} if novelty is None else dump_novelty(novelty)
    if intervals is not None:
        from featx.learn.regression.interval_file import dump_intervals

        members |= dump_intervals(intervals, path=path)
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
    if HEAD not in members:
        raise BundleError(f"has no {HEAD}; it is not a bundle, or not a whole one", path=path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pipeline = load_head(members[HEAD], path=path)
        several = TASKS[facts.get("task", CLASSIFICATION)].several
        check_head(pipeline, classes, spec.n_features, several=several, path=path)  # without classes: of numbers
    notes = list(dict.fromkeys(str(warning.message) for warning in caught))
    use = _read_use(facts, spec, path=path)
    return Bundle(path, pipeline, classes, spec, facts["scores"], facts, members.get(_WEIGHTS), notes, use, members)


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
    task = facts.get("task", CLASSIFICATION)
    if not isinstance(task, str) or task not in TASKS:
        raise BundleError(f"is for a task that this featx does not know, {task!r}; update featx", path=path)
    classes = facts.get("classes") if TASKS[task].has_classes else []
    fewest = TASKS[task].fewest_classes if TASKS[task].has_classes else 0
    if not (isinstance(classes, list) and len(classes) >= fewest and all(isinstance(name, str) for name in classes)):
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


def _read_use(facts: dict[str, Any], spec: FeatureSpec, *, path: str) -> ViewUse:
    """Read how the head uses views; a bundle that does not say so knows plain images only."""
    found = facts.get("views", {})
    try:
        use = ViewUse(**found)
    except TypeError as error:
        raise BundleError(f"{_FACTS} does not say how views are used ({error})", path=path) from error
    known = use.train in ("all", "plain") and use.score in ("average", "plain")
    if not known or not spec.views or (spec.n_views == 1 and use != ViewUse()):
        raise BundleError(f"{_FACTS}: views {found} cannot be used with the spec's {spec.n_views}", path=path)
    return use
