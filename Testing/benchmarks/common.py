"""What the benchmarks share: the machine in words, measured child processes, and the page that they write to."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "benchmarks.md"
sys.path.insert(0, str(REPOSITORY / "CAMLSegmentation"))


@dataclass(frozen=True)
class Run:
    """A finished child process: wall and processor seconds, peak resident memory in MB."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    output: str


def shared_folder() -> Path | None:
    """The folder of real scans: CAML_SHARED, else ``shared`` beside the repository; None where there is none."""
    folder = Path(os.environ.get("CAML_SHARED") or REPOSITORY.parent / "shared")
    return folder if folder.is_dir() else None


def left_atria_folder() -> Path | None:
    """The real left atria; says so where there are none."""
    shared = shared_folder()
    if shared is not None and (shared / "la2018" / "cases.csv").is_file():
        return shared / "la2018"
    print("No la2018 folder: set CAML_SHARED. Nothing was measured.")
    return None


def caml(*arguments: object) -> list[str]:
    """The command line of ``caml`` in this interpreter."""
    return [sys.executable, "-m", "caml_core", *map(str, arguments)]


def run(command: Sequence[str], log: Path | None = None) -> Run:
    """Run a command to its end, measured by the operating system; raise CalledProcessError where it fails."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "CAMLSegmentation")}
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if log is not None:
                with log.open("a") as stream:
                    stream.write(line)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    output = "".join(lines)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output)
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return Run(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / scale, output)


def machine(threads: int = 0) -> str:
    """Processor, threads (0: PyTorch's own number), system and versions, as one sentence."""
    import numpy
    import torch

    from caml_core import __version__
    from caml_core.device import cpu_title

    features = " ".join(f for f in ("avx512_bf16", "amx_bf16") if f in _cpu_flags()) or "no native bf16"
    return (
        f"{cpu_title()} ({features}), {threads or torch.get_num_threads()} threads, {platform.system()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}, numpy {numpy.__version__}, CAML {__version__}; "
        f"{time.strftime('%Y-%m-%d')}"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def write_section(name: str, text: str) -> None:
    """Replace the part of docs/benchmarks.md between the markers of ``name``; print it, too."""
    print(text)
    page = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else "# Benchmarks\n"
    section = f"<!-- begin {name} -->\n{text.strip()}\n<!-- end {name} -->"
    pattern = re.compile(rf"<!-- begin {name} -->.*?<!-- end {name} -->", re.DOTALL)
    if pattern.search(page):
        page = pattern.sub(lambda _: section, page)
    else:
        page = f"{page.rstrip()}\n\n{section}\n"
    PAGE.write_text(page, encoding="utf-8")


def _cpu_flags() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.is_file() else ""
