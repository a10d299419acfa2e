"""``python -m caml_core`` is the ``caml`` command."""

import sys

from caml_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
