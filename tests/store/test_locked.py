"""The locked set in a feature file: who is in it, that it survives every rewriting, and that no look is ever lost."""

import dataclasses
import errno
import os

import numpy as np
import pytest
import store_samples as samples
from fault_disk import FileSystem, Recorder, crash_states
from hypothesis import given, settings
from hypothesis import strategies as st

from featx.errors import StoreError, StoreFormatError, StoreLockedError, StoreWriteError
from featx.store.file import FeatureFile
from featx.store.locked import LockedSet, Look, united
from featx.store.parts import pending
from featx.store.relock import change_locked

MANIFEST = samples.manifest(18)
LOOK = Look("2026-03-02T10:00:00Z", "a.featx", "ab" * 32, 4, 0, {"accuracy": 0.75, "roc_auc": None})


def locked(*keys, of=MANIFEST, looks=()):
    """What locks the samples of some keys, with their groups."""
    group = dict(zip(of.keys, of.groups, strict=True))
    members = tuple((key, samples.entry(key).sha256, group[key]) for key in keys)
    return LockedSet("2026-03-01T09:30:00Z", "by hand", members, of.group_source, tuple(looks))


def lock(path, one):
    with FeatureFile.open(path) as file:
        digest = file.digest
    return change_locked(path, lambda _: one, digest=digest)


def read(path):
    with FeatureFile.open(path) as file:
        return file.locked()


@pytest.fixture
def made(tmp_path):
    """A feature file of `MANIFEST` whose samples 2 and 3 (one patient) are locked, and looked at once."""
    samples.extract(tmp_path / "x.h5", MANIFEST)
    lock(tmp_path / "x.h5", locked(*MANIFEST.keys[2:4], looks=[LOOK]))
    return tmp_path / "x.h5"


# Who is locked


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from("abcdefgh"), st.sampled_from(["", "x", "y", "z"]), st.sampled_from(["", "p", "q", "r"])
        ),
        max_size=12,
        unique_by=lambda row: row[0],
    ),
    members=st.lists(
        st.tuples(
            st.sampled_from("abcdefgh"), st.sampled_from(["", "x", "y", "z"]), st.sampled_from(["", "p", "q", "r"])
        ),
        max_size=3,
    ),
    same_source=st.booleans(),
)
@settings(max_examples=200)
def test_locked_is_what_a_chain_of_keys_bytes_and_groups_joins_to_a_member(rows, members, same_source):
    one = LockedSet("", "", tuple(members), "column patient")
    source = "column patient" if same_source else "regex"
    seeds = [(key, sha, group if same_source else "") for key, sha, group in members]
    expected = set()
    for _ in range(len(rows) + 1):
        near = [*seeds, *(("", sha, group) for key, sha, group in rows if key in expected)]
        for key, sha, group in rows:
            if any((key == k and k) or (sha and sha == s) or (group and group == g) for k, s, g in near):
                expected.add(key)
    keys, shas, groups = zip(*rows, strict=True) if rows else ((), (), ())
    found = one.find(keys, shas, groups, group_source=source)
    assert {key for key, is_locked in zip(keys, found, strict=True) if is_locked} == expected
    grown = one.extended(keys, shas, groups, group_source=source)
    assert grown.keys == {key for key, _, _ in members} | expected
    assert grown.extended(keys, shas, groups, group_source=source) == grown
    assert set(grown.find(keys, shas, groups, group_source=source)) == set(found)


def test_a_locked_sample_that_went_away_is_locked_again_under_any_name_and_so_is_its_group():
    one = locked(MANIFEST.keys[0]).extended([], [], [], group_source="column patient")
    sha = samples.entry(MANIFEST.keys[0]).sha256
    assert one.find(["new", "other"], [sha, "f" * 64], ["", "patient 0"], group_source="column patient") == [True, True]
    assert one.find(["new"], ["f" * 64], ["patient 1"], group_source="column patient") == [False]


def test_sets_of_several_files_are_united_with_every_look_once():
    one, other = locked("a/1.jpg", of=samples.manifest(["a/1.jpg"]), looks=[LOOK]), locked(MANIFEST.keys[3])
    later = dataclasses.replace(LOOK, date="2026-04-01T00:00:00Z")
    both = united([None, dataclasses.replace(other, looks=(later, LOOK), date="2026-02-01T00:00:00Z"), one])
    assert both.keys == {"a/1.jpg", MANIFEST.keys[3]}
    assert both.looks == (LOOK, later)
    assert both.date == "2026-02-01T00:00:00Z"
    assert united([None, None]) is None
    assert united([one, None, one]) is one


