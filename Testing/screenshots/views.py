"""Slice and 3-D views of the scene as pictures: slicer-core's own displayable managers, drawn without a window."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# Before VTK makes its first window: software rendering, no screen needed (Debian: libosmesa6).
os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkOSOpenGLRenderWindow")

import slicer  # noqa: E402
import vtk  # noqa: E402

_SLICE_MANAGERS = (
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLColorLegendDisplayableManager",
)
_THREE_D_MANAGERS = ("vtkMRMLCameraDisplayableManager", "vtkMRMLSegmentationsDisplayableManager3D")


class SliceView:
    """One slice view of the host's layout."""

    def __init__(self, name: str, size: tuple[int, int]) -> None:
        self._size = size
        self._logic = slicer.app.layoutManager().sliceWidget(name).sliceLogic()
        self._window, self._renderer = _window(size)
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        self._managers = _managers(factory, _SLICE_MANAGERS, self._renderer, self._logic.GetSliceNode())
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        actor = vtk.vtkActor2D()
        actor.SetMapper(self._mapper)
        actor.GetProperty().SetDisplayLocationToBackground()
        self._renderer.AddViewProp(actor)

    def save(self, path: Path) -> None:
        """Draw the slice where the view is, the whole volume in sight, and write a PNG."""
        offset = self._logic.GetSliceOffset()
        self._logic.GetSliceNode().SetDimensions(*self._size, 1)
        self._logic.FitSliceToAll(*self._size)
        self._logic.SetSliceOffset(offset)
        self._mapper.SetInputConnection(self._logic.GetImageDataConnection())
        save_window(self._window, path)


def save_surface(path: Path, size: tuple[int, int], azimuth: float = 25.0, elevation: float = 15.0) -> None:
    """Draw the 3-D view with all surfaces and write a PNG."""
    window, renderer = _window(size)
    renderer.SetBackground(0.757, 0.765, 0.910)  # Slicer's own
    renderer.SetBackground2(0.455, 0.471, 0.745)
    renderer.SetGradientBackground(True)
    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLViewNode", "View1")
    view.SetLayoutName("1")
    factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
    managers = _managers(factory, _THREE_D_MANAGERS, renderer, view)
    renderer.ResetCamera()
    camera = renderer.GetActiveCamera()
    center, distance = camera.GetFocalPoint(), camera.GetDistance()
    camera.SetPosition(center[0], center[1] + distance, center[2])  # from the front of the patient
    camera.SetViewUp(0, 0, 1)
    camera.Azimuth(azimuth)
    camera.Elevation(elevation)
    renderer.ResetCamera()
    camera.Zoom(1.25)
    renderer.ResetCameraClippingRange()
    save_window(window, path)
    del managers


def _window(size: tuple[int, int]) -> tuple[Any, Any]:
    window, renderer = vtk.vtkRenderWindow(), vtk.vtkRenderer()
    window.SetOffScreenRendering(True)
    window.SetSize(*size)
    window.SetMultiSamples(0)
    window.AddRenderer(renderer)
    interactor = vtk.vtkRenderWindowInteractor()
    interactor.SetRenderWindow(window)
    renderer.GetActiveCamera().ParallelProjectionOff()
    return window, renderer


def _managers(factory: Any, names: tuple[str, ...], renderer: Any, node: Any) -> Any:
    factory.SetMRMLApplicationLogic(slicer.app.applicationLogic())
    for name in names:
        if not factory.IsDisplayableManagerRegistered(name):
            factory.RegisterDisplayableManager(name)
    group = factory.InstantiateDisplayableManagers(renderer)
    group.SetMRMLDisplayableNode(node)
    return group


def save_window(window: Any, path: Path) -> None:
    """Render a window and write a PNG."""
    window.Render()
    taken, writer = vtk.vtkWindowToImageFilter(), vtk.vtkPNGWriter()
    taken.SetInput(window)
    taken.ReadFrontBufferOff()
    taken.Update()
    writer.SetFileName(str(path))
    writer.SetInputConnection(taken.GetOutputPort())
    writer.Write()
