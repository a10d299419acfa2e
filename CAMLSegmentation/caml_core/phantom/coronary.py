"""Coronary arteries in a CT angiography (HU): thin branching lumen beside chambers, bone and calcium as bright."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from ..config import Segment
from .phantom import Phantom, Size, generator, vary_size
from .scanner import blur, ct_noise
from .shapes import REACH, Tube, ellipsoid, paint, smooth_union
from .space import Space, random_space
from .vessels import Course, grow_tree, narrowed

#: Colour: that of "Artery" in 3D Slicer's list. Codes: SNOMED CT body structures, in the words of the DICOM standard.
SEGMENTS = (
    Segment(
        "Coronary artery",
        1,
        (0.847, 0.396, 0.310),
        "Segmentation category and type - DICOM master list"
        "~SCT^123037004^Anatomical Structure~SCT^41801008^Coronary artery~^^~Anatomic codes - DICOM master list~^^~^^",
    ),
)

#: Voxels, voxel size in the slice, and the middle of the field of view (anatomical mm; origin: the aortic root).
#: "small" shows the left main artery and where it divides, "full" nearly the whole tree.
_FIELDS = {
    "small": ((66, 64, 48), 0.58, (20.0, -8.0, -6.0)),
    "full": ((208, 192, 128), 0.5, (8.0, -12.0, -28.0)),
}

_COURSES = (
    Course(
        "left anterior descending",
        ((10, -2, 4), (18, -6, 5), (25, -16, 2), (32, -30, -8), (40, -44, -26), (48, -54, -48), (50, -52, -66)),
        (2.1, 0.8),
        5,
    ),
    Course(
        "left circumflex",
        ((18, -5, 5), (28, -2, 2), (40, 4, -6), (46, 14, -16), (42, 26, -28), (30, 32, -36)),
        (1.8, 0.8),
        4,
        parent="left anterior descending",
    ),
    Course(
        "right",
        ((-6, -12, 2), (-12, -24, 0), (-26, -28, -10), (-36, -20, -28), (-34, 0, -42), (-18, 14, -48), (2, 18, -50)),
        (1.9, 0.9),
        4,
    ),
)
#: A cardiac vein runs beside the artery; contrast has hardly reached it.
_VEIN = Course(
    "great cardiac vein",
    ((44, -52, -46), (38, -40, -24), (30, -24, -6), (34, -4, 2), (44, 10, -12), (36, 28, -28)),
    (1.3, 2.2),
    0,
)


@dataclass(frozen=True, eq=False)
class _Body:
    """An ellipsoid, anatomical mm."""

    center: np.ndarray
    radii: np.ndarray
    rotation: np.ndarray

    def distance(self, points: np.ndarray) -> np.ndarray:
        return ellipsoid(points, self.center, self.radii, self.rotation)


@dataclass(frozen=True, eq=False)
class _Heart:
    """What the arteries run on. ``muscle``: the left ventricle's wall in mm; ``contrast``: HU of the aortic blood."""

    left: _Body
    right: _Body
    left_atrium: _Body
    right_atrium: _Body
    aorta: Tube
    trunk: Tube
    appendage: Tube
    muscle: float
    contrast: float

    def chambers(self, points: np.ndarray) -> np.ndarray:
        """Return the distance of ``points`` [3, ...] to ventricles and atria with their walls."""
        ventricles = smooth_union(self.left.distance(points) - self.muscle, self.right.distance(points) - 3, 6.0)
        atria = smooth_union(self.left_atrium.distance(points), self.right_atrium.distance(points), 3.0)
        return smooth_union(ventricles, atria - 2, 3.0)

    def surface(self, points: np.ndarray) -> np.ndarray:
        """Return the distance of a few ``points`` [3, ...] to chambers, great vessels and appendage."""
        vessels = [tube.distance_at(points) - 1.5 for tube in (self.aorta, self.trunk, self.appendage)]
        return np.min([self.chambers(points), *vessels], axis=0)


