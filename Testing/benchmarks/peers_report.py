"""The sections that ``bench_peers.py`` writes: tables and what they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common import machine, table
from convolutions import CHANNELS, KERNEL
from prediction_parts import REPEATS, Parts
from step_parts import StepParts

#: (arithmetic, with backward pass) -> GFLOP/s.
Peaks = dict[tuple[str, bool], float]
#: Parts of a step that are not the network, and what they may take together.
BESIDE = ("data", "bank", "occ", "optimizer")
BALANCED = "CAML, balanced"


@dataclass(frozen=True)
class Step:
    """Steps of one kind: ``phase`` of the training, arithmetic, and parameters that they train."""

    phase: str
    dtype: str
    parameters: int
    parts: StepParts


def step_section(steps: Sequence[Step], peaks: Peaks, where: str) -> str:
    """Parts of a step, and its convolutions beside the machine's peak."""
    shares = [
        (
            step.phase,
            step.dtype,
            f"{step.parts.iteration:.3f}",
            *(percent(step.parts.share(name)) for name in ("convolutions", *BESIDE)),
            percent(step.parts.share(*BESIDE)),
        )
        for step in steps
    ]
    rates = [
        (
            step.phase,
            step.dtype,
            f"{step.parts.gflop:.0f}",
            f"{step.parts.rate:.0f}",
            *(percent(step.parts.rate / peaks[step.dtype, backward]) for backward in (True, False)),
        )
        for step in steps
    ]
    tops = [(dtype, *(f"{peaks[dtype, b]:.0f}" for b in (False, True))) for dtype in dict.fromkeys(d for d, _ in peaks)]
    header = ("step", "arithmetic", "s", "convolutions %", "data %", "memory bank %", "OCC %", "optimiser %")
    return "\n\n".join(
        [
            "### Where the time of a step goes, and its convolutions beside the machine's",
            table((*header, "the last four %"), shares),
            table(
                ("step", "arithmetic", "GFLOP", "GFLOP/s", "% of the peak, both passes", "% of the peak, forward"),
                rates,
            ),
            table(("peak", "forward, GFLOP/s", "forward and backward, GFLOP/s"), tops),
            f"{where} Steps of a training that has learnt for a while. Seconds: a batch and its step, mean of some; "
            "shares: by PyTorch's profiler. OCC: with its part of the backward pass; optimiser: with the gradients' "
            "norm and the averaged weights; what is missing to 100 % are norms, activations, attention, losses and "
            "pasting. GFLOP and GFLOP/s: of the convolutions alone. Peak: the fastest of a few "
            f"{KERNEL}x{KERNEL}x{KERNEL} convolutions of {CHANNELS} channels, channels last. Aims: convolutions at "
            "60 % of the peak or more, the last four together at most 15 %.",
            machine(),
        ]
    )


def data_section(seconds: dict[str, float], step: StepParts, where: str) -> str:
    """A batch of ours and of MONAI's transforms."""
    ours = next(iter(seconds.values()))
    rows = [
        (name, f"{1000 * value:.0f}", f"{value / ours:.2f}", percent(value / (value + step.seconds)))
        for name, value in seconds.items()
    ]
    return "\n\n".join(
        [
            "### A batch: MONAI's transforms beside ours",
            table(("batch by", "ms", "ratio to ours", "% of an iteration of both sub-models"), rows),
            f"{where} Patches of both streams, cut at random or at the foreground, turned, scaled and varied in "
            "intensity with the same ranges and probabilities; MONAI has the volumes in memory as plain tensors and "
            "the foreground's voxels at hand, ours reads its cache. The step itself is the same.",
            machine(),
        ]
    )


