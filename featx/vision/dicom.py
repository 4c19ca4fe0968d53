"""DICOM through pydicom: stored numbers, to what they measure, to grey.

Greys become modality values first (rescale slope and intercept, or the modality lookup table: Hounsfield units in CT).
Black and white are then, in this order: the user's window; the window in the file (its first pair, by the formula that
it names: PS3.3 C.11.2.1.2), or else its VOI lookup table; the user's percentiles; all that the stored bits can express,
rescaled. MONOCHROME1 is inverted last. Where a multi-frame file keeps these values for each frame, the frame's count.
Colour and palettes become RGB; of more than 8 bits they keep the upper 8 unless there is a window or percentiles.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featx.errors import ImageDecodeError
from featx.manifest.dicom_header import pydicom_errors
from featx.vision.damage import check_size
from featx.vision.reading import ImageFacts, Reading
from featx.vision.tones import full_range, stretch, to_uint8

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

_EXPLICIT, _DEFLATED = b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.1.99"
_MOST_BYTES_A_PIXEL = 8
"""A deflated file may unpack to so many bytes for each pixel that an image may have (see `check_size`)."""


def read_rgb(data: bytes, reading: Reading, frame: int = 0) -> tuple[Image.Image, ImageFacts]:
    """Return one frame of a DICOM file as RGB.

    Raises
    ------
    ImageDecodeError
        Also if pydicom, or what it needs for the file's compression, is not installed.
    Exception
        Of `featx.manifest.signatures.DECODE_ERRORS`, whatever pydicom raises on a damaged file.
    """
    try:
        import pydicom
    except ImportError as error:
        raise ImageDecodeError("unsupported", "DICOM needs pip install 'featx[formats]'", missing="formats") from error
    with pydicom_errors():
        return _read(pydicom.dcmread(io.BytesIO(_inflated(data)), force=True), reading, frame)


def _read(dataset: Dataset, reading: Reading, frame: int) -> tuple[Image.Image, ImageFacts]:
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    width, height = _check(dataset, frame)
    stored = pixel_array(dataset, index=frame)
    if stored.shape[:2] != (height, width):
        raise ImageDecodeError("corrupt", f"pixels of shape {stored.shape}, expected {height} x {width}")
    kind = str(dataset.PhotometricInterpretation)
    if kind in ("MONOCHROME1", "MONOCHROME2"):
        grey = _grey(dataset, frame, stored, reading)
        pixels = np.repeat((255 - grey if kind == "MONOCHROME1" else grey)[..., None], 3, axis=2)
    elif kind == "PALETTE COLOR":
        table = dataset.RedPaletteColorLookupTableDescriptor
        pixels = _colour(apply_color_lut(stored, dataset), reading, table[2])
    else:
        pixels = _colour(stored, reading, dataset.BitsStored)
    return Image.fromarray(pixels), ImageFacts("DICOM", kind, width, height)


def _inflated(data: bytes) -> bytes:
    """Return a file whose dataset is deflated as an ordinary one, of a size that is safe: pydicom knows no limit."""
    at = data.find(_DEFLATED)
    if at < 0:
        return data
    # After the preamble the length of the meta information comes first (PS3.10, section 7.1).
    start = 144 + struct.unpack_from("<I", data, 140)[0] if data[132:138] == b"\x02\0\0\0UL" else 0
    if not at + len(_DEFLATED) <= start < len(data):
        raise ImageDecodeError("unsupported", "a deflated DICOM whose beginning is not where the standard has it")
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    limit = Image.MAX_IMAGE_PIXELS
    body = stream.decompress(data[start:], 0 if limit is None else limit * _MOST_BYTES_A_PIXEL)
    if stream.unconsumed_tail:
        raise ImageDecodeError("bomb", f"a deflated DICOM of more than {len(body)} bytes")
    return data[:start].replace(_DEFLATED, _EXPLICIT.ljust(len(_DEFLATED), b"\0")) + body


def _check(dataset: Dataset, frame: int) -> tuple[int, int]:
    """Return width and height of a dataset whose pixels may be decoded."""
    from pydicom import uid

    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ImageDecodeError("unsupported", "DICOM without pixels")
    width, height = int(dataset.Columns), int(dataset.Rows)
    if min(width, height) < 1:
        raise ImageDecodeError("corrupt", "no pixels")
    check_size(width, height)
    n_frames = int(dataset.get("NumberOfFrames") or 1)
    if frame >= n_frames:
        raise ImageDecodeError("corrupt", f"{n_frames} frames, and frame {frame + 1} was expected")
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = (
            uid.ImplicitVRLittleEndian
            if implicit
            else uid.ExplicitVRLittleEndian
            if little
            else uid.ExplicitVRBigEndian
        )
    _check_decoder(dataset.file_meta.TransferSyntaxUID)
    return width, height


def _check_decoder(syntax: UID) -> None:
    from pydicom.pixels.decoders.base import get_decoder

    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise ImageDecodeError("unsupported", f"transfer syntax {syntax.name}") from error
    if not decoder.is_available:
        needs = " or ".join(text.partition(" - requires ")[2] for text in decoder.missing_dependencies)
        raise ImageDecodeError("unsupported", f"transfer syntax {syntax.name} needs {needs}", missing=needs)


def _grey(dataset: Dataset, frame: int, stored: NDArray[Any], reading: Reading) -> NDArray[np.uint8]:
    """Map stored values to 0 ... 255."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    values = stored
    rescale = _holder(dataset, frame, "PixelValueTransformationSequence", "RescaleSlope")
    if rescale is not None:
        slope, intercept = float(rescale.RescaleSlope), float(rescale.get("RescaleIntercept") or 0)
        values = stored.astype(np.float64) * slope + intercept
    elif dataset.get("ModalityLUTSequence"):
        values = apply_modality_lut(stored, dataset)
    if reading.window is not None:
        return to_uint8(values, reading)
    voi = _holder(dataset, frame, "FrameVOILUTSequence", "WindowCenter")
    windowed = None if voi is None else _windowed(values, voi)
    if windowed is not None:
        return windowed
    if dataset.get("VOILUTSequence"):
        top = 2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1
        return stretch(apply_voi(values.astype(np.int64), dataset), 0.0, float(top))
    if reading.percentiles is not None:
        return to_uint8(values, reading)
    ends = _stored_range(dataset, stored)
    if rescale is not None:
        ends = ends[0] * slope + intercept, ends[1] * slope + intercept
    elif dataset.get("ModalityLUTSequence"):
        ends = 0.0, 2.0 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    return to_uint8(values, reading, (min(ends), max(ends)))


