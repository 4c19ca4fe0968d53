"""Columns of a table and facts of files as values: what is taken as it stands, put into quarters, or left out."""

import numpy as np
import pytest

from featx.learn.traits import FILE, TABLE, LeftOut, Trait, read_facts, read_trait


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ([""] * 6, "empty"),
        (["A"] * 5 + [""], "constant: 'A'"),
        ([f"case {i}" for i in range(20)], "a value of its own"),
        ([str(1000 - i) for i in range(20)], "a number of its own"),
    ],
)
def test_what_can_be_no_shortcut_is_left_out_with_the_reason(column, reason):
    found = read_trait("x", column)
    assert isinstance(found, LeftOut)
    assert (found.name, found.source) == ("x", TABLE)
    assert reason in found.reason


def test_words_and_few_numbers_stand_as_they_are():
    for column in (["A", "B", " A", ""] * 5, ["1", "2", "2.5", ""] * 5):
        found = read_trait("x", column)
        assert (found.kind, set(found.values)) == ("values", {value.strip() for value in column})


def test_many_numbers_are_put_into_quarters_and_the_unknown_stays_unknown():
    numbers = [f"{i / 2}" for i in range(40)]
    found = read_trait("age", [*numbers, ""])
    assert found.kind == "quarters"
    assert found.values[-1] == ""
    names, counts = np.unique(found.values[:-1].astype(str), return_counts=True)
    assert counts.tolist() == [10] * 4
    assert names.tolist() == ["1: 0.0 to 4.5", "2: 5.0 to 9.5", "3: 10.0 to 14.5", "4: 15.0 to 19.5"]


@pytest.mark.parametrize("form", ["{:%Y-%m-%d}", "{:%Y%m%d}", "{:%Y/%m/%d}", "{:%d.%m.%Y}", "{:%Y-%m-%dT%H:%M:%SZ}"])
def test_dates_are_put_into_quarters_of_time(form):
    days = np.datetime64("2020-11-20") + np.arange(40)
    column = [form.format(day.item()) for day in days]
    found = read_trait("day", column)
    assert found.kind == "dates in quarters"
    assert len(set(found.values)) == 4
    assert list(found.values) == sorted(found.values)
    assert found.values[0] == f"1: {column[0]} to {column[9]}"


def test_a_column_that_is_asked_for_is_no_id():
    column = [str(i) for i in range(40)]
    assert isinstance(read_trait("x", column), LeftOut)
    assert read_trait("x", column, asked=True).kind == "quarters"


@pytest.mark.parametrize("usual", ["0", "100"])
def test_a_number_that_is_nearly_always_the_same_is_told_from_the_others(usual):
    found = read_trait("x", [usual] * 200 + [f"{i}.5" for i in range(1, 12)])
    names, counts = np.unique(found.values.astype(str), return_counts=True)
    assert dict(zip(names, counts, strict=True)) == (
        {"1: 0 to 0": 200, "2: 1.5 to 11.5": 11} if usual == "0" else {"1: 1.5 to 11.5": 11, "2: 100 to 100": 200}
    )


def facts(n=40, **changes):
    values = {
        "formats": ["JPEG"] * n,
        "modes": ["RGB"] * n,
        "widths": np.full(n, 64),
        "heights": np.full(n, 48),
        "sizes": np.linspace(1000, 9000, n).astype(int),
    } | changes
    return {one.name: one for one in read_facts(**values)}


def test_facts_of_files_are_format_mode_size_aspect_and_bytes_per_pixel():
    found = facts()
    assert list(found) == ["image format", "image mode", "width x height", "aspect ratio", "bytes per pixel (JPEG)"]
    assert found["image format"] == LeftOut("image format", FILE, "constant: JPEG")
    quality = found["bytes per pixel (JPEG)"]
    assert (quality.kind, len(set(quality.values))) == ("quarters", 4)
    assert "stand-in for JPEG quality" in quality.note
    assert "no quantisation tables" in quality.note


def test_only_jpegs_have_a_quality_where_there_are_any():
    found = facts(formats=["JPEG", "PNG"] * 20)
    assert (found["bytes per pixel (JPEG)"].values != "").tolist() == [True, False] * 20
    assert isinstance(found["image format"], Trait)
    assert "bytes per pixel" in facts(formats=["PNG"] * 40)


def test_many_sizes_are_told_by_their_number_of_pixels():
    assert isinstance(facts(widths=np.array([64, 80] * 20))["width x height"], Trait)
    found = facts(widths=np.arange(64, 104))
    assert "width x height" not in found
    assert found["number of pixels"].kind == "quarters"
    assert found["number of pixels"].values[0] == f"1: {64 * 48} to {73 * 48}"


def test_what_is_not_known_is_said():
    nothing = np.zeros(4, dtype=int)
    found = facts(4, formats=[""] * 4, modes=[""] * 4, widths=nothing, heights=nothing, sizes=nothing)
    assert all(isinstance(one, LeftOut) and "not known" in one.reason for one in found.values())
    assert "several samples lie in one file" in facts(shared_files=True)["bytes per pixel (JPEG)"].reason
