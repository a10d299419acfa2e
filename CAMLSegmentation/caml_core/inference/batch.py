"""Many cases, one after the other: find them, segment and write each, keep a table, and let no bad case end it."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..channel_titles import list_note
from ..config import ModelSpec, Triple
from ..data.case import Case, Role
from ..data.cohort import load_cohort, takes_in
from ..data.files import check_writable, make_folder, remove
from ..data.grid import Grid
from ..data.io import Volume, read_case
from ..data.labels import labels_on_grid, read_labels, write_labels, write_scalar
from ..device import out_of_memory
from ..errors import CamlError, Cancelled, DataError, DiskFullError, ResourceError, UsageError
from ..events import Listener, silent
from ..model.build import build_network
from ..model.caml import CamlNetwork
from ..model_file import LoadedModel, ModelInfo
from ..model_fit import VolumeFacts
from ..model_fit import warnings as fit_warnings
from .measures import Measures, measure
from .predictor import Prediction, Predictor
from .table import Table

FORMATS = ("seg.nrrd", "nrrd", "nii.gz", "nii", "mha")
#: What no file name may hold on one of the systems; a separator could also lead out of the folder.
_NOT_IN_NAMES = re.compile(r'[/\\:*?"<>|\x00-\x1f]')
#: What is written beside the labels on request.
_MAPS = ("disagreement", "probability")
#: 0 to 255 as whole percent.
_PERCENT = np.rint(np.arange(256) * (100 / 255)).astype(np.uint8)
#: Seconds between two progress events.
_PAUSE = 0.2


@dataclass(frozen=True)
class Output:
    """Where results go: ``path`` is a file for a single case, else a folder. ``extra`` maps lie beside the labels."""

    path: Path
    format: str = "seg.nrrd"
    uncertainty: bool = False
    probability: bool = False
    measures: bool = False
    #: Maps run from 0 to 100 instead of 0 to 255.
    percent: bool = False

    @property
    def is_file(self) -> bool:
        """Whether the name is that of a single label map."""
        return not self.path.is_dir() and _suffix(self.path) is not None

    def labels(self, case: Case) -> Path:
        """Return the label map's path for a case."""
        return self.path if self.is_file else self.path / f"{case.id}.{self.format}"

    def extra(self, case: Case, kind: str) -> Path:
        """Return the path of a map of ``kind``, such as "disagreement", beside the labels."""
        labels = self.labels(case)
        suffix = _suffix(labels) or self.format
        return labels.with_name(f"{labels.name[: -len(suffix) - 1]}_{kind}.{suffix.removeprefix('seg.')}")


@dataclass(frozen=True)
class CaseResult:
    """One row of the table. ``error``: the sentence that says why there is no output; else empty.

    ``remark``: how the images differ from those that the model was made for; empty where they do not.
    """

    case: str
    output: str = ""
    volumes_ml: dict[str, float] = field(default_factory=dict)
    removed_ml: dict[str, float] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)
    score: float | None = None
    measures: Measures | None = None
    seconds: float = 0.0
    error: str = ""
    exit_code: int = 0
    remark: str = ""
    #: Voxels of a window on the network's grid; what memory allowed.
    window: Triple | None = None


def load_network(model: LoadedModel) -> CamlNetwork:
    """Return the network of a model file, with its weights. No random weights are drawn first."""
    with torch.device("meta"):
        network = build_network(model.spec.network)
    network.load_state_dict(model.state, assign=True)
    return network.eval()


