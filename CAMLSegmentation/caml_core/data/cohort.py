"""Cohorts: a folder, a CSV or a JSON file that lists cases. Reads no image and needs no SimpleITK.

**Folder.** A list named ``cohort.json``, ``cohort.csv`` or ``cases.csv`` in the folder counts first. Without one:

- ``images/`` + ``labels/`` or ``imagesTr/`` + ``labelsTr/``, paired by name (``imagesTs/`` adds unlabelled cases);
- else in the folder itself: ``X_image.*`` or ``X.*`` with ``X_label.*``, ``X-label.*`` or ``X.seg.nrrd``;
- ``X_0000.*``, ``X_0001.*``: the channels of case X, where channel 0 is there;
- a sub-folder X is case X where it is a DICOM series, or holds the image or images of one case, or has a DICOM series
  further below (``X/STUDY/SERIES``; where there are several, each is a case, ``X-STUDY-SERIES``); its label lies in it,
  among the slices too, or beside it (``X.seg.nrrd``); where several images or labels lie in it, it is left out;
- a folder of DICOM slices is one case, with the label that lies among them.
- a sub-folder that cannot be read is left out, and so are the maps that predictions leave beside their labels
  (``X_disagreement.*``, ``X_probability.*`` beside the label X).

**CSV** (or tab-separated). A header with ``id`` (or ``case``, ``name``), ``image`` (then ``image2``, ``image3``, ...
for further channels), ``label`` and ``role``; the last two may be missing or empty. ``image (T1)``, ``image2 (FLAIR)``
say what the channels are.

**JSON.** ``{"cases": [{"id", "image" or "images", "label", "role"}], "segments": [{"name", "label", "color"}]}``;
``segments`` is optional and names the values of label maps; colours go to 1, or to 255, and classes without one get
different ones. ``"labels": {"1": "left atrium"}`` does so in short. A case may have ``"label_began"`` (``Case``), so
that figures on it are told with that. ``"channels": ["T1", "FLAIR"]`` says what the images of each case are.

Paths in a list are relative to the list. A case without a role is labelled where it has a label.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..channel_titles import listed_titles, title_key
from ..config import GENERIC_TERMINOLOGY, Segment, palette_color
from ..errors import CamlError, DataError, UsageError
from ..serialization import write_json
from .case import NO_NAME, ROLES, Case, Cohort, leads_outside
from .case_table import table_rows
from .cohort_folder import case_name, reads, scan
from .files import absolute, name_fault, relative_to, replacing, volume_stem

LISTS = ("cohort.json", "cohort.csv", "cases.csv")


def load_cohort(path: Path, notes: list[str] | None = None, *, files: bool = True) -> Cohort:
    """Read a cohort from a folder or a list (see this module). ``path`` may also be a single image file.

    notes: takes sentences on what a folder holds and no case can be made of. None: labels that have no image, and names
    that are not in UTF-8, are refused, and sub-folders with the images of no single case, or that cannot be read, are
    passed over.
    files: whether all files must be there (``check_files``).
    Raises DataError where the list is damaged, names a file that does not exist, an id twice or an unknown role, and
    where the system does not let it be read.
    """
    try:
        cohort = _of_known_names(_load(Path(path), notes), notes)
        _check(cohort)
        if files:
            check_files(cohort)
    except OSError as error:
        place, reason = error.filename or path, error.strerror or error
        raise DataError(f"{place} cannot be read ({reason}); allow that, or choose another folder.") from error
    return cohort


def _load(path: Path, notes: list[str] | None) -> Cohort:
    if not path.exists():
        raise DataError(f"The cohort {path} does not exist; give a folder, a CSV or a JSON file.")
    if path.is_dir():
        listed = next((path / name for name in LISTS if (path / name).is_file()), None)
        return _load(listed, None) if listed else Cohort(scan(path, notes), path)
    if path.suffix.lower() == ".json":
        return _load_json(path)
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        return _load_csv(path)
    if volume_stem(path) is not None:
        return Cohort((Case(volume_stem(path) or path.name, (path,)),), path)
    raise DataError(f"The cohort {path} is neither a folder nor a CSV or JSON file.")


def _of_known_names(cohort: Cohort, notes: list[str] | None) -> Cohort:
    """The cohort without the cases whose names no image may have; raise DataError where nobody would hear of that."""
    faults: dict[str, str] = {}
    for case in cohort.cases:
        files = [*case.images, *([case.label] if case.label else [])]
        if case.role != "excluded" and (fault := next(filter(None, map(name_fault, files)), "")):
            faults[case.id] = fault
    if not faults:
        return cohort
    first, kept = next(iter(faults.values())), tuple(case for case in cohort.cases if case.id not in faults)
    if notes is None or not kept:
        raise DataError(first)
    notes.append(f"{len(faults)} case(s) were left out. {first}")
    return dataclasses.replace(cohort, cases=kept)


def takes_in(path: Path, outputs: Path) -> bool:
    """Whether what is written into the folder ``outputs`` counts when the cohort ``path`` is read again.

    A prediction there would be a label, or one more scan. A list names its files, and takes in nothing.
    """
    listed = any(os.path.isfile(path / name) for name in LISTS)
    return os.path.isdir(path) and not listed and reads(path, outputs)


def save_cohort(cohort: Cohort, path: Path) -> None:
    """Write ``cohort`` as JSON or CSV, by the suffix of ``path``, with relative paths where that is possible.

    A CSV cannot hold the cohort's ``segments``, nor how labels began. Atomic; raises ResourceError where the
    disk fails.
    """
    rows = [_row(case, path.parent) for case in cohort.cases]
    if path.suffix.lower() == ".json":
        with replacing(path) as temporary:
            named = {"channels": list(cohort.channels)} if cohort.channels else {}
            write_json(temporary, {"cases": rows, "segments": list(cohort.segments), **named})
        return
    channels = max((len(case.images) for case in cohort.cases), default=1)
    names = ["image", *(f"image{i}" for i in range(2, channels + 1))]
    titles = [*cohort.channels, *[""] * channels]
    names = [f"{name} ({title})" if title else name for name, title in zip(names, titles)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", *names, "label", "role"])
    for row in rows:
        images = [*row["images"], *[""] * (channels - len(row["images"]))]
        writer.writerow([row["id"], *images, row.get("label", ""), row["role"]])
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def hold_out(
    cohort: Cohort,
    seed: int = 0,
    share: float = 0.2,
    number: int | None = None,
    learned: Callable[[Sequence[Case]], Collection[str]] = lambda _cases: (),
) -> Cohort:
    """Return the cohort with a validation split among its labelled cases, unless it has one already.

    ``number`` cases, else ``share`` of them and at least one. With fewer than five labelled cases none is spared.
    ``learned`` returns the ids of those that the start model has learnt from (``chosen_by_chance``); it is asked only
    where cases are to be chosen. The choice depends on that, the seed and the ids alone, not on their order.
    """
    labeled = cohort.with_role("labeled")
    if cohort.with_role("validation"):
        return cohort
    if number is None:
        number = max(1, round(share * len(labeled))) if len(labeled) >= 5 else 0
    if number and number >= len(labeled):
        raise DataError(f"Cannot hold out {number} of {len(labeled)} labelled cases; at least one must be left.")
    if not number:
        return cohort
    chosen = set(chosen_by_chance((case.id for case in labeled), number, seed, learned(labeled)))
    cases = tuple(dataclasses.replace(c, role="validation") if c.id in chosen else c for c in cohort.cases)
    return dataclasses.replace(cohort, cases=cases)


def chosen_by_chance(labeled: Iterable[str], number: int, seed: int, learned: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the ids of ``number`` cases to hold out among ``labeled``, which must be as many at least.

    ``learned``: those that the start model has learnt from, on which its figures would be too good. They are chosen
    only where the others do not suffice.
    """
    known, draw = set(learned), random.Random(seed)
    ids = sorted(labeled)
    fresh = [identity for identity in ids if identity not in known]
    chosen = sorted(draw.sample(fresh, min(number, len(fresh))))
    if len(chosen) < number:
        chosen += draw.sample([identity for identity in ids if identity in known], number - len(chosen))
    return tuple(chosen)


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