# In the file


def test_what_was_locked_is_read_back_and_a_file_without_it_says_none(tmp_path, made):
    assert read(made) == locked(*MANIFEST.keys[2:4], looks=[LOOK])
    samples.extract(tmp_path / "free.h5", MANIFEST)
    assert read(tmp_path / "free.h5") is None


@pytest.mark.parametrize("views", [("plain",), ("plain", "flip")])
def test_locking_changes_nothing_else_of_a_file(tmp_path, views):
    of = samples.spec(views=views)
    samples.extract(tmp_path / "x.h5", MANIFEST, of=of, weights=b"network")
    with FeatureFile.open(tmp_path / "x.h5") as file:
        before = (file.digest, file.verify(), file.ledger().entries()[:], file.meta(), file.weights(), file.features())
    lock(tmp_path / "x.h5", locked(*MANIFEST.keys[2:4]))
    with FeatureFile.open(tmp_path / "x.h5") as file:
        after = (file.digest, file.verify(), file.ledger().entries()[:], file.meta(), file.weights(), file.features())
    assert before[:5] == after[:5]
    np.testing.assert_array_equal(before[5], after[5])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.h5"]


def test_the_same_lock_gives_the_same_bytes(tmp_path, made):
    whole = made.read_bytes()
    lock(made, read(made))
    assert made.read_bytes() == whole


@pytest.mark.parametrize("name", ["keys", "sha256", "groups", "looks", "about"])
def test_damage_in_it_is_found(made, name):
    with samples.edited(made) as h5:
        h5[f"locked/{name}"][0] = "damaged"
    with FeatureFile.open(made) as file, pytest.raises(StoreFormatError, match="does not match its sha256"):
        file.locked()
    with FeatureFile.open(made) as file, pytest.raises(StoreFormatError):
        file.verify()


def test_a_newer_featx_may_say_more_of_a_look(made):
    """Readers ignore what they do not know."""
    from featx.store.columns import write_strings

    with samples.edited(made) as h5:
        text = h5["locked/looks"].asstr()[0].replace("{", '{"mood": "bright", ', 1)
        del h5["locked/looks"]
        write_strings(h5["locked"], "looks", [text])
    assert read(made).looks == (LOOK,)


# It survives


def test_it_survives_a_run_with_nothing_new_which_leaves_the_file_alone(made):
    whole, found = made.read_bytes(), made.stat()
    assert not samples.extract(made, MANIFEST).written
    assert made.read_bytes() == whole
    assert made.stat().st_mtime_ns == found.st_mtime_ns


def test_new_samples_are_open_unless_they_share_a_group_with_a_locked_one(made):
    keys = [*MANIFEST.keys, "new/a.jpg", "new/b.jpg"]
    more = samples.manifest(keys, groups=[*MANIFEST.groups, "patient 1", "patient 99"])
    report = samples.extract(made, more)
    assert read(made).keys == {*MANIFEST.keys[2:4], "new/a.jpg"}
    assert read(made).looks == (LOOK,)
    assert report.n_locked == 3


def test_labels_and_groups_may_be_refreshed_and_what_now_shares_a_group_is_locked_too(made):
    groups = ["patient 1" if i == 9 else group for i, group in enumerate(MANIFEST.groups)]
    samples.extract(made, samples.manifest(18, groups=groups, labels=["other"] * 18))
    assert read(made).keys == {*MANIFEST.keys[2:4], MANIFEST.keys[9]}
    samples.extract(made, MANIFEST)  # back again: what was locked once stays so, with its group
    assert {*MANIFEST.keys[2:4], MANIFEST.keys[8], MANIFEST.keys[9]} == read(made).keys


def test_groups_of_another_source_are_other_peoples(made):
    renamed = samples.manifest(18, groups=["patient 1"] * 2 + [f"q{i}" for i in range(16)], group_source="regex (.)")
    samples.extract(made, renamed)
    assert read(made).keys == set(MANIFEST.keys[2:4])


def test_a_sample_that_leaves_and_comes_back_is_still_locked(made):
    samples.extract(made, samples.manifest(MANIFEST.keys[4:], groups=MANIFEST.groups[4:]))
    assert read(made).keys == set(MANIFEST.keys[2:4])
    report = samples.extract(made, MANIFEST)
    assert read(made).keys == set(MANIFEST.keys[2:4])
    assert report.n_locked == 2


