"""A tiny cohort that a tiny network learns in seconds: a bright ellipsoid and a dim one in noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from caml_core.config import (
    AugmentationConfig,
    ChannelIntensity,
    Geometry,
    NetworkConfig,
    Plan,
    Segment,
)
from caml_core.data.cache import PreparedCase
from caml_core.presets import Preset, default_preset

SIZE = (22, 18, 20)
#: Three stages are downsampled, so that a patch of 16 leaves voxels for batch statistics.
STRIDES = ((2, 2, 2), (2, 2, 2), (1, 1, 1), (1, 1, 1))


def scan(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (image float32, label uint8), both (x, y, z); classes 1 and 2."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.arange(n) for n in SIZE), indexing="ij")
    label = np.zeros(SIZE, np.uint8)
    image = rng.normal(100, 10, SIZE)
    for value, offset in ((1, -4), (2, 4)):
        center = [n / 2 + rng.uniform(-1, 1) for n in SIZE]
        center[0] += offset
        radii = rng.uniform(3.0, 4.5, 3)
        inside = sum(((a - c) / r) ** 2 for a, c, r in zip(axes, center, radii)) < 1
        label[inside] = value
        image[inside] += 60 * value
    return image.astype(np.float32), label


def write_cohort(folder: Path, labeled: int = 3, unlabeled: int = 3, validation: int = 1) -> Path:
    """Write scans, labels and cohort.csv; return the list's path."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["id,image,label,role"]
    roles = ["labeled"] * labeled + ["unlabeled"] * unlabeled + ["validation"] * validation
    for index, role in enumerate(roles):
        image, label = scan(index)
        for name, array in (("image", image), ("label", label)):
            volume = sitk.GetImageFromArray(array.transpose(2, 1, 0))
            volume.SetSpacing((1.0, 1.0, 1.0))
            sitk.WriteImage(volume, str(folder / f"case{index}_{name}.nrrd"))
        rows.append(
            f"case{index},case{index}_image.nrrd,{'' if role == 'unlabeled' else f'case{index}_label.nrrd'},{role}"
        )
    path = folder / "cohort.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def prepared(index: int, role: str = "labeled", image: np.ndarray | None = None) -> PreparedCase:
    """A prepared case in memory."""
    array, label = scan(index)
    normal = ((array - array.mean()) / array.std())[None].astype(np.float16)
    places = np.argwhere(label > 0)
    locations = np.column_stack([label[tuple(places.T)], places]).astype(np.int32)
    known = role != "unlabeled"
    return PreparedCase(
        f"case{index}",
        role,  # type: ignore[arg-type]
        normal if image is None else image,
        label if known else None,
        locations if known else locations[:0],
        f"digest{index}",
        Path(),
    )


def tiny_preset() -> Preset:
    """The default preset without its random intensities, for exact comparisons."""
    return default_preset(1, 3)


def tiny_plan(iterations: int = 8, **changes: object) -> Plan:
    """A plan for the synthetic cohort: two base filters, patches of 16 voxels."""
    preset = tiny_preset()
    values: dict[str, object] = {
        "preset": "default",
        "geometry": Geometry((1.0, 1.0, 1.0), (16, 16, 16)),
        "network": NetworkConfig(
            classes=3,
            base_filters=2,
            strides=STRIDES,
            upsampling_a="conv1",
            attention_evaluation="alone",
            attention_alone=0.5,
        ),
        "channels": (ChannelIntensity(),),
        "segments": (Segment("dim", 1), Segment("bright", 2)),
        "iterations": iterations,
        "losses": preset.losses,
        "optimizer": preset.optimizer,
        "augmentation": AugmentationConfig(rotation_degrees=10, scale=0.1, affine_probability=0.5),
        "validate_every": 4,
    }
    return Plan(**{**values, **changes})  # type: ignore[arg-type]