def check_files(cohort: Cohort) -> None:
    """Raise DataError where a file of a case that takes part is not there."""
    for case in cohort.cases:
        if case.role == "excluded":
            continue
        needed = [*case.images, *([case.label] if case.label and case.role != "unlabeled" else [])]
        missing = next((p for p in needed if not os.path.exists(p)), None)  # it raises for no lost drive
        if missing:
            raise DataError(f"Case {case.id}: {missing} does not exist; correct the path in {cohort.source}.", case.id)


def check_folds(cohort: Cohort, folds: int) -> None:
    """Raise UsageError where there are too few labelled cases for a cross-validation (``folds`` 0: none is wanted)."""
    if folds and len(cohort.with_role("labeled")) < 2:
        raise UsageError("A cross-validation needs at least two labelled cases; label another one, or do without.")


def _load_csv(path: Path) -> Cohort:
    rows, titles = table_rows(path, _text(path))
    return Cohort(tuple(_case(fields, path, where) for where, fields in rows), path, channels=_titles(titles, path))


def _load_json(path: Path) -> Cohort:
    try:
        value = json.loads(_text(path))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}); correct it or write the cohort as CSV.") from error
    listed = value.get("cases") if isinstance(value, dict) else value
    if not isinstance(listed, list) or not all(isinstance(v, dict) for v in listed):
        raise DataError(f'{path} must hold a list of objects under "cases"; each needs "id" and "image".')
    cases = tuple(_case(v, path, f"case number {i}") for i, v in enumerate(listed, 1))
    declared = value if isinstance(value, dict) else {}
    return Cohort(cases, path, declared_segments(declared, path), declared_channels(declared, path))


