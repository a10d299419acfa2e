"""Prediction: one left atrium and one large CT from process start to file, and MONAI's windows beside ours.

Each measurement is a process of its own, so that its peak memory is its own. Weights are random: time and memory do
not depend on them. ``--quick`` leaves the CT out.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common import caml, machine, run, shared_folder, table, write_section

Row = tuple[object, ...]

#: Network spacing in mm -> training patch.
SETTINGS = {1.25: (96, 96, 64), 0.625: (112, 112, 80)}
LA_SIZE, LA_SPACING = (194, 141, 88), (0.625, 0.625, 0.625)
CT_SIZE, CT_SPACING = (512, 512, 400), (0.4, 0.4, 0.5)
OVERLAP = 0.25


def main() -> None:
    """Measure all, write the sections."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="without the CT")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(**json.loads(options.measure))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scans = {"left atrium": left_atrium(folder)}
        if not options.quick:
            scans["CT"] = noise(folder / "ct.nii.gz", CT_SIZE, CT_SPACING)
        models = {spacing: model_file(folder, spacing) for spacing in SETTINGS}
        write_section("prediction", prediction_section(folder, scans, models))
        write_section("prediction-monai", monai_section(scans, models))
        write_section("prediction-imports", imports_section())


def prediction_section(folder: Path, scans: dict[str, Path], models: dict[float, Path]) -> str:
    """``caml predict`` from process start to the file written."""
    rows: list[Row] = []
    for scan, path in scans.items():
        for spacing, model in models.items():
            for quality in ("fast", "balanced", "best") if scan != "CT" else ("balanced",):
                for dtype in ([], ["--dtype", "fp32"]) if (quality, scan) == ("balanced", "left atrium") else ([],):
                    output = folder / "out.seg.nrrd"
                    command = caml("predict", model, path, "-o", output, "--quality", quality, *dtype)
                    run([*command, "--progress", "none"])  # the measurement of the arithmetic is remembered
                    found = run([*command, "--progress", "json"])
                    used = json.loads(found.output.splitlines()[-1])["result"]["dtype"]
                    rows.append((scan, f"{spacing} mm", quality, used, f"{found.seconds:.1f}", f"{found.peak_mb:.0f}"))
    return (
        "### Prediction, process start to file written\n\n"
        + table(("scan", "network's spacing", "quality", "arithmetic", "s", "peak memory MB"), rows)
        + f"\n\n16 filters. Left atrium: {describe(scans['left atrium'])}"
        + (f"; CT: {describe(scans['CT'])}, .nii.gz" if "CT" in scans else "")
        + f". Second run on the machine. The memory is an upper bound: Linux hands the size of the process that "
        f"measures down to its children.\n\n{machine()}"
    )


def monai_section(scans: dict[str, Path], models: dict[float, Path]) -> str:
    """The same network (folded, same arithmetic), patch and overlap in MONAI's sliding window and in ours."""
    rows: list[Row] = []
    for scan, path in scans.items():
        for spacing, model in models.items():
            if scan == "CT":
                continue  # MONAI would take most of the half hour that all benchmarks may take
            for way in ("monai", "ours, same windows", "ours"):
                found = child(way=way, scan=str(path), model=str(model))
                rows.append(
                    (
                        scan,
                        f"{spacing} mm",
                        way,
                        found["windows"],
                        f"{found['seconds']:.2f}",
                        f"{found['peak_mb']:.0f}",
                        f"{found['grown_mb']:.0f}",
                    )
                )
    header = ("scan", "network's spacing", "windows by", "windows", "s", "peak memory MB", "of it in this part")
    return (
        "### Windows: MONAI's `sliding_window_inference` beside ours\n\n"
        + table(header, rows)
        + "\n\nBoth sub-models, Gaussian weights, overlap a quarter, from the image on the network's grid to labels on "
        "the scan's grid (MONAI: probabilities, then trilinear interpolation and argmax). Best of two.\n\n" + machine()
    )


def imports_section() -> str:
    """What an import costs, in seconds and memory."""
    rows: list[Row] = []
    for name in ("torch", "SimpleITK", "caml_core.inference.predictor", "monai.inferers", "monai.transforms"):
        program = (
            f"import sys, time; sys.path.insert(0, {str(Path(__file__).parent)!r}); import common; "
            f"s = time.perf_counter(); import {name}; s = time.perf_counter() - s; "
            "from caml_core.device import peak_memory; print(s, peak_memory() / 2**20, len(sys.modules))"
        )
        found = [run([sys.executable, "-c", program]).output.split() for _ in range(3)]
        seconds = min(float(values[0]) for values in found)
        rows.append((f"`import {name}`", f"{seconds:.2f}", f"{float(found[-1][1]):.0f}", found[-1][2]))
    return (
        "### Imports\n\n"
        + table(("", "s", "memory MB", "modules"), rows)
        + f"\n\nEach in a process of its own, best of three.\n\n{machine()}"
    )


def child(**settings: Any) -> dict[str, Any]:
    """Measure in a process of its own."""
    found = run([sys.executable, __file__, "--measure", json.dumps(settings)])
    return json.loads(found.output.splitlines()[-1])