def training_section(steps: Sequence[Step], peaks: Peaks, peer: dict[str, Any] | None, where: str) -> str:
    """An iteration beside nnU-Net's."""
    rows = [
        _training_row(
            f"CAML, {step.phase}",
            step.dtype,
            {
                "parameters": step.parameters,
                "batch": step.parts.samples,
                "gflop": step.parts.gflop,
                "seconds": step.parts.iteration,
                "waiting": step.parts.data,
                "share": step.parts.share("convolutions"),
                "rate": step.parts.rate,
            },
            peaks,
        )
        for step in steps
    ]
    if peer is not None:
        rows.append(_training_row(f"nnU-Net {peer['version']}", "fp32", peer["training"], peaks))
    header = (
        "training",
        "arithmetic",
        "parameters, millions",
        "patches a step",
        "GFLOP a step",
        "s an iteration",
        "of it data, s",
        "convolutions %",
        "GFLOP/s",
        "% of the peak, both passes",
    )
    return "\n\n".join(
        [
            "### An iteration beside nnU-Net's",
            table(header, rows),
            f"{where} {_peer_training(steps, peer)}",
            machine(),
        ]
    )


def prediction_section(ways: dict[str, Parts], peer: dict[str, Any] | None, where: str) -> str:
    """A prediction, part by part, beside MONAI's and nnU-Net's."""
    ways = dict(ways)
    if peer is not None:
        for parts in peer["prediction"]:
            name = f"nnU-Net {peer['version']}, {'as shipped' if parts['views'] > 1 else 'without mirrored views'}"
            ways[name] = {"dtype": "fp32", "bare": None, **parts}
    ours = ways[BALANCED]["labels"]
    rows = [
        (
            name,
            parts["dtype"],
            f"{parts['windows']} x {parts['views']}",
            *(_seconds(parts[part]) for part in ("read", "prepare", "labels", "back", "bare")),
            "-" if parts["back"] is None or not parts["bare"] else f"{_engine(parts) / parts['bare']:.2f}",
            f"{parts['labels'] / ours:.2f}",
        )
        for name, parts in ways.items()
    ]
    header = (
        "prediction by",
        "arithmetic",
        "windows x views",
        "read, s",
        "to the network's grid, s",
        "from there to labels, s",
        "of it resampling, s",
        "bare forward, s",
        "ratio to bare forward",
        "ratio to `balanced`",
    )
    left_out = "" if peer is not None else " nnU-Net was left out: no interpreter was named."
    return "\n\n".join(
        [
            "### A prediction, model loaded to labels in memory",
            table(header, rows),
            f"{where} One scan of the left atrium. Labels are on the scan's grid. Bare forward: the passes of the same "
            "windows through the same network and nothing else; the ratio to it is that of what remains without "
            f"resampling. Ours and MONAI's: best of {REPEATS}; `fast` runs sub-model v alone. Weights are random or "
            "hardly trained: time does not depend on them. Aims: `balanced` at most 1.3 times its bare forward, `fast` "
            f"under 1 s.{left_out}",
            machine(),
        ]
    )


def percent(share: float) -> str:
    """A share, for a table."""
    return f"{100 * share:.1f}"


def _training_row(name: str, dtype: str, found: dict[str, Any], peaks: Peaks) -> tuple[object, ...]:
    return (
        name,
        dtype,
        f"{found['parameters'] / 1e6:.1f}",
        found["batch"],
        f"{found['gflop']:.0f}",
        f"{found['seconds']:.3f}",
        f"{found['waiting']:.3f}",
        percent(found["share"]),
        f"{found['rate']:.0f}",
        percent(found["rate"] / peaks[dtype, True]),
    )


def _peer_training(steps: Sequence[Step], peer: dict[str, Any] | None) -> str:
    if peer is None:
        return "nnU-Net was left out: no interpreter was named."
    found = peer["training"]
    ratios = ", ".join(
        f"{found['seconds'] / step.parts.iteration:.1f} times that of {step.phase} in {step.dtype}" for step in steps
    )
    return (
        f"nnU-Net: the labelled cases, the network that it plans for this patch, its loaders beside the training, mean "
        f"of {found['iterations']} iterations; it computes in fp32 on processors (torch {peer['torch']}). Ours makes "
        f"its batches in between. An iteration of nnU-Net takes {ratios}."
    )


def _engine(parts: Parts) -> float:
    return parts["labels"] - parts["back"]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
