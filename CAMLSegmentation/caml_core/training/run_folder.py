"""The folder of one training: its files, who may write to it, and the table of its losses."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from types import TracebackType
from typing import Any

from ..config import Plan
from ..data.case import Cohort
from ..data.cohort import load_cohort, save_cohort
from ..data.files import disk_error, make_folder, remove_quietly, replacing, unfinished
from ..errors import TrainingError, UsageError
from ..locking import FileLock
from ..serialization import from_json, read_json, write_json

METRICS_COLUMNS = (
    "iteration",
    "seconds",
    "learning_rate",
    "loss_total",
    "loss_supervised",
    "loss_consistency",
    "loss_omni",
    "validation_dice",
    "validation_dice_v",
    "validation_dice_a",
)
PLAN_FORMAT = 1


class RunFolder:
    """Paths within a run folder, and the lock that keeps a second training out."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.plan = self.path / "plan.json"
        self.cohort = self.path / "cohort.json"
        self.events = self.path / "events.jsonl"
        self.metrics = self.path / "metrics.csv"
        self.curves = self.path / "curves.png"
        self.checkpoint = self.path / "checkpoint.pt"
        self.start = self.path / "start.caml"
        self.model = self.path / "model.caml"
        self.scores = self.path / "validation.json"
        self.outcome = self.path / "outcome.json"
        self._lock = FileLock(
            self.path / "lock",
            f"Another process is training in {self.path}; wait for it, stop it, or name another folder.",
        )

    def check_writable(self) -> None:
        """Make the folder; raise ResourceError where that is not allowed."""
        make_folder(self.path)

    def create(self, plan: Plan, cohort: Cohort) -> None:
        """Make the folder with its plan and cohort; refuse a folder that holds another training."""
        self.check_new()
        save_cohort(cohort, self.cohort)
        self.write_plan(plan)

    def check_new(self) -> None:
        """Make the folder; raise UsageError where it holds a training."""
        make_folder(self.path)
        if self.plan.exists():
            raise UsageError(
                f"{self.path} already holds a training; resume it with --resume, or name another folder with -o."
            )

    def write_plan(self, plan: Plan) -> None:
        """Write the plan; a training that had to shrink its batch writes what it went on with."""
        with replacing(self.plan) as temporary:
            write_json(temporary, {"format": PLAN_FORMAT, "plan": plan})

    def read_plan(self) -> Plan:
        """Read the plan; raise TrainingError where there is none or it is of a newer version."""
        if not self.plan.is_file():
            raise TrainingError(f"{self.path} holds no training; name a folder that caml train has made.")
        content = read_json(self.plan)
        if not isinstance(content, dict) or not isinstance(content.get("format"), int):
            raise TrainingError(f"{self.plan} is no plan of a CAML training.")
        if content["format"] > PLAN_FORMAT:
            raise TrainingError(f"{self.path} was made by a newer version; update the extension to resume it.")
        return from_json(Plan, content.get("plan"), "plan")

    def read_cohort(self) -> Cohort:
        """Read the cohort with the roles that were fixed at the start; its files need not be there any more."""
        return load_cohort(self.cohort, files=False)

    def __enter__(self) -> RunFolder:
        """Take the lock; it goes with the process, however that ends. What one left of a checkpoint is removed."""
        self._lock.__enter__()
        for left in unfinished(self.checkpoint):  # whoever wrote it held the lock, and is gone
            remove_quietly(left)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, trace)


class MetricsTable:
    """metrics.csv: one row every few iterations, empty where a column has no value."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting = ""  # rows that could not be added yet

    def start(self, iteration: int) -> None:
        """Write the header, or drop rows beyond ``iteration``, which a resumed run will repeat."""
        rows = []
        if self._path.is_file():
            with self._path.open(newline="", encoding="ascii") as stream:
                rows = [row for row in csv.DictReader(stream) if _reached(row, iteration)]
        text = io.StringIO()
        writer = csv.DictWriter(text, METRICS_COLUMNS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        with replacing(self._path) as temporary:
            temporary.write_text(text.getvalue(), encoding="ascii")

    def append(self, **values: Any) -> bool:
        """Add one row; floats get six significant digits. False where another program holds the file.

        The row then waits for the next one: a table that is open elsewhere must not end a training.
        """
        text = io.StringIO()
        row = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in values.items()}
        csv.DictWriter(text, METRICS_COLUMNS, lineterminator="\n").writerow(row)
        self._waiting += text.getvalue()
        try:
            with self._path.open("a", encoding="ascii") as stream:
                stream.write(self._waiting)
        except PermissionError:
            return False
        except OSError as error:
            raise disk_error(error, self._path) from error
        self._waiting = ""
        return True


def _reached(row: dict[str, str], iteration: int) -> bool:
    try:
        return int(row["iteration"]) <= iteration
    except (KeyError, TypeError, ValueError):
        return False  # a row that was torn when the machine went down
