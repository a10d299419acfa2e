"""Cohorts: a folder, a CSV or a JSON file that lists cases. Reads no image and needs no SimpleITK.

**Folder.** A list named ``cohort.json``, ``cohort.csv`` or ``cases.csv`` in the folder counts first. Without one:

- ``images/`` + ``labels/`` or ``imagesTr/`` + ``labelsTr/``, paired by name (``imagesTs/`` adds unlabelled cases);
- else in the folder itself: ``X_image.*`` or ``X.*`` with ``X_label.*``, ``X-label.*`` or ``X.seg.nrrd``;
- ``X_0000.*``, ``X_0001.*``: the channels of case X, where channel 0 is there;
- a sub-folder X is case X where it is a DICOM series, or holds the image or images of one case, or has a DICOM series
  further below (``X/STUDY/SERIES``; where there are several, each is a case, ``X-STUDY-SERIES``); its label lies in it,
  among the slices too, or beside it (``X.seg.nrrd``); where several images or labels lie in it, it is left out;
- a folder of DICOM slices is one case, with the label that lies among them.

**CSV** (or tab-separated). A header with ``id`` (or ``case``, ``name``), ``image`` (then ``image2``, ``image3``, ...
for further channels), ``label`` and ``role``; the last two may be missing or empty.

**JSON.** ``{"cases": [{"id", "image" or "images", "label", "role"}], "segments": [{"name", "label", "color"}]}``;
``segments`` is optional and names the values of label maps. ``"labels": {"1": "left atrium"}`` does so in short.

Paths in a list are relative to the list. A case without a role is labelled where it has a label.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import random
import re
from collections.abc import Container
from pathlib import Path
from typing import Any

from ..config import Segment
from ..errors import CamlError, DataError, UsageError
from ..serialization import write_json
from .case import ROLES, Case, Cohort
from .case_table import table_rows
from .files import absolute, is_series, labelled_name, labels_of_series, relative_to, replacing, visible, volume_stem

LISTS = ("cohort.json", "cohort.csv", "cases.csv")
_FOLDERS = (("images", "labels"), ("imagesTr", "labelsTr"))
_IMAGE_ENDS = ("_image", "-image", "_img")
_CHANNEL = re.compile(r"^(.+)_(\d{4})$")
#: Folders between that of a patient and those of the slices.
_DEEPEST = 3


def load_cohort(path: Path, notes: list[str] | None = None) -> Cohort:
    """Read a cohort from a folder or a list (see this module). ``path`` may also be a single image file.

    notes: takes sentences on what a folder holds and no case can be made of. None: labels that have no image are
    refused, and sub-folders with the images of no single case are passed over.
    Raises DataError where the list is damaged, names a file that does not exist, an id twice or an unknown role.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"The cohort {path} does not exist; give a folder, a CSV or a JSON file.")
    if path.is_dir():
        listed = next((path / name for name in LISTS if (path / name).is_file()), None)
        cohort = load_cohort(listed) if listed else Cohort(_scan(path, notes), path)
    elif path.suffix.lower() == ".json":
        cohort = _load_json(path)
    elif path.suffix.lower() in (".csv", ".tsv", ".txt"):
        cohort = Cohort(_load_csv(path), path)
    elif volume_stem(path) is not None:
        cohort = Cohort((Case(volume_stem(path) or path.name, (path,)),), path)
    else:
        raise DataError(f"The cohort {path} is neither a folder nor a CSV or JSON file.")
    _check(cohort)
    return cohort


