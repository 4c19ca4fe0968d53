"""Manifests of many samples: columns that take little memory and behave like lists."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featx.manifest import columns
from featx.manifest.columns import TextColumn
from featx.manifest.record import PathsBelow
from featx.manifest.source import manifest_of, read_source, stat, stat_all


@given(st.integers(1, 8), st.sets(st.integers(0, 7)), st.builds(slice, *(st.none() | st.integers(-9, 9),) * 2))
def test_paths_below_a_root_are_like_a_list(n, elsewhere, where):
    keys = [f"{i}.jpg" for i in range(n)]
    others = {i: f"s3://{i}" for i in elsewhere if i < n}
    paths = PathsBelow("/root", keys, others)
    expected = [others.get(i, f"/root/{i}.jpg") for i in range(n)]
    assert len(paths) == n
    assert paths == expected
    assert paths != [*expected, "x"]
    assert paths != ["x", *expected[1:]]
    assert paths[where] == expected[where]
    assert [paths[i] for i in range(-n, n)] == expected + expected
    with pytest.raises(IndexError):
        paths[n]


def test_values_of_a_column_that_are_alike_are_one_object_as_long_as_they_are_few(monkeypatch):
    monkeypatch.setattr(columns, "_MOST_KNOWN", 2)
    column = TextColumn()
    given = ["".join(["mo", "ss"]), "rust", "".join(["mo", "ss"]), *(f"{i}" for i in range(5)), "".join(["ru", "st"])]
    for value in given:
        column.add(value)
    assert column.values == given
    assert column.values[0] is column.values[2]
    assert column.values[1] is column.values[-1]
    assert len(column._known) == 2


def test_stat_all_is_stat_of_each(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"four")
    manifest = manifest_of([tmp_path / "a.jpg", np.zeros((2, 2), np.uint8), tmp_path / "gone.jpg", tmp_path])
    positions = [2, 0, 1, 3, 0]
    expected = [stat(manifest, position) or (-1, -1) for position in positions]
    assert stat_all(manifest, positions).tolist() == list(map(list, expected))
    assert expected[2] == (0, 0)
    assert expected[0] == (-1, -1)
    assert stat_all(manifest, []).shape == (0, 2)


def test_a_table_of_a_folder_and_the_folder_itself_have_the_same_places(tmp_path):
    for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "table.csv").write_text("path\na/1.jpg\na/2.jpg\nb/3.jpg\n")
    folder, table = read_source(tmp_path), read_source(tmp_path / "table.csv")
    assert (folder.keys, folder.paths) == (table.keys, table.paths)
    assert table.take([2, 0]).paths == [f"{tmp_path}/b/3.jpg", f"{tmp_path}/a/1.jpg"]
