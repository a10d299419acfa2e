"""A plan on the machine at hand, which may lack what the training was begun with."""

from __future__ import annotations

import dataclasses
import os
import platform

import torch

from ..config import NumericMode, Plan
from ..device import choose_device, use_threads
from ..errors import DeviceBusyError, ResourceError
from ..events import Listener
from .measurement import bf16_gradients_are_right
from .planner import recomputed_stages


def at_hand(plan: Plan, listener: Listener, device: str = "auto") -> Plan:
    """Return ``plan`` as it can be gone on with here, and let PyTorch use its threads.

    device: where to compute, as in ``device_at_hand``, which may raise. Bit for bit the same training goes on only
    where nothing had to change.
    """
    plan = _moved(plan, device_at_hand(plan.device, listener, device))
    if plan.device == "cpu" and plan.numeric.dtype == "bf16" and not (_knows_bf16() and bf16_gradients_are_right(plan)):
        fault = "has no bfloat16" if not _knows_bf16() else "cannot train patches of this size in bfloat16"
        message = f"This processor {fault}, in which the training was begun; it goes on in float32."
        listener("warning", {"message": message})
        plan = _with_numeric(plan, dataclasses.replace(plan.numeric, dtype="fp32"))
    if plan.numeric.threads > (os.cpu_count() or 1):  # of a larger machine: they would wait for each other
        plan = _with_numeric(plan, dataclasses.replace(plan.numeric, threads=0))
    use_threads(plan.numeric.threads)
    return plan


def device_at_hand(begun: str, listener: Listener, device: str = "auto") -> str:
    """Return the device to go on with of a training that was begun, or asked for, on ``begun``.

    device: the one that is named; ``auto``: ``begun``, or the processor where that device is gone or computes wrongly,
    with a warning. Raises ResourceError where a device that was named is not there, DeviceBusyError where it is
    busy now: what takes a GPU an hour must not take the processor a day for that.
    """
    if device != "auto":
        return choose_device(device)
    try:
        choose_device(begun)
    except DeviceBusyError:
        raise
    except ResourceError as error:
        message = f"{error} The training goes on on the processor, more slowly."
        listener("warning", {"message": message})
        return "cpu"
    return begun


def _moved(plan: Plan, device: str) -> Plan:
    """``plan`` on ``device``, in the arithmetic that works everywhere."""
    if device == plan.device:
        return plan
    return _with_numeric(dataclasses.replace(plan, device=device), NumericMode(channels_last=device == "cpu"))


def _with_numeric(plan: Plan, numeric: NumericMode) -> Plan:
    recompute = max(numeric.recompute, recomputed_stages(plan, numeric))
    return dataclasses.replace(plan, numeric=dataclasses.replace(numeric, recompute=recompute))


def _knows_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself; true where PyTorch cannot tell."""
    asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return platform.machine().lower() not in ("x86_64", "amd64") or asked is None or bool(asked())
