"""The one writer of a feature file."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import (
    SpecMismatchError,
    StoreError,
    StoreFormatError,
    StoreIncompleteError,
    StoreWriteError,
    UsageError,
)
from featx.manifest.record import Manifest
from featx.spec import FeatureSpec
from featx.store import disk
from featx.store.accounts import Accounts
from featx.store.file import FeatureFile
from featx.store.ledger import Ledger, rows_of
from featx.store.locked import LockedSet, united
from featx.store.merge import Contents, check_text, write_feature_file
from featx.store.open_shard import OpenShard
from featx.store.outcomes import Outcomes
from featx.store.parts import Header, Parts
from featx.store.records import FeatureBatch, LedgerEntry, RunReport
from featx.store.stored import FILE, StoredRows


class ExtractionRun:
    """The one writer of a feature file: knows what is stored, keeps what comes, finishes the file.

    A run collects batches into shards in ``FILE.parts`` beside the file; a shard that is closed
    outlasts a kill and a power cut. `finish` merges the stored rows, in manifest order, into a
    new file that takes the old one's place in one step. Run again after a stop, it goes on where
    the last shard ended. Use it as a context manager: on the way out, also by Ctrl-C, the open
    shard is closed and the lock released.

    Only the process and thread that opened it may use it.

    Attributes
    ----------
    path : Path
        The feature file.
    batch_size : int
        To compute with: that of the stopped run that is resumed, else the one given.

    Examples
    --------
    The loop of the extraction; ``work`` are the positions that `outcomes` and the files say are to be computed, and
    batches are consecutive pieces of it, so that a resumed run computes the same batches::

        with ExtractionRun.open(path, manifest=manifest, spec=spec, request=..., made_with=..., batch_size=32) as run:
            for _, batch in iter_batches(manifest, [Job(embedder, work, run.features_of_sha256)], ...):
                run.append(batch)                                         # wins over what was known of these keys
            report = run.finish()                                         # cheap when nothing has changed

    After an interruption ``run.kept`` is the sentence that says what is kept and how to go on.
    """

    def __init__(
        self,
        path: Path,
        parts: Parts,
        manifest: Manifest,
        header: Header,
        weights: bytes | None,
        locked: LockedSet | None = None,
    ) -> None:
        self.path = path
        self.batch_size = 0
        self._parts = parts
        self._manifest = manifest
        self._header = header
        self._weights = weights
        self._locked = locked
        self._file: FeatureFile | None = None
        self._outcomes = Outcomes(manifest.keys, n_views=header.spec.n_views)
        self._stored = StoredRows(None, parts.shards, n_views=header.spec.n_views)
        self._n_new = 0
        self._open = OpenShard(header.spec)
        self._open_positions: list[NDArray[np.int64]] = []
        self._pid = os.getpid()
        self._is_over = False
        self._is_finished = False

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        manifest: Manifest,
        spec: FeatureSpec,
        request: dict[str, Any],
        made_with: dict[str, Any],
        batch_size: int,
        weights: bytes | None = None,
        replace: bool = False,
        locked: LockedSet | None = None,
    ) -> ExtractionRun:
        """Take the lock and read what is stored.

        Parameters
        ----------
        path : path
            The feature file, there or not; folders above it are made.
        manifest : Manifest
            The samples that the finished file will hold; labels, groups, splits, folds and meta are taken
            from it each time.
        spec : FeatureSpec
            What makes the features.
        request, made_with : dict
            JSON-ready; stored beside the spec.
        batch_size : int
            Used unless a stopped run is resumed, see `batch_size`.
        weights : bytes, optional
            The user's own weights, to be kept in the file; None keeps those that are stored.
        replace : bool
            Throw away rows of another spec, a damaged file, and most of the stored samples, instead of refusing.
            What the file that was there has locked stays locked.
        locked : LockedSet, optional
            What else is to be locked.

        Raises
        ------
        StoreLockedError
            If another run is writing the file.
        SpecMismatchError
            If the stored rows were made by another spec.
        StoreFormatError
            If the file that is there is not a feature file.
        StoreError
            If more than half of the stored samples are not in the manifest.
        StoreWriteError
            If the folder cannot be written.
        InputError
            If a string of the manifest cannot be stored.
        """
        path = Path(path)
        check_text(manifest)
        # What is compared with a stored one must have been through JSON too: it turns tuples into lists.
        request, made_with = json.loads(json.dumps([request, made_with]))
        header = Header(spec=spec, request=request, made_with=made_with, n_samples=len(manifest))
        parts = Parts.take(path)
        run = cls(path, parts, manifest, header, weights, locked)
        try:
            run._load(batch_size, replace=replace)
        except BaseException:
            run._leave()
            raise
        return run

    @property
    def known(self) -> Mapping[str, LedgerEntry]:
        """Every sample with a stored outcome, good or failed, by key: of the finished file, of a stopped run, of this.

        Samples of the manifest that are not in it have yet to be computed.
        """
        return self._outcomes.as_mapping()

    @property
    def outcomes(self) -> Outcomes:
        """What `known` says, as columns."""
        return self._outcomes

    @property
    def kept(self) -> str:
        """What is kept of the work, and how to go on, in one sentence."""
        n, n_all = self._outcomes.n_known, len(self._manifest)
        return f"the outcome of {n:,} of {n_all:,} samples is kept; the same command again goes on from there"

    def features_of_sha256(self, sha256: str) -> tuple[NDArray[np.floating], NDArray[np.float32] | None] | None:
        """Find the rows of a sample of the same bytes, stored under whatever key.

        Returns
        -------
        (features, logits) or None
            Arrays (n_views, n_features), and (n_views, n_source_classes) or None; None where no sample of these bytes
            is stored.
        """
        rows = self._open.of_sha256(sha256)
        if rows is not None:
            return rows
        place = self._outcomes.place_of_sha256(sha256)
        return None if place is None else self._stored.read_one(place)

    def keep(self, entry: LedgerEntry) -> None:
        """Keep the outcome that is stored for a sample, under a refreshed entry.

        For a file that was touched or copied: the bytes are the same, the modification time is new. The
        refreshed entry is written by `finish`, so a run that is stopped before looks at such files again.

        Raises
        ------
        UsageError
            If no outcome is stored for the key, or one of other bytes.
        """
        self._check_usable()
        if not self._outcomes.refresh(entry):
            raise UsageError(f"{entry.key}: keep() takes the stored entry, with another size, time or reason at most")

    def append(self, batch: FeatureBatch) -> None:
        """Take a batch; a shard is closed when it is large or old enough.

        Parameters
        ----------
        batch : FeatureBatch
            Rows are converted to the spec's storage.

        Raises
        ------
        UsageError
            If the batch does not fit the spec or the manifest, or holds NaN or infinite values.
        StoreWriteError
            If the file system refuses; the batches since the last shard are lost, see `kept`.
        """
        self._check_usable()
        positions = self._outcomes.find([entry.key for entry in batch.entries])
        if (positions < 0).any():
            raise UsageError(f"{batch.entries[int(np.argmin(positions))].key!r} is not in the manifest")
        self._open.add(batch)
        self._open_positions.append(positions)
        if self._open.is_full:
            self.flush()

    def flush(self) -> None:
        """Close the open shard; what was appended now outlasts a kill and a power cut."""
        self._check_usable()
        if not self._open.entries:
            return
        accounts, positions = Accounts.of(self._open.entries), np.concatenate(self._open_positions)
        n_left = len(self._manifest) - self._outcomes.n_known - self._outcomes.count_new(positions)
        with self._writing():
            self._parts.write_header(self._header, self._weights)
            self._parts.shards.add(
                accounts,
                *self._open.rows(),
                fingerprint=self._header.spec.fingerprint,
                batch_size=self.batch_size,
                left=n_left,
            )
        self._outcomes.add(len(self._parts.shards.shards) - 1, accounts, positions)
        self._n_new += len(accounts)
        self._open, self._open_positions = OpenShard(self._header.spec), []

    def finish(self) -> RunReport:
        """Write the file: all samples of the manifest, in its order, with the rows that are stored for them.

        Raises
        ------
        StoreIncompleteError
            If samples of the manifest have no outcome yet.
        StoreWriteError
            If the file system refuses; the file that was there stays, and so do the shards.
        """
        self.flush()
        n_left = len(self._manifest) - self._outcomes.n_known
        if n_left:
            raise StoreIncompleteError(f"{n_left:,} samples have no outcome yet", path=str(self.path), missing=n_left)
        contents, places = self._contents()
        is_new = self._file is None or bool(self._parts.shards.shards) or not contents.same_as(self._file)
        if is_new:
            with self._writing():
                write_feature_file(
                    self._parts.temporary, contents, lambda start, stop: self._stored.read(places[start:stop])
                )
                disk.replace(self._parts.temporary, self.path)
                disk.sync_folder(self.path.parent)
        self._is_over = self._is_finished = True
        return RunReport(
            n_samples=len(self._manifest),
            n_rows=len(places) * self._header.spec.n_views,
            n_failed=len(self._manifest) - len(places),
            n_new=self._n_new,
            n_vanished=len(self._outcomes.vanished),
            written=is_new,
            n_locked=0 if contents.locked is None else len(contents.locked.keys.intersection(self._manifest.keys)),
        )

    def close(self) -> None:
        """Close the open shard and release the lock; closing twice does nothing."""
        if self._pid == os.getpid():
            try:
                if not self._is_over:
                    self.flush()
            finally:
                self._leave()

    def __enter__(self) -> ExtractionRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _load(self, batch_size: int, *, replace: bool) -> None:
        """Read the finished file and the shards, as far as they are of this spec."""
        spec = self._header.spec
        self._file = self._open_file(replace=replace)
        self._read_stored()
        if any(shard.fingerprint != spec.fingerprint for shard in self._parts.shards.shards):
            if not replace:
                old = self._parts.header()
                raise _mismatch(self.path, None if old is None else old.spec, spec)
            with self._writing():
                self._parts.clear()
            self._read_stored()
        shards = self._parts.shards.shards
        self.batch_size = shards[-1].batch_size if shards else batch_size
        self._n_new = sum(shard.samples for shard in shards)
        n_known, n_vanishing = len(self.known), len(self._outcomes.vanished)
        if 2 * n_vanishing > n_known and not replace:
            raise StoreError(
                f"{n_vanishing:,} of the {n_known:,} samples stored are not among the {len(self._manifest):,} of this"
                " source; another -o FILE keeps them, --replace throws them away",
                path=str(self.path),
            )

    def _read_stored(self) -> None:
        """Take in the finished file and, after it, the shards that are not known yet."""
        n_views = self._header.spec.n_views
        self._outcomes = Outcomes(self._manifest.keys, n_views=n_views)
        self._stored = StoredRows(self._file, self._parts.shards, n_views=n_views)
        if self._file is not None:
            self._outcomes.add(FILE, self._file.accounts(self._manifest.keys))
        for _, accounts in self._parts.shards.read():
            self._outcomes.add(len(self._parts.shards.shards) - 1, accounts)

    def _open_file(self, *, replace: bool) -> FeatureFile | None:
        """Open the finished file, if there is one whose rows may be used."""
        if not self.path.exists():
            return None
        try:
            with contextlib.ExitStack() as stack:
                file = stack.enter_context(FeatureFile.open(self.path))
                self._locked = united([file.locked(), self._locked])
                if file.fingerprint != self._header.spec.fingerprint:
                    raise _mismatch(self.path, file.spec, self._header.spec)
                if replace:
                    file.verify()  # whoever replaces a damaged file wants to be rid of the damage
                stack.pop_all()
                return file
        except (StoreFormatError, SpecMismatchError):
            if replace:
                return None
            raise

    def _contents(self) -> tuple[Contents, NDArray[np.int64]]:
        """Return the finished file but for its rows, and the places of the rows."""
        manifest, header = self._manifest, self._header
        places = self._outcomes.places()
        outcomes: dict[str, Any] = self._outcomes.columns()
        weights = self._weights or self._parts.weights()
        made_with = header.made_with
        if self._file is not None:
            weights = weights or self._file.weights()
            if not self._parts.shards.shards:  # nothing was computed: what computed the rows stays true
                made_with = self._file.made_with
        locked = self._locked
        if locked is not None:
            locked = locked.extended(
                manifest.keys, outcomes["sha256"], manifest.groups, group_source=manifest.group_source
            )
        contents = Contents(
            spec=header.spec,
            request=header.request,
            made_with=made_with,
            group_source=manifest.group_source,
            ledger=Ledger(
                key=manifest.keys,
                **outcomes,
                label=manifest.labels,
                group=manifest.groups,
                split=manifest.splits,
                fold=manifest.folds,
                row=rows_of(self._outcomes.column("is_ok"), header.spec.n_views),
            ),
            meta=manifest.meta,
            weights=weights,
            n_logits=self._n_logits(places),
            locked=locked,
        )
        return contents, places

    def _n_logits(self, places: NDArray[np.int64]) -> int:
        logits = self._stored.read(places[:1])[1] if len(places) else None
        return 0 if logits is None else int(logits.shape[1])

    def _check_usable(self) -> None:
        if self._is_over or self._pid != os.getpid():
            raise UsageError("this run is over, or was opened by another process; open another one")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except OSError as error:
            self._is_over = True
            raise StoreWriteError(
                f"cannot be written ({error.strerror}); {self.kept}", path=str(self.path), errno=error.errno
            ) from error

    def _leave(self) -> None:
        self._is_over = True
        if self._file is not None:
            self._file.close()
        self._parts.release(discard=self._is_finished)


def _mismatch(path: Path, old: FeatureSpec | None, new: FeatureSpec) -> SpecMismatchError:
    differences = {"fingerprint": ("another", new.fingerprint)} if old is None else old.differences(new)
    return SpecMismatchError(
        differences, path=str(path), hint="give another -o FILE, or --replace to compute everything anew"
    )
