"""The network made ready for prediction on the device at hand: folded, cast, and in the fastest arithmetic there."""

from __future__ import annotations

import copy
import json
import os
import time
from dataclasses import asdict
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..cache_location import user_cache_folder
from ..config import DTypeName, NetworkConfig, NumericMode, Triple
from ..device import available_ram, cpu_title
from ..events import Listener, silent
from ..model.caml import CamlNetwork

DTYPES: dict[DTypeName, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
#: Side of the volume on which modes are compared: large enough that the cores are busy, 0.1 s in float32.
_SIDE = 48
#: Seconds after which no further mode is tried: on a machine that is busy with other work nothing can be measured.
_PATIENCE = 5.0
#: Reduced precision must pay for its rounding: it is taken where it is faster by this factor.
_WORTH = 1.2
#: Seconds for which the result of such a machine is believed: predictions beside a training would pay it each time.
_HASTY = 3600.0
#: Where the free memory is unknown.
_ASSUMED_MEMORY = 4 * 2**30


def prepared_network(network: CamlNetwork, numeric: NumericMode, device: str) -> CamlNetwork:
    """Return a copy of ``network`` for inference: BatchNorm folded into the convolutions, cast, on ``device``.

    ``network`` itself is not changed: a trainer may go on with it.
    """
    ready = copy.deepcopy(network).requires_grad_(False).eval()
    fold_batchnorm(ready)
    layout = torch.channels_last_3d if numeric.channels_last else torch.preserve_format
    return ready.to(device=device, dtype=DTYPES[numeric.dtype]).to(memory_format=layout)  # type: ignore[call-overload]


def fold_batchnorm(network: nn.Module) -> None:
    """Replace every convolution - BatchNorm within a Sequential by one convolution, in place; evaluation mode only.

    A trilinear upsampling may stand between the two: its weights sum to one, so that it commutes with the scaling of
    a channel.
    """
    for block in network.modules():
        if not isinstance(block, nn.Sequential):
            continue
        convolution = None
        for index, layer in enumerate(block):
            if isinstance(layer, (nn.Conv3d, nn.ConvTranspose3d)):
                convolution = index
            elif isinstance(layer, nn.BatchNorm3d) and convolution is not None:
                before: Any = block[convolution]
                block[convolution] = fuse_conv_bn_eval(before, layer, transpose=isinstance(before, nn.ConvTranspose3d))
                block[index], convolution = nn.Identity(), None
            elif not isinstance(layer, nn.Upsample):
                convolution = None


def choose_numeric(
    network: CamlNetwork,
    config: NetworkConfig,
    device: str,
    *,
    dtype: DTypeName | None = None,
    threads: int = 0,
    listener: Listener = silent,
) -> NumericMode:
    """Return the fastest arithmetic for predictions on ``device``, by a measurement of about a second.

    What was measured is kept in the user's cache folder, by processor, PyTorch and network. ``dtype`` fixes the
    precision.
    """
    candidates = _candidates(device, dtype, threads)
    if len(candidates) == 1:
        return candidates[0]
    key = _key(config, device, dtype)
    known = _valid(_remembered().get(key))
    for candidate in candidates:
        if known == [candidate.dtype, candidate.channels_last]:
            return candidate
    listener("stage", {"name": "measure", "detail": device})
    seconds: dict[NumericMode, float] = {}
    begin = time.monotonic()
    for candidate in candidates:
        limit = 4 * min(seconds.values(), default=float("inf"))
        seconds[candidate] = _measure(network, config, candidate, device, limit)
        if time.monotonic() - begin > _PATIENCE:
            break
    chosen = _fastest(seconds)
    listener("log", {"message": f"Arithmetic: {chosen.dtype}, the fastest of a short measurement on this machine."})
    result: list[object] = [chosen.dtype, chosen.channels_last]
    _remember(key, result if len(seconds) == len(candidates) else [*result, time.time() + _HASTY])
    return chosen


def memory_per_voxel(config: NetworkConfig, dtype: DTypeName) -> int:
    """Return about how many bytes one voxel of a window takes while the network runs.

    Measured on the CPU: five to seven and a half maps of the first stage are alive at once, with workspaces.
    """
    size = DTYPES[dtype].itemsize
    return int(7.5 * config.base_filters * size + 4 * config.in_channels + 12 * config.classes)


def free_memory(device: str) -> int:
    """Return the bytes that a prediction may take on ``device``."""
    if device.startswith("cuda"):  # what PyTorch keeps of it for later counts as free
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return available_ram() or _ASSUMED_MEMORY


def _candidates(device: str, dtype: DTypeName | None, threads: int) -> list[NumericMode]:
    if device.startswith("cuda"):
        reduced: DTypeName = "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
        modes: list[tuple[DTypeName, bool]] = [("fp32", False), (reduced, False), (reduced, True)]
    elif device == "cpu":
        modes = [("fp32", True), ("bf16", True), ("fp32", False)]
    else:
        modes = [("fp32", False)]
    if dtype is not None:
        modes = [mode for mode in modes if mode[0] == dtype] or [(dtype, device == "cpu")]
    return [NumericMode(name, layout, threads) for name, layout in modes]


def _measure(network: CamlNetwork, config: NetworkConfig, mode: NumericMode, device: str, limit: float) -> float:
    """Return the seconds of one pass of sub-model v, infinity where the mode fails; gives up beyond ``limit``.

    On the CPU it is the processor's time that counts: other programs take turns, and not evenly.
    """
    clock = time.process_time if device == "cpu" else time.perf_counter
    try:
        ready = prepared_network(network, mode, device)
        x, y, z = measured_size(config)
        image = torch.zeros(1, config.in_channels, x, y, z)
        seconds = []
        with torch.inference_mode():
            for _ in range(3):  # the first one warms up
                begin = clock()
                ready.forward_v(cast(image, mode, device)).float().cpu()
                seconds.append(clock() - begin)
                if seconds[-1] > limit:
                    break
        return min(seconds[1:], default=seconds[0])
    except RuntimeError:
        return float("inf")


def cast(image: torch.Tensor, mode: NumericMode, device: str) -> torch.Tensor:
    """Return a window [B, C, x, y, z] in the mode's precision and layout, on ``device``."""
    layout = torch.channels_last_3d if mode.channels_last else torch.contiguous_format
    return image.to(device=device, dtype=DTYPES[mode.dtype]).contiguous(memory_format=layout)


def measured_size(config: NetworkConfig) -> Triple:
    """Return the size of the volume on which modes are compared."""
    x, y, z = (max(1, round(_SIDE / step)) * step for step in config.divisor)
    return x, y, z


def _fastest(seconds: dict[NumericMode, float]) -> NumericMode:
    exact = min((mode for mode in seconds if mode.dtype == "fp32"), key=seconds.__getitem__, default=None)
    best = min(seconds, key=seconds.__getitem__)
    if exact is not None and seconds[best] * _WORTH > seconds[exact]:
        return exact
    return best


def _key(config: NetworkConfig, device: str, dtype: DTypeName | None) -> str:
    title = torch.cuda.get_device_name(device) if device.startswith("cuda") else cpu_title()
    parts = (title, f"torch {torch.__version__}", f"{torch.get_num_threads()} threads", f"{dtype or 'any'}")
    network = json.dumps(asdict(config), sort_keys=True)
    return " | ".join((*parts, network))


def _remembered() -> dict[str, list[object]]:
    try:
        known = json.loads((user_cache_folder() / "numeric.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _valid(known: list[object] | None) -> list[object] | None:
    """A remembered mode; None where it was measured in haste, and that is a while ago."""
    if known is None or len(known) == 2:
        return known
    until = known[2] if len(known) == 3 else None
    return known[:2] if isinstance(until, float) and time.time() < until <= time.time() + _HASTY else None


def _remember(key: str, value: list[object]) -> None:
    """Keep one result among the last 50. A folder that cannot be written costs a second each time, no more."""
    path = user_cache_folder() / "numeric.json"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    known = dict([*_remembered().items(), (key, value)][-50:])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        try:
            temporary.unlink(missing_ok=True)
        except OSError:
            pass
