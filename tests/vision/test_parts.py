"""A batch in parts: the same rows, in order, on several cores."""

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
