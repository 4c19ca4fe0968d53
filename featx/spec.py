"""What made a feature: the spec, its fingerprint, and the request it was resolved from.

A feature file is valid because of the `FeatureSpec` in it, not because it exists. The
`FeatureRequest` is what the user typed; resolving it (`featx.vision.backbones`) needs torch,
comparing two of them does not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from dataclasses import dataclass
from typing import Any

FORMAT_VERSION = 1
"""Version of the feature file's layout; a reader refuses what is newer."""
TIMM = "timm:"
"""Begins the name of a backbone from timm's registry."""
FOREIGN = "foreign"
"""`FeatureSpec.weights` of features that were made elsewhere and imported."""

VIEW_KINDS = ("flip", "crop", "rotate", "colour")
"""What views do to an image unless told otherwise; see `featx.vision.views.KINDS`."""


@dataclass(frozen=True)
class Preprocess:
    """From an image file to the tensor that the network sees.

    The reference is Pillow's decode and torchvision's own transform on the PIL image.

    Attributes
    ----------
    resize : tuple of int
        ``(shorter side,)`` in pixels, or ``(height, width)``; empty: no resize.
    crop : tuple of int
        Centre crop ``(height, width)`` in pixels; empty: no crop.
    interpolation : str
        ``"nearest"``, ``"bilinear"``, ``"bicubic"`` (Pillow's filters), always antialiased.
    mean, std : tuple of float
        Per channel, in units of pixel values scaled to [0, 1].
    antialias, exif : bool
        Whether the resize is antialiased and EXIF orientation is applied.
    alpha : str
        The colour on which transparent pixels are composited.
    window : tuple of float, or None
        The values mapped to black and white for images of more than 8 bits a channel, and for DICOM's greys (in
        rescaled units); None: the full integer range, and [0, 1] for floats.
    percentiles : tuple of float, or None
        Instead of `window`: the percentiles (0 to 100) of each image's own values, of all its bands together, that
        become black and white. A DICOM file's own window comes before them.
    bands : tuple of int
        Which bands of a TIFF become red, green and blue, counted from 1, or the one that becomes grey; empty: the
        first three.
    decoder : str
        What decodes: ``"pillow"``, or ``"pillow-draft"`` (JPEGs decoded at 1/2, 1/4 or 1/8 of their size, where that
        is still at least twice what the resize makes of it), or ``"nvjpeg"`` (JPEGs decoded by an NVIDIA GPU).
    """

    resize: tuple[int, ...]
    crop: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    antialias: bool = True
    exif: bool = True
    alpha: str = "white"
    window: tuple[float, float] | None = None
    percentiles: tuple[float, float] | None = None
    bands: tuple[int, ...] = ()
    decoder: str = "pillow"

    @property
    def side(self) -> int | None:
        """Side of the square images that the network sees, in pixels; None: they are not square."""
        size = set(self.crop or self.resize if len(self.crop or self.resize) == 2 else ())
        return size.pop() if len(size) == 1 else None

    def at_size(self, side: int) -> Preprocess:
        """Return the preprocess that gives square images of another size, and shows the same part of each.

        The resize keeps its proportion to the crop, rounded to whole pixels: 256 before a crop of 224 becomes 110
        before one of 96.

        Parameters
        ----------
        side : int
            Width and height of what the network sees, in pixels, at least 1.
        """
        if self.crop == (side, side) or not (self.crop or len(self.resize) == 2):
            return self
        if not self.crop:
            return dataclasses.replace(self, resize=(side, side))
        shorter = min(self.crop)
        resize = tuple(max(side, round(length * side / shorter)) for length in self.resize)
        return dataclasses.replace(self, resize=resize, crop=(side, side))


