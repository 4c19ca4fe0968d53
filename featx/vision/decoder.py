"""The process that decodes images for another one, one at a time, and the words in which the two talk.

An image that crashes or hangs the decoder takes nothing down but this process. It is started by
`featx.vision.decode_pool` as a plain program (no fork, no import of the user's ``__main__``), loads Pillow and numpy
but never torch, and ends with its parent.

A message is a frame: the lengths of two parts, JSON, raw bytes. Pixels travel as raw bytes and everything else as JSON,
so that nothing that a damaged image may do to this process can make its parent run code.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import resource
import select
import signal
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image, ImageFile

from featx.errors import FeatxError
from featx.spec import Preprocess
from featx.vision.pixels import Outcome, PixelPlan, read_file

LENGTHS = struct.Struct("<IQ")
"""Bytes of the JSON, bytes of the pixels."""

PROGRAM = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.path[:] = sys.argv[2:]; "
    "from featx.vision.decoder import main; main(int(sys.argv[1]))"
)
"""For ``python -c``, followed by the parent's process id and its ``sys.path``."""

IDLE_LIMIT = 120.0
"""Seconds without a request after which a decoder ends: one that is missed is started again."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def greeting(plans: Sequence[PixelPlan]) -> bytes:
    """Return the frame that comes before requests: what is wanted of images, where the parent is, how it set Pillow."""
    return _frame(
        {
            "plans": [dataclasses.asdict(plan) for plan in plans],
            "folder": _folder(),
            "max_image_pixels": Image.MAX_IMAGE_PIXELS,
            "load_truncated_images": ImageFile.LOAD_TRUNCATED_IMAGES,
        }
    )


def request(place: str, key: str, frame: int, wanted: Sequence[int], views: Sequence[str] | None = None) -> bytes:
    """Return the frame that asks for one sample: see `featx.vision.pixels.read_file`, plans by their number.

    Views take the place of those of the plans.
    """
    return _frame({"place": place, "key": key, "frame": frame, "wanted": list(wanted), "views": views})


def main(parent: int) -> None:
    """Answer requests from stdin on stdout until stdin ends.

    Parameters
    ----------
    parent : int
        Process id; with the parent this process ends.
    """
    requests, answers = os.dup(0), os.dup(1)
    _end_with(parent)
    # A crash is reported by the parent; a core dump in the user's folder helps nobody.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    # What a library prints must not get between the answers, nor onto the user's terminal.
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)

    def last_words(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        del trace
        _send(answers, {"died": f"{kind.__name__}: {error}"})

    sys.excepthook = last_words
    plans: list[PixelPlan] = []
    while (message := _receive(requests)) is not None:
        if "plans" in message:
            plans = _greeted(message)
            _send(answers, {"ready": True})
            continue
        try:
            wanted = [plans[i].with_views(message["views"]) for i in message["wanted"]]
            outcomes = read_file(message["place"], message["key"], message["frame"], wanted)
        except FeatxError as error:  # an option that does not fit, an extra that is missing: not the image's fault
            facts = {name: value for name, value in vars(error).items() if isinstance(value, str | int)}
            _send(answers, {"error": type(error).__name__, "message": str(error), "facts": facts})
        else:
            _answer(answers, outcomes)


def _greeted(message: dict[str, Any]) -> list[PixelPlan]:
    if message["folder"]:
        os.chdir(message["folder"])  # it may have been another one when this process was started
    Image.MAX_IMAGE_PIXELS = message["max_image_pixels"]
    ImageFile.LOAD_TRUNCATED_IMAGES = message["load_truncated_images"]
    return [
        PixelPlan(Preprocess(**_as_tuples(plan["preprocess"])), tuple(plan["views"]), plan["whole"])
        for plan in message["plans"]
    ]


def _folder() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:  # it has been removed: no relative path leads anywhere
        return ""


def _answer(answers: int, outcomes: Sequence[Outcome]) -> None:
    told = [
        {
            "entry": dataclasses.asdict(outcome.entry),
            "shape": None if outcome.pixels is None else outcome.pixels.shape,
        }
        for outcome in outcomes
    ]
    _send(answers, {"outcomes": told}, [outcome.pixels.data for outcome in outcomes if outcome.pixels is not None])


def _send(answers: int, message: dict[str, Any], pixels: Sequence[memoryview] = ()) -> None:
    parts = [memoryview(_frame(message, sum(part.nbytes for part in pixels))), *(part.cast("B") for part in pixels)]
    for part in parts:
        while part:
            part = part[os.write(answers, part) :]


def _frame(message: dict[str, Any], n_bytes: int = 0) -> bytes:
    data = json.dumps(message).encode()  # ASCII: also names of files that are not UTF-8 come through
    return LENGTHS.pack(len(data), n_bytes) + data


def _receive(requests: int) -> dict[str, Any] | None:
    """Return the next message; None at the end, or when there has been nothing to do for long."""
    if not select.select([requests], [], [], IDLE_LIMIT)[0]:
        return None
    head = _read(requests, LENGTHS.size)
    data = _read(requests, LENGTHS.unpack(head)[0]) if head else b""
    return dict(json.loads(data)) if data else None


def _read(requests: int, n: int) -> bytes:
    data = b""
    while len(data) < n:
        part = os.read(requests, n - len(data))
        if not part:
            return b""  # the parent is gone
        data += part
    return data


def _end_with(parent: int) -> None:
    """End when the parent is killed, also in the middle of an image; its end of stdin is noticed only between two."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it was killed before that
            os._exit(0)


def _as_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
