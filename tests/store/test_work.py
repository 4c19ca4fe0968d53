"""What a run has to compute, from what is stored."""

import numpy as np
import pytest

from featx.manifest.record import Manifest
from featx.manifest.source import sample_sha256
from featx.store.accounts import Accounts
from featx.store.outcomes import Outcomes
from featx.store.records import LedgerEntry
from featx.store.stored import FILE
from featx.store.work import plan_work


@pytest.fixture
def manifest(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path in paths[:3]:
        path.write_bytes(b"picture " + path.name.encode())
    return Manifest(str(tmp_path), [p.name for p in paths], [str(p) for p in paths], *[[""] * 4] * 4)


def plan(manifest, *, file=(), shard=(), rehash=False):
    outcomes = Outcomes(manifest.keys)
    for source, entries in ((FILE, file), (0, shard)):
        outcomes.add(source, Accounts.of(entries))
    return plan_work(manifest, outcomes, rehash=rehash)


def entry(manifest, position, **facts):
    found = {"status": "ok", "sha256": sample_sha256(manifest, position), "bytes": 13, "mtime_ns": 1}
    return LedgerEntry(manifest.keys[position], **(found | facts))


def test_what_has_no_entry_is_computed_and_what_has_the_same_bytes_keeps_it_under_its_new_time(manifest):
    assert plan(manifest).positions == [0, 1, 2, 3]
    work = plan(manifest, file=[entry(manifest, 1), entry(manifest, 2, sha256="0" * 64)])
    assert work.positions == [0, 2, 3]
    assert [(position, size) for position, size, _ in work.touched] == [(1, 13)]


def test_a_missing_file_is_tried_again_when_it_is_there(manifest):
    missing = {"status": "failed", "reason": "missing", "sha256": "", "bytes": 0, "mtime_ns": 0}
    entries = [entry(manifest, 0, **missing), LedgerEntry(manifest.keys[3], "failed", "missing")]
    assert plan(manifest, file=entries).positions == [0, 1, 2]
    assert plan(manifest, shard=entries).positions == [0, 1, 2]


@pytest.mark.parametrize("reason", ["timeout: 60 s", "decoder-crash: signal 11"])
def test_what_may_lie_in_the_machine_is_tried_again_by_the_next_run_but_not_by_a_resumed_one(manifest, reason):
    failed = LedgerEntry(manifest.keys[0], "failed", reason)
    others = [entry(manifest, i) for i in (1, 2)]
    assert plan(manifest, file=[failed, *others]).positions == [0, 3]
    assert plan(manifest, shard=[failed, *others]).positions == [3]
    assert plan(manifest, file=[failed], shard=others).positions == [0, 3]
    assert plan(manifest, file=[failed], shard=[failed, *others], rehash=True).positions == [3]
    assert np.unique(plan(manifest, file=[failed]).positions).tolist() == [0, 1, 2, 3]