def _stored_range(dataset: Dataset, stored: NDArray[Any]) -> tuple[float, float]:
    """Return the least and the greatest value that the stored bits can express; of floats 0 and 1."""
    if stored.dtype.kind == "f":
        return full_range(stored)
    bits = int(dataset.BitsStored)
    return (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0.0, 2.0**bits - 1)


def _windowed(values: NDArray[Any], voi: Dataset) -> NDArray[np.uint8] | None:
    """Apply the first window that a file names (PS3.3, C.11.2.1.2 and C.11.2.1.3); None if it is not one."""
    centre, width = _first(voi.WindowCenter), _first(voi.get("WindowWidth"))
    function = str(voi.get("VOILUTFunction") or "LINEAR")
    if not (math.isfinite(centre) and 0 < width < math.inf) or (function == "LINEAR" and width < 1):
        return None
    if function == "SIGMOID":
        with np.errstate(over="ignore"):  # e to the power of a large number: black
            curve = 255 / (1 + np.exp(-4 * (values.astype(np.float64) - centre) / width))
        return np.rint(curve).astype(np.uint8)
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    return stretch(values, centre - width / 2, centre + width / 2)


def _first(value: Any) -> float:
    if value is None or value == "":
        return math.nan
    try:
        return float(value)
    except TypeError:  # several
        return float(value[0]) if len(value) else math.nan


def _holder(dataset: Dataset, frame: int, macro: str, keyword: str) -> Dataset | None:
    """Return what holds a value for this frame: its own functional group, the one that all share, or the file."""
    for groups, number in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        items = dataset.get(groups) or []
        inner = items[number].get(macro) if number < len(items) else None
        if inner and inner[0].get(keyword) not in (None, ""):
            return cast("Dataset", inner[0])
    return dataset if dataset.get(keyword) not in (None, "") else None


def _colour(stored: NDArray[Any], reading: Reading, bits: int) -> NDArray[np.uint8]:
    if stored.ndim != 3 or stored.shape[2] < 3:
        raise ImageDecodeError("corrupt", f"colours of shape {stored.shape}")
    stored = stored[..., :3]
    if stored.dtype == np.uint8:
        return np.ascontiguousarray(stored)
    if reading.stretches:
        return to_uint8(stored, reading)
    if stored.dtype.kind != "u" or not 8 <= bits <= 8 * stored.dtype.itemsize:
        raise ImageDecodeError("unsupported", f"colours of {stored.dtype.name} with {bits} bits")
    return (stored >> (bits - 8)).astype(np.uint8)
