"""The kinds of file that come into featx: sound ones of each, the ways to damage them, the door they enter by."""

import importlib.util
import io
import json
import pickle
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _feature_kinds as features
import _image_kinds as images
import _mutants as mutants
import numpy as np
from _feature_kinds import CLASSES


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes
    ----------
    samples : callable
        Writes sound files into an empty folder and returns those that may be damaged; others may lie beside them.
    read : callable
        What featx does with such a file; returns what must be equal for a file that is read though it was damaged,
        or None where damage may go unnoticed.
    ways : tuple
        To damage a file; one of them is drawn.
    extra : str
        A library without which the kind does not exist.
    """

    samples: Callable[[Path], list[Path]]
    read: Callable[[Path], Any]
    ways: tuple[mutants.Way, ...] = (mutants.mutate,)
    extra: str = ""

    @property
    def is_there(self) -> bool:
        if self.extra == "pillow_heif":
            return images.can_write_heic()
        return not self.extra or importlib.util.find_spec(self.extra) is not None


# ---- sources of images


def _read_images(path: Path) -> None:
    """List the samples of a source, ask for their sizes and read their bytes."""
    from featx.manifest import source

    manifest = source.read_source(path)
    source.count_by(manifest)
    source.stat_all(manifest, range(len(manifest)))
    for position in range(min(len(manifest), 50)):
        source.sample_sha256(manifest, position)


def _write_tables(folder: Path) -> list[Path]:
    for i in range(9):
        (folder / f"{i}.png").write_bytes(next(images.pngs()))
    header = ["path", "label", "group", "split", "fold", "age"]
    rows = [[f"{i}.png", CLASSES[i % 2], f"p {i // 2}", "train", "1", "7"] for i in range(9)]
    paths = []
    for name, separator, coding in (("a.csv", ",", "utf-8"), ("b.tsv", "\t", "utf-8-sig"), ("c.csv", ";", "utf-8")):
        paths.append(folder / name)
        lines = [separator.join(f'"{word}"' if name == "c.csv" else word for word in row) for row in (header, *rows)]
        paths[-1].write_bytes("\r\n".join(lines).encode(coding))
    return paths


def _write_tars(folder: Path) -> list[Path]:
    paths = []
    for number, kind in enumerate((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        paths.append(folder / f"{number}.tar")
        with tarfile.open(paths[-1], "w", format=kind) as archive:
            for i, data in enumerate(images.pngs()):
                long = "" if kind == tarfile.USTAR_FORMAT else "a-long-name-" * 12
                about = {"label": CLASSES[i % 2], "group": i, "size": [1, 2]}
                for name, content in ((f"x/{long}{i}.png", data), (f"x/{long}{i}.json", json.dumps(about).encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return paths


def _write_parquets(folder: Path) -> list[Path]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = [*images.pngs()]
    labels = pa.array([CLASSES[i % 2] for i in range(len(data))])
    structs = pa.array([{"bytes": one, "path": f"{i}.png"} for i, one in enumerate(data)])
    numbers = pa.array([i % 2 for i in range(len(data))])
    about = {"info": {"features": {"label": {"names": CLASSES, "_type": "ClassLabel"}}}}
    tables = (
        pa.table({"image": pa.array(data, pa.binary()), "label": labels}),
        pa.table({"image": structs, "label": numbers}).replace_schema_metadata({"huggingface": json.dumps(about)}),
    )
    paths = []
    for number, table in enumerate(tables):
        paths.append(folder / f"{number}.parquet")
        pq.write_table(table, paths[-1], row_group_size=2, compression=("none", "snappy")[number])
    return paths


def _write_cifar(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (12, 3072), dtype=np.uint8), [i % 10 for i in range(12)]
    names = [f"class{i}" for i in range(10)]
    binary, pickled = folder / "bin", folder / "py"
    binary.mkdir()
    pickled.mkdir()
    records = np.hstack([np.array(labels, np.uint8)[:, None], pixels]).tobytes()
    (binary / "batches.meta.txt").write_text("\n".join(names))
    (pickled / "batches.meta").write_bytes(pickle.dumps({"label_names": names}, protocol=2))
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (binary / f"{name}.bin").write_bytes(records)
        (pickled / name).write_bytes(pickle.dumps({"data": pixels, "labels": labels}, protocol=2))
    return [
        *(binary / name for name in ("batches.meta.txt", "data_batch_1.bin")),
        *(pickled / name for name in ("batches.meta", "data_batch_1")),
    ]


def _read_beside(path: Path) -> None:
    _read_images(path.parent)


KINDS = {
    "JPEG": Kind(images.writer(".jpg", images.jpegs), images.read_image),
    "PNG": Kind(images.writer(".png", images.pngs), images.read_image, (mutants.mutate, mutants.in_png)),
    "TIFF": Kind(images.writer(".tif", images.tiffs), images.read_image),
    "WebP": Kind(images.writer(".webp", images.webps), images.read_image),
    "GIF": Kind(images.writer(".gif", images.gifs), images.read_image),
    "BMP, JPEG 2000, AVIF, ...": Kind(images.writer(".img.png", images.others), images.read_image),
    "HEIC": Kind(images.writer(".heic", images.heics), images.read_image, extra="pillow_heif"),
    "DICOM": Kind(images.writer(".dcm", images.dicoms), images.read_image, extra="pydicom"),
    "CSV": Kind(_write_tables, _read_images),
    "tar shards": Kind(_write_tars, _read_images, (mutants.mutate, mutants.in_tar)),
    "Parquet": Kind(_write_parquets, _read_images, extra="pyarrow"),
    "CIFAR-10": Kind(_write_cifar, _read_beside),
    "feature file": Kind(features.write_feature_files, features.read_feature_file),
    "stopped run": Kind(features.write_stopped_runs, features.read_stopped_run),
    "stopped run, journal": Kind(features.write_journal, features.read_stopped_run, (mutants.in_journal,)),
    "bundle": Kind(features.write_bundles, features.read_bundle, (mutants.mutate, mutants.in_zip, mutants.in_zip)),
    "safetensors": Kind(features.write_weights, features.read_weights, (mutants.mutate, mutants.in_safetensors)),
    ".pth": Kind(features.write_checkpoints, features.read_weights),
    "import .npz, .npy, .txt": Kind(features.write_arrays, features.import_file),
    "import .csv, .parquet": Kind(features.write_feature_tables, features.import_file),
    "import .h5": Kind(features.write_slides, features.import_file),
}


def copy_for_damage(sample: Path, source: Path, folder: Path) -> Path:
    """Copy a sample with what lies beside it into an emptied folder; returns the copy."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    return folder / sample.relative_to(source)
