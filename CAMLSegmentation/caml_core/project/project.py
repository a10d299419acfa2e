"""A project folder: the cohort with its roles, labels and rounds. Standard library only at file scope.

    PROJECT/cohort.json    cases, roles, segments; also a cohort that ``caml train`` understands
    PROJECT/volumes/       scans that were in the scene alone, written once
    PROJECT/labels/        accepted labels, CASE.seg.nrrd; an older one is kept as CASE.1.seg.nrrd, ...
    PROJECT/predictions/   what the newest model says of unlabelled cases
    PROJECT/rounds/001/    trainings, one folder each

Scans and label files of the user are referenced where they lie, relative to the folder where that is possible.
"""

from __future__ import annotations

import dataclasses
import json
import os
import uuid
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..channel_titles import joined
from ..config import Segment, name_key
from ..data.case import Cohort, Role
from ..data.cells import csv_text
from ..data.cohort import chosen_by_chance, declared_channels, declared_segments, load_cohort
from ..data.cohort_folder import case_name, label_files
from ..data.files import absolute, check_writable, is_segmentation, make_folder, relative_to, replacing
from ..errors import DataError, ResourceError, UsageError
from ..serialization import to_json
from .cases import ProjectCase, from_row, labels_found, to_row
from .relocation import find_moved, rewrite_paths

FORMAT = 1
FILE = "cohort.json"
ROUNDS = "rounds"
_UNSAFE = '/\\:*?"<>|'


