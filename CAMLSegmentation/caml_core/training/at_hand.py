"""A plan on the machine at hand, which may lack what the training was begun with."""

from __future__ import annotations

import dataclasses
import os
import platform

import torch

from ..config import NumericMode, Plan
from ..device import choose_device, use_threads
from ..errors import ResourceError
from ..events import Listener
from .planner import recomputed_stages


def at_hand(plan: Plan, listener: Listener, device: str = "auto") -> Plan:
    """Return ``plan`` as it can be gone on with here, and let PyTorch use its threads.

    device: where to compute; ``auto``: where it was begun, or on the processor where that device is gone, with a
    warning. Bit for bit the same training goes on only where nothing had to change. Raises ResourceError where a
    device that was named is not there.
    """
    if device != "auto":
        plan = _moved(plan, choose_device(device))
    else:
        try:
            choose_device(plan.device)
        except ResourceError as error:
            message = f"{error} The training goes on on the processor, more slowly."
            listener("warning", {"message": message})
            plan = _moved(plan, "cpu")
    if plan.device == "cpu" and plan.numeric.dtype == "bf16" and not _knows_bf16():
        message = "This processor has no bfloat16, in which the training was begun; it goes on in float32."
        listener("warning", {"message": message})
        plan = _with_numeric(plan, dataclasses.replace(plan.numeric, dtype="fp32"))
    if plan.numeric.threads > (os.cpu_count() or 1):  # of a larger machine: they would wait for each other
        plan = _with_numeric(plan, dataclasses.replace(plan.numeric, threads=0))
    use_threads(plan.numeric.threads)
    return plan


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
