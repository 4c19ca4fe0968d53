"""Files behind URLs, through fsspec (an optional dependency, imported here alone and only for a URL).

Which schemes there are is fsspec's matter: ``s3://``, ``gs://``, ``https://``, ``file://``, ``memory://`` and what else
is installed. Their clients have errors of their own; here all of them become OSError.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, BinaryIO, cast

from featx.errors import MissingExtraError, UsageError

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
"""The extra that brings a scheme's client, where it is not ``remote`` itself."""
HTTP = ("http", "https")

_CONNECT_SECONDS, _SILENCE_SECONDS = 10.0, 60.0
_STAT_SECONDS = 10.0
_CLIENT_ERRORS = (
    ("aiohttp", "ClientError"),
    ("aiohttp", "InvalidURL"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("requests", "RequestException"),
)
_TIMES = ("mtime", "LastModified", "updated", "Last-Modified", "created")


def filesystem(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, and what the URL is called there.

    Raises
    ------
    MissingExtraError
        If fsspec, or its client for this scheme, is not installed.
    UsageError
        If there is no such scheme, or fsspec cannot understand the URL.
    """
    scheme = url.partition("://")[0].lower()
    try:
        import fsspec.core

        options = {"client_kwargs": {"timeout": _http_timeout()}} if scheme in HTTP else {}
        found, path = fsspec.core.url_to_fs(f"{scheme}{url[len(scheme) :]}", **options)
    except ImportError as error:
        if scheme not in EXTRAS and scheme not in (*HTTP, "file", "memory"):
            raise UsageError(f"{scheme}:// needs a package that is not installed: {error}") from error
        raise MissingExtraError(f"reading {scheme}://", EXTRAS.get(scheme, "remote")) from error
    except (ValueError, TypeError) as error:
        raise UsageError(f"{url!r} cannot be read: {error}") from error
    return found, str(path)


def read(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """Read a file, or the bytes from `start` to before `end`."""
    found, path = filesystem(url)
    with _only_os_errors():
        return cast(bytes, found.cat_file(path, start=start, end=end))


def open_file(url: str) -> BinaryIO:
    """Open a file for reading at any place in it; only the parts that are read are fetched."""
    found, path = filesystem(url)
    with _only_os_errors():
        file = found.open(path, "rb", block_size=1 << 18)
    if not file.seekable():
        file.close()
        raise OSError("its server does not give parts of a file; download it first")
    return cast(BinaryIO, _Guarded(file))


def stat(url: str) -> tuple[int, int] | None:
    """Return (bytes, time in ns) of a file, as its server tells them now or told a few seconds ago; None: not there.

    Where it tells no time, that is a number made of the ETag; without one it is now, so that the bytes are compared.
    """
    return _stat(url, int(time.monotonic() // _STAT_SECONDS))


@lru_cache(maxsize=1024)  # a shard of ten thousand images is asked for ten thousand times
def _stat(url: str, _now: int) -> tuple[int, int] | None:
    found, path = filesystem(url)
    try:
        with _only_os_errors():
            info = found.info(path)
    except OSError:
        return None
    return int(info.get("size") or 0), _time_of(info)


def is_folder(url: str) -> bool | None:
    """Tell whether a URL is a folder (True) or a file (False); None: there is neither."""
    found, path = filesystem(url)
    with _only_os_errors():
        if url.partition("://")[0].lower() in HTTP:
            found.info(path)  # says what is wrong with a server; the questions below only say no
        if found.isdir(path):
            return True
        return False if found.exists(path) else None


def list_files(url: str) -> list[str]:
    """Return the files below a folder: their paths below it, sorted; hidden ones are left out."""
    found, path = filesystem(url)
    with _only_os_errors():
        names = found.find(path)
    below = f"{path.rstrip('/')}/"
    listed = sorted({name.removeprefix(below) for name in names if name.startswith(below)})
    if url.partition("://")[0].lower() in HTTP:  # a page that lists a folder also links to its own sortings
        listed = [name for name in listed if "?" not in name and "#" not in name]
    return [name for name in listed if not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))]


def list_matches(pattern: str) -> list[str]:
    """Return the URLs of the files that a pattern with ``*``, ``?`` or ``[]`` fits, sorted."""
    found, path = filesystem(pattern)
    with _only_os_errors():
        names = found.glob(path)
    return sorted(str(found.unstrip_protocol(name)) for name in names)


def _http_timeout() -> Any:
    """Return limits that end a silent connection and no long download."""
    import aiohttp

    return aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS)


def _time_of(info: dict[str, Any]) -> int:
    told = next((info[name] for name in _TIMES if info.get(name)), None)
    if isinstance(told, str):
        with contextlib.suppress(ValueError):
            told = parsedate_to_datetime(told) if "," in told else datetime.fromisoformat(told)
    if isinstance(told, datetime):
        told = told.timestamp()
    if isinstance(told, int | float):
        return int(told * 1e9)
    tag = info.get("ETag") or info.get("etag")
    return int.from_bytes(hashlib.sha256(str(tag).encode()).digest()[:7], "big") if tag else time.time_ns()


@contextlib.contextmanager
def _only_os_errors() -> Iterator[None]:
    """Turn the errors of fsspec's clients into OSError: those of the ones that are loaded."""
    try:
        yield
    except FileNotFoundError as error:
        cause = error.__cause__  # to fsspec whatever goes wrong over HTTP is a file that is not there
        if not isinstance(cause, _client_errors()) or getattr(cause, "status", 0) == 404:
            raise
        raise OSError(f"{type(cause).__name__}: {cause}") from error
    except _client_errors() as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _client_errors() -> tuple[type[Exception], ...]:
    loaded = ((sys.modules.get(module), name) for module, name in _CLIENT_ERRORS)
    found = [getattr(module, name) for module, name in loaded if hasattr(module, name)]
    return (*found, ValueError, NotImplementedError)


class _Guarded:
    """A file whose reading raises nothing but OSError."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        with _only_os_errors():
            return cast(bytes, self._file.read(size))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Guarded:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
