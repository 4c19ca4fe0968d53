"""featx: from a folder of labelled images to a classifier that its user can defend.

Every public name but the errors is loaded when it is first touched, so that ``import featx`` costs nothing and
``featx.load_features`` loads no torch.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

from featx.errors import (
    BundleError,
    DeviceError,
    DeviceMemoryError,
    FeatxError,
    ImageDecodeError,
    InputError,
    LabelsError,
    ManifestError,
    MergeConflictError,
    MissingExtraError,
    SpecMismatchError,
    StoreError,
    StoreFormatError,
    StoreIncompleteError,
    StoreLockedError,
    StoreWriteError,
    UnknownNameError,
    UsageError,
    WeightsError,
)
from featx.version import __version__

if TYPE_CHECKING:
    from featx.audit import AuditOptions, AuditResult, audit
    from featx.caching.exporting import export_features
    from featx.caching.foreign import ImportOptions
    from featx.caching.importing import import_features
    from featx.caching.merging import merge_features
    from featx.caching.verification import verify_features
    from featx.estimators import CachedFeatures, ImageFeatures, image_pipeline
    from featx.extract import UpdateOptions, extract
    from featx.extract_report import ExtractReport
    from featx.fewshot import FewShotOptions, FewShotResult, fewshot
    from featx.finetune import FinetuneOptions, FinetuneResult, finetune
    from featx.finetune_classifier import FineTuneClassifier
    from featx.fit import FitOptions, FitResult, fit
    from featx.learn.bundle import Bundle, load_bundle
    from featx.learn.dataset import Features, load_features
    from featx.learn.judgement import Caution
    from featx.lock import LockOptions, lock, open_locked
    from featx.manifest.source import SourceOptions, manifest_of
    from featx.predict import Predictions, predict
    from featx.race import RaceOptions, RaceRules, race
    from featx.rank import RankOptions, RankResult, rank
    from featx.spec import FeatureRequest, FeatureSpec
    from featx.store.file import FeatureFile
    from featx.suggest import Suggestion, suggest
    from featx.vision.engine import EngineOptions

__all__ = [
    "AuditOptions",
    "AuditResult",
    "Bundle",
    "BundleError",
    "CachedFeatures",
    "Caution",
    "DeviceError",
    "DeviceMemoryError",
    "EngineOptions",
    "ExtractReport",
    "FeatureFile",
    "FeatureRequest",
    "FeatureSpec",
    "Features",
    "FeatxError",
    "FewShotOptions",
    "FewShotResult",
    "FineTuneClassifier",
    "FinetuneOptions",
    "FinetuneResult",
    "FitOptions",
    "FitResult",
    "ImageDecodeError",
    "ImageFeatures",
    "ImportOptions",
    "InputError",
    "LabelsError",
    "LockOptions",
    "ManifestError",
    "MergeConflictError",
    "MissingExtraError",
    "Predictions",
    "RaceOptions",
    "RaceRules",
    "RankOptions",
    "RankResult",
    "SourceOptions",
    "SpecMismatchError",
    "StoreError",
    "StoreFormatError",
    "StoreIncompleteError",
    "StoreLockedError",
    "StoreWriteError",
    "Suggestion",
    "UnknownNameError",
    "UpdateOptions",
    "UsageError",
    "WeightsError",
    "__version__",
    "audit",
    "export_features",
    "extract",
    "fewshot",
    "finetune",
    "fit",
    "image_pipeline",
    "import_features",
    "load_bundle",
    "load_features",
    "lock",
    "manifest_of",
    "merge_features",
    "open_locked",
    "predict",
    "race",
    "rank",
    "suggest",
    "verify_features",
]


_HOMES = {
    "featx.audit": ("AuditOptions", "AuditResult", "audit"),
    "featx.caching.exporting": ("export_features",),
    "featx.caching.foreign": ("ImportOptions",),
    "featx.caching.importing": ("import_features",),
    "featx.caching.merging": ("merge_features",),
    "featx.caching.verification": ("verify_features",),
    "featx.estimators": ("CachedFeatures", "ImageFeatures", "image_pipeline"),
    "featx.extract": ("UpdateOptions", "extract"),
    "featx.extract_report": ("ExtractReport",),
    "featx.fewshot": ("FewShotOptions", "FewShotResult", "fewshot"),
    "featx.finetune": ("FinetuneOptions", "FinetuneResult", "finetune"),
    "featx.finetune_classifier": ("FineTuneClassifier",),
    "featx.fit": ("FitOptions", "FitResult", "fit"),
    "featx.learn.bundle": ("Bundle", "load_bundle"),
    "featx.learn.dataset": ("Features", "load_features"),
    "featx.learn.judgement": ("Caution",),
    "featx.lock": ("LockOptions", "lock", "open_locked"),
    "featx.manifest.source": ("SourceOptions", "manifest_of"),
    "featx.predict": ("Predictions", "predict"),
    "featx.race": ("RaceOptions", "RaceRules", "race"),
    "featx.rank": ("RankOptions", "RankResult", "rank"),
    "featx.spec": ("FeatureRequest", "FeatureSpec"),
    "featx.store.file": ("FeatureFile",),
    "featx.suggest": ("Suggestion", "suggest"),
    "featx.vision.engine": ("EngineOptions",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'featx' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(types.ModuleType):
    """A package in which a stage's function goes before the module of the same name.

    Python's import puts the module ``featx.fit`` into the attribute ``featx.fit``; whoever imports something from it
    must not take the function away from others.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, types.ModuleType) and _HOME.get(name) == value.__name__:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
