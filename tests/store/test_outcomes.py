import dataclasses
import io
import tracemalloc

import h5py
import numpy as np
import pytest
import store_samples as samples
from hypothesis import given, settings
from hypothesis import strategies as st

from featx.store.accounts import Accounts, read_accounts, write_accounts
from featx.store.outcomes import KeyIndex, Outcomes
from featx.store.records import FAILED, OK, LedgerEntry

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
NUMBER = st.integers(0, 2**63 - 1)
SHA256 = st.integers(1, 6).map(lambda i: samples.sha256(str(i)))
ENTRY = st.builds(
    LedgerEntry,
    key=st.sampled_from("abcdefgh"),
    status=st.sampled_from([OK, FAILED]),
    reason=TEXT,
    sha256=SHA256,
    bytes=NUMBER,
    mtime_ns=NUMBER,
    format=TEXT,
    width=NUMBER,
    height=NUMBER,
    mode=TEXT,
) | st.builds(LedgerEntry, key=st.sampled_from("abcdefgh"), status=st.just(FAILED), reason=TEXT)


@given(st.lists(ENTRY, max_size=8))
def test_accounts_are_like_a_list_of_their_entries(entries):
    accounts = Accounts.of(entries)
    assert list(accounts) == [accounts[i] for i in range(len(entries))] == accounts[:] == entries
    assert accounts[1:5:2] == entries[1:5:2]


@settings(deadline=None, max_examples=25)
@given(st.lists(ENTRY, max_size=8))
def test_accounts_come_back_from_a_shard(entries):
    with h5py.File(io.BytesIO(), "w") as file:
        write_accounts(file, Accounts.of(entries))
        assert list(read_accounts(file)) == entries


@given(st.lists(st.lists(st.sampled_from([*"abcdefgh", "stranger"]), max_size=5), max_size=6))
def test_keys_are_found_in_any_order(asked):
    keys = list("abcdefgh")
    index = KeyIndex(keys)
    for some in asked:
        assert index.find(some).tolist() == [keys.index(key) if key in keys else -1 for key in some]
    assert [index.get(key) for key in ("h", "stranger")] == [7, -1]


def test_keys_that_come_in_order_are_found_without_a_table_of_all():
    keys = [f"{i:06d}" for i in range(20_000)]
    index = KeyIndex(keys)
    tracemalloc.start()
    for start in range(0, len(keys), 1000):
        assert index.find(keys[start : start + 1000])[0] == start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400_000


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(ENTRY, max_size=6), max_size=6), st.integers(1, 3))
def test_the_last_entry_of_a_sample_counts_and_rows_are_found_by_key_and_by_content(sources, n_views):
    keys = list("abcdef")  # g and h have vanished
    outcomes = Outcomes(keys, n_views=n_views)
    known, place, of_sha256 = {}, {}, {}
    for source, entries in enumerate(sources):
        outcomes.add(source, Accounts.of(entries))
        row = 0
        for entry in entries:
            known[entry.key] = entry
            place[entry.key] = (source, -1)
            if entry.status == OK:
                place[entry.key] = of_sha256[entry.sha256] = (source, row)
                row += n_views
    mapping = outcomes.as_mapping()
    assert dict(mapping) == known
    assert len(mapping) == len(known)
    assert list(mapping) == [*(key for key in keys if key in known), *(key for key in known if key in "gh")]
    assert set(outcomes.vanished) == known.keys() & {"g", "h"}
    assert outcomes.is_known.tolist() == [key in known for key in keys]
    assert outcomes.n_known == sum(key in known for key in keys)
    good = [place[key] for key in keys if key in known and known[key].status == OK]
    assert list(map(tuple, outcomes.places().tolist())) == good
    for i in range(1, 8):
        assert outcomes.place_of_sha256(samples.sha256(str(i))) == of_sha256.get(samples.sha256(str(i)))
    assert outcomes.place_of_sha256("") is None
    for name in ("bytes", "mtime_ns", "is_ok"):
        column = outcomes.column(name)[outcomes.is_known].tolist()
        field = {"is_ok": "status"}.get(name, name)
        wanted = [getattr(known[key], field) for key in keys if key in known]
        assert column == ([status == OK for status in wanted] if name == "is_ok" else wanted)
    if outcomes.n_known == len(keys):
        columns = outcomes.columns()
        for name, values in columns.items():
            assert list(values) == [getattr(known[key], name) for key in keys]


def test_refresh_takes_another_size_time_and_reason_of_the_same_bytes():
    outcomes = Outcomes(["a", "b", "c"])
    entry = LedgerEntry("a", OK, "", samples.sha256("a"), 1, 2, "PNG", 3, 4, "RGB")
    outcomes.add(0, Accounts.of([entry]))
    other = dataclasses.replace(entry, bytes=9, mtime_ns=8, reason="png named .jpg")
    assert outcomes.refresh(other)
    assert outcomes.entry(0) == other
    for refused in (
        dataclasses.replace(entry, sha256=samples.sha256("b")),
        dataclasses.replace(entry, status=FAILED),
        dataclasses.replace(entry, key="b"),
        dataclasses.replace(entry, key="stranger"),
    ):
        assert not outcomes.refresh(refused)
    assert outcomes.entry(0) == other


def test_two_digests_that_begin_alike_are_not_taken_for_one_another():
    one, other = 16 * "ab" + 32 * "0", 16 * "ab" + 32 * "1"
    outcomes = Outcomes(["a"])
    outcomes.add(0, Accounts.of([LedgerEntry("a", OK, sha256=one)]))
    assert outcomes.place_of_sha256(one) == (0, 0)
    assert outcomes.place_of_sha256(other) is None


@pytest.mark.parametrize("distinct", [True, False])
def test_a_sample_takes_a_few_hundred_bytes(distinct):
    n = 10_000
    keys = [f"{i:08d}" for i in range(n)]
    tracemalloc.start()
    outcomes = Outcomes(keys)
    for start in range(0, n, 2000):
        some = keys[start : start + 2000]
        shas = [samples.sha256(key if distinct else "same") for key in some]
        entries = [LedgerEntry(key, OK, sha256=sha, format="PNG") for key, sha in zip(some, shas, strict=True)]
        outcomes.add(start // 2000, Accounts.of(entries))
    taken = tracemalloc.get_traced_memory()[0] / n
    tracemalloc.stop()
    assert taken < (350 if distinct else 200)
    assert np.count_nonzero(outcomes.is_known) == n
