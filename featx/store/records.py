"""What passes between the extraction and the store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OK = "ok"
FAILED = "failed"

REASONS = {
    "missing": "the file does not exist",
    "unreadable": "the file cannot be opened or read",
    "empty": "the file has no bytes",
    "truncated": "the image ends too early",
    "corrupt": "the image's data are damaged",
    "bomb": "more pixels than is safe to decode",
    "not-an-image": "no known image format",
    "out-of-window": "values without a black and white of their own; give --window LO,HI or --percentiles LO,HI",
    "unsupported": "an image of a kind that featx does not read",
    "name-not-utf8": "the file's name is not valid UTF-8",
    "symlink-loop": "the link leads back to itself",
    "timeout": "decoding took longer than --time-limit allows",
    "decoder-crash": "the process that decoded it died",
    "worker-crash": "the process that computed it died, each time anew",
    "not-finite": "the network gave NaN or infinite features",
}
"""Codes of a failed row; a ledger's reason is a code, or ``code: what the decoder said``."""


OF_THE_MACHINE = frozenset({"timeout", "decoder-crash"})
"""Codes that may have come from the machine, its load or its memory, as well as from the image."""


@dataclass(frozen=True)
class LedgerEntry:
    """The account of one sample.

    Attributes
    ----------
    key : str
        The sample.
    status : str
        ``"ok"`` or ``"failed"``.
    reason : str
        Why it failed (see `REASONS`); for a good row a note (``"png named .jpg"``), mostly ``""``.
    sha256 : str
        Of the file's bytes, 64 hex digits; for arrays of shape, dtype and pixels; ``""`` = not read.
    bytes, mtime_ns : int
        Size and modification time of the file when it was read; 0 for arrays. In a Parquet file they are that file's.
    format, mode : str
        Pillow's names (``"JPEG"``, ``"RGB"``), of the file as it is.
    width, height : int
        Pixels, of the file as it is.
    """

    key: str
    status: str
    reason: str = ""
    sha256: str = ""
    bytes: int = 0
    mtime_ns: int = 0
    format: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""


@dataclass(frozen=True)
class FeatureBatch:
    """The outcome of one batch: every sample exactly once, as a row or as a failure.

    Attributes
    ----------
    entries : list of LedgerEntry
        All samples of the batch in manifest order.
    features : float array (n_ok * n_views, n_features)
        The rows of each entry with status ``"ok"``, in the same order: for each sample one row for each view of the
        spec, one after the other.
    logits : float array (n_ok * n_views, n_source_classes), or None
        The network's own class scores, where asked for.
    """

    entries: list[LedgerEntry]
    features: NDArray[np.floating]
    logits: NDArray[np.floating] | None = None


@dataclass(frozen=True)
class RunReport:
    """What `ExtractionRun.finish` did.

    Attributes
    ----------
    n_samples, n_rows, n_failed : int
        Of the finished file: samples, rows (one for each view of each good sample), and samples without a row.
    n_new : int
        Samples that were appended since the file was last finished.
    n_vanished : int
        Samples that were stored and are no longer in the manifest.
    written : bool
        False: the file said all of this already and was left alone.
    n_locked : int
        Samples of the file that are kept for the last test.
    """

    n_samples: int
    n_rows: int
    n_failed: int
    n_new: int
    n_vanished: int
    written: bool
    n_locked: int = 0
