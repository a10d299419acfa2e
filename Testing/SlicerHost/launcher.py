"""``PythonSlicer`` as it is installed: not Python, but a launcher in front of it (ctkAppLauncher)."""

from __future__ import annotations

import sys
from pathlib import Path

#: A child that a signal has ended becomes a line on stderr and the exit code 1: nothing else of it is to be seen.
_LAUNCHER = """#!{python} -S
import subprocess, sys
code = subprocess.call(["{python}", *sys.argv[1:]])
if code < 0:
    print("error: [{python}] exit abnormally - Report the problem.", file=sys.stderr, flush=True)
    code = 1
sys.exit(code)
"""


def install(folder: Path) -> Path:
    """Write the launcher into ``folder``, which is to be put on PATH, and return its path."""
    program = folder / "PythonSlicer"
    program.write_text(_LAUNCHER.format(python=sys.executable))
    program.chmod(0o755)
    return program
