"""The actors that work on a Ray cluster: what each gets, what it does, and what came of its work."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.errors import FeatxError, UsageError
from featx.vision.ray_cluster import Connected

if TYPE_CHECKING:
    from featx.manifest.record import Manifest
    from featx.spec import FeatureSpec
    from featx.store.records import FeatureBatch
    from featx.vision.engine import EngineOptions, Job
    from featx.vision.ray_engine import Piece

AUTO = "auto"

MAX_FAILED_STARTS = 3
"""How often every actor may fail to start before the first one has; a node that dies takes several along at once."""

_AHEAD = 2  # pieces at an actor: one that runs, one that waits
_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Share:
    """What each actor gets, and how many there are."""

    n_actors: int
    cpus: float
    gpus: float

    @classmethod
    def of(cls, connected: Connected, options: EngineOptions) -> Share:
        """Look at the nodes of a cluster.

        Raises
        ------
        UsageError
            If no node has room for an actor.
        """
        nodes = [node["Resources"] for node in connected.ray.nodes() if node["Alive"]]
        sizes = [(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes]
        wanted = connected.options
        has_gpus = options.device != "cpu" and any(gpus for _, gpus in sizes)
        gpus = wanted.gpus_per_actor if wanted.gpus_per_actor is not None else float(has_gpus)
        usable = [(c, g) for c, g in sizes if c and g >= gpus]
        cpus = wanted.cpus_per_actor
        if cpus is None and usable:
            cpus = min(c if not gpus else max(1.0, c // (g / gpus)) for c, g in usable)
        cpus = cpus or 1.0
        rooms = [int(min(c / cpus, g / gpus if gpus else c / cpus)) for c, g in sizes]
        if not sum(rooms):
            found = ", ".join(f"{c:g} cores and {g:g} GPUs" for c, g in sizes) or "none"
            raise UsageError(
                f"no node of the Ray cluster has room for an actor of {cpus:g} cores and {gpus:g} GPUs (nodes: {found})"
            )
        return cls(wanted.n_actors or sum(rooms), cpus, gpus)


@dataclass(frozen=True)
class Setup:
    """What an actor needs to compute: the same on every node.

    Attributes
    ----------
    specs : tuple of tuple of FeatureSpec
        Of each network, what is read from it.
    weights : tuple of bytes
        Of each network, in the safetensors format.
    jobs : tuple of (int, int)
        Of each job of the pass, its network and which of the network's specs it wants.
    options : EngineOptions
        Of the local engine inside the actor.
    n_threads : int
        For the network.
    folder : str
        The caller's current folder, where a network of one's own may be found.
    """

    specs: tuple[tuple[FeatureSpec, ...], ...]
    weights: tuple[bytes, ...] = field(repr=False)
    jobs: tuple[tuple[int, int], ...]
    options: EngineOptions
    n_threads: int
    folder: str

    @classmethod
    def of(cls, jobs: Sequence[Job], options: EngineOptions, share: Share) -> Setup:
        """Gather what the jobs need."""
        from featx.vision import tensors

        embedders = list(dict.fromkeys(job.embedder for job in jobs))
        n_threads = max(1, int(share.cpus))
        workers = options.num_workers if options.num_workers is not None else n_threads
        return cls(
            specs=tuple(tuple(backbone.spec for backbone in embedder.backbones) for embedder in embedders),
            weights=tuple(tensors.pack(embedder.backbone.network) for embedder in embedders),
            jobs=tuple((embedders.index(job.embedder), job.output) for job in jobs),
            options=replace(
                options,
                engine="local",
                num_workers=workers,
                device=options.device if share.gpus or options.device != AUTO else "cpu",
                runtime=runtime_of(options),
                ray=None,
            ),
            n_threads=n_threads,
            folder=str(Path.cwd()),
        )


def runtime_of(options: EngineOptions) -> str:
    """Return what executes the networks in every actor: where nothing else is asked for, what every node has."""
    return "torch" if options.runtime == AUTO else options.runtime


@dataclass(frozen=True)
class Died:
    """An actor ended before it gave an answer.

    Attributes
    ----------
    why : str
        What Ray says of it.
    counts : bool
        Whether the piece was the one that it worked on; others only waited.
    """

    why: str
    counts: bool


class Worker:
    """What runs in an actor: the networks, and the local engine on one piece after the other."""

    def __init__(self, setup: Setup) -> None:
        sys.path.insert(0, setup.folder)
        import torch

        from featx.vision.backbones import another_reading, restore_backbone
        from featx.vision.multi_device import make_embedder

        torch.set_num_threads(setup.n_threads)
        self._setup = setup
        self._embedders = []
        for specs, weights in zip(setup.specs, setup.weights, strict=True):
            first = restore_backbone(specs[0], weights, allow_code=specs[0].backbone)
            others = [another_reading(first, spec) for spec in specs[1:]]
            device, runtime = setup.options.device, setup.options.runtime
            self._embedders.append(make_embedder(first, also=others, device=device, runtime=runtime))

    def ready(self) -> str:
        """Return once the networks are there."""
        return self._embedders[0].device

    def compute(self, manifest: Manifest, jobs: tuple[int, ...], size: int) -> list[tuple[int, FeatureBatch]]:
        """Compute all samples of a piece's manifest; jobs are counted within the piece."""
        from featx.vision.engine import Job, iter_batches

        every = range(len(manifest))
        places = [self._setup.jobs[job] for job in jobs]
        wanted = [Job(self._embedders[network], every, None, size, output) for network, output in places]
        return list(iter_batches(manifest, wanted, self._setup.options))


