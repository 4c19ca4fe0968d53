"""DICOM files for tests, made with pydicom."""

import io

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid


def dicom(array, *, syntax=ExplicitVRLittleEndian, bits=None, kind="MONOCHROME2", preamble=True, **elements):
    """Write one file: array (height, width), (height, width, 3), or with `NumberOfFrames` (frames, height, width)."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    frames = elements.get("NumberOfFrames")
    shape = array.shape[1:] if frames else array.shape
    dataset.Rows, dataset.Columns = shape[:2]
    dataset.SamplesPerPixel = shape[2] if len(shape) == 3 else 1
    if dataset.SamplesPerPixel == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = kind
    dataset.BitsAllocated = 8 * array.dtype.itemsize
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(array.dtype.kind == "i")
    for name, value in elements.items():
        setattr(dataset, name, value)
    if "PixelData" not in elements:
        dataset.PixelData = array.astype(
            array.dtype.newbyteorder(">" if not syntax.is_little_endian else "<")
        ).tobytes()
        dataset["PixelData"].VR = "OB" if array.dtype.itemsize == 1 else "OW"
    buffer = io.BytesIO()
    pydicom.dcmwrite(
        buffer,
        dataset,
        enforce_file_format=preamble,
        implicit_vr=syntax.is_implicit_VR,
        little_endian=syntax.is_little_endian,
    )
    return buffer.getvalue()


def compressed(array, syntax, **elements):
    """Write one file that pydicom compresses."""
    dataset = pydicom.dcmread(io.BytesIO(dicom(array, **elements)))
    dataset.compress(syntax, generate_instance_uid=False)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def photo(height=12, width=9, seed=0):
    """Smooth colours."""
    y, x = np.mgrid[0:height, 0:width]
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    return (127 + 120 * np.sin(np.stack([x / 3, y / 4, (x + y) / 5], -1) + phase)).astype(np.uint8)
