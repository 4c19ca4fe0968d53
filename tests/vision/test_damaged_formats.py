"""Whatever is done to DICOM, HEIC and TIFF files: an image comes out, or an ImageDecodeError, and nothing else."""

import functools
import io
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from featx.errors import ImageDecodeError
from featx.manifest.frames import count_frames
from featx.store.records import REASONS
from featx.vision.damage import explained
from featx.vision.images import open_rgb
from featx.vision.reading import Reading

pydicom = pytest.importorskip("pydicom")
pillow_heif = pytest.importorskip("pillow_heif")
tifffile = pytest.importorskip("tifffile")

from dicom_files import compressed, dicom, photo  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)


def tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, photometric="minisblack", planarconfig="contig", **options)
    return buffer.getvalue()


def heic():
    file = pillow_heif.from_pillow(Image.fromarray(photo(64, 64)))
    file.add_from_pillow(Image.fromarray(photo(64, 64, 1)).convert("RGBA"))
    buffer = io.BytesIO()
    file.save(buffer, quality=50)
    return buffer.getvalue()


@functools.cache
def golden():
    """One file of every kind, and the readings under which it is an image."""
    slices = np.arange(240, dtype=np.int16).reshape(2, 12, 10)
    jpeg = io.BytesIO()
    Image.fromarray(photo(16, 16)).save(jpeg, "JPEG")
    window = {"WindowCenter": "40", "WindowWidth": "400", "RescaleSlope": "2", "RescaleIntercept": "-9"}
    many = np.arange(20 * 18 * 7, dtype=np.uint16).reshape(20, 18, 7)
    return [
        dicom(slices, NumberOfFrames=2, PatientID="P1", **window),
        dicom(slices[0], syntax=ImplicitVRLittleEndian, VOILUTFunction="SIGMOID", **window),
        dicom(slices[0], syntax=DeflatedExplicitVRLittleEndian, kind="MONOCHROME1"),
        compressed(slices, RLELossless, NumberOfFrames=2),
        dicom(photo(), kind="YBR_FULL"),
        dicom(photo(16, 16), syntax=JPEGBaseline8Bit, kind="YBR_FULL_422", PixelData=encapsulate([jpeg.getvalue()])),
        dicom(slices[0], syntax=ImplicitVRLittleEndian, preamble=False),
        heic(),
        tiff(many),
        tiff(many, tile=(16, 16), compression="zlib", predictor=True, byteorder=">"),
        tiff(many.astype(np.float32), bigtiff=True, rowsperstrip=3),
        tiff(many[..., :3].astype(np.float64)),
    ]


READINGS = (Reading(), Reading(window=(0, 100), bands=(3, 2, 1)), Reading(percentiles=(1, 99), bands=(1,)))


def outcome(data, reading, frame):
    failure = None
    try:
        image, facts = open_rgb(data, reading, frame=frame)
    except ImageDecodeError as error:
        failure = error
    if failure is None:
        assert (image.mode, bool(facts.format)) == ("RGB", True)
        return "image"
    assert failure.reason in REASONS
    assert "Traceback" not in failure.detail
    assert " at 0x" not in failure.detail
    return failure.reason


@pytest.mark.parametrize("number", range(12))
def test_the_golden_files_are_images(number):
    assert "image" in {outcome(golden()[number], reading, 0) for reading in READINGS}


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["set", "flip", "cut", "add", "end"]),
        st.floats(0, 1),
        st.sampled_from([60, 400, 1 << 30]),
        st.integers(0, 255),
        st.binary(min_size=1, max_size=12),
    ),
    min_size=1,
    max_size=8,
)


def edited(data, edits):
    damaged = bytearray(data)
    for kind, where, within, value, extra in edits:
        at = int(where * (min(len(damaged), within) - 1))
        match kind:
            case "set":
                damaged[at : at + 1] = bytes([value])
            case "flip":
                damaged[at : at + 1] = bytes([damaged[at] ^ (1 << value % 8)]) if damaged else b""
            case "cut":
                del damaged[at : at + 1 + value % 16]
            case "add":
                damaged[at:at] = extra
            case "end":
                del damaged[max(at, 1) :]
        if not damaged:
            return b"\0"
    return bytes(damaged)


@settings(max_examples=400, deadline=None)
@given(number=st.integers(0, 11), edits=EDITS, reading=st.sampled_from(READINGS), frame=st.sampled_from([0, 0, 1]))
def test_damaged_files_give_an_image_or_an_image_decode_error_and_nothing_else(number, edits, reading, frame):
    outcome(edited(golden()[number], edits), reading, frame)


@settings(max_examples=100, deadline=None)
@given(number=st.integers(0, 11), edits=EDITS)
def test_images_in_damaged_files_are_counted_without_an_error(tmp_path_factory, number, edits):
    path = tmp_path_factory.getbasetemp() / "damaged"
    data = edited(golden()[number], edits)
    path.write_bytes(data)
    assert 1 <= count_frames(str(path)) <= len(data)


def test_the_libraries_say_nothing_of_their_own(capfd):
    handlers = logging.getLogger().handlers
    for data in golden():
        for cut in (3, 2):
            outcome(data[: len(data) * cut // 4], READINGS[1], 0)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == handlers


@pytest.mark.parametrize(("error", "reason"), [(NotImplementedError, "unsupported"), (ValueError, "corrupt")])
def test_a_decoder_that_lacks_something_is_told_by_its_kind_of_error(error, reason):
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    assert explained(error("mode 7"), buffer.getvalue()).reason == reason
