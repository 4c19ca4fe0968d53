"""Features that were made elsewhere become a feature file, of a spec that says so."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.caching import arrays, labels, slides, tables
from featx.caching.foreign import TEXT, ForeignFeatures, ImportOptions, check_unique
from featx.caching.output import Progress, check_feature_target, write_batches
from featx.errors import InputError, ManifestError, UsageError
from featx.manifest.record import SPLITS, Manifest
from featx.manifest.source import with_regex_groups
from featx.spec import FOREIGN, FeatureSpec, Preprocess
from featx.store.records import FAILED, OK, FeatureBatch, LedgerEntry
from featx.version import __version__

NOT_FINITE = "not-finite"

_REFUSED = {
    ".pt": "torch.load('{name}', weights_only=True)",
    ".pth": "torch.load('{name}', weights_only=True)",
    ".mat": "scipy.io.loadmat('{name}')['features']",
    ".pkl": "what is in it",
    ".pickle": "what is in it",
}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_THINGSVISION = re.compile(r"features(_\d+)?")
_PIECE = 8 * 1024 * 1024


@dataclass(frozen=True)
class ImportReport:
    """What `import_features` read and wrote.

    Attributes
    ----------
    path, source : str
        The feature file, and what it was made from.
    kind : str
        See `featx.caching.foreign.ForeignFeatures`.
    fingerprint, backbone : str
        Of the foreign spec.
    samples, rows, n_features : int
        Of the file.
    labelled, groups : int
        Samples with a label, and how many groups there are.
    failures : dict of str to str
        Key to reason, of every sample without a row.
    notes : list of str
        What the user should hear.
    """

    path: str
    source: str
    kind: str
    fingerprint: str
    backbone: str
    samples: int
    rows: int
    n_features: int
    labelled: int
    groups: int
    failures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def failures_by_reason(self) -> dict[str, int]:
        """Count the failures by the code before the colon."""
        return dict(Counter(reason.partition(":")[0] for reason in self.failures.values()))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready builtins."""
        return {**dataclasses.asdict(self), "failed": len(self.failures), "failures_by_reason": self.failures_by_reason}


