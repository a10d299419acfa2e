"""Trainings in folders that tell how far each of them is: run, resumed, or found finished."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from common import caml, machine, run

Key = TypeVar("Key", bound=Hashable)
CHANGED = Path(__file__).resolve().parent / "caml_changed.py"


@dataclass(frozen=True)
class Training:
    """What to train: a list of cases, options of ``caml train`` beside folder and list, changes of caml_changed.py."""

    folder: Path
    cohort: Path
    options: tuple[str, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """A training that came to its end. ``plan``, ``scores``: JSON values; scores are None without held-out cases.

    ``measured``: seconds and cpu_seconds (None where it was resumed), training_seconds (over all its parts), peak_mb
    (of the last part), parts, machine.
    """

    folder: Path
    plan: dict[str, Any]
    scores: dict[str, Any] | None
    measured: dict[str, Any]


def planned(path: Path, training: Training, budget: str) -> dict[str, Any]:
    """Return the plan of ``training`` for ``budget``, measured now, or as ``path`` has kept it.

    Measured once and kept, so that all runs of a budget have the same number of iterations, whatever else the machine
    does while they run. Ends the program where what is kept was measured for other cases, options or changes.
    """
    note, asked = path.with_suffix(".asked.json"), _asked(training)
    if path.is_file():
        if note.is_file() and json.loads(note.read_text()) != asked:
            sys.exit(f"{path} was measured for other cases or options; remove it or name another folder.")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(asked))
        words = ("plan", training.cohort, "-o", path, "--budget", budget, *training.options)
        run([*_command(training.changes, words), "--progress", "json"], path.with_suffix(".log"))
    return json.loads(path.read_text())


def length(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """Options that give a training the iterations and the arithmetic of ``plan``."""
    return "--iterations", str(plan["iterations"]), "--dtype", plan["numeric"]["dtype"]


def train(training: Training) -> Finished:
    """Train to the end, from where ``training.folder`` stands; a finished one is read.

    Raises CalledProcessError where the training fails or is stopped, and ends the program where the folder holds a
    training of other cases, options or changes.
    """
    folder = training.folder
    measured = folder / "measured.json"
    _claim(training)
    if not measured.is_file():
        if (folder / "plan.json").is_file():
            words: tuple[Any, ...] = ("train", "--resume", folder)
        else:
            words = ("train", training.cohort, "-o", folder, *training.options)
        # It ends with this process in good order, however this one ends.
        words = (*words, "--progress", "json", "--parent-pid", os.getpid())
        done = run(_command(training.changes, words), folder.with_name(f"{folder.name}.log"))
        parts = _parts(folder / "events.jsonl")
        whole = {"seconds": done.seconds, "cpu_seconds": done.cpu_seconds} if parts == 1 else {}
        figures = {**whole, "training_seconds": _seconds(folder), "peak_mb": done.peak_mb, "parts": parts}
        measured.write_text(json.dumps({**figures, "machine": machine(_plan(folder)["numeric"]["threads"])}))
    return finished(folder)


def finished(folder: Path) -> Finished:
    """Read a training that came to its end in ``folder``."""
    scores = folder / "validation.json"
    return Finished(
        folder,
        _plan(folder),
        json.loads(scores.read_text()) if scores.is_file() else None,
        json.loads((folder / "measured.json").read_text()),
    )


def train_all(trainings: Mapping[Key, Training], at_once: int = 1) -> dict[Key, Finished]:
    """Train ``at_once`` of them side by side; the result has the order of ``trainings``."""
    with ThreadPoolExecutor(at_once) as pool:
        return dict(zip(trainings, pool.map(train, trainings.values())))


def threads_of_each(at_once: int) -> int:
    """Threads of a training among ``at_once``, so that together they take what PyTorch would take for one."""
    import torch

    return max(torch.get_num_threads() // at_once, 1)


def _command(changes: Mapping[str, Any], words: Sequence[object]) -> list[str]:
    if not changes:
        return caml(*words)
    return [sys.executable, str(CHANGED), json.dumps(dict(changes)), *map(str, words)]


def _claim(training: Training) -> None:
    """Note what is trained in the folder, so that a table never shows a run of other options under its name."""
    asked, note = _asked(training), training.folder / "asked.json"
    if not note.is_file():
        training.folder.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(asked))
    elif json.loads(note.read_text()) != asked:
        sys.exit(f"{training.folder} holds a training of other cases or options; remove it or name another folder.")


def _asked(training: Training) -> dict[str, Any]:
    """What tells one training from another, as JSON values."""
    asked = {
        "cohort": hashlib.sha256(training.cohort.read_bytes()).hexdigest(),
        "options": list(training.options),
        "changes": dict(training.changes),
    }
    return json.loads(json.dumps(asked))


def _plan(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "plan.json").read_text())["plan"]


def _parts(events: Path) -> int:
    """How many times the training was started or resumed."""
    from caml_core.events import decode

    found = [decode(line) for line in events.read_text(encoding="ascii").splitlines()]
    return sum(event is not None and event[0] == "started" for event in found)


def _seconds(folder: Path) -> float:
    """Seconds of steps and live validations, over all parts, as the model's card has them."""
    from caml_core.model_file import read_card

    return float(read_card(folder / "model.caml").info.provenance["seconds"])
