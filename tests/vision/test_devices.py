"""Devices: the ones that are asked for and no others, with exact arithmetic while somebody computes."""

import contextlib
import threading

import pytest
import torch

from featx.errors import DeviceMemoryError, UsageError
from featx.vision import devices
from featx.vision.devices import (
    choose_device,
    choose_devices,
    describe_numerics,
    exact_arithmetic,
    is_device_failure,
    is_out_of_memory,
)


def gpus(monkeypatch, n):
    """Let choosing believe in GPUs; nothing is computed on them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("cuda", ("cuda",)),
        ("auto", ("cuda",)),
        ("cuda:2", ("cuda:2",)),
        ("cuda:all", ("cuda:0", "cuda:1", "cuda:2")),
        ("cuda:1,cuda:0", ("cuda:1", "cuda:0")),
        ("cuda, cuda:2", ("cuda:0", "cuda:2")),
        ("cpu,cpu", ("cpu", "cpu")),
        ("cuda:0,cpu", ("cuda:0", "cpu")),
    ],
)
def test_what_the_user_writes_names_the_devices(monkeypatch, text, chosen):
    gpus(monkeypatch, 3)
    assert choose_devices(text) == chosen


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cuda:0,cuda:3", "'cuda:3' is not on this machine .torch sees 3"),
        ("cuda:0,cuda", "names cuda:0 more than once"),
        ("cuda:all,cuda:1", "names cuda:1 more than once"),
        ("cuda:0,", "''"),
        ("cuda:0 cuda:1", "does not exist"),
        ("all", "cuda:all"),
    ],
)
def test_devices_that_cannot_be_are_usage_errors(monkeypatch, text, words):
    gpus(monkeypatch, 3)
    with pytest.raises(UsageError, match=words):
        choose_devices(text)


@pytest.mark.parametrize("text", ["gpu", "cpu,cpu", "cuda:all", "meta"])
def test_who_wants_one_device_is_not_told_to_name_several(text):
    with pytest.raises(UsageError, match=r"take one of auto, cpu, cuda, cuda:1, mps$"):
        choose_device(text)


def test_all_gpus_of_a_machine_without_one_are_none_and_not_the_cpu(monkeypatch):
    gpus(monkeypatch, 0)
    with pytest.raises(UsageError, match="'cuda' is not on this machine"):
        choose_devices("cuda:all")


def switches():
    backends = torch.backends
    new = [part.fp32_precision for part in devices._PRECISIONS]
    old = []
    for module in (backends.cudnn, backends.cuda.matmul):
        try:
            old.append(module.allow_tf32)
        except RuntimeError:
            old.append("unreadable")
    return [*new, *old, backends.cudnn.benchmark, backends.cudnn.deterministic]


@contextlib.contextmanager
def as_they_are():
    """Put the process's switches back after a test that plays with them."""
    before = [part.fp32_precision for part in devices._PRECISIONS], torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[1])
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = cudnn
        for part, value in zip(devices._PRECISIONS, before[0], strict=True):
            part.fp32_precision = value


def by_old_switches():
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = True


def by_new_settings():
    for part in devices._PRECISIONS:
        part.fp32_precision = "tf32"


@pytest.mark.parametrize("allow", [lambda: None, by_old_switches, by_new_settings])
def test_exact_arithmetic_holds_whatever_the_program_allowed_and_leaves_its_switches_as_they_were(allow):
    with as_they_are():
        allow()
        before = switches()
        with exact_arithmetic:
            assert {part.fp32_precision for part in devices._PRECISIONS} <= {"ieee"}
            assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == (False, True)
            assert set(switches()[-4:-2]) <= {False, "unreadable"}
        assert switches() == before


def test_a_thread_that_leaves_does_not_take_exactness_from_one_that_still_computes():
    before = switches()
    entered, leave = threading.Event(), threading.Event()

    def first():
        with exact_arithmetic:
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(10)
    with exact_arithmetic:
        leave.set()
        thread.join()
        assert torch.backends.cudnn.deterministic
        assert {part.fp32_precision for part in devices._PRECISIONS} <= {"ieee"}
    assert switches() == before


def test_numerics_are_said_aloud():
    assert describe_numerics("cuda:1", "float32") == "float32, TF32 off"
    assert describe_numerics("cpu", "float32") == "float32"
    assert describe_numerics("cuda", "bfloat16") == "bfloat16 autocast"


def test_errors_of_torch_are_told_apart():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert is_device_failure(RuntimeError("CUDA error: unspecified launch failure"))
    assert not is_device_failure(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_too_little_memory_says_which_device_how_many_images_and_what_to_do():
    error = DeviceMemoryError(device="cuda:1", batch=64)
    assert (error.device, error.batch, error.exit_code) == ("cuda:1", 64, 2)
    assert "cuda:1 has too little memory for 64 images at once; take a smaller --batch-size" in str(error)
    assert "even one image" in str(DeviceMemoryError(device="cpu", batch=1))
    assert isinstance(error, MemoryError)
    assert isinstance(error, UsageError)
