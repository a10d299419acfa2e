"""The loop: batches, steps, validation, checkpoints, and what is told to whoever listens."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from ..config import Plan
from ..data.cache import PreparedCase
from ..data.case import some_names
from ..data.sampler import Batch, TwoStreamSampler
from ..device import out_of_memory
from ..errors import ResourceError, TrainingError
from ..events import Listener
from ..model import CamlNetwork
from .checkpoint import known_scans, load_checkpoint, save_checkpoint
from .engine import Engine
from .memory import smaller_plan
from .plateau import Plateau, annealing, must_anneal
from .run_folder import MetricsTable, RunFolder
from .validation import Scores, validate

#: Seconds between checkpoints, and between signs of life in the events.
CHECKPOINT_SECONDS = 90.0
HEARTBEAT_SECONDS = 10.0
STEP_EVENT_SECONDS = 1.0
ROWS_PER_RUN = 200
#: A non-finite loss lowers the learning rate; so many in a row end the training.
MOST_FAILURES = 5
RATE_AFTER_FAILURE = 0.5
#: Good steps in a row after which a rate that was lowered is doubled again.
RECOVERY_STEPS = 200
#: Before a step that ran out of memory is tried again as it is: other programs may have had it for a moment.
MEMORY_PAUSE_SECONDS = 3.0


@dataclass(frozen=True)
class Streams:
    """Prepared cases by their part in the training. ``scans``: (id, digest of the voxels) of those with a label."""

    labeled: Sequence[PreparedCase]
    unlabeled: Sequence[PreparedCase]
    validation: Sequence[PreparedCase]
    scans: frozenset[tuple[str, str]] = frozenset()

    def digests(self) -> dict[str, str]:
        """Case -> hash of its files' contents."""
        return {case.id: case.digest for case in (*self.labeled, *self.unlabeled, *self.validation)}


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    ``reason``: finished, plateau (the Dice no longer rose), stopped, or failed (with the last good weights kept).
    ``held_out``: the figures of held-out cases at full resolution, where they were made. ``plateau``: that the Dice
    had levelled off, however it ended then: held-out cases decided when the end began.
    """

    reason: str
    iteration: int
    seconds: float
    scores: Scores | None
    message: str = ""
    held_out: dict[str, Any] = field(default_factory=dict)
    plateau: bool = False


#: Called with the plan, the network to look at (averaged weights) and the iteration, after each live validation.
Observer = Callable[[Plan, CamlNetwork, int], None]


class Trainer:
    """Trains in ``folder`` until the plan's iterations are done or ``stop`` says so.

    start: state of the model to start from. observer: told of each live validation, also where there is no case to
    validate on. Call ``run`` once; the trained engine is ``engine`` afterwards.
    """

    def __init__(
        self,
        plan: Plan,
        streams: Streams,
        folder: RunFolder,
        *,
        listener: Listener,
        stop: Callable[[], bool],
        start: dict[str, torch.Tensor] | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.plan = plan
        self.scans = streams.scans  # of all that have taken part with a label: also of what was replaced meanwhile
        self.engine = Engine(plan, len(streams.labeled), start)
        self._streams = streams
        self._folder = folder
        self._listener = listener
        self._stop = stop
        self._observer = observer
        self._table = MetricsTable(folder.metrics)
        self._iteration = 0
        self._seconds = 0.0  # of training, over all sessions of a resumed run
        self._failures = 0
        self._recovering = 0  # good steps since the rate was lowered, or raised again
        self._scores: Scores | None = None
        self._sums: dict[str, float] = {}
        self._summed = 0
        self._owed = False  # the validation of the iteration that was done last
        self._shrunk = False  # that the plan is smaller than the one on disk, and no step has succeeded with it yet
        self._known: dict[str, str] = {}  # the digests that the checkpoint had
        self._told_table = False  # that the table of losses cannot be written now
        self._plateau = Plateau() if plan.optimizer.schedule == "plateau" else None

    @property
    def total(self) -> int:
        """Iterations after which the training ends, as far as that is decided."""
        return self.plan.iterations if self.engine.annealing is None else self.engine.annealing[1]

    @property
    def digests(self) -> dict[str, str]:
        """Case -> hash of its files' contents, of all that have taken part: also of those that are left out by now."""
        return {**self._known, **self._streams.digests()}

    def resume(self, state: dict[str, Any] | None = None) -> None:
        """Go on from the folder's checkpoint, or from what it holds (``state``), bit for bit on the CPU.

        Raises TrainingError where the training was begun with another number of labelled cases.
        """
        state = load_checkpoint(self._folder.checkpoint) if state is None else state
        self.engine.load_state_dict(state["engine"])
        self._iteration = int(state["iteration"])
        self._seconds = float(state["seconds"])
        self._failures = int(state["failures"])
        self._recovering = int(state.get("recovering", 0))  # checkpoints of older versions lack it
        self._sums = dict(state["sums"])
        self._summed = int(state["summed"])
        self._scores = Scores.from_dict(state["scores"])
        self._owed = bool(state.get("owed", False))
        if self._plateau is not None and state.get("plateau"):
            self._plateau = Plateau(**state["plateau"])
        self._listener("log", {"message": f"Resumed at iteration {self._iteration}."})
        self._known = dict(state.get("cases") or {})  # checkpoints of older versions lack it
        self.scans |= known_scans(state)
        self._tell_changed()

    def _tell_changed(self) -> None:
        """Warn of cases whose files are no longer what they were, as far as that is known."""
        known = self._known
        changed = [name for name, digest in self._streams.digests().items() if known and known.get(name) != digest]
        if changed:
            message = (
                f"The files of {len(changed)} case(s) have changed since the training was begun "
                f"({some_names(changed)}). "
                "It goes on with what they are now; begin a new training where the earlier part should not count."
            )
            self._listener("warning", {"message": message})

    def run(self) -> Outcome:
        """Train; raises TrainingError or ResourceError where nothing good can be kept."""
        self._table.start(self._iteration - 1 if self._owed else self._iteration)
        self._clock = time.monotonic() - self._seconds
        self._saved_at = self._told_at = self._beat_at = time.monotonic()
        reason, message = "finished", ""
        if self._iteration == 0:
            self.save()  # a run that is killed at once can be resumed, too
        if self._owed:
            self._validate()
        with _loader(self.engine.device) as loader:
            pending = self._submit(loader)
            while self._iteration < self.total:
                if self._stop():
                    reason = "stopped"
                    break
                batch, plan = pending(), self.plan
                pending = self._submit(loader, ahead=1)
                message = self._iterate(batch)
                if message:
                    reason = "failed"
                    break
                if self.plan is not plan:  # memory did not suffice: the iteration again, with less
                    pending = self._submit(loader)
                    continue
                self._after_iteration()
        plateau = self._plateau is not None and self._plateau.reached
        if self._owed and not message:
            reason = "stopped"
        elif reason == "finished" and plateau:
            reason = "plateau"
        self.save()
        return Outcome(reason, self._iteration, self._seconds, self._scores, message, plateau=plateau)

    def save(self) -> None:
        """Write a checkpoint now."""
        self._seconds = time.monotonic() - self._clock
        save_checkpoint(
            self._folder.checkpoint,
            {
                "engine": self.engine.state_dict(),
                "iteration": self._iteration,
                "seconds": self._seconds,
                "failures": self._failures,
                "recovering": self._recovering,
                "sums": self._sums,
                "summed": self._summed,
                "scores": None if self._scores is None else self._scores.to_dict(),
                "owed": self._owed,
                "cases": self.digests,
                "scans": sorted(list(pair) for pair in self.scans),
                "plateau": None if self._plateau is None else self._plateau.to_dict(),
            },
        )
        self._saved_at = time.monotonic()
        self._listener("checkpoint", {"iteration": self._iteration, "path": str(self._folder.checkpoint)})

    def _save_in_passing(self) -> None:
        """Save; where another program holds the checkpoint, the next turn does: that must not end a training."""
        try:
            self.save()
        except ResourceError as error:
            if not isinstance(error.__cause__, PermissionError):
                raise
            self._saved_at = time.monotonic()
            self._listener("warning", {"message": f"This checkpoint was left out: {error}"})

    def _submit(self, loader: ThreadPoolExecutor | None, ahead: int = 0) -> Callable[[], Batch]:
        sampler = TwoStreamSampler(self.plan, self._streams.labeled, self._streams.unlabeled)
        if loader is None:
            return functools.partial(sampler.batch, self._iteration + ahead)
        return loader.submit(sampler.batch, self._iteration + ahead).result

    def _iterate(self, batch: Batch) -> str:
        """One step; returns a sentence where the training has to end."""
        try:
            losses = self._step(batch)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            self._shrink(error)
            return ""
        if self._shrunk:
            self._keep_plan()
        if losses is None:
            return self._failed()
        self._failures = 0
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._summed += 1
        self._iteration += 1
        self._recover()
        self._tell_step(losses)
        return ""

    def _step(self, batch: Batch) -> dict[str, float] | None:
        """A step; where memory runs out with the plan as it was, once more after a pause."""
        try:
            return self.engine.step(batch, self._iteration)
        except (RuntimeError, MemoryError) as error:
            if self._shrunk or not out_of_memory(error):
                raise
        self.engine.discard()  # out here, where the error no longer holds what the step had made
        _empty_cache()
        time.sleep(MEMORY_PAUSE_SECONDS)
        return self.engine.step(batch, self._iteration)

    def _failed(self) -> str:
        """A loss was not finite: skip the step with a lower rate; after several in a row end with the last weights."""
        self._failures += 1
        self._recovering = 0
        self._iteration += 1
        self.engine.rate_scale *= RATE_AFTER_FAILURE
        self._listener(
            "warning",
            {
                "message": f"The loss of iteration {self._iteration} was not finite; the step was skipped and the "
                f"learning rate lowered to {self.engine.learning_rate(self._iteration):.2g}."
            },
        )
        if self._failures < MOST_FAILURES:
            return ""
        return (
            f"The loss was not finite {MOST_FAILURES} times in a row, up to iteration {self._iteration}; the last "
            "good weights are kept. Look for a case with extreme grey values, unlike the others, and exclude it."
        )

    def _recover(self) -> None:
        """Raise a lowered learning rate again after enough good steps: one bad batch must not slow all the rest."""
        if self.engine.rate_scale >= 1:
            return
        self._recovering += 1
        if self._recovering >= RECOVERY_STEPS:
            self._recovering = 0
            self.engine.rate_scale = min(self.engine.rate_scale / RATE_AFTER_FAILURE, 1.0)
            rate = self.engine.learning_rate(self._iteration)
            self._listener("log", {"message": f"The steps are good again; the learning rate is raised to {rate:.2g}."})

    def _shrink(self, error: BaseException) -> None:
        """Out of device memory: go on with a smaller batch, then smaller patches, as long as there are such.

        The plan on disk stays what it was until a step has succeeded: where none does, a resumed training has it again.
        """
        self.engine.discard()
        smaller = smaller_plan(self.plan)
        if smaller is None:
            self.save()
            raise ResourceError(
                f"The device {self.plan.device} ran out of memory even with the smallest batch and patch; close other "
                "programs and resume the training, or choose the processor as device and resume it there (on the "
                "command line: --resume with --device cpu)."
            ) from error
        note = f"Out of memory: went on with batch {smaller.batch_labeled} and patch {smaller.geometry.patch}"
        note += "." if smaller.numeric == self.plan.numeric else ", which takes float32."
        self.plan = self.engine.plan = dataclasses.replace(smaller, notes=(*self.plan.notes, note))
        self._shrunk = True
        _empty_cache()
        self._listener("warning", {"message": note})

    def _keep_plan(self) -> None:
        """Write the plan with which a step has succeeded, after memory did not suffice for that of before.

        Device and arithmetic stay what they are on disk: those of this session may be others (``at_hand``).
        """
        begun = self._folder.read_plan() if self._folder.plan.is_file() else self.plan
        self._folder.write_plan(dataclasses.replace(self.plan, device=begun.device, numeric=begun.numeric))
        self._shrunk = False

    def _after_iteration(self) -> None:
        iteration = self._iteration
        if self._plateau and self.engine.annealing is None and must_anneal(iteration, self.plan.iterations):
            self.engine.annealing = iteration, self.plan.iterations
        if iteration == self.total or iteration % self.plan.validate_every == 0:
            self._owed = True
            if self._streams.validation and time.monotonic() - self._saved_at >= CHECKPOINT_SECONDS / 3:
                self._save_in_passing()  # a validation takes its time, and what was trained must not wait for its end
            self._validate()
        elif iteration % max(self.plan.span // ROWS_PER_RUN, 1) == 0:
            self._write_row(validated=False)
        if time.monotonic() - self._saved_at >= CHECKPOINT_SECONDS:
            self._save_in_passing()

    def _validate(self) -> None:
        """Validate, write the row that belongs to it, tell the observer; stays owed where asked to stop meanwhile."""
        network, plan = self.engine.final_network, self.plan
        if self._streams.validation:
            scores = self._scores_now(network)
            if scores is None:
                return
            self._scores = scores
            self._listener("validation", {"iteration": self._iteration, **scores.to_dict()})
            self._watch(scores.dice)
        self._owed = False
        self._write_row(validated=True)
        if self._observer is not None:
            self._observer(plan, network, self._iteration)

    def _scores_now(self, network: CamlNetwork) -> Scores | None:
        """Scores of the held-out cases; None where asked to stop. Raises ResourceError, with the training saved."""
        try:
            return validate(network, self.plan, self._streams.validation, stop=self._stop, device=self.engine.device)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            self.save()
            raise ResourceError(
                f"The device {self.plan.device} ran out of memory while the held-out cases were segmented; close other "
                "programs and resume the training, or choose another device."
            ) from error
        finally:
            self.engine.network.train()

    def _watch(self, dice: float) -> None:
        """Let the learning rate fall once the Dice has levelled off: of what CAML learns, not of labels alone."""
        still_alone = self._iteration <= self.plan.solo_iterations and self.plan.losses.solo_share < 1
        if self._plateau is None or self.engine.annealing is not None or still_alone:
            return
        if not self._plateau.add(dice):
            return
        self.engine.annealing = annealing(self._iteration, self.plan.iterations)
        self._listener(
            "log",
            {
                "message": f"The validated Dice no longer rises (best {self._plateau.best:.3f}); the learning rate "
                f"falls to zero until iteration {self.total}."
            },
        )

    def _write_row(self, validated: bool) -> None:
        means = {f"loss_{name}": value / max(self._summed, 1) for name, value in self._sums.items()}
        self._sums, self._summed = {}, 0
        row: dict[str, Any] = {
            "iteration": self._iteration,
            "seconds": round(time.monotonic() - self._clock, 1),
            "learning_rate": self.engine.learning_rate(self._iteration - 1),
            **means,
        }
        if validated and self._scores is not None:
            row["validation_dice"] = self._scores.dice
            row["validation_dice_v"] = self._scores.dice_v
            if self._scores.dice_a is not None:
                row["validation_dice_a"] = self._scores.dice_a
        if not self._table.append(**row) and not self._told_table:
            self._told_table = True
            message = "metrics.csv is open in another program; its rows are added when it is closed there."
            self._listener("warning", {"message": message})

    def _tell_step(self, losses: dict[str, float]) -> None:
        now = time.monotonic()
        if now - self._told_at >= STEP_EVENT_SECONDS or self._iteration == self.total:
            self._told_at = now
            rate = (now - self._clock) / self._iteration
            self._listener(
                "step",
                {
                    "iteration": self._iteration,
                    "total": self.total,
                    "losses": {k: round(v, 5) for k, v in losses.items()},
                    "learning_rate": self.engine.learning_rate(self._iteration - 1),
                    "seconds_left": round(rate * (self.total - self._iteration), 1),
                },
            )
        if now - self._beat_at >= HEARTBEAT_SECONDS:
            self._beat_at = now
            self._listener("heartbeat", {"iteration": self._iteration})


def _loader(device: torch.device) -> AbstractContextManager[ThreadPoolExecutor | None]:
    """A thread that makes the next batch while an accelerator computes.

    On the CPU the batch is made in between: a third thread on two cores makes those of the convolutions wait for each
    other.
    """
    return nullcontext() if device.type == "cpu" else ThreadPoolExecutor(1, thread_name_prefix="batches")


def _empty_cache() -> None:
    """Give back what PyTorch keeps of a GPU's memory beyond what is in use."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def check_streams(streams: Streams) -> None:
    """Raise TrainingError where there is nothing to learn from."""
    if not streams.labeled:
        raise TrainingError("There is no labelled case; training needs at least one.")
