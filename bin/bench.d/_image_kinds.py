"""Sound image files of every format that featx reads, and the door by which they come in."""

import importlib.util
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (45, 37)


def photo(mode: str = "RGB", seed: int = 0, size: tuple[int, int] = SIZE) -> Image.Image:
    """Smooth colours with some noise."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    rng = np.random.default_rng(seed)
    waves = 120 + 90 * np.sin(np.stack([x / 5, y / 4, (x + y) / 7], -1) + rng.uniform(0, 6, 3))
    image = Image.fromarray((waves + rng.normal(0, 6, waves.shape)).clip(0, 255).astype(np.uint8))
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode == "F":
        return Image.fromarray(np.asarray(image.convert("L"), np.float32) / 255)
    if mode == "RGBA":
        image.putalpha(image.convert("L"))
    return image if mode == "RGBA" else image.convert(mode)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def jpegs() -> Iterator[bytes]:
    yield _saved(photo(), "JPEG", quality=90)
    yield _saved(photo(), "JPEG", progressive=True, optimize=True, subsampling=0)
    yield _saved(photo("L"), "JPEG", exif=_turned())
    yield _saved(photo("CMYK"), "JPEG", restart_marker_blocks=2)
    yield _saved(photo(), "MPO", save_all=True, append_images=[photo(seed=1)])


def pngs() -> Iterator[bytes]:
    yield _saved(photo(), "PNG", exif=_turned())
    yield _saved(photo("RGBA"), "PNG")
    yield _saved(photo("I;16"), "PNG")
    yield _saved(photo("P"), "PNG", transparency=3)
    yield _saved(photo("1"), "PNG")
    yield _saved(photo(), "PNG", save_all=True, append_images=[photo(seed=1)], duration=10)


def tiffs() -> Iterator[bytes]:
    yield _saved(photo(), "TIFF", exif=_turned())
    yield _saved(photo(), "TIFF", compression="tiff_lzw")
    yield _saved(photo(), "TIFF", compression="jpeg")
    yield _saved(photo(), "TIFF", compression="tiff_adobe_deflate", tile=(16, 16))
    yield _saved(photo("1"), "TIFF", compression="group4")
    yield _saved(photo("I;16"), "TIFF", compression="packbits")
    yield _saved(photo("F"), "TIFF", save_all=True, append_images=[photo("F", 1), photo("RGB", 2)])
    yield _saved(photo("LAB"), "TIFF")
    if importlib.util.find_spec("tifffile"):
        import tifffile

        bands = np.stack([np.asarray(photo("I;16", seed)) for seed in range(6)], -1)
        for options in ({}, {"bigtiff": True, "byteorder": ">"}, {"planarconfig": "separate"}, {"tile": (16, 16)}):
            buffer = io.BytesIO()
            array = bands.transpose(2, 0, 1) if "planarconfig" in options else bands
            tifffile.imwrite(
                buffer,
                array,
                photometric="minisblack",
                compression="zlib",
                predictor=True,
                **({"planarconfig": "contig"} | options),
            )
            yield buffer.getvalue()


def webps() -> Iterator[bytes]:
    yield _saved(photo(), "WEBP", quality=80)
    yield _saved(photo("RGBA"), "WEBP", lossless=True, exif=_turned())
    yield _saved(photo(), "WEBP", save_all=True, append_images=[photo(seed=1)], duration=10)


def gifs() -> Iterator[bytes]:
    yield _saved(photo("P"), "GIF")
    yield _saved(photo("P"), "GIF", save_all=True, append_images=[photo("P", 1), photo("P", 2)], transparency=3)


def others() -> Iterator[bytes]:
    """Formats of which there are few files."""
    for mode in ("RGB", "P", "1", "L"):
        yield _saved(photo(mode), "BMP")
    yield _saved(photo(), "JPEG2000")
    yield _saved(photo("L"), "JPEG2000", no_jp2=True)
    yield _saved(photo(), "AVIF")
    yield _saved(photo("RGBA"), "AVIF", save_all=True, append_images=[photo("RGBA", 1)])
    yield _saved(photo(), "PPM")
    yield _saved(photo("I;16"), "PPM")
    yield _saved(photo("P"), "PCX")
    yield _saved(photo(), "SGI")
    yield _saved(photo("RGBA"), "QOI")
    yield _saved(photo("RGBA"), "ICO", sizes=[(32, 32), (16, 16)])


def heics() -> Iterator[bytes]:
    import pillow_heif

    for images in ([photo()], [photo("RGBA", size=(64, 48)), photo(seed=1, size=(64, 48))]):
        file = pillow_heif.HeifFile()
        for image in images:
            file.add_from_pillow(image)
        buffer = io.BytesIO()
        file.save(buffer, quality=-1)
        yield buffer.getvalue()


def can_write_heic() -> bool:
    if importlib.util.find_spec("pillow_heif") is None:
        return False
    import pillow_heif

    return bool(pillow_heif.libheif_info()["HEIF"])


def dicoms() -> Iterator[bytes]:
    from pydicom import uid

    grey, deep = np.asarray(photo("L")), np.asarray(photo("I;16"))
    yield _dicom(deep, uid.ExplicitVRLittleEndian, WindowCenter=30000, WindowWidth=20000, RescaleSlope=2)
    yield _dicom(grey, uid.ImplicitVRLittleEndian, PatientID="p1", PhotometricInterpretation="MONOCHROME1")
    yield _dicom(np.asarray(photo()), uid.RLELossless)
    yield _dicom(np.stack([deep, deep]), uid.RLELossless, NumberOfFrames=2)


def _dicom(array: np.ndarray, syntax: Any, **elements: Any) -> bytes:
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    compressed = syntax.is_compressed
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if compressed else syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3.4"
    shape = array.shape[1:] if "NumberOfFrames" in elements else array.shape
    dataset.Rows, dataset.Columns = shape[:2]
    dataset.SamplesPerPixel = shape[2] if len(shape) == 3 else 1
    if dataset.SamplesPerPixel == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if dataset.SamplesPerPixel == 3 else "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * array.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.PixelData = array.tobytes()
    dataset["PixelData"].VR = "OB" if array.dtype.itemsize == 1 else "OW"
    if compressed:
        dataset.compress(syntax, generate_instance_uid=False)
    buffer = io.BytesIO()
    syntax = dataset.file_meta.TransferSyntaxUID
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    return buffer.getvalue()


def writer(suffix: str, make: Callable[[], Iterator[bytes]]) -> Callable[[Path], list[Path]]:
    """Return what writes the files of one format into a folder."""

    def write(folder: Path) -> list[Path]:
        paths = []
        for number, data in enumerate(make()):
            paths.append(folder / f"{number}{suffix}")
            paths[-1].write_bytes(data)
        return paths

    return write


def read_image(path: Path) -> None:
    """Count a file's images and decode the first three in every way there is, as a decoding process does."""
    from featx.manifest.source import SourceOptions, read_source
    from featx.spec import Preprocess
    from featx.store.records import OK, REASONS
    from featx.vision.pixels import PixelPlan, frame_of, read_file
    from featx.vision.reading import NVJPEG

    plain = {"resize": (24,), "crop": (16, 16), "mean": (), "std": ()}
    ways: list[dict[str, Any]] = [
        {},
        {"window": (0.0, 3000.0)},
        {"percentiles": (1.0, 99.0)},
        {"bands": (3, 2, 1)},
        {"decoder": "pillow-draft"},
        {"decoder": NVJPEG},
    ]
    plans = [PixelPlan(Preprocess(**(plain | way))) for way in ways]
    plans.append(PixelPlan(plans[0].preprocess, ("hflip",)))
    plans.append(PixelPlan(plans[0].preprocess, whole=True))
    manifest = read_source(path, SourceOptions(frames="all"))
    failure, n_good = "", 0
    for position in range(min(3, len(manifest))):
        place, key = manifest.paths[position], manifest.keys[position]
        for plan, outcome in zip(plans, read_file(place, key, frame_of(manifest, position), plans), strict=True):
            if (outcome.entry.status == OK) != (outcome.pixels is not None):
                raise AssertionError(f"{outcome.entry} does not say whether there are pixels")
            if outcome.pixels is None:
                code = outcome.entry.reason.partition(":")[0]
                if code not in REASONS:
                    raise AssertionError(f"{outcome.entry.reason!r} is no reason")
                failure = failure or outcome.entry.reason
            elif plan.preprocess.decoder != NVJPEG:
                n_good += 1
                if not plan.whole and outcome.pixels.shape != (1, 3, 16, 16):
                    raise AssertionError(f"pixels are {outcome.pixels.shape}")
    if not n_good:
        raise FailedRow(failure)


class FailedRow(Exception):  # noqa: N818  no error: as it should be
    """An image became a failed row, which is what is to become of it."""
