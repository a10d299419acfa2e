"""``make benchmarks``: everything of docs/benchmarks.md that fits in half an hour.

That is speed and memory, and how soon a training begins to learn. Set ``CAML_NNUNET_PYTHON`` to the interpreter of an
environment that has nnU-Net, or the comparison beside it and MONAI is left as it is on the page. Accuracy on real scans
takes hours; docs/benchmarks.md has its commands.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPTS = (
    "bench_startup.py",
    "bench_training_step.py",
    "bench_prediction.py",
    "bench_slicer.py",
    "bench_training_module.py",
    "bench_beginning.py",
)


def main() -> int:
    """Run one after the other; a machine that does two things at once measures neither."""
    commands = [[script] for script in SCRIPTS]
    if nnunet := os.environ.get("CAML_NNUNET_PYTHON"):
        commands.append(["bench_peers.py", "--nnunet-python", nnunet])
    else:
        print("bench_peers.py is left out: CAML_NNUNET_PYTHON names no interpreter with nnU-Net.", flush=True)
    codes = [measure(*words) for words in commands]
    return int(any(codes))


def measure(script: str, *options: str) -> int:
    """Run one script, say how long it took, and return its exit code."""
    begin = time.perf_counter()
    code = subprocess.run([sys.executable, str(HERE / script), *options], check=False).returncode
    print(f"{script}: {(time.perf_counter() - begin) / 60:.1f} minutes, exit code {code}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
