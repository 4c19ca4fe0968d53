"""Finished searches of a fit, kept so that one that was interrupted can go on.

One line of JSON for each search, with a checksum, keyed by all that its result depends on: features, labels, folds,
what is chosen from, and the versions of the libraries that compute. A line that is torn, or of another fit, is as good
as none.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy
import sklearn
from numpy.typing import NDArray

from featx.errors import StoreWriteError
from featx.version import __version__

if TYPE_CHECKING:
    from featx.learn.search import Job, Space


RECORD = 2
"""What is written of a search: a ledger that holds less, of an earlier featx, is as good as none."""


@dataclass(frozen=True)
class SearchKeys:
    """Names the searches of one set of features and one space.

    Attributes
    ----------
    digest : str
        Of features, labels, space and versions.
    """

    digest: str

    @classmethod
    def of(cls, X: NDArray[np.float64], y: NDArray[Any], space: Space) -> SearchKeys:
        """Digest what all searches depend on."""
        found = hashlib.sha256(np.ascontiguousarray(X).data)
        versions = (RECORD, __version__, np.__version__, scipy.__version__, sklearn.__version__)
        found.update(json.dumps([X.shape, y.tolist(), asdict(space), versions]).encode())
        return cls(found.hexdigest())

    def key(self, job: Job, scaling: str) -> str:
        """Return the name of a job's search with one scaling."""
        found = hashlib.sha256(f"{self.digest} {job.name} {scaling}".encode())
        for rows in (rows for fold in job.inner for rows in fold):
            found.update(np.ascontiguousarray(rows, dtype=np.int64).data)
            found.update(b"/")
        return found.hexdigest()


class SearchLedger:
    """A file of finished searches.

    Parameters
    ----------
    path : Path
    resume : bool
        Whether the searches that are in it are taken up, or forgotten.

    Attributes
    ----------
    n_kept : int
        Searches that were in it, of whatever fit.
    n_found : int
        Those of them that were taken up.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path = path
        self.resume = resume
        kept = dict(_read(path))
        self.n_kept, self.n_found = len(kept), 0
        self._found = kept if resume else {}
        if not resume:
            path.unlink(missing_ok=True)

    def find(self, key: str) -> Any:
        """Return what was added under a key, or None."""
        found = self._found.get(key)
        self.n_found += found is not None
        return found

    def add(self, key: str, result: Any) -> None:
        """Write down a finished search (lists, dicts, numbers and words).

        Raises
        ------
        StoreWriteError
            If the file cannot be written.
        """
        text = json.dumps([key, result])
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{zlib.crc32(text.encode()):08x} {text}\n")
        except OSError as error:
            raise StoreWriteError(
                f"finished searches cannot be written ({error.strerror})", path=str(self.path), errno=error.errno
            ) from error

    def remove(self) -> None:
        """Remove the file: the fit is done."""
        self.path.unlink(missing_ok=True)


def _read(path: Path) -> Iterable[tuple[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        checksum, _, text = line.partition(" ")
        if checksum == f"{zlib.crc32(text.encode()):08x}":
            key, result = json.loads(text)
            yield key, result
