"""What is said of how long trainings take, and how far they are."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featx.errors import UsageError
from featx.finetuning.pace import Pace, check_time
from featx.vision.tuning.epochs import TrainingProgress
from featx.vision.tuning.lr_range import n_test_steps
from featx.vision.tuning.part import PartTask
from featx.vision.tuning.recipe import Recipe
from featx.vision.tuning.training import Part

RECIPE = Recipe(epochs=3, batch_size=8)
GIVEN = dataclasses.replace(RECIPE, lr=1e-3)


def task(name, n, *, n_validate=0, n_test=0):
    train, validate = (Part(np.arange(m), np.zeros(m, dtype=np.int64)) for m in (n, n_validate))
    test, check = np.arange(n_test), validate.positions
    head = np.zeros((2, 1)), np.zeros(2), False
    return PartTask(name, train, validate if n_validate else None, test, *head, check, np.zeros((n_validate, 2)))


@dataclasses.dataclass
class Trainer:
    """Says what `check_time` asks of one."""

    seconds: float
    device: str = "cpu"

    def seconds_per_step(self, task):
        return self.seconds


def steps_of(recipe, n, *, tested=None):
    """What a training tells of, the test of learning rates ending after `tested` steps."""
    n_test, n_steps = n_test_steps(n, recipe), recipe.epochs * -(-n // recipe.batch_size)
    for step in range(n_test if tested is None else min(tested, n_test)):
        yield TrainingProgress(step + 1, n_test, 0, 0.5, None)
    for step in range(n_steps):
        yield TrainingProgress(step + 1, n_steps, 1 + step * recipe.epochs // n_steps, 0.5, 0.5)


# ---- how long


@pytest.mark.parametrize(("recipe", "n_test"), [(RECIPE, 2 * n_test_steps(20, RECIPE)), (GIVEN, 0)])
def test_the_test_of_learning_rates_is_part_of_the_time(recipe, n_test):
    tasks = [task("1", 20), task("2", 20)]
    n_steps = n_test + 2 * 3 * 3
    said = check_time(tasks, recipe, Trainer(3600.0), None)
    assert f"({n_steps} steps" in said
    assert said.endswith(f"at most about {n_steps:.1f} hours")
    assert ("find the learning rate" in said) == bool(n_test)
    assert check_time(tasks, recipe, Trainer(3600.0), n_steps)
    with pytest.raises(UsageError, match=f"more than --max-hours {n_steps - 1}"):
        check_time(tasks, recipe, Trainer(3600.0), n_steps - 1)


@pytest.mark.parametrize(
    ("recipe", "n", "ways"),
    [
        (GIVEN, 3, "take --cv 1 (one fold alone is tuned) or fewer --epochs or --train head"),
        (RECIPE, 1, "take a --lr of your own or fewer --epochs or --train head"),
        (dataclasses.replace(GIVEN, epochs=1), 1, "take --train head"),
        (dataclasses.replace(GIVEN, epochs=1, train="head"), 1, "take fewer images"),
    ],
)
def test_the_ways_out_are_those_that_help(recipe, n, ways):
    with pytest.raises(UsageError) as caught:
        check_time([task(str(i), 20) for i in range(n)], recipe, Trainer(3600.0), 0.1)
    assert str(caught.value).endswith(ways)


def test_looking_at_validation_and_test_images_takes_a_third_of_training_on_them():
    tasks = [task("1", 20, n_validate=8, n_test=12)]
    n_steps, n_asked = 3 * 3, (1 + 1 + 3 + 3 + 1) * 8 + 12  # the check, the start, epochs, the way between, the end
    said = check_time(tasks, GIVEN, Trainer(3600.0), None)
    assert said.endswith(f"({n_steps} steps): at most about {n_steps + n_asked / 8 / 3:.1f} hours")


# ---- how far


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    tested=st.integers(0, 60),
    lr=st.sampled_from([None, 1e-3]),
)
def test_every_image_that_goes_through_a_network_is_counted_once(sizes, tested, lr):
    recipe, seen = dataclasses.replace(RECIPE, lr=lr), []
    tasks = [task(str(number), n) for number, n in enumerate(sizes, 1)]
    pace, expected = Pace(tasks, recipe, seen.append), 0
    for each, n in zip(tasks, sizes, strict=True):
        for at in steps_of(recipe, n, tested=tested):
            pace.advance(each, at)
            assert seen[-1].part == f"fold {each.name}"
            assert seen[-1].epoch == at.epoch
        pace.end(each)
        expected += min(tested, n_test_steps(n, recipe)) * min(n, recipe.batch_size) + recipe.epochs * n
    assert seen[-1].images == seen[-1].n_images == expected
    assert [at.images for at in seen] == sorted({at.images for at in seen})
    assert all(one.n_images >= other.n_images for one, other in itertools.pairwise(seen))


def test_what_a_checkpoint_had_done_is_not_counted():
    seen = []
    one = task("final", 20)
    pace = Pace([one], GIVEN, seen.append)
    for at in list(steps_of(GIVEN, 20))[4:]:  # resumed in the second of three epochs, after 8 of 20 images
        pace.advance(one, at)
    assert (seen[0].part, seen[0].images, seen[0].n_images) == ("final", 8, 32)
    assert seen[-1].images == seen[-1].n_images == 32
