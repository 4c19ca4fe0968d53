"""Names of the feature files of one pass."""

import pytest

from featx.errors import UsageError
from featx.spec import FeatureRequest
from featx.store.output_names import output_paths

RESNET, VIT = FeatureRequest("resnet50"), FeatureRequest("vit_b_16")


def names(source, output, *requests, many=True):
    return [str(path) for path in output_paths(source, output, requests, many=many)]


def test_a_name_is_taken_as_it_is():
    assert names("photos", "cache/x.h5", RESNET, many=False) == ["cache/x.h5"]
    assert names("photos", "cache/{x}.h5", RESNET, many=False) == ["cache/{x}.h5"]


def test_a_folder_gets_files_named_after_source_and_backbone_and_node(tmp_path):
    folder = str(tmp_path)
    assert names("photos/", folder, RESNET, VIT) == [f"{folder}/photos-resnet50.h5", f"{folder}/photos-vit_b_16.h5"]
    assert names("a/scans.csv", "new/", RESNET, VIT)[0] == "new/scans-resnet50.h5"
    nodes = FeatureRequest("resnet50", node="layer4.2"), FeatureRequest("resnet50", node="fc:input")
    assert names("photos", "new/", *nodes) == ["new/photos-resnet50-layer4.2.h5", "new/photos-resnet50-fc-input.h5"]


def test_what_can_be_no_part_of_a_name_is_replaced():
    own, timm = FeatureRequest("my.nets:small"), FeatureRequest("timm:hf_hub:a/b")
    assert names("s3://bucket/train-{00..12}.tar", "out/", own, timm) == [
        "out/train-00..12-my.nets-small.h5",
        "out/train-00..12-timm-hf_hub-a-b.h5",
    ]
    assert names([1, 2], "out/", own) == ["out/features-my.nets-small.h5"]
    assert names(".", "out/", own) == ["out/features-my.nets-small.h5"]


def test_placeholders_are_filled():
    requests = FeatureRequest("resnet50", "w/mine.pth", "layer4"), FeatureRequest("resnet50", "random:1")
    assert names("x", "{backbone}/{node}-{weights}.h5", *requests) == [
        "resnet50/layer4-mine.h5",
        "resnet50/default-random-1.h5",
    ]


@pytest.mark.parametrize(
    ("output", "requests", "words"),
    [
        ("x.h5", (RESNET, VIT), "try -o 'x-{backbone}.h5'"),
        ("x/", (RESNET, FeatureRequest("resnet50", "random")), "{weights}"),
        ("x-{backbone}.h5", (RESNET, RESNET), "asked for twice"),
        ("./{backbone}.h5", (FeatureRequest("a:b"), FeatureRequest("a-b")), "more than one"),
    ],
)
def test_two_files_of_one_name_are_refused_with_a_name_that_would_do(output, requests, words):
    with pytest.raises(UsageError) as refused:
        names("photos", output, *requests)
    assert words in str(refused.value)


def test_a_folder_is_no_name_for_a_single_request(tmp_path):
    for output in ("", ".", str(tmp_path), "new/"):
        with pytest.raises(UsageError, match=r"name the file, as in .*features\.h5"):
            names("photos", output, RESNET, many=False)


def test_the_source_is_never_an_output(tmp_path):
    table = tmp_path / "resnet50.csv"
    table.write_text("path\n")
    with pytest.raises(UsageError, match="SOURCE itself"):
        names(table, tmp_path / "{backbone}.csv", RESNET, VIT)