def save_cohort(cohort: Cohort, path: Path) -> None:
    """Write ``cohort`` as JSON or CSV, by the suffix of ``path``, with relative paths where that is possible.

    A CSV cannot hold the cohort's ``segments``. Atomic; raises ResourceError where the disk fails.
    """
    rows = [_row(case, path.parent) for case in cohort.cases]
    if path.suffix.lower() == ".json":
        with replacing(path) as temporary:
            write_json(temporary, {"cases": rows, "segments": list(cohort.segments)})
        return
    channels = max((len(case.images) for case in cohort.cases), default=1)
    names = ["image", *(f"image{i}" for i in range(2, channels + 1))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", *names, "label", "role"])
    for row in rows:
        images = [*row["images"], *[""] * (channels - len(row["images"]))]
        writer.writerow([row["id"], *images, row.get("label", ""), row["role"]])
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def hold_out(cohort: Cohort, seed: int = 0, share: float = 0.2, number: int | None = None) -> Cohort:
    """Return the cohort with a validation split among its labelled cases, unless it has one already.

    ``number`` cases, else ``share`` of them and at least one. With fewer than five labelled cases none is spared.
    The choice depends on the seed and the ids alone, not on their order.
    """
    labeled = sorted(case.id for case in cohort.with_role("labeled"))
    if cohort.with_role("validation"):
        return cohort
    if number is None:
        number = max(1, round(share * len(labeled))) if len(labeled) >= 5 else 0
    if number and number >= len(labeled):
        raise DataError(f"Cannot hold out {number} of {len(labeled)} labelled cases; at least one must be left.")
    chosen = set(random.Random(seed).sample(labeled, number))
    cases = tuple(dataclasses.replace(c, role="validation") if c.id in chosen else c for c in cohort.cases)
    return dataclasses.replace(cohort, cases=cases)


def check_trainable(cohort: Cohort) -> tuple[str, ...]:
    """Return notes on what the cohort lacks; raise DataError where it has no labelled case at all."""
    labeled = cohort.with_role("labeled")
    if not labeled:
        raise DataError(
            f"The cohort {cohort.source} has no labelled case; training needs at least one case with a label."
        )
    notes = []
    if not cohort.with_role("unlabeled"):
        notes.append("The cohort has no unlabelled case: this is a supervised training on the labelled ones alone.")
    if not cohort.with_role("validation"):
        notes.append(
            f"No case is held out for validation ({len(labeled)} labelled): the model's accuracy will not be known."
        )
    return tuple(notes)


def check_folds(cohort: Cohort, folds: int) -> None:
    """Raise UsageError where there are too few labelled cases for a cross-validation (``folds`` 0: none is wanted)."""
    if folds and len(cohort.with_role("labeled")) < 2:
        raise UsageError("A cross-validation needs at least two labelled cases; label another one, or do without.")


def _load_csv(path: Path) -> tuple[Case, ...]:
    return tuple(_case(fields, path, where) for where, fields in table_rows(path, _text(path)))


def _load_json(path: Path) -> Cohort:
    try:
        value = json.loads(_text(path))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}); correct it or write the cohort as CSV.") from error
    listed = value.get("cases") if isinstance(value, dict) else value
    if not isinstance(listed, list) or not all(isinstance(v, dict) for v in listed):
        raise DataError(f'{path} must hold a list of objects under "cases"; each needs "id" and "image".')
    cases = tuple(_case(v, path, f"case number {i}") for i, v in enumerate(listed, 1))
    return Cohort(cases, path, declared_segments(value, path) if isinstance(value, dict) else ())


def declared_segments(value: dict[str, Any], path: Path | str) -> tuple[Segment, ...]:
    """Return the segments that the JSON object of a cohort lists; raise DataError that names ``path``."""
    try:
        if value.get("segments"):
            segments = [
                Segment(**{**s, "color": tuple(float(c) for c in s["color"])} if "color" in s else s)
                for s in value["segments"]
            ]
        else:
            pairs = [(k, v) if str(k).isdigit() else (v, k) for k, v in (value.get("labels") or {}).items()]
            segments = [Segment(str(name), int(label)) for label, name in pairs if int(label) > 0]
    except (TypeError, ValueError, AttributeError, CamlError) as error:
        raise DataError(
            f'{path}: the segments cannot be read ({error}); expected [{{"name": "left atrium", "label": 1}}, ...].'
        ) from error
    segments.sort(key=lambda s: s.label)
    names = [s.name.strip().casefold() for s in segments]
    if len(set(names)) < len(names) or len({s.label for s in segments}) < len(names):
        raise DataError(f"{path} declares two segments with one name or one label; make them differ.")
    return tuple(segments)


