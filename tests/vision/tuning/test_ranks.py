"""Several processes train as one does; the last test starts two for real."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from featx.errors import UsageError
from featx.spec import FeatureRequest
from featx.vision.backbones import load_backbone
from featx.vision.engine import EngineOptions
from featx.vision.tuning.network import TunedNetwork
from featx.vision.tuning.optimisation import Optimisation
from featx.vision.tuning.ranks import Ranks, joined
from featx.vision.tuning.recipe import Recipe

ROOT = Path(__file__).parents[3]
C = 3


def all_of(size):
    return [Ranks(rank, size) for rank in range(size)]


# ---- the shares


@given(st.integers(0, 70), st.integers(1, 20), st.integers(1, 20))
def test_each_row_of_each_batch_is_read_by_one_process(n, batch_size, size):
    if batch_size < size:
        with pytest.raises(UsageError, match="batch-size"):
            Ranks(0, size).places(n, batch_size)
        return
    places = [ranks.places(n, batch_size) for ranks in all_of(size)]
    for start in range(0, n, batch_size):
        rows = torch.arange(start, min(start + batch_size, n))
        shares = []
        for ranks, read in zip(all_of(size), places, strict=True):
            own = torch.from_numpy(read[(read >= start) & (read < start + batch_size)])
            assert 1 <= len(own) <= ranks.count(batch_size)  # so that batches of this size are read in step
            assert torch.equal(own[: ranks.count(len(rows))], rows[ranks.own])
            shares.append(rows[ranks.own])
        assert torch.equal(torch.cat(shares).sort().values, rows)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.integers(1, 20), st.integers(1, 8))
def test_a_share_is_taken_from_the_whole_batch_or_is_what_was_read(n, size):
    rows = torch.arange(n)
    for ranks in all_of(size):
        own = rows[ranks.own]
        read = own if len(own) else rows[:1]
        assert torch.equal(ranks.take(rows, n), own)
        assert torch.equal(ranks.take(read, n)[: len(own)], own)
        assert ranks.count(n) == len(own)


def test_alone_there_is_nothing_to_tell():
    with joined() as here:
        assert here.ranks == Ranks.here() == Ranks()
        assert here.fails_first()
    rows = torch.arange(5.0)
    assert Ranks().gather(rows, 5) is rows
    assert Ranks().add_numbers(2.5) == Ranks().largest(2.5) == 2.5
    assert Ranks().engine(EngineOptions()) == EngineOptions()
    with Ranks().in_turn():
        pass


def test_processes_of_one_machine_share_its_cores():
    here = Ranks(1, 4, local_rank=1, local_size=2)
    assert here.engine(EngineOptions(num_workers=3, device="cpu")) == EngineOptions(num_workers=3, device="cpu")
    cores = EngineOptions().n_threads
    assert here.engine(EngineOptions(device="cpu")).num_workers == max(1, cores // 2)


# ---- the gradient


def network():
    torch.manual_seed(0)
    backbone = load_backbone(FeatureRequest(backbone="featx-mini", weights="random"))
    rng = np.random.default_rng(0)
    return TunedNetwork(backbone, 0.1 * rng.normal(size=(C, backbone.spec.n_features)), np.zeros(C)).train()


@dataclasses.dataclass(frozen=True)
class _Apart(Ranks):
    """A process whose partners are asked later: what it would add up is noted, and stays its own."""

    images: torch.Tensor | None = None
    gradients: list = dataclasses.field(default_factory=list)
    losses: list = dataclasses.field(default_factory=list)

    def add_up(self, parameters):
        self.gradients.extend(None if one.grad is None else one.grad.clone() for one in parameters)

    def add_numbers(self, number):
        self.losses.append(number)
        return number

    def gather(self, rows, n):
        return self.images


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("changes", [{}, {"mixup": 0.4}, {"cutmix": 1.0, "label_smoothing": 0.1}], ids=str)
def test_parts_of_a_gradient_add_up_to_that_of_the_whole_batch(size, changes):
    """Uneven shares (one of five is empty), weights of classes and micro-batches: nothing is averaged twice."""
    recipe = Recipe(train="norm", batch_size=4, lr=1e-3, clip=0.0, **changes)
    images = torch.randn((4, 3, 16, 16), generator=torch.Generator().manual_seed(1))

    def step(ranks, micro_batch):
        optimisation = Optimisation(network(), recipe, 10, np.array([0.5, 1.0, 3.0]))
        optimisation._ranks, optimisation.micro_batch = ranks, micro_batch
        optimisation.take_step(images, np.array([0, 2, 2, 1]))
        return ranks

    whole = step(_Apart(images=images), 4)
    parts = [step(_Apart(rank, size, images=images), 1) for rank in range(size)]
    for expected, *each in zip(whole.gradients, *(part.gradients for part in parts), strict=True):
        total = sum(one for one in each if one is not None)
        torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-6)
    assert sum(sum(part.losses) for part in parts) == pytest.approx(sum(whole.losses), rel=1e-5)


# ---- for real

SCRIPT = """
import dataclasses, sys
from pathlib import Path
import numpy as np, torch
from featx.manifest.folder import read_folder
from featx.spec import FeatureRequest
from featx.vision.backbones import load_backbone
from featx.vision.engine import EngineOptions
from featx.vision.tuning.checkpoint import Checkpoint
from featx.vision.tuning.images import ImageReader
from featx.vision.tuning.network import TunedNetwork
from featx.vision.tuning.ranks import joined
from featx.vision.tuning.recipe import Recipe
from featx.vision.tuning.training import Part, Training