def import_features(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: ImportOptions = ImportOptions(),  # noqa: B008  frozen
    *,
    replace: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Make a feature file of features that were made elsewhere.

    The file's spec says that it is foreign: heads are trained on it as on any other, but no image can be turned into
    such features here. A row with NaN or infinite numbers is a failed sample.

    Parameters
    ----------
    source : path
        ``.npz``, ``.npy``, ``.csv``, ``.tsv``, ``.parquet``, ``.txt``, ``.h5`` or ``.hdf5``; a folder of thingsvision's
        (``features.npy`` and the like); or a folder with one HDF5 file for each slide (CLAM, TRIDENT).
    output : path
        The feature file.
    options : ImportOptions
        How the source is read.
    replace : bool
        Overwrite `output`.
    progress : callable, optional
        See `Progress`.

    Raises
    ------
    InputError
        If the source cannot be read, holds Python objects, or names a sample twice.
    UsageError
        If an option does not suit the source, or `output` is there.
    StoreError
        If the file cannot be written.
    """
    path = Path(source)
    target = check_feature_target(output, inputs=[path], replace=replace)
    features = read_source(path, options)
    if options.labels is not None:
        features = labels.with_labels(features, Path(options.labels))
    if options.label_regex is not None:
        features = labels.with_label_regex(features, options.label_regex)
    notes = list(features.notes)
    manifest, kept = _manifest(features, path, notes)
    if options.group_regex is not None:
        manifest = with_regex_groups(manifest, options.group_regex)
    spec = foreign_spec(features, options.made_by)
    if features.dtype not in (spec.storage, "float32", TEXT):
        notes.append(f"{features.dtype} numbers are stored as {spec.storage}")
    if options.made_by is None:
        notes.append(
            "without --made-by WORDS only features of this very source count as made in the same way: a head that is "
            "trained on them classifies no others"
        )
    writing = _Writing(features, manifest, kept, spec)
    outcome = write_batches(
        target,
        writing.batches(),
        manifest,
        spec,
        request={"import": features.kind, "source": path.name, "made_by": options.made_by, "pool": options.pool},
        made_with={"featx": __version__, "numpy": np.__version__, "imported_from": path.name},
        progress=progress,
    )
    return ImportReport(
        path=str(target),
        source=os.fspath(source),
        kind=features.kind,
        fingerprint=spec.fingerprint,
        backbone=spec.backbone,
        samples=outcome.n_samples,
        rows=outcome.n_rows,
        n_features=spec.n_features,
        labelled=sum(label != "" for label in manifest.labels),
        groups=len(set(manifest.groups) - {""}),
        failures=writing.failures,
        notes=notes,
    )


def read_source(path: Path, options: ImportOptions) -> ForeignFeatures:
    """Look at a source of foreign features and say what it holds; its rows are read later.

    Raises
    ------
    InputError, UsageError
        As `import_features`.
    """
    if path.is_dir():
        return _read_folder(path, options)
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder")
    ending = path.suffix.lower()
    if ending in _REFUSED:
        value = _REFUSED[ending].format(name=path.name)
        raise InputError(
            f"{path}: featx does not read {ending} files, which may run code or are of many kinds; save the numbers "
            f"first: np.save('features.npy', {value})"
        )
    if options.pool is not None and ending not in slides.ENDINGS:
        raise UsageError(f"--pool has a meaning for slides (.h5) only, not for {path.name}")
    if options.feature_columns is not None and ending not in (*tables.ENDINGS, ".parquet"):
        raise UsageError(f"--feature-columns has a meaning for tables only, not for {path.name}")
    if options.names is not None and ending not in (".npy", ".txt", *slides.ENDINGS):
        raise UsageError(f"--names has a meaning for rows without keys only, not for {path.name}")
    if ending not in _READERS:
        raise UsageError(f"{path}: expected {', '.join(_READERS)} or a folder")
    return _READERS[ending](path, options)


_READERS: dict[str, Callable[[Path, ImportOptions], ForeignFeatures]] = {
    ".npz": arrays.read_npz,
    ".npy": lambda path, options: arrays.read_npy([path], options),
    ".txt": lambda path, options: arrays.read_txt([path], options),
    ".csv": tables.read_table,
    ".tsv": tables.read_table,
    ".parquet": tables.read_parquet,
    ".h5": slides.read_hdf5,
    ".hdf5": slides.read_hdf5,
}


def foreign_spec(features: ForeignFeatures, made_by: str | None) -> FeatureSpec:
    """Return the spec of foreign features: the user's words, or else the bytes that they came from, tell them apart."""
    return FeatureSpec(
        backbone=f"{FOREIGN}:{made_by if made_by is not None else features.kind}",
        weights=FOREIGN,
        weights_sha256="" if made_by is not None else _sha256_of(features.files),
        node="",
        pooling="none",
        feature_shape=features.shape,
        preprocess=Preprocess(resize=(), crop=(), mean=(), std=()),
        storage="float16" if features.dtype == "float16" else "float32",
    )


def _read_folder(folder: Path, options: ImportOptions) -> ForeignFeatures:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    named = [path for path in files if _THINGSVISION.fullmatch(path.stem)]
    for ending, read in ((".npy", arrays.read_npy), (".txt", arrays.read_txt)):
        if found := [path for path in named if path.suffix.lower() == ending]:
            return read(found, options)
    if found := [path for path in named if path.suffix.lower() in slides.ENDINGS]:
        return read_source(found[0], options)
    of_slides = [path for path in files if path.suffix.lower() in slides.ENDINGS]
    if not of_slides and (folder / "h5_files").is_dir():  # CLAM's, beside pt_files
        return _read_folder(folder / "h5_files", options)
    if not of_slides:
        raise InputError(
            f"{folder}: neither features.npy, .hdf5 or .txt (thingsvision) nor .h5 files, one for each slide"
        )
    return slides.read_slides(of_slides, options)


def _manifest(features: ForeignFeatures, path: Path, notes: list[str]) -> tuple[Manifest, NDArray[np.bool_]]:
    """Return the samples, and which of the source's rows they are: the plain views."""
    kept = np.ones(features.n_samples, np.bool_)
    if "view" in features.columns:
        kept = np.array([view in ("", "0") for view in features.columns["view"]], np.bool_)
        if not kept.all():
            notes.append(f"{np.count_nonzero(~kept):,} rows of views other than the plain one are left out")
    places = np.flatnonzero(kept).tolist()

    def column(role: str) -> list[str]:
        values = features.columns.get(role)
        return [""] * len(places) if values is None else [values[place] for place in places]

    keys = column("key")
    if "key" not in features.columns:
        width = len(str(features.n_samples - 1))
        keys = [f"row {place:0{width}d}" for place in places]
        notes.append("the rows have no names; their keys are their numbers")
    check_unique(keys, where=str(path))
    splits = column("split")
    strange = [split for split in splits if split and split.lower() not in SPLITS]
    if strange:
        raise ManifestError(f"{strange[0]!r} is not a split; expected {', '.join(SPLITS)} or nothing", path=str(path))
    return (
        Manifest(
            root="",
            keys=keys,
            paths=[""] * len(keys),
            labels=column("label"),
            groups=column("group"),
            splits=[SPLITS[split.lower()] if split else "" for split in splits],
            folds=column("fold"),
            meta={name: [values[place] for place in places] for name, values in features.meta.items()},
            group_source=features.group_source,
        ),
        kept,
    )


class _Writing:
    """Turns blocks of foreign rows into batches with an account of each sample."""

    def __init__(
        self, features: ForeignFeatures, manifest: Manifest, kept: NDArray[np.bool_], spec: FeatureSpec
    ) -> None:
        self.failures: dict[str, str] = {}
        self._features, self._keys, self._spec = features, manifest.keys, spec
        self._has_row = np.array([i not in features.failures for i in range(features.n_samples)], np.bool_)
        self._kept = kept
        given = features.columns.get("sha256")
        is_usable = given is not None and all(_SHA256.fullmatch(sha) for sha in given)
        self._sha256 = given if is_usable else None

    def batches(self) -> Iterator[FeatureBatch]:
        n_features = self._spec.n_features
        start, sample = 0, 0  # of the source's samples, of those that are kept
        for block in self._features.blocks():
            with np.errstate(over="ignore", invalid="ignore"):
                rows = np.ascontiguousarray(block.reshape(len(block), -1), self._spec.storage)
            if rows.shape[1] != n_features:
                raise InputError(f"a row has {rows.shape[1]:,} features, the first has {n_features:,}")
            stop = self._end(start, len(rows))
            entries, good, at = [], [], 0
            for place in range(start, stop):
                row = rows[at] if self._has_row[place] else None
                at += row is not None
                if self._kept[place]:
                    entry = self._entry(self._keys[sample], place, row)
                    entries.append(entry)
                    good += [at - 1] if entry.status == OK else []
                    sample += 1
            yield FeatureBatch(entries, rows[good])
            start = stop
        if start != self._features.n_samples:
            raise InputError(f"{self._features.files[0]}: {start:,} of {self._features.n_samples:,} rows could be read")

    def _end(self, start: int, n_rows: int) -> int:
        """Return the place after these rows, and after the samples without a row that follow them."""
        ends = np.flatnonzero(np.cumsum(self._has_row[start:]) == n_rows)
        if not len(ends):
            raise InputError(f"{self._features.files[0]}: more rows than the {self._features.n_samples:,} expected")
        return start + int(ends[-1]) + 1

    def _entry(self, key: str, place: int, row: NDArray[np.floating] | None) -> LedgerEntry:
        if row is None:
            reason = self._features.failures[place]
        elif np.isfinite(row).all():
            # What it was made from is not known, so that equal rows stand for equal images.
            sha256 = hashlib.sha256(row.tobytes()).hexdigest() if self._sha256 is None else self._sha256[place]
            return LedgerEntry(key, OK, sha256=sha256)
        else:
            reason = NOT_FINITE
        self.failures[key] = reason
        return LedgerEntry(key, FAILED, reason)


def _sha256_of(files: list[Path]) -> str:
    """Return the SHA-256 of one file's bytes, or of the digests of several."""
    digests = []
    for path in files:
        digest = hashlib.sha256()
        try:
            with path.open("rb") as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        digests.append(digest.hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()
