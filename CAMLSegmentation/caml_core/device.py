"""What the machine at hand offers: devices, memory, cores. Nothing here fails where something is absent.

PyTorch is imported inside the functions that need it: a panel asks for memory and cores before PyTorch is there.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .control_groups import limits
from .errors import DeviceBusyError, ResourceError, UsageError
from .events import Listener, silent

GIB = 1024**3
#: What errors say that mean it; the last is that of NVIDIA's libraries, those before it are C++'s.
_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "bad allocation",
    "status_alloc_failed",
)
#: What NVIDIA's driver says of a device that lets one program in at a time, as clusters set it, while another has it.
_TAKEN = ("busy or unavailable", "devices are busy")


@dataclass(frozen=True)
class Device:
    """One place to compute. ``name`` is PyTorch's (``cpu``, ``cuda:0``, ``mps``); memory in bytes, 0: unknown."""

    name: str
    title: str
    memory: int
    free_memory: int

    def __str__(self) -> str:
        memory = f", {self.memory / GIB:.1f} GiB" if self.memory else ""
        return f"{self.name} ({self.title}{memory})"


def find_devices() -> tuple[Device, ...]:
    """Return the devices of this machine, the preferred one first and the processor last."""
    import torch

    devices = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an old driver makes PyTorch warn; the device is then just not there
        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            devices.append(_cuda_device(index))
        if torch.backends.mps.is_available():
            # Apple's GPU shares the machine's memory.
            devices.append(Device("mps", "Apple GPU", total_ram(), available_ram()))
    devices.append(Device("cpu", cpu_title(), total_ram(), available_ram()))
    return tuple(devices)


def choose_device(name: str = "auto", listener: Listener = silent) -> str:
    """Return PyTorch's name of the device asked for; ``auto`` takes the first that works now.

    Raises UsageError for a name that is none, ResourceError where the device is absent or cannot run a network, and
    DeviceBusyError, which is one, where it has no free memory now or another program has it for itself.
    """
    wanted = name.strip().lower()
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", wanted):
        raise UsageError(f"Unknown device {name!r}; expected auto, cpu, cuda, cuda:0 or mps.")
    if wanted == "cpu":
        return wanted
    devices = find_devices()
    if wanted == "auto":
        return next(device.name for device in devices if _usable(device, listener))
    wanted = "cuda:0" if wanted == "cuda" else wanted
    if wanted not in [device.name for device in devices]:
        found = ", ".join(str(device) for device in devices)
        raise ResourceError(f"There is no device {wanted!r} that PyTorch can use here; choose auto or one of: {found}.")
    if fault := _fault(wanted):
        raise ResourceError(f"The device {wanted!r} cannot run the network ({fault}); choose cpu.")
    return wanted


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice: a processor raises a plain RuntimeError for it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return any(sign in text for sign in _NO_MEMORY)


def taken_wholly(error: BaseException) -> bool:
    """Whether an error says that another program has a device for itself now: that says nothing of the device."""
    text = str(error).lower()
    return any(sign in text for sign in _TAKEN)


def use_threads(number: int) -> int:
    """Let PyTorch use ``number`` processor threads (0: as it is) and return how many it uses."""
    import torch

    if number > 0:
        torch.set_num_threads(number)
    return torch.get_num_threads()


def cpu_title() -> str:
    """Return the processor's name, as well as it can be known."""
    if sys.platform.startswith("linux"):
        for line in _read("/proc/cpuinfo").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    if sys.platform == "darwin":
        text = _sysctl("machdep.cpu.brand_string", 256).split(b"\0")[0].decode("ascii", "replace")
        return text or platform.machine()
    return platform.processor() or platform.machine() or "processor"


def total_ram() -> int:
    """Return the memory of the machine, or of the container or job where it may use less, in bytes; 0: unknown."""
    return min(filter(None, (_system_ram()[0], limits().memory)), default=0)


def available_ram() -> int:
    """Return the memory that can be taken without swapping, in bytes; 0: unknown."""
    return min(filter(None, (_system_ram()[1], limits().free)), default=0)


def peak_memory() -> int:
    """Return the most memory that this process has had resident, in bytes; 0: unknown."""
    if sys.platform == "win32":
        return _windows_peak()
    # Linux hands getrusage's figure down from the parent that forked; VmHWM starts anew with the program.
    if match := re.search(r"^VmHWM:\s+(\d+) kB", _read("/proc/self/status"), re.MULTILINE):
        return int(match.group(1)) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak_memory() -> None:
    """Let ``peak_memory`` start anew, where the system can (Linux); elsewhere it stays the process's."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        pass


def physical_cores() -> int:
    """Return how many physical cores this process may use, at least 1; hyper-threads are not counted where known."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = {"linux": _linux_cores, "darwin": _mac_cores, "win32": _windows_cores}.get(sys.platform, lambda: 0)()
    return max(1, min(filter(None, (usable, found, limits().cores))))


