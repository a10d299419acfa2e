"""A device that other programs use now is not one that is gone: nobody is sent to the processor for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from round_tools import QUICK, a_plan
from synthetic import tiny_plan, write_cohort

from caml_core import device, device_check
from caml_core.cli import main
from caml_core.config import NumericMode
from caml_core.errors import DeviceBusyError, ResourceError
from caml_core.events import silent
from caml_core.training.at_hand import at_hand, device_at_hand

NO_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
)
#: Of a card in the mode "exclusive process", by PyTorch's versions.
TAKEN = (
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel errors might be reported later",
    "CUDA error: all CUDA-capable devices are busy or unavailable",
    "cuda runtime error (46) : all CUDA-capable devices are busy at /pytorch/torch/csrc/cuda/Module.cpp:32",
)
#: Of cards that do not work here.
BROKEN = (
    "CUDA error: no kernel image is available for execution on the device",
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: no CUDA-capable device is detected",
    "The NVIDIA driver on your system is too old",
    "CUDA error: unspecified launch failure",
)


class Gpu:
    """What a graphics card answers: it raises ``error`` where there is one, or computes as the processor does."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._computed = device_check._computed

    def __call__(self, name: str) -> Any:
        if name != "cpu" and self.error is not None:
            raise self.error
        return self._computed("cpu")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """A card beside this machine's processor."""
    found, made = device.find_devices(), Gpu()
    card = device.Device("cuda:0", "Some GPU", 8 * device.GIB, 0)
    monkeypatch.setattr(device, "find_devices", lambda: (card, found[-1]))
    monkeypatch.setattr(device_check, "_computed", made)
    device._fault.cache_clear()
    yield made
    device._fault.cache_clear()


@pytest.mark.parametrize("error", NO_MEMORY, ids=["torch", "cublas", "mps"])
def test_a_device_without_memory_for_the_check_is_busy_and_asked_again(gpu: Gpu, error: Exception) -> None:
    gpu.error = error
    with pytest.raises(DeviceBusyError, match="no free memory now.*Close them"):
        device.choose_device("cuda:0")
    gpu.error = None
    assert device.choose_device("cuda:0") == "cuda:0"


@pytest.mark.parametrize("text", TAKEN)
def test_what_is_said_of_a_device_that_another_program_has(text: str) -> None:
    assert device.taken_wholly(RuntimeError(text)) and not device.out_of_memory(RuntimeError(text))


@pytest.mark.parametrize("text", [*BROKEN, *map(str, NO_MEMORY)])
def test_other_faults_are_not_taken_for_another_program(text: str) -> None:
    assert not device.taken_wholly(RuntimeError(text))


def test_a_device_that_another_program_has_is_busy_and_waited_for(gpu: Gpu) -> None:
    gpu.error, told = RuntimeError(TAKEN[0]), list[str]()
    with pytest.raises(DeviceBusyError, match="is busy: another program has it for itself now. End that program"):
        device.choose_device("cuda:0")
    assert device.choose_device("auto", lambda kind, fields: told.append(fields["message"])) == "cpu"
    assert len(told) == 1 and "is busy" in told[0] and "left aside" in told[0] and "cannot run" not in told[0]
    plan = tiny_plan(device="cuda:0", numeric=NumericMode("fp16", threads=1))
    with pytest.raises(DeviceBusyError):
        at_hand(plan, silent)
    gpu.error = None
    assert at_hand(plan, silent) == plan


def test_auto_leaves_a_busy_device_aside_for_now_and_says_so(gpu: Gpu) -> None:
    gpu.error, told = NO_MEMORY[0], list[str]()
    assert device.choose_device("auto", lambda kind, fields: told.append(fields["message"])) == "cpu"
    assert len(told) == 1 and "no free memory now" in told[0] and "left aside" in told[0]
    gpu.error = None
    assert device.choose_device("auto") == "cuda:0"


def test_the_check_warns_of_a_busy_device_that_is_left_aside(gpu: Gpu, tmp_path, capsys) -> None:
    gpu.error = NO_MEMORY[0]
    cohort = write_cohort(tmp_path / "cohort", labeled=2, unlabeled=1, validation=1)
    words = (*QUICK[:-1], "json", "--iterations", "10", "--device", "auto", "--cache", str(tmp_path / "cache"))
    assert main(["preflight", str(cohort), *words]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    result = next(event["result"] for event in events if event["event"] == "finished")
    for told in (result["cautions"], result["notes"]):
        assert "no free memory now" in told[0] and "left aside" in told[0]


def test_a_training_waits_for_its_busy_device(gpu: Gpu) -> None:
    plan = tiny_plan(device="cuda:0", numeric=NumericMode("fp16", threads=1))
    gpu.error = NO_MEMORY[0]
    with pytest.raises(DeviceBusyError):
        at_hand(plan, silent)
    assert at_hand(plan, silent, "cpu").device == "cpu", "it may be named"
    gpu.error = None
    assert at_hand(plan, silent) == plan


def test_a_training_leaves_a_device_that_computes_wrongly(gpu: Gpu) -> None:
    gpu.error, told = RuntimeError("CUDA error: no kernel image is available"), list[str]()
    moved = at_hand(a_plan(device="cuda:0"), lambda kind, fields: told.append(fields["message"]))
    assert moved.device == "cpu" and "no kernel image" in told[0] and "goes on on the processor" in told[0]
    with pytest.raises(ResourceError, match="no kernel image") as raised:
        device_at_hand("cpu", silent, "cuda")
    assert not isinstance(raised.value, DeviceBusyError)
