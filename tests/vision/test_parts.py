"""A batch in parts: the same rows, in order, on several cores."""

import threading

import pytest
import torch

from featx.vision.parts import PART_PIXELS, Parts, part_size


def double(images):
    assert torch.is_inference_mode_enabled()
    return images.sum((1, 2, 3)), 2 * images


@pytest.mark.parametrize("n_cores", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 2, 3, 31])
def test_the_rows_of_a_batch_come_back_in_order(n_cores, n):
    images = torch.randn(n, 3, 224, 224)[:, :, ::8, ::8]
    total, twice = Parts(double, n_cores)(images)
    assert torch.equal(twice, 2 * images)
    assert torch.equal(total, torch.cat([image.sum((1, 2, 3)) for image in images.split(1)]))


def test_parts_hold_a_few_images_and_there_are_enough_for_all_workers():
    assert part_size(torch.Size((32, 3, 224, 224)), 2) == 4
    assert part_size(torch.Size((32, 3, 224, 224)), 16) == 2
    assert part_size(torch.Size((3, 3, 224, 224)), 2) == 2
    assert part_size(torch.Size((32, 3, 1000, 1000)), 2) == 1
    assert part_size(torch.Size((32, 3, 32, 32)), 1) == 32 < PART_PIXELS // 32**2


def test_each_core_computes_by_itself_and_the_threads_of_all_others_stay_as_they_were():
    before, seen = torch.get_num_threads(), set()

    def note(images):
        seen.add(torch.get_num_threads())
        return (images,)

    parts = Parts(note, 2)
    parts(torch.zeros(32, 3, 224, 224))
    assert seen == {1}
    assert torch.get_num_threads() == before


def test_what_goes_wrong_in_a_part_is_told():
    def fail(images):
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        Parts(fail, 2)(torch.zeros(8, 3, 224, 224))


IMAGES = torch.zeros(8, 3, 224, 224)  # two parts


def test_the_next_batch_begins_where_a_core_has_nothing_left_of_the_first():
    next_has_begun = threading.Event()

    def compute(images):
        if images[0, 0, 0, 0] == 2:
            next_has_begun.set()
        elif images[0, 0, 0, 0] == 1:
            assert next_has_begun.wait(30), "the last part of the first batch holds up the other core"
        return (images,)

    parts = Parts(compute, 2)
    first = IMAGES.clone()
    first[4:] = 1
    begun = [parts.begin(first), parts.begin(IMAGES + 2)]
    assert [len(each.result()[0]) for each in begun] == [8, 8]


def test_a_part_is_prepared_where_it_is_computed():
    sizes = []

    def prepare(pixels):
        sizes.append(len(pixels))
        return pixels.float() / 255

    pixels = torch.full((8, 3, 224, 224), 51, dtype=torch.uint8)
    (images,) = Parts(lambda images: (images,), 2).begin(pixels, prepare).result()
    assert sizes == [4, 4]
    assert torch.equal(images, torch.full((8, 3, 224, 224), 0.2))


class Held:
    """Computes nothing until it is let go; counts what began."""

    def __init__(self):
        self.go, self.began, self.n = threading.Event(), threading.Semaphore(0), 0

    def __call__(self, images):
        self.n += 1
        self.began.release()
        assert self.go.wait(30)
        if images[0, 0, 0, 0] == 1:
            raise MemoryError
        return (images,)


def test_what_has_not_begun_can_be_left():
    held = Held()
    batch = Parts(held, 2).begin(torch.zeros(32, 3, 224, 224))
    held.began.acquire()
    held.began.acquire()
    batch.cancel()
    held.go.set()
    Parts(double, 2)(IMAGES)  # comes after all that was handed in before
    assert held.n == 2


def test_after_an_error_what_has_not_begun_is_left():
    failing, held = Held(), Held()
    failing.go.set()
    images = torch.zeros(64, 3, 224, 224)
    images[0] = 1

    def compute(part):
        return failing(part) if part[0, 0, 0, 0] == 1 else held(part)

    with pytest.raises(MemoryError):
        Parts(compute, 2)(images)
    held.go.set()
    Parts(double, 2)(IMAGES)
    assert held.n <= 2
