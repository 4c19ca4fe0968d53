"""What becomes of DICOM files, made with pydicom: stored values, modality values, windows, colours, frames."""

import io
import struct
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from featx.errors import ImageDecodeError
from featx.vision.images import extension_note, open_rgb
from featx.vision.reading import Reading

pydicom = pytest.importorskip("pydicom")

from dicom_files import compressed, dicom, photo  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402  after importorskip
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import (  # noqa: E402
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

SLICE = np.arange(-1024, 3072, dtype=np.int16).reshape(64, 64)


def rgb(data, frame=0, **options):
    return np.asarray(open_rgb(data, Reading(**options), frame=frame)[0])


def grey(data, frame=0, **options):
    pixels = rgb(data, frame, **options)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def failure(data, frame=0, **options):
    with pytest.raises(ImageDecodeError) as caught:
        open_rgb(data, Reading(**options), frame=frame)
    return caught.value


def item(**elements):
    dataset = Dataset()
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


# ---- from stored values to grey


def test_without_any_window_the_stored_bits_give_black_and_white():
    assert (grey(dicom(SLICE)) == np.rint((SLICE + 32768.0) * 255 / 65535)).all()
    values = np.array([[0, 2047, 4095]], np.uint16)
    assert grey(dicom(values, bits=12)).tolist() == [[0, 127, 255]]
    signed = np.array([[-2048, 0, 2047]], np.int16)
    assert grey(dicom(signed, bits=12)).tolist() == [[0, 128, 255]]


def test_bits_above_those_stored_are_not_looked_at():
    dirty = np.array([[0xF000, 0x5FFF]], np.uint16)  # overlays of old
    assert grey(dicom(dirty, bits=12)).tolist() == [[0, 255]]
    negative = np.array([[0x0FFF, 0x0800]], np.uint16)  # -1 and -2048 in 12 bits, not extended
    assert grey(dicom(negative, bits=12, PixelRepresentation=1), window=(-2048, 0)).tolist() == [[255, 0]]


def test_a_window_of_the_user_is_in_rescaled_units_and_beats_the_one_in_the_file():
    stored = np.array([[0, 1024, 1064, 1424, 4000]], np.uint16)
    data = dicom(stored, RescaleSlope="1", RescaleIntercept="-1024", WindowCenter="500", WindowWidth="2000")
    assert grey(data, window=(0, 400)).tolist() == [[0, 0, 26, 255, 255]]
    assert grey(data).tolist() != grey(data, window=(0, 400)).tolist()


def linear(x, c, w):
    """PS3.3 C.11.2.1.2.1, word by word."""
    if x <= c - 0.5 - (w - 1) / 2:
        return 0
    if x > c - 0.5 + (w - 1) / 2:
        return 255
    return ((x - (c - 0.5)) / (w - 1) + 0.5) * 255


def linear_exact(x, c, w):
    """PS3.3 C.11.2.1.3.2."""
    if x <= c - w / 2:
        return 0
    if x > c + w / 2:
        return 255
    return ((x - c) / w + 0.5) * 255


def sigmoid(x, c, w):
    """PS3.3 C.11.2.1.3.1."""
    return 255 / (1 + np.exp(np.minimum(-4 * (x - c) / w, 700)))


@settings(max_examples=60, deadline=None)
@given(
    function=st.sampled_from([None, "LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    centre=st.integers(-900, 2000),
    width=st.sampled_from([1, 2, 3, 80, 400, 2000, 4096]),
    slope=st.sampled_from([1, 2, 0.5, -1]),
    intercept=st.sampled_from([0, -1024, 7]),
)
def test_the_window_in_the_file_follows_the_formula_that_it_names(function, centre, width, slope, intercept):
    stored = SLICE[::8, ::8]
    named = {} if function is None else {"VOILUTFunction": function}
    data = dicom(
        stored, WindowCenter=centre, WindowWidth=width, RescaleSlope=slope, RescaleIntercept=intercept, **named
    )
    formula = {"LINEAR_EXACT": linear_exact, "SIGMOID": sigmoid}.get(function, linear)
    expected = [[formula(float(value) * slope + intercept, centre, width) for value in row] for row in stored]
    assert np.abs(grey(data) - np.array(expected)).max() <= 0.5 + 1e-9


def test_the_first_of_several_windows_counts():
    both = dicom(SLICE, WindowCenter=["40", "600"], WindowWidth=["80", "2000"])
    assert (grey(both) == grey(dicom(SLICE, WindowCenter="40", WindowWidth="80"))).all()


@pytest.mark.parametrize("width", ["0", "-5", "0.5"])
def test_a_window_that_is_none_is_as_if_it_were_not_there(width):
    data = dicom(SLICE, WindowCenter="40", WindowWidth=width)
    assert (grey(data) == grey(dicom(SLICE))).all()
    assert (grey(data, percentiles=(1, 99)) == grey(dicom(SLICE), percentiles=(1, 99))).all()


def test_percentiles_are_for_files_without_a_window_of_their_own():
    low, high = np.percentile(SLICE, (5, 95))
    expected = np.rint(np.clip((SLICE - low) * 255 / (high - low), 0, 255))
    assert np.abs(grey(dicom(SLICE), percentiles=(5, 95)) - expected).max() <= 1
    windowed = dicom(SLICE, WindowCenter="40", WindowWidth="400")
    assert (grey(windowed, percentiles=(5, 95)) == grey(windowed)).all()


def test_monochrome1_is_inverted_last():
    for options in ({}, {"window": (0, 400)}, {"percentiles": (3, 97)}):
        negative = grey(dicom(SLICE, kind="MONOCHROME1"), **options)
        assert (negative == 255 - grey(dicom(SLICE), **options)).all()


def test_8_bit_grey_is_windowed_too_because_its_numbers_mean_something():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (grey(dicom(values)) == values).all()
    assert grey(dicom(values), window=(100, 101)).mean() > 150


def test_a_modality_table_and_a_voi_table_are_applied():
    stored = np.array([[0, 1, 2, 3]], np.uint8)
    modality = item(LUTDescriptor=[4, 0, 16], ModalityLUTType="US", LUTData=struct.pack("<4H", 0, 100, 65535, 7))
    data = dicom(stored, bits=2, ModalityLUTSequence=Sequence([modality]))
    assert grey(data).tolist() == [[0, 0, 255, 0]]
    assert grey(data, window=(0, 200)).tolist() == [[0, 128, 255, 9]]
    voi = item(LUTDescriptor=[4, 0, 8], LUTData=struct.pack("<4H", 255, 9, 7, 0))
    assert grey(dicom(stored, bits=2, VOILUTSequence=Sequence([voi]))).tolist() == [[255, 9, 7, 0]]


def test_float_pixels_map_0_to_1_or_need_a_window():
    values = np.array([[0, 0.5, 1]], np.float32)
    elements = {"PixelData": b"", "BitsAllocated": 32}

    def floats(array):
        data = pydicom.dcmread(io.BytesIO(dicom(array, **elements)))
        del data.PixelData
        for name in ("BitsStored", "HighBit", "PixelRepresentation"):
            delattr(data, name)
        data.FloatPixelData = array.tobytes()
        buffer = io.BytesIO()
        data.save_as(buffer)
        return buffer.getvalue()

    assert grey(floats(values)).tolist() == [[0, 128, 255]]
    assert failure(floats(values * 9)).reason == "out-of-window"
    assert grey(floats(values * 9), window=(0, 9)).tolist() == [[0, 128, 255]]


# ---- encodings


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_every_encoding_gives_the_same(syntax):
    assert (grey(dicom(SLICE, syntax=syntax)) == grey(dicom(SLICE))).all()


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_lossless_compression_gives_the_same(syntax):
    if syntax == JPEG2000Lossless:
        buffer = io.BytesIO()
        values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
        Image.fromarray(values).save(buffer, "JPEG2000", no_jp2=True)
        packed = dicom(values, syntax=syntax, bits=16, PixelData=encapsulate([buffer.getvalue()]))
        assert (grey(packed) == grey(dicom(values))).all()
    else:
        assert (grey(compressed(SLICE, syntax)) == grey(dicom(SLICE))).all()


def test_jpeg_baseline_gives_about_the_picture():
    image = photo(64, 48)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)
    data = dicom(image, syntax=JPEGBaseline8Bit, kind="YBR_FULL", PixelData=encapsulate([buffer.getvalue()]))
    assert np.abs(rgb(data).astype(int) - image).mean() < 3


JPIPReferenced = UID("1.2.840.10008.1.2.4.94")  # the pixels are elsewhere


def test_a_transfer_syntax_that_nobody_decodes_is_named():
    error = failure(dicom(SLICE, syntax=JPIPReferenced, PixelData=encapsulate([b"\0" * 8])))
    assert (error.reason, error.detail) == ("unsupported", f"transfer syntax {JPIPReferenced.name}")


def test_a_transfer_syntax_without_its_decoder_names_what_it_needs():
    data = dicom(SLICE, syntax=JPEGLosslessSV1, PixelData=encapsulate([b"\xff\xd8\xff\xd9"]))
    if pydicom.pixels.get_decoder(JPEGLosslessSV1).is_available:
        pytest.skip("this machine has the decoder")
    error = failure(data)
    assert error.reason == "unsupported"
    assert error.detail.startswith("transfer syntax JPEG Lossless")
    assert "pylibjpeg-libjpeg" in error.detail
    assert error.missing


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, pydicom.uid.ExplicitVRLittleEndian])
def test_files_without_the_preamble_are_known_by_their_first_tag(syntax):
    data = dicom(SLICE, syntax=syntax)
    start = 132 + 12 + struct.unpack_from("<I", data, 140)[0]
    bare, with_meta = data[start:], data[132:]
    assert (grey(bare) == grey(data)).all()
    assert (grey(with_meta) == grey(data)).all()