def find_cases(
    paths: Sequence[Path],
    channels: int,
    roles: Sequence[Role] = (),
    notes: list[str] | None = None,
    titles: Sequence[str] = (),
) -> tuple[Case, ...]:
    """Return the cases of files, folders, DICOM folders and lists; ``roles`` limits them, excluded ones never count.

    For a model of several channels, single files are taken in groups of as many. ``notes`` takes sentences on what
    folders hold and is no case, and on lists whose channels are called otherwise than the model's ``titles``. Raises
    DataError or UsageError.
    """
    cohorts = [load_cohort(path, notes) for path in paths]
    if notes is not None:
        notes += filter(None, (list_note(c.source, c.channels, titles) for c in cohorts))
    cases = [case for cohort in cohorts for case in cohort.cases]
    single = all(path.is_file() and [len(case.images) for case in c.cases] == [1] for path, c in zip(paths, cohorts))
    if channels > 1 and single:  # a list, too, is a file, but its case brings all its channels
        cases = _grouped(cases, channels)
    cases = [case for case in cases if case.role != "excluded" and (not roles or case.role in roles)]
    if not cases:
        raise DataError(f"There is no case to segment in {', '.join(map(str, paths))}.")
    counts = Counter(case.id.casefold() for case in cases)  # most systems tell no P1.nrrd from p1.nrrd
    double = next((case.id for case in cases if counts[case.id.casefold()] > 1), None)
    if double is not None:
        raise UsageError(
            f"Two of the images are called {double!r}, and their results would be too; predict them apart."
        )
    return tuple(cases)


def run_cases(
    predictor: Predictor,
    cases: Sequence[Case],
    output: Output,
    *,
    table: Path | None = None,
    within: Path | None = None,
    sources: Sequence[Path] = (),
    info: ModelInfo | None = None,
    stop: Callable[[], bool] = lambda: False,
    listener: Listener = silent,
) -> tuple[CaseResult, ...]:
    """Segment and write every case; return one row a case, in order. ``table``: a CSV, kept up to date after each;
    rows of other cases that it holds stay (``table.table_for`` finds one whose columns allow that).

    within: a folder of label maps; outside of the one with its name (``CASE.nrrd``, ...) nothing of a case is labelled.
    sources: what the cases were found in; UsageError is raised where results would count as labels in one of them.
    info: the model's card; with it each case is compared with what the model was made for, and a misfit is a warning.

    A case that cannot be segmented becomes a row with its error and a warning. What would fail for every case
    (a folder that cannot be written, a full disk, a stop request) is raised. A table that cannot be written, because
    it is open elsewhere perhaps, is a warning until all cases are done, and is raised then.
    """
    _check_outputs(cases, output, sources)
    rows: list[CaseResult] = []
    progress = _Progress(len(cases), listener)
    named = cases[0].id if len(cases) == 1 else f"{len(cases)} cases"
    listener("stage", {"name": "predict", "detail": f"{named}, {predictor.quality}, on {predictor.device}"})
    predictor.listener = progress
    unwritten: ResourceError | None = None
    figures = None if table is None else Table(table, [segment.name for segment in predictor.spec.segments])
    for case in cases:
        if stop():
            written = sum(not row.error for row in rows)
            raise Cancelled(f"Stopped with {written} of {len(cases)} cases written.")
        progress.case = case.id
        rows.append(_run_case(predictor, case, output, within, info, listener))
        progress.end(len(rows))
        if figures is not None:
            unwritten = _try_table(figures, rows, unwritten, listener)
    if unwritten is not None:
        raise unwritten
    return tuple(rows)


def _try_table(
    table: Table, rows: Sequence[CaseResult], before: ResourceError | None, listener: Listener
) -> ResourceError | None:
    """Write the table; return why that failed, which is told where it did not fail ``before``."""
    try:
        table.write(rows)
    except ResourceError as error:
        if before is None:
            listener("warning", {"message": f"{error} It is tried again after each case."})
        return error
    return None