class Project:
    """The cohort of a folder. ``cases`` goes by id, in order. Nothing is written before ``save``."""

    def __init__(self, folder: Path) -> None:
        self.folder = absolute(Path(folder))
        self.cases: dict[str, ProjectCase] = {}
        self.segments: tuple[Segment, ...] = ()
        #: What a list that was added calls the images of each case; none where no list says so.
        self.channels: tuple[str, ...] = ()
        #: Tells this project from others whose cases have the same names.
        self.id = uuid.uuid4().hex[:12]
        #: How many more cases it had where it came back from a scene, which names its own alone.
        self.others = 0
        #: Whether labelled cases may be held out by themselves, where there are enough and nobody has named any.
        self.spares = True
        #: Old name -> new name of segments that were renamed: models and predictions of before have the old ones.
        self.renamed: dict[str, str] = {}
        self._seen: tuple[int, int] | None = None

    @property
    def file(self) -> Path:
        """The list of cases."""
        return self.folder / FILE

    @property
    def is_kept(self) -> bool:
        """Whether its folder holds this very project, which was read from there or written there."""
        return self._seen is not None and self.exists(self.folder)

    @classmethod
    def exists(cls, folder: Path) -> bool:
        """Whether a folder holds a project; false, too, where the folder cannot be reached now."""
        return os.path.isfile(Path(folder) / FILE)  # Path's raises where a network drive is gone for a moment

    @classmethod
    def open(cls, folder: Path) -> Project:
        """Read a project; raise DataError where there is none, it is damaged, or a newer version made it."""
        project = cls(folder)
        try:
            text = project.file.read_text(encoding="utf-8-sig")
        except FileNotFoundError as error:
            raise DataError(
                f"There is no project in {folder}; it was moved or never saved. Choose the folder that holds {FILE}."
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"The project {project.file} cannot be read ({error}); check its permissions.") from error
        project.read(text, str(project.file))
        project._seen = project._state()
        return project

    @classmethod
    def at(cls, folder: Path) -> Project:
        """Open the project of a folder, or begin one there; raise DataError where it cannot be read or reached."""
        try:
            return cls.open(folder)
        except DataError as error:  # what cannot be reached now may be there: a new one would take its place
            if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
                return cls(folder)
            raise

    def read(self, text: str, where: str) -> None:
        """Take over what ``text``, written by this class, says; raise DataError that names ``where``."""
        try:
            content = json.loads(text)
        except ValueError as error:
            raise DataError(f"{where} is damaged ({error}); restore it from a copy.") from error
        if not isinstance(content, dict) or not isinstance(content.get("cases"), list):
            raise DataError(f'{where} is no project: it has no list of "cases"; choose another folder.')
        version = content.get("format", FORMAT)
        if not isinstance(version, int) or version > FORMAT:
            raise DataError(f"{where} was made by a newer version; update the extension to open this project.")
        cases = [from_row(row, self.folder, where) for row in content["cases"]]
        if len({case.id.casefold() for case in cases}) < len(cases):
            raise DataError(f"{where} has two cases of one name; give each its own id.")
        self.id = str(content.get("id") or self.id)
        self.others = others if isinstance(others := content.get("others"), int) else 0
        self.spares = content.get("hold_out") is not False
        self.segments, self.channels = declared_segments(content, where), declared_channels(content, where)
        names = content.get("renamed")
        self.renamed = {str(old): str(new) for old, new in names.items()} if isinstance(names, dict) else {}
        self.cases = {case.id: case for case in cases}

    def write(self, only: Container[str] | None = None) -> str:
        """Return the project as JSON text, paths relative to its folder. ``only``: with no other cases than these."""
        rows = [to_row(case, self.folder) for case in self.cases.values() if only is None or case.id in only]
        head = {"format": FORMAT, "id": self.id, "segments": to_json(list(self.segments))}
        if self.titles:
            head["channels"] = list(self.titles)
        if others := self.others + len(self.cases) - len(rows):
            head["others"] = others
        if not self.spares:
            head["hold_out"] = False
        if self.renamed:
            head["renamed"] = self.renamed
        return json.dumps({**head, "cases": rows}, indent=1)

    def save(self) -> None:
        """Write the list of cases, whole or not at all.

        Raises ResourceError where it cannot be written, or where somebody else has written it since it was read: the
        later of two would undo what the earlier has done.
        """
        self.check_current()
        with replacing(self.file) as temporary:
            temporary.write_text(self.write() + "\n", encoding="utf-8")
        self._seen = self._state()

    def check_current(self) -> None:
        """Raise ResourceError where somebody else has written the project since it was read, or it is out of reach."""
        state = self._state()
        if state is None and self._seen is not None:
            raise ResourceError(
                f"The project's list {self.file} was removed, or its drive does not answer now; wait for the drive, or "
                "choose another folder."
            )
        if state != self._seen:
            raise ResourceError(
                f"The project {self.folder} was changed by another Slicer or script meanwhile; open it again to go on "
                "with what is there, or choose another folder."
            )

    def _state(self) -> tuple[int, int] | None:
        try:
            found = self.file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size

    def move(self, folder: Path) -> None:
        """Go on in another folder, which holds no project yet; nothing is written before ``save``."""
        self.folder, self._seen = absolute(Path(folder)), None

    def check_writable(self) -> None:
        """Make the folder and try to write there; raise ResourceError with a way out."""
        check_writable(make_folder(self.folder))

    # Cases

    def add(self, case: ProjectCase) -> str:
        """Add a case and return its id, made unique (``LA``, ``LA-2``) and fit to name a file."""
        identity = self.free_id(case.id)
        self.cases[identity] = dataclasses.replace(case, id=identity)
        return identity

    def free_id(self, name: str) -> str:
        """Return an id for a case called ``name`` that no case has, ignoring capitals."""
        base = "".join("_" if c in _UNSAFE or ord(c) < 32 else c for c in name).strip(" .")[:80] or "case"
        taken = {identity.casefold() for identity in self.cases}
        candidate, number = base, 2
        while candidate.casefold() in taken:
            candidate, number = f"{base}-{number}", number + 1
        return candidate

    def add_folder(self, path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """List the cases of a folder or a list (CSV, JSON) beside those that are there; return (new ids, notes).

        Labels come along but count only once the user says so. Files that are listed already, and labels without a
        scan, are left out; the label of a scan that was listed without one is noted. Raises DataError where there is no
        scan, and where a list has the channels in another order.
        """
        notes: list[str] = []
        if absolute(path) in (self.folder, self.file):
            raise DataError(
                f"{path} is the folder of this project, whose own list is read there. Choose another project folder, "
                "or put the scans into a folder below it and add that."
            )
        listed = load_cohort(path, notes)
        notes += self._take_titles(listed.channels, path)
        known = {case.images: case.id for case in self.cases.values() if case.images}
        new, double, labelled = [], 0, []
        for case in listed.cases:
            if case.images in known:
                double += 1
                if case.label is not None and self.cases[known[case.images]].label is None:
                    labelled.append(self.update(known[case.images], label=case.label, label_began="").id)
                continue
            role: Role = "excluded" if case.role == "excluded" else "unlabeled"
            identity = self.add(ProjectCase(case.id, case.images, case.label, role))
            new.append(identity)
            if identity != case.id:
                notes.append(
                    f"There is a case {case.id} already; the one of {path} is listed as {identity}. If that is its "
                    "label, remove it from the list and add it with Label Files."
                )
        if double:
            scans = "1 scan" if double == 1 else f"{double} scans"
            notes.append(f"In the cohort already: {scans} of {path}.{labels_found(labelled)}")
        if not self.segments and listed.segments:
            self.segments = listed.segments
        return tuple(new), tuple(notes)

    @property
    def titles(self) -> tuple[str, ...]:
        """What the channels are called, as long as a case has as many images."""
        counted = [case for case in self.cases.values() if case.role != "excluded"]
        return self.channels if any(len(case.images) == len(self.channels) for case in counted) else ()

    def titles_of(self, cases: Iterable[ProjectCase]) -> tuple[str, ...]:
        """Return what the channels of these cases are called; nothing where one has another number of images."""
        return self.titles if all(len(case.images) == len(self.titles) for case in cases) else ()

    def _take_titles(self, new: tuple[str, ...], path: Path) -> list[str]:
        """Call the channels as a list does, where nothing is known yet; return what is to be checked."""
        titles, fault, contrast = joined(self.titles, new, path)
        if fault == "order":
            raise DataError(f"{contrast}; list the images of each case in the project's order, and add it then.")
        self.channels = titles
        return [f"{contrast}; check that they show the same."] if fault else []

    def add_labels(self, folder: Path) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """Give cases the label files of ``folder`` that bear their names.

        Returns (cases that got one, names of files that fit none or several, cases that keep the label they have
        accepted). Raises DataError where the folder holds no label map.
        """
        found = {name.casefold(): absolute(path) for name, path in label_files(folder).items()}
        if not found:
            raise DataError(f"There is no label map in {folder}; expected files such as CASE.nii.gz or CASE.seg.nrrd.")
        ids: dict[str, set[str]] = {}
        for case in self.cases.values():  # a file may also bear the scan's own name
            for name in (case.id, *(case_name(image) for image in case.images[:1])):
                ids.setdefault(name.casefold(), set()).add(case.id)
        taken, lost, kept = [], [], []
        for key, label in sorted(found.items()):
            identity, *others = ids.get(key, ("",))
            if not identity or others or label in self.cases[identity].images:
                lost.append(label.name)
            elif self.cases[identity].has_own_label:
                kept.append(identity)
            else:
                self.update(identity, label=label, label_began="")
                taken.append(identity)
        return tuple(taken), tuple(lost), tuple(kept)

    def update(self, identity: str, **changes: Any) -> ProjectCase:
        """Change fields of a case and return it."""
        self.cases[identity] = dataclasses.replace(self.cases[identity], **changes)
        return self.cases[identity]

    def remove(self, identities: Iterable[str]) -> None:
        """Take cases off the list. No file is deleted."""
        for identity in identities:
            self.cases.pop(identity, None)

    def with_role(self, *roles: Role) -> tuple[ProjectCase, ...]:
        """Return the cases of these roles, in order."""
        return tuple(case for case in self.cases.values() if case.role in roles)

    def missing(self) -> tuple[str, ...]:
        """Return the ids of cases whose files are not where the project remembers them."""
        return tuple(
            case.id
            for case in self.cases.values()
            if any(not os.path.exists(p) for p in (*case.images, *([case.label] if case.label else [])))
        )

    def relocate(self, folder: Path) -> int:
        """Look for missing files by name below ``folder``; return how many cases were put right.

        Files of which it is not sure which one they are stay missing (``relocation.find_moved``).
        """
        lost = self.missing()
        paths = {case.id: [p for p in (*case.images, case.label) if p is not None] for case in self.cases.values()}
        gone = {p for identity in lost for p in paths[identity] if not os.path.exists(p)}
        there = {p for of_case in paths.values() for p in of_case} - gone
        moved = find_moved(gone, folder, there) if gone else {}
        for case in self.cases.values():  # a name alone may be another patient's
            if (new := moved.get(case.images[0]) if case.images else None) is not None and not _is_as_large(case, new):
                moved = {old: place for old, place in moved.items() if old not in paths[case.id]}
        for identity in lost:
            case = self.cases[identity]
            label = moved.get(case.label, case.label) if case.label is not None else None
            self.update(identity, images=tuple(moved.get(p, p) for p in case.images), label=label)
        for part in (p for p in _listed(self.rounds_folder()) if not os.path.exists(p / "result.json")):
            for path in (part / "cohort.json", *sorted(part.glob("*/cohort.json"))):
                rewrite_paths(path, moved)  # a round that waits to be resumed has lists of its own
        return len(lost) - len(self.missing())

    # Labels, split, training

    def note_renamed(self, names: Mapping[str, str]) -> None:
        """Remember that segments (old name -> new name) bear another name from now on."""
        later = {name_key(old): new for old, new in names.items()}
        kept = {old: later.get(name_key(new), new) for old, new in self.renamed.items() if name_key(old) not in later}
        self.renamed = {old: new for old, new in {**kept, **names}.items() if name_key(old) != name_key(new)}

    def old_names(self) -> dict[str, str]:
        """Return old name -> new name of the segments, for what was made before they were renamed.

        A name that another segment bears by now is no old one.
        """
        names = {name_key(s.name) for s in self.segments}
        return {o: n for o, n in self.renamed.items() if name_key(n) in names and name_key(o) not in names}

    def values_settled(self, identity: str) -> bool:
        """Whether the accepted label of another case says which values plain label maps have for the segments."""
        return any(
            case.id != identity and case.has_own_label and case.label is not None and not is_segmentation(case.label)
            for case in self.cases.values()
        )

    def label_path(self, identity: str) -> Path:
        """Return where the next accepted label of a case is written; none of the older ones is overwritten."""
        return _free(self.folder / "labels", identity, ".seg.nrrd")

    def volume_path(self, identity: str) -> Path:
        """Return where a scan that the scene alone has is written; one of another hand there stays what it is."""
        return _free(self.folder / "volumes", identity, ".nrrd")

    def hold_out(self, count: int, seed: int = 0, learned: Iterable[str] = ()) -> tuple[str, ...]:
        """Make ``count`` of the labelled cases validation cases, by chance; they stay so. Returns their ids.

        ``learned``: cases that the start model has learnt from, which are chosen only where the others do not suffice.
        """
        labeled = [case.id for case in self.with_role("labeled")]
        if not 0 < count < len(labeled):
            raise UsageError(
                f"Cannot hold out {count} of {len(labeled)} labelled cases; at least one must be left to learn from."
            )
        chosen = chosen_by_chance(labeled, count, seed, learned)
        for identity in chosen:
            self.update(identity, role="validation")
        self.spares = True
        return chosen

    def hold_none_out(self) -> tuple[str, ...]:
        """Let all cases with labels be learnt from, now and in later rounds; return those that were held out."""
        held_out = tuple(case.id for case in self.with_role("validation"))
        for identity in held_out:
            self.update(identity, role="labeled")
        self.spares = False
        return held_out

    def cohort(self) -> Cohort:
        """Return the cohort for the engine; raise DataError that names what keeps it from training."""
        cases = [case for case in self.cases.values() if case.role != "excluded"]
        for case in cases:
            unwritten = not case.images
            lost = next((p for p in case.images if not os.path.exists(p)), None)
            if unwritten or lost:
                raise DataError(
                    f"The scan of case {case.id} is not there{f' ({lost})' if lost else ''}; load it again, point to "
                    "its folder with Locate, or exclude the case.",
                    case.id,
                )
            if case.role in ("labeled", "validation") and (case.label is None or not os.path.exists(case.label)):
                raise DataError(f"Case {case.id} has the role {case.role} but no label; label it again.", case.id)
        return Cohort(tuple(case.as_case for case in cases), self.file, self.segments, self.titles_of(cases))

    def rounds_folder(self) -> Path:
        """Return where the rounds lie."""
        return self.folder / ROUNDS

    def next_round(self) -> Path:
        """Return the folder of the next round, which does not exist yet."""
        taken = [int(p.name) for p in _listed(self.rounds_folder()) if p.name.isdigit()]
        return self.rounds_folder() / f"{max(taken, default=0) + 1:03d}"

    def write_csv(self, path: Path) -> None:
        """Write the table of cases; raise ResourceError where it cannot be written."""
        rows = [["id", "image", "label", "role", "status", "segments", "size", "spacing_mm", "uncertainty"]]
        for case in self.cases.values():
            rows.append(
                [
                    case.id,
                    *(
                        relative_to(p[0], path.parent) if p else ""
                        for p in (case.images, (case.label,) if case.label else ())
                    ),
                    case.role,
                    case.status,
                    "; ".join(case.segments),
                    " x ".join(map(str, case.size or ())),
                    " x ".join(f"{s:g}" for s in case.spacing or ()),
                    "" if case.uncertainty is None else f"{case.uncertainty:.4f}",
                ]
            )
        with replacing(path) as temporary:
            temporary.write_text(csv_text(rows), encoding="utf-8")


def _free(folder: Path, name: str, suffix: str) -> Path:
    path, number = folder / f"{name}{suffix}", 1
    while path.exists():
        path, number = folder / f"{name}.{number}{suffix}", number + 1
    return path


def _listed(folder: Path) -> Sequence[Path]:
    try:
        return sorted(Path(folder).iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ResourceError(f"The folder {folder} cannot be read ({error.strerror or error}).") from error


def _is_as_large(case: ProjectCase, image: Path) -> bool:
    """Whether a scan has as many voxels as a case's had, as far as both are known."""
    from .headers import read_header

    header = read_header(image) if case.size is not None else None
    if header is None or case.size is None:
        return True
    # A folder's number of slices is that of its files, and one that is no slice may have come or gone.
    axes = 2 if os.path.isdir(image) else 3
    return tuple(header[0][:axes]) == tuple(case.size[:axes])
