"""One case of a project, and how it is written down. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.case import NO_NAME, ROLES, Case, Role, leads_outside, some_names
from ..data.files import absolute, relative_to
from ..errors import DataError
from .suggestion import disagreement

#: What has happened to a case's segmentation: nothing; drawn or corrected by hand; made by a model; taken as label.
STATUSES = ("", "edited", "predicted", "accepted")
_OPTIONAL = (
    *("status", "segments", "size", "spacing", "agreement", "volumes_ml", "predicted_by", "in_scene", "scan"),
    "label_began",
)


@dataclass(frozen=True)
class ProjectCase:
    """A scan and what the project knows of it.

    images: one file or DICOM folder a channel; empty while a scan lies in the scene alone and was not written yet.
    label: the accepted label map. segments: names of those in the label, in the order of their values.
    size, spacing: voxels and mm along the file's own axes, None while unknown. agreement: segment -> Dice of the two
    sub-models, from the last prediction. prediction: its file. volumes_ml: the prediction's volumes. predicted_by: a
    digest of the model that made it.
    in_scene: the scan came from the scene (its file may be one that the project wrote). scan: what tells it from other
    scans of its name there, as the scene's side has it; empty where that was never noted. label_began: as ``Case`` has
    it, of the accepted label.
    """

    id: str
    images: tuple[Path, ...] = ()
    label: Path | None = None
    role: Role = "unlabeled"
    status: str = ""
    segments: tuple[str, ...] = ()
    size: tuple[int, ...] | None = None
    spacing: tuple[float, ...] | None = None
    agreement: dict[str, float] = field(default_factory=dict)
    volumes_ml: dict[str, float] = field(default_factory=dict)
    prediction: Path | None = None
    predicted_by: str = ""
    in_scene: bool = False
    scan: str = ""
    label_began: str = ""

    @property
    def uncertainty(self) -> float | None:
        """How far the sub-models disagree, as the ranking has it; None without a prediction."""
        return disagreement(self.agreement, self.volumes_ml)

    @property
    def has_own_label(self) -> bool:
        """Whether ``label`` was checked and taken by the user's word, also where the case was drawn on since."""
        return self.label is not None and (self.status == "accepted" or self.role in ("labeled", "validation"))

    @property
    def as_case(self) -> Case:
        """The case as the engine takes it."""
        return Case(self.id, self.images, self.label, self.role, self.label_began)


def to_row(case: ProjectCase, folder: Path) -> dict[str, Any]:
    """Return a case as JSON values, with paths relative to ``folder`` where that is possible."""
    row: dict[str, Any] = {"id": case.id, "images": [relative_to(p, folder) for p in case.images], "role": case.role}
    for name in ("label", "prediction"):
        if (path := getattr(case, name)) is not None:
            row[name] = relative_to(path, folder)
    for name in _OPTIONAL:
        value = getattr(case, name)
        if value:
            row[name] = list(value) if isinstance(value, tuple) else value
    return row


def from_row(row: Any, folder: Path, where: str) -> ProjectCase:
    """Return the case of a JSON row; raise DataError that says what is wrong with it."""
    if not isinstance(row, Mapping) or not isinstance(row.get("id"), str) or not row["id"].strip():
        raise DataError(f"{where} has no id; restore the file from a copy, or start a new project.")
    identity = row["id"]
    if leads_outside(identity):
        raise DataError(f"{where}: the id {identity!r} {NO_NAME}.")
    try:
        role = str(row.get("role") or "unlabeled")
        status = str(row.get("status") or "")
        if role not in ROLES or status not in STATUSES:
            raise ValueError(f"role {role!r}, status {status!r}")
        return ProjectCase(
            id=identity,
            images=tuple(absolute(folder / str(p)) for p in _images(row)),
            label=_path(row.get("label"), folder),
            role=role,  # type: ignore[arg-type]
            status=status,
            segments=tuple(str(s) for s in row.get("segments") or ()),
            size=tuple(int(n) for n in row["size"]) if row.get("size") else None,
            spacing=tuple(float(s) for s in row["spacing"]) if row.get("spacing") else None,
            agreement={str(k): float(v) for k, v in (row.get("agreement") or {}).items()},
            volumes_ml={str(k): float(v) for k, v in (row.get("volumes_ml") or {}).items()},
            prediction=_path(row.get("prediction"), folder),
            predicted_by=str(row.get("predicted_by") or ""),
            in_scene=bool(row.get("in_scene")),
            scan=str(row.get("scan") or ""),
            label_began=str(row.get("label_began") or ""),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"Case {identity} in {where} cannot be understood ({error}); restore the file from a copy.", identity
        ) from error


def _images(row: Mapping[str, Any]) -> list[str]:
    images = row.get("images", row.get("image")) or []
    return [images] if isinstance(images, str) else list(images)


def _path(value: Any, folder: Path) -> Path | None:
    return absolute(folder / str(value)) if value else None


def labels_found(cases: Sequence[str]) -> str:
    """Say which cases, listed without a label, have a label file now; empty where none has."""
    if not cases:
        return ""
    have = "has its label file now: select it" if len(cases) == 1 else "have their label files now: select them"
    return f" {some_names(cases)} {have} and press Use as Labeled, or Validation."
