"""Tiny rounds for tests: planned by hand, so that nothing is measured, or through the command."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from synthetic import tiny_plan

from caml_core.config import NumericMode, Plan, Segment
from caml_core.events import EventFile, Listener, decode, fan_out, silent
from caml_core.model import build_network
from caml_core.model_file import ModelInfo, save_model
from caml_core.rounds.request import RoundRequest
from caml_core.rounds.round import Round, Surroundings, start_round
from caml_core.rounds.round_folder import RoundFolder
from caml_core.training.request import Request

#: One thread: tiny networks gain nothing from more, and lose a lot on a busy machine.
ONE_THREAD = NumericMode(threads=1)
QUICK = ("--threads", "1", "--base-filters", "2", "--patch", "16,16,16", "--dtype", "fp32", "--progress", "none")


def a_plan(iterations: int = 12, **changes: Any) -> Plan:
    """The tiny plan on one thread."""
    return tiny_plan(iterations, numeric=ONE_THREAD, **changes)


def a_start(path: Path, segments: Sequence[Segment], cases: Mapping[str, Any] | None = None, **origin: Any) -> Path:
    """A model that was never trained, whose card lists ``cases`` and ``origin``."""
    plan = a_plan()
    torch.manual_seed(1)
    network = dataclasses.replace(plan.network, classes=len(segments) + 1)
    spec = dataclasses.replace(plan.model_spec, segments=tuple(segments), network=network)
    info = ModelInfo("start", provenance={"cases": dict(cases or {}), **origin})
    save_model(path, spec=spec, state=build_network(network).state_dict(), info=info)
    return path


def planned_round(
    path: Path, cohort: Path, plan: Plan, request: RoundRequest | None = None, start: Path | None = None, **more: str
) -> RoundFolder:
    """Begin a round and give its main training ``plan``."""
    folder = RoundFolder(path)
    start_round(folder, cohort, request or RoundRequest(Request()), start, **more)
    folder.part("caml").create(plan, folder.read_cohort())
    return folder


def baseline_plan(plan: Plan) -> Plan:
    """The same training on the labels alone."""
    return dataclasses.replace(plan, labeled_only=True)


def work(
    folder: RoundFolder,
    *,
    listener: Listener = silent,
    stop: Callable[[], bool] = lambda: False,
    finish: bool = False,
) -> dict[str, Any]:
    """Carry the round on in this process, with its events in its file."""
    told = fan_out(EventFile(folder.events), listener)
    with folder.lock():
        return Round(folder, Surroundings(told, stop, folder.path.parent / "cache")).run(finish=finish)


def events_of(folder: RoundFolder) -> list[tuple[str, dict[str, Any]]]:
    """All events of the round's file; every line must be one."""
    found = [decode(line) for line in folder.events.read_text("ascii").splitlines()]
    assert None not in found
    return [event for event in found if event is not None]


def table_of(folder: RoundFolder, part: str = "caml") -> list[dict[str, str]]:
    """metrics.csv of a part without the seconds."""
    with (folder.path / part / "metrics.csv").open() as stream:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]


def result_of(folder: RoundFolder) -> dict[str, Any]:
    return json.loads(folder.result.read_text())


def row_of(result: dict[str, Any], name: str) -> dict[str, Any]:
    (row,) = [r for r in result["rows"] if r["name"] == name]
    return row


class StopAt:
    """Listener and stop request in one: asks for an end from the first event of ``kind`` (of ``part``) on."""

    def __init__(self, kind: str, part: str = "caml", **fields: Any) -> None:
        self._wanted = (kind, {"part": part, **fields})
        self.stopped = False

    def listen(self, kind: str, fields: dict[str, Any]) -> None:
        wanted, values = self._wanted
        self.stopped |= kind == wanted and all(fields.get(k) == v for k, v in values.items())

    def __call__(self) -> bool:
        return self.stopped
