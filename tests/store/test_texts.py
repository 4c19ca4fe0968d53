import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featx.store import texts
from featx.store.texts import Decoder, Digests, Numbered, Picked, Texts, digests_of, iter_blocks

WORDS = st.lists(st.sampled_from(["", "a", "b", "é", "long word"]), max_size=30)
SLICES = st.builds(slice, *(st.none() | st.integers(-35, 35),) * 2)
HEX = st.lists(st.sampled_from(["", *(hashlib.sha256(bytes([i])).hexdigest() for i in range(5))]), max_size=20)


def assert_like_a_list(lazy, expected, where):
    assert len(lazy) == len(expected)
    assert list(lazy) == expected
    assert lazy[where] == expected[where]
    assert [lazy[i] for i in range(-len(expected), len(expected))] == expected + expected
    with pytest.raises(IndexError):
        lazy[len(expected)]


@given(WORDS, SLICES)
def test_numbered_texts_are_like_a_list(words, where):
    table = Texts()
    assert_like_a_list(Numbered(table.numbers(words), table.texts), words, where)
    assert len(set(table.texts)) == len(table.texts) == len(set(words))


@given(HEX, SLICES)
def test_digests_are_like_a_list_of_their_hex_digits(digits, where):
    digests = digests_of(digits)
    assert (digests.shape, digests.dtype) == ((len(digits), 32), np.uint8)
    assert_like_a_list(Digests(digests), digits, where)


@given(WORDS.filter(bool), st.data())
def test_picked_items_are_like_a_list(words, data):
    positions = data.draw(st.lists(st.integers(0, len(words) - 1), max_size=20))
    picked = Picked(words, np.array(positions, np.int64))
    assert_like_a_list(picked, [words[position] for position in positions], data.draw(SLICES))


@pytest.mark.parametrize("bad", ["abc", 64 * "g", 63 * "a"])
def test_what_is_no_digest_is_a_value_error(bad):
    with pytest.raises(ValueError, match="hex"):
        digests_of(["", bad])


@given(st.lists(WORDS, max_size=5))
def test_decoded_values_are_what_was_encoded(blocks):
    decode = Decoder()
    for block in blocks:
        assert decode([word.encode() for word in block]) == block


def test_a_few_values_are_few_objects_and_names_of_their_own_are_decoded_alone():
    decode = Decoder()
    labels = decode([b"moss", b"rust"] * 50) + decode([b"moss"] * 50)
    assert len({id(label) for label in labels}) == 2
    names = [f"{i}.png" for i in range(100)]
    assert decode([name.encode() for name in names]) == names
    assert decode([b"moss"] * 2) == ["moss"] * 2


def test_blocks_are_lists_that_make_up_the_whole(monkeypatch):
    monkeypatch.setattr(texts, "BLOCK", 3)
    for n in range(8):
        blocks = list(iter_blocks(tuple(map(str, range(n)))))
        assert all(isinstance(block, list) and 0 < len(block) <= 3 for block in blocks)
        assert [text for block in blocks for text in block] == list(map(str, range(n)))
