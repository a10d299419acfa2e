"""Model files and scans for the tests of the modules: small, made on the spot, and never random twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from caml_core.config import ChannelIntensity, Geometry, ModelSpec, NetworkConfig, Segment

SEGMENTS = (
    Segment(
        "Left atrium",
        1,
        (0.8, 0.4, 0.3),
        "Segmentation category and type - DICOM master list~SCT^123037004^Anatomical Structure"
        "~SCT^82471001^Left atrium~^^~Anatomic codes - DICOM master list~^^~^^",
    ),
    Segment("Aorta", 2, (0.9, 0.1, 0.2)),
)
#: Rotated by 30 degrees about z and tilted; columns are the axes, RAS.
OBLIQUE = np.array([[0.866, -0.5, 0.0], [0.4698, 0.8137, -0.342], [0.171, 0.2962, 0.9397]])


def save_stand_in(
    path: Path,
    channels: int = 1,
    spacing: float = 1.5,
    name: str = "Stand-in",
    modality: str = "MR",
    titles: tuple[str, ...] = (),
) -> Path:
    """Write a model that was never trained: it finds both segments somewhere, the same ones each time."""
    import torch

    from caml_core.model import build_network
    from caml_core.model_file import ModelInfo, save_model

    torch.manual_seed(0)
    config = NetworkConfig(
        in_channels=channels, base_filters=2, attention_heads=2, classes=3, attention_evaluation="alone"
    )
    intensities = tuple(ChannelIntensity(modality=modality, title=title) for title in titles or ("",) * channels)
    spec = ModelSpec(Geometry((spacing,) * 3, (16, 16, 16)), config, intensities, SEGMENTS)
    network = build_network(config)
    with torch.no_grad():
        for decoder in (network.decoder1, network.decoder2):
            decoder.out_conv.weight *= 20
            decoder.out_conv.bias.zero_()
    info = ModelInfo(name, anatomy="Heart", modality=modality, labeled_cases=4, unlabeled_cases=12)
    save_model(path, spec=spec, state=network.state_dict(), info=info)
    return path


def noise(size: tuple[int, int, int] = (26, 24, 20), seed: int = 0, mean: float = 300.0) -> np.ndarray:
    """Return int16 voxels [k, j, i] for a volume of ``size`` (i, j, k)."""
    return np.random.default_rng(seed).normal(mean, 80, size[::-1]).astype(np.int16)


def ijk_to_ras(
    spacing: tuple[float, float, float] = (1.0, 1.1, 1.5),
    origin: tuple[float, float, float] = (4.0, -20.0, 11.0),
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Return the 4x4 matrix of a grid; ``axes`` are its directions as columns (default: those of LPS files)."""
    matrix = np.eye(4)
    directions = np.diag([-1.0, -1.0, 1.0]) if axes is None else axes
    # Cleaned up: three digits in OBLIQUE are not quite orthogonal.
    orthogonal, _ = np.linalg.qr(directions)
    orthogonal *= np.sign((orthogonal * directions).sum(axis=0))
    matrix[:3, :3] = orthogonal * np.asarray(spacing)
    matrix[:3, 3] = origin
    return matrix


def read_labels(path: Path) -> np.ndarray:
    """Return the voxels [k, j, i] of a label map file."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def write_series(folder: Path) -> Path:
    """A DICOM series whose slices are stored from the top down."""
    folder.mkdir(parents=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for index, position in enumerate((8.0, 6.0, 4.0, 2.0)):
        plane = sitk.GetImageFromArray((np.arange(12 * 10).reshape(12, 10) + 200 * index).astype(np.int16))
        plane.SetSpacing((0.5, 0.75))
        tags = {
            "0008|0060": "MR", "0008|0016": "1.2.840.10008.5.1.4.1.1.4", "0008|0018": f"1.2.3.{index + 1}",
            "0020|000e": "1.2.3", "0020|000d": "1.2", "0020|0013": str(index + 1), "0020|0032": f"1\\2\\{position}",
            "0020|0037": "1\\0\\0\\0\\1\\0", "0028|0030": "0.75\\0.5",
        }  # fmt: skip
        for key, value in tags.items():
            plane.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{index:03d}.dcm"))
        writer.Execute(plane)
    return folder
