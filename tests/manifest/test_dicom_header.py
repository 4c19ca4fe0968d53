"""The patient in a DICOM header as the group, where no other group is given."""

import sys

import numpy as np
import pytest

from featx.manifest.source import SourceOptions, read_source

pytest.importorskip("pydicom")

from dicom_files import dicom

IMAGE = np.zeros((4, 5), np.uint8)


@pytest.fixture
def folder(tmp_path):
    for label in ("ill", "well"):
        (tmp_path / label).mkdir()
    for name, patient in {"ill/1.dcm": "P1", "ill/2.IMA": "P1", "ill/3.dicom": "  Müller^Ä ", "well/4.dcm": ""}.items():
        (tmp_path / name).write_bytes(dicom(IMAGE, PatientID=patient))
    (tmp_path / "well/5.dcm").write_bytes(dicom(IMAGE))
    (tmp_path / "well/6.dcm").write_bytes(b"no DICOM at all")
    return tmp_path


def test_the_patient_is_the_group_and_who_has_none_is_alone(folder):
    manifest = read_source(folder)
    assert manifest.keys == ["ill/1.dcm", "ill/2.IMA", "ill/3.dicom", "well/4.dcm", "well/5.dcm", "well/6.dcm"]
    assert manifest.groups == ["P1", "P1", "Müller^Ä", "", "", ""]
    assert manifest.group_source == "DICOM PatientID"


def test_a_regex_and_a_column_are_asked_instead(folder):
    manifest = read_source(folder, SourceOptions(group_regex=r"(\d)\."))
    assert manifest.groups == list("123456")
    table = folder / "table.csv"
    table.write_text("path,group\nill/1.dcm,\nill/2.IMA,g\n")
    assert read_source(table).groups == ["", "g"]


def test_a_table_without_groups_has_patients_also_of_files_without_an_extension(folder):
    (folder / "ill/1.dcm").rename(folder / "ill/1")
    (folder / "plain").write_text("text")
    table = folder / "table.csv"
    table.write_text("path\nill/1\nplain\nnot-there\nill/3.dicom\n")
    manifest = read_source(table)
    assert manifest.groups == ["P1", "", "", "Müller^Ä"]
    assert manifest.group_source == "DICOM PatientID"


def test_frames_of_a_file_belong_to_its_patient_or_else_to_the_file(folder):
    frames = np.zeros((2, 4, 5), np.uint8)
    (folder / "ill/1.dcm").write_bytes(dicom(frames, NumberOfFrames=2, PatientID="P1"))
    (folder / "well/5.dcm").write_bytes(dicom(frames, NumberOfFrames=2))
    manifest = read_source(folder, SourceOptions(frames="all"))
    groups = dict(zip(manifest.keys, manifest.groups, strict=True))
    assert groups["ill/1.dcm#0001"] == groups["ill/1.dcm#0002"] == groups["ill/2.IMA"] == "P1"
    assert groups["well/5.dcm#0001"] == groups["well/5.dcm#0002"] == "well/5.dcm"
    assert manifest.group_source == "DICOM PatientID, else the file"


def test_without_pydicom_the_samples_stay_and_fail_later(folder, monkeypatch):
    for name in [name for name in sys.modules if name == "pydicom" or name.startswith("pydicom.")]:
        monkeypatch.setitem(sys.modules, name, None)
    manifest = read_source(folder, SourceOptions(frames="all"))
    assert len(manifest) == 6
    assert manifest.group_source == ""


def test_photographs_are_not_opened(tmp_path):
    for name in ("a.jpg", "b.png"):
        (tmp_path / name).write_bytes(dicom(IMAGE, PatientID="P1"))
    assert read_source(tmp_path).group_source == ""
