"""The few things in a DICOM file's header that concern the list of samples, read without its pixels."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from featx.manifest.files import suffix_of
from featx.manifest.locator import open_place
from featx.manifest.record import Manifest
from featx.manifest.signatures import DECODE_ERRORS, signature

EXTENSIONS = frozenset((".dcm", ".dicom", ".ima"))
"""Lower-case extensions of DICOM files; many have none at all."""

GROUP_SOURCE = "DICOM PatientID"

_PATIENT, _FRAMES = 0x0010_0020, 0x0028_0008


def with_patients(manifest: Manifest) -> Manifest:
    """Group the DICOM files of a manifest without groups by the patient whom their headers name.

    Looked at are files with an extension of DICOM or none. Without pydicom nothing is: no such file can be decoded
    then. A file that names no patient, or cannot be read, is a group of its own.
    """
    if manifest.group_source:
        return manifest
    looked_at = [
        position
        for position, key in enumerate(manifest.keys)
        if suffix_of(key) in ("", *EXTENSIONS) and manifest.paths[position] and position not in manifest.refused
    ]
    groups = list(manifest.groups) if looked_at else []
    for position in looked_at:
        groups[position] = _patient(manifest.paths[position])
    if not any(groups):
        return manifest
    return dataclasses.replace(manifest, groups=groups, group_source=GROUP_SOURCE)


def _patient(place: str) -> str:
    try:
        with open_place(place) as file:
            return read_patient(file) if signature(file.read(132)) == "DICOM" else ""
    except DECODE_ERRORS:
        return ""


def read_patient(file: BinaryIO) -> str:
    """Return the PatientID in a DICOM file, ``""`` if there is none; raises what pydicom does."""
    return _read(file, _PATIENT).replace("\0", "").strip()


def count_dicom_frames(file: BinaryIO) -> int:
    """Return how many frames a DICOM file says that it has; raises what pydicom does."""
    return int(_read(file, _FRAMES) or 1)


@contextmanager
def pydicom_errors() -> Iterator[None]:
    """Turn the errors of pydicom's own into ValueErrors, like all others that damage causes."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    try:
        yield
    except (BytesLengthException, InvalidDicomError) as error:
        raise ValueError(str(error)) from error


def _read(file: BinaryIO, wanted: int) -> str:
    """Return one element's value as text; all that comes after it is not read."""
    try:
        from pydicom.filereader import read_partial
    except ImportError:
        return ""
    file.seek(0)
    with warnings.catch_warnings(), pydicom_errors():
        warnings.simplefilter("ignore")
        dataset = read_partial(
            file, stop_when=lambda tag, _vr, _length: tag > wanted, specific_tags=[wanted], force=True
        )
        return str(dataset[wanted].value or "") if wanted in dataset else ""
