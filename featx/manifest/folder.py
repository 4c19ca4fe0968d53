"""A folder of images, or one image file, as a manifest.

Files with the extension of an image format that featx reads are samples, whatever they hold; others are counted as
skipped. Names that begin with a dot, and ``__MACOSX``, are not looked at.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from featx.errors import ManifestError, UnknownNameError
from featx.manifest.columns import TextColumn
from featx.manifest.files import suffix_of
from featx.manifest.record import SPLITS, Manifest, PathsBelow

EXTENSIONS = frozenset(
    (
        ".apng",
        ".avif",
        ".avifs",
        ".bmp",
        ".dcm",
        ".dicom",
        ".gif",
        ".heic",
        ".heif",
        ".ico",
        ".ima",
        ".j2c",
        ".j2k",
        ".jfif",
        ".jp2",
        ".jpc",
        ".jpe",
        ".jpeg",
        ".jpf",
        ".jpg",
        ".jpx",
        ".mpo",
        ".pbm",
        ".pcx",
        ".pfm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".qoi",
        ".rgb",
        ".rgba",
        ".sgi",
        ".bw",
        ".tif",
        ".tiff",
        ".webp",
    )
)
"""Lower-case extensions of samples."""

LAYOUTS = ("auto", "classes", "splits", "flat")


def read_folder(folder: Path, *, layout: str = "auto") -> Manifest:
    """List the images of a folder, sorted by key; see `read_listed`."""
    return read_listed(str(folder), walk(str(folder)), layout=layout)


def read_listed(root: str, names: Iterable[tuple[str, str]], *, layout: str = "auto") -> Manifest:
    """Return the images of a folder that was listed, sorted by key.

    Parameters
    ----------
    root : str
        The folder, or its URL.
    names : iterable of (str, str)
        Each file's path below the folder, and the reason why it cannot be read (``""``: it can); see `walk`.
    layout : str
        ``"classes"``: the first folder is the label. ``"splits"``: the first folder is the split (train, val, valid,
        validation, dev or test, in any case), the second the label. ``"flat"``: neither. ``"auto"``: splits if every
        top folder that holds images is named like one, classes if there are others, flat if there are none.

    Returns
    -------
    Manifest
        A link that leads back to itself or to a folder around it, and a name that is not UTF-8, are in `refused`.

    Raises
    ------
    ManifestError
        If there is no image, or a folder cannot be listed, or ``layout="splits"`` and a top folder has another name.
    """
    _check_layout(layout)
    found: list[str] = []
    reasons: dict[str, str] = {}
    skipped: Counter[str] = Counter()
    for key, reason in names:
        extension = suffix_of(key)
        if reason or extension in EXTENSIONS:
            found.append(key)
            if reason:
                reasons[key] = reason
        else:
            skipped[extension] += 1
    if not found:
        others = f" ({sum(skipped.values())} other files)" if skipped else ""
        raise ManifestError(f"no images in this folder{others}; expected files like .jpg, .png, .tif", path=root)
    return _as_manifest(root, found, layout, reasons, skipped)


def read_image_file(root: str, name: str) -> Manifest:
    """Return a manifest of this one file in a folder; its key is its name."""
    return _as_manifest(root, [name], "flat", {}, Counter())


def labels_and_splits(keys: Sequence[str], layout: str, *, root: str) -> tuple[list[str], list[str]]:
    """Return what the folders in the keys say, by the rules of `read_listed`: a label and a split for each key.

    Raises
    ------
    ManifestError, UnknownNameError
        As `read_listed`.
    """
    _check_layout(layout)
    top = {key.split("/", 1)[0] for key in keys if "/" in key}
    if layout == "auto":
        layout = "flat" if not top else "splits" if all(name.lower() in SPLITS for name in top) else "classes"
    elif layout == "splits" and (others := sorted(name for name in top if name.lower() not in SPLITS)):
        raise ManifestError(f"{others[0]!r} is not a split; expected {', '.join(SPLITS)}", path=root)
    labels, splits = TextColumn(), []
    for key in keys:
        folders = key.split("/")[:-1]
        splits.append(SPLITS[folders.pop(0).lower()] if layout == "splits" and folders else "")
        labels.add(folders[0] if layout != "flat" and folders else "")
    return labels.values, splits


def _as_manifest(root: str, names: list[str], layout: str, reasons: dict[str, str], skipped: Counter[str]) -> Manifest:
    keys = sorted(map(utf8, names))
    raw = {key: name for key, name in zip(map(utf8, names), names, strict=True) if key != name}
    if raw and len(set(keys)) != len(keys):
        twice = next(key for key, n in Counter(keys).items() if n > 1)
        raise ManifestError(f"two files whose names read {twice!r} once what is not UTF-8 is escaped", path=root)
    labels, splits = labels_and_splits(keys, layout, root=root)
    refused = {utf8(name): reason for name, reason in reasons.items()}
    refused = dict.fromkeys(raw, "name-not-utf8") | refused
    special = {position: key for position, key in enumerate(keys) if key in refused} if refused else {}
    nothing = [""] * len(keys)
    return Manifest(
        root=root,
        keys=keys,
        paths=PathsBelow(root, keys, {at: f"{root}/{raw[key]}" for at, key in special.items() if key in raw}),
        labels=labels,
        groups=nothing,
        splits=splits,
        folds=list(nothing),
        refused={at: refused[key] for at, key in special.items()},
        skipped=dict(sorted(skipped.items())),
    )


def _check_layout(layout: str) -> None:
    if layout not in LAYOUTS:
        raise UnknownNameError("layout", layout, LAYOUTS)


def walk(root: str) -> Iterator[tuple[str, str]]:
    """Yield (path below the root, reason): every visible file, and every link that leads back to itself."""
    # Folders to do: path below the root, and the identities of the folder and of all that it is in.
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", (_identity(root),))]
    while pending:
        below, chain = pending.pop()
        folder = f"{root}/{below}"
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = entry.name
                    if name.startswith(".") or name == "__MACOSX":
                        continue
                    key = below + name
                    try:
                        is_folder = entry.is_dir()
                    except OSError as error:
                        yield key, "symlink-loop" if error.errno == errno.ELOOP else "unreadable"
                        continue
                    if not is_folder:
                        yield key, ""
                        continue
                    identity = _identity(entry.path)
                    if identity in chain:
                        yield key, "symlink-loop"
                    else:
                        pending.append((f"{key}/", (*chain, identity)))
        except OSError as error:
            raise ManifestError(f"cannot list this folder: {error.strerror}", path=folder) from error


def _identity(folder: str) -> tuple[int, int]:
    found = Path(folder).stat()
    return found.st_dev, found.st_ino


def utf8(name: str) -> str:
    r"""Return a file's name as valid UTF-8, other bytes written as ``\xff``."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
