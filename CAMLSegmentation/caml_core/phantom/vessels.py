"""Growing a coronary tree: tapering curved tubes that run in the fat on the surface of the heart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline, interp1d

from .shapes import Tube

#: Distance to the heart's surface of points [3, N], mm, negative inside.
Surface = Callable[[np.ndarray], np.ndarray]

_STEP = 1.2  # mm between two nodes of a centreline
_THINNEST = 0.6  # mm; thinner branches cannot be seen in a CT


@dataclass(frozen=True)
class Course:
    """A main artery: its control points from ostium to end (anatomical mm), and first and last radius (mm).

    ``parent``: the artery that it leaves, where it does not come from the aorta.
    """

    name: str
    knots: tuple[tuple[float, float, float], ...]
    radii: tuple[float, float]
    branches: int
    parent: str = ""


def grow_tree(rng: np.random.Generator, courses: tuple[Course, ...], surface: Surface) -> list[Tube]:
    """Return all tubes: the main arteries of ``courses`` and their branches, laid onto ``surface``."""
    tubes: list[Tube] = []
    mains: dict[str, Tube] = {}
    for course in courses:
        main = _main_artery(rng, course, mains.get(course.parent), surface)
        mains[course.name] = main
        tubes.append(main)
        for share in _branch_places(rng, course.branches):
            branch = _branch(rng, main, share, surface)
            if branch is not None:
                tubes.append(branch)
    return tubes


def narrowed(rng: np.random.Generator, tube: Tube) -> Tube:
    """Return the tube with up to two narrowings of 20 to 60 % in radius, as disease leaves them."""
    radii = tube.radii.copy()
    along = np.arange(len(radii)) * _STEP
    for _ in range(rng.integers(0, 3)):
        place, length = rng.uniform(5, max(6.0, along[-1] * 0.8)), rng.uniform(2, 5)
        radii *= 1 - rng.uniform(0.2, 0.6) * np.exp(-(((along - place) / length) ** 2))
    return Tube(tube.nodes, np.maximum(radii, 0.5))


def _main_artery(rng: np.random.Generator, course: Course, parent: Tube | None, surface: Surface) -> Tube:
    knots = np.array(course.knots, dtype=float)
    knots[1:] += rng.normal(scale=2.5, size=knots[1:].shape)
    if parent is not None:
        knots[0] = parent.nodes[np.linalg.norm(parent.nodes - knots[0], axis=1).argmin()]
    chord = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(knots, axis=0), axis=1))])
    count = max(8, int(chord[-1] / _STEP))
    nodes = CubicSpline(chord, knots)(np.linspace(0, chord[-1], count))
    nodes += _wiggle(rng, count, amplitude=0.9, wavelength=14.0)
    nodes = _lay_on(nodes, surface, rng.uniform(1.5, 3.0), free=6)
    first, last = np.asarray(course.radii) * rng.uniform(0.85, 1.15)
    return Tube(nodes, np.linspace(first, last, count))


def _branch_places(rng: np.random.Generator, count: int) -> np.ndarray:
    if count == 0:
        return np.zeros(0)
    places = np.linspace(0.15, 0.75, count) + rng.uniform(-0.06, 0.06, size=count)
    return places[rng.random(count) < 0.85]


def _branch(rng: np.random.Generator, parent: Tube, share: float, surface: Surface) -> Tube | None:
    """Return a side branch that leaves at 30 to 70 degrees and wanders over the surface; None where too thin."""
    start = int(share * (len(parent.nodes) - 2))
    radius = parent.radii[start] * rng.uniform(0.55, 0.8)
    if radius < 1.3 * _THINNEST:
        return None
    count = int(rng.uniform(14, 40) * radius / _STEP)
    forward = parent.nodes[start + 1] - parent.nodes[start]
    normal = _normals(parent.nodes[start][None], surface)[0]
    sideways = np.cross(normal, forward) * rng.choice([-1, 1])
    angle = np.radians(rng.uniform(30, 70))
    heading = np.cos(angle) * _unit(forward) + np.sin(angle) * _unit(sideways)
    nodes = [parent.nodes[start]]
    turning = np.radians(rng.uniform(-3.0, 3.0))
    for _ in range(max(count, 6)):
        normal = _normals(nodes[-1][None], surface)[0]
        turning = 0.9 * turning + np.radians(rng.normal(scale=2.0))
        heading = _unit(heading + turning * np.cross(normal, heading))
        heading = _unit(heading - 0.8 * (heading @ normal) * normal)
        nodes.append(nodes[-1] + _STEP * heading)
    laid = _lay_on(np.array(nodes), surface, rng.uniform(1.2, 2.2), free=3)
    return Tube(laid, np.linspace(radius, max(_THINNEST, 0.5 * radius), len(laid)))


def _lay_on(nodes: np.ndarray, surface: Surface, height: float, free: int) -> np.ndarray:
    """Move nodes to ``height`` mm above the surface; the first ``free`` ones gradually, so that the origin stays."""
    laid = nodes.copy()
    share = np.clip(np.arange(len(nodes)) / free, 0, 1)[:, None]
    for _ in range(6):
        laid = laid + share * _normals(laid, surface) * np.clip(height - surface(laid.T), -2.5, 2.5)[:, None]
    return _smoothed(laid)


def _smoothed(nodes: np.ndarray) -> np.ndarray:
    inner = (nodes[:-2] + 2 * nodes[1:-1] + nodes[2:]) / 4
    return np.concatenate([nodes[:1], inner, nodes[-1:]])


def _normals(points: np.ndarray, surface: Surface) -> np.ndarray:
    """Return unit normals [N, 3] of the surface's level sets at ``points`` [N, 3], by central differences."""
    steps = 0.5 * np.concatenate([np.eye(3), -np.eye(3)])
    around = surface(np.moveaxis(points[:, None] + steps, 2, 0))
    gradient = around[:, :3] - around[:, 3:]
    return gradient / np.maximum(np.linalg.norm(gradient, axis=1, keepdims=True), 1e-6)


def _wiggle(rng: np.random.Generator, count: int, amplitude: float, wavelength: float) -> np.ndarray:
    """Return smooth displacements [count, 3] that begin at zero."""
    knots = max(4, int(count * _STEP / wavelength) + 2)
    values = rng.normal(scale=amplitude, size=(knots, 3))
    values[0] = 0
    return interp1d(np.linspace(0, 1, knots), values, axis=0, kind="cubic")(np.linspace(0, 1, count))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)
