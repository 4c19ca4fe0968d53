"""The errors that featx raises: one tree, so that ``except FeatxError`` catches them all.

Each error also inherits the builtin that a Python user would catch, carries the facts as
attributes, and knows the exit code with which the command line ends::

    FeatxError                      1
    ├── UsageError                  2   ValueError   options that do not go together
    │   ├── UnknownNameError        2   LookupError  a backbone, head, node ... that does not exist
    │   └── DeviceMemoryError       2   MemoryError  a batch that is too large for its device (device, batch)
    ├── DeviceError                 1   RuntimeError a device that failed (device)
    ├── MissingExtraError           3   ImportError  an optional dependency is not installed
    ├── InputError                  4   ValueError   what was given to read is not usable
    │   ├── ManifestError           4                a source or table that cannot be read (path, line)
    │   ├── ImageDecodeError        4                one image (key, reason)
    │   └── LabelsError             4                labels or groups that cannot be cross-validated
    ├── StoreError                  5   OSError      a feature file
    │   ├── StoreFormatError        5                not HDF5, truncated, a newer format
    │   ├── SpecMismatchError       5                made by another spec (differences)
    │   ├── StoreIncompleteError    5                a run that was stopped, or rows that failed
    │   ├── MergeConflictError      5                files that say different things of one sample (conflicts)
    │   ├── StoreLockedError        5                another process is writing it (pid, host)
    │   └── StoreWriteError         5                disk full, read-only folder
    ├── BundleError                 6   ValueError   a .featx file
    └── WeightsError                7   OSError      weights that are missing, wrong or not to be had

Exit codes without an error of their own: 8 = finished with failed rows, 130 = Ctrl-C,
143 = SIGTERM.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

EXIT_FAILED_ROWS = 8
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class FeatxError(Exception):
    """Root of every error that featx raises on purpose.

    Parameters
    ----------
    message : str
        What went wrong, which one, what was expected, and what to do next.

    Attributes
    ----------
    exit_code : int
        The code with which the command line ends.
    """

    exit_code = 1


class UsageError(FeatxError, ValueError):
    """Options that do not go together, or a value outside of what an option takes."""

    exit_code = 2


class UnknownNameError(UsageError, LookupError):
    """A name that featx does not know; the message lists close matches.

    Attributes
    ----------
    kind : str
        What was looked up: ``"backbone"``, ``"head"``, ``"node"`` ...
    name : str
        The name that was asked for.
    matches : list of str
        Known names that look like it, best first; may be empty.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str = "") -> None:
        self.kind = kind
        self.name = name
        known = sorted(known)
        self.matches = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
        message = f"unknown {kind} {name!r}"
        if self.matches:
            message += f"; did you mean {', '.join(self.matches)}?"
        elif 0 < len(known) <= 12:
            message += f"; known: {', '.join(known)}"
        if hint:
            message += f"\n{hint}"
        super().__init__(message)


class DeviceMemoryError(UsageError, MemoryError):
    """A batch for which a device has too little memory.

    Attributes
    ----------
    device : str
        Which device.
    batch : int
        How many images there were in the batch.
    """

    def __init__(self, *, device: str, batch: int) -> None:
        self.device = device
        self.batch = batch
        images = f"{batch} images at once" if batch > 1 else "even one image"
        advice = "take a smaller --batch-size" if batch > 1 else "take another --device or a smaller --backbone"
        super().__init__(f"device {device} has too little memory for {images}; {advice}")


class DeviceError(FeatxError, RuntimeError):
    """A device that failed while it computed.

    Attributes
    ----------
    device : str
        Which device.
    """

    def __init__(self, message: str, *, device: str) -> None:
        self.device = device
        super().__init__(f"device {device} failed: {message}")


class MissingExtraError(FeatxError, ImportError):
    """An optional dependency is not installed; the message names the extra.

    Attributes
    ----------
    extra : str
        The extra that brings it, as in ``pip install 'featx[extra]'``.
    """

    exit_code = 3

    def __init__(self, what: str, extra: str) -> None:
        self.extra = extra
        super().__init__(f"{what} needs an optional dependency: pip install 'featx[{extra}]'")


class InputError(FeatxError, ValueError):
    """What was given to read is not usable."""

    exit_code = 4


class ManifestError(InputError):
    """A source or table that cannot be read as a list of samples.

    Attributes
    ----------
    path : str
        The folder or table.
    line : int or None
        1-based line of the table, where there is one.
    """

    def __init__(self, message: str, *, path: str, line: int | None = None) -> None:
        self.path = path
        self.line = line
        where = f"{path}, line {line}" if line is not None else path
        super().__init__(f"{where}: {message}")


