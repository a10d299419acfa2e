"""Whether a device computes what the processor does: a device may give wrong numbers without an error."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .device import out_of_memory, taken_wholly
from .errors import DeviceBusyError

#: Largest relative difference: GPUs multiply with fewer digits, which norms over few voxels magnify.
OUTPUT_TOLERANCE, GRADIENT_TOLERANCE = 0.05, 0.3
_SIDE, _FILTERS, _SEED = 32, 8, 0


def fault(name: str) -> str:
    """Return why the network cannot be used on the device ``name``; empty where it can.

    A small network of both sub-models is run forwards and backwards there and on the processor, with what else
    training and prediction compute on a device. Raises DeviceBusyError where there is no memory for that now, or
    another program has the device for itself: that says nothing of the device.
    """
    try:
        found, wanted = _computed(name), _computed("cpu")
    except (RuntimeError, NotImplementedError, AssertionError, MemoryError) as error:
        if out_of_memory(error):
            raise DeviceBusyError(
                f"The device {name!r} has no free memory now: other programs use it. Close them or wait for them and "
                "try again, or choose another device, such as cpu."
            ) from error
        if taken_wholly(error):
            raise DeviceBusyError(
                f"The device {name!r} is busy: another program has it for itself now. End that program or wait for it "
                "and try again, or choose another device, such as cpu."
            ) from error
        return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
    *outputs, gradient = zip(found, wanted)
    right = all(_near(*pair, OUTPUT_TOLERANCE) for pair in outputs) and _near(*gradient, GRADIENT_TOLERANCE)
    return "" if right else "it computes wrong results"


def _near(found: Tensor, wanted: Tensor, tolerance: float) -> bool:
    difference = float((found - wanted).norm())
    return difference <= tolerance * float(wanted.norm())  # false for a difference that is no number


def _computed(name: str) -> Sequence[Tensor]:
    """Logits of both sub-models, of evaluation, resampled ones, a maximum over neighbours, and the gradients."""
    from .config import NetworkConfig
    from .data.geometry import contract
    from .model import build_network

    generator = torch.Generator().manual_seed(_SEED)
    image = torch.randn((2, 1, _SIDE, _SIDE, _SIDE), generator=generator)
    config = NetworkConfig(base_filters=_FILTERS, dropout=0.0, attention_dropout=0.0, upsampling_a="conv1")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = build_network(config).to(name)
    image = image.to(name)
    output = network(image)
    (output.logits_v.square().mean() + output.logits_a.square().mean()).backward()
    gradients = [p.grad.flatten().cpu() for p in network.parameters() if p.grad is not None]
    logits = output.logits_v.detach()
    resampled = contract(logits, _SIDE + 17, logits.ndim - 1)
    largest = F.max_pool3d(logits, (5, 1, 1), stride=1, padding=(2, 0, 0))
    with torch.no_grad():
        evaluated = network.eval().forward_v(image[:1])
    parts = (logits, output.logits_a.detach(), evaluated, resampled, largest)
    return [*(part.float().cpu() for part in parts), torch.cat(gradients)]
