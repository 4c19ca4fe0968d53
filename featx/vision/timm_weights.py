"""The weights of timm's networks: found on this machine, or fetched once from where timm has them.

That is a repository of Hugging Face's hub, whose own client and cache are used, or an address.
"""

from __future__ import annotations

import contextlib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from featx.errors import WeightsError
from featx.vision import download
from featx.vision.timm_models import Model

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_ANSWER_SECONDS = 10.0


def fetch(model: Model, *, progress: download.Progress | None = None) -> Path:
    """Return the file of a network's own weights on this machine; download it from timm's hub if it is not there.

    Raises
    ------
    WeightsError
        If timm has none, or they cannot be downloaded; within two seconds where the hub cannot be reached.
    """
    hub = str(model.config.get("hf_hub_id") or "")
    if not model.has_weights:
        raise WeightsError(
            f"timm has no weights of {model.name}; give a file with --weights FILE, or --weights random",
            weights=model.name,
        )
    if not hub:
        return download.fetch(model.config["url"], progress=progress)[0]
    here = _in_cache(model)
    if here is not None:
        return here
    import huggingface_hub
    from huggingface_hub import constants, errors

    try:
        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        _check_hub(constants.ENDPOINT)
        repository, _, revision = hub.partition("@")
        for file in _files(model):
            try:
                fetched = huggingface_hub.hf_hub_download(
                    repository,
                    file,
                    revision=revision or None,
                    endpoint=constants.ENDPOINT,
                    tqdm_class=_told(progress, f"{model.name}: {file}"),
                )
            except errors.EntryNotFoundError as error:
                if isinstance(error, errors.LocalEntryNotFoundError):
                    raise
                continue
            return Path(str(fetched))
        raise OSError(f"{repository} holds none of {', '.join(_files(model))}")
    except (OSError, ValueError, errors.EntryNotFoundError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"weights {model.name} are not on this machine and cannot be downloaded ({said}).\n"
            f"Fetch {_files(model)[0]} of {constants.ENDPOINT}/{hub.partition('@')[0]} elsewhere and give it with "
            "--weights FILE; --backbone featx-mini and --weights random need no download",
            weights=model.name,
        ) from error


def is_here(model: Model) -> bool:
    """Tell whether a network's own weights are on this machine."""
    if model.config.get("hf_hub_id"):
        return _in_cache(model) is not None
    return model.has_weights and download.cached_file(model.config["url"]).exists()


def _check_hub(url: str) -> None:
    """Raise OSError unless the hub answers; its own client would try again for half a minute."""
    download.check_reachable(url)
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310  # the hub's address
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.build_opener().open(request, timeout=_ANSWER_SECONDS).close()


def _in_cache(model: Model) -> Path | None:
    import huggingface_hub

    repository, _, revision = str(model.config["hf_hub_id"]).partition("@")
    for file in _files(model):
        found = huggingface_hub.try_to_load_from_cache(repository, file, revision=revision or None)
        if isinstance(found, str):
            return Path(found)
    return None


def _files(model: Model) -> tuple[str, ...]:
    named = str(model.config.get("hf_hub_filename") or "")
    if not named:
        return _HUB_FILES
    return (
        (named.removesuffix(".bin").replace("pytorch_model", "model") + ".safetensors", named)
        if named.endswith(".bin")
        else (named,)
    )


def _told(progress: download.Progress | None, name: str) -> Any:
    """Return a silent progress bar for huggingface_hub that tells us instead."""
    from tqdm import tqdm

    class Told(tqdm):  # type: ignore[misc]  # without types
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})
            self.received, self.in_total = 0, kwargs.get("total")

        def update(self, n: float | None = 1) -> bool | None:
            self.received += int(n or 0)
            if progress is not None:
                progress(name, self.received, None if self.in_total is None else int(self.in_total))
            return None

    return Told
