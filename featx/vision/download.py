"""Weights files from torchvision's server: downloaded once, and checked every time.

torchvision takes whatever lies in its cache under the right name; here the SHA-256 whose first digits are part of the
file's name is verified after a download and on every later use.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

import torch.hub

from featx.errors import WeightsError
from featx.vision.tensors import file_sha256

Progress = Callable[[str, int, int | None], None]
"""Called with the file's name, the bytes received so far, and the bytes in total (None: not known)."""

REACH_SECONDS = 1.5
"""How long a connection may take to come about before the machine counts as offline."""
STALL_SECONDS = 30.0
"""How long a connected server may stay silent."""

_HASH = re.compile(r"-([0-9a-f]{8,64})\.")
_CHUNK = 1 << 20


def cache_folder() -> Path:
    """Return the folder of torch.hub and torchvision for weights files (``TORCH_HOME`` moves it)."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def cached_file(url: str, folder: Path | None = None) -> Path:
    """Return where the file of an address lies, or would lie, on this machine."""
    return (folder or cache_folder()) / Path(urllib.parse.urlparse(url).path).name


def fetch(url: str, *, folder: Path | None = None, progress: Progress | None = None) -> tuple[Path, str]:
    """Return a weights file on this machine and its SHA-256; download it if it is not there.

    Parameters
    ----------
    url : str
        An address whose file name ends in ``-`` and the first digits of the file's SHA-256.
    folder : Path, optional
        Where files are kept; None: `cache_folder`.
    progress : callable, optional
        See `Progress`.

    Raises
    ------
    WeightsError
        If the file on this machine or the one received has another SHA-256, if the server cannot be reached (after
        less than two seconds), or if the file cannot be written.
    """
    path = cached_file(url, folder)
    if not path.exists():
        _download(url, path, progress)
    sha256 = file_sha256(path)
    if not sha256.startswith(expected_sha256(path.name)):
        raise WeightsError(
            f"{path} is damaged or not the original: its SHA-256 begins with {sha256[:16]}, its name says "
            f"{expected_sha256(path.name)}; delete the file to download it again",
            weights=path.name,
        )
    return path, sha256


def expected_sha256(name: str) -> str:
    """Return the first digits of the SHA-256 that a file name or address says; ``""`` if it says none."""
    match = _HASH.search(name)
    return match.group(1) if match else ""


def _download(url: str, path: Path, progress: Progress | None) -> None:
    temporary = None
    try:
        check_reachable(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.build_opener().open(url, timeout=STALL_SECONDS) as response,
            tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file,
        ):
            temporary = file.name
            sha256 = _copy(response, file, path.name, progress)
        if not sha256.startswith(expected_sha256(path.name)):
            raise WeightsError(
                f"what {url} sent is damaged or not the original: its SHA-256 begins with {sha256[:16]}, the name says "
                f"{expected_sha256(path.name)}; nothing was kept",
                weights=path.name,
            )
        Path(temporary).replace(path)
        temporary = None
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(_way_out(url, path, error), weights=path.name) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _copy(response: http.client.HTTPResponse, file: object, name: str, progress: Progress | None) -> str:
    length = response.headers.get("Content-Length")
    total = int(length) if length is not None and length.isdigit() else None
    digest, received = hashlib.sha256(), 0
    while chunk := response.read(_CHUNK):
        file.write(chunk)  # type: ignore[attr-defined]
        digest.update(chunk)
        received += len(chunk)
        if progress is not None:
            progress(name, received, total)
    return digest.hexdigest()


def check_reachable(url: str) -> None:
    """Raise OSError unless the server, or the proxy before it, takes a connection within `REACH_SECONDS`.

    In a thread of its own, since looking up a host's name cannot be given a time limit.
    """
    address = urllib.parse.urlparse(url)
    proxy = urllib.request.getproxies().get(address.scheme)
    if proxy and not urllib.request.proxy_bypass(address.hostname or ""):
        address = urllib.parse.urlparse(proxy if "//" in proxy else f"//{proxy}")
    host, port = address.hostname or "", address.port or (443 if address.scheme == "https" else 80)
    outcome: list[OSError | None] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=REACH_SECONDS).close()
            outcome.append(None)
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    problem = outcome[0] if outcome else TimeoutError(f"no answer from {host} within {REACH_SECONDS:g} seconds")
    if problem is not None:
        raise problem


def _way_out(url: str, path: Path, error: Exception) -> str:
    return (
        f"weights {path.name} are not on this machine and cannot be downloaded ({error}).\n"
        f"Fetch {url} elsewhere and put it into {path.parent}, or give it with --weights FILE; "
        "--backbone featx-mini and --weights random need no download"
    )