def measure(way: str, scan: str, model: str) -> dict[str, Any]:
    """Seconds, windows and peak memory of one way from the network's grid to labels on the scan's grid."""
    from caml_core.data.geometry import NetworkGrid
    from caml_core.data.io import read_volume
    from caml_core.device import peak_memory
    from caml_core.inference.batch import load_network
    from caml_core.inference.numeric import choose_numeric
    from caml_core.inference.predictor import Predictor, Protocol
    from caml_core.model_file import load_model

    loaded = load_model(Path(model))
    spec = loaded.spec
    volume = read_volume(Path(scan))
    grid = NetworkGrid.of(volume.grid, spec.geometry)
    patch = spec.geometry.patch
    stride = tuple(int(side * (1 - OVERLAP)) for side in patch)
    network = load_network(loaded)
    numeric = choose_numeric(network, spec.network, "cpu")
    protocol = Protocol(stride, "gaussian") if way == "ours, same windows" else None
    predictor = Predictor(network, spec, numeric=numeric, protocol=protocol)
    image = predictor._prepared([volume], grid)
    before, seconds = peak_memory(), []
    for _ in range(2):
        begin = time.perf_counter()
        if way == "monai":
            windows = monai_labels(predictor, image, grid, patch)
        else:
            windows = predictor.windows(grid.size, ("v", "a")).count
            segmented(predictor, image, grid, ("v", "a"))
        seconds.append(time.perf_counter() - begin)
    peak = peak_memory()
    return {
        "seconds": min(seconds),
        "windows": windows,
        "peak_mb": peak / 2**20,
        "grown_mb": (peak - before) / 2**20,
    }


def segmented(predictor: Any, image: Any, grid: Any, models: Sequence[str]) -> Any:
    """From the prepared image float32 [C, x, y, z] to the labels on the scan's own grid, as a prediction does it."""
    from caml_core.inference.assembly import Assembly

    assembly = partial(Assembly, grid, segments=predictor.spec.segments, models=models, use=predictor.use)
    return predictor._segment(image, grid.size, models, assembly)[0].labels


def monai_labels(predictor: Any, image: Any, grid: Any, patch: tuple[int, int, int]) -> int:
    """The peer: probabilities of the whole volume, then of the whole scan, then labels. Returns the windows."""
    import torch
    from monai.inferers import sliding_window_inference

    from caml_core.inference.numeric import cast

    calls = [0]

    def both(window: Any) -> Any:
        calls[0] += 1
        x = cast(window, predictor.numeric, "cpu")
        v, a = predictor._network.forward_v(x).float(), predictor._network.forward_a(x).float()
        return 0.5 * (torch.softmax(v, 1) + torch.softmax(a, 1))

    with torch.inference_mode():
        maps = sliding_window_inference(image[None], patch, 1, both, overlap=OVERLAP, mode="gaussian")
        maps = torch.nn.functional.interpolate(maps, size=grid.oriented_size, mode="trilinear", align_corners=False)
        grid.unorient(maps[0].argmax(0).to(torch.uint8).numpy())
    return calls[0]


def model_file(folder: Path, spacing: float) -> Path:
    """A model of the default preset's network with random weights."""
    import torch

    from caml_core.config import ChannelIntensity, Geometry, ModelSpec, Segment
    from caml_core.model import build_network
    from caml_core.model_file import ModelInfo, save_model
    from caml_core.presets import default_preset

    torch.manual_seed(0)
    config = default_preset(1, 2).network
    geometry = Geometry((spacing,) * 3, SETTINGS[spacing])
    spec = ModelSpec(geometry, config, (ChannelIntensity(),), (Segment("left atrium", 1),), (0,))
    path = folder / f"model-{spacing}.caml"
    save_model(path, spec=spec, state=build_network(config).state_dict(), info=ModelInfo("benchmark"))
    return path


def left_atrium(folder: Path) -> Path:
    """A real scan where there is one, else noise of the same size."""
    shared = shared_folder()
    scans = sorted((shared / "la2018").glob("*_image.nii.gz")) if shared else []
    return scans[0] if scans else noise(folder / "la.nii.gz", LA_SIZE, LA_SPACING)


def noise(path: Path, size: tuple[int, int, int], spacing: tuple[float, float, float]) -> Path:
    """Smooth grey values with some noise, int16, as hard to compress as a scan."""
    import numpy as np

    from caml_core.data.geometry import Grid
    from caml_core.data.io import write_image

    rng = np.random.default_rng(0)
    x, y, z = (np.linspace(0, np.pi * 4, n, dtype=np.float32) for n in size)
    array = np.empty(size, np.int16, order="F")
    for k in range(size[2]):
        plane = 300 * np.sin(x)[:, None] * np.cos(y)[None] * np.cos(z[k])
        array[..., k] = plane + rng.integers(-40, 40, size[:2])
    write_image(path, array, Grid(size, spacing))
    return path


def describe(path: Path) -> str:
    """Size and spacing of a scan, in words."""
    from caml_core.data.io import read_volume

    grid = read_volume(path).grid
    return f"{'x'.join(map(str, grid.size))} at {' x '.join(f'{s:.3g}' for s in grid.spacing)} mm"


if __name__ == "__main__":
    main()
