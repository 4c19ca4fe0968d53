"""Texts with several labels, and what is wrong with some of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featx.errors import LabelsError, UsageError
from featx.learn.multilabel.labels import (
    LabelSyntax,
    check_labels,
    count_units,
    find_small_labels,
    mark_known,
    read_labels,
)

SYNTAX = LabelSyntax()


def read(texts, syntax=SYNTAX):
    return read_labels(texts, [f"{i}.png" for i in range(len(texts))], syntax)


def test_labels_are_split_stripped_and_counted_once():
    table = read(["fox;snow", " snow ; fox;fox", "none", "tree;"])
    assert table.names == ["fox", "snow", "tree"]
    np.testing.assert_array_equal(table.marks, [[1, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]])


NAMES = st.text("aé|, \t", min_size=1).map(str.strip).filter(bool)


@given(st.lists(st.sets(NAMES), min_size=1))
def test_written_labels_are_read_again(sets):
    table = read(["x;y", *(SYNTAX.join(sorted(one)) for one in sets)])
    assert read(table.texts(SYNTAX)).names == table.names
    assert [set(np.array(table.names)[row]) for row in table.marks] == [{"x", "y"}, *sets]


def test_the_separator_is_guessed_where_it_divides_nothing():
    with pytest.raises(LabelsError, match=r"into 3 labels: try --label-separator '\|'"):
        read(["fox|snow", "fox", "fox|tree", "snow|tree"])


def test_names_with_another_separator_in_them_are_left_alone_where_it_helps_nothing():
    assert read(["Smith, J", "Doe, A", "none"]).names == ["Doe, A", "Smith, J"]


@pytest.mark.parametrize(
    ("texts", "match"),
    [
        (["fox;snow", ";"], "'1.png' has the label ';', which names nothing"),
        (["fox;snow", "fox;none"], "'1.png' has 'none', the word for no label, beside others: 'fox;none'"),
        (["none", "none"], "no sample has any label: all 2 say 'none'"),
    ],
)
def test_bad_labels_are_named(texts, match):
    with pytest.raises(LabelsError, match=match):
        read(texts)


@pytest.mark.parametrize("options", [{"separator": ""}, {"none": " "}, {"none": "a;b"}])
def test_a_syntax_that_cannot_be_read_is_refused(options):
    with pytest.raises(UsageError):
        LabelSyntax(**options)


def test_labels_of_no_place_in_the_vocabulary_are_listed():
    marks, unknown = mark_known(["fox;wolf", "none", ""], ["fox", "snow"], SYNTAX)
    np.testing.assert_array_equal(marks, [[True, False], [False, False], [False, False]])
    assert unknown == ["wolf"]


def test_labels_are_counted_by_group():
    table = read(["a;b", "a", "b", "b;c"])
    np.testing.assert_array_equal(count_units(table.marks, None), [2, 3, 1])
    np.testing.assert_array_equal(count_units(table.marks, np.array([0, 0, 0, 1])), [1, 2, 1])


def test_rare_labels_and_those_on_every_sample_are_named_or_left_out():
    table = read(["a;all", "a;all;b", "all", "all"])
    with pytest.raises(
        LabelsError, match=r"'all' is lacking in 0, 'b' is in 1; .* --min-per-class 2 \(leaves out 2 of 3"
    ):
        check_labels(table, None, n_splits=2)
    assert find_small_labels(table, 2) == ["all", "b"]
    assert table.without(["all", "b"]).names == ["a"]
    with pytest.raises(LabelsError, match="leaves out all 3 labels"):
        find_small_labels(table, 3)