def make_coronary(seed: int, index: int = 0, size: Size = "small") -> Phantom:
    """Return the ``index``-th coronary tree of the cohort ``seed``; the same arguments give the same voxels."""
    rng = generator(seed, "coronary", index)
    voxels, base, center = _FIELDS[size]
    pixel = float(round(float(np.clip(base * rng.uniform(0.85, 1.1), 0.4, 0.6)), 4))
    slices = float(round(rng.uniform(0.55, 0.9), 3))
    width, height, _ = vary_size(rng, voxels)
    depth = round(voxels[2] * base / slices)  # thick slices are fewer: the same field of view
    space = random_space(
        rng,
        (width, height, depth),
        (pixel, pixel, slices),
        center,
        scale=rng.uniform(0.9, 1.1),
        pose_degrees=10,
        shift=4,
    )
    heart = _heart(rng)
    tree = [narrowed(rng, tube) for tube in grow_tree(rng, _COURSES, heart.surface)]
    points = space.points()
    lumen = np.full(space.grid.size, REACH, dtype=np.float32)
    for tube in tree:
        np.minimum(lumen, tube.distance(points, space, 0.0), out=lumen)
    root = heart.aorta.distance(points, space, 0.0)
    label = ((lumen < 0) & (root > 0)).astype(np.uint8)
    image = _tissues(rng, space, points, heart, lumen, tree)
    return Phantom(_acquire(rng, space, image), label, space.grid, SEGMENTS, "CT")


def _heart(rng: np.random.Generator) -> _Heart:
    apex = Rotation.from_euler("zyx", [rng.uniform(25, 40), rng.uniform(25, 35), 0], degrees=True).as_matrix()

    def body(center: tuple[float, ...], radii: tuple[float, ...], rotation: np.ndarray) -> _Body:
        moved = np.asarray(center) + rng.uniform(-2.5, 2.5, size=3)
        return _Body(moved, np.asarray(radii) * rng.uniform(0.92, 1.1, size=3), rotation)

    def tube(nodes: list[tuple[float, ...]], radii: list[float]) -> Tube:
        return Tube(np.array(nodes, dtype=float), np.array(radii) * rng.uniform(0.92, 1.08))

    return _Heart(
        left=body((26, -14, -36), (21, 22, 36), apex),
        right=body((-8, -30, -34), (26, 19, 30), apex),
        left_atrium=body((14, 24, -4), (28, 17, 20), np.eye(3)),
        right_atrium=body((-26, 2, -16), (17, 20, 24), np.eye(3)),
        aorta=tube([(2, 2, -14), (0, 0, -4), (0, -2, 6), (-2, -4, 18), (-6, -8, 70)], [9.5, 13, 12.5, 11.5, 14]),
        trunk=tube([(6, -34, -4), (12, -25, 14), (16, -10, 32), (10, 10, 40)], [12, 12, 11, 11]),
        appendage=tube([(32, 14, 4), (38, 3, 11), (35, -10, 13)], [8, 6, 4]),
        muscle=float(rng.uniform(8, 11)),
        contrast=float(rng.uniform(300, 450)),
    )


def _tissues(
    rng: np.random.Generator, space: Space, points: np.ndarray, heart: _Heart, lumen: np.ndarray, tree: list[Tube]
) -> np.ndarray:
    """Return HU [X, Y, Z] before blur and noise; painted from far to near."""
    softness = float(np.mean(space.grid.spacing))
    image = _surroundings(rng, space, points, heart, softness)
    _paint_chambers(rng, space, points, heart, image, softness)
    vein = grow_tree(rng, (_VEIN,), heart.surface)[0].distance(points, space, 0.0)
    paint(image, vein, rng.uniform(0.25, 0.6) * heart.contrast, softness)
    paint(image, lumen - 0.5, rng.uniform(10, 60), softness)
    aorta = heart.aorta.distance(points, space, 0.0)
    paint(image, aorta - 1.5, np.where(lumen < 0.5, image, 60), softness)
    paint(image, aorta, heart.contrast * (1 + 0.02 * space.field(rng, 15.0)), softness)
    paint(image, lumen, heart.contrast * rng.uniform(0.9, 1.0) * (1 + 0.04 * space.field(rng, 20.0)), softness)
    _paint_plaques(rng, space, points, tree, image, softness)
    return image


