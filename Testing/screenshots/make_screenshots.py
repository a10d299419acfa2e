"""`make screenshots`: the pictures of README and tutorials, from the test host and slicer-core's own rendering.

They show phantoms, never patients. For those of CAML Training models are trained on phantoms, which takes a while;
``--only`` makes the pictures of one module.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable

from pictures import OUTPUT, REPOSITORY


def main() -> int:
    """Make all pictures; return 0."""
    args = _parse()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(REPOSITORY / "Testing"))
    import SlicerHost

    SlicerHost.install()
    import segmentation_pictures
    import training_pictures
    import views

    slices = [views.SliceView(name, (360, 300)) for name in ("Red", "Yellow", "Green")]
    if args.only in (None, "segmentation"):
        _with_empty_library(lambda: segmentation_pictures.photograph(slices))
    if args.only in (None, "training"):
        _with_empty_library(lambda: training_pictures.photograph(args.iterations, slices))
    for path in sorted(OUTPUT.glob("*.png")):
        print(f"{path.relative_to(REPOSITORY)}: {path.stat().st_size / 1000:.0f} kB")
    return 0


def _with_empty_library(take: Callable[[], None]) -> None:
    """Take pictures with no models but those that ship and those that are made for them."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CAML_MODELS_DIR"] = folder
        take()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("segmentation", "training"), help="the pictures of one module")
    parser.add_argument("--iterations", type=int, default=500, help="of CAML Training's first round (default: 500)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
