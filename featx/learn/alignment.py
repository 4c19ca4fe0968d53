"""Which rows of several feature files are the same samples, so that the files can be compared on them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featx.errors import InputError, LabelsError, UsageError
from featx.learn.dataset import Features

IntArray = NDArray[np.int64]

COLUMNS = {"y": "label", "groups": "group", "splits": "split", "folds": "fold"}
"""What must be the same of a sample in every file: attribute of `Features`, and its name in messages."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """The samples that several files share.

    Attributes
    ----------
    samples : Features
        Their columns, in the order of the first file; `X` has no columns.
    rows : list of int array (n_samples,)
        For each file, where the samples are in it.
    n_left_out : int
        Samples that some file has and another lacks.
    """

    samples: Features
    rows: list[IntArray]
    n_left_out: int


def check_paths(paths: Sequence[str]) -> None:
    """Raise UsageError for no file at all, and for one that is given twice."""
    if not paths:
        raise UsageError("give at least one feature file")
    real = [os.path.realpath(path) for path in paths]
    twice = [path for place, path in enumerate(paths) if real[place] in real[:place]]
    if twice:
        raise UsageError(f"{twice[0]} is given twice")


def align(names: Sequence[str], files: Sequence[Features], *, only_common: bool) -> Alignment:
    """Find the samples of the same keys, and check that the files say the same of each.

    Parameters
    ----------
    names : sequence of str
        What the files are called in messages.
    files : sequence of Features
        One row for each sample.
    only_common : bool
        Take the samples that every file has; else it is an error that some file lacks one.

    Raises
    ------
    InputError
        If the files hold different samples, or different images under one key.
    LabelsError
        If they disagree about a sample's label, group, split or fold.
    """
    places = [{str(key): place for place, key in enumerate(file.keys)} for file in files]
    everything = set().union(*places)
    common = set(places[0]).intersection(*places[1:])
    if not common:
        begin = ", ".join(f"{name} begins with {_first(place)!r}" for name, place in zip(names, places, strict=True))
        raise InputError(
            f"no sample is in every file: {begin}; the files must be of one SOURCE, whose keys name samples"
        )
    if len(common) < len(everything) and not only_common:
        lacking, place = next((n, p) for n, p in zip(names, places, strict=True) if len(p) < len(everything))
        missing = sorted(everything - set(place))
        raise InputError(
            f"the files hold different samples: {lacking} lacks {len(missing)} that another has, the first "
            f"{missing[0]!r}. Extract all from the same SOURCE, or use the {len(common)} that every file has with "
            "--allow-missing"
        )
    keys = [str(key) for key in files[0].keys if str(key) in common]
    rows = [np.array([place[key] for key in keys], dtype=np.int64) for place in places]
    samples = [file.take(taken) for file, taken in zip(files, rows, strict=True)]
    for name, other in zip(names[1:], samples[1:], strict=True):
        _check_same(names[0], samples[0], name, other)
    return Alignment(samples[0], rows, len(everything) - len(common))


def _check_same(name: str, samples: Features, other_name: str, other: Features) -> None:
    """Raise where two files, aligned, say different things of a sample."""
    bytes_differ = (samples.sha256 != other.sha256) & (samples.sha256 != "") & (other.sha256 != "")
    if bytes_differ.any():
        key = samples.keys[np.argmax(bytes_differ)]
        raise InputError(
            f"{np.sum(bytes_differ)} of {len(samples)} samples are other images in {other_name} than in {name}, the "
            f"first {key!r}; run the same `featx extract` on the same SOURCE again for both"
        )
    for column, word in COLUMNS.items():
        mine, theirs = getattr(samples, column), getattr(other, column)
        differ = mine != theirs
        if differ.any():
            place = int(np.argmax(differ))
            raise LabelsError(
                f"{name} and {other_name} give {np.sum(differ)} of {len(samples)} samples another {word}, the first "
                f"{samples.keys[place]!r}: {str(mine[place])!r} and {str(theirs[place])!r}. Run `featx extract` again "
                "for both with the same SOURCE and options: it mends labels, groups and splits and computes no features"
            )


def _first(place: dict[str, int]) -> str:
    return next(iter(place), "")
