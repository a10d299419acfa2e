"""The cases of a folder without a list, by the rules that ``cohort`` states. Reads no image.

Standard library only.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DataError
from .case import Case
from .files import absolute, labelled_name, volume_stem
from .listing import Listing, Look, list_folder, remembering

_FOLDERS = (("images", "labels"), ("imagesTr", "labelsTr"))
_IMAGE_ENDS = ("_image", "-image", "_img")
_CHANNEL = re.compile(r"^(.+)_(\d{4})$")
_CHANNELS_OF_A_CASE = (
    "Sequences of one patient are one case where they are called X_0000, X_0001 and so on, or where a list "
    "(cohort.csv) names them in its columns image, image2 and so on."
)
#: Folders between that of a patient and those of the slices.
_DEEPEST = 3


@dataclass(frozen=True)
class _Walk:
    """One look at a folder and what is below it.

    ``odd`` and ``unreadable`` are sub-folders that are no cases: those with the images of none or several, and those
    that cannot be read. ``several`` hold more than one volume, ``split`` more than one DICOM series, each of which
    became a case. ``maps`` are files that predictions left beside their labels.
    """

    look: Look = field(default_factory=remembering)
    odd: list[Path] = field(default_factory=list)
    several: list[Path] = field(default_factory=list)
    split: list[Path] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)
    maps: list[Path] = field(default_factory=list)

    def sentences(self) -> list[str]:
        """Return what to tell of them."""
        odd = "do not hold one image or one DICOM series, with one label at most,"
        kinds = (
            (f"Sub-folders that {odd} were left out", self.odd, ""),
            ("Sub-folders with several images were left out", self.several, f" {_CHANNELS_OF_A_CASE}"),
            ("Sub-folders that cannot be read were left out", self.unreadable, ""),
            ("Maps that predictions left beside their labels were left out", self.maps, ""),
            (
                "Of sub-folders with several DICOM series each series is a case",
                self.split,
                " Take those off the list that are scouts or other sequences.",
            ),
        )
        return [f"{kind} ({len(found)}): {_some(found)}.{advice}" for kind, found, advice in kinds if found]

    @property
    def nothing_came_of(self) -> bool:
        """Whether something was left out."""
        return bool(self.odd or self.several or self.unreadable or self.maps)


def scan(folder: Path, notes: list[str] | None) -> tuple[Case, ...]:
    """Return the cases; ``notes`` as in ``load_cohort``.

    Raises DataError where there is none and something was left out, OSError where the folder cannot be read.
    """
    walk = _Walk()
    cases = _cases_of(folder, notes, walk)
    sentences = walk.sentences()
    if walk.nothing_came_of and not cases:
        raise DataError(
            f"The folder {folder} has no cases. {' '.join(sentences)} Choose the folder in which the scans themselves "
            "lie, or put each patient's scan into a folder of its own."
        )
    if notes is not None:
        notes += sentences
        return _of_like_channels(cases, notes)
    return cases


def _of_like_channels(cases: tuple[Case, ...], notes: list[str]) -> tuple[Case, ...]:
    """Those with as many channels as most have; where a patient lacks a sequence, the others are still good."""
    counts = Counter(len(case.images) for case in cases)
    most = max(counts, key=lambda number: (counts[number], number), default=0)
    odd = [case.id for case in cases if len(case.images) != most]
    if odd:
        named = ", ".join(odd[:3]) + (", ..." if len(odd) > 3 else "")
        notes.append(f"Cases that have not {most} image(s), as most have, were left out ({len(odd)}): {named}.")
    return tuple(case for case in cases if len(case.images) == most)


def _cases_of(folder: Path, notes: list[str] | None, walk: _Walk) -> tuple[Case, ...]:
    for images, labels in _FOLDERS:
        if (folder / images).is_dir():
            found = _images(walk.look(folder / images))
            inside = _among(folder / images, found, walk)
            cases = _joined(found, inside, label_files(folder / labels, every=True), notes)
            if images == "imagesTr" and (folder / "imagesTs").is_dir():
                found = _images(walk.look(folder / "imagesTs"))
                found |= {case.id: case.images for case in _among(folder / "imagesTs", found, walk)}
                cases += _pair(found, {}, notes)
            return cases
    here = walk.look(folder)
    walk.maps.extend(here.maps)
    if here.is_series:
        return _case_in(folder.resolve().name, folder, [(folder,)], here.labels, walk)
    by_name = _labels(here, every=False)
    found = _images(here, {*by_name.values(), *here.maps})
    inside = _each(_sub_folders(here), walk, lambda p: _inside(p, walk) if _counts(p, found, walk) else ())
    return _joined(found, inside, by_name, notes)


def reads(folder: Path, inner: Path) -> bool:
    """Whether ``inner`` is, or lies below, a place in which ``folder`` is looked through for scans and labels."""
    try:
        parts = inner.resolve().relative_to(folder.resolve()).parts
    except ValueError:
        return False
    for pair in _FOLDERS:
        if os.path.isdir(folder / pair[0]):  # it raises for no locked folder
            return bool(parts) and parts[0] in (*pair, "imagesTs")
    return not any(part.startswith((".", "_")) for part in parts)


def _joined(
    images: dict[str, tuple[Path, ...]], inside: list[Case], labels: dict[str, Path], notes: list[str] | None
) -> tuple[Case, ...]:
    """Volumes and sub-folders as cases; those without a label of their own take it from ``labels``."""
    bare = {case.id: case.images for case in inside if case.label is None}
    return _pair(images | bare, labels, notes) + tuple(case for case in inside if case.label is not None)


def _sub_folders(listing: Listing) -> list[Path]:
    return [listing.folder / name for name in listing.folders]


def _counts(folder: Path, images: Container[str], walk: _Walk) -> bool:
    """Whether a sub-folder is looked at; of one that is called like a volume, bare slices count before the volume."""
    return folder.name not in images or (walk.look(folder).is_series and not walk.look(folder).labels)


def _each(folders: Sequence[Path], walk: _Walk, of: Callable[[Path], Sequence[Case]]) -> list[Case]:
    """The cases ``of`` all folders. One that a colleague locked, or whose disk fails, must not hide the others."""
    cases: list[Case] = []
    for folder in folders:
        try:
            cases += of(folder)
        except OSError:
            walk.unreadable.append(folder)
    return cases


def _among(folder: Path, images: Container[str], walk: _Walk) -> list[Case]:
    """The DICOM series beside the volumes of a folder that is for images alone."""

    def look(sub: Path) -> Sequence[Case]:
        counts = _counts(sub, images, walk)
        series = counts and walk.look(sub).is_series
        if counts and not series and _holds_volumes(walk.look(sub), _DEEPEST, walk):
            walk.odd.append(sub)
        return _inside(sub, walk) if series else ()

    return _each(_sub_folders(walk.look(folder)), walk, look)


def _inside(folder: Path, walk: _Walk) -> tuple[Case, ...]:
    """The case in a sub-folder: its slices or volumes with their label, else the DICOM series below it."""
    here = walk.look(folder)
    walk.maps.extend(here.maps)
    if here.is_series:
        return _case_in(folder.name, folder, [(folder,)], here.labels, walk)
    labels = list(_labels(here, every=False).values())
    images = list(_images(here, {*labels, *here.maps}).values())
    series = [] if images else _series_below(here, _DEEPEST, walk)
    if len(series) > 1 and len(labels) <= 1:
        walk.split.append(folder)
        named = [("-".join((folder.name, *p.relative_to(folder).parts)), p) for p in series]
        return tuple(c for name, p in named for c in _case_in(name, p, [(p,)], walk.look(p).labels, walk))
    labels += [label for p in series for label in walk.look(p).labels]
    return _case_in(folder.name, folder, images or [(p,) for p in series], labels, walk)


def _case_in(
    name: str, folder: Path, images: Sequence[tuple[Path, ...]], labels: Sequence[Path], walk: _Walk
) -> tuple[Case, ...]:
    """The case of a folder with these images and labels; where they are not those of one, the folder is left out."""
    if len(images) != 1 or len(labels) > 1:
        if len(images) > 1 and not any(path.suffix.lower() == ".dcm" for paths in images for path in paths):
            walk.several.append(folder)
        elif images or _holds_volumes(walk.look(folder), _DEEPEST, walk):
            walk.odd.append(folder)
        return ()
    label = absolute(labels[0]) if labels else None
    return (Case(name, tuple(absolute(p) for p in images[0]), label, "labeled" if label else "unlabeled"),)


def _holds_volumes(listing: Listing, depth: int, walk: _Walk) -> bool:
    """Whether volumes that are no labels lie in a folder or below it."""
    folders = set(listing.folders)
    others = (Path(name) for name in listing.names if name not in folders)
    if any(volume_stem(path) is not None and labelled_name(path) is None for path in others):
        return True
    return depth > 1 and any(_holds_volumes(walk.look(sub), depth - 1, walk) for sub in _sub_folders(listing))


def _series_below(listing: Listing, depth: int, walk: _Walk) -> list[Path]:
    """The folders of DICOM series below a folder."""
    found = []
    for sub in _sub_folders(listing):
        if walk.look(sub).is_series:
            found.append(sub)
        elif depth > 1:
            found += _series_below(walk.look(sub), depth - 1, walk)
    return found


def _images(listing: Listing, labels: Container[Path] = ()) -> dict[str, tuple[Path, ...]]:
    """Return case id -> channels of the volumes in a folder that are not ``labels``."""
    folder = listing.folder
    stems = {p: volume_stem(p) for p in map(folder.joinpath, listing.files) if p not in labels}
    names = set(stems.values())
    found: dict[str, list[Path]] = {}
    for path, stem in stems.items():
        if stem is None:
            continue
        channel = _CHANNEL.match(stem)
        identity = channel[1] if channel and f"{channel[1]}_0000" in names else case_name(path)
        found.setdefault(identity, []).append(path)
    for identity, paths in found.items():
        if len(paths) > 1 and not all(_CHANNEL.match(stems[p] or "") for p in paths):
            raise DataError(
                f"Case {identity} in {folder} has several images ({', '.join(p.name for p in paths)}); "
                f"keep one. {_CHANNELS_OF_A_CASE}",
                identity,
            )
        numbers = [int(channel[2]) for p in paths if (channel := _CHANNEL.match(stems[p] or ""))]
        if len(numbers) > 1 and numbers != list(range(len(numbers))):
            raise DataError(
                f"Case {identity} in {folder} has the channels {', '.join(f'{n:04d}' for n in numbers)}; expected "
                "0000, 0001 and so on, with none left out.",
                identity,
            )
    return {identity: tuple(paths) for identity, paths in found.items()}


def label_files(folder: Path, every: bool = True) -> dict[str, Path]:
    """Return case id -> label of a folder; raise DataError where a case has two.

    every: each volume of the folder is a label, else the names must say so.
    """
    return _labels(list_folder(folder), every) if folder.is_dir() else {}


def _labels(listing: Listing, every: bool) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in map(listing.folder.joinpath, listing.names):
        identity = labelled_name(path) or (volume_stem(path) if every else None)
        if identity is None or path.name in listing.folders:
            continue
        if identity in found:
            raise DataError(
                f"Case {identity} has two labels ({found[identity].name} and {path.name}); keep one.", identity
            )
        found[identity] = path
    return found


def _pair(images: dict[str, tuple[Path, ...]], labels: dict[str, Path], notes: list[str] | None) -> tuple[Case, ...]:
    lost = sorted(set(labels) - set(images))
    if lost and notes is None:
        raise DataError(
            f"Label {labels[lost[0]].name} has no image of the same name; name both after the case.", lost[0]
        )
    if lost and notes is not None:
        named = _some([labels[identity] for identity in lost])
        notes.append(f"Label files without a scan of the same name were left out ({len(lost)}): {named}.")
    return tuple(
        Case(identity, tuple(absolute(p) for p in paths), absolute(labels[identity]), "labeled")
        if identity in labels
        else Case(identity, tuple(absolute(p) for p in paths))
        for identity, paths in sorted(images.items())
    )


def _some(paths: Sequence[Path]) -> str:
    return ", ".join(p.name for p in paths[:3]) + (", ..." if len(paths) > 3 else "")


def case_name(path: Path) -> str:
    """Return what a file calls its case: its name without suffix and ``_image``."""
    stem = volume_stem(path) or path.name
    end = next((e for e in _IMAGE_ENDS if stem.lower().endswith(e)), "")
    return stem[: -len(end)] if end and len(stem) > len(end) else stem