# ---- colour


def test_rgb_side_by_side_and_in_planes():
    image = photo()
    assert (rgb(dicom(image, kind="RGB")) == image).all()
    planes = dicom(image, kind="RGB", PlanarConfiguration=1, PixelData=image.transpose(2, 0, 1).tobytes())
    assert (rgb(planes) == image).all()
    assert (rgb(dicom(image, kind="RGB"), window=(0, 9), bands=(3, 2, 1)) == image).all()


def test_rgb_of_16_bits_keeps_its_upper_8_or_follows_the_window():
    image = photo().astype(np.uint16) * 256 + 17
    assert (rgb(dicom(image, kind="RGB")) == photo()).all()
    assert rgb(dicom(image, kind="RGB"), window=(0, 256)).min() == 255


def test_ybr_is_converted():
    image = photo()
    converted = np.asarray(Image.fromarray(image).convert("YCbCr"))
    assert np.abs(rgb(dicom(converted, kind="YBR_FULL")).astype(int) - image).max() <= 3


def test_a_palette_gives_its_colours():
    stored = np.array([[0, 1, 2]], np.uint8)
    tables = {}
    for colour, values in {"Red": [0, 128, 255], "Green": [9, 0, 3], "Blue": [0, 255, 7]}.items():
        tables[f"{colour}PaletteColorLookupTableDescriptor"] = [3, 0, 16]
        tables[f"{colour}PaletteColorLookupTableData"] = struct.pack("<3H", *(value * 257 for value in values))
    data = dicom(stored, kind="PALETTE COLOR", **tables)
    assert rgb(data).tolist() == [[[0, 9, 0], [128, 0, 255], [255, 3, 7]]]


