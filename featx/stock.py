"""The stock of a race: the feature files of the backbones, extracted bit by bit as they are wanted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from featx.errors import InputError
from featx.extract import extract
from featx.learn.dataset import Features, load_features
from featx.learn.racing import Progress
from featx.manifest.record import Manifest
from featx.spec import FeatureRequest
from featx.store.answer import known_keys
from featx.store.file import FeatureFile
from featx.store.output_names import output_paths
from featx.vision.engine import EngineOptions, Notify


class BrokenImagesError(Exception):
    """Images that turned out to be broken: without them the folds are others, and the races start again."""

    def __init__(self, failures: dict[str, str]) -> None:
        super().__init__()
        self.failures = failures


@dataclass(frozen=True, eq=False)
class Stock:
    """The feature files of the backbones, brought up to what is wanted of each.

    Attributes
    ----------
    source : path, Manifest, or sequence
        As for `featx.extract`; `manifest` is what it was read as.
    requests : dict of str to FeatureRequest
        What is asked of each backbone, by its name.
    template : Path
        Of the files' names.
    watch : callable
        See `featx.learn.racing.Progress`.
    n_computed : Counter
        Samples, by backbone, in this run.
    """

    source: Any
    manifest: Manifest
    requests: dict[str, FeatureRequest]
    template: Path
    engine: EngineOptions
    watch: Progress
    notify: Notify | None
    n_computed: Counter[str] = field(default_factory=Counter)

    @property
    def paths(self) -> dict[str, str]:
        """The file of each backbone, whether it is there yet or not."""
        found = output_paths(self.source, self.template, list(self.requests.values()), many=True)
        return dict(zip(self.requests, map(os.fspath, found), strict=True))

    def check_locks(self) -> None:
        """Raise InputError where a file keeps samples for a last test, of which the other files know nothing."""
        for path in self.paths.values():
            if Path(path).exists():
                with FeatureFile.open(path) as file:
                    locked = file.locked()
                if locked is not None:
                    raise InputError(
                        f"{path} keeps {len(locked.keys)} samples locked for the last test, and --auto would race on "
                        "them; give another --auto-cache, or run featx fit on files that are locked alike"
                    )

    def update(self, wanted: Mapping[str, Sequence[str]]) -> None:
        """Extract the samples of these keys for each backbone, in one pass for those that lack the same.

        What a file holds already stays in it, also what is not wanted now.

        Raises
        ------
        BrokenImagesError
            Some of them have no features.
        """
        passes: dict[tuple[int, ...], list[str]] = {}
        place = {key: position for position, key in enumerate(self.manifest.keys)}
        for name, keys in wanted.items():
            known = known_keys(Path(self.paths[name])).intersection(place)
            passes.setdefault(tuple(sorted(place[key] for key in known.union(keys))), []).append(name)
        failures: dict[str, str] = {}
        for positions, names in passes.items():
            with self.watch(f"extract {', '.join(names)}", "images") as advance:
                reports = extract(
                    self.manifest.take(positions),
                    self.template,
                    request=[self.requests[name] for name in names],
                    engine=self.engine,
                    progress=advance,
                    notify=self.notify,
                )
            for name, report in zip(names, reports, strict=True):
                self.n_computed[name] += report.computed
                asked = set(wanted[name])
                failures |= {key: reason for key, reason in report.failures.items() if key in asked}
        if failures:
            raise BrokenImagesError(failures)

    def load(self, name: str, keys: Sequence[str]) -> Features:
        """Return the features of some samples that are there."""
        features = load_features(self.paths[name], allow_missing=True)
        place = {str(key): row for row, key in enumerate(features.keys)}
        return replace(features.take(np.array([place[key] for key in keys], dtype=np.int64)), n_missing=0)
