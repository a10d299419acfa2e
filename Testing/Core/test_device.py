"""What the machine offers is found without failing, and a device that is not there is refused in one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from caml_core import device
from caml_core.errors import ResourceError, UsageError


def test_the_processor_is_always_there_and_last():
    devices = device.find_devices()
    assert devices[-1].name == "cpu"
    assert devices[-1].title and len({d.name for d in devices}) == len(devices)


def test_auto_takes_a_device_that_computes():
    name = device.choose_device("auto")
    assert name in [d.name for d in device.find_devices()]
    assert float(torch.ones(2, device=name).sum()) == 2


@pytest.mark.parametrize("name", ["cpu", "CPU", " cpu "])
def test_cpu_is_always_granted(name):
    assert device.choose_device(name) == "cpu"


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:x", "cpu:0", "rocm", "cuda:0;rm"])
def test_unknown_names_are_refused(name):
    with pytest.raises(UsageError, match="expected auto, cpu, cuda"):
        device.choose_device(name)


@pytest.mark.parametrize("name", ["cuda:99", "cuda", "mps"])
def test_absent_devices_are_refused_with_those_present(name):
    if any(d.name.startswith(name) for d in device.find_devices()):
        pytest.skip(f"{name} is present here")
    with pytest.raises(ResourceError, match=r"choose auto or one of: .*cpu \("):
        device.choose_device(name)


def test_memory_is_plausible():
    available, total = device.available_ram(), device.total_ram()
    assert 0 < available <= total < 2**50


def test_the_peak_follows_what_was_taken(caml_environment):
    """In a process of its own, whose peak is not that of the tests before."""
    code = (
        "from caml_core.device import peak_memory; before = peak_memory(); block = bytearray(300_000_000); "
        "block[::1024] = b'x' * len(block[::1024]); taken = peak_memory() - before; del block; "
        "assert 280e6 < taken < 400e6, taken; assert peak_memory() - before == taken"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=caml_environment)


def test_cores_are_at_least_one_and_no_more_than_the_system_has():
    assert 1 <= device.physical_cores() <= (os.cpu_count() or 1)


def test_threads_are_set_and_zero_leaves_them():
    before = torch.get_num_threads()
    try:
        assert device.use_threads(1) == 1
        assert device.use_threads(0) == 1
    finally:
        torch.set_num_threads(before)


def test_a_device_reads_well():
    assert str(device.Device("cuda:0", "Some GPU", 8 * device.GIB, 0)) == "cuda:0 (Some GPU, 8.0 GiB)"
    assert str(device.Device("mps", "Apple GPU", 0, 0)) == "mps (Apple GPU)"


def test_memory_and_cores_are_known_without_torch(caml_environment):
    code = (
        "import sys; from caml_core import device; device.available_ram(); device.physical_cores(); "
        "device.peak_memory(); device.cpu_title(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=caml_environment, timeout=60)


# caml devices


def test_devices_are_shown_to_a_person(caml):
    code, out, err = caml("devices", "--progress", "none")
    assert code == 0 and not err and out.isascii()
    assert [line.split(" ")[0] for line in out.splitlines()[:-1]] == [d.name for d in device.find_devices()]
    assert out.splitlines()[-1] == f"{torch.get_num_threads()} processor threads"


def test_devices_are_told_to_a_panel(caml):
    code, out, err = caml("devices", "--progress", "json")
    first, last = (json.loads(line) for line in out.splitlines())
    assert (code, err, first["event"], last["event"]) == (0, "", "started", "finished")
    found = last["result"]["devices"]
    assert [set(d) for d in found] == [{"name", "title", "memory", "free_memory"}] * len(found)
    assert [d["name"] for d in found] == [d.name for d in device.find_devices()] and found[-1]["memory"] > 0
    assert last["result"]["threads"] == torch.get_num_threads()