@dataclass(frozen=True)
class FeatureSpec:
    """Everything that decides the numbers in a feature file.

    Batch size, device, number of workers, runtime and engine are not in it: they do not change
    the numbers beyond rounding.

    Attributes
    ----------
    backbone : str
        A torchvision model name, ``"timm:NAME"``, ``"featx-mini"``, or ``"package.module:function"``;
        ``"foreign:WORDS"`` for features that were made elsewhere.
    weights : str
        A torchvision weights member (``"ResNet50_Weights.IMAGENET1K_V2"``), timm's name of weights
        (``"resnet50.a1_in1k"``), ``"random:SEED"``, ``"featx-mini"``, ``"file"``, or ``"own"``: what a user's function
        gave the network; or `FOREIGN`.
    weights_sha256 : str
        Of the file that held the tensors; for random weights and a user's own network, of its tensors. Of foreign
        features: of the files that they came from, or ``""`` where the words alone say what made them.
    node : str
        Where the features are read.
    pooling : str
        ``"avg"``, ``"max"``, ``"cls"``, ``"mean-tokens"`` or ``"none"``.
    feature_shape : tuple of int
        Shape of one sample's features before they are flattened into a row.
    preprocess : Preprocess
        From file to tensor.
    views : tuple of str
        The view plan, one text for each row of a sample (see `featx.vision.views`); ``("plain",)``: one row each.
    dtype, storage : str
        Of the network's arithmetic, and of the stored features.
    float32_modules : tuple of str
        Modules of the network that stay in float32 where `dtype` is lower.
    logits : bool
        Whether the network's own class scores are stored too.
    format_version : int
        Layout of the file.
    """

    backbone: str
    weights: str
    weights_sha256: str
    node: str
    pooling: str
    feature_shape: tuple[int, ...]
    preprocess: Preprocess
    views: tuple[str, ...] = ("plain",)
    dtype: str = "float32"
    float32_modules: tuple[str, ...] = ()
    storage: str = "float32"
    logits: bool = False
    format_version: int = FORMAT_VERSION

    @property
    def n_views(self) -> int:
        """Rows of one sample."""
        return len(self.views)

    @property
    def n_features(self) -> int:
        """Length of one row of features."""
        n = 1
        for size in self.feature_shape:
            n *= size
        return n

    @property
    def is_foreign(self) -> bool:
        """Whether the features were made elsewhere, so that no image can be turned into them here."""
        return self.weights == FOREIGN

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON-ready builtins (tuples become lists)."""
        return dict(json.loads(_canonical_json(dataclasses.asdict(self))))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> FeatureSpec:
        """Rebuild a spec from `to_dict`'s output; fields that this version does not know are ignored.

        Raises
        ------
        KeyError, TypeError
            If a field is missing or of another type.
        """
        fields = {f.name for f in dataclasses.fields(cls)} & set(data)
        values = {name: _as_tuples(data[name]) for name in fields - {"preprocess"}}
        known = {f.name for f in dataclasses.fields(Preprocess)}
        preprocess = {name: _as_tuples(value) for name, value in data["preprocess"].items() if name in known}
        spec = cls(preprocess=Preprocess(**preprocess), **values)
        _check_types(spec)
        _check_types(spec.preprocess)
        return spec

    @property
    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) of the spec's canonical JSON."""
        return hashlib.sha256(_canonical_json(dataclasses.asdict(self)).encode()).hexdigest()

    def differences(self, other: FeatureSpec) -> dict[str, tuple[Any, Any]]:
        """Return the fields that differ, as ``{name: (self's value, other's value)}``.

        The preprocess is compared field by field, under names like ``"preprocess.resize"``.
        """
        mine, theirs = _flat(self), _flat(other)
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}


@dataclass(frozen=True)
class FeatureRequest:
    """What the user asks for, before names are resolved to weights, nodes and numbers.

    Attributes
    ----------
    backbone, weights : str
        As typed: ``weights`` is ``"DEFAULT"``, an enum member, a file, ``"random"`` or ``"random:SEED"``.
    node, pooling : str or None
        None: the input of the classifier, and the pooling that suits the node.
    image_size : int or None
        Side in pixels of the square images that the network sees; None: as its weights were evaluated.
    dtype, storage : str
        ``"float32"`` or ``"bfloat16"`` / ``"float16"``; ``"float32"`` or ``"float16"``.
    window, percentiles : tuple of float, or None
        See `Preprocess`.
    bands : tuple of int
        See `Preprocess`.
    decoder : str
        See `Preprocess`.
    n_views : int
        Rows for each sample: the plain image, and `n_views` - 1 augmented readings of it.
    view_seed : int
        Seeds the view plan.
    view_kinds : tuple of str
        What the views may do to an image; without ``"flip"`` none is mirrored.
    with_logits : bool
        Whether the network's own class scores are wanted too.
    """

    backbone: str = "resnet50"
    weights: str = "DEFAULT"
    node: str | None = None
    pooling: str | None = None
    image_size: int | None = None
    dtype: str = "float32"
    storage: str = "float32"
    window: tuple[float, float] | None = None
    percentiles: tuple[float, float] | None = None
    bands: tuple[int, ...] = ()
    decoder: str = "pillow"
    n_views: int = 1
    view_seed: int = 0
    view_kinds: tuple[str, ...] = VIEW_KINDS
    with_logits: bool = False


def is_own_code(backbone: str) -> bool:
    """Tell whether a backbone's name is that of a user's own function (``package.module:function``)."""
    return ":" in backbone and not backbone.startswith(TIMM)


def _canonical_json(data: Any) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else value


def _check_types(record: FeatureSpec | Preprocess) -> None:
    """Raise a TypeError for a field whose value is not of its annotated type: the values came from a file."""
    for name, wanted in typing.get_type_hints(type(record)).items():
        value = getattr(record, name)
        if not _is_a(value, wanted):
            raise TypeError(f"{name} is {value!r}, expected {wanted}")


def _is_a(value: Any, wanted: Any) -> bool:
    alternatives, inner = typing.get_args(wanted), typing.get_origin(wanted)
    if inner is types.UnionType:
        return any(_is_a(value, alternative) for alternative in alternatives)
    if inner is tuple:
        items = alternatives[:1] * len(value) if isinstance(value, tuple) and Ellipsis in alternatives else alternatives
        fits = isinstance(value, tuple) and len(value) == len(items)
        return fits and all(_is_a(item, of) for item, of in zip(value, items, strict=True))
    # JSON writes 1.0 and 1 alike as numbers; a bool is an int to Python, but not here.
    return isinstance(value, int | float if wanted is float else wanted) and (wanted is bool or type(value) is not bool)


def _flat(spec: FeatureSpec) -> dict[str, Any]:
    values = {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec) if f.name != "preprocess"}
    for field in dataclasses.fields(spec.preprocess):
        values[f"preprocess.{field.name}"] = getattr(spec.preprocess, field.name)
    return values