def _case(fields: dict[str, Any], source: Path, where: str) -> Case:
    images = fields.get("images", fields.get("image")) or []
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, list) or not images or not all(isinstance(i, str) for i in images):
        raise DataError(f"{source}, {where}: no image is given; every case needs at least one.")
    identity = str(fields.get("id") or fields.get("case") or case_name(Path(images[0])))
    label = fields.get("label") or None
    role = str(fields.get("role") or ("labeled" if label else "unlabeled")).lower()
    role = {"labelled": "labeled", "unlabelled": "unlabeled"}.get(role, role)
    if role not in ROLES:
        raise DataError(f"Case {identity} has the role {role!r}; expected one of {', '.join(ROLES)}.", identity)
    folder = source.parent
    paths = tuple(absolute(folder / image) for image in images)
    return Case(identity, paths, absolute(folder / label) if label else None, role)  # type: ignore[arg-type]


def _check(cohort: Cohort) -> None:
    if not cohort.cases:
        raise DataError(
            f"The cohort {cohort.source} has no cases; expected images such as CASE.nii.gz, a folder of a DICOM series "
            "a case, or a list of cases (CSV, JSON)."
        )
    seen: set[str] = set()
    for case in cohort.cases:
        if case.id in seen:
            raise DataError(f"The cohort {cohort.source} has two cases called {case.id}; ids must differ.", case.id)
        seen.add(case.id)
        if case.role == "excluded":
            continue
        if case.role in ("labeled", "validation") and case.label is None:
            raise DataError(
                f"Case {case.id} has the role {case.role} but no label; give one or change the role.", case.id
            )
        needed = [*case.images, *([case.label] if case.label and case.role != "unlabeled" else [])]
        missing = next((p for p in needed if not p.exists()), None)
        if missing:
            raise DataError(f"Case {case.id}: {missing} does not exist; correct the path in {cohort.source}.", case.id)
    counts = {len(case.images) for case in cohort.cases if case.role != "excluded"}
    if len(counts) > 1:
        most = max(counts, key=lambda n: sum(len(c.images) == n for c in cohort.cases))
        odd = next(c for c in cohort.cases if c.role != "excluded" and len(c.images) != most)
        raise DataError(
            f"Case {odd.id} has {len(odd.images)} image(s) where most cases have {most}; list all channels.", odd.id
        )


def _scan(folder: Path, notes: list[str] | None) -> tuple[Case, ...]:
    left_out: list[Path] = []
    cases = _cases_of(folder, notes, left_out)
    if left_out:
        named = ", ".join(p.name for p in left_out[:3]) + (", ..." if len(left_out) > 3 else "")
        sentence = (
            "Sub-folders that do not hold one image or one DICOM series, with one label at most, were left out "
            f"({len(left_out)}): {named}."
        )
        if not cases:
            raise DataError(f"The cohort {folder} has no cases. {sentence}")
        if notes is not None:
            notes.append(sentence)
    return cases


def _cases_of(folder: Path, notes: list[str] | None, left_out: list[Path]) -> tuple[Case, ...]:
    for images, labels in _FOLDERS:
        if (folder / images).is_dir():
            found = _images(folder / images)
            inside = _among(folder / images, found, left_out)
            cases = _joined(found, inside, label_files(folder / labels, every=True), notes)
            if images == "imagesTr" and (folder / "imagesTs").is_dir():
                found = _images(folder / "imagesTs")
                found |= {case.id: case.images for case in _among(folder / "imagesTs", found, left_out)}
                cases += _pair(found, {}, notes)
            return cases
    if is_series(folder):
        return _case_in(folder.resolve().name, folder, [(folder,)], labels_of_series(folder), left_out)
    by_name = label_files(folder, every=False)
    found = _images(folder, set(by_name.values()))
    inside = [case for p in _sub_folders(folder, found) for case in _inside(p, left_out)]
    return _joined(found, inside, by_name, notes)


def _joined(
    images: dict[str, tuple[Path, ...]], inside: list[Case], labels: dict[str, Path], notes: list[str] | None
) -> tuple[Case, ...]:
    """Volumes and sub-folders as cases; those without a label of their own take it from ``labels``."""
    bare = {case.id: case.images for case in inside if case.label is None}
    return _pair(images | bare, labels, notes) + tuple(case for case in inside if case.label is not None)


