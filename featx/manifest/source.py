"""The one door to samples: a folder, a table, CIFAR-10's batches, a file, or Python's own lists."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import re
import stat as stat_module
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from featx.errors import ImageDecodeError, ManifestError, UsageError
from featx.manifest.folder import EXTENSIONS, read_folder, read_image_file
from featx.manifest.record import Manifest


@dataclass(frozen=True)
class SourceOptions:
    """How a source is read.

    Attributes
    ----------
    layout : str
        Of a folder: ``"auto"``, ``"classes"``, ``"splits"`` or ``"flat"``; see `featx.manifest.folder`.
    root : str or None
        Of a table: the folder to which its paths are relative; None: the table's own.
    path_column, label_column, group_column, split_column, fold_column : str
        Names of a table's columns. All but `path_column` may be absent, unless they are named here.
    group_regex : str or None
        Searched in every key; its first capture group is the group, ``""`` where it does not match. It takes the place
        of a table's group column, which is then kept as meta.
    limit : int or None
        Keep so many samples, spread over the manifest: every class of every split in proportion, and at least once where
        the limit allows.
    """

    layout: str = "auto"
    root: str | None = None
    path_column: str = "path"
    label_column: str = "label"
    group_column: str = "group"
    split_column: str = "split"
    fold_column: str = "fold"
    group_regex: str | None = None
    limit: int | None = None


def read_source(source: str | os.PathLike[str], options: SourceOptions = SourceOptions()) -> Manifest:  # noqa: B008
    """List the samples of a folder, a CSV or TSV table, a folder of CIFAR-10's batches, or one image file.

    Raises
    ------
    ManifestError
        If the source does not exist, holds no sample, or cannot be understood (with the line of a table).
    UsageError
        If the options do not fit together or do not fit this kind of source.
    """
    path = Path(source)
    if path.is_dir():
        manifest = read_folder(path, layout=options.layout)
    elif path.exists():
        manifest = read_image_file(path)
    else:
        raise ManifestError("no such file or folder", path=str(source))
    return manifest


def read_bytes(manifest: Manifest, position: int) -> bytes:
    """Read the file of a sample.

    Raises
    ------
    ImageDecodeError
        With the key and the reason ``"missing"``, ``"unreadable"``, ``"empty"``, ``"symlink-loop"`` or
        ``"name-not-utf8"``.
    """
    key, path = manifest.keys[position], manifest.paths[position]
    if position in manifest.refused:
        raise ImageDecodeError(manifest.refused[position], key=key)
    try:
        if not stat_module.S_ISREG(os.stat(path).st_mode):  # reading from a pipe might never end
            raise ImageDecodeError("unreadable", "not a regular file", key=key)
        data = Path(path).read_bytes()
    except OSError as error:
        reason = {errno.ENOENT: "missing", errno.ENOTDIR: "missing", errno.ELOOP: "symlink-loop"}
        code = reason.get(error.errno or 0, "unreadable")
        raise ImageDecodeError(code, "" if code != "unreadable" else error.strerror or "", key=key) from error
    if not data:
        raise ImageDecodeError("empty", key=key)
    return data