def declared_channels(value: dict[str, Any], path: Path | str) -> tuple[str, ...]:
    """Return what the JSON object of a cohort calls the channels; raise DataError that names ``path``."""
    listed = value.get("channels") or []
    if isinstance(listed, (int, float)):  # a number of channels says nothing of what they are
        return ()
    if not isinstance(listed, list) or not all(isinstance(title, str) for title in listed):
        raise DataError(
            f'{path}: "channels" must say what the images of each case are, in their order, such as ["T1", "FLAIR"].'
        )
    return _titles(listed, path)


def _titles(listed: Sequence[str], path: Path | str) -> tuple[str, ...]:
    titles = tuple(" ".join(title.split()) for title in listed)
    keys = list(map(title_key, titles))
    double = next((title for title, key in zip(titles, keys) if key and keys.count(key) > 1), "")
    if double:
        raise DataError(f"{path} calls two channels {double}; give each its own name, or none.")
    return titles if any(titles) else ()


def declared_segments(value: dict[str, Any], path: Path | str) -> tuple[Segment, ...]:
    """Return the segments that the JSON object of a cohort lists; raise DataError that names ``path``."""
    try:
        if value.get("segments"):
            segments = [_segment(**fields) for fields in value["segments"]]
        else:
            pairs = [(k, v) if str(k).isdigit() else (v, k) for k, v in (value.get("labels") or {}).items()]
            segments = [_segment(str(name), int(label)) for label, name in pairs if int(label) > 0]
    except (TypeError, ValueError, AttributeError, CamlError) as error:
        raise DataError(
            f'{path}: the segments cannot be read ({error}); expected [{{"name": "left atrium", "label": 1}}, ...].'
        ) from error
    segments.sort(key=lambda s: s.label)
    names = [s.name.strip().casefold() for s in segments]
    if len(set(names)) < len(names) or len({s.label for s in segments}) < len(names):
        raise DataError(f"{path} declares two segments with one name or one label; make them differ.")
    return tuple(segments)


