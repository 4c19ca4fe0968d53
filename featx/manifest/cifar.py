"""CIFAR-10 as its authors distribute it: ``cifar-10-batches-py`` (pickles) and ``cifar-10-batches-bin``.

The layout is described at https://www.cs.toronto.edu/~kriz/cifar.html. The pickles are read by an unpickler that knows
dicts, lists, bytes, text, numbers and uint8 arrays, and refuses everything else: no code in them can run.
"""

from __future__ import annotations

import io
import pickle
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from featx.errors import ManifestError
from featx.manifest.record import Manifest

_BATCH = re.compile(r"(data_batch_\d+|test_batch)(\.bin)?")
_SIDE = 32
_N_PIXELS = 3 * _SIDE * _SIDE
_PICKLE_ERRORS = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)


class BatchPixels(Sequence[NDArray[np.uint8]]):
    """The images of all batches by position, each a uint8 array (32, 32, 3).

    Parameters
    ----------
    batches : list of uint8 array (n, 3072)
        Red plane, green plane, blue plane; may be memory-mapped.
    """

    def __init__(self, batches: list[NDArray[np.uint8]]) -> None:
        self._batches = batches
        self._starts = np.cumsum([0, *map(len, batches)]).tolist()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: Any) -> Any:
        position = range(len(self))[index]
        batch = bisect_right(self._starts, position) - 1
        planes = self._batches[batch][position - self._starts[batch]]
        return np.asarray(planes).reshape(3, _SIDE, _SIDE).transpose(1, 2, 0)


def is_cifar(folder: Path) -> bool:
    """Whether a folder holds CIFAR-10's batches."""
    names = ("data_batch_1", "test_batch")
    return any((folder / name).is_file() or (folder / f"{name}.bin").is_file() for name in names)


def read_cifar(folder: Path) -> Manifest:
    """Read CIFAR-10's batches; keys are like ``data_batch_1/00017``.

    Raises
    ------
    ManifestError
        If a batch or the class names are missing, damaged, or hold anything but what they should.
    """
    files = sorted(path for path in folder.iterdir() if _BATCH.fullmatch(path.name))
    files = [path for path in files if path.suffix == files[0].suffix]
    names = _class_names(folder / ("batches.meta.txt" if files[0].suffix else "batches.meta"))
    keys, labels, splits, batches = [], [], [], []
    for path in files:
        codes, pixels = _read_bin(path) if path.suffix else _read_pickled(path)
        if len(codes) and not 0 <= codes.min() <= codes.max() < len(names):
            raise ManifestError(f"labels go to {codes.max()}, but there are {len(names)} classes", path=str(path))
        keys += [f"{path.stem}/{row:05d}" for row in range(len(codes))]
        labels += [names[code] for code in codes.tolist()]
        splits += ["test" if path.stem == "test_batch" else "train"] * len(codes)
        batches.append(pixels)
    nothing = [""] * len(keys)
    return Manifest(
        root=str(folder),
        keys=keys,
        paths=nothing,
        labels=labels,
        groups=list(nothing),
        splits=splits,
        folds=list(nothing),
        arrays=BatchPixels(batches),
    )


def _class_names(path: Path) -> list[str]:
    if path.suffix == ".txt":
        names: Any = _read(path).decode("utf-8", "backslashreplace").split()
    else:
        names = _load(path).get("label_names")
    if not isinstance(names, list) or not names or not all(isinstance(name, (str, bytes)) for name in names):
        raise ManifestError("no class names", path=str(path))
    return [_text(name) for name in names]


def _read_bin(path: Path) -> tuple[NDArray[np.integer], NDArray[np.uint8]]:
    size = path.stat().st_size
    if not size or size % (_N_PIXELS + 1):
        message = f"{size} bytes are not a whole number of images of {_N_PIXELS + 1} bytes; the file is cut short"
        raise ManifestError(message, path=str(path))
    records = np.memmap(path, np.uint8, "r").reshape(-1, _N_PIXELS + 1)
    return np.array(records[:, 0]), records[:, 1:]


def _read_pickled(path: Path) -> tuple[NDArray[np.integer], NDArray[np.uint8]]:
    batch = _load(path)
    pixels, labels = getattr(batch.get("data"), "values", None), batch.get("labels")
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.ndim != 2
        or pixels.shape[1] != _N_PIXELS
        or not isinstance(labels, list)
        or len(labels) != len(pixels)
        or not all(isinstance(label, int) for label in labels)
    ):
        message = f"expected `data`, a uint8 array (n, {_N_PIXELS}), and `labels`, a list of n integers"
        raise ManifestError(message, path=str(path))
    return np.array(labels, dtype=np.int64), pixels


def _load(path: Path) -> dict[str, Any]:
    try:
        found = _Unpickler(io.BytesIO(_read(path)), encoding="bytes").load()
    except _PICKLE_ERRORS as error:
        raise ManifestError(f"not one of CIFAR-10's batches: {error}", path=str(path)) from error
    if not isinstance(found, dict):
        raise ManifestError(f"not one of CIFAR-10's batches: holds {type(found).__name__}", path=str(path))
    return {_text(name): value for name, value in found.items()}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ManifestError(f"cannot read this file: {error.strerror}", path=str(path)) from error


def _text(name: object) -> str:
    return name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _STAND_INS.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch needs")
        return found


class _Dtype:
    """Stands in for `numpy.dtype`, so that no pickle can set the state of NumPy's own."""

    def __init__(self, code: object, *_: object) -> None:
        if _text(code) not in ("u1", "|u1"):
            raise pickle.UnpicklingError(f"it holds an array of {_text(code)}, expected u1")

    def __setstate__(self, state: object) -> None:
        pass  # byte order, alignment: of no meaning for single bytes


class _Array:
    """Stands in for `numpy.ndarray`; `values` is the uint8 array."""

    values: NDArray[np.uint8] | None = None

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, bytes]) -> None:
        _, shape, dtype, fortran, data = state
        self.values = _of_buffer(data, dtype, shape, "F" if fortran else "C").values


def _reconstruct(*_: object) -> _Array:
    return _Array()  # its state follows


def _of_buffer(data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: Literal["C", "F"]) -> _Array:
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("it holds an array without a dtype")
    array = _Array()
    array.values = np.frombuffer(data, np.uint8).reshape(shape, order=order)
    return array


def _latin1(text: str, encoding: str) -> bytes:
    # how Python 3 writes bytes in the pickle protocols of Python 2
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it holds bytes encoded as {encoding}")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _of_buffer,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _latin1,
}
