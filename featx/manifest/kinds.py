"""The kinds of source, each with how it is recognised, how it is read, and which options have a meaning for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from featx.errors import ManifestError
from featx.manifest import files, table, webdataset
from featx.manifest.cifar import is_cifar, read_cifar
from featx.manifest.columns import Columns
from featx.manifest.find import Found
from featx.manifest.folder import EXTENSIONS, read_image_file, read_listed
from featx.manifest.record import Manifest

if TYPE_CHECKING:
    from featx.manifest.source import SourceOptions

ROLES = ("path", "label", "group", "split", "fold")
_COLUMNS = frozenset(f"{role}_column" for role in ROLES)
PARQUET = ".parquet"


@dataclass(frozen=True)
class Kind:
    """A kind of source.

    Attributes
    ----------
    name : str
        As a message calls it.
    recognises : callable
        Whether what was found is of this kind.
    read : callable
        Gives its manifest.
    options : frozenset of str
        The options that have a meaning for it, beside those that always have.
    """

    name: str
    recognises: Callable[[Found], bool]
    read: Callable[[Found, SourceOptions], Manifest]
    options: frozenset[str] = frozenset()


def kind_of(found: Found) -> Kind:
    """Return the kind of what was found at SOURCE.

    Raises
    ------
    ManifestError
        If it is none; a compressed tar file is told what to do.
    """
    for kind in KINDS:
        if kind.recognises(found):
            return kind
    compressed = [name for name, _ in found.names if name.lower().endswith(webdataset.COMPRESSED)]
    if compressed:
        raise ManifestError(
            f"{compressed[0]} is a compressed tar file, in which no image can be found without reading all before it; "
            "unpack it to a plain .tar (images in it do not get larger)",
            path=found.text,
        )
    if found.form == "folder":
        return _FOLDER  # which says what it expects
    if found.form == "pattern":
        raise ManifestError("a pattern must fit .tar files or .parquet files, of one kind", path=found.text)
    raise ManifestError(
        "neither a folder nor a table (.csv, .tsv, .parquet) nor an image nor a .tar file", path=found.text
    )


def _is_cifar(found: Found) -> bool:
    return found.form == "folder" and not found.is_remote and is_cifar(Path(found.root))


def _holds_images(found: Found) -> bool:
    return found.form == "folder" and any(reason or files.suffix_of(name) in EXTENSIONS for name, reason in found.names)


def _all_are(suffix: str) -> Callable[[Found], bool]:
    """Return a test for files of an extension: a folder may hold others beside them."""

    def test(found: Found) -> bool:
        n = len(found.with_suffix(suffix))
        return n > 0 and (found.form == "folder" or n == len(found.names))

    return test


def _is_table(found: Found) -> bool:
    return found.form == "file" and files.suffix_of(found.given[0]) in table.EXTENSIONS


def _is_image(found: Found) -> bool:
    return found.form == "file" and files.suffix_of(found.given[0]) in (*EXTENSIONS, "")


def _columns(options: SourceOptions) -> Columns:
    return Columns(**{role: getattr(options, f"{role}_column") for role in ROLES})


def _read_cifar(found: Found, _options: SourceOptions) -> Manifest:
    return read_cifar(Path(found.root))


def _read_folder(found: Found, options: SourceOptions) -> Manifest:
    return read_listed(found.root, found.names, layout=options.layout)


def _read_shards(found: Found, options: SourceOptions) -> Manifest:
    names = found.with_suffix(webdataset.SUFFIX)
    return webdataset.read_shards(found.root, names, wanted=_columns(options), layout=options.layout)


def _read_parquet(found: Found, options: SourceOptions) -> Manifest:
    from featx.manifest import parquet

    _check_root(options)
    names = found.with_suffix(PARQUET)
    return parquet.read_parquet(
        found.root, names, wanted=_columns(options), layout=options.layout, paths_below=options.root
    )


def _read_table(found: Found, options: SourceOptions) -> Manifest:
    _check_root(options)
    where = found.text if found.is_remote else str(Path(found.text))
    return table.read_table(where, root=options.root, columns=_columns(options))


def _read_image(found: Found, _options: SourceOptions) -> Manifest:
    return read_image_file(found.root, found.given[0])


def _check_root(options: SourceOptions) -> None:
    if options.root is not None and not files.is_url(options.root) and not Path(options.root).is_dir():
        raise ManifestError("--root: no such folder", path=options.root)


_FOLDER = Kind("a folder", _holds_images, _read_folder, frozenset({"layout", "frames"}))
KINDS = (
    Kind("CIFAR-10's batches", _is_cifar, _read_cifar),
    _FOLDER,
    Kind("tar shards", _all_are(webdataset.SUFFIX), _read_shards, _COLUMNS | {"layout", "frames"}),
    Kind("Parquet files", _all_are(PARQUET), _read_parquet, _COLUMNS | {"layout", "root", "frames"}),
    Kind("a table", _is_table, _read_table, _COLUMNS | {"root", "frames"}),
    Kind("a single image", _is_image, _read_image, frozenset({"frames"})),
)
"""In the order in which they are tried."""
