"""Which predicted label map belongs to which reference."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import Segment
from ..data.cohort import load_cohort
from ..data.files import LABEL_ENDS, LABEL_SUFFIXES, MAP_ENDS, is_segmentation
from ..errors import DataError, UsageError

#: As nnU-Net numbers a case's channels.
_CHANNEL = "_0000"
_IMAGE_ENDS = ("_image", "-image", "_img", _CHANNEL)
_LISTS = (".csv", ".tsv", ".txt", ".json")


@dataclass(frozen=True)
class Pair:
    """Two label maps of a case. ``declared``: the classes of the references' list, with their values in it."""

    prediction: Path
    reference: Path
    declared: tuple[Segment, ...] = ()


def find_pairs(predictions: Path, references: Path, notes: list[str] | None = None) -> dict[str, Pair]:
    """Return case id -> prediction and reference. Two files are a pair whatever their names.

    In folders, names are compared whole, without ``_label``, ``_seg`` and the suffix, then without ``_image`` and the
    like; a list (CSV, JSON) or a folder with sub-folders is read as a cohort, whose labels are the references. A
    prediction without a reference is an error. ``notes`` takes a sentence on references without a prediction, where
    predictions are several: a mean without the cases that failed flatters. Raises DataError.
    """
    ours, theirs = _label_files(predictions), _label_files(references)
    if predictions.is_file() and references.is_file() and len(ours.by_case) == len(theirs.by_case) == 1:
        (reference,) = theirs.by_case.values()
        return {case: Pair(path, reference, theirs.declared) for case, path in ours.by_case.items()}
    pairs, lacking = {}, []
    for case, path in sorted(ours.by_case.items()):
        name, whole = _bare(path), _stem(path)
        if whole in theirs.by_case:  # the id of a listed case may end as names of label maps do: X_seg
            pairs[whole] = Pair(path, theirs.by_case[whole], theirs.declared)
        elif name in theirs.by_name:
            pairs[name] = Pair(path, theirs.by_name[name], theirs.declared)
        elif case in theirs.by_case:
            pairs[case] = Pair(path, theirs.by_case[case], theirs.declared)
        else:
            lacking.append(case)
    if lacking:
        raise DataError(
            f"There is no reference for {', '.join(lacking[:5])}{' and others' if len(lacking) > 5 else ''} in "
            f"{references}; name prediction and reference after the same case.",
            lacking[0],
        )
    if notes is not None and not predictions.is_file():
        compared = {pair.reference for pair in pairs.values()}
        notes += _left_out([case for case, path in theirs.by_case.items() if path not in compared])
    return pairs


def _left_out(cases: Sequence[str]) -> list[str]:
    """The sentence on references that were not compared, as a list; empty without any."""
    if not cases:
        return []
    named = f"{', '.join(sorted(cases)[:5])}{' and others' if len(cases) > 5 else ''}"
    return [f"{len(cases)} reference(s) have no prediction, and the figures say nothing of them: {named}."]


@dataclass(frozen=True)
class _LabelFiles:
    """Label maps by case, and by name without the endings of label maps; the classes that a list declares."""

    by_case: dict[str, Path]
    by_name: dict[str, Path]
    declared: tuple[Segment, ...] = ()


def _label_files(path: Path) -> _LabelFiles:
    """The label maps of a file, a folder or a list."""
    if not path.exists():
        raise DataError(f"{path} does not exist; give label maps, folders of them or a list of cases.")
    if path.is_file() and path.suffix.lower() not in _LISTS:
        return _LabelFiles({_case_id(path): path}, {_bare(path): path})
    files = _plain_files(path) if path.is_dir() else []
    if not files:
        cohort = load_cohort(path)
        listed = {case.id: case.label for case in cohort.cases if case.label is not None}
        if not listed:
            raise DataError(f"There is no label map in {path}.")
        return _LabelFiles(listed, listed, cohort.segments)
    names = {_bare(file) for file in files}
    named = [file for file in files if _is_named_label(file)]
    taken = {_case_id(file, names) for file in named}
    result: dict[str, Path] = {}
    for file in [*named, *(f for f in files if f not in named and _case_id(f, names) not in taken)]:
        case = _case_id(file, names)
        if case in result:
            raise UsageError(f"Both {result[case].name} and {file.name} in {path} belong to case {case}; keep one.")
        result[case] = file
    return _LabelFiles(result, {_bare(file): file for file in result.values()})


def _plain_files(folder: Path) -> list[Path]:
    """The files of a folder that may be label maps, by their names."""
    visible = [p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith(".")]
    found = [p for p in visible if p.name.lower().endswith(LABEL_SUFFIXES) and not _stem(p).lower().endswith(MAP_ENDS)]
    names = {_bare(file) for file in found}
    images = {file: end for file in found if not _is_named_label(file) and (end := _image_end(_bare(file), names))}
    # Masks may be called after their images. Scans are in a folder where one lies beside a label of its case.
    if not any(_bare(file)[: -len(end)] in names for file, end in images.items()):
        return found
    return [file for file in found if file not in images]


def _is_named_label(file: Path) -> bool:
    """Whether the name tells a label map from the case's image."""
    return is_segmentation(file) or _stem(file).lower().endswith(LABEL_ENDS)


def _image_end(name: str, others: Collection[str]) -> str:
    """The ending by which a name is an image's, or "". A number is none where ``others`` are numbered alike."""
    end = next((e for e in _IMAGE_ENDS if name.lower().endswith(e) and len(name) > len(e)), "")
    if end != _CHANNEL:
        return end
    case = name[: -len(end)]
    alike = re.compile(re.escape(case) + r"_\d{4}")
    numbered = case not in others and any(alike.fullmatch(other) for other in others if other != name)
    return "" if numbered else end


def _case_id(path: Path, others: Collection[str] = ()) -> str:
    """The name without all endings; ``others``: names of the files beside it."""
    name = _bare(path)
    name = name[: len(name) - len(_image_end(name, others))]
    return _without_label_end(name)


def _bare(path: Path) -> str:
    """The name without the endings of label maps: p1 of p1_label.seg.nrrd."""
    return _without_label_end(_without_label_end(_stem(path)))


def _without_label_end(name: str) -> str:
    end = next((e for e in LABEL_ENDS if name.lower().endswith(e) and len(name) > len(e)), "")
    return name[: len(name) - len(end)]


def _stem(path: Path) -> str:
    suffix = next((s for s in LABEL_SUFFIXES if path.name.lower().endswith(s)), path.suffix)
    return path.name[: len(path.name) - len(suffix)]
