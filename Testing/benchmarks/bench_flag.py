"""One threshold of agreement for all anatomies: what it finds and what it flags in vain, from runs of bench_quality.py.

A segment is flagged in the panel where Dice(v, a) lies below ResultTable.LOW_AGREEMENT, whatever the anatomy. Each
folder is the --output of a run of bench_quality.py; nothing is trained or predicted here.

    python Testing/benchmarks/bench_flag.py left-atria=build/quality hippocampi=build/quality-hippocampi
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import machine, table, write_section
from quality_report import CORRECTION, IN_USE
from quality_sets import SETS

THRESHOLDS = (0.80, 0.85, 0.88, 0.90, 0.92, 0.94)

#: Set -> model -> case -> figures, as bench_quality.py keeps them.
Found = Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]


def main() -> None:
    """Count and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=_run, metavar="SET=FOLDER", help=f"sets: {', '.join(SETS)}")
    parser.add_argument("--show", action="store_true", help="print the section, and leave the page as it is")
    options = parser.parse_args()
    text = report({name: read(folder) for name, folder in options.runs})
    print(text) if options.show else write_section("quality-flag", text)


def read(folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Model -> case -> figures of a run; SystemExit where there are none."""
    files = sorted(folder.glob("*/quality.json"))
    if not files:
        raise SystemExit(f"{folder} holds no figures; name the --output of a run of bench_quality.py.")
    return {file.parent.name: json.loads(file.read_text(encoding="utf-8"))["cases"] for file in files}


def report(found: Found) -> str:
    """The section's text."""
    sets = ", ".join(f"{SETS[name].title} ({len(models)} models)" for name, models in found.items())
    return "\n\n".join(
        (
            "### One threshold for all anatomies",
            f"    python Testing/benchmarks/bench_flag.py {' '.join(f'{name}=FOLDER' for name in found)}",
            f"{sets}: the pairs of model and held-out case of the sections above. A Dice below {100 * CORRECTION:.0f} "
            f"% counts as needing correction. The panel's threshold is {IN_USE:.2f}.",
            table(("flagged: Dice(v, a) below", *_headers(found)), [_row(found, limit) for limit in THRESHOLDS]),
            machine(),
        )
    )


def _headers(found: Found) -> list[str]:
    words = ("of those that need correction, flagged", "of the others, not flagged")
    return [f"{SETS[name].title}: {word}" for name in found for word in words]


def _row(found: Found, limit: float) -> list[str]:
    cells = [f"**{limit:.2f}**" if limit == IN_USE else f"{limit:.2f}"]
    for models in found.values():
        cases = [case for figures in models.values() for case in figures.values()]
        bad = [case["agreement"] < limit for case in cases if case["dice"] < CORRECTION]
        good = [case["agreement"] >= limit for case in cases if case["dice"] >= CORRECTION]
        cells += [_share(bad), _share(good)]
    return cells


def _share(hits: Sequence[bool]) -> str:
    return f"{100 * sum(hits) / len(hits):.0f} % ({sum(hits)} of {len(hits)})" if hits else "-"


def _run(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if name not in SETS or not folder:
        raise argparse.ArgumentTypeError(f"expected SET=FOLDER with a set of {', '.join(SETS)}, got {text!r}")
    return name, Path(folder)


if __name__ == "__main__":
    main()