# ---- frames


def test_each_frame_is_read_alone():
    frames = np.stack([np.full((4, 5), value, np.uint8) for value in (0, 100, 255)])
    data = dicom(frames, NumberOfFrames=3)
    assert [int(grey(data, frame)[0, 0]) for frame in range(3)] == [0, 100, 255]
    assert failure(data, 3).reason == "corrupt"
    packed = compressed(frames, RLELossless, NumberOfFrames=3)
    assert [int(grey(packed, frame)[0, 0]) for frame in range(3)] == [0, 100, 255]


def test_values_of_a_frame_beat_those_of_all_frames_and_those_of_the_file():
    def rescale(intercept):
        values = item(RescaleSlope="1", RescaleIntercept=str(intercept), RescaleType="HU")
        return {"PixelValueTransformationSequence": Sequence([values])}

    def window(centre):
        return {"FrameVOILUTSequence": Sequence([item(WindowCenter=str(centre), WindowWidth="11")])}

    frames = np.full((2, 3, 3), 100, np.uint8)
    enhanced = dicom(
        frames,
        NumberOfFrames=2,
        SharedFunctionalGroupsSequence=Sequence([item(**window(50.5))]),
        PerFrameFunctionalGroupsSequence=Sequence([item(**rescale(-45)), item(**rescale(-55), **window(40.5))]),
        WindowCenter="1000",
        WindowWidth="1",
    )
    # 100 - 45 = 55 is the upper end of 45 ... 55; 100 - 55 = 45 that of 35 ... 45
    assert grey(enhanced, 0)[0, 0] == grey(enhanced, 1)[0, 0] == 255


# ---- failures


def test_a_report_without_pixels_is_unsupported():
    data = pydicom.dcmread(io.BytesIO(dicom(SLICE)))
    del data.PixelData
    buffer = io.BytesIO()
    data.save_as(buffer)
    error = failure(buffer.getvalue())
    assert (error.reason, error.detail) == ("unsupported", "DICOM without pixels")


def test_a_file_that_is_cut_off_is_truncated():
    data = dicom(SLICE)
    assert failure(data[: len(data) // 2]).reason == "truncated"


def test_bombs_are_refused_before_memory_is_taken(monkeypatch):
    small = np.zeros((2, 2), np.uint8)
    assert failure(dicom(small, Rows=65535, Columns=65535)).reason == "bomb"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    packed = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    data = dicom(small, syntax=DeflatedExplicitVRLittleEndian)
    start = 144 + struct.unpack_from("<I", data, 140)[0]
    bomb = b"".join([data[:start], packed.compress(bytes(100_000)), packed.flush()])
    assert len(bomb) < 2_000
    assert failure(bomb).reason == "bomb"


def test_without_pydicom_it_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    error = failure(dicom(SLICE))
    assert (error.reason, error.detail) == ("unsupported", "DICOM needs pip install 'featx[formats]'")


def test_the_ledger_is_told_format_and_kind():
    _, facts = open_rgb(dicom(SLICE, kind="MONOCHROME1"))
    assert (facts.format, facts.mode, facts.width, facts.height) == ("DICOM", "MONOCHROME1", 64, 64)
    assert extension_note("a.dcm", "DICOM") == ""
    assert extension_note("a.jpg", "DICOM") == "dicom named .jpg"
    assert extension_note("a.IMA", "JPEG") == "jpeg named .ima"
