"""The images of a case as volumes of the scene: one for each channel, which of them is which, what the user reads.

A case has one volume of its own in the scene, on which its label is drawn (``Cohort.volumeNode``). Volumes of its other
channels bear the mark of further ones, and are no cases.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
from CAMLSegmentationLib import SegmentationResult, VolumeExchange
from CAMLSegmentationLib.SceneVolumes import sceneVolumes
from slicer.i18n import tr as _

from caml_core.errors import CamlError, DataError
from caml_core.project.cases import ProjectCase
from caml_core.project.project import Project

from . import CaseExchange

if TYPE_CHECKING:
    from .Cohort import Cohort

#: Attribute of volumes, followed by the project: which image of its case a volume shows, from 0, and the node's id
#: where it was loaded for that.
CHANNEL = CaseExchange.PREFIX + "Channel"


def loadFirst(known: ProjectCase) -> Any:
    """Load the first channel of a case into the scene and return its node; raise DataError where it cannot be read."""
    if not known.images:
        raise DataError(
            _("The scan of case {case} is neither in the scene nor in a file; load it again.").format(case=known.id)
        )
    _checkThere(known, 0)
    return _load(known, 0, known.id)


def loadAll(cohort: Cohort, case: str) -> dict[int, Any]:
    """Return the volumes of a case by channel, from 0, loaded where they are not in the scene yet.

    All or none: where one cannot be read, those that were loaded for this are removed, the views stay as they are, and
    DataError says which file it was.
    """
    if cohort.volumeNode(case) is not None:
        cohort.load(case)  # it is seen then whether that is another scan
    known, there = cohort.project.cases[case], inScene(cohort, case)
    missing = [index for index in range(len(known.images)) if index not in there]
    for index in missing:
        _checkThere(known, index)
    isFirst = cohort.volumeNode(case) is None
    loaded: list[Any] = []
    try:
        for index in missing:
            if index or not isFirst:
                loaded.append(_loadFurther(cohort, known, index))
        cohort.load(case)  # last: the views show it
    except CamlError:
        for node in loaded:
            _remove(node)
        raise
    return inScene(cohort, case)


def inScene(cohort: Cohort, case: str) -> dict[int, Any]:
    """Return the volumes that the scene has of a case, by channel; of two of one channel the case's own counts."""
    known, own = cohort.project.cases[case], cohort.volumeNode(case)
    volumes = [node for node in sceneVolumes() if node.GetImageData() is not None and node is not own]
    found: dict[int, Any] = {} if own is None else {_channelOf(cohort.project, known, own) or 0: own}
    for node in volumes:
        if cohort.isFurther(node, case) and (index := _channelOf(cohort.project, known, node)) is not None:
            found.setdefault(index, node)
    return found


def titles(project: Project, known: ProjectCase) -> list[str]:
    """Return what a user reads of each channel of a case: its name where a list of cases has said it."""
    named = project.titles_of([known]) or ("",) * len(known.images)
    return [title or _("Channel {number}").format(number=number) for number, title in enumerate(named, 1)]


def isLoadedHere(node: Any, project: Project) -> bool:
    """Whether a volume is one that was loaded here for a channel. A copy of it bears its marks, and another id."""
    return (node.GetAttribute(_attribute(project)) or "").endswith(f" {node.GetID()}")


def _channelOf(project: Project, known: ProjectCase, node: Any) -> int | None:
    """Which image of its case a volume shows, as it was noted, else by its file or voxels; None where nothing tells."""
    if len(known.images) < 2:
        return 0
    noted = (node.GetAttribute(_attribute(project)) or "").partition(" ")[0]
    if noted.isdecimal() and int(noted) < len(known.images):
        return int(noted)
    path = CaseExchange.fileOf(node)
    if path in known.images:
        found = known.images.index(path)
    else:  # out of a bundle it has another file
        images = enumerate(known.images)
        found = next((index for index, image in images if CaseExchange.holds(image, node, anywhere=True)), -1)
    if found < 0:
        return None
    node.SetAttribute(_attribute(project), str(found))
    return found


def _attribute(project: Project) -> str:
    return f"{CHANNEL}.{project.id}"


def _checkThere(known: ProjectCase, index: int) -> None:
    path = known.images[index]
    if not os.path.exists(path):
        raise DataError(
            _("The scan of case {case} is not there ({path}); point to its folder with Locate.").format(
                case=known.id, path=path
            )
        )


def _loadFurther(cohort: Cohort, known: ProjectCase, index: int) -> Any:
    title = titles(cohort.project, known)[index]
    node = _load(known, index, _("{case} {channel}").format(case=known.id, channel=title), show=False)
    node.SetAttribute(_attribute(cohort.project), f"{index} {node.GetID()}")
    cohort.markFurther(node, known.id)
    return node


def _load(known: ProjectCase, index: int, name: str, show: bool = True) -> Any:
    """Load an image of a case; ``show``: in the views as well, as Slicer shows what it loads from a file."""
    path = known.images[index]
    series = os.path.isdir(path) or path.suffix.lower() == ".dcm"
    return _loadSeries(path, known.id, name) if series else _loadFile(path, known.id, name, show)


def _loadFile(path: Path, case: str, name: str, show: bool) -> Any:
    try:
        return slicer.util.loadVolume(str(path), {"name": name, "show": show})
    except RuntimeError as error:
        raise DataError(
            _("The scan {path} of case {case} cannot be loaded; the file is damaged or no volume.").format(
                path=path, case=case
            )
        ) from error


def _loadSeries(path: Path, case: str, name: str) -> Any:
    """A DICOM folder, read as the engine reads it, so that labels drawn here lie where training looks."""
    from caml_core.data.io import read_volume

    volume = read_volume(path, case)
    node = VolumeExchange.addVolume(volume.array, volume.grid, name)
    CaseExchange.noteRead(path, node, volume.grid)
    return node


def _remove(node: Any) -> None:
    storage = node.GetStorageNode()
    SegmentationResult.remove(node)
    if storage is not None:
        slicer.mrmlScene.RemoveNode(storage)