def _sub_folders(folder: Path, images: Container[str]) -> list[Path]:
    """The sub-folders; of one that is called like a volume beside it, bare slices count before the volume."""
    subs = [p for p in visible(folder) if p.is_dir()]
    return [p for p in subs if p.name not in images or (is_series(p) and not labels_of_series(p))]


def _among(folder: Path, images: Container[str], left_out: list[Path]) -> list[Case]:
    """The DICOM series beside the volumes of a folder that is for images alone."""
    subs = [(p, is_series(p)) for p in _sub_folders(folder, images)]
    left_out += [p for p, series in subs if not series and _holds_volumes(p, _DEEPEST)]
    return [case for p, series in subs if series for case in _inside(p, left_out)]


def _inside(folder: Path, left_out: list[Path]) -> tuple[Case, ...]:
    """The case in a sub-folder: its slices or volumes with their label, else the DICOM series below it."""
    if is_series(folder):
        return _case_in(folder.name, folder, [(folder,)], labels_of_series(folder), left_out)
    labels = list(label_files(folder, every=False).values())
    images = list(_images(folder, set(labels)).values())
    series = [] if images else _series_below(folder, _DEEPEST)
    if len(series) > 1 and len(labels) <= 1:
        named = [("-".join((folder.name, *p.relative_to(folder).parts)), p) for p in series]
        return tuple(c for name, p in named for c in _case_in(name, p, [(p,)], labels_of_series(p), left_out))
    labels += [label for p in series for label in labels_of_series(p)]
    return _case_in(folder.name, folder, images or [(p,) for p in series], labels, left_out)


def _case_in(
    name: str, folder: Path, images: list[tuple[Path, ...]], labels: list[Path], left_out: list[Path]
) -> tuple[Case, ...]:
    """The case of a folder with these images and labels; where they are not those of one, the folder is left out."""
    if len(images) != 1 or len(labels) > 1:
        if images or _holds_volumes(folder, _DEEPEST):
            left_out.append(folder)
        return ()
    label = absolute(labels[0]) if labels else None
    return (Case(name, tuple(absolute(p) for p in images[0]), label, "labeled" if label else "unlabeled"),)


def _holds_volumes(folder: Path, depth: int) -> bool:
    """Whether volumes that are no labels lie in a folder or below it."""
    return any(
        depth > 1 and _holds_volumes(p, depth - 1)
        if p.is_dir()
        else volume_stem(p) is not None and labelled_name(p) is None
        for p in visible(folder)
    )


def _series_below(folder: Path, depth: int) -> list[Path]:
    """The folders of DICOM series below a folder."""
    found = []
    for sub in (p for p in visible(folder) if p.is_dir()):
        if is_series(sub):
            found.append(sub)
        elif depth > 1:
            found += _series_below(sub, depth - 1)
    return found


def _images(folder: Path, labels: Container[Path] = ()) -> dict[str, tuple[Path, ...]]:
    """Return case id -> channels of the volumes in ``folder`` that are not ``labels``."""
    stems = {p: volume_stem(p) for p in visible(folder) if p.is_file() and p not in labels}
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
                "keep one, or write a list with a column for each channel.",
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
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    for path in visible(folder):
        identity = labelled_name(path) or (volume_stem(path) if every else None)
        if identity is None or path.is_dir():
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
        named = ", ".join(labels[identity].name for identity in lost[:3]) + (", ..." if len(lost) > 3 else "")
        notes.append(f"Label files without a scan of the same name were left out ({len(lost)}): {named}.")
    return tuple(
        Case(identity, tuple(absolute(p) for p in paths), absolute(labels[identity]), "labeled")
        if identity in labels
        else Case(identity, tuple(absolute(p) for p in paths))
        for identity, paths in sorted(images.items())
    )


def case_name(path: Path) -> str:
    """Return what a file calls its case: its name without suffix and ``_image``."""
    stem = volume_stem(path) or path.name
    end = next((e for e in _IMAGE_ENDS if stem.lower().endswith(e)), "")
    return stem[: -len(end)] if end and len(stem) > len(end) else stem


def _row(case: Case, folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"id": case.id, "images": [relative_to(p, folder) for p in case.images]}
    if case.label:
        row["label"] = relative_to(case.label, folder)
    return {**row, "role": case.role}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The cohort {path} cannot be read ({error}); expected a text file in UTF-8.") from error