def _cuda_device(index: int) -> Device:
    import torch

    try:
        title = torch.cuda.get_device_name(index)
        free, total = torch.cuda.mem_get_info(index)
    except (RuntimeError, AssertionError):
        title, free, total = "GPU", 0, 0
    return Device(f"cuda:{index}", title, total, free)


def _usable(device: Device, listener: Listener) -> bool:
    try:
        fault = _fault(device.name)
    except DeviceBusyError as error:
        listener("warning", {"message": f"{error} It is left aside."})
        return False
    if fault:
        listener("warning", {"message": f"{device} cannot run the network ({fault}) and is left aside."})
    return not fault


@functools.cache  # a round asks for each of its parts; errors are not remembered
def _fault(name: str) -> str:
    """Why the network cannot be used on this device; empty where it can. Raises DeviceBusyError."""
    if name == "cpu":
        return ""
    from .device_check import fault

    return fault(name)


def _system_ram() -> tuple[int, int]:
    """(total, available) in bytes, 0 where unknown."""
    if sys.platform == "win32":
        return _windows_ram()
    if sys.platform == "darwin":
        return _mac_ram()
    found = re.findall(r"^(\w+):\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    fields = {name: int(kilobytes) * 1024 for name, kilobytes in found}
    return fields.get("MemTotal", 0), fields.get("MemAvailable", fields.get("MemFree", 0))


def _linux_cores() -> int:
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = _read(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").strip()
        cores.add(siblings or str(cpu))
    return len(cores)


def _mac_cores() -> int:
    return int.from_bytes(_sysctl("hw.physicalcpu", 4), "little")


def _mac_ram() -> tuple[int, int]:
    total = int.from_bytes(_sysctl("hw.memsize", 8), "little")
    page = int.from_bytes(_sysctl("hw.pagesize", 8), "little") or 4096
    # Free and speculative pages; macOS gives up inactive ones too, of which no simple count is to be had.
    free = sum(int.from_bytes(_sysctl(f"vm.page_{kind}_count", 4), "little") for kind in ("free", "speculative"))
    return total, max(free * page, total // 4)


def _sysctl(name: str, size: int) -> bytes:
    """The bytes of a macOS system variable, empty where it is unknown."""
    try:
        buffer, length = ctypes.create_string_buffer(size), ctypes.c_size_t(size)
        failed = ctypes.CDLL(None).sysctlbyname(name.encode(), buffer, ctypes.byref(length), None, ctypes.c_size_t(0))
    except (OSError, AttributeError):
        return b""
    return b"" if failed else buffer.raw[: length.value]


class _MemoryStatus(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint32), ("load", ctypes.c_uint32)] + [
        (name, ctypes.c_uint64)
        for name in ("total", "available", "page_total", "page_free", "virtual_total", "virtual_free", "extended")
    ]


class _ProcessMemory(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("faults", ctypes.c_uint32), ("peak", ctypes.c_size_t)] + [
        (f"other_{i}", ctypes.c_size_t) for i in range(7)
    ]


def _windows_ram() -> tuple[int, int]:
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    ok = _windows("kernel32").GlobalMemoryStatusEx(ctypes.byref(status))
    return (status.total, status.available) if ok else (0, 0)


def _windows_peak() -> int:
    counters = _ProcessMemory(size=ctypes.sizeof(_ProcessMemory))
    kernel = _windows("kernel32")
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    process = ctypes.c_void_p(kernel.GetCurrentProcess())
    ok = kernel.K32GetProcessMemoryInfo(process, ctypes.byref(counters), ctypes.sizeof(counters))
    return counters.peak if ok else 0


def _windows_cores() -> int:
    size = ctypes.c_uint32(0)
    ask = _windows("kernel32").GetLogicalProcessorInformation
    ask(None, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    if not size.value or not ask(buffer, ctypes.byref(size)):
        return 0
    # Records of (mask: pointer, relationship: uint32, padding, 16 bytes); relationship 0 is one core.
    pointer = ctypes.sizeof(ctypes.c_void_p)
    record = 32 if pointer == 8 else 24
    return sum(
        int.from_bytes(buffer.raw[at + pointer : at + pointer + 4], "little") == 0
        for at in range(0, size.value - record + 1, record)
    )


def _windows(library: str) -> Any:
    return getattr(ctypes, "windll")[library]  # noqa: B009 (absent from the type stubs of other systems)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