class ImageDecodeError(InputError):
    """One image that cannot be turned into pixels.

    Attributes
    ----------
    key : str
        The sample, or ``""`` while only its bytes are known.
    reason : str
        One of the codes in `featx.store.records.REASONS`.
    detail : str
        What the decoder said.
    missing : str
        What this machine lacks for this kind of file; ``""`` where the file itself is at fault.
    """

    def __init__(self, reason: str, detail: str = "", *, key: str = "", missing: str = "") -> None:
        self.reason = reason
        self.detail = detail
        self.key = key
        self.missing = missing
        what = f"{reason}: {detail}" if detail else reason
        super().__init__(f"{key}: {what}" if key else what)


class LabelsError(InputError):
    """Labels, groups or folds with which the asked-for evaluation cannot be done."""


class StoreError(FeatxError, OSError):
    """A feature file that cannot be used or written.

    Attributes
    ----------
    path : str
        The feature file.
    """

    exit_code = 5

    def __init__(self, message: str, *, path: str) -> None:
        self.path = path
        super().__init__(f"{path}: {message}")

    def __str__(self) -> str:
        return str(self.args[0])


class StoreFormatError(StoreError):
    """Not an HDF5 file, truncated, not featx's, or of a newer format."""


class SpecMismatchError(StoreError):
    """The file was made by another spec.

    Attributes
    ----------
    differences : dict of str to (object, object)
        Only the fields that differ: what the file has, what was asked for.
    """

    def __init__(self, differences: Mapping[str, tuple[Any, Any]], *, path: str, hint: str = "") -> None:
        self.differences = dict(differences)
        lines = [f"  {name}: file has {old}, asked for {new}" for name, (old, new) in self.differences.items()]
        message = "these features were made in another way:\n" + "\n".join(lines)
        super().__init__(message + (f"\n{hint}" if hint else ""), path=path)


class MergeConflictError(StoreError):
    """Files that are to become one say different things of the same samples.

    Attributes
    ----------
    conflicts : dict of str to (dict of str to (str, str))
        Key to the fields that differ: what the earlier file says, what the later one.
    """

    def __init__(self, conflicts: Mapping[str, Mapping[str, tuple[str, str]]], *, path: str) -> None:
        self.conflicts = {key: dict(fields) for key, fields in conflicts.items()}
        lines = [
            f"  {key}: " + ", ".join(f"{name} {one!r} and {other!r}" for name, (one, other) in fields.items())
            for key, fields in self.conflicts.items()
        ]
        super().__init__(
            f"not written, because the files say different things of {len(lines):,} samples:\n"
            + "\n".join(lines)
            + "\nmend one of them, or say which one is right with --prefer first or --prefer last",
            path=path,
        )


class StoreIncompleteError(StoreError):
    """An extraction that was stopped before it finished, or a file with failed rows.

    Attributes
    ----------
    missing : int
        How many samples have no features.
    """

    def __init__(self, message: str, *, path: str, missing: int) -> None:
        self.missing = missing
        super().__init__(message, path=path)


class StoreLockedError(StoreError):
    """Another process is writing the file.

    Attributes
    ----------
    owner : str
        Pid and host of the writer, as it wrote them.
    """

    def __init__(self, *, path: str, owner: str) -> None:
        self.owner = owner
        super().__init__(f"another process is writing this file ({owner}); wait for it or stop it", path=path)


class StoreWriteError(StoreError):
    """The file system refused a write: disk full, quota, read-only.

    Attributes
    ----------
    errno : int or None
        The operating system's error number.
    """

    def __init__(self, message: str, *, path: str, errno: int | None = None) -> None:
        super().__init__(message, path=path)
        self.errno = errno


class BundleError(FeatxError, ValueError):
    """A ``.featx`` file that cannot be loaded, or must not be.

    Attributes
    ----------
    path : str
        The bundle.
    """

    exit_code = 6

    def __init__(self, message: str, *, path: str) -> None:
        self.path = path
        super().__init__(f"{path}: {message}")


class WeightsError(FeatxError, OSError):
    """Weights that are missing, do not fit the network, or cannot be downloaded.

    Attributes
    ----------
    weights : str
        What was asked for: an enum member, or a file.
    """

    exit_code = 7

    def __init__(self, message: str, *, weights: str) -> None:
        self.weights = weights
        super().__init__(message)
