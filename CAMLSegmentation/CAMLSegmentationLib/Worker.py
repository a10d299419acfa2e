"""The script that the worker process runs: the engine's command line, with the module's folder on the path.

Run by file name, so that it does not matter what the launcher of Slicer's Python makes of PYTHONPATH. Standard library
only until the engine is asked for something.
"""

import sys
from pathlib import Path


def main() -> int:
    """Run the command line of ``caml_core`` that lies beside this package; return its exit code."""
    # Python puts this file's folder first; the engine lies one folder up.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from caml_core.cli import main as command_line

    return command_line(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