@dataclass(eq=False)
class _Slot:
    """An actor, and the pieces that it was given, the one it works on first."""

    actor: Any
    ready: Any
    is_ready: bool = False
    queue: deque[tuple[Any, Piece]] = field(default_factory=deque)


class Crew:
    """The actors of a run; whoever dies is replaced."""

    def __init__(self, connected: Connected, share: Share, setup: Setup, *, n_pieces: int) -> None:
        self._ray = connected.ray
        self._errors = connected.ray.exceptions
        self._start_seconds = connected.options.start_seconds
        self._class = self._ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=0, max_task_retries=0)(
            Worker
        )
        self._setup = self._ray.put(setup)
        self._failed_starts = 0
        self._idle_since = time.monotonic()
        self._slots = [self._new_slot() for _ in range(min(share.n_actors, n_pieces))]

    @property
    def is_busy(self) -> bool:
        """Whether pieces are out."""
        return any(slot.queue for slot in self._slots)

    @property
    def has_room(self) -> bool:
        """Whether a piece would be worked on soon; before the first actor is there, nothing is handed out."""
        return any(slot.is_ready and len(slot.queue) < _AHEAD for slot in self._slots)

    @property
    def _any_ready(self) -> bool:
        return any(slot.is_ready for slot in self._slots)

    def submit(self, piece: Piece, manifest: Manifest) -> None:
        """Give a piece to the actor with the least to do."""
        slot = min((slot for slot in self._slots if slot.is_ready), key=lambda slot: len(slot.queue))
        reference = slot.actor.compute.remote(manifest, piece.jobs, piece.size)
        slot.queue.append((reference, piece))

    def wait(self) -> list[tuple[Piece, list[tuple[int, FeatureBatch]] | Died]]:
        """Wait a moment for something to happen and return what was finished or lost.

        Raises
        ------
        FeatxError
            If no actor could be started, or one of ours was raised in an actor.
        """
        waiting = [reference for slot in self._slots for reference, _ in slot.queue]
        starting = [slot.ready for slot in self._slots if not slot.is_ready]
        done, _ = self._ray.wait(waiting + starting, timeout=_LOOK_SECONDS)
        ready = set(done)
        found: list[tuple[Piece, list[tuple[int, FeatureBatch]] | Died]] = []
        for place, slot in enumerate(self._slots):
            if not slot.is_ready and slot.ready in ready:
                self._welcome(place, slot)
            elif any(reference in ready for reference, _ in slot.queue):
                found += self._collect(place, slot)
        self._check_alive()
        return found

    def dismiss(self) -> None:
        """End all actors, also those that are at work."""
        for slot in self._slots:
            with contextlib.suppress(self._errors.RayError):
                self._ray.kill(slot.actor)

    def _new_slot(self) -> _Slot:
        actor = self._class.remote(self._setup)
        return _Slot(actor, actor.ready.remote())

    def _welcome(self, place: int, slot: _Slot) -> None:
        try:
            self._ray.get(slot.ready)
        except self._errors.RayTaskError as error:
            raise _cause(error) from error
        except self._errors.RayError as error:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS * len(self._slots) and not self._any_ready:
                cause = getattr(error, "cause", None)
                if isinstance(cause, FeatxError):
                    raise cause from error
                raise FeatxError(
                    f"{self._failed_starts} actors of the Ray cluster could not be started; "
                    f"the last said: {_why(error)}"
                ) from error
            self._slots[place] = self._new_slot()
        else:
            slot.is_ready = True
            self._failed_starts = 0

    def _collect(self, place: int, slot: _Slot) -> list[tuple[Piece, list[tuple[int, FeatureBatch]] | Died]]:
        """Take what an actor has finished; when it is dead, what it had to do comes back and another one starts."""
        found: list[tuple[Piece, list[tuple[int, FeatureBatch]] | Died]] = []
        is_dead = False
        while slot.queue:
            reference, piece = slot.queue[0]
            if not is_dead and not self._ray.wait([reference], timeout=0)[0]:
                break
            slot.queue.popleft()
            try:
                found.append((piece, self._ray.get(reference)))
            except self._errors.RayTaskError as error:
                raise _cause(error) from error
            except self._errors.RayError as error:
                found.append((piece, Died(_why(error), counts=not is_dead)))
                is_dead = True
        if is_dead:
            with contextlib.suppress(self._errors.RayError):
                self._ray.kill(slot.actor)
            self._slots[place] = self._new_slot()
        return found

    def _check_alive(self) -> None:
        """Give up when no actor has come for a long time, though some are asked for."""
        if self._any_ready:
            self._idle_since = time.monotonic()
        elif time.monotonic() - self._idle_since > self._start_seconds:
            raise FeatxError(
                f"no actor of the Ray cluster has started within {self._start_seconds:g} s; does it have room for one, "
                "and is featx installed on its nodes?"
            )


def _cause(error: Any) -> BaseException:
    """Return what was raised in an actor, as if it had been raised here."""
    cause = error.cause
    return cause if isinstance(cause, FeatxError) else FeatxError(f"an actor of the Ray cluster failed: {_why(error)}")


def _why(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[-1:] if lines else [type(error).__name__])[:300]