def _segment(
    name: str, label: float, color: Sequence[float] | None = None, terminology: str = GENERIC_TERMINOLOGY
) -> Segment:
    """A class as a list declares it; raise ValueError for what no model could keep."""
    if isinstance(label, bool) or not isinstance(label, (int, float)) or not float(label).is_integer():
        raise ValueError(f"the label {label!r} of {name} is no whole number")
    if not isinstance(terminology, str):
        raise ValueError(f"the terminology {terminology!r} of {name} is no text")
    stated = palette_color(int(label)) if color is None else tuple(map(float, color))
    most = 1.0 if max(stated, default=0.0) <= 1 else 255.0  # as tables of colours have them
    if len(stated) != 3 or not all(0 <= part <= most for part in stated):
        raise ValueError(f"the color {color!r} of {name} is not three numbers from 0 to 1, or to 255")
    red, green, blue = (part / most for part in stated)
    return Segment(name, int(label), (red, green, blue), terminology)


def _case(fields: dict[str, Any], source: Path, where: str) -> Case:
    images = fields.get("images", fields.get("image")) or []
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, list) or not images or not all(isinstance(i, str) for i in images):
        raise DataError(f"{source}, {where}: no image is given; every case needs at least one.")
    identity = str(fields.get("id") or fields.get("case") or case_name(Path(images[0])))
    if leads_outside(identity):
        raise DataError(f"{source}, {where}: the id {identity!r} {NO_NAME}.")
    label = fields.get("label") or None
    role = str(fields.get("role") or ("labeled" if label else "unlabeled")).lower()
    role = {"labelled": "labeled", "unlabelled": "unlabeled"}.get(role, role)
    if role not in ROLES:
        raise DataError(f"Case {identity} has the role {role!r}; expected one of {', '.join(ROLES)}.", identity)
    folder = source.parent
    paths = tuple(absolute(folder / image) for image in images)
    began = str(fields.get("label_began") or "")
    return Case(identity, paths, absolute(folder / label) if label else None, role, began)  # type: ignore[arg-type]


def _check(cohort: Cohort) -> None:
    if not cohort.cases:
        raise DataError(
            f"{cohort.source} has no cases; expected images such as CASE.nii.gz, a folder of a DICOM series "
            "a case, or a list of cases (CSV, JSON)."
        )
    seen: set[str] = set()
    for case in cohort.cases:
        if case.id.casefold() in seen:
            raise DataError(
                f"The cohort {cohort.source} has two cases called {case.id}; ids must differ, and not in capitals "
                "alone, as files of both are made.",
                case.id,
            )
        seen.add(case.id.casefold())
        if case.role == "excluded":
            continue
        if case.role in ("labeled", "validation") and case.label is None:
            raise DataError(
                f"Case {case.id} has the role {case.role} but no label; give one or change the role.", case.id
            )
    counts = {len(case.images) for case in cohort.cases if case.role != "excluded"}
    if len(counts) > 1:
        most = max(counts, key=lambda n: sum(len(c.images) == n for c in cohort.cases))
        odd = next(c for c in cohort.cases if c.role != "excluded" and len(c.images) != most)
        raise DataError(
            f"Case {odd.id} has {len(odd.images)} image(s) where most cases have {most}; list all channels.", odd.id
        )
    if cohort.channels and counts - {len(cohort.channels)}:
        raise DataError(
            f"{cohort.source} names {len(cohort.channels)} channel(s) ({listed_titles(cohort.channels)}) and its cases "
            f"have {counts.pop()} image(s); name each image of a case, in their order."
        )


def _row(case: Case, folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"id": case.id, "images": [relative_to(p, folder) for p in case.images]}
    if case.label:
        row["label"] = relative_to(case.label, folder)
    if case.label_began:
        row["label_began"] = case.label_began
    return {**row, "role": case.role}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The cohort {path} cannot be read ({error}); expected a text file in UTF-8.") from error