folder, out, mode = sys.argv[1:]
torch.set_num_threads(1)
OPTIONS = {
    "plain": {},
    # AdamW divides by the gradient's own size: where that is rounding alone, a step of it is lr in either direction
    "mixed": {"mixup": 0.3, "cutmix": 1.0, "class_weight": "balanced", "label_smoothing": 0.1, "ema": 0.9,
              "optimiser": "sgd", "lr": 1e-2},
    "kept": {"train": "last-block", "optimiser": "sgd"},
}
with joined() as here:
    ranks = here.ranks
    manifest = read_folder(folder)
    backbone = load_backbone(FeatureRequest(backbone="featx-mini"))
    codes = np.array([int(label) for label in manifest.labels])
    rng = np.random.default_rng(ranks.rank)  # the first one's start is everybody's
    network = TunedNetwork(backbone, 0.01 * rng.normal(size=(2, backbone.spec.n_features)), np.zeros(2))
    recipe = Recipe(**{"batch_size": 4, "epochs": 3, "lr": 1e-3, "patience": 0, **OPTIONS[mode.split("+")[0]]})
    kept = Checkpoint(Path(out + ".pt"), {"mode": mode.split("+")[0]})
    with ImageReader(manifest, backbone.spec, EngineOptions(num_workers=0)) as reader:
        read = []
        batches = reader.batches
        reader.batches = lambda order, size, views=None: (read.append(len(order)), batches(order, size, views))[1]
        training = Training(network, reader, Part(np.arange(9), codes[:9]), recipe, n_classes=2,
                            validate=Part(np.arange(9, 13), codes[9:13]), checkpoint=kept)
        if mode.endswith("+stop"):
            end_epoch = training._end_epoch
            def stop(epoch):
                end_epoch(epoch)
                if epoch.number == 2:
                    raise SystemExit
            training._end_epoch = stop
        tuned = training.run(resume=mode.endswith("+resume"))
    state = {**network.state(), **{"tuned." + name: one for name, one in tuned.state.items()}}
    torch.save({"state": state, "losses": [epoch.loss for epoch in tuned.history], "read": sum(read)},
               f"{out}.{ranks.rank}")
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(13):  # batches of 4, 4 and 1: the last one leaves a process without any
        (root / str(i % 2)).mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(root / str(i % 2) / f"{i:02d}.png")
    return root


def launch(n, folder, images, name, mode):
    (folder / "script.py").write_text(SCRIPT)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)] if n > 1 else []
    subprocess.run(
        [sys.executable, *torchrun, folder / "script.py", images, folder / name, mode],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    return [torch.load(folder / f"{name}.{rank}") for rank in range(n) if (folder / f"{name}.{rank}").exists()]


def close(one, other):
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["plain", "mixed", "kept"])
def test_two_processes_train_as_one_does(tmp_path, images, mode):
    (alone,) = launch(1, tmp_path, images, "alone", mode)
    first, second = launch(2, tmp_path, images, "both", mode)
    assert all(torch.equal(value, second["state"][name]) for name, value in first["state"].items())
    assert close(first["state"], alone["state"])
    assert first["losses"][1:] == pytest.approx(alone["losses"][1:], abs=1e-5)
    assert first["read"] < 0.7 * alone["read"]
    assert second["read"] < 0.7 * alone["read"]


@pytest.mark.slow
def test_two_processes_go_on_where_they_were(tmp_path, images):
    whole, _ = launch(2, tmp_path, images, "whole", "mixed")
    launch(2, tmp_path, images, "parts", "mixed+stop")
    resumed, _ = launch(2, tmp_path, images, "parts", "mixed+resume")
    assert all(torch.equal(value, whole["state"][name]) for name, value in resumed["state"].items())
