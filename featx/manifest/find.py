"""What lies at SOURCE: a file, a folder, or the files that a pattern names; on this machine or behind a URL."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from featx.errors import ManifestError
from featx.manifest import files
from featx.manifest.folder import walk

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST = 1_000_000


@dataclass(frozen=True)
class Found:
    """A source before it is known what kind it is.

    Attributes
    ----------
    text : str
        As the user wrote it.
    form : str
        ``"file"``, ``"folder"`` or ``"pattern"``.
    root : str
        The folder, or its URL, below which the names are.
    given : tuple of str
        The names of a file or a pattern's files; a folder is listed when its `names` are asked for.
    """

    text: str
    form: str
    root: str
    given: tuple[str, ...] = ()

    @cached_property
    def names(self) -> list[tuple[str, str]]:
        """Each file's path below the root, and the reason why it cannot be read, or ``""``."""
        if self.form != "folder":
            return [(name, "") for name in self.given]
        if not files.is_url(self.root):
            return list(walk(self.root))
        from featx.manifest import remote

        try:
            return [(name, "") for name in remote.list_files(self.root)]
        except OSError as error:
            raise _unreadable(self.root, error) from error

    @property
    def is_remote(self) -> bool:
        """Whether it is behind a URL."""
        return files.is_url(self.root)

    def with_suffix(self, suffix: str) -> list[str]:
        """Return the names with an extension, sorted."""
        return sorted(name for name, reason in self.names if not reason and files.suffix_of(name) == suffix)


def look(source: str | os.PathLike[str]) -> Found:
    """Find out what lies at a path, a URL or a pattern.

    A pattern holds ``*``, ``?``, ``[...]``, ``{a,b}`` or ``{000..012}``; a file or folder that is really called so goes
    before it.

    Raises
    ------
    ManifestError
        If there is nothing, or it cannot be looked at.
    MissingExtraError, UsageError
        If it is a URL that cannot be read here.
    """
    text = os.fspath(source)
    if not text:
        raise ManifestError("no such file or folder", path="''")
    if files.is_url(text):
        return _look_remote(text)
    path = Path(text)
    try:
        is_folder = path.is_dir()
    except OSError as error:
        raise _unreadable(text, error) from error
    if is_folder:
        return Found(text, "folder", str(path))
    if os.path.lexists(path):
        return Found(text, "file", str(path.parent), (path.name,))
    return _look_at_pattern(text)


def _look_remote(url: str) -> Found:
    from featx.manifest import remote

    if _is_pattern(url):
        return _look_at_pattern(url)
    folder, _, name = url.rstrip("/").rpartition("/")
    is_web = url.partition("://")[0].lower() in remote.HTTP
    if is_web and files.suffix_of(urlsplit(url).path.rstrip("/")):  # there are no folders, only pages that list files
        remote.filesystem(url)
        return Found(url, "file", folder, (name,))
    try:
        is_folder = remote.is_folder(url)
    except FileNotFoundError:
        is_folder = None
    except OSError as error:
        raise _unreadable(url, error) from error
    if is_folder is None:
        raise ManifestError("no such file or folder", path=url)
    return Found(url, "folder", url.rstrip("/")) if is_folder else Found(url, "file", folder, (name,))


def _look_at_pattern(text: str) -> Found:
    if not _is_pattern(text):
        raise ManifestError("no such file or folder", path=text)
    found: dict[str, None] = {}
    for one in expand_braces(text):
        fitting = _matches(one) if _is_glob(one) else [one] if _exists(one) else []
        if not fitting and not _is_glob(one):
            raise ManifestError(f"no such file: {one}", path=text)
        found |= dict.fromkeys(fitting)
    if not found:
        raise ManifestError("no file fits this pattern", path=text)
    folders = [name.rpartition("/")[0].split("/") for name in found]
    common = "/".join(os.path.commonprefix(folders))  # noqa: RUF071  # of lists, part by part
    start = len(common) + 1 if common or text.startswith("/") else 0
    root = common or ("/" if start else ".")
    return Found(text, "pattern", root, tuple(sorted(name[start:] for name in found)))


def expand_braces(text: str) -> list[str]:
    """Return the texts that ``{a,b}`` and ``{000..012}`` in a text stand for; other braces stay as they are."""
    whole = [""]
    rest = text
    while match := _BRACES.search(rest):
        before, inside, rest = rest[: match.start()], match[1], rest[match.end() :]
        numbers = _RANGE.fullmatch(inside)
        if numbers:
            first, last = int(numbers[1]), int(numbers[2])
            width = max(map(len, numbers.groups())) if any(n.startswith("0") for n in numbers.groups()) else 0
            if abs(last - first) >= _MOST:
                raise ManifestError(f"{{{inside}}} stands for too many files", path=text)
            step = 1 if last >= first else -1
            choices = [f"{number:0{width}d}" for number in range(first, last + step, step)]
        else:
            choices = inside.split(",") if "," in inside else [f"{{{inside}}}"]
        if len(whole) * len(choices) > _MOST:
            raise ManifestError("this pattern stands for too many files", path=text)
        whole = [f"{start}{before}{choice}" for start in whole for choice in choices]
    return [f"{start}{rest}" for start in whole]


def _is_pattern(text: str) -> bool:
    return _is_glob(text) or any("," in inside or _RANGE.fullmatch(inside) for inside in _BRACES.findall(text))


def _is_glob(text: str) -> bool:
    # In the address of a web page "?" begins the query.
    return any(sign in text for sign in ("*[" if text.lower().startswith("http") else "*?["))


def _matches(pattern: str) -> list[str]:
    if not files.is_url(pattern):
        return sorted(name for name in glob.glob(pattern, recursive=True) if Path(name).is_file())  # noqa: PTH207
    from featx.manifest import remote

    try:
        return remote.list_matches(pattern)
    except OSError as error:
        raise _unreadable(pattern, error) from error


def _exists(path: str) -> bool:
    if not files.is_url(path):
        return os.path.lexists(path)
    from featx.manifest import remote

    remote.filesystem(path)
    return True  # each would be a request; one that is missing is named when it is read


def _unreadable(path: str, error: OSError) -> ManifestError:
    return ManifestError(f"cannot look at it: {files.said(error)}", path=path)
