"""A left atrium in a late-enhancement MRI: pulmonary veins, appendage, scar, and neighbours as bright as itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from ..anatomy import LEFT_ATRIUM
from .phantom import Phantom, Size, generator, vary_size
from .scanner import bias_field, blur, rician
from .shapes import Tube, ellipsoid, paint, smooth_union
from .space import Space, random_space

SEGMENTS = (LEFT_ATRIUM,)

_SIZES = {"small": ((72, 56, 40), 1.5), "full": ((176, 136, 88), 0.64)}
_WARP = 2.0

#: Mean tissue brightness relative to blood.
_TISSUE = {"lung": 0.09, "muscle": 0.27, "wall": 0.52, "bone": 0.33, "esophagus": 0.5}


@dataclass(frozen=True)
class _Vein:
    """Where a vein leaves the body (as a share of its radii), where it heads to, and how wide it is (mm)."""

    leaves: tuple[float, float, float]
    heading: tuple[float, float, float]
    width: float


_RIGHT_VEINS = (
    _Vein((-0.72, 0.25, 0.50), (-0.90, 0.15, 0.42), 6.8),  # superior
    _Vein((-0.70, 0.50, -0.40), (-0.72, 0.62, -0.18), 6.2),  # inferior
)
_LEFT_VEINS = (
    _Vein((0.72, 0.30, 0.55), (0.72, 0.15, 0.60), 6.5),  # superior
    _Vein((0.72, 0.55, -0.30), (0.70, 0.66, -0.12), 5.6),  # inferior
)
_RIGHT_MIDDLE_VEIN = _Vein((-0.80, 0.35, 0.05), (-0.95, 0.25, -0.05), 3.6)
_LEFT_COMMON_VEIN = _Vein((0.75, 0.45, 0.15), (0.78, 0.50, 0.25), 8.5)


@dataclass(frozen=True, eq=False)
class _Anatomy:
    """Distances [X, Y, Z] in mm, negative inside. ``vessels``: the veins on their way into the lungs."""

    atrium: np.ndarray
    vessels: np.ndarray
    radii: np.ndarray


def make_atrium(seed: int, index: int = 0, size: Size = "small") -> Phantom:
    """Return the ``index``-th atrium of the cohort ``seed``; the same arguments give the same voxels."""
    rng = generator(seed, "atrium", index)
    voxels, base = _SIZES[size]
    spacing = tuple(float(round(base * f, 4)) for f in (*[rng.uniform(0.92, 1.1)] * 2, rng.uniform(0.92, 1.25)))
    space = random_space(
        rng,
        vary_size(rng, voxels),
        (spacing[0], spacing[1], spacing[2]),
        center=(0.0, -2.0, 0.0),
        scale=rng.uniform(0.82, 1.18),
        pose_degrees=16,
        shift=7,
    )
    points = space.warped(rng, _WARP, wavelength=45)
    anatomy = _atrium(rng, space, points)
    label = (anatomy.atrium < 0).astype(np.uint8)
    image = _tissues(rng, space, points, anatomy)
    return Phantom(_acquire(rng, space, image), label, space.grid, SEGMENTS, "MR")


def _atrium(rng: np.random.Generator, space: Space, points: np.ndarray) -> _Anatomy:
    """The body is two fused ellipsoids; veins and appendage are tubes that grow out of it."""
    radii = np.array([31.0, 19.0, 21.0]) * rng.uniform(0.85, 1.15, size=3)
    body = ellipsoid(points, np.zeros(3), radii, _turn(rng, 12))
    bulge = radii * rng.uniform(-0.45, 0.45, size=3)
    body = smooth_union(body, ellipsoid(points, bulge, radii * rng.uniform(0.6, 0.8, size=3), _turn(rng, 25)), 8.0)
    vessels = np.full_like(body, np.inf)
    for vein in _choose_veins(rng):
        tube = _grow_vein(rng, vein, radii)
        body = smooth_union(body, tube.upto(rng.uniform(20, 30)).distance(points, space, 3 * _WARP), 4.0)
        np.minimum(vessels, tube.distance(points, space, 3 * _WARP), out=vessels)
    appendage = _appendage(rng, radii).distance(points, space, 3 * _WARP)
    return _Anatomy(smooth_union(body, appendage, 3.0), vessels, radii)


def _choose_veins(rng: np.random.Generator) -> tuple[_Vein, ...]:
    """Four veins as a rule; a common left trunk (three) or a right middle vein (five) in some, as in people."""
    kind = rng.choice(["usual", "common", "middle"], p=[0.6, 0.2, 0.2])
    if kind == "common":
        return (*_RIGHT_VEINS, _LEFT_COMMON_VEIN)
    veins = (*_RIGHT_VEINS, *_LEFT_VEINS)
    return (*veins, _RIGHT_MIDDLE_VEIN) if kind == "middle" else veins


def _grow_vein(rng: np.random.Generator, vein: _Vein, radii: np.ndarray) -> Tube:
    start = np.asarray(vein.leaves) * radii * 0.75
    direction = _turn(rng, 14) @ np.asarray(vein.heading)
    bend = rng.normal(scale=6.0, size=3)
    along = np.array([0.0, 18.0, 36.0, 60.0])
    knots = start + np.outer(along, direction) + np.outer((0, 0, 1, 2.5), bend)
    nodes = CubicSpline(along, knots)(np.linspace(0, 60, 16))
    taper = np.interp(np.linspace(0, 60, 16), [0, 12, 24, 60], [1.2, 1.05, 0.8, 0.45])
    return Tube(nodes, vein.width * rng.uniform(0.8, 1.2) * taper)


def _appendage(rng: np.random.Generator, radii: np.ndarray) -> Tube:
    start = radii * (0.6, -0.45, 0.25)
    turn = rng.uniform(-8, 8, size=3)
    knots = np.array([start, start + (12, -8, 6), start + (18, -20, 8) + turn, start + (13, -32, 6) + 1.5 * turn])
    nodes = CubicSpline([0, 1, 2, 3], knots)(np.linspace(0, 3, 12))
    return Tube(nodes, np.interp(np.linspace(0, 3, 12), [0, 0.6, 1.8, 3], [7.5, 5.5, 7.0, 3.0]) * rng.uniform(0.8, 1.1))


def _tissues(rng: np.random.Generator, space: Space, points: np.ndarray, anatomy: _Anatomy) -> np.ndarray:
    """Return the brightness [X, Y, Z] relative to blood, before blur, bias and noise; painted from far to near."""
    softness = float(np.mean(space.grid.spacing))
    tissue = {name: value * rng.uniform(0.7, 1.35) for name, value in _TISSUE.items()}
    tissue["mediastinum"] = rng.uniform(0.25, 0.72)  # with and without suppression of fat
    image = np.float32(tissue["mediastinum"]) * (1 + 0.28 * space.field(rng, 7.0) + 0.2 * space.field(rng, 16.0))
    _paint_surroundings(rng, space, points, image, tissue, softness)
    _paint_blood(rng, space, points, image, tissue, softness)
    wall = _wall(rng, space, tissue["wall"])
    thickness = 2.0 + 0.5 * space.field(rng, 20.0)
    paint(image, anatomy.vessels - 0.8, tissue["mediastinum"], softness)
    paint(image, anatomy.vessels, rng.uniform(0.92, 1.04), softness)
    paint(image, anatomy.atrium - np.clip(thickness, 0.8, 3.2), wall, softness)
    paint(image, anatomy.atrium, 1 + 0.03 * space.field(rng, 25.0), softness)
    _paint_mitral_opening(rng, points, image, anatomy, softness)
    return image


def _paint_surroundings(
    rng: np.random.Generator,
    space: Space,
    points: np.ndarray,
    image: np.ndarray,
    tissue: dict[str, float],
    softness: float,
) -> None:
    lung = tissue["lung"] * (1 + 0.4 * space.field(rng, 9.0))
    for side in (-1, 1):
        center = np.array([side * rng.uniform(78, 88), 22.0, 0.0])
        paint(image, ellipsoid(points, center, np.array([38.0, 48.0, 95.0])), lung, softness)
    center = np.array([rng.uniform(-14, -4), rng.uniform(50, 56), 0.0])
    vertebra = ellipsoid(points, center, np.array([19.0, 17.0, 400.0]))
    paint(image, vertebra, 1.4 * tissue["bone"], softness)
    paint(image, vertebra + 2.5, tissue["bone"] * (0.8 + 0.15 * space.field(rng, 6.0)), softness)
    gullet = np.array([rng.uniform(-4, 10), rng.uniform(27, 30), 0.0])
    paint(image, ellipsoid(points, gullet, np.array([7.0, 3.5, 400.0])), tissue["esophagus"], softness)


def _paint_blood(
    rng: np.random.Generator,
    space: Space,
    points: np.ndarray,
    image: np.ndarray,
    tissue: dict[str, float],
    softness: float,
) -> None:
    """The other chambers and great vessels: as bright as the atrium, give or take a tenth."""

    def near(*center: float) -> np.ndarray:
        return np.asarray(center) + rng.uniform(-3, 3, size=3)

    def blood() -> np.ndarray:
        return rng.uniform(0.85, 1.15) * (1 + 0.03 * space.field(rng, 20.0))

    muscle = tissue["muscle"] * (1 + 0.15 * space.field(rng, 8.0))
    toward_apex = Rotation.from_euler("z", rng.uniform(20, 45), degrees=True).as_matrix()
    left = ellipsoid(points, near(24, -54, -26), np.array([21.0, 36.0, 23.0]), toward_apex)
    right = ellipsoid(points, near(-18, -62, -24), np.array([30.0, 22.0, 24.0]))
    paint(image, smooth_union(left - 9.0, right - 3.0, 4.0), muscle, softness)
    paint(image, right, blood(), softness)
    paint(image, left - 9.0, muscle, softness)
    paint(image, left, blood(), softness)
    atrium = ellipsoid(points, near(-36, -28, -10), np.array([19.0, 21.0, 26.0]) * rng.uniform(0.85, 1.1))
    vena_cava = ellipsoid(points, near(-33, -14, 40), np.array([9.0, 8.5, 48.0]))
    paint(image, smooth_union(atrium, vena_cava, 4.0) - 1.8, tissue["wall"], softness)
    paint(image, smooth_union(atrium, vena_cava, 4.0), blood(), softness)
    for nodes, radius in _great_vessels(rng):
        tube = Tube(nodes, np.full(len(nodes), radius)).distance(points, space, 3 * _WARP)
        paint(image, tube - 1.6, tissue["wall"] * 0.7, softness)
        paint(image, tube, blood(), softness)


def _great_vessels(rng: np.random.Generator) -> list[tuple[np.ndarray, float]]:
    def path(*knots: tuple[float, float, float]) -> np.ndarray:
        moved = np.asarray(knots) + rng.uniform(-3, 3, size=3)
        return CubicSpline(np.arange(len(knots)), moved)(np.linspace(0, len(knots) - 1, 8 * len(knots)))

    return [
        (path((4, -38, -14), (-4, -38, 14), (-10, -34, 60)), rng.uniform(12, 15)),  # ascending aorta
        (path((20, -50, 0), (18, -34, 24), (6, -20, 40), (-40, -14, 34)), rng.uniform(9, 12)),  # pulmonary artery
        (path((16, 38, -70), (15, 37, 0), (16, 38, 70)), rng.uniform(9, 12)),  # descending aorta
    ]


def _wall(rng: np.random.Generator, space: Space, brightness: float) -> np.ndarray:
    """The wall with patches of scar, which late enhancement makes as bright as blood or brighter."""
    patches = space.field(rng, 16.0) + rng.uniform(-1.0, 0.3)
    scar = 1 / (1 + np.exp(-5 * (patches - 0.4)))
    return np.float32(brightness) + scar * np.float32(rng.uniform(0.35, 0.8))


def _paint_mitral_opening(
    rng: np.random.Generator, points: np.ndarray, image: np.ndarray, anatomy: _Anatomy, softness: float
) -> None:
    """Only thin leaflets part the atrium from the ventricle: blood on both sides, a faint line between."""
    center = anatomy.radii * (0.42, -0.80, -0.62)
    opening = ellipsoid(points, center, np.array([13.0, 11.0, 11.0]) * rng.uniform(0.85, 1.15))
    funnel = np.maximum(opening, 1.3 - anatomy.atrium)
    paint(image, np.maximum(opening, -anatomy.atrium), rng.uniform(0.6, 0.85), softness)
    paint(image, funnel, rng.uniform(0.9, 1.05), softness)


def _acquire(rng: np.random.Generator, space: Space, image: np.ndarray) -> np.ndarray:
    """Return the scan as 8-bit values, as the public left atrium data has them."""
    plane = rng.uniform(0.45, 0.75)
    image = blur(image, (plane, plane, rng.uniform(0.8, 1.4)), space.grid.spacing)
    image = np.maximum(image, 0.02) ** rng.uniform(0.75, 1.25)
    image = image * bias_field(rng, space, rng.uniform(0.08, 0.24))
    image = rician(rng, image, rng.uniform(0.06, 0.15), rng.uniform(0.45, 0.7))
    return np.clip(np.rint(image * rng.uniform(60, 150)), 0, 255).astype(np.uint8)


def _turn(rng: np.random.Generator, degrees: float) -> np.ndarray:
    return Rotation.from_rotvec(np.radians(rng.normal(scale=degrees / 2, size=3))).as_matrix()