def _run_case(
    predictor: Predictor,
    case: Case,
    output: Output,
    within: Path | None,
    info: ModelInfo | None,
    listener: Listener,
) -> CaseResult:
    begin = time.perf_counter()
    listener("stage", _stage("prepare", case.id))
    try:
        volumes = read_case(case, len(predictor.spec.channels))
        remark = "" if info is None else _misfit(case, volumes, predictor.spec, info)
        if remark:
            listener("warning", {"message": f"Case {case.id}: {remark}", "case": case.id, "misfit": True})
        prediction = predictor.predict(
            volumes,
            uncertainty=output.uncertainty,
            probability=output.probability,
            within=None if within is None else _region(within, case, volumes[0].grid),
        )
        del volumes
    except Cancelled:
        raise
    except CamlError as error:
        return _failed(case, str(error), error.exit_code, begin, listener)
    except Exception as error:  # a file may hold what no check foresees, and the other cases are still good
        return _failed(case, *_fault(error), begin, listener)
    listener("stage", _stage("write", case.id))
    try:
        path, measures = _written(prediction, predictor.spec, case, output)
    except DiskFullError:
        raise  # it is every case's
    except ResourceError as error:
        check_writable(output.labels(case).parent)  # a folder that takes nothing is every case's as well
        return _failed(case, str(error), error.exit_code, begin, listener)
    except CamlError:
        raise
    except Exception as error:
        return _failed(case, *_fault(error), begin, listener)
    row = CaseResult(
        case.id,
        str(path),
        prediction.volumes_ml,
        prediction.removed_ml,
        prediction.agreement,
        prediction.score,
        measures,
        time.perf_counter() - begin,
        remark=remark,
        window=None if prediction.windows is None else prediction.windows.window,
    )
    listener("case", _event(row))
    return row


def _misfit(case: Case, volumes: Sequence[Volume], spec: ModelSpec, info: ModelInfo) -> str:
    """How volumes differ from what a model expects, in one line; nobody may have looked at them before."""
    facts = [
        VolumeFacts(
            volume.grid.size,
            volume.grid.spacing,
            volume.grid.direction,
            lowest=float(volume.array.min()),
            highest=float(volume.array.max()),
            name=path.name,
        )
        for volume, path in zip(volumes, case.images)
    ]
    return " ".join(fit_warnings(facts, spec, info))


def _written(prediction: Prediction, spec: ModelSpec, case: Case, output: Output) -> tuple[Path, Measures | None]:
    """Write what was asked for; return the labels' file and, where asked for, the measures of what is in it."""
    measures = measure(prediction.labels, prediction.grid.spacing, spec.segments) if output.measures else None
    path = output.labels(case)
    for kind in _MAPS:
        remove(output.extra(case, kind))  # an earlier run's tells nothing of these labels
    write_labels(path, prediction.labels, prediction.grid, spec.segments)
    for kind in _MAPS:
        if (extra := getattr(prediction, kind)) is not None:
            write_scalar(output.extra(case, kind), _PERCENT[extra] if output.percent else extra, prediction.grid)
    return path, measures


def _region(folder: Path, case: Case, grid: Grid) -> np.ndarray | None:
    """Where a case may be labelled; None where the folder says nothing of it."""
    found = [path for path in (folder / f"{case.id}.{suffix}" for suffix in FORMATS) if path.is_file()]
    return labels_on_grid(read_labels(found[0], case.id), grid, found[0], case.id) if found else None


def _fault(error: Exception) -> tuple[str, int]:
    """What an error that no check foresaw is called, and its exit code."""
    if out_of_memory(error):
        return (
            "There was not enough memory for it; close other programs, or limit it to a region.",
            ResourceError.exit_code,
        )
    return f"Unexpected fault ({type(error).__name__}: {error}).", 1


def _failed(case: Case, message: str, exit_code: int, begin: float, listener: Listener) -> CaseResult:
    begins = re.match(rf"Case {re.escape(case.id)}(?!\.?[\w-])", message)
    named = message if begins else f"Case {case.id}: {message}"
    listener("warning", {"message": named, "case": case.id, "exit_code": exit_code})
    return CaseResult(case.id, seconds=time.perf_counter() - begin, error=named, exit_code=exit_code)