def _surroundings(
    rng: np.random.Generator, space: Space, points: np.ndarray, heart: _Heart, softness: float
) -> np.ndarray:
    """Fat around the heart, lungs beside it, breast bone and ribs in front, spine and descending aorta behind."""
    image = np.float32(rng.uniform(-105, -85)) + 8 * space.field(rng, 6.0) + 6 * space.field(rng, 20.0)
    vessels = ellipsoid(points, np.array([10.0, -6.0, 14.0]), np.array([36.0, 36.0, 38.0]))
    sac = smooth_union(heart.chambers(points) - 4.5, vessels, 8.0) - 0.8 * space.field(rng, 25.0)
    lung = rng.uniform(-870, -780) + 35 * space.field(rng, 5.0)
    paint(image, np.maximum(2 - sac, 18 - np.abs(points[0] - 4)), lung, softness)
    paint(image, np.abs(sac) - 0.5, 30, softness)  # the pericardium, a thin line in the fat
    bone = 260 + 140 * space.field(rng, 3.0)
    for center, radii in (((0, -78, 0), (20, 7, 300)), ((0, 74, 0), (22, 20, 300))):
        body = ellipsoid(points, np.array(center, dtype=float), np.array(radii, dtype=float))
        paint(image, body, rng.uniform(500, 800), softness)
        paint(image, body + 2.0, bone, softness)
    aorta = ellipsoid(points, np.array([22.0, 56.0, 0.0]), np.array([11.0, 11.0, 500.0]))
    paint(image, aorta, rng.uniform(280, 430), softness)
    return image


def _paint_chambers(
    rng: np.random.Generator, space: Space, points: np.ndarray, heart: _Heart, image: np.ndarray, softness: float
) -> None:
    muscle = rng.uniform(85, 130) + 8 * space.field(rng, 8.0)
    left, right = heart.left.distance(points), heart.right.distance(points)
    paint(image, smooth_union(left - heart.muscle, right - 3, 6.0), muscle, softness)
    paint(image, right, heart.contrast * rng.uniform(0.45, 0.9), softness)
    paint(image, left - heart.muscle, muscle, softness)
    paint(image, left + 1.5 * np.abs(space.field(rng, 8.0)), heart.contrast * rng.uniform(0.93, 1.02), softness)
    pools = (
        (heart.right_atrium.distance(points), rng.uniform(0.4, 0.9)),
        (heart.left_atrium.distance(points), rng.uniform(0.93, 1.03)),
        (heart.appendage.distance(points, space, 0.0), rng.uniform(0.85, 1.0)),
        (heart.trunk.distance(points, space, 0.0), rng.uniform(0.5, 1.0)),
    )
    for distance, _ in pools:
        paint(image, distance - 1.5, 50, softness)
    for distance, share in pools:
        paint(image, distance, heart.contrast * share * (1 + 0.03 * space.field(rng, 15.0)), softness)


def _paint_plaques(
    rng: np.random.Generator,
    space: Space,
    points: np.ndarray,
    tree: list[Tube],
    image: np.ndarray,
    softness: float,
) -> None:
    """Soft and calcified plaques sit in the wall, on one side of the lumen."""
    for tube in tree:
        for _ in range(rng.poisson(0.8)):
            place = int(rng.integers(2, max(3, len(tube.nodes) - 2)))
            aside = rng.normal(size=3)
            center = tube.nodes[place] + aside / np.linalg.norm(aside) * (tube.radii[place] + 0.3)
            length = tube.nodes[min(place + 1, len(tube.nodes) - 1)] - tube.nodes[place - 1]
            ends = np.array([center - 0.7 * length, center + 0.7 * length])
            plaque = Tube(ends, np.full(2, rng.uniform(0.4, 1.0))).distance(points, space, 0.0)
            paint(image, plaque, rng.uniform(20, 70) if rng.random() < 0.4 else rng.uniform(600, 1300), softness)


def _acquire(rng: np.random.Generator, space: Space, image: np.ndarray) -> np.ndarray:
    """Return the reconstructed HU as 16-bit integers."""
    plane = rng.uniform(0.3, 0.45)
    image = blur(image, (plane, plane, 0.42 * space.grid.spacing[2]), space.grid.spacing)
    image = image + ct_noise(rng, image.shape, rng.uniform(18, 34), rng.uniform(0.55, 0.8))
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16)
