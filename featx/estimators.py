"""The scikit-learn face of featx: transformers that can stand in any pipeline, search or cross-validation.

They hold their parameters and nothing else: a network or an open file is kept once in each process, beside them, so
that they are cloned and pickled for nothing and work in every worker.
"""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.pipeline import Pipeline
from sklearn.utils import Tags

from featx.errors import InputError, UnknownNameError
from featx.image_input import column, image_manifest, iter_rows, read_rows
from featx.learn.averaged import AveragedViews
from featx.learn.bundle import Bundle, load_bundle
from featx.manifest import source
from featx.manifest.record import Manifest
from featx.spec import FeatureRequest, FeatureSpec
from featx.store.cache import ViewCache
from featx.store.file import FeatureFile
from featx.vision.engine import EngineOptions

if TYPE_CHECKING:
    from featx.vision.embed import Embedder

_CACHED_AT_ONCE = 1024  # rows; a shard of the cache costs two fsyncs


class _Features(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """What the transformers share: rows of features that need no fit, from input that is no matrix of numbers."""

    def fit(self, X: Any, y: Any = None) -> Any:  # noqa: ARG002 (scikit-learn's signature)
        """Do nothing: there is nothing to learn."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.no_validation = True
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags


class ImageFeatures(_Features):
    """Turn images into features with a pretrained, frozen network.

    Parameters
    ----------
    backbone : str or FeatureSpec
        A torchvision model, ``"featx-mini"`` or ``"package.module:function"``; or the spec of a file or bundle, which
        then decides everything but device, batch size and workers.
    weights : str or path
        ``"DEFAULT"``, an enum member, a file, ``"random"`` or ``"random:SEED"``. Beside a spec: the ``.featx`` bundle
        that holds the weights, where they were the user's own.
    node, pooling : str or None
        Where features are read, and how they become a row; None: the input of the classifier, pooled as suits it.
    image_size : int or None
        Side in pixels of the square images that the network sees; None: as its weights were evaluated.
    dtype, storage : str
        Of the arithmetic, and to which features are rounded, as in a feature file.
    window : tuple of float, or None
        Grey values (LO, HI) of 16-bit and float images that become 0 and 255.
    percentiles : tuple of float, or None
        Instead of a window: the percentiles (LO, HI) of each image's own values.
    bands : tuple of int
        Which bands of TIFFs become red, green and blue, counted from 1, or the one that becomes grey.
    decoder : str
        ``"pillow"``, or ``"pillow-draft"`` (large JPEGs at a reduced scale).
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    batch_size : int
        Images in one forward pass.
    num_workers : int or None
        Processes that read and decode; None: one for each core; 0: none, images are decoded in this process.
    cache : path or None
        A folder that keeps rows by the SHA-256 of the image's bytes (of an array: shape, dtype and pixels). Any number
        of processes may share it; none waits for another.
    allow_code : str or None
        The ``package.module:function`` that may be imported because a spec names it.
    views : {"plain", "all"}
        Of a spec with several views of each image: the plain image's row alone, or those of all views side by side.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> model = make_pipeline(ImageFeatures("resnet50"), LogisticRegression())
    >>> model.fit(paths, labels)    # doctest: +SKIP
    """

    def __init__(
        self,
        backbone: str | FeatureSpec = "resnet50",
        weights: str | os.PathLike[str] = "DEFAULT",
        *,
        node: str | None = None,
        pooling: str | None = None,
        image_size: int | None = None,
        dtype: str = "float32",
        storage: str = "float32",
        window: tuple[float, float] | None = None,
        percentiles: tuple[float, float] | None = None,
        bands: tuple[int, ...] = (),
        decoder: str = "pillow",
        device: str = "auto",
        batch_size: int = 32,
        num_workers: int | None = None,
        cache: str | os.PathLike[str] | None = None,
        allow_code: str | None = None,
        views: str = "plain",
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.node = node
        self.pooling = pooling
        self.image_size = image_size
        self.dtype = dtype
        self.storage = storage
        self.window = window
        self.percentiles = percentiles
        self.bands = bands
        self.decoder = decoder
        self.device = device
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.cache = cache
        self.allow_code = allow_code
        self.views = views

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Compute the features of images.

        Parameters
        ----------
        X : sequence of path, PIL.Image.Image, or uint8 array (height, width[, channels]); or one array of n of them
            Also a pandas Series or a single column.

        Returns
        -------
        float32 array (n_images, n_features)
            In the order of `X`; with ``views="all"`` (n_images, n_views * n_features).

        Raises
        ------
        ImageDecodeError
            If an image cannot be read; names it. A transformer cannot leave a row out.
        InputError
            If `X` is empty or holds something else.
        """
        manifest = image_manifest(X)
        embedder, options = self._embedder(), EngineOptions(self.batch_size, self.num_workers, self.device)
        spec = embedder.backbone.spec
        if self.cache is not None:
            return _cached_rows(manifest, embedder, options, ViewCache.open(self.cache, spec))
        return read_rows(manifest, embedder, options)[1]

    @property
    def spec_(self) -> FeatureSpec:
        """Everything that decides the features; the network is loaded to know it."""
        return self._embedder().backbone.spec

    @property
    def _n_features_out(self) -> int:  # scikit-learn's name, for `get_feature_names_out`
        return self.spec_.n_views * self.spec_.n_features

    def _embedder(self) -> Embedder:
        weights = os.fspath(self.weights)
        if self.views not in ("plain", "all"):
            raise UnknownNameError("value of views", self.views, ("plain", "all"))
        if isinstance(self.backbone, FeatureSpec):
            spec = self.backbone if self.views == "all" else replace(self.backbone, views=self.backbone.views[:1])
            if weights == "DEFAULT":
                return _load_embedder(spec, None, None, self.allow_code, self.device)
            return _load_embedder(spec, weights, _stamp(weights), self.allow_code, self.device)
        request = FeatureRequest(
            backbone=self.backbone,
            weights=weights,
            node=self.node,
            pooling=self.pooling,
            image_size=None if self.image_size is None else int(self.image_size),
            dtype=self.dtype,
            storage=self.storage,
            window=_pair(self.window),
            percentiles=_pair(self.percentiles),
            bands=tuple(int(band) for band in self.bands),
            decoder=self.decoder,
        )
        return _load_embedder(request, None, _stamp(weights), None, self.device)


class CachedFeatures(_Features):
    """Look up the features of samples in a feature file: keys in, rows out.

    Parameters
    ----------
    file : path
        A feature file as `featx extract` writes it. It is read where `transform` runs, and is not part of a pickle.

    Examples
    --------
    >>> from sklearn.model_selection import cross_validate
    >>> model = make_pipeline(CachedFeatures("cache/ants.h5"), LogisticRegression())    # doctest: +SKIP
    >>> cross_validate(model, keys, labels)    # doctest: +SKIP
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.file = file

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Look up rows.

        Parameters
        ----------
        X : sequence of str (n,)
            Keys, in any order and as often as wanted.

        Returns
        -------
        float32 array (n, n_features)
            In the order of `X`: the plain image's row of each sample.

        Raises
        ------
        UnknownNameError
            If the file does not know a key; lists close matches.
        InputError
            If a sample failed when its features were extracted, or `X` is empty.
        StoreError
            If the file cannot be read.
        """
        file, row_of_key = self._open()
        keys = [str(key) for key in column(X)]
        if not keys:
            raise InputError("no keys")
        rows = np.array([row_of_key.get(key, -1) for key in keys], dtype=np.int64)
        if (rows < 0).any():
            raise _missing_key(file, keys[int(np.argmin(rows))])
        return np.asarray(file.features(rows), dtype=np.float32)

    @property
    def _n_features_out(self) -> int:
        return self._open()[0].spec.n_features

    def _open(self) -> tuple[FeatureFile, dict[str, int]]:
        path = os.fspath(self.file)
        return _open_file(path, _stamp(path))


def image_pipeline(
    bundle: Bundle | str | os.PathLike[str],
    *,
    device: str = "auto",
    batch_size: int = 32,
    num_workers: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    allow_code: str | None = None,
) -> Pipeline:
    """Return a bundle as a fitted scikit-learn pipeline that takes images.

    Where samples are called by the mean over their views, so are these images; such a pipeline cannot be fitted again.

    Parameters
    ----------
    bundle : Bundle or path
        What `featx fit` wrote. Its file must stay where it is if it holds the network's weights.
    device, batch_size, num_workers, cache, allow_code
        See `ImageFeatures`.

    Raises
    ------
    BundleError
        If the bundle cannot be loaded.
    """
    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    averaged = loaded.views.score == "average"
    features = ImageFeatures(
        loaded.spec,
        "DEFAULT" if loaded.weights is None else loaded.path,
        device=device,
        batch_size=batch_size,
        num_workers=num_workers,
        cache=cache,
        allow_code=allow_code,
        views="all" if averaged else "plain",
    )
    head = AveragedViews(loaded.pipeline, loaded.spec.n_views) if averaged else loaded.pipeline
    return Pipeline([("features", features), ("head", head)])


@functools.lru_cache(maxsize=2)
def _load_embedder(
    made_by: FeatureRequest | FeatureSpec,
    bundle: str | None,
    _stamp: tuple[int, ...] | None,
    allow_code: str | None,
    device: str,
) -> Embedder:
    """Put a network on a device; kept for the next transform in this process, until its weights file changes."""
    from featx.vision.backbones import load_backbone, restore_backbone
    from featx.vision.embed import Embedder

    if isinstance(made_by, FeatureRequest):
        return Embedder(load_backbone(made_by), device=device)
    weights = None if bundle is None else load_bundle(bundle).weights
    return Embedder(restore_backbone(made_by, weights, allow_code=allow_code), device=device)


@functools.lru_cache(maxsize=4)
def _open_file(path: str, _stamp: tuple[int, ...] | None) -> tuple[FeatureFile, dict[str, int]]:
    """Open a feature file and index its keys; kept for the next transform in this process, until the file changes."""
    file = FeatureFile.open(path)
    plain = np.flatnonzero(file.views() == 0).tolist()
    keys = file.keys()
    return file, {keys[row]: row for row in plain}


def _pair(values: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if values is None else (float(values[0]), float(values[1]))


def _stamp(path: str) -> tuple[int, ...] | None:
    """Return what changes when a file is replaced or written; None where there is no such file."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _cached_rows(
    manifest: Manifest, embedder: Embedder, options: EngineOptions, cache: ViewCache
) -> NDArray[np.float32]:
    """Take the rows that a cache has, compute the others once, and leave them in the cache."""
    with ThreadPoolExecutor(options.n_threads) as threads:
        shas = list(threads.map(functools.partial(source.sample_sha256, manifest), range(len(manifest))))
    rows = cache.get(dict.fromkeys(shas))
    missing = {sha: position for position, sha in reversed(list(enumerate(shas))) if sha not in rows}
    new: dict[str, NDArray[np.floating]] = {}
    try:
        for computed, features in iter_rows(manifest, sorted(missing.values()), embedder, options):
            new.update(zip(computed, features, strict=True))
            if len(new) >= _CACHED_AT_ONCE:
                cache.put(new)
                rows.update(new)
                new = {}
    finally:  # also what was computed before an image that cannot be read
        cache.put(new)
    rows.update(new)
    return np.stack([rows[sha] for sha in shas]).astype(np.float32)


def _missing_key(file: FeatureFile, key: str) -> InputError | UnknownNameError:
    ledger = file.ledger()
    if key in ledger.key:
        return InputError(f"{key}: no features, because {ledger.reason[ledger.key.index(key)]}")
    return UnknownNameError("key", key, ledger.key, hint=f"{file.path} does not hold it")
