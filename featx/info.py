"""The stage behind ``featx info``: what is in a feature file or a bundle. Loads h5py at most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from featx.errors import StoreError
from featx.store import parts
from featx.store.file import FeatureFile
from featx.store.records import OK


def describe(path: str | Path) -> dict[str, Any]:
    """Describe a feature file: spec, counts, size, whether it is complete, what a killed run left.

    Parameters
    ----------
    path : path-like
        The feature file; it need not exist yet while the first run is under way.

    Returns
    -------
    dict
        JSON-ready: ``path, complete, bytes, rows, samples, n_features, fingerprint, spec, made_with,
        group_source, counts`` (``class``, ``group``, ``split``, ``status``: name to samples),
        ``failures`` (key to reason), ``locked`` (``n, date, how, looks`` or None), ``pending`` (``samples, done, left``
        or None).

    Raises
    ------
    StoreError
        If there is no such file and no unfinished run of it, or it cannot be read.
    """
    path = Path(path)
    if not path.name:
        raise StoreError("this is no file's name", path=repr(str(path)))
    run = parts.pending(path)
    left = None if run is None else {"samples": run.header.n_samples, "done": run.n_done, "left": run.n_left}
    if not path.exists():
        if run is None:
            raise StoreError("no such feature file", path=str(path))
        return {"path": str(path), "complete": False, "fingerprint": run.header.spec.fingerprint,
                "spec": run.header.spec.to_dict(), "pending": left}  # fmt: skip
    with FeatureFile.open(path) as file:
        ledger = file.ledger()
        locked = file.locked()
        return {
            "path": str(path),
            "complete": run is None,
            "bytes": path.stat().st_size,
            "rows": file.n_rows,
            "samples": file.n_samples,
            "n_features": file.spec.n_features,
            "fingerprint": file.fingerprint,
            "spec": file.spec.to_dict(),
            "made_with": file.made_with,
            "group_source": file.group_source,
            "counts": {
                "class": _count(ledger.label),
                "group": _count(ledger.group),
                "split": _count(ledger.split),
                "status": _count(ledger.status),
            },
            "failures": {
                key: reason
                for key, status, reason in zip(ledger.key, ledger.status, ledger.reason, strict=True)
                if status != OK
            },
            "locked": None
            if locked is None
            else {
                "n": len(locked.keys.intersection(ledger.key)),
                "date": locked.date,
                "how": locked.how,
                "looks": [asdict(look) for look in locked.looks],
            },
            "pending": left,
        }


def _count(names: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))
