"""``make benchmarks``: everything of docs/benchmarks.md that fits in half an hour.

The accuracy on real scans takes twice its budget: ``python Testing/benchmarks/bench_accuracy.py --budget 20m``. What
the suggestion of cases is worth takes an hour or more: ``python Testing/benchmarks/bench_suggestion.py``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPTS = ("bench_training_step.py", "bench_prediction.py", "bench_slicer.py")


def main() -> int:
    """Run one after the other; a machine that does two things at once measures neither."""
    codes = [subprocess.run([sys.executable, str(HERE / script)], check=False).returncode for script in SCRIPTS]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
