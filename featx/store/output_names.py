"""Where the feature files of one pass go: the name that was given, or one made for each of several requests."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featx.errors import UsageError
from featx.spec import FeatureRequest

FIELDS = ("backbone", "node", "weights")
"""What may stand in braces in the name of an output."""

_FIELD = re.compile(r"\{(" + "|".join(FIELDS) + r")\}")
_NO_NAME = re.compile(r"[^\w.+-]+")


def output_paths(
    source: Any, output: str | os.PathLike[str], requests: Sequence[FeatureRequest], *, many: bool
) -> list[Path]:
    """Return the feature file of each request; whatever the user allows to be replaced, it is not the source.

    Parameters
    ----------
    source : path, or something else
        A path gives its name to the files in a folder.
    output : path
        The feature file. With ``{backbone}``, ``{node}`` or ``{weights}`` in it, or a folder (there already, or with a
        slash at its end), one for each request.
    requests : sequence of FeatureRequest
        At least one.
    many : bool
        Whether a folder is an answer: for a single request it is taken for a slip.

    Raises
    ------
    UsageError
        If the output is no name of a file, names the source, or the same file for two requests.
    """
    text = os.fspath(output)
    is_folder = not Path(text).name or text.endswith(("/", os.sep)) or Path(text).is_dir()
    if is_folder and not (many and text):
        example = Path(text or ".") / "features.h5"
        raise UsageError(f"-o {text!r} is a folder: name the file, as in {example}")
    if is_folder:
        fields = "{backbone}-{node}" if any(request.node is not None for request in requests) else "{backbone}"
        text = os.path.join(text, f"{stem_of(source)}-{fields}.h5")  # noqa: PTH118 (the text keeps its form)
    paths = [Path(_filled(text, request)) for request in requests]
    for i, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:i]]:
            raise UsageError(_same_name(os.fspath(output), os.fspath(path), requests))
        if _is_source(source, path):
            raise UsageError(f"-o {os.fspath(path)!r} is SOURCE itself; give another -o FILE")
    return paths


def _same_name(output: str, path: str, requests: Sequence[FeatureRequest]) -> str:
    differ = [f"{{{field}}}" for field in FIELDS if len({getattr(request, field) for request in requests}) > 1]
    if not differ:
        return f"-o {output!r}: the same features are asked for twice"
    beside = output if output.endswith("/") else f"{os.path.splitext(output)[0]}-"  # noqa: PTH122
    example = f"{beside}{'-'.join(differ)}.h5"
    return f"-o {output!r} gives {path!r} to more than one of {len(requests)} feature files; try -o '{example}'"


def _filled(text: str, request: FeatureRequest) -> str:
    def value(match: re.Match[str]) -> str:
        field = match.group(1)
        found = getattr(request, field)
        if field == "weights" and Path(found).suffix:
            found = Path(found).stem
        return _name(found or "default")

    return _FIELD.sub(value, text)


def stem_of(source: Any) -> str:
    """Return the name that a source gives to the files in a folder."""
    if not isinstance(source, str | os.PathLike):
        return "features"
    name = os.fspath(source).rstrip("/").rpartition("/")[2] or "features"
    stem = Path(name).stem if not Path(source).is_dir() else name
    return _name("features" if stem in ("", ".", "..") else stem) or "features"


def _name(text: str) -> str:
    """Replace what makes trouble in the name of a file."""
    return re.sub("--+", "-", _NO_NAME.sub("-", text)).strip("-")


def _is_source(source: Any, path: Path) -> bool:
    is_path = isinstance(source, str | os.PathLike)
    return is_path and path.exists() and Path(source).exists() and path.samefile(source)
