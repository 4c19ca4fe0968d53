"""The same images from a folder, tar shards, Parquet, a table and a URL give the same features."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from featx.extract import extract
from featx.manifest.source import SourceOptions
from featx.spec import FeatureRequest
from featx.store.file import FeatureFile
from featx.vision.engine import EngineOptions

REQUEST = FeatureRequest(backbone="featx-mini")
ENGINE = EngineOptions(batch_size=4, device="cpu")


@pytest.fixture(scope="module")
def images():
    """Bytes of six PNGs, and of one file that is none."""
    rng = np.random.default_rng(0)
    made = {}
    for i in range(6):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(buffer, "PNG")
        made[f"{'ants' if i % 2 else 'bees'}/{i}.png"] = buffer.getvalue()
    return made | {"ants/6.png": b"no image"}


def as_folder(folder, images):
    for key, data in images.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(data)
    return folder


def as_shards(folder, images):
    folder.mkdir(parents=True)
    for number in range(2):
        with tarfile.open(folder / f"s-{number}.tar", "w") as tar:
            for key, data in list(images.items())[number::2]:
                info = tarfile.TarInfo(key)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return f"{folder}/s-{{0..1}}.tar"


def as_parquet(folder, images):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder.mkdir(parents=True)
    columns = {
        "image": [{"bytes": data, "path": key} for key, data in images.items()],
        "label": [key.split("/")[0] for key in images],
    }
    pq.write_table(pa.table(columns), folder / "x.parquet", row_group_size=3)
    return folder / "x.parquet"


def as_url(folder, images):
    pytest.importorskip("fsspec")
    return f"file://{as_folder(folder, images)}"


def stored(path):
    """What a file holds of each image, by its content."""
    with FeatureFile.open(path) as file:
        entries, rows = file.ledger().entries(), file.ledger().row
        labels = file.ledger().label
        return {
            entry.sha256: (label, entry.status, file.features([row]).tobytes() if row >= 0 else b"")
            for entry, label, row in zip(entries, labels, rows, strict=True)
        }


@pytest.mark.parametrize("make", [as_shards, as_parquet, as_url])
def test_features_do_not_depend_on_where_the_images_are(tmp_path, images, make):
    extract(as_folder(tmp_path / "folder", images), tmp_path / "folder.h5", request=REQUEST, engine=ENGINE)
    source = make(tmp_path / "other", images)
    report = extract(source, tmp_path / "other.h5", request=REQUEST, engine=ENGINE)
    assert (report.rows, report.failures_by_reason) == (6, {"not-an-image": 1})
    # The batches are other ones: equal but for rounding, so labels and outcomes are compared first.
    one, other = stored(tmp_path / "folder.h5"), stored(tmp_path / "other.h5")
    assert {sha: found[:2] for sha, found in one.items()} == {sha: found[:2] for sha, found in other.items()}
    for sha, (_, _, row) in one.items():
        np.testing.assert_allclose(np.frombuffer(row, "f4"), np.frombuffer(other[sha][2], "f4"), atol=1e-5)

    again = extract(source, tmp_path / "other.h5", request=REQUEST, engine=ENGINE)
    assert (again.computed, again.copied, again.unchanged) == (0, 0, 7)
    few = extract(source, tmp_path / "few.h5", request=REQUEST, engine=ENGINE, source_options=SourceOptions(limit=3))
    assert few.samples == 3
