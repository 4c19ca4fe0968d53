"""What lies in a folder of feature files: files, unfinished runs, kept rows and leftovers. Reads no features."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx.errors import StoreError, UsageError
from featx.spec import FeatureSpec
from featx.store import parts
from featx.store.cache import read_cache_spec
from featx.store.file import FeatureFile
from featx.store.lock import is_held
from featx.store.shards import ShardFolder

FILE, RUN, ROWS, TEMPORARY = "file", "run", "rows", "temporary"

COMPLETE, RUNNING, IMPORTED, NOTHING_KEPT = "complete", "running", "foreign", "nothing kept"

ENDINGS = (".h5", ".hdf5")
"""By which a file counts as a feature file; any other does by its first bytes."""
PARTS = ".parts"
LEFT_OVER = tuple(f"{ending}.tmp" for ending in ENDINGS)

_HDF5_START = b"\x89HDF\r\n\x1a\n"
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class CacheItem:
    """One thing in a folder of feature files.

    Attributes
    ----------
    path : str
        Below the folder.
    kind : str
        ``"file"``: a feature file; ``"run"``: what an unfinished run keeps, ``NAME.h5.parts``; ``"rows"``: the folder
        of one spec that `ImageFeatures(cache=...)` keeps; ``"temporary"``: ``NAME.h5.tmp``.
    state : str
        ``"complete"``, ``"foreign"`` (complete and made elsewhere), ``"N left"``, ``"running"``, ``"nothing kept"`` or
        ``"damaged: reason"``.
    backbone, node, fingerprint : str
        Of the spec; ``""`` where it is not known.
    rows, failed, n_features : int or None
        Rows of features, samples without any, and the length of a row; None where that is not known.
    bytes : int
        On the disk.
    modified : float
        Seconds since 1970 at which the last of it was written.
    """

    path: str
    kind: str
    state: str
    backbone: str = ""
    node: str = ""
    fingerprint: str = ""
    rows: int | None = None
    failed: int | None = None
    n_features: int | None = None
    bytes: int = 0
    modified: float = 0.0

    @property
    def is_damaged(self) -> bool:
        """Whether it cannot be used."""
        return self.state.startswith("damaged")

    def to_dict(self) -> dict[str, Any]:
        """Return the item as JSON-ready builtins."""
        return dataclasses.asdict(self)


def list_folder(folder: str | os.PathLike[str]) -> list[CacheItem]:
    """List what lies in a folder and the folders in it, sorted by path; damage is listed, not raised.

    Parameters
    ----------
    folder : path
        Symbolic links in it are not followed.

    Raises
    ------
    UsageError
        If there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UsageError(f"{os.fspath(folder)!r}: no such folder")
    return sorted(_items(root), key=lambda item: item.path)


def is_row_cache(folder: Path) -> bool:
    """Whether a folder is one that `ImageFeatures(cache=...)` keeps for a spec."""
    return bool(_FINGERPRINT.fullmatch(folder.name)) and (folder / "journal").is_file()


def size_and_time(path: Path) -> tuple[int, float]:
    """Return the bytes of a file or of all files in a folder, and when the last of them was written."""
    size, latest = 0, 0.0
    for one in [path, *(path.iterdir() if path.is_dir() else [])]:
        try:
            found = one.lstat()
        except OSError:  # removed meanwhile by the run that owns it
            continue
        size += found.st_size if one.is_file() else 0
        latest = max(latest, found.st_mtime)
    return size, latest


def _items(root: Path) -> Iterator[CacheItem]:
    for at, folders, files in os.walk(root):
        here = Path(at)
        for name in sorted(folders):
            path = here / name
            if path.is_symlink() or not (name.endswith(PARTS) or is_row_cache(path)):
                continue
            folders.remove(name)
            yield _with_size(_run(path) if name.endswith(PARTS) else _rows(path), path, root)
        for name in files:
            path = here / name
            if path.is_symlink():
                continue
            if name.endswith(LEFT_OVER):
                is_written = is_held(Path(f"{str(path).removesuffix('.tmp')}{PARTS}") / "lock")
                yield _with_size(CacheItem("", TEMPORARY, RUNNING if is_written else "left over"), path, root)
            elif name.lower().endswith(ENDINGS) or _is_hdf5(path):
                yield _with_size(_file(path), path, root)


def _with_size(item: CacheItem, path: Path, root: Path) -> CacheItem:
    size, modified = size_and_time(path)
    return dataclasses.replace(item, path=path.relative_to(root).as_posix(), bytes=size, modified=modified)


def _file(path: Path) -> CacheItem:
    try:
        with FeatureFile.open(path) as file:
            spec, n_rows, n_samples = file.spec, file.n_rows, file.n_samples
    except StoreError as error:
        reason = str(error).removeprefix(f"{path}: ").partition(";")[0]
        return CacheItem("", FILE, f"damaged: {reason}")
    state = IMPORTED if spec.is_foreign else COMPLETE
    if path.with_name(path.name + PARTS).is_dir():
        state = _state_of_run(path) or state
    return _of_spec(
        CacheItem("", FILE, state, rows=n_rows, failed=n_samples - n_rows // spec.n_views, n_features=spec.n_features),
        spec,
    )


def _run(folder: Path) -> CacheItem:
    path = folder.with_name(folder.name.removesuffix(PARTS))
    run = parts.pending(path)
    item = CacheItem("", RUN, _state_of_run(path) or NOTHING_KEPT)
    if run is None:
        return item
    shards = ShardFolder(folder)
    shards.read_journal()
    n_rows, spec = sum(shard.rows for shard in shards.shards), run.header.spec
    failed = run.n_done - n_rows // spec.n_views
    return _of_spec(dataclasses.replace(item, rows=n_rows, failed=failed, n_features=spec.n_features), spec)


def _state_of_run(path: Path) -> str:
    """Return the state of the run beside a file; ``""`` where it keeps nothing and nobody works."""
    if is_held(path.with_name(path.name + PARTS) / "lock"):
        return RUNNING
    run = parts.pending(path)
    return "" if run is None else f"{run.n_left:,} left"


def _rows(folder: Path) -> CacheItem:
    shards = ShardFolder(folder)
    shards.read_journal()
    state = RUNNING if is_held(folder / "lock") else COMPLETE
    item = CacheItem("", ROWS, state, fingerprint=folder.name, rows=sum(s.rows for s in shards.shards), failed=0)
    spec = read_cache_spec(folder)
    return item if spec is None else dataclasses.replace(_of_spec(item, spec), n_features=spec.n_features)


def _of_spec(item: CacheItem, spec: FeatureSpec) -> CacheItem:
    return dataclasses.replace(item, backbone=spec.backbone, node=spec.node, fingerprint=spec.fingerprint)


def _is_hdf5(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_HDF5_START)) == _HDF5_START
    except OSError:
        return False
