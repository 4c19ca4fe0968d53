"""The engine for those who outgrow one machine: whole batches on Ray actors, one writer in the calling process.

Each actor runs the local engine on its pieces, so that its rows are those of a local run with the same batches. A piece
whose actor or node dies is handed out again; what dies again is divided, until the image that ends its actor is alone:
it is a failed row, and the rest of its batch is computed without it, as the local engine does with an image that cannot
be read.

Batches come back as they are finished, not in order: what one slow piece holds up must not be lost by a kill.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import FeatxError
from featx.manifest.record import Manifest
from featx.store.records import FAILED, OK, FeatureBatch, LedgerEntry
from featx.vision.ray_cluster import RayOptions, cluster
from featx.vision.ray_crew import Crew, Died, Setup, Share

if TYPE_CHECKING:
    from featx.vision.engine import EngineOptions, Job, Notify

BATCHES_AT_ONCE = 8
"""Batches in one piece of work, while there are many."""

MAX_DEATHS = 2
"""How many actors may end on a piece before it is divided."""

MAX_DEATHS_IN_A_ROW = 24
"""Without a finished piece in between, before the run is given up: more than finding one bad image takes."""


@dataclass(frozen=True)
class Piece:
    """Some whole batches of jobs that want the same samples.

    Attributes
    ----------
    jobs : tuple of int
        Which jobs of the pass.
    batches : tuple of tuple of int
        Positions, batch by batch.
    size : int
        Of a whole batch.
    deaths : int
        How many actors ended while they worked on it.
    hunt : _Hunt or None
        A part of one batch that is only run to see whether its actor survives it.
    """

    jobs: tuple[int, ...]
    batches: tuple[tuple[int, ...], ...]
    size: int
    deaths: int = 0
    hunt: _Hunt | None = None

    @property
    def positions(self) -> list[int]:
        """All positions, batch after batch."""
        return [position for batch in self.batches for position in batch]


class _Hunt:
    """The search for the images of one batch that end their actors.

    Parameters
    ----------
    piece : Piece
        Of one batch.
    """

    def __init__(self, piece: Piece) -> None:
        self.piece = piece
        self.deadly: set[int] = set()
        self.n_open = 0

    def parts_of(self, positions: Sequence[int]) -> list[Piece]:
        """Divide positions whose actor died; a lone one is found."""
        if len(positions) == 1:
            self.deadly.add(positions[0])
            return []
        half = len(positions) // 2
        parts = [tuple(positions[:half]), tuple(positions[half:])]
        self.n_open += len(parts)
        return [replace(self.piece, batches=(part,), deaths=MAX_DEATHS, hunt=self) for part in parts]


def iter_ray(
    manifest: Manifest, jobs: Sequence[Job], options: EngineOptions, notify: Notify
) -> Iterator[tuple[int, FeatureBatch]]:
    """See `featx.vision.engine.iter_batches`.

    Raises
    ------
    MissingExtraError
        If Ray is not installed.
    UsageError
        If the cluster cannot be reached, or has no room for an actor.
    FeatxError
        If actors cannot be started, or die again and again whatever they compute.
    """
    pieces = deque(_pieces(jobs, options))
    if not pieces:
        return
    with cluster(options.ray or RayOptions()) as connected:
        share = Share.of(connected, options)
        pieces = deque(_pieces(jobs, options, n_actors=share.n_actors))
        crew = Crew(connected, share, Setup.of(jobs, options, share), n_pieces=len(pieces))
        try:
            yield from _Work(manifest, jobs, crew, pieces, notify).run()
        finally:
            crew.dismiss()


class _Work:
    """Pieces on their way through the crew."""

    def __init__(
        self, manifest: Manifest, jobs: Sequence[Job], crew: Crew, pieces: deque[Piece], notify: Notify
    ) -> None:
        self._manifest = manifest
        self._jobs = jobs
        self._crew = crew
        self._pieces = pieces
        self._notify = notify
        self._dead_in_a_row = 0
        self._deadly: dict[tuple[int, ...], set[int]] = {}  # of batches that were searched, by their positions

    def run(self) -> Iterator[tuple[int, FeatureBatch]]:
        """Hand out pieces and yield what comes back, until nothing is left."""
        while self._pieces or self._crew.is_busy:
            while self._pieces and self._crew.has_room:
                self._hand_out(self._pieces.popleft())
            for piece, result in self._crew.wait():
                if isinstance(result, Died):
                    self._take_death(piece, result)
                else:
                    self._dead_in_a_row = 0
                    yield from self._take(piece, result)

    def _hand_out(self, piece: Piece) -> None:
        left = [position for position in piece.positions if position not in self._deadly_in(piece)]
        self._crew.submit(piece, self._manifest.take(left))

    def _deadly_in(self, piece: Piece) -> set[int]:
        return set() if piece.hunt else self._deadly.get(piece.batches[0], set())

    def _take(self, piece: Piece, result: list[tuple[int, FeatureBatch]]) -> Iterator[tuple[int, FeatureBatch]]:
        if piece.hunt is not None:
            self._close_part(piece.hunt)
            return
        deadly = self._deadly_in(piece)
        for index, batch in result or [(index, self._empty(index)) for index in range(len(piece.jobs))]:
            job = piece.jobs[index]
            whole = self._with_failures(batch, piece.batches[0], deadly) if deadly else batch
            yield job, _copied(whole, self._jobs[job])

    def _take_death(self, piece: Piece, death: Died) -> None:
        """Hand a piece out again, or divide it; the crew has replaced the actor already."""
        if not death.counts:
            self._pieces.appendleft(piece)
            return
        self._dead_in_a_row += 1
        if self._dead_in_a_row > MAX_DEATHS_IN_A_ROW:
            raise FeatxError(
                f"{self._dead_in_a_row} actors of the Ray cluster died one after the other, the last with: "
                f"{death.why}; what was finished is kept"
            )
        piece = replace(piece, deaths=piece.deaths + 1)
        if piece.deaths < MAX_DEATHS:
            self._pieces.appendleft(piece)
        elif piece.hunt is not None:
            self._pieces.extendleft(reversed(piece.hunt.parts_of(piece.positions)))
            self._close_part(piece.hunt)
        elif len(piece.batches) > 1:
            half = len(piece.batches) // 2
            halves = piece.batches[:half], piece.batches[half:]
            self._pieces.extendleft(replace(piece, batches=part) for part in reversed(halves))
        elif self._deadly_in(piece):
            raise FeatxError(
                f"actors die on the batch from {self._manifest.keys[piece.positions[0]]!r} on, also without the images "
                f"that end one alone; the last died with: {death.why}"
            )
        else:
            self._search(piece)

    def _search(self, piece: Piece) -> None:
        """Look for the images of this batch that end their actors."""
        hunt = _Hunt(piece)
        parts = hunt.parts_of(piece.positions)
        self._pieces.extendleft(reversed(parts))
        if not parts:
            self._finish(hunt)

    def _close_part(self, hunt: _Hunt) -> None:
        hunt.n_open -= 1
        if not hunt.n_open:
            self._finish(hunt)

    def _finish(self, hunt: _Hunt) -> None:
        """Compute the batch without the images that were found."""
        if not hunt.deadly:  # together they end an actor, apart they do not: memory, most likely
            raise FeatxError(
                f"actors die on the batch from {self._manifest.keys[hunt.piece.positions[0]]!r} on, "
                "though on none of its images alone; take a smaller --batch-size"
            )
        keys = [self._manifest.keys[position] for position in sorted(hunt.deadly)]
        self._notify(f"the actor died each time it computed {', '.join(keys)}: no row")
        self._deadly[hunt.piece.batches[0]] = hunt.deadly
        self._pieces.appendleft(replace(hunt.piece, deaths=0, hunt=None))

    def _with_failures(self, batch: FeatureBatch, positions: Sequence[int], deadly: set[int]) -> FeatureBatch:
        entries = iter(batch.entries)
        return replace(
            batch,
            entries=[
                LedgerEntry(self._manifest.keys[position], FAILED, reason="worker-crash")
                if position in deadly
                else next(entries)
                for position in positions
            ],
        )

    def _empty(self, index: int) -> FeatureBatch:
        spec = self._jobs[index].spec
        n_logits = self._jobs[index].embedder.backbone.n_classes or 0
        logits = np.zeros((0, n_logits), np.float32) if spec.logits else None
        return FeatureBatch([], np.zeros((0, spec.n_features), spec.storage), logits)


def _pieces(jobs: Sequence[Job], options: EngineOptions, *, n_actors: int = 1) -> Iterator[Piece]:
    """Cut the work into pieces: jobs that want the same samples in the same batches are computed together."""
    together: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for index, job in enumerate(jobs):
        size = job.batch_size or options.batch_size
        assert isinstance(size, int)
        together.setdefault((size, tuple(job.positions)), []).append(index)
    for (size, positions), indices in together.items():
        batches = [positions[start : start + size] for start in range(0, len(positions), size)]
        step = max(1, min(BATCHES_AT_ONCE, len(batches) // (4 * n_actors)))
        for start in range(0, len(batches), step):
            yield Piece(tuple(indices), tuple(batches[start : start + step]), size)


def _copied(batch: FeatureBatch, job: Job) -> FeatureBatch:
    """Put in the rows of bytes that were stored before this batch came, as the local engine does."""
    if job.lookup is None:
        return batch
    n_views = job.spec.n_views
    good = [entry for entry in batch.entries if entry.status == OK]
    features: Any = batch.features
    logits: Any = batch.logits
    for i, entry in enumerate(good):
        known = job.lookup(entry.sha256)
        if known is not None:
            if features is batch.features:  # what comes from the object store cannot be written to
                features, logits = features.copy(), None if logits is None else logits.copy()
            features[i * n_views : (i + 1) * n_views] = known[0]
            if logits is not None:
                logits[i * n_views : (i + 1) * n_views] = known[1]
    return replace(batch, features=features, logits=logits)
