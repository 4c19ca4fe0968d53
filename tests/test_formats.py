"""DICOM files, pages and bands through the whole house: extract, fit, predict, and scikit-learn's face."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from featx.cli.main import main
from featx.errors import UnknownNameError, UsageError
from featx.estimators import ImageFeatures
from featx.extract import extract
from featx.fit import fit, save
from featx.learn.options import FitOptions
from featx.manifest.source import SourceOptions
from featx.predict import predict
from featx.spec import FeatureRequest
from featx.store.file import FeatureFile
from featx.vision.backbones import load_backbone
from featx.vision.engine import EngineOptions

IN_PROCESS = EngineOptions(num_workers=0)


@pytest.fixture
def scans(tmp_path):
    """Twelve patients of two classes with two slices each."""
    pytest.importorskip("pydicom")
    from dicom_files import dicom

    rng = np.random.default_rng(0)
    for patient in range(12):
        label = ("ill", "well")[patient % 2]
        folder = tmp_path / "scans" / label
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(2):
            slice_ = rng.normal(40 + 60 * (label == "ill"), 30, (40, 36)).astype(np.int16)
            (folder / f"{patient:02d}-{number}.dcm").write_bytes(dicom(slice_, PatientID=f"patient {patient}"))
    return tmp_path / "scans"


def run(*arguments, code=0):
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments)])
    assert end.value.code == code


def test_patients_are_the_groups_from_extraction_to_scores(scans, tmp_path, capsys):
    file = tmp_path / "scans.h5"
    run("extract", scans, "-o", file, "--backbone", "featx-mini", "--window", "-160,240", "-q")
    with FeatureFile.open(file) as features:
        assert features.group_source == "DICOM PatientID"
        assert len(set(features.groups())) == 12
        assert features.spec.preprocess.window == (-160.0, 240.0)
    few = FitOptions(cv=2, inner_cv=2, heads=("logreg",))
    result = fit(file, few)
    assert (result.groups.source, result.groups.n) == ("DICOM PatientID", 12)
    capsys.readouterr()
    run("extract", scans, "--dry-run", "--json")
    assert len(json.loads(capsys.readouterr().out)["group"]) == 12


def test_a_bundle_reads_images_as_its_features_were_read(scans, tmp_path):
    file, bundle = tmp_path / "scans.h5", tmp_path / "scans.featx"
    request = FeatureRequest("featx-mini", percentiles=(2.0, 98.0), bands=(1, 2, 3))
    extract(scans, file, request=request, engine=IN_PROCESS)
    save(fit(file, FitOptions(cv=2, inner_cv=2, heads=("logreg",))), bundle)
    from_images, from_file = predict(bundle, scans, engine=IN_PROCESS), predict(bundle, file)
    assert from_images.predicted == from_file.predicted
    np.testing.assert_allclose(from_images.probabilities, from_file.probabilities, atol=1e-6)


def test_a_file_that_needs_an_extra_is_a_failure_that_is_tried_again_once_it_is_there(scans, tmp_path, monkeypatch):
    file, request = tmp_path / "scans.h5", FeatureRequest("featx-mini")
    Image.new("RGB", (40, 40)).save(scans / "well" / "photo.png")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pydicom", None)
        report = extract(scans, file, request=request, engine=IN_PROCESS)
    assert set(report.failures.values()) == {"unsupported: DICOM needs pip install 'featx[formats]'"}
    assert (report.rows, len(report.failures)) == (1, 24)
    report = extract(scans, file, request=request, engine=IN_PROCESS)
    assert (report.rows, report.failures) == (25, {})


def test_pages_are_samples_and_their_file_is_their_group(tmp_path):
    images = [Image.new("RGB", (40, 40), (i * 60, 0, 0)) for i in range(3)]
    images[0].save(tmp_path / "scan.tif", save_all=True, append_images=images[1:])
    images[0].save(tmp_path / "one.png")
    file, request = tmp_path / "out.h5", FeatureRequest("featx-mini")
    options = SourceOptions(frames="all")
    report = extract(tmp_path, file, request=request, source_options=options, engine=IN_PROCESS)
    assert (report.rows, report.computed, report.failures) == (4, 4, {})
    with FeatureFile.open(file) as features:
        keys, rows = list(features.keys()), features.features(np.arange(4))
        assert keys == ["one.png", "scan.tif#0001", "scan.tif#0002", "scan.tif#0003"]
        assert features.group_source == "file of several images"
    np.testing.assert_array_equal(rows[0], rows[1])  # the same picture, though not the same bytes
    assert np.abs(rows[1] - rows[3]).max() > 1e-3
    again = extract(tmp_path, file, request=request, source_options=options, engine=IN_PROCESS)
    assert (again.computed, again.unchanged) == (0, 4)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"decoder": "pilow"}, UnknownNameError),
        ({"window": (1.0, 2.0), "percentiles": (1.0, 99.0)}, UsageError),
        ({"bands": (1, 2)}, UsageError),
        ({"percentiles": (5.0, 101.0)}, UsageError),
    ],
)
def test_readings_that_cannot_be_are_refused_before_a_network_is_loaded(wrong, error):
    with pytest.raises(error):
        load_backbone(FeatureRequest("resnet50", weights="there-is-no-such-file.pth", **wrong))


@pytest.mark.parametrize(
    ("option", "value"),
    [("--bands", "1,2"), ("--bands", "0"), ("--bands", "red"), ("--decoder", "x"), ("--frames", "2")],
)
def test_wrong_options_name_themselves(tmp_path, capsys, option, value):
    run("extract", tmp_path, "-o", tmp_path / "x.h5", option, value, code=2)
    assert option in capsys.readouterr().err


def test_image_features_take_bands_percentiles_and_decoder(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    values = np.random.default_rng(0).integers(0, 4000, (40, 40, 6), np.uint16)
    path = tmp_path / "six.tif"
    tifffile.imwrite(path, values, photometric="minisblack", planarconfig="contig")
    transformer = ImageFeatures("featx-mini", bands=[4, 3, 2], percentiles=(0, 100), num_workers=0)
    low, high = values[..., 1:4].min(), values[..., 1:4].max()
    shown = np.rint((values[..., [3, 2, 1]] - float(low)) * 255 / (high - low)).astype(np.uint8)
    expected = ImageFeatures("featx-mini", num_workers=0).transform([shown])
    np.testing.assert_allclose(transformer.transform([path]), expected, atol=0.02)
    assert transformer.spec_.preprocess.bands == (4, 3, 2)
    assert ImageFeatures("featx-mini", decoder="pillow-draft").spec_.preprocess.decoder == "pillow-draft"
