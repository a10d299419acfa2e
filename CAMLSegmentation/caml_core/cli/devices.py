"""``caml devices``: where this machine can compute."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from . import options

HELP = "Show the devices that can compute here, the preferred one first."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    options.add_progress(parser)


def run(args: argparse.Namespace) -> int:
    """Print or tell the devices; starting PyTorch to ask it takes a few seconds."""
    with options.StopRequest(args.stop_file, args.parent_pid) as stop, options.reporting(args) as listener:
        from ..device import find_devices, use_threads

        devices, threads = find_devices(), use_threads(0)
        options.check_stop(stop)
        listener("finished", {"result": {"devices": [asdict(device) for device in devices], "threads": threads}})
    if args.progress != "json":
        options.say("\n".join([*map(str, devices), f"{threads} processor threads"]))
    return 0