def _stage(name: str, case: str) -> dict[str, Any]:
    """A stage of one case; a terminal's bar, which is one for all cases, knows by ``case`` to leave it out."""
    return {"name": name, "detail": case, "case": case}


def _event(row: CaseResult) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "case": row.case,
        "output": row.output,
        "volumes_ml": row.volumes_ml,
        "agreement": row.agreement,
        "score": row.score,
        "seconds": round(row.seconds, 2),
    }
    if row.window is not None:
        fields["window"] = list(row.window)
    if row.removed_ml:
        fields["removed_ml"] = row.removed_ml
    return fields if row.measures is None else {**fields, **asdict(row.measures)}


class _Progress:
    """Turns the windows of single cases into the progress of all, a few times a second, and names the case."""

    def __init__(self, cases: int, listener: Listener) -> None:
        self._cases, self._listener = cases, listener
        #: The id at work.
        self.case = ""
        self._begin = time.monotonic()
        self._done, self._told = 0, 0.0

    def end(self, done: int) -> None:
        self._done = done
        if self._cases > 1:
            self._tell(done, self._cases, "cases")

    def __call__(self, kind: str, fields: dict[str, Any]) -> None:
        if kind != "progress":
            self._listener(
                kind, _stage(fields["name"], self.case) if kind == "stage" else {**fields, "case": self.case}
            )
            return
        last = fields["done"] >= fields["total"]
        if time.monotonic() - self._told < _PAUSE and not (last and self._cases == 1):
            return
        if self._cases == 1:
            self._tell(fields["done"], fields["total"], fields["unit"])
        elif not last:
            self._tell(round(self._done + fields["done"] / fields["total"], 2), self._cases, "cases")

    def _tell(self, done: float, total: int, unit: str) -> None:
        self._told = time.monotonic()
        left = (self._told - self._begin) / done * (total - done) if done else None
        rounded = None if left is None else round(left, 1)
        fields = {"done": done, "total": total, "unit": unit, "seconds_left": rounded, "case": self.case}
        self._listener("progress", fields)


def _grouped(cases: Sequence[Case], channels: int) -> list[Case]:
    if len(cases) % channels:
        raise UsageError(
            f"The model needs {channels} images a case, and {len(cases)} files cannot be shared out; give the "
            "channels of each case one after the other, or a CSV list."
        )
    groups = [cases[i : i + channels] for i in range(0, len(cases), channels)]
    return [replace(group[0], images=tuple(case.images[0] for case in group)) for group in groups]


def _check_outputs(cases: Sequence[Case], output: Output, sources: Sequence[Path]) -> None:
    if output.is_file and len(cases) > 1:
        raise UsageError(f"{output.path} is one file for {len(cases)} cases; give a folder with -o.")
    given = {path.resolve(): case for case in cases for path in (*case.images, *([case.label] if case.label else []))}
    for case in cases:
        if not output.is_file and (odd := _NOT_IN_NAMES.search(case.id)):
            raise UsageError(
                f"The case {case.id!r} cannot name a file because of its {odd[0]!r}; give it an id without / \\ : * ? "
                '" < > | and line ends.'
            )
        for path in (output.labels(case), *(output.extra(case, kind) for kind in _MAPS)):
            if (owner := given.get(path.resolve())) is not None:
                raise UsageError(
                    f"The result would overwrite {path.name}, a file of case {owner.id}; choose another -o."
                )
    folder = output.path.parent if output.is_file else output.path
    if (scans := next((path for path in sources if takes_in(path, folder)), None)) is not None:
        raise UsageError(
            f"The results would lie among the scans of {scans} and be taken for labels when it is read again; choose a "
            "folder outside of it with -o."
        )
    check_writable(make_folder(folder))  # better than after an hour


def _suffix(path: Path) -> str | None:
    return next((suffix for suffix in FORMATS if path.name.lower().endswith(f".{suffix}")), None)
