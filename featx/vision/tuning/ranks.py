"""Several processes that train one network together, as torchrun starts them: each has a rank, counted from 0.

All of them do the same, but each reads and puts through the network a share of every batch: its rows rank, rank + size,
rank + 2 size and so on. Parts of the gradient of the one mean loss over the whole batch are added up before the step,
so that clipping, optimiser, L2-SP and running means, which come after, see what a single process sees, up to the order
in which floats are added. Only networks with dropout differ: each process draws its own.

torch's own DistributedDataParallel is not used: it takes the mean over ranks of each rank's gradient, which is another
one where shares differ in size or in the weights of their classes; it reduces in every backward pass, so once for each
micro-batch; and it wants a forward pass of its module, where a kept lower part is fed half-way in.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed
from torch.distributed.rendezvous import rendezvous

from featx.errors import FeatxError, UsageError
from featx.vision.devices import AUTO
from featx.vision.engine import EngineOptions

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this one is; alone by default.

    Attributes
    ----------
    rank, size : int
        Of all processes.
    local_rank, local_size : int
        Of those on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def here(cls) -> Ranks:
        """Return what this process is: alone, unless inside `joined`."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        local = (int(os.environ.get(name, default)) for name, default in (("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1)))
        return cls(distributed.get_rank(), distributed.get_world_size(), *local)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    # Sharing a batch

    @property
    def own(self) -> slice:
        """The rows of a batch that are this process's."""
        return slice(self.rank, None, self.size)

    def count(self, n: int) -> int:
        """Return how many rows of a batch of n are this process's."""
        return len(range(n)[self.own])

    def places(self, n: int, batch_size: int) -> IntArray:
        """Return which of n samples, that are taken in batches, this process reads.

        Of each batch its share, and the first row where that is empty (so that the shape of an image is known): in
        batches of ``count(batch_size)`` they are read in step with the whole ones.

        Raises
        ------
        UsageError
            Some process has no share even of a whole batch.
        """
        if batch_size < self.size:
            raise UsageError(f"--batch-size {batch_size}: fewer images than the {self.size} processes that share them")
        batches = [np.arange(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]
        shares = [batch[self.own] if len(batch) > self.rank else batch[:1] for batch in batches]
        return np.concatenate(shares) if shares else np.array([], dtype=np.int64)

    def take(self, rows: torch.Tensor, n: int) -> torch.Tensor:
        """Return this process's rows of a batch of n, of the whole batch or of what `places` had read."""
        return rows[self.own] if len(rows) == n else rows

    # What processes tell each other

    def gather(self, rows: torch.Tensor, n: int) -> torch.Tensor:
        """Return the whole of n rows (n, ...), of which every process has its own ``[rank::size]``."""
        if self.size == 1:
            return rows
        padded = rows.new_zeros((-(-n // self.size), *rows.shape[1:]))
        padded[: len(rows)] = rows
        shares = [torch.empty_like(padded) for _ in range(self.size)]
        with _partners():
            distributed.all_gather(shares, padded)
        return torch.stack(shares, dim=1).flatten(0, 1)[:n]

    @torch.no_grad()
    def add_up(self, parameters: Iterable[torch.Tensor]) -> None:
        """Add up the gradients of parameters over all processes; where a share was empty they are zero."""
        if self.size == 1:
            return
        gradients = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        with _partners():
            distributed.all_reduce(flat)
        for gradient, total in zip(gradients, torch.split(flat, [one.numel() for one in gradients]), strict=True):
            gradient.copy_(total.view(gradient.shape))

    def add_numbers(self, number: float) -> float:
        """Return the sum of a number over all processes."""
        if self.size == 1:
            return number
        total = torch.tensor(number, dtype=torch.float64)
        with _partners():
            distributed.all_reduce(total)
        return float(total)

    def largest(self, number: float) -> float:
        """Return the largest value of a number among all processes."""
        if self.size == 1:
            return number
        found = torch.tensor(number, dtype=torch.float64)
        with _partners():
            distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
        return float(found)

    @torch.no_grad()
    def copy_first(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give all processes the values that the first one has."""
        if self.size == 1:
            return
        with _partners():
            for tensor in tensors:
                value = tensor.contiguous()
                distributed.broadcast(value, src=0)
                tensor.copy_(value)

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            with _partners():
                distributed.barrier()

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let the first process go before the others, which then find done what it has done."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    # What they share a machine for

    def engine(self, options: EngineOptions) -> EngineOptions:
        """Return options with this process's own GPU, where any would do, and its share of the machine's cores."""
        if self.size == 1:
            return options
        device = f"cuda:{self.local_rank}" if options.device in (AUTO, "cuda") and torch.cuda.is_available() else None
        workers = max(1, options.n_threads // self.local_size) if options.num_workers is None else options.num_workers
        return replace(options, device=device or options.device, num_workers=workers)


@contextlib.contextmanager
def _partners() -> Iterator[None]:
    """Say in one sentence that another process is gone; why, it says itself."""
    try:
        yield
    except RuntimeError as error:
        raise FeatxError(f"another process of this training has ended ({str(error).splitlines()[0][:80]})") from error


@dataclass(frozen=True)
class Joined:
    """What `joined` gives.

    Attributes
    ----------
    ranks : Ranks
    """

    ranks: Ranks
    _store: Any = None

    def fails_first(self) -> bool:
        """Tell whether no other process has failed before; asked once by each that fails, and the first says why."""
        if self._store is None:
            return True
        try:
            return bool(self._store.add("featx-failures", 1) == 1)
        except RuntimeError:  # whoever kept the count is gone
            return self.ranks.is_first


@contextlib.contextmanager
def joined() -> Iterator[Joined]:
    """Join the processes that torchrun has started, while inside; without torchrun, or with one process, do nothing."""
    size = int(os.environ.get("WORLD_SIZE", "1")) if "MASTER_ADDR" in os.environ else 1
    if size == 1:
        yield Joined(Ranks())
        return
    store, rank, _ = next(rendezvous("env://"))
    has_gpus = torch.cuda.is_available()
    if has_gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if has_gpus else "gloo", store=store, rank=rank, world_size=size
    )
    try:
        yield Joined(Ranks.here(), store)
    finally:
        distributed.destroy_process_group()