def test_replacing_the_rows_by_another_backbones_keeps_it(made):
    other = samples.spec(weights_sha256="1" * 64)
    samples.extract(made, MANIFEST, of=other, replace=True)
    with FeatureFile.open(made) as file:
        assert file.spec == other
    assert read(made) == locked(*MANIFEST.keys[2:4], looks=[LOOK])


def test_a_run_that_was_stopped_before_the_lock_finishes_with_it(tmp_path):
    path = tmp_path / "x.h5"
    samples.extract(path, samples.manifest(10))
    with samples.open_run(path, MANIFEST) as run:
        run.append(samples.batch(MANIFEST.keys[10:14]))
    assert pending(path) is not None
    lock(path, locked(*MANIFEST.keys[2:4]))
    assert pending(path) is not None  # its work is not touched
    samples.extract(path, MANIFEST)
    assert read(path).keys == set(MANIFEST.keys[2:4])


def test_nothing_is_locked_or_counted_while_a_run_is_writing(made):
    with samples.open_run(made, MANIFEST), pytest.raises(StoreLockedError):
        lock(made, locked(*MANIFEST.keys[4:6]))
    assert read(made).keys == set(MANIFEST.keys[2:4])


def test_a_file_that_changed_meanwhile_is_left_alone(made):
    with pytest.raises(StoreError, match="changed meanwhile"):
        change_locked(made, lambda _: locked(*MANIFEST.keys[4:6]), digest="of another time")
    assert read(made).keys == set(MANIFEST.keys[2:4])
    assert sorted(os.listdir(made.parent)) == ["x.h5"]


# Crashes


def test_at_every_crash_point_a_look_is_counted_or_not_yet_made_and_never_forgotten(tmp_path, monkeypatch):
    root = tmp_path / "work"
    root.mkdir()
    samples.extract(root / "x.h5", samples.manifest(6))
    one = locked(*MANIFEST.keys[2:4])
    lock(root / "x.h5", one)
    start = FileSystem.of(root)
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # what a sync does is modelled
    with monkeypatch.context() as patch:
        recorder = Recorder(patch, root)
        lock(root / "x.h5", one.with_look(LOOK))
        recorder.note("the score is shown")
    shown = next(number for number, (_, args) in enumerate(recorder.calls) if args == ("the score is shown",))
    last, n_states = None, 0
    for number, kind, names, data in crash_states(start, recorder.calls):
        is_named = {name: data.get(file) for name, file in names.items() if name == "x.h5"}
        if is_named == last and number <= shown:
            continue  # differs in what is being written beside the file only
        last, n_states = is_named, n_states + 1
        state = tmp_path / f"{number}-{kind}"
        state.mkdir()
        start.materialise(state, names=names, data=data)
        found = read(state / "x.h5")
        assert found in (one, one.with_look(LOOK))
        if number > shown:
            assert found.looks == (LOOK,)
    assert n_states >= 2


def test_a_disk_that_refuses_leaves_the_file_as_it_was_and_counts_nothing(tmp_path, monkeypatch):
    path = tmp_path / "x.h5"
    samples.extract(path, samples.manifest(6))
    lock(path, locked(*MANIFEST.keys[2:4]))
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        recorder = Recorder(patch, tmp_path)
        lock(path, read(path))
    n_refused = 0
    names = [name for name, _ in recorder.calls]
    ends = {names.index(name) for name in names} | {len(names) - 1 - names[::-1].index(name) for name in names}
    for place in sorted(ends | set(range(0, len(names), 20))):
        with monkeypatch.context() as patch:
            one = Recorder(patch, tmp_path, refuse_at=place, error=OSError(errno.ENOSPC, "No space left"), once=True)
            message = ""
            try:
                lock(path, read(path).with_look(LOOK))
            except StoreWriteError as error:
                message = str(error)
        as_it_was = path.read_bytes() == before
        assert as_it_was or read(path).looks == (LOOK,)
        if message:
            assert as_it_was == ("as it was" in message or "give another -o" in message)
            n_refused += 1
        else:  # refused after the file had its name: the lock beside it is left over
            assert one.refused in (["unlink"], ["remove_folder"])
            assert not as_it_was
        path.write_bytes(before)
    assert n_refused > 5
